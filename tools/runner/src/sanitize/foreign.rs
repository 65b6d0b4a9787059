//! Any firmware under the plugin, and two programs of the repository that stand in for one.

use super::document::Document;
use super::environment;
use super::options::Options;
use super::plugin;
use super::watched::{Watched, watch};
use crate::console::Show;
use crate::firmware::Firmware;
use crate::paths;
use crate::settings::{Board, Guest, Settings, SettingsError};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Fewer loads and stores than these are no firmware at work.
const FEW: u64 = 100;

/// Performs `make sanitize FIRMWARE=path`; `false` means that something was found.
pub(super) fn sanitize(path: &Path, options: &Options) -> Result<bool> {
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
    let watched = run(
        &settings,
        path,
        &plugin,
        options,
        &directory,
        Show::Terminal,
    )?;
    for finding in &watched.findings.list {
        println!("\n{}", finding.in_words());
    }
    let objection = objection(&watched);
    let document = Document {
        findings: watched.findings.list.iter().collect(),
        corpus: None,
        objections: objection.iter().cloned().collect(),
    };
    document.write(&paths::report().join("sanitize.json"))?;
    let found = watched.findings.list.len();
    println!("{}", watched.account());
    if let Some(end) = watched.findings.end.as_ref()
        && end.accesses < FEW
    {
        println!("NOTE: the firmware hardly ran; was it loaded where it expects to be?");
    }
    match &objection {
        Some(why) => println!("FAIL: {why}"),
        None if found != 0 => println!("FAIL: {found} findings"),
        None => println!("PASS: nothing was reported"),
    }
    Ok(objection.is_none() && found == 0)
}

/// Boots the image at `path`, in shadow mode unless that was asked not to be.
fn run(
    settings: &Settings,
    path: &Path,
    plugin: &Path,
    options: &Options,
    directory: &Path,
    show: Show,
) -> Result<Watched> {
    let settings = Settings {
        guest: Guest::Foreign,
        watch: Some(options.watch(plugin, true)),
        ..settings.clone()
    };
    let firmware = Firmware {
        elf: path.into(),
        raw: path.into(),
    };
    watch(&settings, &firmware, directory, show)
}

/// Why a run proves nothing. How the firmware ended is its own matter, and whether it uses devices.
fn objection(watched: &Watched) -> Option<String> {
    match &watched.findings.end {
        Some(_) => None,
        None => {
            let end = watched.outcome.objection.as_deref().unwrap_or("QEMU ended");
            Some(format!(
                "the plugin did not come to its end, so nothing is proved: {end}"
            ))
        }
    }
}

/// A program that shares no code with the firmware.
pub(super) struct Program {
    /// Its name in the output.
    pub(super) name: &'static str,
    /// What rustc is told to have or not to have the bug.
    configuration: &'static [&'static str],
    /// The kind and the function of the bug, if it has it.
    bug: Option<(&'static str, &'static str)>,
}

impl Program {
    /// Both.
    pub(super) const ALL: [Self; 2] = [
        Self {
            name: "a foreign program with a bug",
            configuration: &["--cfg", "planted"],
            bug: Some(("stale-read", "sum")),
        },
        Self {
            name: "a foreign program without",
            configuration: &[],
            bug: None,
        },
    ];

    /// Builds it with rustc alone: it is in no workspace.
    fn build(&self, directory: &Path) -> Result<PathBuf> {
        let sources = paths::root().join("tools/foreign");
        let path = directory.join(match self.bug {
            Some(_) => "planted.elf",
            None => "right.elf",
        });
        let mut script = std::ffi::OsString::from("link-arg=-T");
        script.push(sources.join("rng.ld"));
        let output = Command::new("rustc")
            .args([
                "--edition",
                "2024",
                "--crate-type",
                "bin",
                "-C",
                "panic=abort",
            ])
            .args([
                "--target",
                "aarch64-unknown-none-softfloat",
                "-C",
                "linker=rust-lld",
                "-C",
            ])
            .arg(script)
            .args(self.configuration)
            .arg(sources.join("rng.rs"))
            .arg("-o")
            .arg(&path)
            .current_dir(paths::root())
            .output()
            .context("cannot start rustc")?;
        if !output.status.success() {
            bail!("rustc: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(path)
    }

    /// Runs it: its bug must be found and nothing else.
    ///
    /// # Errors
    ///
    /// What is not so.
    pub(super) fn judge(
        &self,
        plugin: &Path,
        options: &Options,
        directory: &Path,
    ) -> Result<String> {
        let directory = directory.join(self.name.replace(' ', "-"));
        std::fs::create_dir_all(&directory)?;
        let path = self.build(&directory)?;
        let settings = Settings::read(Board::QemuVirt, |key| match key {
            "SMP" => Some("1".into()),
            "MEM" => Some("64M".into()),
            "ICOUNT" => Some("off".into()),
            "TIMEOUT" => Some("30".into()),
            "QEMU_EXTRA" => Some("-device virtio-rng-device".into()),
            _ => None,
        })?;
        let watched = run(&settings, &path, plugin, options, &directory, Show::Nothing)?;
        if let Some(why) = objection(&watched) {
            bail!(why);
        }
        if !watched.report.contains("bytes came") {
            bail!("it says: {}", watched.report.trim());
        }
        let wrong = watched.findings.list.iter().find(|finding| {
            let here = (
                &*finding.kind,
                finding.symbol.as_deref().unwrap_or_default(),
            );
            self.bug != Some(here)
        });
        match (wrong, self.bug) {
            (Some(finding), _) => bail!("{}", finding.in_words()),
            (None, Some((kind, function))) if watched.findings.list.is_empty() => {
                bail!("{kind} in {function} was not found")
            }
            (None, Some((kind, function))) => Ok(format!("{kind} in {function} was found")),
            (None, None) => Ok("nothing was found".into()),
        }
    }
}
