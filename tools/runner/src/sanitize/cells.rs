//! The experiment's table with what the plugin found put in.
//!
//! The firmware announces each provocation with a line
//!
//! ```text
//! # cell hazard=H1 method=kmalloc-raw direction=to-device wrong=any
//! ```
//!
//! with the kind that may be found, or `any`, with ` planted` at its end if it is the hazard's planted
//! twin, and ends it with `# cell end`. A cell that was not observable on the machine
//! becomes one that was seen by the sanitizer if the plugin reported in it, and the twin of its hazard
//! was found in the same run: a plugin that finds nothing planted has no say.

use super::findings::Finding;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How the line that announces a provocation starts.
const CELL: &str = "# cell ";
/// The kinds that are provoked: this one or all.
const WRONG: &str = " wrong=";
const ANY: &str = "any";
/// How it ends if it is a planted twin's.
const PLANTED: &str = " planted";
/// How the line with a cell's result starts.
const RESULT: &str = "# experiment ";

/// Whether a finding was provoked, and the firmware had said so.
pub(super) fn is_provoked(finding: &Finding) -> bool {
    let announcement = finding.console.as_deref().and_then(Announcement::parse);
    announcement.is_some_and(|said| {
        let mut kinds = said.wrong.split(',');
        kinds.any(|kind| kind == ANY || kind == finding.kind)
    })
}

/// What the firmware said before it went wrong.
struct Announcement<'a> {
    /// Hazard, method and direction.
    cell: &'a str,
    wrong: &'a str,
    is_planted: bool,
}

impl<'a> Announcement<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let words = line.strip_prefix(CELL)?;
        let planted = words.strip_suffix(PLANTED);
        let (cell, wrong) = planted.unwrap_or(words).split_once(WRONG)?;
        Some(Self {
            cell,
            wrong,
            is_planted: planted.is_some(),
        })
    }

    /// Its first word, `hazard=H1`.
    fn hazard(&self) -> &'a str {
        self.cell.split(' ').next().unwrap_or_default()
    }
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
        let words = line.trim().strip_prefix(RESULT)?;
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
            "{RESULT}hazard={hazard} method={method} direction={direction} expected={expected} \
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
pub(super) struct Cells<'a>(Vec<Cell<'a>>);

impl<'a> Cells<'a> {
    /// Those of `report`, with the findings put in.
    pub(super) fn new(report: &'a str, findings: &[Finding]) -> Self {
        let mut reported: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        let mut twins = BTreeSet::<&str>::new();
        for finding in findings {
            let console = finding.console.as_deref();
            match console.and_then(Announcement::parse) {
                Some(said) if said.is_planted => drop(twins.insert(said.hazard())),
                Some(said) => reported.entry(said.cell).or_default().push(finding),
                None => {}
            }
        }
        let mut cells: Vec<_> = report.lines().filter_map(Cell::parse).collect();
        for cell in &mut cells {
            let hazard = format!("hazard={}", cell.hazard);
            if cell.how != "not-observable" || !twins.contains(&*hazard) {
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
        Self(cells)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are known in each way: by data, by structure, by the plugin, not at all.
    fn counts(&self) -> [usize; 4] {
        ["data", "structural", "sanitizer", "not-observable"]
            .map(|how| self.0.iter().filter(|cell| cell.how == how).count())
    }
}

/// Characters in the first column of the table, and in each other.
const NAME: usize = 13;
const COLUMN: usize = 7;

/// Each cell that the plugin has changed, then the table.
impl fmt::Display for Cells<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cell in self.0.iter().filter(|cell| cell.how == "sanitizer") {
            writeln!(f, "{cell}")?;
        }
        // In the order of the report.
        let (mut columns, mut methods) = (Vec::new(), Vec::new());
        for cell in &self.0 {
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
                let mut cells = self.0.iter();
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
mod tests {
    use super::super::findings::tests::finding;
    use super::*;

    const REPORT: &str = "\
# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=any
  # experiment hazard=H1 method=kmalloc-raw direction=to-device expected=stale observed=unknown how=not-observable evidence=\"Normal-WB; clean missing\"
# cell hazard=H1 method=kmalloc-map direction=to-device wrong=any
  # experiment hazard=H1 method=kmalloc-map direction=to-device expected=right observed=right how=structural evidence=\"64/64\"
# cell hazard=H2 method=kmalloc-raw direction=from-device wrong=any
  # experiment hazard=H2 method=kmalloc-raw direction=from-device expected=stale observed=unknown how=not-observable evidence=\"x\"
";

    const RAW: &str = "# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=any";
    const TWIN: &str = "# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=any planted";
    const OTHER: &str = "# cell hazard=H2 method=kmalloc-raw direction=from-device wrong=any";

    fn dirty(console: &str) -> Finding {
        finding(
            "device-reads-dirty-line",
            Some("edu"),
            "start_step",
            console,
        )
    }

    fn counts(findings: &[Finding]) -> [usize; 4] {
        Cells::new(REPORT, findings).counts()
    }

    #[test]
    fn a_cell_in_which_something_was_found_is_seen_if_its_twin_was() {
        assert_eq!(counts(&[dirty(RAW), dirty(TWIN)]), [0, 1, 1, 1]);
        let touched = finding("touched-while-owned", None, "load_lines", RAW);
        let cells = Cells::new(REPORT, &[touched.clone(), dirty(RAW), dirty(TWIN)]);
        assert_eq!(cells.0[0].observed, "stale");
        let cells = Cells::new(REPORT, &[touched, dirty(TWIN)]);
        assert_eq!(cells.0[0].observed, "torn");
        let cells = Cells::new(REPORT, &[dirty(RAW), dirty(TWIN)]);
        assert_eq!(
            cells.0[0].to_string(),
            "# experiment hazard=H1 method=kmalloc-raw direction=to-device expected=stale \
             observed=stale how=sanitizer evidence=\"device-reads-dirty-line in start_step, 1 \
             findings\""
        );
    }

    #[test]
    fn without_its_twin_nothing_changes() {
        for findings in [
            vec![dirty(RAW)],
            vec![dirty(TWIN)],
            vec![dirty(OTHER), dirty(TWIN)],
            vec![],
        ] {
            assert_eq!(counts(&findings), [0, 1, 0, 2]);
        }
    }

    #[test]
    fn only_what_was_announced_is_provoked() {
        let touch = "# cell hazard=H5 method=coherent direction=from-device wrong=stale-read";
        assert!(is_provoked(&dirty(RAW)) && is_provoked(&dirty(TWIN)));
        assert!(!is_provoked(&dirty(touch)));
        assert!(is_provoked(&dirty(&format!(
            "{touch},device-reads-dirty-line"
        ))));
        assert!(!is_provoked(&dirty("# cell end")) && !is_provoked(&dirty("ok 1 mmu")));
    }

    #[test]
    fn the_table_has_a_row_for_each_method() {
        let cells = Cells::new(REPORT, &[dirty(RAW), dirty(TWIN)]);
        let table = cells.to_string();
        let rows: Vec<_> = table.lines().skip(1).collect();
        assert_eq!(
            rows[0].split_whitespace().collect::<Vec<_>>(),
            ["H1>", "H2<"]
        );
        assert_eq!(
            rows[1].split_whitespace().collect::<Vec<_>>(),
            ["kmalloc-raw", "old/z", "?"]
        );
        assert_eq!(
            rows[2].split_whitespace().collect::<Vec<_>>(),
            ["kmalloc-map", "ok/s", "-"]
        );
    }
}
