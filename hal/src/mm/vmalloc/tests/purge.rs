//! Frees that are put off, and the flush they share.

use super::*;
use crate::mm::vmalloc::free::lazy_limit;

#[test]
fn a_flush_serves_many_frees() {
    let vm = scratch();
    // Warm, so that no table has to be made; the first free flushes, because nothing may wait yet.
    let warm = vm.vmalloc(PAGE_SIZE).unwrap();
    // SAFETY: the memory was never used.
    let (_, ops) = record_during(|| unsafe { vm.vfree(warm) }.unwrap());
    assert_eq!(
        ops,
        [Op::DsbIshst, Op::TlbLastLevel(warm), Op::DsbIsh, Op::Isb]
    );
    let size = 3 * PAGE_SIZE;
    let mut freed = Vec::new();
    for _ in 0..2 {
        let (va, ops) = record_during(|| vm.vmalloc(size).unwrap());
        assert_eq!(ops, [Op::DsbIshst, Op::Isb]);
        // SAFETY: the memory was never used.
        let (_, ops) = record_during(|| unsafe { vm.vfree(va) }.unwrap());
        assert_eq!(ops, [], "not even a barrier");
        assert_eq!(vm.vmalloc_to_page(va), Err(VmallocError::NotMapped(va)));
        freed.push(va);
    }
    assert_eq!(
        vm.orders_out().into_iter().sum::<u32>(),
        2,
        "frames wait with their addresses"
    );
    let waiting = vm.purge_info();
    assert_eq!((waiting.areas, waiting.bytes), (2, 2 * size));
    let (frames, ops) = record_during(|| vm.vm_unmap_aliases());
    assert_eq!(frames, 6);
    let pages = |va: VirtAddr| (0..3).map(move |page| Op::TlbLastLevel(va + page * PAGE_SIZE));
    let mut expected = vec![Op::DsbIshst];
    expected.extend(freed.into_iter().flat_map(pages));
    expected.extend([Op::DsbIsh, Op::Isb]);
    assert_eq!(ops, expected);
    vm.assert_empty();
}

/// Every core uses every page at once, and the source of frames checks that none leaves or comes
/// while a TLB holds it.
#[test]
fn no_address_and_no_frame_comes_back_before_its_invalidation() {
    use crate::mmu::flush::MAX_BY_ADDRESS;
    let vm = scratch();
    let mut live = Vec::new();
    let ((), ops) = record_during(|| {
        for round in 0..if cfg!(miri) { 40 } else { 2000usize } {
            let pages = [1, 1, 3, 17, 64, MAX_BY_ADDRESS + 1][round * 7 % 6];
            if live.len() < 4 || round % 3 == 0 {
                live.push(vm.use_new_area(pages, Gfp::KERNEL).unwrap());
            } else {
                let va = live.swap_remove(round % live.len());
                // SAFETY: the memory was never used.
                unsafe { vm.vfree(va) }.unwrap();
            }
        }
    });
    let by_address = |op: &&Op| matches!(op, Op::TlbLastLevel(_));
    assert!(ops.iter().filter(by_address).count() > 0 || cfg!(miri));
    assert!(vm.purge_info().flushes > 1);
    // The checks can fail.
    *vm.pages.tlb.lock().unwrap() = Tlb::default();
    let frame = vm.pages.alloc(0, Gfp::KERNEL).unwrap();
    vm.pages.tlb.lock().unwrap().fill(VMALLOC.base, frame);
    // SAFETY: the frame is out, and not used.
    let early = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe {
        vm.pages.free(frame, 0);
    }));
    assert!(early.is_err(), "a frame that left early was not noticed");
}

#[test]
fn what_may_wait_grows_with_the_digits_of_the_cores() {
    const MIB: usize = 1 << 20;
    // Enough memory that its share does not matter.
    let frames = 16 << 30 >> 12;
    for (cores, mib) in [(1, 32), (2, 64), (3, 64), (4, 96), (7, 96), (8, 128)] {
        assert_eq!(lazy_limit(cores, frames), mib * MIB, "{cores} cores");
    }
    for (cores, ram, mib) in [(1, 256, 16), (8, 1024, 64), (4, 1536, 96), (4, 1520, 95)] {
        assert_eq!(lazy_limit(cores, ram * 256), mib * MIB, "{ram} MiB");
    }
}

#[test]
fn the_limits_of_the_lazy_purge() {
    let vm = scratch();
    let pair = |pages: usize| {
        let va = vm.vmalloc(pages * PAGE_SIZE).unwrap();
        // SAFETY: the memory was never used.
        unsafe { vm.vfree(va) }.unwrap();
    };
    pair(1);
    let limit = vm.purge_info().limit;
    assert_eq!(limit, 4096 / 16 * PAGE_SIZE, "a share of the memory");
    let flushes = vm.purge_info().flushes;
    for freed in 1..=limit / (64 * PAGE_SIZE) {
        pair(64);
        assert_eq!(vm.purge_info().bytes, freed * 64 * PAGE_SIZE);
    }
    assert_eq!(vm.purge_info().flushes, flushes);
    pair(1);
    assert_eq!(vm.purge_info().flushes, flushes + 1, "by bytes");
    for _ in 0..63 {
        pair(1);
    }
    assert_eq!(vm.purge_info().areas, 63);
    pair(1);
    let waiting = vm.purge_info();
    assert_eq!(
        (waiting.flushes, waiting.areas),
        (flushes + 2, 0),
        "by areas"
    );
}

#[test]
fn memory_that_waits_is_used_before_an_allocation_fails() {
    let vm = scratch();
    let va = vm.vmalloc(PAGE_SIZE).unwrap();
    let warm = vm.vmalloc(PAGE_SIZE).unwrap();
    // SAFETY: the memory was never used.
    unsafe {
        vm.vfree(warm).unwrap();
        vm.vfree(va).unwrap();
    }
    assert_eq!(vm.purge_info().areas, 1);
    *vm.pages.budget.lock().unwrap() = 0;
    assert!(vm.vmalloc(PAGE_SIZE).is_err());
    assert_eq!(vm.purge_info().areas, 0);
    vm.assert_empty();
}

/// Flushed areas of many runs fill the quarantine while frees of single pages pay for one each.
#[test]
fn a_full_quarantine_makes_room_for_the_next_area() {
    const MANY: usize = 200;
    let vm = scratch();
    *vm.pages.largest.lock().unwrap() = 0;
    let large: Vec<_> = (0..10)
        .map(|_| vm.vmalloc(MANY * PAGE_SIZE).unwrap())
        .collect();
    let small: Vec<_> = (0..130).map(|_| vm.vmalloc(PAGE_SIZE).unwrap()).collect();
    for va in large.into_iter().chain(small) {
        // SAFETY: the memory was never used.
        unsafe { vm.vfree(va) }.unwrap();
    }
    vm.assert_empty();
}

/// What an interrupt freed is gone after a purge, even if a core had begun with it.
#[test]
fn a_deferred_area_is_finished_by_whoever_comes_by() {
    let vm = scratch();
    let va = vm.vmalloc(3 * PAGE_SIZE).unwrap();
    PerCpu::current().irq_entered();
    // SAFETY: the memory was never used.
    unsafe { vm.vfree(va) }.unwrap();
    PerCpu::current().irq_left();
    // Another core has taken it off the list, and that is all.
    {
        let mut areas = vm.areas.lock();
        areas.departing = areas.next_deferred();
        assert!(areas.departing.is_some() && areas.deferred.is_none());
    }
    vm.assert_empty();
}

#[test]
fn a_free_in_an_interrupt_is_done_later() {
    let vm = scratch();
    let areas = [1, 700, 3].map(|pages| (vm.vmalloc(pages * PAGE_SIZE).unwrap(), pages));
    PerCpu::current().irq_entered();
    for (va, _) in areas {
        // SAFETY: the memory was never used; the second call is refused.
        unsafe {
            vm.vfree(va).unwrap();
            assert_eq!(vm.vfree(va), Err(VmallocError::NotAnArea(va)));
        }
        assert!(vm.vmalloc_to_page(va).is_ok(), "nothing is done yet");
    }
    let stray = areas[0].0 + PAGE_SIZE;
    // SAFETY: refused.
    let refused = unsafe { vm.vfree(stray) };
    assert_eq!(refused, Err(VmallocError::NotAnArea(stray)));
    PerCpu::current().irq_left();
    assert_eq!(vm.pages_put_off(), 704, "reclaim must know of them");
    vm.run_deferred();
    assert_eq!(vm.areas.lock().deferred_pages, 0);
    for (va, _) in areas {
        assert!(vm.vmalloc_to_page(va).is_err());
    }
    vm.assert_empty();
}
