//! Runs the lanes and adds up what they count.

mod checks;

use crate::bench;
use crate::boot::{Outcome, boot};
use crate::console::Show;
use crate::firmware::{self, Build, Firmware};
use crate::ktap::Counts;
use crate::lanes::{self, Boot, Count, Expect, Lane, Work};
use crate::paths;
use crate::process;
use crate::sanitize;
use crate::settings::{Board, Settings};
use anyhow::{Context, Result, bail};
use checks::{run_checks, run_miri, run_script, run_tests, run_timed};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

/// File of a boot's capture that holds its report.
const REPORT: &str = "report.txt";

/// Boots at a time; a run in QEMU keeps one core busy.
const PARALLEL_BOOTS: usize = 2;

/// Longest boot in seconds where a lane's row names none: the longest takes 15 on two idle cores, but
/// machines of continuous integration are shared, and sometimes stand still.
const BOOT_TIMEOUT: &str = "240";

/// Lines of a failed command's or boot's output that are shown.
const OUTPUT_TAIL: usize = 30;

/// Runs the lanes called `names`, all when there are none. `true` when everything passed.
pub(crate) fn run(names: &[String]) -> Result<bool> {
    let lanes = lanes::all();
    for name in names {
        if !lanes.iter().any(|lane| lane.name == name) {
            let known: Vec<_> = lanes.iter().map(|lane| lane.name).collect();
            bail!("lane {name}: allowed are {}", known.join(", "));
        }
    }
    let named = |lane: &Lane| names.is_empty() || names.iter().any(|name| name == lane.name);
    let boots =
        |lane: &Lane, wanted| matches!(lane.work, Work::Boots(build, ..) if build == wanted);
    let needed = |lane: &Lane| match lane.work {
        Work::Firmware(build) => lanes
            .iter()
            .any(|other| named(other) && boots(other, build)),
        _ => false,
    };
    let mut total = Tally::default();
    let mut built = HashMap::new();
    std::thread::scope(|scope| {
        let mut beside = None;
        for lane in lanes.iter().filter(|lane| named(lane) || needed(lane)) {
            if matches!(lane.work, Work::Boots(..) | Work::Sanitize) {
                total.join(beside.take());
            }
            let start = Instant::now();
            let result = match &lane.work {
                Work::Checks(checks) => run_checks(lane.name, checks),
                Work::Tests(checks) => run_tests(lane.name, checks),
                Work::Timed(check, limit) => run_timed(lane.name, check, *limit),
                Work::Script(path) => run_script(lane.name, path),
                Work::Miri(tests) => {
                    beside = Some(scope.spawn(move || {
                        let result = run_miri(lane.name, tests);
                        (lane.name, result, start.elapsed())
                    }));
                    continue;
                }
                Work::Firmware(build) => build_all(*build, &mut built),
                Work::Boots(build, count, boots) => {
                    run_boots(lane.name, *count, boots, built.get(build))
                }
                Work::Bench => lane_directory(lane.name).and_then(|path| bench::lane(&path)),
                Work::Sanitize => lane_directory(lane.name).and_then(|path| sanitize::lane(&path)),
            };
            total.lane(lane.name, result, start.elapsed());
            process::go_on()?;
        }
        total.join(beside);
        anyhow::Ok(())
    })?;
    println!("{}", total.counts);
    Ok(total.all_passed)
}

/// A lane that runs beside others: its name, what it counted, and how long it took.
type Beside<'scope> = ScopedJoinHandle<'scope, (&'static str, Result<Counts>, Duration)>;

/// The sum over the lanes.
#[derive(Debug)]
struct Tally {
    counts: Counts,
    all_passed: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            all_passed: true,
        }
    }
}

impl Tally {
    /// Waits for a lane that runs beside others and adds it.
    fn join(&mut self, lane: Option<Beside<'_>>) {
        let Some(lane) = lane else {
            return;
        };
        match lane.join() {
            Ok((name, result, took)) => self.lane(name, result, took),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Adds a lane. One that did not run or counted nothing is a failure.
    fn lane(&mut self, name: &str, result: Result<Counts>, took: Duration) {
        let counts = result.unwrap_or_else(|error| {
            println!("  not ok {name} did not run: {error:#}");
            failed(1)
        });
        let counts = if counts.total() == 0 {
            println!("  not ok {name} counted nothing");
            failed(1)
        } else {
            counts
        };
        println!("lane {name}: {counts} ({:.0} s)", took.as_secs_f64());
        self.counts.add(counts);
        self.all_passed &= counts.failed == 0;
    }
}

fn passed(passed: u32) -> Counts {
    Counts {
        passed,
        ..Counts::default()
    }
}

fn failed(failed: u32) -> Counts {
    Counts {
        failed,
        ..Counts::default()
    }
}

/// Folder of the lane's captures and logs.
fn lane_directory(lane: &str) -> Result<PathBuf> {
    let directory = paths::report().join("lanes").join(lane);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// `name` with only letters, digits and `.=-` left, as a file name.
fn file_name(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || ".=-".contains(c);
    name.chars()
        .map(|c| if keep(c) { c } else { '_' })
        .collect()
}

/// The last lines of `output` that may say what failed, marked so that none is taken for one of
/// ours.
fn tail(output: &str) -> String {
    let lines: Vec<_> = output.lines().filter(|line| tells(line)).collect();
    let last = &lines[lines.len().saturating_sub(OUTPUT_TAIL)..];
    last.iter().map(|line| format!("    | {line}\n")).collect()
}

/// Not a test that passed, nor a frame of a backtrace: with them the panic of a failed test is off
/// the screen.
fn tells(line: &str) -> bool {
    let line = line.trim();
    let frame = line.starts_with("at ")
        || line
            .split_once(": ")
            .is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    !(frame || line.is_empty() || line.ends_with(" ... ok") || line.contains(" ... ignored"))
}

/// The firmware of both boards.
#[derive(Debug)]
struct Built {
    virt: Firmware,
    rpi4: Firmware,
}

fn build_all(build: Build, built: &mut HashMap<Build, Built>) -> Result<Counts> {
    firmware::compile(&[Board::QemuVirt, Board::Rpi4], build)?;
    let firmware = Built {
        virt: Firmware::build(Board::QemuVirt, build)?,
        rpi4: Firmware::build(Board::Rpi4, build)?,
    };
    built.insert(build, firmware);
    Ok(passed(2))
}

fn run_boots(lane: &str, count: Count, boots: &[Boot], built: Option<&Built>) -> Result<Counts> {
    let built = built.context("there is no firmware")?;
    let directory = lane_directory(lane)?;
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Counts::default());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_BOOTS {
            scope.spawn(|| {
                while let Some(boot) = boots.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if process::interrupted() {
                        return;
                    }
                    let counts = run_boot(boot, count, built, &directory);
                    // A poisoned lock still holds the sum of the boots before.
                    let mut total = total.lock().unwrap_or_else(|error| error.into_inner());
                    total.add(counts);
                }
            });
        }
    });
    Ok(total
        .into_inner()
        .unwrap_or_else(|error| error.into_inner()))
}

/// Runs one boot and says how it went in a line.
fn run_boot(description: &Boot, count: Count, built: &Built, lane: &Path) -> Counts {
    let name = &description.name;
    let directory = lane.join(file_name(name));
    let result = try_boot(description, built, &directory);
    let judged = match &result {
        Ok(outcome) => judge(&description.expect, outcome, &directory),
        Err(error) => Err(format!("{error:#}")),
    };
    let counts = match &result {
        Ok(outcome) if count == Count::Results => outcome.verdict.counts,
        _ => passed(u32::from(judged.is_ok())),
    };
    match judged {
        Ok(line) => {
            println!("  ok {name}: {line}");
            counts
        }
        Err(why) => {
            let report = std::fs::read(directory.join(REPORT)).unwrap_or_default();
            let tail = tail(&String::from_utf8_lossy(&report));
            // In one piece, or the tails of two boots mix.
            println!(
                "  not ok {name}: {why}\n{tail}    see {}",
                directory.display()
            );
            Counts {
                failed: counts.failed.max(1),
                ..counts
            }
        }
    }
}

fn try_boot(description: &Boot, built: &Built, directory: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(directory)?;
    let mut values = description.settings.clone();
    if let Some(bytes) = description.payload {
        let path = directory.join("payload.bin");
        std::fs::write(&path, payload(bytes))?;
        values.push(("PAYLOAD", path.to_string_lossy().into_owned()));
    }
    let settings = Settings::read(Board::QemuVirt, |key| {
        let found = values.iter().find(|(name, _)| *name == key);
        let default = || (key == "TIMEOUT").then(|| BOOT_TIMEOUT.to_owned());
        found.map(|(_, value)| value.clone()).or_else(default)
    })?;
    let firmware = match settings.board {
        Board::QemuVirt => &built.virt,
        Board::Rpi4 => &built.rpi4,
    };
    boot(&settings, firmware, directory, Show::Nothing)
}

/// Whether the outcome is what was expected, and what to say about it.
fn judge(expect: &Expect, outcome: &Outcome, directory: &Path) -> Result<String, String> {
    let counts = format!(
        "{} ({:.1} s)",
        outcome.verdict.counts,
        outcome.took.as_secs_f64()
    );
    match (expect, &outcome.objection) {
        (Expect::Pass(lines), None) => match first_missing(lines, directory) {
            None => Ok(counts),
            Some(line) => Err(format!("no line of the report starts with `{line}`")),
        },
        (Expect::Traced, None) => {
            let trace = std::fs::read_to_string(directory.join("trace.txt")).unwrap_or_default();
            let bad = trace.lines().find(|line| line.contains("trace frame"));
            match bad {
                Some(line) => Err(line.into()),
                None if trace.is_empty() => Err("no trace frame came".into()),
                None => Ok(format!("{counts}, {} trace frames", trace.lines().count())),
            }
        }
        (Expect::Pass(_) | Expect::Traced, Some(why)) => Err(why.clone()),
        (Expect::Objection(_), None) => Err("it passed, but it must not".into()),
        (Expect::Objection(words), Some(why)) => {
            match words.iter().find(|word| !why.contains(**word)) {
                None => Ok(format!("refused as it must be: {why}")),
                Some(word) => Err(format!("`{word}` is not in the verdict: {why}")),
            }
        }
    }
}

/// The first of `lines` that no line of the report starts with.
fn first_missing<'a>(lines: &'a [String], directory: &Path) -> Option<&'a String> {
    let report = std::fs::read_to_string(directory.join(REPORT)).unwrap_or_default();
    let is_there = |wanted: &str| {
        report
            .lines()
            .any(|line| line.trim_start().starts_with(wanted))
    };
    lines.iter().find(|wanted| !is_there(wanted))
}

/// Bytes that repeat neither by the page nor by the line: a linear congruential generator's top
/// bytes (constants of Knuth's MMIX).
fn payload(bytes: usize) -> Vec<u8> {
    let mut state = bytes as u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

#[cfg(test)]
mod tests;
