use super::*;

use Does::{Reads, Writes};
use LineOp::Invalidate;

#[test]
fn a_store_while_the_device_reads() {
    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Reads)]).load(BUFFER.start, WB);
    rig.is_silent();
    rig.store(BUFFER.start, WB).is(Kind::TouchedWhileOwned);

    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Reads)]).end().store(BUFFER.start, WB);
    rig.is_silent();
}

#[test]
fn a_load_or_store_while_the_device_writes() {
    for mapping in [WB, NC] {
        let mut rig = Rig::new();
        rig.start(&[(BUFFER, Writes)]).load(BUFFER.start, mapping);
        rig.is(Kind::TouchedWhileOwned);
        let mut rig = Rig::new();
        rig.start(&[(BUFFER, Writes)]).store(BUFFER.start, mapping);
        rig.is(Kind::TouchedWhileOwned);
    }
}

#[test]
fn the_word_that_tells_of_the_end_may_be_polled() {
    let mut rig = Rig::new();
    let word = RAM + 0x8000;
    rig.touch(word, 4, NC, false, 0);
    rig.start(&[(word..word + 64, Writes)]);
    rig.touch(word, 4, NC, false, 0);
    rig.is_silent();
    rig.touch(word + 4, 4, NC, false, 0);
    rig.is(Kind::TouchedWhileOwned);
}

#[test]
fn beside_the_buffer_is_not_in_it() {
    let mut rig = Rig::new();
    rig.start(&[(BUFFER.start + 8..BUFFER.end, Writes)]);
    rig.load(BUFFER.start, NC).load(BUFFER.end, NC).is_silent();
}

#[test]
fn two_jobs_that_meet_end_apart() {
    let mut rig = Rig::new();
    let (first, second) = (
        BUFFER.start..BUFFER.start + 32,
        BUFFER.start + 32..BUFFER.end,
    );
    rig.start(&[(first.clone(), Reads)]);
    let who = rig.who();
    let span = Span {
        pa: second.clone(),
        does: Reads,
        role: "source",
    };
    rig.checker.started(who, 0, JobId(77), vec![span]);
    rig.end().store(first.start, WB).is_silent();
    rig.store(second.start, WB).is(Kind::TouchedWhileOwned);
    rig.checker.completed(0, JobId(77));
    assert_eq!(rig.checker.flags(second.start) & maintenance::LENT, 0);
}

#[test]
fn a_new_scope_reports_the_same_place_again() {
    let mut rig = Rig::new();
    let ring = |rig: &mut Rig| {
        rig.pc = 100;
        rig.fill(BUFFER, WB);
        rig.pc = 200;
        rig.start(&[(BUFFER, Reads)]).end();
    };
    ring(&mut rig);
    ring(&mut rig);
    rig.print("# seed again\n");
    ring(&mut rig);
    let seen: Vec<_> = (rig.checker.findings().iter())
        .map(|finding| (finding.count, finding.console.as_str()))
        .collect();
    assert_eq!(seen, [(2, ""), (1, "# seed again")]);
}

#[test]
fn what_follows_from_a_store_is_not_reported_again() {
    for op in [LineOp::Clean, LineOp::CleanInvalidate, Invalidate] {
        let mut rig = Rig::new();
        rig.start(&[(BUFFER, Writes)]).store(BUFFER.start, WB);
        rig.is(Kind::TouchedWhileOwned);
        rig.end().each_line(op, BUFFER);
        assert_eq!(rig.found().len(), 1, "{op:?}");
        assert!(rig.checker.touched.is_empty());
    }
}

#[test]
fn mistakes_do_not_outlive_their_repair() {
    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Writes)]).end();
    rig.each_line(Invalidate, BUFFER).dsb();
    assert_eq!(rig.checker.flags(BUFFER.start) & crate::lines::STALE, 0);
    assert!(rig.checker.partial.is_empty());
}
