use super::*;
use crate::arch::trace::{Op, record_during};
use crate::mmu::kernel::scratch_mapper;
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

const MAX_ORDER: u32 = 10;

/// Hands out fresh frames and keeps the ledger: what is out, with which order.
struct Pages {
    tables: &'static IrqLock<KernelMapper>,
    out: Mutex<BTreeMap<Pfn, u32>>,
    /// Orders above this fail: a fragmented zone.
    largest: Mutex<u32>,
    /// Allocations that still succeed.
    budget: Mutex<usize>,
}

// SAFETY: `ram` hands out each piece once and aligned; freed frames are not reused.
unsafe impl PageSource for Pages {
    const MAX_ORDER: u32 = MAX_ORDER;

    fn alloc(&self, order: u32, _: Gfp) -> Option<Pfn> {
        assert_eq!(PerCpu::current().locks_held(), 0, "may block");
        let mut budget = self.budget.lock().unwrap();
        if order > *self.largest.lock().unwrap() || *budget == 0 {
            return None;
        }
        *budget -= 1;
        let size = (PAGE_SIZE << order) as u64;
        let ram = layout::host::ram(size, size);
        let start = layout::phys_to_virt(ram.start).as_ptr::<u8>();
        // SAFETY: the piece was just handed out.
        unsafe { start.write_bytes(0xA5, size as usize) };
        self.out.lock().unwrap().insert(ram.start.pfn(), order);
        Some(ram.start.pfn())
    }

    unsafe fn free(&self, pfn: Pfn, order: u32) {
        assert_eq!(self.out.lock().unwrap().remove(&pfn), Some(order));
        let frames = Run { pfn, order };
        let start = pfn.phys();
        let frames = crate::addr::PhysRange::new(start, start + frames.size());
        let tables = self.tables.lock();
        let mapping = tables.find_mapping_of(frames, mapper::FIRST, mapper::LIMIT);
        assert_eq!(mapping, None, "freed while mapped");
    }

    fn total_frames(&self) -> usize {
        4096
    }
}

fn scratch() -> Vmalloc<Pages> {
    let tables = Box::leak(Box::new(IrqLock::new(scratch_mapper(16))));
    let pages = Box::leak(Box::new(Pages {
        tables,
        out: Mutex::default(),
        largest: Mutex::new(MAX_ORDER),
        budget: Mutex::new(usize::MAX),
    }));
    Vmalloc::new(tables, pages)
}

impl Vmalloc<Pages> {
    fn orders_out(&self) -> Vec<u32> {
        self.pages.out.lock().unwrap().values().copied().collect()
    }

    fn frames_of(&self, va: VirtAddr, pages: usize) -> Vec<Pfn> {
        (0..pages)
            .map(|page| self.vmalloc_to_page(va + page * PAGE_SIZE).unwrap())
            .collect()
    }

    fn assert_empty(&self) {
        assert_eq!(self.orders_out(), []);
        assert_eq!(self.areas.lock().iter().count(), 0);
        let leaf = self.tables.lock().first_leaf(mapper::FIRST, mapper::LIMIT);
        assert_eq!(leaf, None);
    }
}

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

#[test]
fn barriers_and_invalidations_come_once_per_call() {
    let vm = scratch();
    // Warm, so that no table has to be made.
    let warm = vm.vmalloc(PAGE_SIZE).unwrap();
    let (va, ops) = record_during(|| vm.vmalloc(3 * PAGE_SIZE).unwrap());
    assert_eq!(ops, [Op::DsbIshst, Op::Isb]);
    // SAFETY: the memory was never used.
    let (_, ops) = record_during(|| unsafe { vm.vfree(va) }.unwrap());
    let tlbi = (0..3).map(|page| Op::TlbLastLevel(va + page * PAGE_SIZE));
    let mut expected = vec![Op::DsbIshst];
    expected.extend(tlbi);
    expected.extend([Op::DsbIsh, Op::Isb]);
    assert_eq!(ops, expected);
    assert!(warm < va);
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
    let pages = Box::leak(Box::new(Pages {
        tables,
        out: Mutex::default(),
        largest: Mutex::new(MAX_ORDER),
        budget: Mutex::new(usize::MAX),
    }));
    let vm = Vmalloc::new(tables, pages);
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
    let refused = Err(VmallocError::AtomicContext);
    let other = IrqLock::new(());
    let guard = other.lock();
    assert_eq!(vm.vmalloc(1), refused);
    drop(guard);
    let irq = cpu::irq_save();
    assert_eq!(vm.vmalloc(1), refused);
    cpu::irq_restore(irq);
    PerCpu::current().irq_entered();
    assert_eq!(vm.vmalloc(1), refused);
    PerCpu::current().irq_left();
    assert!(vm.vmalloc(1).is_ok());
}

#[test]
fn more_areas_than_built_in_nodes_take_a_frame() {
    let vm = scratch();
    let areas: Vec<_> = (0..200).map(|_| vm.vmalloc(1).unwrap()).collect();
    assert_eq!(vm.areas.lock().iter().count(), 200);
    // Three chunks beside the built-in one.
    assert_eq!(vm.orders_out().len(), 203);
    for va in areas.into_iter().rev() {
        // SAFETY: the memory was never used.
        unsafe { vm.vfree(va) }.unwrap();
    }
    assert_eq!(vm.orders_out(), [0; 3]);
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
