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
const TWIN: &str =
    "# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=device-reads-dirty-line planted";
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
    let nothing = format!("`{TWIN}`: device-reads-dirty-line was found 0 times there, announced 1");
    for findings in [vec![], vec![dirty(RAW)]] {
        assert_eq!(objections(&report, &findings), [&*nothing]);
    }
    let twice = format!("{TWIN}\n{report}");
    let found = [dirty(TWIN), dirty(TWIN)];
    assert_eq!(objections(&twice, &found), [""; 0]);
    assert_eq!(objections(&twice, &found[1..]).len(), 1);
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
            &format!("`{OTHER}`: stale-read was found 0 times there, announced 1"),
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
