use super::*;
use crate::addr::PhysRange;
use crate::arch::cpu;
use crate::arch::trace::{Op, record_during, recorded};
use crate::mm::FrameError;
use crate::mmu::MapError;
use crate::mmu::kernel::scratch_mapper;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

const MAX_ORDER: u32 = 10;

/// What the TLBs of all cores hold at worst: every page there ever was, until its invalidation.
#[derive(Default)]
struct Tlb {
    frames: BTreeMap<VirtAddr, Pfn>,
    pages: BTreeMap<Pfn, VirtAddr>,
    /// Recorded instructions that have had their effect.
    seen: usize,
}

impl Tlb {
    /// Lets the instructions recorded meanwhile have their effect.
    fn catch_up(&mut self) {
        let ops = recorded(self.seen);
        self.seen += ops.len();
        for op in ops {
            match op {
                Op::TlbAll => {
                    self.frames.clear();
                    self.pages.clear();
                }
                Op::TlbLastLevel(va) => {
                    if let Some(pfn) = self.frames.remove(&va) {
                        self.pages.remove(&pfn);
                    }
                }
                _ => {}
            }
        }
    }

    /// Every core uses the page at `va`, of frame `pfn`.
    fn fill(&mut self, va: VirtAddr, pfn: Pfn) {
        self.catch_up();
        let stale = self.frames.insert(va, pfn);
        assert_eq!(stale, None, "{va} is used again before its invalidation");
        self.pages.insert(pfn, va);
    }

    /// The frames are about to change hands.
    fn check_forgotten(&mut self, first: Pfn, frames: u32) {
        self.catch_up();
        let stale = self.pages.range(first..first + frames).next();
        assert_eq!(stale, None, "{first} leaves before its invalidation");
    }
}

/// Hands out frames, those that came back last first, and keeps the ledger: what is out, with which
/// order.
struct Pages {
    tables: &'static IrqLock<KernelMapper>,
    out: Mutex<BTreeMap<Pfn, u32>>,
    spare: Mutex<[Vec<Pfn>; MAX_ORDER as usize + 1]>,
    tlb: Mutex<Tlb>,
    /// Orders above this fail: a fragmented zone.
    largest: Mutex<u32>,
    /// Allocations that still succeed.
    budget: Mutex<usize>,
    /// Frames that are not Normal write-back.
    memory_types: Mutex<BTreeMap<Pfn, MemoryType>>,
}

// SAFETY: `ram` hands out each piece once and aligned; `spare` has those that are not out.
unsafe impl PageSource for Pages {
    const MAX_ORDER: u32 = MAX_ORDER;

    fn alloc(&self, order: u32, gfp: Gfp) -> Option<Pfn> {
        assert_eq!(PerCpu::current().locks_held(), 0, "may block");
        let mut budget = self.budget.lock().unwrap();
        if order > *self.largest.lock().unwrap() || *budget == 0 {
            return None;
        }
        *budget -= 1;
        let size = (PAGE_SIZE << order) as u64;
        let spare = self.spare.lock().unwrap()[order as usize].pop();
        let pfn = spare.unwrap_or_else(|| layout::host::ram(size, size).start.pfn());
        self.tlb.lock().unwrap().check_forgotten(pfn, 1 << order);
        let start = layout::phys_to_virt(pfn.phys()).as_ptr::<u8>();
        // SAFETY: the piece is not out.
        unsafe {
            let fill = if gfp.contains(Gfp::ZERO) { 0 } else { 0xA5 };
            start.write_bytes(fill, size as usize);
        }
        self.out.lock().unwrap().insert(pfn, order);
        Some(pfn)
    }

    unsafe fn free(&self, pfn: Pfn, order: u32) {
        assert_eq!(self.out.lock().unwrap().remove(&pfn), Some(order));
        let frames = Run { pfn, order };
        let start = pfn.phys();
        let frames = PhysRange::new(start, start + frames.size());
        let tables = self.tables.lock();
        let mapping = tables.find_mapping_of(frames, mapper::FIRST, mapper::LIMIT);
        assert_eq!(mapping, None, "freed while mapped");
        self.tlb.lock().unwrap().check_forgotten(pfn, 1 << order);
        self.spare.lock().unwrap()[order as usize].push(pfn);
    }

    fn total_frames(&self) -> usize {
        4096
    }

    fn check_memory_type(&self, pfn: Pfn, wanted: MemoryType) -> Result<(), MemoryTypeError> {
        match *self
            .memory_types
            .lock()
            .unwrap()
            .get(&pfn)
            .unwrap_or(&MemoryType::NormalWriteBack)
        {
            _ if pfn < layout::host::RAM_BASE.pfn() => Err(FrameError::Untouched(pfn).into()),
            has if has == wanted => Ok(()),
            has => Err(MemoryTypeError::Conflict { pfn, has, wanted }),
        }
    }
}

fn pages_for(tables: &'static IrqLock<KernelMapper>) -> &'static Pages {
    Box::leak(Box::new(Pages {
        tables,
        out: Mutex::default(),
        spare: Mutex::default(),
        tlb: Mutex::default(),
        largest: Mutex::new(MAX_ORDER),
        budget: Mutex::new(usize::MAX),
        memory_types: Mutex::default(),
    }))
}

fn scratch() -> Vmalloc<Pages> {
    let tables = Box::leak(Box::new(IrqLock::new(scratch_mapper(16))));
    Vmalloc::new(tables, pages_for(tables))
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

    /// An area whose pages every core uses.
    fn use_new_area(&self, pages: usize, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
        let va = self.vmalloc_with(pages * PAGE_SIZE, gfp)?;
        for (page, frame) in self.frames_of(va, pages).into_iter().enumerate() {
            let mut tlb = self.pages.tlb.lock().unwrap();
            tlb.fill(va + page * PAGE_SIZE, frame);
        }
        Ok(va)
    }

    fn assert_empty(&self) {
        self.vm_unmap_aliases();
        assert_eq!(self.orders_out(), vec![0; self.kept_frames()]);
        assert_eq!(self.areas.lock().va.iter().count(), 0);
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
    let vm = Vmalloc::new(tables, pages_for(tables));
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
    assert_eq!(vm.kept_frames(), 3);
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

#[derive(Clone, Debug)]
enum Step {
    /// An area of so many pages, by an allocator that has so many more runs, none above an order.
    Alloc {
        pages: usize,
        runs: usize,
        largest: u32,
    },
    Free(prop::sample::Index),
    FreeInInterrupt(prop::sample::Index),
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    let runs = prop_oneof![3 => Just(usize::MAX), 1 => 0..40usize];
    let pages = prop_oneof![4 => 1..20usize, 2 => 20..200usize, 1 => 500..1100usize];
    prop_oneof![
        5 => (pages, runs, 0..=MAX_ORDER)
            .prop_map(|(pages, runs, largest)| Step::Alloc { pages, runs, largest }),
        3 => any::<prop::sample::Index>().prop_map(Step::Free),
        1 => any::<prop::sample::Index>().prop_map(Step::FreeInInterrupt),
        1 => Just(Step::Purge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 48 }))]

    /// Frames run out, and with few tables those too.
    #[test]
    fn failures_leak_nothing(
        tables in 1..6usize,
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 8 } else { 60 }),
    ) {
        let tables = Box::leak(Box::new(IrqLock::new(scratch_mapper(tables))));
        let vm = Vmalloc::new(tables, pages_for(tables));
        let (result, _) = record_during(|| follow(&vm, steps));
        result?;
    }
}

fn follow(vm: &Vmalloc<Pages>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut live: BTreeMap<VirtAddr, usize> = BTreeMap::new();
    let nth = |live: &BTreeMap<VirtAddr, usize>, index: prop::sample::Index| {
        (!live.is_empty()).then(|| *live.keys().nth(index.index(live.len())).unwrap())
    };
    for step in steps {
        match step {
            Step::Alloc {
                pages,
                runs,
                largest,
            } => {
                *vm.pages.budget.lock().unwrap() = runs;
                *vm.pages.largest.lock().unwrap() = largest;
                if let Ok(va) = vm.use_new_area(pages, Gfp::KERNEL) {
                    live.insert(va, pages);
                }
            }
            Step::Free(index) | Step::FreeInInterrupt(index) => {
                let Some(va) = nth(&live, index) else {
                    continue;
                };
                live.remove(&va);
                let in_interrupt = matches!(step, Step::FreeInInterrupt(_));
                if in_interrupt {
                    PerCpu::current().irq_entered();
                }
                // SAFETY: the memory was never used.
                let freed = unsafe { vm.vfree(va) };
                if in_interrupt {
                    PerCpu::current().irq_left();
                }
                prop_assert_eq!(freed, Ok(()));
            }
            Step::Purge => {
                vm.vm_unmap_aliases();
                let out: usize = vm.orders_out().iter().map(|order| 1 << order).sum();
                let wanted = live.values().sum::<usize>() + vm.kept_frames();
                prop_assert_eq!(out, wanted, "frames are out");
            }
        }
        let areas: Vec<_> = vm
            .areas
            .lock()
            .va
            .iter()
            .filter(|area| area.data.state == State::Live)
            .map(|area| (area.va, area.size / PAGE_SIZE))
            .collect();
        prop_assert_eq!(areas, live.clone().into_iter().collect::<Vec<_>>());
    }
    for va in live.into_keys() {
        // SAFETY: the memory was never used.
        prop_assert_eq!(unsafe { vm.vfree(va) }, Ok(()));
    }
    vm.assert_empty();
    Ok(())
}

#[test]
fn what_may_wait_grows_with_the_digits_of_the_cores() {
    const MIB: usize = 1 << 20;
    // Enough memory that its share does not matter.
    let frames = 16 << 30 >> 12;
    for (cores, mib) in [(1, 32), (2, 64), (3, 64), (4, 96), (7, 96), (8, 128)] {
        assert_eq!(free::lazy_limit(cores, frames), mib * MIB, "{cores} cores");
    }
    for (cores, ram, mib) in [(1, 256, 16), (8, 1024, 64), (4, 1536, 96), (4, 1520, 95)] {
        assert_eq!(free::lazy_limit(cores, ram * 256), mib * MIB, "{ram} MiB");
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
    vm.run_deferred();
    for (va, _) in areas {
        assert!(vm.vmalloc_to_page(va).is_err());
    }
    vm.assert_empty();
}

#[test]
fn vmap_maps_what_it_is_given_and_leaves_it() {
    let vm = scratch();
    let ram = layout::host::ram(8 << 12, 4096).start.pfn();
    let list = [3, 4, 0, 6].map(|page| ram + page);
    for (protection, access) in [
        (Protection::ReadWrite, Access::ReadWrite),
        (Protection::ReadOnly, Access::ReadOnly),
    ] {
        // SAFETY: the pages are the test's.
        let va = unsafe { vm.vmap(&list, protection) }.unwrap();
        assert_eq!(vm.frames_of(va, 4), list);
        assert!(vm.vmalloc_to_page(va + 4 * PAGE_SIZE).is_err(), "the guard");
        assert_eq!(vm.tables.lock().leaf(va).unwrap().access(), Some(access));
        // SAFETY: refused.
        let wrong = unsafe { vm.vfree(va) };
        let kind = AreaKind::Vmap;
        assert_eq!(wrong, Err(VmallocError::WrongKind { va, kind }));
        // SAFETY: the mapping is not used; the second call is refused.
        let ((), ops) = record_during(|| unsafe { vm.vunmap(va) }.unwrap());
        assert_eq!(ops.last_chunk(), Some(&[Op::DsbIsh, Op::Isb]), "at once");
        // SAFETY: refused.
        let twice = unsafe { vm.vunmap(va) };
        assert_eq!(twice, Err(VmallocError::NotAnArea(va)));
    }
    vm.assert_empty();
}

#[test]
fn vmap_checks_every_page() {
    let vm = scratch();
    let ram = layout::host::ram(2 << 12, 4096).start.pfn();
    let nc = MemoryType::NormalNonCacheable;
    vm.pages.memory_types.lock().unwrap().insert(ram + 1, nc);
    let conflict =
        |pfn, has, wanted| VmallocError::MemoryType(MemoryTypeError::Conflict { pfn, has, wanted });
    let wb = MemoryType::NormalWriteBack;
    // SAFETY: refused, or the pages are the test's.
    unsafe {
        let both = [ram, ram + 1];
        assert_eq!(
            vm.vmap(&both, Protection::ReadWrite),
            Err(conflict(ram + 1, nc, wb))
        );
        assert_eq!(
            vm.vmap(&both, Protection::NonCacheable),
            Err(conflict(ram, wb, nc))
        );
        let va = vm.vmap(&both[1..], Protection::NonCacheable).unwrap();
        let leaf = vm.tables.lock().leaf(va).unwrap();
        assert_eq!(leaf.memory_type(), Some(nc));
        assert!(
            vm.vmap(&[Pfn::new(9)], Protection::ReadWrite).is_err(),
            "no RAM"
        );
        assert_eq!(
            vm.vmap(&[], Protection::ReadWrite),
            Err(VmallocError::ZeroSize)
        );
        vm.vunmap(va).unwrap();
        let area = vm.vmalloc(1).unwrap();
        let kind = AreaKind::Vmalloc;
        assert_eq!(
            vm.vunmap(area),
            Err(VmallocError::WrongKind { va: area, kind })
        );
        vm.vfree(area).unwrap();
    }
    vm.assert_empty();
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
fn the_list_of_areas_shows_each_with_its_kind() {
    let vm = scratch();
    let block = 2 << 20;
    let first = vm.vmalloc(block + 1).unwrap();
    let ram = layout::host::ram(4096, 4096).start;
    // SAFETY: the page is the test's.
    let second = unsafe { vm.vmap(&[ram.pfn()], Protection::ReadOnly) }.unwrap();
    let third = vm.vmalloc(1).unwrap();
    let warm = vm.vmalloc(1).unwrap();
    // SAFETY: the memory was never used.
    unsafe {
        vm.vfree(warm).unwrap();
        vm.vfree(third).unwrap();
    }
    let mut from = VMALLOC.base;
    let rows: Vec<_> = std::iter::from_fn(|| {
        let row = vm.area_from(from)?;
        from = row.end();
        Some((row.va, row.kind, row.blocks, row.freed))
    })
    .collect();
    let mut expected = [
        (first, AreaKind::Vmalloc, 1, false),
        (second, AreaKind::Vmap, 0, false),
        (third, AreaKind::Vmalloc, 0, true),
    ];
    expected.sort_by_key(|row| row.0);
    assert_eq!(rows, expected);
    let row = vm.area_from(second).unwrap().to_string();
    let wanted = format!(
        "{second}-{} {:>9} vmap    pages=1 blocks=0 phys={ram} Normal-WB",
        second + 4096,
        4096
    );
    assert_eq!(row, wanted);
}
