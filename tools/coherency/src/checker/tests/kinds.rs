use super::*;

use Does::{Reads, Writes};
use LineOp::{Clean, CleanInvalidate, CleanToUnification, Invalidate, InvalidateCode, Zero};

#[test]
fn a_device_reads_what_was_not_cleaned() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).dsb().start(&[(BUFFER, Reads)]);
    rig.is(Kind::DeviceReadsDirtyLine);

    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).each_line(Clean, BUFFER).dsb();
    rig.start(&[(BUFFER, Reads)]).end().is_silent();
}

#[test]
fn one_line_that_was_forgotten_is_named() {
    let mut rig = Rig::new();
    let forgotten = BUFFER.start + 3 * LINE;
    rig.fill(BUFFER, WB)
        .each_line(Clean, BUFFER.start..forgotten)
        .dsb()
        .start(&[(BUFFER, Reads)]);
    rig.is(Kind::DeviceReadsDirtyLine);
    assert_eq!(rig.checker.findings()[0].pa, forgotten);
}

#[test]
fn a_store_after_the_clean_is_dirty_again() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).each_line(Clean, BUFFER);
    rig.store(BUFFER.start, WB).dsb().start(&[(BUFFER, Reads)]);
    rig.is(Kind::DeviceReadsDirtyLine);
}

#[test]
fn a_device_that_reads_beside_dirty_bytes_of_a_line_reads_right_ones() {
    let mut rig = Rig::new();
    rig.store(BUFFER.start + 32, WB);
    rig.start(&[(BUFFER.start..BUFFER.start + 32, Reads)]);
    rig.is_silent();
    rig.start(&[(BUFFER.start..BUFFER.start + 33, Reads)]);
    rig.is(Kind::DeviceReadsDirtyLine);
}

#[test]
fn uncached_and_write_through_memory_needs_no_clean() {
    for mapping in [NC, Mapping::Off, Mapping::Device, Mapping::WriteThrough] {
        let mut rig = Rig::new();
        rig.fill(BUFFER, mapping).dsb().start(&[(BUFFER, Reads)]);
        rig.is_silent();
    }
}

#[test]
fn zeroing_by_line_is_a_store() {
    let mut rig = Rig::new();
    rig.each_line(Zero, BUFFER).start(&[(BUFFER, Reads)]);
    rig.is(Kind::DeviceReadsDirtyLine);
}

#[test]
fn a_device_writes_under_a_dirty_line() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).dsb().start(&[(BUFFER, Writes)]);
    rig.is(Kind::DeviceWritesDirtyLine);
    for op in [Clean, CleanInvalidate] {
        let mut rig = Rig::new();
        rig.fill(BUFFER, WB).each_line(op, BUFFER).dsb();
        rig.start(&[(BUFFER, Writes)]).end();
        rig.each_line(Invalidate, BUFFER).dsb().read(BUFFER, WB);
        rig.is_silent();
    }
}

#[test]
fn a_dirty_neighbour_in_the_line_is_written_back_over_the_device() {
    let mut rig = Rig::new();
    rig.store(BUFFER.start, WB);
    rig.start(&[(BUFFER.start + 8..BUFFER.end, Writes)]);
    rig.is(Kind::DeviceWritesDirtyLine);
}

#[test]
fn old_bytes_are_loaded() {
    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Writes)]).end().load(BUFFER.start, WB);
    rig.is(Kind::StaleRead);
    assert_eq!(
        rig.checker.findings()[0].device,
        Some(("engine".to_owned(), "destination"))
    );

    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Writes)]).end();
    rig.each_line(Invalidate, BUFFER).dsb().read(BUFFER, WB);
    rig.is_silent();
}

#[test]
fn an_invalidate_before_the_end_does_not_help() {
    let mut rig = Rig::new();
    rig.each_line(Invalidate, BUFFER).dsb();
    rig.start(&[(BUFFER, Writes)]);
    rig.each_line(Invalidate, BUFFER).dsb().end();
    rig.load(BUFFER.start, WB).is(Kind::StaleRead);
}

#[test]
fn stale_lines_of_uncached_mappings_are_none() {
    let mut rig = Rig::new();
    rig.load(BUFFER.start, NC);
    rig.start(&[(BUFFER, Writes)]).end().read(BUFFER, NC);
    rig.is_silent();
    // The page may become cached memory afterwards: no line of it was in a cache.
    rig.read(BUFFER, WB).is_silent();
}

#[test]
fn bytes_beside_the_devices_and_bytes_stored_since_are_not_old() {
    let mut rig = Rig::new();
    let half = BUFFER.start..BUFFER.start + 32;
    rig.start(&[(half.clone(), Writes)]).end();
    rig.load(half.end, WB).is_silent();
    rig.store(half.start, WB).load(half.start, WB).is_silent();
    rig.load(half.start + 8, WB).is(Kind::StaleRead);
}

#[test]
fn a_line_that_is_overwritten_and_cleaned_is_new() {
    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Writes)]).end();
    rig.fill(BUFFER, WB).each_line(Clean, BUFFER).dsb();
    rig.read(BUFFER, WB).is_silent();
    assert!(rig.checker.partial.is_empty());
}

#[test]
fn an_uncached_load_misses_what_the_cache_has() {
    let mut rig = Rig::new();
    rig.store(BUFFER.start, WB).load(BUFFER.start, NC);
    rig.is(Kind::MismatchedAttributes);

    let mut rig = Rig::new();
    rig.store(BUFFER.start, WB);
    rig.each_line(Clean, BUFFER).dsb().load(BUFFER.start, NC);
    rig.is_silent();
}

#[test]
fn an_uncached_store_is_hidden_by_the_cache() {
    let mut rig = Rig::new();
    rig.load(BUFFER.start, WB).store(BUFFER.start, NC);
    rig.is_silent();
    rig.load(BUFFER.start, WB).is(Kind::MismatchedAttributes);

    let mut rig = Rig::new();
    rig.store(BUFFER.start, WB).store(BUFFER.start + 8, NC);
    rig.is(Kind::MismatchedAttributes);
}

#[test]
fn a_page_whose_type_is_changed_rightly() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB)
        .each_line(CleanInvalidate, BUFFER)
        .dsb();
    rig.fill(BUFFER, NC).dsb().read(BUFFER, NC);
    rig.read(BUFFER, WB).fill(BUFFER, WB).is_silent();
}

#[test]
fn tables_written_before_the_caches_are_on() {
    let mut rig = Rig::new();
    rig.each_line(Invalidate, BUFFER).fill(BUFFER, Mapping::Off);
    rig.each_line(Invalidate, BUFFER).dsb();
    rig.read(BUFFER, WB).fill(BUFFER, WB).is_silent();
}

#[test]
fn a_clean_writes_a_neighbours_line_over_the_device() {
    let mut rig = Rig::new();
    rig.start(&[(BUFFER.start + 16..BUFFER.end, Writes)]);
    rig.store(BUFFER.start, WB).end();
    rig.each_line(CleanInvalidate, BUFFER.start..BUFFER.start + 1);
    rig.is(Kind::DeviceWritesDirtyLine);
}

#[test]
fn memory_that_is_none() {
    let mut rig = Rig::new();
    let end = RAM + RAM_SIZE;
    rig.start(&[(end - 64..end, Reads)]).is_silent();
    rig.start(&[(end - 64..end + 1, Reads)])
        .is(Kind::DmaOutsideMemory);
    let mut rig = Rig::new();
    rig.start(&[(u64::MAX - 10..u64::MAX, Writes)]);
    rig.is(Kind::DmaOutsideMemory);
}

#[test]
fn what_a_model_finds_wrong_is_reported() {
    let mut rig = Rig::new();
    rig.touch(STATUS, 8, Mapping::Device, true, 0x8000_1000);
    rig.is(Kind::WrongBusAlias);
    assert_eq!(rig.checker.findings()[0].pa, 0x8000_1000);
}

/// Fetches the first instruction of the buffer.
fn fetch(rig: &mut Rig) -> &mut Rig {
    let who = rig.who();
    rig.checker.fetch(who, BUFFER.start, true);
    rig
}

#[test]
fn code_that_is_written_and_executed() {
    let mut rig = Rig::new();
    fetch(&mut rig).is_silent();
    rig.store(BUFFER.start, WB);
    fetch(&mut rig).is(Kind::StaleCode);

    // Without the second half, with the halves exchanged, and right.
    for (ops, is_right) in [
        (&[CleanToUnification][..], false),
        (&[InvalidateCode], false),
        (&[InvalidateCode, CleanToUnification], false),
        (&[CleanToUnification, InvalidateCode], true),
        (&[Clean, InvalidateCode], true),
    ] {
        let mut rig = Rig::new();
        rig.store(BUFFER.start, WB);
        for &op in ops {
            rig.each_line(op, BUFFER).dsb();
        }
        fetch(&mut rig);
        assert_eq!(rig.found().is_empty(), is_right, "{ops:?}");
    }
    const IC_IALLU: u32 = 0xD508_751F;
    let mut rig = Rig::new();
    rig.store(BUFFER.start, WB)
        .each_line(CleanToUnification, BUFFER);
    rig.dsb().instruction(IC_IALLU).dsb();
    fetch(&mut rig).is_silent();
}

#[test]
fn code_that_a_device_or_an_uncached_store_wrote() {
    let mut rig = Rig::new();
    rig.start(&[(BUFFER, Writes)]).end();
    fetch(&mut rig).is(Kind::StaleCode);
    let mut rig = Rig::new();
    rig.store(BUFFER.start, NC)
        .each_line(InvalidateCode, BUFFER);
    fetch(&mut rig).is_silent();
}

#[test]
fn caches_that_need_nothing() {
    let mut rig = Rig::new();
    rig.checker.set_cores(Cores {
        sees_stores: true,
        sees_memory: true,
    });
    rig.store(BUFFER.start, WB);
    fetch(&mut rig).is_silent();
}

#[test]
fn loops_over_sets_and_ways_clean_everything() {
    const DC_CISW: u32 = 0xD508_7E40;
    for (operations, kinds) in [(1, 1), (512, 0)] {
        let mut rig = Rig::new();
        rig.fill(BUFFER, WB);
        for _ in 0..operations {
            rig.instruction(DC_CISW);
        }
        rig.dsb().start(&[(BUFFER, Reads)]);
        assert_eq!(rig.found().len(), kinds);
    }
}

#[test]
fn a_device_that_snoops_needs_order_and_nothing_else() {
    let snoops = || Rig::with(|machine| machine.coherent = true);
    let mut rig = snoops();
    rig.fill(BUFFER, WB).dsb();
    rig.start(&[(BUFFER, Reads), (BUFFER.end..BUFFER.end + 64, Writes)]);
    rig.end().load(BUFFER.end, WB).is_silent();
    let mut rig = snoops();
    rig.fill(BUFFER, WB).start(&[(BUFFER, Reads)]);
    rig.is(Kind::DoorbellWithoutBarrier);
}
