//! The line shapes of KTAP version 1.

use super::Counts;

/// A line that means something to the judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// `KTAP version 1`.
    Version,
    /// `1..N`.
    Plan(u32),
    /// `ok N name` or `not ok N name`.
    Result(TestResult<'a>),
    /// `Bail out! reason`.
    BailOut(&'a str),
    /// `N passed, N failed, N skipped`.
    Total(Counts),
}

/// A result line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TestResult<'a> {
    /// Whether it starts with `ok`.
    pub(super) ok: bool,
    /// Its number, if it has one.
    pub(super) number: Option<u32>,
    /// Its description without the directive.
    pub(super) name: &'a str,
    /// Whether it has a SKIP directive.
    pub(super) skipped: bool,
}

/// Spaces per level of nesting.
const INDENT: usize = 2;

/// The nesting depth and meaning of `text`; `None` for log lines and diagnostics.
pub(super) fn line(text: &str) -> Option<(usize, Line<'_>)> {
    let body = text.trim_start_matches(' ');
    let spaces = text.len() - body.len();
    let body = body.trim_end();
    if let Some(reason) = body.strip_prefix("Bail out!") {
        return Some((spaces / INDENT, Line::BailOut(reason.trim())));
    }
    if !spaces.is_multiple_of(INDENT) {
        return None;
    }
    let line = if body == "KTAP version 1" {
        Line::Version
    } else if let Some(count) = body.strip_prefix("1..") {
        // A plan may carry a directive, `1..0 # SKIP reason`.
        Line::Plan(count.split(' ').next()?.parse().ok()?)
    } else if let Some(rest) = body.strip_prefix("not ok") {
        Line::Result(result(false, rest)?)
    } else if let Some(rest) = body.strip_prefix("ok") {
        Line::Result(result(true, rest)?)
    } else {
        Line::Total(total(body)?)
    };
    Some((spaces / INDENT, line))
}

fn result(ok: bool, rest: &str) -> Option<TestResult<'_>> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let (description, directive) = match rest.split_once('#') {
        Some((description, directive)) => (description.trim(), directive.trim_start()),
        None => (rest.trim(), ""),
    };
    let (first, after) = description.split_once(' ').unwrap_or((description, ""));
    let (number, name) = match first.parse() {
        Ok(number) => (Some(number), after.trim_start()),
        Err(_) => (None, description),
    };
    Some(TestResult {
        ok,
        number,
        name: name.strip_prefix("- ").unwrap_or(name),
        skipped: directive
            .split(' ')
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("skip")),
    })
}

/// The counts of a line that is exactly `N passed, N failed, N skipped`.
pub(super) fn total(body: &str) -> Option<Counts> {
    let mut parts = body.split(", ");
    let mut next = |word: &str| -> Option<u32> {
        parts
            .next()?
            .strip_suffix(word)?
            .strip_suffix(' ')?
            .parse()
            .ok()
    };
    let counts = Counts {
        passed: next("passed")?,
        failed: next("failed")?,
        skipped: next("skipped")?,
    };
    parts.next().is_none().then_some(counts)
}
