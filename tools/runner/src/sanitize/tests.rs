use super::findings::Findings;
use super::findings::tests::finding;
use super::*;
use crate::boot::Outcome;
use crate::ktap::Verdict;
use std::time::Duration;

/// The end of a plugin that has seen a boot, but for what is `more`.
pub(in crate::sanitize) fn end(more: &str) -> Option<findings::End> {
    let line = format!(
        r#"{{"end":true,"accesses":9000000,"walks":9,"findings":0,"jobs":{{"edu":1,"virtio-mmio@a003e00":1}}{more}}}"#
    );
    serde_json::from_str(&line).unwrap()
}

/// A run that passed by itself.
pub(in crate::sanitize) fn watched(
    report: &str,
    list: Vec<Finding>,
    end: Option<findings::End>,
) -> Watched {
    let end = end.map(|mut end| {
        end.findings = list.len();
        end
    });
    Watched {
        outcome: Outcome {
            verdict: Verdict::default(),
            objection: None,
            took: Duration::ZERO,
        },
        report: report.into(),
        findings: Findings { list, end },
    }
}

const CELL: &str = "# cell test=debug wrong=stale-read";

fn plain(report: &str, list: Vec<Finding>, more: &str) -> Option<String> {
    judge_plain(Board::Rpi4, watched(report, list, end(more)), Extent::Part).objection
}

#[test]
fn a_run_passes_if_what_it_announces_was_found_and_nothing_else() {
    let stale = |console| finding("stale-read", Some("edu"), "look", console);
    assert_eq!(plain("", vec![], ""), None);
    assert_eq!(plain(CELL, vec![stale(CELL)], ""), None);
    let objection = plain("", vec![stale("ok 1 mmu")], "").unwrap();
    assert_eq!(objection, "1 findings that were not announced");
    let objection = plain(CELL, vec![], "").unwrap();
    assert!(objection.ends_with("stale-read was found 0 times there, announced 1"));
    let whole = judge_plain(Board::Rpi4, watched("", vec![], end("")), Extent::Whole);
    assert_eq!(whole.objection.unwrap(), "the experiment has no cells");
    assert!(whole.text.starts_with("not ok rpi4, as it is: "));
}

#[test]
fn a_run_without_eyes_does_not_pass() {
    for (more, why) in [
        (r#","lost":1"#, "lost 1"),
        (r#","blind":"no TCR_EL1""#, "no TCR_EL1"),
    ] {
        assert!(plain("", vec![], more).unwrap().contains(why));
        let corpus = judge_corpus(Board::Rpi4, watched("", vec![], end(more)));
        assert!(corpus.objection.unwrap().contains(why));
        let foreign = watched("", vec![], end(more));
        assert!(foreign::objection(&foreign).unwrap().contains(why));
    }
    let cut = watched("", vec![], None);
    assert!(
        foreign::objection(&cut)
            .unwrap()
            .contains("did not come to its end")
    );
    assert!(
        judge_plain(Board::Rpi4, cut, Extent::Part)
            .objection
            .is_some()
    );
}

#[test]
fn a_corpus_with_fewer_seeds_than_the_board_has_does_not_pass() {
    let corpus = judge_corpus(
        Board::Rpi4,
        watched("  # corpus planted=0 twins=0\n", vec![], end("")),
    );
    let objection = corpus.objection.unwrap();
    assert!(objection.contains("the board has planted="), "{objection}");
}

#[test]
fn scripts_are_told_of_each_run() {
    let stale = finding("stale-read", Some("edu"), "look", CELL);
    let runs = [
        judge_plain(
            Board::Rpi4,
            watched(CELL, vec![stale], end("")),
            Extent::Part,
        ),
        judge_plain(Board::QemuVirt, watched("", vec![], None), Extent::Part),
    ];
    let text = serde_json::to_string(&with_runs(Document::new(None), &runs)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["runs"][0]["verdict"], "ok");
    assert_eq!(value["runs"][1]["board"], "qemu-virt");
    assert_eq!(value["findings"][0]["announced"], true);
    let verdict = value["verdict"].as_str().unwrap();
    assert!(verdict.starts_with("qemu-virt, plain: the plugin did not come"));
}

#[test]
fn a_program_that_is_not_right_makes_the_whole_not_right() {
    let row = |objection: Option<&str>, caught| Row {
        text: String::new(),
        sums: Sums {
            seeded: 1,
            caught,
            ..Sums::default()
        },
        objection: objection.map(Into::into),
    };
    let whole = |rows| Whole { runs: vec![], rows };
    let verdict = |whole: &Whole| {
        let value = serde_json::to_value(whole.document()).unwrap();
        assert_eq!(value["corpus"]["seeded"], whole.rows.len());
        value["verdict"].as_str().unwrap().to_owned()
    };
    let right = whole(vec![row(None, 1), row(None, 1)]);
    assert!(right.is_right());
    assert_eq!(verdict(&right), "ok");
    assert_eq!(right.counts().to_string(), "2 passed, 0 failed, 0 skipped");
    let wrong = whole(vec![
        row(None, 1),
        row(Some("a: MISSED"), 0),
        row(Some("b"), 1),
    ]);
    assert!(!wrong.is_right());
    assert_eq!(verdict(&wrong), "a: MISSED");
    assert_eq!(wrong.counts().to_string(), "1 passed, 2 failed, 0 skipped");
    assert_eq!(wrong.sums().missed(), 1);
}

#[test]
fn findings_that_were_lost_on_the_way_prove_nothing() {
    let stale = || finding("stale-read", Some("edu"), "look", CELL);
    let mut cut = watched(CELL, vec![stale(), stale()], end(""));
    cut.findings.list.pop();
    let why = "the plugin counts 2 findings and wrote 1, so nothing is proved";
    assert_eq!(foreign::objection(&cut).unwrap(), why);
    let plain = judge_plain(Board::Rpi4, cut, Extent::Part);
    assert_eq!(plain.objection.unwrap(), why);
}
