use super::*;
use proptest::prelude::*;

fn judge(report: &str) -> Verdict {
    let mut judge = Judge::default();
    for line in report.lines() {
        judge.line(line);
    }
    judge.finish()
}

const GOOD: &str = "\
booting
KTAP version 1
# boot ns=900000
1..2
  KTAP version 1
  # Subtest: boot
  1..3
  ok 1 map
  some log line
  # bench op=boot
  ok 2 el # SKIP entered at EL1
  ok 3 cores
ok 1 boot
  KTAP version 1
  1..1
  ok 1 walk
ok 2 mmu
3 passed, 0 failed, 1 skipped
";

fn objection(report: &str) -> String {
    judge(report).objection().expect("an objection")
}

#[test]
fn a_whole_report_passes() {
    let verdict = judge(GOOD);
    assert_eq!(verdict.objection(), None);
    let counts = Counts {
        passed: 3,
        failed: 0,
        skipped: 1,
    };
    assert_eq!(verdict.counts, counts);
}

#[test]
fn every_line_that_matters_is_missed() {
    let lines: Vec<_> = GOOD.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let nested = line.starts_with(' ');
        let optional = text.starts_with('#')
            || ["booting", "some log line"].contains(&text)
            || (nested && text == "KTAP version 1");
        let mut rest = lines.clone();
        rest.remove(index);
        let verdict = judge(&rest.join("\n"));
        assert_eq!(verdict.objection().is_none(), optional, "without `{line}`");
    }
}

#[test]
fn a_report_cut_anywhere_is_incomplete() {
    let last = GOOD.trim_end().rfind('\n').expect("many lines");
    for end in 0..=last {
        assert!(judge(&GOOD[..end]).objection().is_some(), "cut at {end}");
    }
}

#[test]
fn failures_are_named_with_their_suite() {
    let report = GOOD
        .replace("  ok 3 cores", "  not ok 3 cores")
        .replace("ok 1 boot", "not ok 1 boot")
        .replace("3 passed, 0 failed", "2 passed, 1 failed");
    let verdict = judge(&report);
    assert_eq!(verdict.failures, ["boot.cores"]);
    assert_eq!(verdict.problems, [""; 0]);
    assert_eq!(objection(&report), "1 failed, first boot.cores");
}

#[test]
fn a_suite_may_not_hide_a_failure() {
    let report = GOOD
        .replace("  ok 3 cores", "  not ok 3 cores")
        .replace("3 passed, 0 failed", "2 passed, 1 failed");
    assert!(judge(&report).problems[0].contains("contradicts"));
}

#[test]
fn a_failed_suite_fails_without_a_failed_result() {
    let verdict = judge(&GOOD.replace("ok 2 mmu", "not ok 2 mmu"));
    assert_eq!(verdict.failures, ["mmu"]);
}

#[test]
fn wrong_numbers_and_totals_are_named() {
    for (from, to, words) in [
        ("  ok 2 el", "  ok 3 el", "result number 2 was due, found 3"),
        (
            "  ok 2 el",
            "  ok el",
            "result number 2 was due, found none",
        ),
        ("1..3", "1..4", "promises 4 results, the last is 3"),
        ("1..3", "1..2", "promises 2 results, the last is 3"),
        ("  1..3\n", "", "results without a plan"),
        ("ok 1 boot\n", "", "a suite without its result"),
        (
            "0 failed",
            "1 failed",
            "its last line says 3 passed, 1 failed",
        ),
        (
            "1 skipped",
            "0 skipped",
            "its results are 3 passed, 0 failed, 1 skipped",
        ),
        ("ok 1 boot", "KTAP version 1", "started over"),
        ("1 skipped\n", "1 skipped\nok 3 late\n", "after the total"),
        ("KTAP version 1", "KTAP version 2", "no `KTAP version 1`"),
    ] {
        let changed = GOOD.replacen(from, to, 1);
        assert_ne!(changed, GOOD);
        assert!(
            objection(&changed).contains(words),
            "{}",
            objection(&changed)
        );
    }
}

#[test]
fn a_bail_out_is_final_wherever_it_stands() {
    assert_eq!(
        objection(&GOOD.replace("  some log line", "    Bail out! alignment fault")),
        "the firmware bailed out: alignment fault"
    );
    assert!(objection("Bail out! before the report").contains("before the report"));
}

#[test]
fn nothing_run_is_no_pass() {
    assert!(objection("KTAP version 1\n1..0\n0 passed, 0 failed, 0 skipped").contains("no test"));
    let skipped = "KTAP version 1\n1..1\nok 1 a # SKIP x\n0 passed, 0 failed, 1 skipped";
    assert_eq!(judge(skipped).objection(), None);
}

#[test]
fn the_end_is_noticed() {
    let mut judge = Judge::default();
    for line in GOOD.lines() {
        assert!(!judge.ended());
        judge.line(line);
    }
    assert!(judge.ended());
}

#[test]
fn only_the_exact_total_is_one() {
    assert!(parse::total("1 passed, 0 failed, 0 skipped").is_some());
    for text in [
        "1 passed, 0 failed, 0 skipped.",
        "1 passed, 0 failed",
        "1 passed, 0 failed, 0 skipped, 1 more",
        "x passed, 0 failed, 0 skipped",
        "1  passed, 0 failed, 0 skipped",
    ] {
        assert_eq!(parse::total(text), None, "{text}");
    }
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("KTAP version 1".to_owned()),
        Just("1..2".to_owned()),
        Just("ok 1 a".to_owned()),
        Just("not ok 2 b".to_owned()),
        Just("ok 2 b # SKIP".to_owned()),
        Just("Bail out!".to_owned()),
        Just("1 passed, 0 failed, 0 skipped".to_owned()),
        ".{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_report_is_fatal(lines in proptest::collection::vec((0_usize..7, word()), 0..60)) {
        let text: Vec<_> = lines.iter().map(|(n, w)| format!("{}{w}", " ".repeat(*n))).collect();
        judge(&text.join("\n"));
    }

    /// A flat report passes exactly when its parts agree.
    #[test]
    fn flat_reports(results in proptest::collection::vec(0_u8..3, 1..20), claimed in 0_u32..20) {
        let mut report = format!("KTAP version 1\n1..{claimed}\n");
        let mut counts = Counts::default();
        for (index, kind) in results.iter().enumerate() {
            let number = index + 1;
            match kind {
                0 => { counts.passed += 1; report += &format!("ok {number} t\n"); }
                1 => { counts.skipped += 1; report += &format!("ok {number} t # SKIP no\n"); }
                _ => { counts.failed += 1; report += &format!("not ok {number} t\n"); }
            }
        }
        report += &format!("{counts}\n");
        let verdict = judge(&report);
        prop_assert_eq!(verdict.counts, counts);
        let whole = claimed as usize == results.len() && counts.failed == 0;
        prop_assert_eq!(verdict.objection().is_none(), whole);
    }
}
