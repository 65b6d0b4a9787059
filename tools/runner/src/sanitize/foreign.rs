//! Any firmware under the plugin.

use super::environment;
use super::json::{Account, Document};
use super::options::Options;
use super::plugin;
use super::watched::{Watched, watch};
use crate::console::Show;
use crate::firmware::Firmware;
use crate::paths;
use crate::settings::{Board, Guest, Settings, SettingsError};
use anyhow::Result;
use std::path::Path;

/// Fewer loads and stores than these are no firmware at work.
const FEW: u64 = 100;

/// Performs `make sanitize FIRMWARE=path`; `false` means that something was found.
pub(super) fn sanitize(path: &Path, options: &Options) -> Result<(bool, Document)> {
    let refuse = |cause: String| SettingsError::File {
        key: "FIRMWARE",
        path: path.display().to_string(),
        cause,
    };
    let meta = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
    if !meta.is_file() {
        return Err(refuse("not a regular file".into()).into());
    }
    let settings = Settings::read(Board::QemuVirt, environment)?;
    let icount = settings.icount && environment("ICOUNT").is_some();
    let settings = Settings { icount, ..settings };
    let plugin = plugin::build()?;
    let directory = paths::report().join("sanitize").join("foreign");
    let settings = Settings {
        watch: Some(options.watch(&plugin, true)),
        ..settings
    };
    let watched = run(&settings, path, &directory, Show::Terminal)?;
    for finding in &watched.findings.list {
        println!("\n{}", finding.in_words());
    }
    let found = watched.findings.list.len();
    let reported = || (found != 0).then(|| format!("{found} findings"));
    let objection = objection(&watched).or_else(reported);
    println!("{}", watched.account());
    match &objection {
        Some(why) => println!("FAIL: {why}"),
        None => println!("PASS: nothing was reported"),
    }
    let is_right = objection.is_none();
    let mut document = Document::new(None);
    document.add(Account {
        board: settings.board,
        run: "foreign",
        objection,
        work: watched.work(),
        findings: watched
            .findings
            .list
            .iter()
            .map(|found| (found, false))
            .collect(),
    });
    Ok((is_right, document))
}

/// Boots the image at `path`, which is given nothing that it does not ask for.
pub(super) fn run(
    settings: &Settings,
    path: &Path,
    directory: &Path,
    show: Show,
) -> Result<Watched> {
    let settings = Settings {
        guest: Guest::Foreign,
        ..settings.clone()
    };
    let firmware = Firmware {
        elf: path.into(),
        raw: path.into(),
    };
    watch(&settings, &firmware, directory, show)
}

/// Why a run proves nothing. How the firmware ended is its own matter, and whether it uses devices.
pub(super) fn objection(watched: &Watched) -> Option<String> {
    match &watched.findings.end {
        Some(end) => end.objection(FEW, watched.findings.list.len()),
        None => {
            let end = watched.outcome.objection.as_deref().unwrap_or("QEMU ended");
            Some(format!(
                "the plugin did not come to its end, so nothing is proved: {end}"
            ))
        }
    }
}
