//! One run under the plugin.

use super::findings::{Finding, Findings};
use super::source::Source;
use crate::boot::{Outcome, boot};
use crate::console::Show;
use crate::firmware::Firmware;
use crate::machine::FINDINGS;
use crate::process;
use crate::settings::Settings;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// Fewer loads and stores than these are no boot of this repository's firmware: one without any test
/// makes a million on virt with one core and 128 MiB.
const BOOT: u64 = 500_000;

/// What came of it.
#[derive(Debug)]
pub(super) struct Watched {
    /// The run's own verdict.
    pub(super) outcome: Outcome,
    /// The text of the console.
    pub(super) report: String,
    /// What was found, with functions and lines.
    pub(super) findings: Findings,
}

/// Boots `firmware` as `settings` say, which name the plugin. The capture goes to `directory`.
pub(super) fn watch(
    settings: &Settings,
    firmware: &Firmware,
    directory: &Path,
    show: Show,
) -> Result<Watched> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(FINDINGS);
    // One that an earlier run left would be taken for this one's.
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    let outcome = boot(settings, firmware, directory, show)?;
    // QEMU is ended gently, so that the plugin comes to its end in half a run, too.
    process::go_on()?;
    let report = std::fs::read(directory.join("report.txt"))?;
    let mut findings = Findings::read(&path)?;
    let source = Source::of(&firmware.elf);
    for finding in &mut findings.list {
        source.locate(finding);
    }
    Ok(Watched {
        outcome,
        report: String::from_utf8_lossy(&report).into_owned(),
        findings,
    })
}

impl Watched {
    /// Why the run proves nothing, whatever was found: the firmware's verdict, or a plugin that did
    /// not watch.
    pub(super) fn objection(&self) -> Option<String> {
        if let Some(why) = &self.outcome.objection {
            return Some(why.clone());
        }
        match &self.findings.end {
            None => Some("the plugin did not come to its end, so nothing is proved".into()),
            Some(end) if end.jobs.values().all(|&jobs| jobs == 0) => {
                Some("the plugin saw no device work, so nothing is proved".into())
            }
            Some(end) => end.objection(BOOT, self.findings.list.len()),
        }
    }

    /// What the plugin did: loads and stores, and jobs by device.
    pub(super) fn work(&self) -> Option<(u64, BTreeMap<String, u64>)> {
        let end = self.findings.end.as_ref()?;
        Some((end.accesses, end.jobs.clone()))
    }

    /// What the plugin did, in a few words.
    pub(super) fn account(&self) -> String {
        let Some(end) = &self.findings.end else {
            return "the plugin did not come to its end".into();
        };
        let jobs = end
            .jobs
            .iter()
            .filter(|(_, jobs)| **jobs != 0)
            .map(|(device, jobs)| format!("{device} {jobs}"));
        let jobs = jobs.collect::<Vec<_>>().join(", ");
        let seconds = self.outcome.took.as_secs_f64();
        format!(
            "{} accesses, {} walks, jobs: {jobs} ({seconds:.1} s)",
            end.accesses, end.walks
        )
    }
}

/// Columns of a report.
const WIDTH: usize = 100;

impl Finding {
    /// The finding as an engineer reads it, over some lines.
    pub(super) fn in_words(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".into());
        let mut words = format!("{} at {}", self.kind, self.pa);
        words += &match (&self.device, &self.role) {
            (Some(device), Some(role)) => format!(", {role} of {device}"),
            (Some(device), None) => format!(", {device}"),
            _ => String::new(),
        };
        let source = self.source.as_deref().unwrap_or("no line known");
        words += &format!("\n  in {}, {source}", text(&self.symbol));
        for frame in self.frames.iter().skip(1) {
            let place = frame.place.as_deref().unwrap_or("no line known");
            words += &format!("\n  inlined into {}, {place}", frame.function);
        }
        words += &format!(
            "\n  pc {}, core {}, {} times",
            self.pc, self.cpu, self.count
        );
        words += &format!(
            "\n  mapped {}; missing: {}",
            text(&self.mapping),
            text(&self.missing)
        );
        words += &wrapped(&self.advice);
        match self.console.as_deref() {
            None | Some("") => {}
            Some(console) => words += &format!("\n  after the line: {console}"),
        }
        words
    }
}

/// `text` in lines of their own, none longer than [`WIDTH`] unless a word is.
fn wrapped(text: &str) -> String {
    let (mut lines, mut column) = (String::new(), WIDTH);
    for word in text.split_whitespace() {
        if column + 1 + word.len() > WIDTH {
            lines += "\n ";
            column = 1;
        }
        lines.push(' ');
        lines += word;
        column += 1 + word.len();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::finding;
    use super::*;

    #[test]
    fn advice_is_wrapped() {
        let text = "word ".repeat(50);
        let lines = wrapped(&text);
        assert_eq!(lines.split_whitespace().count(), 50);
        assert!(lines.starts_with("\n  word word") && lines.lines().count() == 4);
        assert!(lines.lines().all(|line| line.len() <= WIDTH));
    }

    #[test]
    fn a_finding_says_what_where_and_what_to_do() {
        let words = finding("stale-read", Some("edu"), "a::look", "ready").in_words();
        assert_eq!(
            words,
            "stale-read at 0x40200000, source of edu\n  in a::look, no line known\n  pc 0x40100010, \
             core 0, 3 times\n  mapped Normal write-back; missing: DC CVAC by VA before the \
             doorbell\n  Clean.\n  after the line: ready"
        );
    }
}
