//! Invalidates that drop bytes which only the cache had.

use super::*;

use Does::{Reads, Writes};
use LineOp::{Clean, CleanInvalidate, Invalidate};

/// Invalidates `range`, and returns the instruction that did so to its last line.
fn invalidate(rig: &mut Rig, range: Range<u64>) -> u64 {
    rig.each_line(Invalidate, range).dsb();
    rig.pc - 1
}

#[track_caller]
fn is_reported(rig: &Rig, pc: u64) {
    assert_eq!(rig.found(), [(Kind::InvalidateDestroysNeighbour, pc)]);
}

#[test]
fn a_dirty_buffer_may_be_invalidated_before_a_device_writes_it() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).each_line(Invalidate, BUFFER).dsb();
    rig.start(&[(BUFFER, Writes)]).end();
    rig.each_line(Invalidate, BUFFER).dsb().read(BUFFER, WB);
    rig.finish().is_silent();
    assert_eq!(rig.checker.flags(BUFFER.start) & crate::lines::DROPPED, 0);

    // In two jobs, and with an invalidate for each attempt.
    let mut rig = Rig::new();
    let middle = BUFFER.start + 2 * LINE;
    rig.fill(BUFFER, WB).each_line(Invalidate, BUFFER).dsb();
    rig.fill(BUFFER, WB).each_line(Invalidate, BUFFER).dsb();
    rig.start(&[(BUFFER.start..middle, Writes)]).end();
    rig.start(&[(middle..BUFFER.end, Writes)]).end();
    rig.finish().is_silent();

    // Spans of a list that share a line.
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).each_line(Invalidate, BUFFER).dsb();
    let (first, second) = (BUFFER.start..middle + 8, middle + 8..BUFFER.end);
    rig.start(&[(first, Writes), (second, Writes)]).end();
    rig.finish().is_silent();
}

#[test]
fn a_neighbour_in_a_line_of_the_buffer_is_lost() {
    for buffer in [BUFFER.start + 16..BUFFER.end, BUFFER.start..BUFFER.end - 16] {
        let mut rig = Rig::new();
        rig.fill(BUFFER, WB);
        rig.each_line(Invalidate, BUFFER.start..BUFFER.start + 1);
        let first = rig.pc;
        rig.each_line(Invalidate, BUFFER.start + LINE..BUFFER.end);
        let last = rig.pc;
        rig.dsb().start(&[(buffer.clone(), Writes)]);
        is_reported(
            &rig,
            if buffer.end == BUFFER.end {
                first
            } else {
                last
            },
        );
    }
    // After the transfer, the neighbour having been stored to meanwhile.
    let mut rig = Rig::new();
    rig.start(&[(BUFFER.start + 16..BUFFER.end, Writes)]);
    rig.store(BUFFER.start, WB).end().is_silent();
    let pc = invalidate(&mut rig, BUFFER.start..BUFFER.start + 1);
    rig.is_silent();
    rig.load(BUFFER.start + 8, WB).is_silent();
    rig.load(BUFFER.start, WB);
    is_reported(&rig, pc);
    assert_eq!(rig.checker.findings()[0].pa, BUFFER.start);
    assert!(rig.checker.findings()[0].device.is_some());

    // The neighbour's variable in a line of its own.
    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Writes)]);
    rig.store(BUFFER.end, WB).end();
    rig.each_line(Invalidate, BUFFER).finish().is_silent();
}

#[test]
fn bytes_that_are_missed_without_any_device() {
    for mapping in [WB, NC, Mapping::Off] {
        let mut rig = Rig::new();
        // A device that had the line before has nothing to do with it.
        rig.start(&[(BUFFER, Writes)])
            .end()
            .each_line(Invalidate, BUFFER);
        rig.store(BUFFER.start, WB);
        let pc = invalidate(&mut rig, BUFFER.start..BUFFER.start + 1);
        rig.load(BUFFER.start, mapping);
        is_reported(&rig, pc);
        assert_eq!(rig.checker.findings()[0].device, None);
    }
    for op in [Clean, CleanInvalidate] {
        let mut rig = Rig::new();
        rig.store(BUFFER.start, WB).each_line(op, BUFFER);
        rig.each_line(Invalidate, BUFFER).load(BUFFER.start, WB);
        rig.finish().is_silent();
    }
}

#[test]
fn an_invalidate_in_the_place_of_a_clean() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB);
    rig.each_line(Invalidate, BUFFER.start..BUFFER.start + 1);
    let pc = rig.pc;
    rig.dsb().each_line(Clean, BUFFER).dsb();
    rig.start(&[(BUFFER, Reads)]);
    is_reported(&rig, pc);
}

#[test]
fn what_no_device_is_given_is_reported_at_the_end() {
    let mut rig = Rig::new();
    rig.print("# seed one\n").store(BUFFER.start, WB);
    let pc = invalidate(&mut rig, BUFFER.start..BUFFER.start + 1);
    rig.print("# seed two\n").is_silent();
    rig.finish();
    is_reported(&rig, pc);
    let finding = &rig.checker.findings()[0];
    assert_eq!((&*finding.console, finding.scope), ("# seed one", 1));
}

#[test]
fn what_is_stored_anew_is_not_missed() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).each_line(Invalidate, BUFFER).dsb();
    rig.fill(BUFFER, WB).read(BUFFER, WB);
    rig.finish().is_silent();

    let mut rig = Rig::new();
    rig.fill(BUFFER, WB);
    let pc = invalidate(&mut rig, BUFFER.start..BUFFER.start + 1);
    rig.fill(BUFFER.start + 8..BUFFER.end, WB).is_silent();
    rig.read(BUFFER.start + 8..BUFFER.end, WB).is_silent();
    rig.read(BUFFER, WB);
    is_reported(&rig, pc);
}

const DC_ISW: u32 = 0xD508_7640;
const DC_CSW: u32 = 0xD508_7A40;

/// A loop of one instruction over a whole cache, which is where it returns.
fn sweep(rig: &mut Rig, word: u32) -> u64 {
    for _ in 0..512 {
        rig.instruction(word);
    }
    rig.pc
}

#[test]
fn a_cache_that_is_invalidated_by_set_and_way_loses_what_it_alone_had() {
    for read in [
        |rig: &mut Rig| {
            rig.load(BUFFER.start, WB);
        },
        |rig: &mut Rig| {
            rig.start(&[(BUFFER, Reads)]);
        },
    ] {
        let mut rig = Rig::new();
        rig.fill(BUFFER, WB);
        let pc = sweep(&mut rig, DC_ISW);
        rig.dsb().is_silent();
        read(&mut rig);
        is_reported(&rig, pc);
        assert_eq!(rig.checker.findings()[0].pa, BUFFER.start);
        assert_eq!(rig.checker.findings()[0].mapping, WB.name());

        // Cleaned before, line by line or all.
        let mut rig = Rig::new();
        rig.fill(BUFFER, WB).each_line(Clean, BUFFER).dsb();
        sweep(&mut rig, DC_ISW);
        read(rig.dsb());
        rig.is_silent();
        let mut rig = Rig::new();
        rig.fill(BUFFER, WB);
        sweep(&mut rig, DC_CSW);
        sweep(&mut rig, DC_ISW);
        read(rig.dsb());
        rig.is_silent();
    }
}

#[test]
fn what_nobody_reads_after_a_sweep_was_not_wanted() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB);
    sweep(&mut rig, DC_ISW);
    rig.dsb().fill(BUFFER.start..BUFFER.start + 8, WB);
    rig.load(BUFFER.start, WB).each_line(Clean, BUFFER).dsb();
    rig.start(&[(BUFFER.start + LINE..BUFFER.end - 16, Writes)]);
    rig.end().finish().is_silent();
}

#[test]
fn a_core_that_starts_sweeps_its_own_cache() {
    let mut rig = Rig::new();
    rig.dsb().fill(BUFFER, WB);
    rig.cpu = 1;
    sweep(&mut rig, DC_ISW);
    rig.dsb();
    rig.cpu = 0;
    rig.read(BUFFER, WB).finish().is_silent();
}

#[test]
fn bytes_of_a_device_under_a_dirty_line_are_not_lost_to_a_sweep() {
    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Writes)]).end().store(BUFFER.start, WB);
    sweep(&mut rig, DC_ISW);
    rig.dsb().read(BUFFER, WB).finish().is_silent();
}

#[test]
fn a_store_that_was_reported_is_not_lost_to_a_sweep_as_well() {
    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Reads)]).store(BUFFER.start, WB).end();
    sweep(&mut rig, DC_ISW);
    rig.dsb().load(BUFFER.start, WB).finish();
    let kinds = |rig: &Rig| rig.found().iter().map(|found| found.0).collect::<Vec<_>>();
    assert_eq!(kinds(&rig), [Kind::TouchedWhileOwned]);
    // The sweep was its maintenance.
    rig.store(BUFFER.start, WB);
    invalidate(&mut rig, BUFFER.start..BUFFER.start + 1);
    rig.load(BUFFER.start, WB);
    let both = [Kind::TouchedWhileOwned, Kind::InvalidateDestroysNeighbour];
    assert_eq!(kinds(&rig), both);
}
