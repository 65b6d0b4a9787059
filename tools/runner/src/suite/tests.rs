use super::*;
use crate::ktap::Verdict;
use std::time::Duration;

#[test]
fn a_lane_that_counts_nothing_or_does_not_run_fails_the_whole() {
    for result in [
        Ok(Counts::default()),
        Err(anyhow::anyhow!("no firmware")),
        Ok(failed(2)),
    ] {
        let mut tally = Tally::default();
        tally.lane("a", Ok(passed(3)), Duration::ZERO);
        assert!(tally.all_passed);
        tally.lane("b", result, Duration::ZERO);
        assert!(!tally.all_passed);
        assert!(tally.counts.failed > 0);
        assert_eq!(tally.counts.passed, 3);
    }
}

fn outcome(objection: Option<&str>) -> Outcome {
    Outcome {
        verdict: Verdict::default(),
        objection: objection.map(str::to_owned),
        took: Duration::ZERO,
    }
}

#[test]
fn a_twin_must_fail_for_the_right_reason() {
    let nowhere = Path::new("/nonexistent");
    let expect = &Expect::Objection(&["bailed out", "panic"]);
    let pass = &Expect::Pass(Vec::new());
    let refused = outcome(Some("the firmware bailed out: panic at x"));
    assert!(judge(expect, &refused, nowhere).is_ok());
    assert!(judge(expect, &outcome(Some("bailed out: x")), nowhere).is_err());
    assert!(judge(expect, &outcome(None), nowhere).is_err());
    assert!(judge(pass, &refused, nowhere).is_err());
    assert!(judge(pass, &outcome(None), nowhere).is_ok());
    assert!(judge(&Expect::Traced, &outcome(None), nowhere).is_err());
}

#[test]
fn a_report_must_say_what_is_expected_of_it() {
    let directory = std::env::temp_dir().join(format!("runner-says-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(
        directory.join(REPORT),
        "KTAP version 1\n  # cores online=2\n",
    )
    .unwrap();
    let judged = |lines: &[&str]| {
        let lines = lines.iter().map(ToString::to_string).collect();
        judge(&Expect::Pass(lines), &outcome(None), &directory)
    };
    let (found, missing) = (
        judged(&["# cores online=2"]),
        judged(&["KTAP", "# cores online=1"]),
    );
    let without_report = judge(
        &Expect::Pass(vec!["KTAP".into()]),
        &outcome(None),
        Path::new("/nonexistent"),
    );
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(found.is_ok(), "{found:?}");
    assert!(missing.unwrap_err().contains("`# cores online=1`"));
    assert!(without_report.is_err());
}

#[test]
fn unknown_lanes_are_refused() {
    let error = run(&["nonsense".into()]).unwrap_err().to_string();
    assert!(error.contains("allowed are lint, host"), "{error}");
}

#[test]
fn payloads_differ_in_every_page() {
    let bytes = payload(3 * 4096);
    assert_ne!(bytes[..4096], bytes[4096..8192]);
    assert_ne!(bytes[..4096], bytes[8192..]);
    assert_eq!(payload(5).len(), 5);
}

#[test]
fn what_failed_is_shown_without_what_passed() {
    let passed = "test a::passes ... ok\n".repeat(OUTPUT_TAIL);
    let frames =
        "   3: core::panicking::panic\n             at ./src/a.rs:7:1\n".repeat(OUTPUT_TAIL);
    let output =
        format!("thread 'a::fails' panicked at a.rs:7:1:\n{frames}\n{passed}test b ... FAILED\n");
    assert_eq!(
        tail(&output),
        "    | thread 'a::fails' panicked at a.rs:7:1:\n    | test b ... FAILED\n"
    );
}
