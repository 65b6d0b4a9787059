//! `make bench`: measures the firmware and sets the figures beside others'.
//!
//! Three kinds of runs: the firmware measures its own operations; a firmware without benchmarks is
//! booted with different amounts of RAM, to see what booting takes; and its raw image is weighed.

mod json;
mod reference;
mod row;
mod table;

use crate::boot::boot;
use crate::console::Show;
use crate::firmware::{Build, Firmware};
use crate::ktap::Counts;
use crate::paths;
use crate::settings::{Board, Settings};
use anyhow::{Context, Result, anyhow, bail};
use reference::{Reference, Verdict, find};
use row::{Row, Skipped};
use std::path::Path;

/// The figures as JSON, in the folder of the report.
const JSON: &str = "bench.json";

/// Longest run of the measurements, in seconds.
const TIMEOUT: &str = "600";

/// MiB of RAM the machine is booted with.
fn boot_sizes(board: Board) -> &'static [u64] {
    match board {
        Board::QemuVirt => &[128, 1024, 8192],
        Board::Rpi4 => &[2048],
    }
}

/// What a boot is that only has to reach its report: one suite, because a report needs a result.
const QUICK: &str = "suite=boot";

/// All that was measured.
#[derive(Debug, Default)]
struct Results {
    board: &'static str,
    rows: Vec<Row>,
    skipped: Vec<Skipped>,
    /// Results of the firmware's own report, and one for each row added here.
    counts: Counts,
    /// What makes the measurements no success, a sentence each.
    faults: Vec<String>,
}

/// Measures with the settings of the environment and prints the table; `false` when something
/// could not be measured, or a bar that is held was missed.
pub(crate) fn bench() -> Result<bool> {
    let variable = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
    let results = measure(&variable, &paths::report().join("bench"))?;
    results.write(&paths::report().join(JSON))?;
    let references = reference::all();
    print!(
        "{}",
        table::table(&results.rows, &results.skipped, &references)
    );
    let loose = results.loose(&references);
    if !loose.is_empty() {
        println!("met, but not held by reference.txt: {}", loose.join(", "));
    }
    for fault in &results.faults {
        println!("FAIL: {fault}");
    }
    Ok(results.faults.is_empty())
}

/// Measures on virt and returns what was counted: a result for every row.
pub(crate) fn lane(directory: &Path) -> Result<Counts> {
    let results = measure(&|_| None, directory)?;
    results.write(&directory.join(JSON))?;
    for fault in &results.faults {
        println!("  not ok {fault}");
    }
    println!(
        "  {} rows, see {}",
        results.rows.len(),
        directory.join(JSON).display()
    );
    Ok(results.counts)
}

/// Measures on the machine that `variable` describes, as for `make run`. What is kept of the runs
/// goes to `directory`.
fn measure(variable: &dyn Fn(&str) -> Option<String>, directory: &Path) -> Result<Results> {
    let settings = |changes: &[(&str, String)]| {
        Settings::read(Board::QemuVirt, |key| {
            let change = changes.iter().find(|(name, _)| *name == key);
            change.map_or_else(|| variable(key), |(_, value)| Some(value.clone()))
        })
    };
    let given = settings(&[])?;
    let is_all = !given.has_key("bench");
    let cmdline = match is_all {
        true => format!("bench {}", given.cmdline),
        false => given.cmdline.clone(),
    };
    let or = |key: &str, default: &str| variable(key).unwrap_or_else(|| default.into());
    let common = [
        ("ICOUNT", or("ICOUNT", "on")),
        ("TIMEOUT", or("TIMEOUT", TIMEOUT)),
    ];
    let with = |changes: &[(&'static str, String)]| settings(&[&common[..], changes].concat());
    let own = with(&[("CMDLINE", cmdline)])?;
    let boots = boot_sizes(given.board).iter().map(|mib| {
        let changes = [("CMDLINE", QUICK.into()), ("MEM", format!("{mib}M"))];
        Ok((*mib, with(&changes)?))
    });
    let boots = boots.collect::<Result<Vec<_>>>()?;

    let bare = Firmware::build_bare(given.board, directory)?;
    let firmware = Firmware::build(given.board, Build::Plain)?;
    let mut results = std::thread::scope(|scope| {
        let booted = scope.spawn(|| boot_rows(&boots, &bare, directory));
        let own = own_rows(&own, &firmware, &directory.join("operations"));
        let booted = booted.join().map_err(|_| anyhow!("the boots panicked"))?;
        let mut results = own?;
        let booted = booted?;
        let flat = flat_row(&booted);
        for row in booted.into_iter().chain(flat) {
            results.add(row);
        }
        anyhow::Ok(results)
    })?;
    results.add(image_row(&bare)?);
    // The other board boots with an amount of RAM of its own.
    let is_complete = is_all && given.board == Board::QemuVirt;
    results.hold(&reference::all(), is_complete);
    Ok(results)
}

/// The rows the firmware measures itself.
fn own_rows(settings: &Settings, firmware: &Firmware, directory: &Path) -> Result<Results> {
    let outcome = boot(settings, firmware, directory, Show::Nothing)?;
    let report = read_report(directory)?;
    let mut results = Results {
        board: settings.board.name(),
        counts: outcome.verdict.counts,
        skipped: report.lines().filter_map(row::skipped).collect(),
        rows: report
            .lines()
            .filter_map(row::row)
            .collect::<Result<_, _>>()?,
        faults: outcome.objection.into_iter().collect(),
    };
    if results.rows.is_empty() {
        results.fault("nothing was measured".into());
    }
    Ok(results)
}

/// A row for each boot: instructions from reset to the report.
fn boot_rows(boots: &[(u64, Settings)], bare: &Firmware, directory: &Path) -> Result<Vec<Row>> {
    let row = |(mib, settings): &(u64, Settings)| {
        let directory = directory.join(format!("boot-{mib}M"));
        let outcome = boot(settings, bare, &directory, Show::Nothing)?;
        if let Some(why) = outcome.objection {
            bail!("a boot with {mib} MiB: {why}");
        }
        let report = read_report(&directory)?;
        let ns = report.lines().find_map(row::boot_ns);
        Ok(Row {
            op: "boot".into(),
            size: mib << 20,
            insns: ns.context("a report without `# boot ns=`")? as f64,
            max: None,
        })
    };
    boots.iter().map(row).collect()
}

/// How much more the dearest of `boots` takes than the cheapest, in percent; `None` for one boot.
fn flat_row(boots: &[Row]) -> Option<Row> {
    let insns = || boots.iter().map(|row| row.insns);
    let (least, most) = (insns().reduce(f64::min)?, insns().reduce(f64::max)?);
    (boots.len() > 1).then(|| Row {
        op: "boot_flat".into(),
        size: boots.iter().map(|row| row.size).max().unwrap_or(0),
        insns: (most - least) / least * 100.0,
        max: None,
    })
}

/// What the raw image weighs, in bytes.
fn image_row(bare: &Firmware) -> Result<Row> {
    let size = std::fs::metadata(&bare.raw)?.len();
    Ok(Row {
        op: "image_size".into(),
        size,
        insns: size as f64,
        max: None,
    })
}

fn read_report(directory: &Path) -> Result<String> {
    let path = directory.join("report.txt");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

impl Results {
    /// Writes the rows as JSON.
    fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, json::document(self.board, &self.rows, &self.skipped))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Rows that meet their bar, and nothing holds them to it.
    fn loose(&self, references: &[Reference]) -> Vec<String> {
        let is_loose = |row: &&Row| {
            find(references, row).is_some_and(|reference| {
                !reference.held && matches!(reference.judge(row), Verdict::Met | Verdict::Aim)
            })
        };
        let rows = self.rows.iter().filter(is_loose);
        rows.map(|row| format!("{} {}", row.op, row.size)).collect()
    }

    /// Adds a row that was measured from outside.
    fn add(&mut self, row: Row) {
        self.rows.push(row);
        self.counts.passed += 1;
    }

    /// Adds a failure.
    fn fault(&mut self, why: String) {
        self.faults.push(why);
        self.counts.failed += 1;
    }

    /// Adds a failure for every bar in `held` that is missed or was not measured. `all` says
    /// whether all of them were to be measured.
    fn hold(&mut self, references: &[Reference], all: bool) {
        for reference in references.iter().filter(|reference| reference.held) {
            let found = self.rows.iter().find(|row| {
                find(references, row).is_some_and(|found| std::ptr::eq(found, reference))
            });
            let name = match reference.size {
                Some(size) => format!("{} {size}", reference.op),
                None => reference.op.into(),
            };
            match found {
                None if all => self.fault(format!("{name}: a bar is held and was not measured")),
                None => {}
                Some(row) if reference.judge(row) == Verdict::Missed => {
                    let figure = reference.figure.of(row).unwrap_or(f64::INFINITY);
                    let must = reference.must.unwrap_or(0.0);
                    self.fault(format!(
                        "{name}: {figure} misses the bar it had reached, {must}"
                    ));
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(insns: f64) -> Results {
        Results {
            rows: vec![Row {
                op: "kmalloc_pair_const".into(),
                size: 64,
                insns,
                max: None,
            }],
            ..Results::default()
        }
    }

    fn references() -> Vec<Reference> {
        let mut all = reference::all();
        for reference in &mut all {
            reference.held = reference.op == "kmalloc_pair_const" && reference.must.is_some();
        }
        all
    }

    #[test]
    fn boots_that_differ_by_more_than_a_twentieth_are_not_flat() {
        let boot = |size, insns| Row {
            op: "boot".into(),
            size,
            insns,
            max: None,
        };
        let references = reference::all();
        let judged = |boots: &[Row]| {
            let row = flat_row(boots).unwrap();
            find(&references, &row).unwrap().judge(&row)
        };
        let boots = [boot(1, 1000.0), boot(2, 1020.0), boot(3, 1083.0)];
        assert_eq!(judged(&boots), Verdict::Missed);
        assert_eq!(judged(&boots[..2]), Verdict::Aim);
        assert_eq!(flat_row(&boots[..1]), None);
    }

    #[test]
    fn a_bar_that_is_held_and_missed_is_a_fault() {
        let mut missed = results(37.0);
        missed.hold(&references(), true);
        assert_eq!(
            missed.faults,
            ["kmalloc_pair_const 64: 37 misses the bar it had reached, 36"]
        );
        assert_eq!(missed.counts.failed, 1);
        let mut met = results(36.0);
        met.hold(&references(), true);
        assert!(met.faults.is_empty());
    }

    #[test]
    fn a_bar_that_is_held_and_not_measured_is_a_fault_of_a_whole_run() {
        let mut nothing = Results::default();
        nothing.hold(&references(), false);
        assert!(nothing.faults.is_empty());
        nothing.hold(&references(), true);
        assert_eq!(
            nothing.faults,
            ["kmalloc_pair_const 64: a bar is held and was not measured"]
        );
    }

    #[test]
    fn bars_that_could_be_held_are_named() {
        let mut references = references();
        assert!(results(36.0).loose(&references).is_empty());
        for reference in &mut references {
            reference.held = false;
        }
        assert_eq!(results(36.0).loose(&references), ["kmalloc_pair_const 64"]);
        assert!(results(37.0).loose(&references).is_empty());
    }
}
