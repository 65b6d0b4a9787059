//! The seeded bugs that a report announces, and what became of each.

use super::findings::Finding;
use crate::settings::Board;
use std::fmt;
use std::ops::Add;

/// How a line that announces a seed starts.
const SEED: &str = "# seed ";

/// How the lines start with which a run says how many there were, and what is next in the first of them.
const COUNTS: &str = "# corpus ";
const PLANTED: &str = "planted=";

/// How the line starts that says why a seed was skipped that should have run.
const SKIPPED: &str = "# skipped ";

/// The kind of a seed in which nothing must be found, and the device of one that needs none.
const NOTHING: &str = "none";

/// How many bugs and right twins the firmware of each board has. One that is skipped would else be
/// missed by nobody.
const QEMU_VIRT: Planted = Planted {
    bugs: 43,
    twins: 12,
};
const RPI4: Planted = Planted {
    bugs: 48,
    twins: 14,
};

/// How many seeds there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planted {
    bugs: usize,
    twins: usize,
}

impl Planted {
    /// In the firmware of `board`.
    const fn of(board: Board) -> Self {
        match board {
            Board::QemuVirt => QEMU_VIRT,
            Board::Rpi4 => RPI4,
        }
    }
}

/// As the run counts them.
impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PLANTED}{} twins={}", self.bugs, self.twins)
    }
}

/// A seed, as it was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seed<'a> {
    /// The whole line.
    line: &'a str,
    name: &'a str,
    /// What must be found, then what may follow from it.
    kinds: Vec<&'a str>,
    device: &'a str,
    /// The functions with what must be found.
    places: Vec<&'a str>,
}

impl<'a> Seed<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.strip_prefix(SEED)?.split(' ');
        let name = words.next()?;
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
        let (kinds, device, place) = (value("kind")?, value("device")?, value("place")?);
        let kinds = kinds.split(',').filter(|kind| *kind != NOTHING);
        Some(Self {
            line,
            name,
            kinds: kinds.collect(),
            device,
            places: place.split(',').collect(),
        })
    }

    /// Whether it was found here: of one of its kinds, by its device or none, in its function.
    fn is_about(&self, finding: &Finding) -> bool {
        self.kinds.contains(&&*finding.kind)
            && finding.device.as_deref().unwrap_or(NOTHING) == self.device
            && self.places.iter().any(|place| finding.is_in(place))
    }
}

/// What became of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row<'a> {
    seed: Seed<'a>,
    is_caught: bool,
    /// What was found of something else, or elsewhere.
    wrong: Vec<&'a Finding>,
}

/// What a corpus comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Bugs that ran.
    pub(super) seeded: usize,
    /// Of those, found as they must be.
    pub(super) caught: usize,
    /// Findings that must not be.
    pub(super) wrong: usize,
    /// Right twins that ran.
    pub(super) twins: usize,
}

impl Sums {
    /// Bugs that were not found.
    pub(super) fn missed(&self) -> usize {
        self.seeded - self.caught
    }
}

impl Add for Sums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            seeded: self.seeded + other.seeded,
            caught: self.caught + other.caught,
            wrong: self.wrong + other.wrong,
            twins: self.twins + other.twins,
        }
    }
}

/// The line that ends `make sanitize`.
impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seeded,
            caught,
            wrong,
            ..
        } = self;
        let missed = self.missed();
        write!(
            f,
            "seeded {seeded}, caught {caught}, missed {missed}, false {wrong}"
        )
    }
}

/// What became of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement<'a> {
    rows: Vec<Row<'a>>,
    /// Findings outside of every seed.
    strays: Vec<&'a Finding>,
    /// What the run says of itself and is not so.
    pub(super) objection: Option<String>,
}

impl<'a> Judgement<'a> {
    /// Compares what `report` announces with the findings, and with what `board` has.
    pub(super) fn new(
        board: Board,
        report: &'a str,
        findings: impl IntoIterator<Item = &'a Finding>,
    ) -> Self {
        Self::with(Planted::of(board), report, findings)
    }

    fn with(
        planted: Planted,
        report: &'a str,
        findings: impl IntoIterator<Item = &'a Finding>,
    ) -> Self {
        let mut rows: Vec<_> = report.lines().filter_map(Seed::parse).map(empty).collect();
        let mut strays = Vec::new();
        for finding in findings {
            let console = finding.console.as_deref().unwrap_or_default();
            match rows.iter_mut().find(|row| row.seed.line == console) {
                None => strays.push(finding),
                Some(row) if !row.seed.is_about(finding) => row.wrong.push(finding),
                Some(row) => row.is_caught |= row.seed.kinds.first() == Some(&&*finding.kind),
            }
        }
        let mut judgement = Self {
            rows,
            strays,
            objection: None,
        };
        judgement.objection = judgement.miscounted(planted, report);
        judgement
    }

    /// Why the run is not the whole corpus, if it is not: it counts other seeds than were announced, or
    /// than `planted` says that there are.
    fn miscounted(&self, planted: Planted, report: &str) -> Option<String> {
        let lines = report.lines().map(str::trim);
        let skipped = (lines.clone()).find(|line| line.starts_with(SKIPPED));
        let counts = lines
            .filter_map(|line| line.strip_prefix(COUNTS))
            .find(|counts| counts.starts_with(PLANTED));
        let Sums { seeded, twins, .. } = self.sums();
        let here = Planted {
            bugs: seeded,
            twins,
        };
        let why = skipped.map(|line| format!(" ({line})")).unwrap_or_default();
        match counts {
            None => Some("the corpus did not come to its end".into()),
            Some(counts) if counts != here.to_string() => {
                Some(format!("the run counts {counts}, its report has {here}"))
            }
            Some(_) if here != planted => Some(format!(
                "its report has {here}, the board has {planted}{why}"
            )),
            Some(_) => None,
        }
    }

    /// Whether `finding`, one of those that it was made of, must be found or may be.
    pub(super) fn expects(&self, finding: &Finding) -> bool {
        let wrong = self.rows.iter().flat_map(|row| &row.wrong);
        !(wrong.chain(&self.strays)).any(|wrong| std::ptr::eq(*wrong, finding))
    }

    /// The sums.
    pub(super) fn sums(&self) -> Sums {
        let bugs = || self.rows.iter().filter(|row| !row.seed.kinds.is_empty());
        let wrong: usize = self.rows.iter().map(|row| row.wrong.len()).sum();
        Sums {
            seeded: bugs().count(),
            caught: bugs().filter(|row| row.is_caught).count(),
            wrong: wrong + self.strays.len(),
            twins: self.rows.len() - bugs().count(),
        }
    }
}

fn empty(seed: Seed<'_>) -> Row<'_> {
    Row {
        seed,
        is_caught: false,
        wrong: Vec::new(),
    }
}

/// The table, a line for each seed, and what was found that must not be.
impl fmt::Display for Judgement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["seed", "kind", "device", "place", ""];
        write_row(f, heads)?;
        for Row {
            seed,
            is_caught,
            wrong,
        } in &self.rows
        {
            let kind = seed.kinds.first().unwrap_or(&"none: a right twin");
            let verdict = match (seed.kinds.is_empty(), is_caught) {
                (true, _) if wrong.is_empty() => "silent",
                (true, _) => "NOT SILENT",
                (false, true) => "caught",
                (false, false) => "MISSED",
            };
            write_row(f, [seed.name, kind, seed.device, seed.places[0], verdict])?;
            for finding in wrong {
                write_wrong(f, finding)?;
            }
        }
        for finding in &self.strays {
            write_wrong(f, finding)?;
        }
        Ok(())
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, cells: [&str; 5]) -> fmt::Result {
    let [name, kind, device, place, verdict] = cells;
    writeln!(
        f,
        "{name:<46} {kind:<28} {device:<11} {place:<36} {verdict}"
    )
}

fn write_wrong(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    for (number, line) in finding.in_words().lines().enumerate() {
        let mark = if number == 0 { "FALSE: " } else { "" };
        writeln!(f, "    {mark}{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::finding;
    use super::*;

    const BUG: &str = "# seed edu.a kind=stale-read,touched-while-owned device=edu place=a";
    const TWIN: &str = "# seed edu.b kind=none device=edu place=b";

    fn report(planted: usize, twins: usize) -> String {
        format!(
            "  1..3\n{BUG}\n  ok 1 edu.a\n{TWIN}\n  ok 2 edu.b\n  # corpus planted={planted} \
             twins={twins}\n"
        )
    }

    const ONE_EACH: Planted = Planted { bugs: 1, twins: 1 };

    fn sums(findings: &[Finding]) -> [usize; 4] {
        let report = report(1, 1);
        let judgement = Judgement::with(ONE_EACH, &report, findings);
        assert_eq!(judgement.objection, None);
        let Sums {
            seeded,
            caught,
            wrong,
            ..
        } = judgement.sums();
        [seeded, caught, seeded - caught, wrong]
    }

    fn stale(console: &str) -> Finding {
        finding("stale-read", Some("edu"), "x::corpus::a", console)
    }

    #[test]
    fn a_bug_that_is_found_where_it_is_is_caught() {
        assert_eq!(sums(&[stale(BUG)]), [1, 1, 0, 0]);
        assert_eq!(sums(&[]), [1, 0, 1, 0]);
    }

    #[test]
    fn what_may_follow_is_not_false_and_not_enough() {
        let follows = finding("touched-while-owned", Some("edu"), "x::a", BUG);
        assert_eq!(sums(&[stale(BUG), follows.clone()]), [1, 1, 0, 0]);
        assert_eq!(sums(&[follows]), [1, 0, 1, 0]);
    }

    #[test]
    fn another_kind_device_or_place_is_false() {
        for other in [
            finding("stale-code", Some("edu"), "x::a", BUG),
            finding("stale-read", None, "x::a", BUG),
            finding("stale-read", Some("edu"), "x::aa", BUG),
            finding("stale-read", Some("edu"), "a::b", BUG),
        ] {
            assert_eq!(sums(&[other]), [1, 0, 1, 1]);
        }
    }

    #[test]
    fn a_place_may_be_told_from_others_of_its_name() {
        let bug = BUG.replace("place=a", "place=edu::Port::a");
        let report = report(1, 1).replace(BUG, &bug);
        let is_caught = |function: &str| {
            let finding = finding("stale-read", Some("edu"), function, &bug);
            let sums = Judgement::with(ONE_EACH, &report, &[finding]).sums();
            assert_eq!(sums.caught + sums.wrong, 1);
            sums.caught == 1
        };
        assert!(is_caught("<x::edu::Port<u8> as y::Z>::a"));
        assert!(!is_caught("x::edu::Port::b::a") && !is_caught("x::aedu::Port::a"));
    }

    #[test]
    fn a_bug_without_a_device_is_not_one_of_a_device() {
        let bug = BUG.replace("device=edu", "device=none");
        let report = report(1, 1).replace(BUG, &bug);
        let caught = |device| {
            let finding = finding("stale-read", device, "x::a", &bug);
            let sums = Judgement::with(ONE_EACH, &report, &[finding]).sums();
            (sums.caught, sums.wrong)
        };
        assert_eq!(caught(None), (1, 0));
        assert_eq!(caught(Some("edu")), (0, 1));
    }

    #[test]
    fn a_seed_that_was_skipped_is_missed() {
        let report = report(1, 1);
        for (bugs, twins) in [(2, 1), (1, 2), (0, 1)] {
            let planted = Planted { bugs, twins };
            let objection = Judgement::with(planted, &report, &[]).objection.unwrap();
            assert_eq!(
                objection,
                format!("its report has planted=1 twins=1, the board has {planted}")
            );
        }
        let skipped =
            format!("  # skipped edu.a: no memory\n  # corpus elsewhere=2 skipped=1\n{report}");
        let planted = Planted { bugs: 2, twins: 1 };
        let objection = Judgement::with(planted, &skipped, &[]).objection.unwrap();
        assert!(
            objection.ends_with("(# skipped edu.a: no memory)"),
            "{objection}"
        );
        let skipped = "# seed edu.c kind=none device=edu place=c";
        assert!(
            Judgement::new(Board::Rpi4, skipped, &[])
                .objection
                .is_some()
        );
    }

    #[test]
    fn a_twin_must_be_silent_and_so_must_everything_between() {
        assert_eq!(sums(&[stale(BUG), stale(TWIN)]), [1, 1, 0, 1]);
        assert_eq!(sums(&[stale(BUG), stale("  ok 1 edu.a")]), [1, 1, 0, 1]);
    }

    #[test]
    fn a_run_that_was_cut_or_lost_a_line_proves_nothing() {
        let lost = report(2, 1);
        let objection = Judgement::with(ONE_EACH, &lost, &[]).objection.unwrap();
        assert!(objection.contains("planted=2 twins=1"), "{objection}");
        assert!(Judgement::with(ONE_EACH, BUG, &[]).objection.is_some());
    }

    #[test]
    fn the_table_names_every_seed_and_what_is_false() {
        let report = report(1, 1);
        let findings = [stale(TWIN)];
        let judgement = Judgement::with(ONE_EACH, &report, &findings);
        assert!(!judgement.expects(&findings[0]));
        let table = judgement.to_string();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[1].starts_with("edu.a ") && lines[1].ends_with(" MISSED"));
        assert!(lines[2].starts_with("edu.b ") && lines[2].ends_with(" NOT SILENT"));
        assert!(lines[3].starts_with("    FALSE: stale-read at 0x40200000"));
        assert_eq!(
            judgement.sums().to_string(),
            "seeded 1, caught 0, missed 1, false 1"
        );
    }
}
