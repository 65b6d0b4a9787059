//! The experiment's table with what the plugin found put in.
//!
//! A cell that was not observable on the machine becomes one that was seen by the sanitizer if the plugin
//! reported in it, and the twin of its hazard was found in the same run: a plugin that finds nothing planted
//! has no say.

use super::announcement::{self, Announcement, is_provoked};
use super::findings::Finding;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How the line with a cell's result starts, and each of the experiment's.
const RESULT: &str = "# experiment hazard=";
const EXPERIMENT: &str = "# experiment ";
/// How the line with their number starts.
const TOTALS: &str = "# experiment data=";
/// Results of a cell that is as it should be.
const RIGHT: [&str; 2] = ["right", "refused"];
/// How a cell is known that is not.
const NOT_OBSERVABLE: &str = "not-observable";
/// The hazard that only a build with seeds provokes: that a barrier is missing is not to be had from a
/// driver that is as it should be.
const ORDER: &str = "H7";

/// How much of the experiment is in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it, but for what only a build with seeds provokes.
    Whole,
    /// What was asked for.
    Part,
    /// What a build with seeds provokes.
    Seeds,
}

/// A cell's result.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell<'a> {
    hazard: &'a str,
    method: &'a str,
    direction: &'a str,
    expected: &'a str,
    observed: &'a str,
    how: &'a str,
    evidence: String,
}

impl<'a> Cell<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let words = line.trim().strip_prefix(EXPERIMENT)?;
        let (words, evidence) = words.split_once(" evidence=")?;
        let mut words = words.split(' ');
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
        Some(Self {
            hazard: value("hazard")?,
            method: value("method")?,
            direction: value("direction")?,
            expected: value("expected")?,
            observed: value("observed")?,
            how: value("how")?,
            evidence: evidence.trim_matches('"').into(),
        })
    }

    /// What the line that announces it says of it.
    fn announced(&self) -> String {
        let Self {
            hazard,
            method,
            direction,
            ..
        } = self;
        format!("hazard={hazard} method={method} direction={direction}")
    }

    /// At most six characters: what, and how it is known.
    fn short(&self) -> String {
        let what = match self.observed {
            "right" => "ok",
            "stale" => "old",
            "foreign-page" => "page",
            "elsewhere" => "else",
            "wrong" => "bad",
            "refused" => "no",
            "unguarded" => "open",
            what => what,
        };
        match self.how {
            "data" => format!("{what}/d"),
            "structural" => format!("{what}/s"),
            "sanitizer" => format!("{what}/z"),
            _ => "?".into(),
        }
    }
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hazard,
            method,
            direction,
            expected,
            observed,
            how,
            evidence,
        } = self;
        write!(
            f,
            "{RESULT}{hazard} method={method} direction={direction} expected={expected} \
             observed={observed} how={how} evidence=\"{evidence}\""
        )
    }
}

/// What the experiment calls what the plugin found.
fn observed(kind: &str) -> &'static str {
    match kind {
        "device-reads-dirty-line"
        | "device-writes-dirty-line"
        | "stale-read"
        | "doorbell-without-barrier" => "stale",
        "invalidate-destroys-neighbour" => "lost",
        "touched-while-owned" => "torn",
        "dma-outside-memory" | "wrong-bus-alias" => "elsewhere",
        _ => "unguarded",
    }
}

/// The cells of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cells<'a> {
    list: Vec<Cell<'a>>,
    /// What is not as was announced or expected, a sentence each.
    pub(super) objections: Vec<String>,
}

impl<'a> Cells<'a> {
    /// Those of `report`, with the findings put in.
    pub(super) fn new(report: &'a str, findings: &[Finding], extent: Extent) -> Self {
        let mut reported: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        let mut twins = BTreeSet::<&str>::new();
        for finding in findings.iter().filter(|finding| is_provoked(finding)) {
            let console = finding.console.as_deref();
            match console.and_then(Announcement::parse) {
                Some(said) if said.is_planted => drop(twins.insert(said.hazard())),
                Some(said) => reported.entry(said.cell).or_default().push(finding),
                None => {}
            }
        }
        let mut list: Vec<_> = report.lines().filter_map(Cell::parse).collect();
        for cell in &mut list {
            let hazard = format!("hazard={}", cell.hazard);
            if cell.how != NOT_OBSERVABLE || !twins.contains(&*hazard) {
                continue;
            }
            let found = reported.get(&*cell.announced()).into_iter().flatten();
            let as_expected = |finding: &&&Finding| observed(&finding.kind) == cell.expected;
            // What is expected says more than what came first.
            let one = found.clone().find(as_expected).or(found.clone().next());
            if let Some(one) = one {
                // Not the accessor that is inlined into it.
                let function = one.frames.last().map_or("?", |frame| &*frame.function);
                cell.observed = observed(&one.kind);
                cell.how = "sanitizer";
                cell.evidence = format!("{} in {function}, {} findings", one.kind, found.count());
            }
        }
        let mut objections = miscounted(report, list.len(), extent);
        objections.extend(announcement::objections(report, findings));
        objections.extend(not_seen(&list, extent));
        Self { list, objections }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many are known in each way: by data, by structure, by the plugin, not at all.
    fn counts(&self) -> [usize; 4] {
        ["data", "structural", "sanitizer", "not-observable"]
            .map(|how| self.list.iter().filter(|cell| cell.how == how).count())
    }
}

/// Why the results are not all, if they are not: there are none, the experiment counts others than
/// `report` has, or not all of those were understood, which are `count`.
fn miscounted(report: &str, count: usize, extent: Extent) -> Vec<String> {
    if count == 0 && extent != Extent::Part {
        return vec!["the experiment has no cells".into()];
    }
    let lines = report.lines().map(str::trim);
    let results = (lines.clone()).filter(|line| line.starts_with(RESULT));
    let results = results.count();
    let number = |word: &str| {
        let (how, number) = word.split_once('=')?;
        let is_known = ["data", "structural", NOT_OBSERVABLE].contains(&how);
        number.parse::<usize>().ok().filter(|_| is_known)
    };
    let totals: Vec<_> = lines.filter(|line| line.starts_with(TOTALS)).collect();
    let words = totals.iter().flat_map(|line| line.split(' '));
    let counted: usize = words.filter_map(number).sum();
    // A part of it prints none.
    let is_counted = counted == count || totals.is_empty() && extent != Extent::Whole;
    if is_counted && results == count {
        return Vec::new();
    }
    vec![format!(
        "the experiment counts {counted} cells, its report has {results}, of which {count} are \
         understood"
    )]
}

/// Each cell that is not what is expected of it, and each wrong one in which nothing was seen: every
/// device that the experiment drives has a model.
fn not_seen(cells: &[Cell<'_>], extent: Extent) -> Vec<String> {
    let objection = |cell: &Cell<'_>| {
        let Cell {
            expected, observed, ..
        } = cell;
        let name = cell.announced();
        if cell.how != NOT_OBSERVABLE {
            return (expected != observed)
                .then(|| format!("{name}: expected was {expected}, observed {observed}"));
        }
        let is_tried = cell.hazard != ORDER || extent == Extent::Seeds;
        let is_seen = RIGHT.contains(expected) || !is_tried;
        (!is_seen).then(|| format!("{name}: expected was {expected}, and nothing was found there"))
    };
    cells.iter().filter_map(objection).collect()
}

/// Characters in the first column of the table, and in each other.
const NAME: usize = 13;
const COLUMN: usize = 7;

/// Each cell that the plugin has changed, then the table.
impl fmt::Display for Cells<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cell in self.list.iter().filter(|cell| cell.how == "sanitizer") {
            writeln!(f, "{cell}")?;
        }
        // In the order of the report.
        let (mut columns, mut methods) = (Vec::new(), Vec::new());
        for cell in &self.list {
            let column = (cell.hazard, cell.direction);
            if !columns.contains(&column) {
                columns.push(column);
            }
            if !methods.contains(&cell.method) {
                methods.push(cell.method);
            }
        }
        write!(f, "{:NAME$}", "")?;
        for (hazard, direction) in &columns {
            let mark = match *direction {
                "to-device" => ">",
                "from-device" => "<",
                _ => "",
            };
            write!(f, "{:>COLUMN$}", format!("{hazard}{mark}"))?;
        }
        writeln!(f)?;
        for method in methods {
            write!(f, "{method:NAME$}")?;
            for column in &columns {
                let mut cells = self.list.iter();
                let cell = cells
                    .find(|cell| cell.method == method && (cell.hazard, cell.direction) == *column);
                write!(f, "{:>COLUMN$}", cell.map_or("-".into(), Cell::short))?;
            }
            writeln!(f)?;
        }
        let [data, structural, sanitizer, unseen] = self.counts();
        writeln!(
            f,
            "/d by compared bytes, /s by structure, /z by the sanitizer, ? not observable"
        )?;
        writeln!(
            f,
            "experiment data={data} structural={structural} sanitizer={sanitizer} \
             not-observable={unseen}"
        )
    }
}

#[cfg(test)]
mod tests;
