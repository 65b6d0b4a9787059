use super::*;

use Does::Reads;
use LineOp::Clean;

/// What is found if only this stands between uncached stores and the doorbell.
fn after_stores(barrier: u32) -> usize {
    let mut rig = Rig::new();
    rig.fill(BUFFER, NC).instruction(barrier);
    rig.start(&[(BUFFER, Reads)]);
    rig.found().len()
}

/// And after cache maintenance.
fn after_maintenance(barrier: u32) -> usize {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).each_line(Clean, BUFFER);
    rig.instruction(barrier).start(&[(BUFFER, Reads)]);
    rig.found().len()
}

#[test]
fn nothing_orders_uncached_stores() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, NC).start(&[(BUFFER, Reads)]);
    rig.is(Kind::DoorbellWithoutBarrier);
    assert_eq!(rig.checker.findings()[0].pa, BUFFER.start);
}

#[test]
fn barriers_that_order_stores() {
    for barrier in [DSB_SY, DSB_ISH, DSB_ISHST, DMB_OSHST] {
        assert_eq!(after_stores(barrier), 0, "{barrier:#x}");
    }
    for barrier in [DMB_OSHLD, DMB_ISHST] {
        assert_eq!(after_stores(barrier), 1, "{barrier:#x}");
    }
}

#[test]
fn barriers_that_complete_maintenance() {
    for barrier in [DSB_SY, DSB_ISH] {
        assert_eq!(after_maintenance(barrier), 0, "{barrier:#x}");
    }
    for barrier in [DSB_ISHST, DMB_OSHST, DMB_OSHLD, DMB_ISHST] {
        assert_eq!(after_maintenance(barrier), 1, "{barrier:#x}");
    }
}

#[test]
fn a_store_release_orders_itself_and_nothing_later() {
    const STLR: u32 = 0xC89F_FC20;
    const STLUR: u32 = 0x991F_C020;
    for word in [STLR, STLUR] {
        let mut rig = Rig::new();
        rig.fill(BUFFER, NC).instruction(word);
        rig.start(&[(BUFFER, Reads)])
            .is(Kind::DoorbellWithoutBarrier);
        for (mapping, found) in [(NC, 0), (WB, 1)] {
            let mut rig = Rig::new();
            rig.fill(BUFFER, mapping).each_line(Clean, BUFFER);
            if mapping == NC {
                rig.dsb().fill(BUFFER, NC);
            }
            rig.instruction(word);
            // The doorbell is the store of that instruction.
            rig.pc -= 1;
            rig.start(&[(BUFFER, Reads)]);
            assert_eq!(rig.found().len(), found);
        }
    }
}

#[test]
fn only_what_the_job_is_about_matters() {
    let mut rig = Rig::new();
    rig.store(BUFFER.end, NC).each_line(Clean, RAM..RAM + 64);
    rig.start(&[(BUFFER, Reads)]).is_silent();
}

#[test]
fn a_barrier_is_of_its_own_cpu() {
    let mut rig = Rig::new();
    rig.fill(BUFFER, WB).each_line(Clean, BUFFER);
    rig.cpu = 1;
    rig.dsb();
    rig.cpu = 0;
    rig.start(&[(BUFFER, Reads)])
        .is(Kind::DoorbellWithoutBarrier);
}

#[test]
fn another_cpu_may_clean_a_line_that_both_have_a_part_of() {
    let mut rig = Rig::new();
    rig.each_line(Clean, BUFFER).dsb();
    rig.cpu = 1;
    rig.each_line(Clean, BUFFER.start..BUFFER.start + 1);
    rig.cpu = 0;
    rig.start(&[(BUFFER.start + 32..BUFFER.end, Reads)]);
    rig.is_silent();
}

#[test]
fn more_stores_than_are_remembered() {
    let mut rig = Rig::new();
    for number in 0..5000 {
        rig.store(RAM + 0x2000 + 128 * (number % 4096), NC);
    }
    rig.start(&[(RAM + 0x2000..RAM + 0x8_0000, Reads)]);
    rig.is(Kind::DoorbellWithoutBarrier);
}
