mod pages;
mod purge;
mod sequence;
mod vmap;

use super::*;
use crate::arch::cpu;
use crate::arch::trace::{Op, record_during};
use crate::layout;
use crate::mm::{AllocError, charge_to};
use crate::mmu::MapError;
use crate::mmu::kernel::scratch_mapper;
use pages::{Pages, Tlb, pages_for, scratch};
use std::sync::OnceLock;

#[test]
fn the_largest_runs_are_taken_and_given_back() {
    let vm = scratch();
    let pages = 512 + 256 + 3;
    let va = vm.vmalloc(pages * PAGE_SIZE - 5).unwrap();
    let mut orders = vm.orders_out();
    orders.sort_unstable();
    assert_eq!(orders, [0, 1, 8, 9]);
    assert!(va.is_aligned(2 << 20));
    assert_eq!(vm.tables.lock().leaf(va).unwrap().level, Level::L2);
    let frames = vm.frames_of(va, pages);
    assert!(frames[..512].is_sorted_by(|a, b| *a + 1 == *b));
    let guard = va + pages * PAGE_SIZE;
    assert_eq!(
        vm.vmalloc_to_page(guard),
        Err(VmallocError::NotMapped(guard))
    );
    // SAFETY: the memory was never used.
    unsafe { vm.vfree(va) }.unwrap();
    vm.assert_empty();
}

#[test]
fn a_fragmented_zone_gives_single_pages() {
    let vm = scratch();
    *vm.pages.largest.lock().unwrap() = 0;
    let va = vm.vmalloc(40 * PAGE_SIZE).unwrap();
    assert_eq!(vm.orders_out(), [0; 40]);
    let mut frames = vm.frames_of(va, 40);
    frames.sort_unstable();
    frames.dedup();
    assert_eq!(frames.len(), 40);
    // SAFETY: the memory was never used.
    unsafe { vm.vfree(va) }.unwrap();
    vm.assert_empty();
}

#[test]
fn vzalloc_zeroes_to_the_end_of_the_page() {
    let vm = scratch();
    let byte = |va: VirtAddr| {
        let pa = vm.vmalloc_to_page(va).unwrap().phys() + va.page_offset();
        // SAFETY: the frame belongs to the area, which lives.
        unsafe { layout::phys_to_virt(pa).as_ptr::<u8>().read() }
    };
    let size = 3 * PAGE_SIZE;
    let zeroed = vm.vzalloc(size - 9).unwrap();
    assert!((0..size).all(|offset| byte(zeroed + offset) == 0));
    let other = vm.vmalloc(size).unwrap();
    assert_eq!(byte(other + (size - 1)), 0xA5);
}

/// Every allocation of a call fails once, the first ones and the last.
#[test]
fn running_out_of_frames_gives_everything_back() {
    let vm = scratch();
    *vm.pages.largest.lock().unwrap() = 1;
    let size = 20 * PAGE_SIZE;
    for budget in 0..10 {
        *vm.pages.budget.lock().unwrap() = budget;
        let mapped = budget * 2 * PAGE_SIZE;
        assert_eq!(
            vm.vmalloc(size),
            Err(VmallocError::OutOfMemory { mapped, size })
        );
        vm.assert_empty();
    }
    *vm.pages.budget.lock().unwrap() = 10;
    assert!(vm.vmalloc(size).is_ok());
}

#[test]
fn running_out_of_tables_gives_everything_back() {
    let tables = Box::leak(Box::new(IrqLock::new(scratch_mapper(1))));
    // SAFETY: nobody else has the tables.
    let vm = unsafe { Vmalloc::new(tables, pages_for(tables)) };
    // The block fits the one table, the page behind it needs another.
    let refused = vm.vmalloc((2 << 20) + PAGE_SIZE);
    assert!(matches!(
        refused,
        Err(VmallocError::Map(MapError::OutOfTables(_)))
    ));
    vm.assert_empty();
}

#[test]
fn misuse_is_named_and_changes_nothing() {
    let vm = scratch();
    assert_eq!(vm.vmalloc(0), Err(VmallocError::ZeroSize));
    for size in [4096 * PAGE_SIZE + 1, usize::MAX] {
        let too_large = VmallocError::TooLarge { size, frames: 4096 };
        assert_eq!(vm.vmalloc(size), Err(too_large));
    }
    let va = vm.vmalloc(2 * PAGE_SIZE).unwrap();
    let direct = layout::DIRECT_MAP.base;
    for stray in [va + 1, va + PAGE_SIZE, va + 3 * PAGE_SIZE, direct] {
        // SAFETY: refused.
        let refused = unsafe { vm.vfree(stray) };
        assert_eq!(refused, Err(VmallocError::NotAnArea(stray)));
    }
    assert_eq!(
        vm.vmalloc_to_page(direct),
        Err(VmallocError::NotMapped(direct))
    );
    assert!(is_vmalloc_addr(va) && !is_vmalloc_addr(direct));
    // SAFETY: the memory was never used; the second call is refused.
    unsafe {
        vm.vfree(va).unwrap();
        assert_eq!(vm.vfree(va), Err(VmallocError::NotAnArea(va)));
    }
    vm.assert_empty();
}

#[test]
fn atomic_contexts_are_refused() {
    let vm = scratch();
    let refused = |context| Err(VmallocError::Context(context));
    let page = layout::host::ram(4096, 4096).start.pfn();
    // SAFETY: refused, or never used.
    let vmap = || unsafe { vm.vmap(&[page], Protection::ReadWrite) };
    let mapped = vmap().unwrap();
    // SAFETY: refused.
    let vunmap = || unsafe { vm.vunmap(mapped) };
    let expect = |context| {
        let before = Misuse::Context(context).count();
        assert_eq!(vm.vmalloc(1), refused(context));
        assert_eq!(vmap(), refused(context));
        assert_eq!(vunmap(), Err(VmallocError::Context(context)));
        // Other tests count too.
        assert!(Misuse::Context(context).count() >= before + 3);
    };
    let other = IrqLock::new(());
    let guard = other.lock();
    expect(Context::LockHeld);
    drop(guard);
    let irq = cpu::irq_save();
    expect(Context::IrqsMasked);
    cpu::irq_restore(irq);
    PerCpu::current().irq_entered();
    expect(Context::Interrupt);
    PerCpu::current().irq_left();
    assert!(vm.vmalloc(1).is_ok());
}

#[test]
fn more_areas_than_built_in_nodes_take_a_frame() {
    let vm = scratch();
    let areas: Vec<_> = (0..200).map(|_| vm.vmalloc(1).unwrap()).collect();
    assert_eq!(vm.areas.lock().va.iter().count(), 200);
    // Three chunks beside the built-in one.
    assert_eq!(vm.orders_out().len(), 203);
    for va in areas.into_iter().rev() {
        // SAFETY: the memory was never used.
        unsafe { vm.vfree(va) }.unwrap();
    }
    vm.vm_unmap_aliases();
    assert_eq!(vm.orders_out(), [0; 3]);
    assert_eq!(vm.kept_frames().count(), 3);
}

/// Several threads share one allocator; no frame and no address is given out twice.
#[test]
fn concurrent_calls_keep_their_areas_apart() {
    static VM: OnceLock<Vmalloc<Pages>> = OnceLock::new();
    let vm = VM.get_or_init(scratch);
    let rounds = if cfg!(miri) { 4 } else { 50 };
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            scope.spawn(move || {
                for round in 0..rounds {
                    let pages = 1 + (thread * 7 + round) % 13;
                    let mine = vm.vmalloc(pages * PAGE_SIZE).unwrap();
                    let frames = vm.frames_of(mine, pages);
                    std::thread::yield_now();
                    assert_eq!(vm.frames_of(mine, pages), frames);
                    // SAFETY: the memory was never used.
                    unsafe { vm.vfree(mine) }.unwrap();
                }
            });
        }
    });
    vm.assert_empty();
}

#[test]
fn of_two_concurrent_frees_one_is_refused() {
    let vm = scratch();
    let start = std::sync::Barrier::new(2);
    for _ in 0..if cfg!(miri) { 4 } else { 100 } {
        let va = vm.vmalloc(8 * PAGE_SIZE).unwrap();
        let free = || {
            start.wait();
            // SAFETY: the memory was never used; one of the calls is refused.
            unsafe { vm.vfree(va) }
        };
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(free);
            (free(), other.join().unwrap())
        });
        let refused = Err(VmallocError::NotAnArea(va));
        assert!([(Ok(()), refused), (refused, Ok(()))].contains(&(first, second)));
    }
    vm.assert_empty();
}

#[test]
fn flags_that_cannot_be_honoured_are_refused_by_name() {
    let vm = scratch();
    for gfp in [Gfp::ATOMIC, Gfp::NOWAIT, Gfp::TRANSHUGE_LIGHT] {
        assert_eq!(vm.vmalloc_with(1, gfp), Err(VmallocError::NonBlocking(gfp)));
    }
    for refused in [Gfp::NORETRY, Gfp::RETRY_MAYFAIL, Gfp::MOVABLE] {
        let gfp = Gfp::KERNEL | refused;
        let named = VmallocError::Flags { refused, gfp };
        assert_eq!(vm.vmalloc_with(1, gfp), Err(named));
    }
    for gfp in [Gfp::NOFS, Gfp::NOIO, Gfp::KERNEL | Gfp::NOFAIL | Gfp::DMA] {
        assert!(vm.vmalloc_with(1, gfp).is_ok());
    }
}

#[test]
fn vrealloc_follows_its_table() {
    let vm = scratch();
    let at = |va: VirtAddr| {
        let pa = vm.translate(va).unwrap();
        layout::phys_to_virt(pa).as_ptr::<u8>()
    };
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    // SAFETY: the memory is the test's, and given up where it moves.
    unsafe {
        let va = vm.vrealloc(None, 5000, gfp).unwrap().unwrap();
        assert_eq!(vm.vmalloc_size(va), Ok(2 * PAGE_SIZE));
        at(va + 4500).write(1);
        at(va + 4999).write(2);
        assert_eq!(vm.vrealloc(Some(va), 4600, gfp), Ok(Some(va)));
        assert_eq!((at(va + 4500).read(), at(va + 4999).read()), (1, 0));
        let moved = vm.vrealloc(Some(va), 9000, gfp).unwrap().unwrap();
        assert_ne!(moved, va);
        assert_eq!((at(moved + 4500).read(), at(moved + 8999).read()), (1, 0));
        assert_eq!(vm.vmalloc_size(va), Err(VmallocError::NotAnArea(va)));
        let size = 5000 * PAGE_SIZE;
        assert!(vm.vrealloc(Some(moved), size, gfp).is_err());
        assert_eq!(at(moved + 4500).read(), 1, "the old memory stays");
        assert_eq!(vm.vrealloc(Some(moved), 0, gfp), Ok(None));
    }
    vm.assert_empty();
}

#[test]
fn an_area_is_charged_whole_until_it_is_freed() {
    static OWNER: Owner = Owner::new("areas", 8 * PAGE_SIZE);
    let vm = scratch();
    let scope = charge_to(&OWNER).unwrap();
    let gfp = Gfp::KERNEL_ACCOUNT;
    let area = vm.vmalloc_with(5 * PAGE_SIZE + 1, gfp).unwrap();
    assert_eq!(OWNER.used(), 6 * PAGE_SIZE);
    let refused = AllocError::OverLimit {
        owner: "areas",
        used: 6 * PAGE_SIZE,
        limit: 8 * PAGE_SIZE,
        bytes: 3 * PAGE_SIZE,
    };
    let over = Err(VmallocError::OverLimit(refused));
    assert_eq!(vm.vmalloc_with(3 * PAGE_SIZE, gfp), over);
    // Whoever frees it, and long before its frames come back.
    drop(scope);
    // SAFETY: the memory was never used.
    unsafe { vm.vfree(area) }.unwrap();
    assert_eq!(OWNER.used(), 0);
    let scope = charge_to(&OWNER).unwrap();
    // A failure leaves no charge, whether or not some of it was mapped.
    for runs in [0, 1] {
        *vm.pages.budget.lock().unwrap() = runs;
        *vm.pages.largest.lock().unwrap() = 0;
        let failed = vm.vmalloc_with(3 * PAGE_SIZE, gfp);
        assert!(matches!(failed, Err(VmallocError::OutOfMemory { .. })));
        assert_eq!(OWNER.used(), 0, "{runs} runs");
    }
    *vm.pages.budget.lock().unwrap() = usize::MAX;
    let area = vm.vmalloc_with(PAGE_SIZE, gfp).unwrap();
    PerCpu::current().irq_entered();
    // SAFETY: the memory was never used.
    unsafe { vm.vfree(area) }.unwrap();
    PerCpu::current().irq_left();
    assert_eq!(OWNER.used(), 0, "freed in an interrupt");
    drop(scope);
    vm.assert_empty();
}

/// What is asked of the page allocator for areas' descriptors, when those that are built in are used
/// up, is what the request may do.
#[test]
fn descriptors_are_allocated_as_the_request_says() {
    let vm = scratch();
    let areas: Vec<_> = (0..130)
        .map(|_| vm.vmalloc_with(PAGE_SIZE, Gfp::NOFS).unwrap())
        .collect();
    let asked = vm.pages.asked.lock().unwrap().clone();
    assert!(vm.kept_frames().count() > 0);
    assert!(asked.iter().all(|gfp| !gfp.contains(Gfp::FS)), "{asked:?}");
    for area in areas {
        // SAFETY: the memory was never used.
        unsafe { vm.vfree(area) }.unwrap();
    }
    vm.assert_empty();
}
