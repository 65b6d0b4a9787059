//! Reads a KTAP version 1 report line by line and judges whether it is whole.
//!
//! A missing result must never look like a pass, so the judge checks more than the final counts:
//! every level has a plan, its results are numbered from 1 without gaps and as many as planned,
//! a suite is `ok` exactly when nothing in it failed, and the last line's totals are those of the
//! results counted here. Lines it does not know are log output and ignored.

mod parse;

use parse::Line;
use std::fmt;

/// Numbers of results that are no suites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Results that are `ok` and not skipped.
    pub(crate) passed: u32,
    /// Results that are `not ok`.
    pub(crate) failed: u32,
    /// Results that are `ok` with a SKIP directive.
    pub(crate) skipped: u32,
}

impl Counts {
    /// Adds `other`, kind by kind.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Number of results of any kind.
    pub(crate) fn total(self) -> u32 {
        self.passed + self.failed + self.skipped
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// What a report amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The results counted.
    pub(crate) counts: Counts,
    /// Names of the failed results, suites before them, joined by dots.
    pub(crate) failures: Vec<String>,
    /// Text after `Bail out!`.
    pub(crate) bail_out: Option<String>,
    /// What is missing or contradicts itself.
    pub(crate) problems: Vec<String>,
}

impl Verdict {
    /// Why the report is no proof that everything passed; `None` when it is.
    pub(crate) fn objection(&self) -> Option<String> {
        if let Some(reason) = &self.bail_out {
            return Some(format!("the firmware bailed out: {reason}"));
        }
        if let Some(first) = self.failures.first() {
            return Some(format!("{} failed, first {first}", self.counts.failed));
        }
        let first = self.problems.first()?;
        Some(format!("the report is incomplete: {first}"))
    }
}

/// One level of nesting.
#[derive(Debug, Default)]
struct Level {
    planned: Option<u32>,
    seen: u32,
    failed: bool,
    /// Names of the failed results inside, filled in as their suites end.
    failures: Vec<String>,
}

/// The reader; give it every line, then ask for the verdict.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// Open levels, outermost first; empty until the version line.
    levels: Vec<Level>,
    total: Option<Counts>,
    verdict: Verdict,
}

impl Judge {
    /// Takes one line, without its line end.
    pub(crate) fn line(&mut self, text: &str) {
        let Some((depth, line)) = parse::line(text) else {
            return;
        };
        if let Line::BailOut(reason) = line {
            self.verdict.bail_out.get_or_insert_with(|| reason.into());
            return;
        }
        if self.levels.is_empty() {
            if depth == 0 && line == Line::Version {
                self.levels.push(Level::default());
            }
            return;
        }
        if self.total.is_some() {
            self.problem(format!("`{}` after the total", text.trim()));
            return;
        }
        match line {
            Line::Version if depth == 0 => {
                self.problem("a second `KTAP version 1`: the firmware started over".into());
            }
            Line::Version => self.subtest(depth),
            Line::Plan(count) => self.plan(depth, count),
            Line::Result(result) => self.result(depth, &result),
            Line::Total(counts) if depth == 0 => self.total = Some(counts),
            Line::Total(_) | Line::BailOut(_) => {}
        }
    }

    /// Whether nothing more is to come: the total was read or the firmware bailed out.
    pub(crate) fn ended(&self) -> bool {
        self.total.is_some() || self.verdict.bail_out.is_some()
    }

    /// Ends the report.
    pub(crate) fn finish(mut self) -> Verdict {
        if self.levels.is_empty() {
            self.problem("no `KTAP version 1` line".into());
            return self.verdict;
        }
        while self.levels.len() > 1 {
            self.problem("a suite without its result".into());
            self.leave();
        }
        if let Some(outermost) = self.leave() {
            self.verdict.failures = outermost.failures;
        }
        let counts = self.verdict.counts;
        match self.total {
            None => self.problem("no final `N passed, N failed, N skipped` line".into()),
            Some(total) if total != counts => {
                self.problem(format!(
                    "its last line says {total}, its results are {counts}"
                ));
            }
            Some(_) if counts.total() == 0 => self.problem("no test ran".into()),
            Some(_) => {}
        }
        self.verdict
    }

    fn problem(&mut self, text: String) {
        self.verdict.problems.push(text);
    }

    /// Opens a suite at `depth`. One already open there has not got its result.
    fn subtest(&mut self, depth: usize) {
        self.enter(depth);
        let open = self.levels.last();
        if open.is_some_and(|level| level.seen > 0 || level.planned.is_some()) {
            self.enter(depth - 1);
            self.enter(depth);
        }
    }

    /// Makes `depth` the innermost level, opening and closing levels as needed.
    fn enter(&mut self, depth: usize) {
        while self.levels.len() > depth + 1 {
            self.problem("a suite without its result".into());
            self.leave();
        }
        while self.levels.len() <= depth {
            self.levels.push(Level::default());
        }
    }

    /// Closes the innermost level.
    fn leave(&mut self) -> Option<Level> {
        let level = self.levels.pop()?;
        match level.planned {
            None => self.problem("results without a plan".into()),
            Some(planned) if planned != level.seen => self.problem(format!(
                "the plan promises {planned} results, the last is {}",
                level.seen
            )),
            Some(_) => {}
        }
        Some(level)
    }

    fn plan(&mut self, depth: usize, count: u32) {
        self.enter(depth);
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        if level.seen > 0 || level.planned.is_some() {
            self.problem(format!("an unexpected plan 1..{count}"));
        } else {
            level.planned = Some(count);
        }
    }

    fn result(&mut self, depth: usize, result: &parse::TestResult<'_>) {
        // A level directly below this line's is the suite this line closes.
        let suite = (self.levels.len() == depth + 2)
            .then(|| self.leave())
            .flatten();
        self.enter(depth);
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        let expected = level.seen + 1;
        level.seen = result.number.unwrap_or(expected);
        level.failed |= !result.ok;
        let contradiction = match &suite {
            Some(suite) => {
                let inner = suite.failures.iter();
                level
                    .failures
                    .extend(inner.map(|name| format!("{}.{name}", result.name)));
                if !result.ok && suite.failures.is_empty() {
                    level.failures.push(result.name.into());
                }
                suite.failed == result.ok
            }
            None => {
                if !result.ok {
                    level.failures.push(result.name.into());
                }
                false
            }
        };
        if result.number != Some(expected) {
            let found = result.number.map_or("none".into(), |n| n.to_string());
            self.problem(format!(
                "result number {expected} was due, found {found} ({})",
                result.name
            ));
        }
        if contradiction {
            self.problem(format!("suite {} contradicts its results", result.name));
        }
        if suite.is_none() {
            let counts = &mut self.verdict.counts;
            match (result.ok, result.skipped) {
                (false, _) => counts.failed += 1,
                (true, true) => counts.skipped += 1,
                (true, false) => counts.passed += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests;
