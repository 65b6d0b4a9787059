//! A program that shares no code with the firmware, right and with one thing wrong, on a virtio device.

use super::corpus::Sums;
use super::findings::Finding;
use super::foreign;
use super::options::Options;
use super::watched::Watched;
use crate::console::Show;
use crate::paths;
use crate::process;
use crate::settings::{Board, Settings};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The device that the program drives.
const DEVICE: &str = "virtio-mmio@a003e00";

/// What the program says at its end.
const BYTES: &str = "bytes came";
const NO_BYTES: &str = "no bytes came";

/// The program with a bug, or without.
struct Program {
    /// The symbol that makes it wrong.
    symbol: &'static str,
    /// The kind and the function of the bug, if it has one.
    bug: Option<(&'static str, &'static str)>,
    /// What it says.
    says: &'static str,
}

/// All of them, the right one first.
const PROGRAMS: [Program; 10] = [
    Program {
        symbol: "NOTHING_WRONG",
        bug: None,
        says: BYTES,
    },
    wrong("TABLE_NOT_CLEANED", "device-reads-dirty-line", "request"),
    wrong("BUFFER_NOT_CLEANED", "device-writes-dirty-line", "request"),
    wrong(
        "NO_BARRIER_AFTER_CLEAN",
        "doorbell-without-barrier",
        "request",
    ),
    wrong(
        "NO_BARRIER_AFTER_STORES",
        "doorbell-without-barrier",
        "request",
    ),
    Program {
        // QEMU's device writes to where nothing is.
        says: NO_BYTES,
        ..wrong("BUFFER_OUTSIDE", "dma-outside-memory", "request")
    },
    wrong("BUFFER_TOUCHED", "touched-while-owned", "touch"),
    wrong("BUFFER_NOT_INVALIDATED", "stale-read", "sum"),
    wrong("BUFFER_INVALIDATED_TOO_EARLY", "stale-read", "sum"),
    wrong(
        "NEIGHBOUR_DESTROYED",
        "invalidate-destroys-neighbour",
        "take",
    ),
];

const fn wrong(symbol: &'static str, kind: &'static str, function: &'static str) -> Program {
    Program {
        symbol,
        bug: Some((kind, function)),
        says: BYTES,
    }
}

/// How the program is run.
struct Way {
    name: &'static str,
    /// Arguments of QEMU.
    device: &'static str,
    shadow: bool,
}

/// Both register layouts, with shadow mode and without.
const WAYS: [Way; 4] = [
    Way {
        name: "version 1",
        device: "-device virtio-rng-device",
        shadow: false,
    },
    Way {
        name: "version 2",
        device: "-device virtio-rng-device -global virtio-mmio.force-legacy=false",
        shadow: false,
    },
    Way {
        name: "version 1, shadow mode",
        device: "-device virtio-rng-device",
        shadow: true,
    },
    Way {
        name: "version 2, shadow mode",
        device: "-device virtio-rng-device -global virtio-mmio.force-legacy=false",
        shadow: true,
    },
];

/// What a run of it comes to.
#[derive(Debug)]
pub(super) struct Row {
    /// What is to be said of it.
    pub(super) text: String,
    /// Its part in the sums.
    pub(super) sums: Sums,
    /// What is wrong with it.
    pub(super) objection: Option<String>,
}

/// Builds and runs the program in all ways, two at a time, and once on cores with threads of their own.
/// What it leaves is in `directory`.
pub(super) fn judge_all(plugin: &Path, options: &Options, directory: &Path) -> Result<Vec<Row>> {
    let images = PROGRAMS.iter().map(|program| program.build(directory));
    let images = images.collect::<Result<Vec<_>>>()?;
    let (some, others) = WAYS.split_at(WAYS.len() / 2);
    std::thread::scope(|scope| {
        let judge = |ways: &'static [Way]| {
            let images = &images;
            scope.spawn(move || {
                let mut rows = Vec::new();
                for way in ways {
                    for (program, image) in PROGRAMS.iter().zip(images) {
                        rows.push(program.judge(way, image, plugin, options, directory));
                        process::go_on()?;
                    }
                }
                anyhow::Ok(rows)
            })
        };
        let mut rows = Vec::new();
        for thread in [judge(some), judge(others)] {
            let ended = thread.join();
            rows.extend(ended.map_err(|_| anyhow::anyhow!("a thread panicked"))??);
        }
        let refused = judge_threads(&images[0], plugin, options, directory);
        process::go_on()?;
        rows.push(row_of_threads(refused));
        Ok(rows)
    })
}

/// What the plugin says when cores run in threads of their own.
const REFUSAL: &str = "More than one thread";

/// Boots the program in `image` on two cores with a thread each, which the plugin must refuse by name.
///
/// # Errors
///
/// That it did not.
fn judge_threads(image: &Path, plugin: &Path, options: &Options, directory: &Path) -> Result<()> {
    let mut watch = options.watch(plugin, false);
    watch.has_threads = true;
    let settings = Settings {
        smp: 2,
        watch: Some(watch),
        ..settings(&WAYS[0])?
    };
    let watched = foreign::run(&settings, image, &directory.join("threads"), Show::Nothing)?;
    let said = watched.outcome.objection.unwrap_or_default();
    let is_refused = said.contains(REFUSAL) && said.contains("QEMU ended with exit status");
    if !is_refused || watched.findings.end.is_some() {
        bail!("they were not: {said}");
    }
    Ok(())
}

/// What [`judge_threads`] comes to.
fn row_of_threads(refused: Result<()>) -> Row {
    let name = "virtio: several threads are refused";
    let why = refused.err().map(|error| format!("{error:#}"));
    Row {
        text: match &why {
            None => format!("ok {name}"),
            Some(why) => format!("not ok {name}\n  {why}"),
        },
        sums: Sums::default(),
        objection: why.map(|why| format!("{name}: {why}")),
    }
}

/// The machine.
fn settings(way: &Way) -> Result<Settings> {
    let settings = Settings::read(Board::QemuVirt, |key| match key {
        "SMP" => Some("1".into()),
        "MEM" => Some("64M".into()),
        "ICOUNT" => Some("off".into()),
        "TIMEOUT" => Some("60".into()),
        "QEMU_EXTRA" => Some(way.device.into()),
        _ => None,
    })?;
    Ok(settings)
}

impl Program {
    /// Builds it with rustc alone: it is in no workspace.
    fn build(&self, directory: &Path) -> Result<PathBuf> {
        let sources = paths::root().join("tools/foreign");
        let path = directory.join(format!("{}.elf", self.symbol));
        let mut script = std::ffi::OsString::from("link-arg=-T");
        script.push(sources.join("rng.ld"));
        let output = Command::new("rustc")
            .args(["--edition", "2024", "--crate-type", "bin"])
            .args(["--target", "aarch64-unknown-none-softfloat"])
            .args(["-C", "panic=abort", "-C", "linker=rust-lld", "-C"])
            .arg(script)
            .arg(sources.join("rng.rs"))
            .arg("-o")
            .arg(&path)
            .env("BUG", self.symbol)
            .current_dir(paths::root())
            .output()
            .context("cannot start rustc")?;
        if !output.status.success() {
            bail!("rustc: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(path)
    }

    /// Runs it: its bug must be found and nothing else.
    fn judge(
        &self,
        way: &Way,
        image: &Path,
        plugin: &Path,
        options: &Options,
        directory: &Path,
    ) -> Row {
        let name = format!("{}, {}", self.symbol, way.name);
        let run = || -> Result<Watched> {
            let settings = Settings {
                watch: Some(options.watch(plugin, way.shadow)),
                ..settings(way)?
            };
            let directory = directory.join(name.replace([' ', ','], "-"));
            foreign::run(&settings, image, &directory, Show::Nothing)
        };
        let (findings, objection) = match run() {
            Ok(watched) => {
                let objection = self.objection(&watched);
                (watched.findings.list, objection)
            }
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        self.row(&name, &findings, objection)
    }

    /// Why a run proves nothing, if it does not.
    fn objection(&self, watched: &Watched) -> Option<String> {
        let jobs = watched.findings.end.as_ref().map(|end| &end.jobs);
        let jobs = jobs.and_then(|jobs| jobs.get(DEVICE)).copied();
        let said = watched.report.trim();
        foreign::objection(watched)
            .or_else(|| (said != self.says).then(|| format!("it says: {said}")))
            .or_else(|| (jobs.unwrap_or(0) == 0).then(|| format!("no job of {DEVICE} was seen")))
    }

    /// What `findings` come to.
    fn row(&self, name: &str, findings: &[Finding], objection: Option<String>) -> Row {
        let is_about = |finding: &&Finding| {
            self.bug.is_some_and(|(kind, function)| {
                finding.kind == kind
                    && finding.device.as_deref() == Some(DEVICE)
                    && finding.symbol.as_deref() == Some(function)
            })
        };
        let (about, wrong): (Vec<_>, Vec<_>) = findings.iter().partition(is_about);
        let sums = Sums {
            seeded: usize::from(self.bug.is_some()),
            // A run that proves nothing has caught nothing.
            caught: usize::from(!about.is_empty() && objection.is_none()),
            wrong: wrong.len(),
            twins: usize::from(self.bug.is_none()),
        };
        let why = objection.or_else(|| match (sums.missed(), sums.wrong) {
            (0, 0) => None,
            (0, wrong) => Some(format!("{wrong} findings of something else")),
            _ => Some("MISSED".into()),
        });
        let verdict = if why.is_none() { "ok" } else { "not ok" };
        let what = match self.bug {
            Some((kind, function)) => format!("{kind} in {function}"),
            None => "nothing".into(),
        };
        let name = format!("virtio, {name}: {what} is to be found");
        let mut text = format!("{verdict} {name}");
        if let Some(why) = &why {
            text += &format!("\n  {why}");
        }
        for finding in wrong {
            text += &format!("\n  FALSE: {}", finding.in_words());
        }
        Row {
            text,
            sums,
            objection: why.map(|why| format!("{name}: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::finding;
    use super::super::tests::{end, watched};
    use super::*;

    fn sums(program: &Program, findings: &[Finding], objection: Option<&str>) -> [usize; 4] {
        let row = program.row("x", findings, objection.map(Into::into));
        let Sums {
            seeded,
            caught,
            wrong,
            twins,
        } = row.sums;
        let is_right = caught + twins == 1 && wrong == 0 && objection.is_none();
        assert_eq!(row.objection.is_none(), is_right);
        assert_eq!(row.text.starts_with("ok "), is_right);
        [seeded, caught, wrong, twins]
    }

    #[test]
    fn a_bug_is_caught_where_it_is_and_by_its_device() {
        let program = wrong("BUFFER_NOT_INVALIDATED", "stale-read", "sum");
        let stale = finding("stale-read", Some(DEVICE), "sum", "");
        let stale = [stale];
        assert_eq!(sums(&program, &stale, None), [1, 1, 0, 0]);
        assert_eq!(sums(&program, &[], None), [1, 0, 0, 0]);
        for other in [
            finding("stale-read", None, "sum", ""),
            finding("stale-read", Some(DEVICE), "take", ""),
            finding("touched-while-owned", Some(DEVICE), "sum", ""),
        ] {
            let [stale] = stale.clone();
            assert_eq!(sums(&program, &[other, stale], None), [1, 1, 1, 0]);
        }
        assert_eq!(sums(&program, &stale, Some("cut")), [1, 0, 0, 0]);
    }

    #[test]
    fn the_right_one_is_silent_and_ran() {
        let [right, ..] = &PROGRAMS;
        let stale = finding("stale-read", Some(DEVICE), "sum", "");
        assert_eq!(sums(right, &[], None), [0, 0, 0, 1]);
        assert_eq!(sums(right, &[stale], None), [0, 0, 1, 1]);
        assert_eq!(sums(right, &[], Some("no job")), [0, 0, 0, 1]);
    }

    #[test]
    fn a_run_without_the_device_or_its_bytes_proves_nothing() {
        let [right, ..] = &PROGRAMS;
        let objection = |report: &str| right.objection(&watched(report, vec![], end("")));
        assert_eq!(objection("bytes came\r\n"), None);
        assert!(objection("no bytes came\n").is_some());
        assert!(objection("").is_some());
        let mut unseen = watched("bytes came", vec![], end(""));
        if let Some(end) = &mut unseen.findings.end {
            end.jobs.remove(DEVICE);
        }
        let objection = right.objection(&unseen).unwrap();
        assert_eq!(objection, "no job of virtio-mmio@a003e00 was seen");
    }

    #[test]
    fn threads_that_are_not_refused_are_objected_to() {
        assert_eq!(row_of_threads(Ok(())).objection, None);
        let row = row_of_threads(Err(anyhow::anyhow!("they were not: PASS")));
        assert!(
            row.text.starts_with("not ok virtio: several"),
            "{}",
            row.text
        );
        assert!(row.objection.unwrap().ends_with("they were not: PASS"));
    }

    #[test]
    fn there_is_one_of_each_symbol_that_the_source_lists() {
        let source = std::fs::read_to_string(paths::root().join("tools/foreign/rng.s")).unwrap();
        let listed = source
            .lines()
            .filter_map(|line| line.strip_prefix("//      "));
        let listed = listed.filter_map(|line| line.split_once("  "));
        let listed: Vec<_> = listed
            .map(|(symbol, _)| symbol)
            .filter(|symbol| !symbol.contains(char::is_lowercase))
            .collect();
        let symbols: Vec<_> = PROGRAMS[1..].iter().map(|program| program.symbol).collect();
        assert_eq!(listed, symbols);
    }
}
