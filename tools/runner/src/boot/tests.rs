use super::*;
use crate::settings::Board;
use std::os::unix::process::ExitStatusExt;

const GOOD: &str = "KTAP version 1\n1..1\nok 1 a\n1 passed, 0 failed, 0 skipped";

fn report(text: &str) -> Report {
    let mut judge = crate::ktap::Judge::default();
    text.lines().for_each(|line| judge.line(line));
    Report {
        verdict: judge.finish(),
        payload: None,
        last_line: text.lines().last().unwrap_or_default().into(),
    }
}

fn judged(end: End, text: &str) -> Option<String> {
    let settings = Settings::read(Board::QemuVirt, |_| None).unwrap();
    objection(&settings, end, &report(text))
}

fn exited(code: i32) -> End {
    End::Exited(ExitStatus::from_raw(code << 8))
}

#[test]
fn only_a_whole_report_and_status_zero_pass() {
    assert_eq!(judged(exited(0), GOOD), None);
    assert_eq!(judged(End::ReportOver, GOOD), None);
    let text = judged(exited(7), GOOD).unwrap();
    assert!(text.contains("the report passed but QEMU ended with exit status: 7"));
    assert!(judged(exited(0), "").unwrap().contains("incomplete"));
    let text = judged(exited(1), "KTAP version 1\nBail out! lost").unwrap();
    assert!(text.starts_with("the firmware bailed out: lost (QEMU ended"));
}

#[test]
fn a_hang_is_named_with_its_last_line() {
    let cut = End::Cut(Duration::from_secs(3));
    assert_eq!(
        judged(cut, "KTAP version 1\n# about to hang").unwrap(),
        "hang: cut after 3 s, last line: # about to hang"
    );
    assert_eq!(
        judged(cut, "").unwrap(),
        "hang: cut after 3 s without a line"
    );
    assert!(judged(cut, GOOD).is_some());
    assert!(judged(End::Interrupted, GOOD).is_some());
}

/// Runs a shell script in QEMU's place.
fn follow_script(script: &str, pairs: &[(&str, &str)]) -> (End, Report) {
    let settings = Settings::read(Board::QemuVirt, |key| {
        let found = pairs.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| (*value).into())
    })
    .unwrap();
    let name = format!(
        "runner-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let directory = std::env::temp_dir().join(name);
    let capture = Capture::create(&directory).unwrap();
    let mut console = Console::new(Show::Nothing, Trace::new(Path::new("")), None, capture);
    let mut group = Group::spawn(
        Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped()),
    )
    .unwrap();
    let end = follow(&settings, &mut group, &mut console, Instant::now()).unwrap();
    let report = console.finish().unwrap();
    assert!(group.poll().unwrap().is_some(), "the child is gone");
    std::fs::remove_dir_all(directory).unwrap();
    (end, report)
}

#[test]
fn output_and_status_arrive() {
    let (end, report) = follow_script("printf 'KTAP version 1\\nx'; exit 5", &[]);
    assert_eq!(end, exited(5));
    assert_eq!(report.last_line, "x");
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_at_the_timeout() {
    let start = Instant::now();
    let script = "trap '' TERM; echo stuck; while :; do sleep 1; done";
    let (end, report) = follow_script(script, &[("TIMEOUT", "1")]);
    assert_eq!(end, End::Cut(Duration::from_secs(1)));
    assert_eq!(report.last_line, "stuck");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_child_that_closes_its_output_and_stays_is_cut_too() {
    let (end, _) = follow_script("exec >&-; sleep 100", &[("TIMEOUT", "1")]);
    assert_eq!(end, End::Cut(Duration::from_secs(1)));
}

#[test]
fn without_a_tree_the_end_of_the_report_ends_the_boot() {
    let script = format!("echo '{GOOD}'; sleep 100");
    let (end, report) = follow_script(&script, &[("DTB", "none"), ("TIMEOUT", "50")]);
    assert_eq!(end, End::ReportOver);
    assert_eq!(report.verdict.objection(), None);
}
