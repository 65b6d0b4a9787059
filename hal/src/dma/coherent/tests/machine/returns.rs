//! Memory that comes back late, and memory that does not.

use super::*;
use crate::mmu::Level;

const AREA_MIB: u64 = 8;

/// Bytes whose type changes at once.
const STEP: usize = 2 << 20;

/// Takes all that is left of the area, for good; how many pages that is.
fn take_the_rest(machine: &Machine) -> usize {
    let halves = std::iter::successors(Some(1024_u32), |count| (count / 2 != 0).then(|| count / 2));
    let taken = halves.map(|count| {
        let blocks = std::iter::repeat_with(|| machine.cma.alloc(count, 0, true));
        count as usize * blocks.take_while(Result::is_ok).count()
    });
    taken.sum()
}

#[test]
fn a_request_that_may_block_has_what_was_freed_where_that_is_not_allowed() {
    const SIZE: usize = 2 * PAGE_SIZE;
    let machine = Machine::with(AREA_MIB, 1, TABLES);
    let alloc = || machine.alloc(SIZE, Gfp::KERNEL);
    // All of the area, for a device that snoops.
    free_under_a_lock(alloc().unwrap());
    assert_eq!(machine.runs(), 1);
    let snooping = fake("snooping", DmaMask::new::<48>(), [0, 0, 1 << 40]);
    snooping.set_coherent(true);
    let all = (AREA_MIB << 20) as usize;
    let cached = machine.memory.alloc(snooping, all, Gfp::KERNEL).unwrap();
    assert_eq!(machine.runs(), 0);
    drop(cached);
    // All that is free of it, for one that does not.
    let memory = alloc().unwrap();
    take_the_rest(&machine);
    assert!(alloc().is_err(), "there is more");
    free_under_a_lock(memory);
    let again = alloc().unwrap();
    assert_eq!(machine.runs(), 1);
    drop(again);
}

/// Handlers that go on freeing do not hold up who waits for what was freed before.
#[test]
fn what_is_freed_while_one_waits_is_not_waited_for() {
    const LATER: usize = 4;
    let machine = Machine::with(AREA_MIB, 1, TABLES);
    let alloc = || machine.alloc(2 * PAGE_SIZE, Gfp::KERNEL).unwrap();
    let first = alloc();
    FREED_MEANWHILE.set((0..LATER).map(|_| alloc()).collect());
    free_under_a_lock(first);
    let memory = alloc();
    assert_eq!(FREED_MEANWHILE.with_borrow(Vec::len), LATER - 1);
    assert_eq!(machine.runs(), LATER + 1, "the first is back, and no other");
    // One that was freed by now, and another meanwhile; and so on.
    for left in (0..LATER - 1).rev() {
        machine.memory.run_deferred();
        assert_eq!(FREED_MEANWHILE.with_borrow(Vec::len), left);
    }
    machine.memory.drain();
    assert_eq!(machine.runs(), 1);
    drop(memory);
    assert_eq!(machine.runs(), 0);
}

/// Notes of memory that is kept out of use.
fn noted() -> u32 {
    Misuse::CoherentKept(VirtAddr::default()).count()
}

/// Checks that a run of `size` bytes is kept, and that its area goes on without it.
fn check_kept(machine: &Machine, size: usize, noted_before: u32) {
    let pages = size / PAGE_SIZE;
    machine.memory.drain();
    let info = machine.memory.run_info();
    assert_eq!((info.runs, info.pages, info.kept), (1, pages, pages));
    assert!(noted() > noted_before);
    assert_eq!(
        take_the_rest(machine) + pages,
        machine.cma.count() as usize,
        "no page of it is given out again"
    );
}

#[test]
fn a_change_that_cannot_be_undone_keeps_its_memory_out_of_use() {
    const SIZE: usize = 3 * STEP;
    // The second step fails, then the way back of the first; the third, and the way back of the
    // second; the second only.
    for (failing, is_kept) in [(0b110, true), (0b1_0100, true), (0b10, false)] {
        let machine = Machine::with(AREA_MIB, 1, TABLES);
        let before = noted();
        FAILING.set(failing);
        let refused = machine.alloc(SIZE, Gfp::KERNEL).unwrap_err();
        assert_eq!(FAILING.get(), 0);
        match refused {
            DmaError::Run(RunError::KeptOut { pages, .. }) if is_kept => {
                assert_eq!(pages as usize, SIZE / PAGE_SIZE);
                check_kept(&machine, SIZE, before);
            }
            DmaError::Run(RunError::Tables(_)) if !is_kept => {
                assert_eq!((machine.cma.stats().used, machine.runs()), (0, 0));
                assert!(machine.is_restored(machine.cma.area().frames));
            }
            other => panic!("{failing:#b}: {other}"),
        }
    }
}

#[test]
fn memory_whose_place_is_taken_is_kept_out_of_use() {
    for (size, under_a_lock) in [(STEP + PAGE_SIZE, false), (2 * PAGE_SIZE, true)] {
        let machine = Machine::with(AREA_MIB, 1, TABLES);
        let before = noted();
        let memory = machine.alloc(size, Gfp::KERNEL).unwrap();
        let (va, frames) = machine.run();
        // That of the last page.
        let taken = direct(frames.start) + (size - PAGE_SIZE);
        let other = PhysRange::new(PhysAddr::new(0), PhysAddr::new(PAGE_SIZE as u64));
        let mut tables = machine.tables.lock();
        // SAFETY: nothing walks the tree.
        unsafe { tables.map(taken, other, CACHED, Level::L3) }.unwrap();
        drop(tables);
        match under_a_lock {
            true => free_under_a_lock(memory),
            false => drop(memory),
        }
        machine.memory.run_deferred();
        // All of it is of one type still, and where it was.
        assert_eq!(machine.run(), (va, frames));
        for pfn in frames.start.pfn().get()..frames.end.pfn().get() {
            let pfn = crate::addr::Pfn::new(pfn);
            let recorded = machine.pages.frames().memory_type(pfn);
            assert_eq!(recorded, Ok(MemoryType::NormalNonCacheable));
        }
        check_kept(&machine, size, before);
    }
}
