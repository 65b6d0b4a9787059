use super::*;

use LineOp::{CleanInvalidate, Invalidate};

fn rig() -> Rig {
    Rig::with(|machine| {
        machine.shadow = true;
        machine.devices.clear();
    })
}

#[test]
fn bytes_that_nobody_is_known_to_have_written() {
    let mut rig = rig();
    rig.touch(BUFFER.start, 8, WB, true, 0x1111);
    rig.touch(BUFFER.start, 8, WB, false, 0x1111);
    rig.is_silent();
    rig.touch(BUFFER.start, 4, WB, false, 0x2211);
    rig.is(Kind::StaleRead);
    assert_eq!(rig.checker.findings()[0].pa, BUFFER.start + 1);
    assert_eq!(rig.checker.findings()[0].device, None);
}

#[test]
fn an_invalidate_lets_them_be_seen() {
    for op in [Invalidate, CleanInvalidate] {
        let mut rig = rig();
        rig.touch(BUFFER.start, 8, WB, false, 1);
        rig.each_line(op, BUFFER).dsb();
        rig.touch(BUFFER.start, 8, WB, false, 2);
        rig.is_silent();
    }
}

#[test]
fn stores_that_may_have_failed_and_uncached_ones_are_not_known() {
    let mut rig = rig();
    rig.touch(BUFFER.start, 8, WB, false, 1);
    let who = rig.who();
    let uncertain = Touch {
        pa: BUFFER.start,
        size: 8,
        mapping: WB,
        is_store: true,
        value: None,
        is_told: false,
    };
    rig.checker.access(who, &uncertain);
    rig.touch(BUFFER.start, 8, WB, false, 7);
    rig.is_silent();
}

#[test]
fn what_a_model_knows_is_found_once() {
    let mut rig = Rig::with(|machine| machine.shadow = true);
    rig.touch(BUFFER.start, 8, WB, false, 1);
    rig.start(&[(BUFFER, Does::Writes)]).end();
    rig.touch(BUFFER.start, 8, WB, false, 2);
    rig.is(Kind::StaleRead);
}

#[test]
fn zeroed_lines_are_known() {
    let mut rig = rig();
    rig.each_line(LineOp::Zero, BUFFER);
    rig.touch(BUFFER.start + 40, 8, WB, false, 0);
    rig.is_silent();
}
