//! What the firmware does wrong on purpose, and the experiment's table with what the plugin found put in.
//!
//! The firmware announces each provocation with a line
//!
//! ```text
//! # cell hazard=H1 method=kmalloc-raw direction=to-device wrong=device-reads-dirty-line place=start
//! ```
//!
//! with the kinds that it provokes, by commas: the first must be found, the others may follow from it.
//! `place=` and `device=` may narrow that down to a function, whose path it is the end of, or several, and
//! to a device. ` planted` at the end is that of the hazard's planted twin. `# cell end` ends it.
//!
//! A cell that was not observable on the machine becomes one that was seen by the sanitizer if the plugin
//! reported in it, and the twin of its hazard was found in the same run: a plugin that finds nothing planted
//! has no say.

use super::findings::Finding;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How the line that announces a provocation starts, and the line that ends it.
const CELL: &str = "# cell ";
const END: &str = "# cell end";
/// What is provoked comes after it.
const WRONG: &str = " wrong=";
/// The word of a planted twin.
const PLANTED: &str = "planted";
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

/// Whether a finding was provoked, and the firmware had said so.
pub(super) fn is_provoked(finding: &Finding) -> bool {
    let announcement = finding.console.as_deref().and_then(Announcement::parse);
    announcement.is_some_and(|said| said.is_about(finding))
}

/// What the firmware said before it went wrong.
struct Announcement<'a> {
    /// Hazard, method and direction.
    cell: &'a str,
    /// What must be found, then what may follow from it.
    kinds: Vec<&'a str>,
    /// The functions that it is in, if that is said.
    places: Vec<&'a str>,
    device: Option<&'a str>,
    is_planted: bool,
}

impl<'a> Announcement<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (cell, words) = line.strip_prefix(CELL)?.split_once(WRONG)?;
        let mut words = words.split(' ');
        let mut said = Self {
            cell,
            kinds: words.next()?.split(',').collect(),
            places: Vec::new(),
            device: None,
            is_planted: false,
        };
        for word in words {
            match word.split_once('=') {
                Some(("place", places)) => said.places = places.split(',').collect(),
                Some(("device", device)) => said.device = Some(device),
                None if word == PLANTED => said.is_planted = true,
                _ => return None,
            }
        }
        Some(said)
    }

    /// Its first word, `hazard=H1`.
    fn hazard(&self) -> &'a str {
        self.cell.split(' ').next().unwrap_or_default()
    }

    /// Whether it speaks of `finding`.
    fn is_about(&self, finding: &Finding) -> bool {
        let mut places = self.places.iter();
        self.kinds.contains(&&*finding.kind)
            && (self.places.is_empty() || places.any(|place| finding.is_in(place)))
            && (self.device.is_none() || self.device == finding.device.as_deref())
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
        objections.extend(not_provoked(report, findings));
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

/// Each announcement in which what it must provoke was not found.
fn not_provoked(report: &str, findings: &[Finding]) -> Vec<String> {
    let lines = report.lines().filter(|line| line.starts_with(CELL));
    let lines: BTreeSet<_> = lines.filter(|line| *line != END).collect();
    let objection = |line| {
        let Some(said) = Announcement::parse(line) else {
            return Some(format!("`{line}` announces nothing that is understood"));
        };
        let kind = said.kinds.first()?;
        let mut within = findings.iter().filter(|finding| {
            let console = finding.console.as_deref();
            console == Some(line)
        });
        let is_found = within.any(|finding| finding.kind == *kind && said.is_about(finding));
        (!is_found).then(|| format!("`{line}`: no {kind} was found there"))
    };
    lines.into_iter().filter_map(objection).collect()
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
mod tests {
    use super::super::findings::tests::finding;
    use super::*;

    const REPORT: &str = "\
# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=device-reads-dirty-line,touched-while-owned
# cell end
  # experiment hazard=H1 method=kmalloc-raw direction=to-device expected=stale observed=unknown how=not-observable evidence=\"Normal-WB; clean missing\"
  # experiment hazard=H1 method=kmalloc-map direction=to-device expected=right observed=right how=structural evidence=\"64/64\"
# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=device-reads-dirty-line planted
# cell hazard=H2 method=kmalloc-raw direction=from-device wrong=stale-read,device-reads-dirty-line
  # experiment hazard=H2 method=kmalloc-raw direction=from-device expected=stale observed=unknown how=not-observable evidence=\"x\"
  # experiment data=0 structural=1 not-observable=2 missing=0
";

    const RAW: &str = "# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=device-reads-dirty-line,touched-while-owned";
    const TWIN: &str = "# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=device-reads-dirty-line planted";
    const OTHER: &str = "# cell hazard=H2 method=kmalloc-raw direction=from-device wrong=stale-read,device-reads-dirty-line";

    fn dirty(console: &str) -> Finding {
        finding(
            "device-reads-dirty-line",
            Some("edu"),
            "start_step",
            console,
        )
    }

    fn counts(findings: &[Finding]) -> [usize; 4] {
        Cells::new(REPORT, findings, Extent::Whole).counts()
    }

    #[test]
    fn a_cell_in_which_something_was_found_is_seen_if_its_twin_was() {
        assert_eq!(counts(&[dirty(RAW), dirty(TWIN)]), [0, 1, 1, 1]);
        let touched = finding("touched-while-owned", None, "load_lines", RAW);
        let cells = Cells::new(
            REPORT,
            &[touched.clone(), dirty(RAW), dirty(TWIN)],
            Extent::Whole,
        );
        assert_eq!(cells.list[0].observed, "stale");
        let cells = Cells::new(REPORT, &[touched, dirty(TWIN)], Extent::Whole);
        assert_eq!(cells.list[0].observed, "torn");
        let cells = Cells::new(REPORT, &[dirty(RAW), dirty(TWIN)], Extent::Whole);
        assert_eq!(
            cells.list[0].to_string(),
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
        let any = "# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=any";
        assert!(!is_provoked(&dirty(any)));
    }

    #[test]
    fn what_is_provoked_elsewhere_or_by_another_device_is_not() {
        for (more, expected) in [
            ("place=start_step", true),
            ("place=look,Io::start_step planted", false),
            ("place=step", false),
            ("place=look device=edu", false),
            ("place=look,start_step device=edu", true),
            ("device=edu planted", true),
            ("device=fw_cfg", false),
            ("places=start_step", false),
        ] {
            let finding = dirty(&format!("{RAW} {more}"));
            assert_eq!(is_provoked(&finding), expected, "{more}");
            assert_eq!(Cells::new("", &[finding], Extent::Part).list, []);
        }
    }

    /// What is objected to about `report`.
    fn objections(report: &str, findings: &[Finding]) -> Vec<String> {
        Cells::new(report, findings, Extent::Whole).objections
    }

    /// A report of one cell, announced as `line`, with these results.
    fn one_cell(line: &str, hazard: &str, results: &str) -> String {
        format!(
            "{line}\n# cell end\n  # experiment hazard={hazard} method=kmalloc-raw direction=to-device \
             {results} evidence=\"x\"\n  # experiment data=1 structural=0 not-observable=0 missing=0\n"
        )
    }

    #[test]
    fn a_provocation_in_which_nothing_was_found_is_objected_to() {
        let report = one_cell(TWIN, "H1", "expected=torn observed=torn how=data");
        assert_eq!(objections(&report, &[dirty(TWIN)]), [""; 0]);
        let nothing = format!("`{TWIN}`: no device-reads-dirty-line was found there");
        assert_eq!(objections(&report, &[]), [nothing.clone()]);
        assert_eq!(objections(&report, &[dirty(RAW)]), [nothing.clone()]);
        // What may follow is not enough, nor is what is elsewhere.
        let report = report.replace(TWIN, RAW);
        let touched = finding("touched-while-owned", None, "load", RAW);
        assert_eq!(objections(&report, &[touched]).len(), 1);
        let narrow = format!("{RAW} place=look");
        let report = report.replace(RAW, &narrow);
        assert_eq!(objections(&report, &[dirty(&narrow)]).len(), 1);
        let report = report.replace(&narrow, "# cell test=kmap wrong");
        let objection = &objections(&report, &[])[0];
        assert!(
            objection.contains("nothing that is understood"),
            "{objection}"
        );
    }

    #[test]
    fn a_wrong_cell_that_nobody_saw_is_objected_to() {
        assert_eq!(
            objections(REPORT, &[dirty(RAW), dirty(TWIN)]),
            [
                &format!("`{OTHER}`: no stale-read was found there"),
                "hazard=H2 method=kmalloc-raw direction=from-device: expected was stale, and nothing was \
                 found there"
            ]
        );
        // Without the twin the finding has no say.
        assert_eq!(objections(REPORT, &[dirty(RAW)]).len(), 4);
        let unseen = "expected=stale observed=unknown how=not-observable";
        let seen = |hazard, results| objections(&one_cell("", hazard, results), &[]).len();
        assert_eq!(seen("H1", unseen), 1);
        assert_eq!(seen("H7", unseen), 0);
        let right = "expected=right observed=unknown how=not-observable";
        assert_eq!(seen("H1", right), 0);
        let seeds = one_cell("", "H7", unseen);
        let objections = Cells::new(&seeds, &[], Extent::Seeds).objections;
        assert!(objections[0].ends_with("nothing was found there"));
    }

    #[test]
    fn a_cell_that_is_not_what_was_expected_is_objected_to() {
        let report = |observed| {
            let results = format!("expected=stale observed={observed} how=data");
            one_cell("", "H1", &results)
        };
        assert_eq!(objections(&report("stale"), &[]), [""; 0]);
        assert_eq!(objections(&report("right"), &[]).len(), 1);
        // The plugin found something else than what the cell is about.
        let touched = finding("touched-while-owned", None, "load", RAW);
        let objections = objections(REPORT, &[touched, dirty(TWIN)]);
        assert!(
            objections
                .iter()
                .any(|text| text.ends_with("expected was stale, observed torn"))
        );
    }

    #[test]
    fn results_that_were_lost_are_objected_to() {
        let lines: Vec<_> = REPORT.lines().collect();
        let cut = lines[..lines.len() - 2].join("\n");
        let cut = format!("{cut}\n{}\n", lines[lines.len() - 1]);
        let objection = &objections(&cut, &[])[0];
        assert!(objection.starts_with("the experiment counts 3 cells, its report has 2"));
        let unreadable = REPORT.replace("expected=right", "expect=right");
        let objection = &objections(&unreadable, &[])[0];
        assert!(objection.ends_with("its report has 3, of which 2 are understood"));
        for (report, extent, count) in [
            ("", Extent::Whole, 1),
            ("", Extent::Part, 0),
            ("", Extent::Seeds, 1),
            (lines[2], Extent::Whole, 2),
            (lines[2], Extent::Part, 1),
        ] {
            let objections = Cells::new(report, &[], extent).objections;
            assert_eq!(objections.len(), count, "{extent:?} {objections:?}");
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_method() {
        let cells = Cells::new(REPORT, &[dirty(RAW), dirty(TWIN)], Extent::Whole);
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
