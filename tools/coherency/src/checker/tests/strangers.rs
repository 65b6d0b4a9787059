//! What other people's firmware does rightly although it looks wrong, each with its twin that is wrong.

use super::*;

use Does::{Reads, Writes};
use LineOp::{Clean, CleanInvalidate, CleanToUnification, Invalidate};

const OFF: Mapping = Mapping::Off;

#[test]
fn a_transfer_before_the_mmu_is_on() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, OFF).dsb();
    rig.start(&[(BUFFER, Writes)]).end().read(BUFFER, OFF);
    rig.read(BUFFER, WB).is_silent();

    // The caches were on before, and have lines of it still.
    let mut rig = Rig::new();
    rig.read(BUFFER, WB).load(BUFFER.start, OFF);
    rig.start(&[(BUFFER, Writes)]).end();
    rig.load(BUFFER.start, WB).is(Kind::StaleRead);
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).load(BUFFER.end, OFF);
    rig.start(&[(BUFFER, Reads)]).is(Kind::DeviceReadsDirtyLine);
    let mut rig = Rig::new();
    rig.store(BUFFER.start, WB).load(BUFFER.start, OFF);
    rig.is(Kind::MismatchedAttributes);
}

/// Fetches the first instruction of the buffer.
fn fetch(rig: &mut Rig, is_cached: bool) -> &mut Rig {
    let who = rig.who();
    rig.checker.fetch(who, BUFFER.start, is_cached);
    rig
}

#[test]
fn code_that_is_copied_before_the_instruction_cache_is_on() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, OFF).dsb();
    fetch(&mut rig, false).is_silent();
    // Loaded by a device, or cleaned.
    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Writes)]).end();
    fetch(&mut rig, false).is_silent();
    for op in [Clean, CleanToUnification] {
        let mut rig = Rig::new();
        rig.fill(BUFFER, WB).each_line(op, BUFFER).dsb();
        fetch(&mut rig, false).is_silent();
    }

    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).dsb();
    fetch(&mut rig, false).is(Kind::StaleCode);
    let mut rig = Rig::new();
    rig.fill(BUFFER, OFF).dsb();
    fetch(&mut rig, true).is(Kind::StaleCode);
}

#[test]
fn uncached_memory_that_becomes_cached_and_is_written_first() {
    let mut rig = Rig::new();
    rig.read(BUFFER, WB).fill(BUFFER, NC).fill(BUFFER, WB);
    rig.read(BUFFER, WB).each_line(Clean, BUFFER).is_silent();
    assert!(rig.checker.bypassed.is_empty());

    // Of a line that is stored in part the rest is old, for the CPU and, cleaned, for all.
    let beside = BUFFER.start + 8;
    let part = || {
        let mut rig = Rig::new();
        rig.read(BUFFER, WB).fill(BUFFER, NC);
        rig.store(BUFFER.start, WB)
            .load(BUFFER.start, WB)
            .is_silent();
        rig
    };
    for mapping in [WB, NC] {
        let mut rig = part();
        rig.load(beside, mapping).is(Kind::MismatchedAttributes);
        rig.load(beside, mapping);
        assert_eq!(rig.found().len(), 1);
    }
    for op in [Clean, CleanInvalidate] {
        let mut rig = part();
        rig.each_line(op, BUFFER.start..beside);
        rig.is(Kind::MismatchedAttributes);
    }
    let mut rig = Rig::new();
    rig.read(BUFFER, WB).fill(BUFFER, NC);
    rig.each_line(CleanInvalidate, BUFFER).dsb();
    rig.store(BUFFER.start, WB).read(BUFFER, WB).is_silent();
}

#[test]
fn a_job_from_flash() {
    let mut rig = Rig::new();
    rig.start(&[(0x1000..0x2000, Reads), (BUFFER, Writes)])
        .end();
    rig.is_silent();
    let mut rig = Rig::new();
    rig.start(&[(0x1000..0x2000, Writes)])
        .is(Kind::DmaOutsideMemory);
    // Across its end; and Secure RAM, which no device finds.
    for source in [FLASH.end - 8..FLASH.end + 8, 0x0E00_0000..0x0E00_1000] {
        let mut rig = Rig::new();
        rig.start(&[(source, Reads)]).is(Kind::DmaOutsideMemory);
    }
}

#[test]
fn the_line_that_tells_of_the_end_is_as_new_as_that() {
    let word = RAM + 0x8000;
    let ring = word..word + 2 * LINE;
    let look = |rig: &mut Rig, value| rig.touch(word, 4, WB, false, value);
    let begin = || {
        let mut rig = Rig::new();
        rig.read(ring.clone(), WB);
        rig.start(&[(ring.clone(), Writes), (BUFFER, Writes)]);
        rig
    };
    let mut rig = begin();
    for value in [0, 1] {
        rig.each_line(Invalidate, word..word + 4).dsb();
        look(&mut rig, value);
    }
    rig.load(word + 8, WB).is_silent();
    // The next line may be older.
    rig.load(word + LINE, WB).is(Kind::StaleRead);
    // So may be the buffer, and a line that was not fetched for this look.
    let mut rig = begin();
    rig.each_line(Invalidate, word..word + 4).dsb();
    look(&mut rig, 1);
    rig.load(BUFFER.start, WB).is(Kind::StaleRead);
    let mut rig = begin();
    rig.each_line(Invalidate, word..word + 4).dsb();
    look(&mut rig, 0);
    look(&mut rig, 1);
    rig.load(word + 8, WB).is(Kind::StaleRead);
}

#[test]
fn what_a_debugger_wrote_is_as_it_should_be() {
    let first = BUFFER.start..BUFFER.start + 8;
    type Before = fn(&mut Rig);
    let wrong: [(Kind, Before); 3] = [
        (Kind::StaleRead, |rig| {
            rig.start(&[(BUFFER, Writes)]).end();
        }),
        (Kind::MismatchedAttributes, |rig| {
            rig.read(BUFFER, WB).fill(BUFFER, NC);
        }),
        (Kind::InvalidateDestroysNeighbour, |rig| {
            rig.fill(BUFFER, WB).each_line(Invalidate, BUFFER);
        }),
    ];
    for (kind, before) in wrong {
        let mut rig = Rig::new();
        before(&mut rig);
        rig.checker.host_wrote(&BUFFER);
        rig.read(BUFFER, WB).finish().is_silent();
        let mut rig = Rig::new();
        before(&mut rig);
        rig.checker.host_wrote(&first);
        rig.load(first.start, WB).is_silent();
        rig.load(first.end, WB);
        assert_eq!(rig.found()[0].0, kind);
    }
}
