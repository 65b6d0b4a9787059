//! A machine with a pool and a contiguous memory area.

use super::*;
use crate::arch::trace::Op;
use crate::layout::{COHERENT, DIRECT_MAP};
use crate::mm::testing::{self, with_area};
use crate::mm::{AllocError, Cma, CmaArea, CmaError, Gfp, Migration, Misuse, PageAllocator, fault};
use crate::mmu::kernel::scratch_mapper;
use crate::mmu::{Access, Attributes, KernelMapper, MapError, MemoryType};
use crate::sync::{Context, IrqLock, PerCpu};
use std::cell::{Cell, RefCell};

mod returns;

thread_local! {
    /// Whether something was put off.
    static DEFERRED: Cell<bool> = const { Cell::new(false) };
    /// Which of the next changes of type fail: bit 0 the next one.
    static FAILING: Cell<u64> = const { Cell::new(0) };
    /// What a handler frees during changes that give memory back: one in each, the last first.
    static FREED_MEANWHILE: RefCell<Vec<Coherent>> = const { RefCell::new(Vec::new()) };
}

/// Drops `memory` where nothing may block.
fn free_under_a_lock(memory: Coherent) {
    let lock = IrqLock::new(());
    let held = lock.lock();
    drop(memory);
    drop(held);
}

/// What a change of type at `va` is told before it is made.
pub(crate) fn injected(va: VirtAddr) -> Result<(), MapError> {
    let is_return = COHERENT.contains(va);
    let freed = is_return.then(|| FREED_MEANWHILE.with_borrow_mut(Vec::pop));
    freed.flatten().into_iter().for_each(free_under_a_lock);
    let failing = FAILING.get();
    FAILING.set(failing >> 1);
    match failing & 1 {
        0 => Ok(()),
        _ => Err(MapError::OutOfTables(va)),
    }
}

/// Where the tables have `pa` in the direct map.
fn direct(pa: PhysAddr) -> VirtAddr {
    DIRECT_MAP.base + pa.get() as usize
}

/// Enough for the area's place in the direct map and in the coherent window.
const TABLES: usize = 64;

const CACHED: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);

struct Machine {
    memory: &'static CoherentMemory,
    pool: &'static CoherentPool,
    pages: &'static PageAllocator,
    cma: &'static Cma,
    tables: &'static IrqLock<KernelMapper>,
}

impl Machine {
    /// 16 MiB of ordinary memory, an area of `area` MiB, a pool of `pool` pages, and `tables`
    /// tables more than the area's place in the direct map takes.
    fn with(area: u64, pool_pages: u64, tables: usize) -> Self {
        let whole = testing::ram(16 + area);
        let border = whole.start + (16 << 20);
        let (ordinary, frames) = (
            PhysRange::new(whole.start, border),
            PhysRange::new(border, whole.end),
        );
        let pages = with_area(ordinary, frames);
        let migration: &Migration = Box::leak(Box::new(Migration::new()));
        let area = CmaArea {
            name: "test",
            frames,
            is_default: true,
        };
        // SAFETY: the area was lent above.
        let cma = unsafe { Cma::new(area, pages, migration) }.unwrap();
        let areas: &'static [Cma] = Box::leak(Box::new([cma]));
        let tables: &IrqLock<KernelMapper> =
            Box::leak(Box::new(IrqLock::new(scratch_mapper(tables))));
        // SAFETY: nothing walks the tree.
        unsafe {
            tables
                .lock()
                .map_by_pages(direct(frames.start), frames, CACHED)
        }
        .unwrap();
        let pool = pool(pool_pages);
        let memory = CoherentMemory::new(pool, tables, pages, areas, || DEFERRED.set(true));
        Self {
            memory: Box::leak(Box::new(memory)),
            pool,
            pages,
            cma: &areas[0],
            tables,
        }
    }

    fn new() -> Self {
        Self::with(16, 64, TABLES)
    }

    fn alloc(&self, size: usize, gfp: Gfp) -> Result<Coherent, DmaError> {
        self.memory.alloc(device(), size, gfp)
    }

    /// The one run there is: where it is mapped, and its frames.
    fn run(&self) -> (VirtAddr, PhysRange) {
        let tables = self.tables.lock();
        let mut found = tables.leaves(COHERENT.base, COHERENT.end());
        let first = found.next().unwrap();
        let last = found.last().unwrap_or(first);
        let end = last.pa + last.size;
        (first.va, PhysRange::new(first.pa, end))
    }

    fn runs(&self) -> usize {
        self.memory.run_info().runs
    }

    /// Whether every frame is write-back memory in the direct map and nowhere else.
    fn is_restored(&self, frames: PhysRange) -> bool {
        let tables = self.tables.lock();
        let pfns = || frames.start.pfn().get()..frames.end.pfn().get();
        let in_place = pfns().map(crate::addr::Pfn::new).all(|pfn| {
            let leaf = tables.leaf(direct(pfn.phys()));
            let recorded = self.pages.frames().memory_type(pfn);
            leaf.is_some_and(|leaf| leaf.attributes() == Some(CACHED) && leaf.pa == pfn.phys())
                && recorded == Ok(MemoryType::NormalWriteBack)
        });
        in_place
            && tables
                .leaves(COHERENT.base, COHERENT.end())
                .next()
                .is_none()
    }
}

/// The coherent memory of a machine whose pool has `pages` pages.
pub(crate) fn memory(pages: u64) -> &'static CoherentMemory {
    Machine::with(4, pages, TABLES).memory
}

/// Every line of the range, dropped.
fn drops(va: VirtAddr, size: usize) -> impl Iterator<Item = Op> {
    let offsets = (0..size).step_by(maintenance::line_size());
    offsets.map(move |offset| Op::CleanInvalidate(va + offset))
}

/// What changing the type of `size` bytes, less than a step, takes in the order of the design.
fn change(from: VirtAddr, to: VirtAddr, size: usize) -> Vec<Op> {
    let is_cached = DIRECT_MAP.contains(to);
    let mut ops = Vec::new();
    if is_cached {
        ops.push(Op::DsbSy);
    } else {
        ops.extend(drops(from, size));
    }
    ops.push(Op::DsbIshst);
    let pages = (0..size).step_by(PAGE_SIZE);
    ops.extend(pages.map(|offset| Op::TlbLastLevel(from + offset)));
    ops.extend([Op::DsbIsh, Op::Isb, Op::DsbIshst, Op::Isb]);
    if !is_cached {
        ops.extend(drops(to, size));
        ops.push(Op::DsbSy);
    }
    ops
}

#[test]
fn a_task_is_served_from_the_pool_above_the_reserve_and_then_from_contiguous_memory() {
    let machine = Machine::new();
    let from_pool: Vec<_> = (0..32)
        .map(|_| machine.alloc(1, Gfp::KERNEL).unwrap())
        .collect();
    assert_eq!((machine.pool.free_pages(), machine.runs()), (32, 0));
    let contiguous = machine.alloc(1, Gfp::KERNEL).unwrap();
    assert_eq!((machine.pool.free_pages(), machine.runs()), (32, 1));
    let atomic: Vec<_> = (0..32)
        .map(|_| machine.alloc(1, Gfp::ATOMIC).unwrap())
        .collect();
    assert_eq!((machine.pool.free_pages(), machine.runs()), (0, 1));
    let refused = machine.alloc(1, Gfp::NOWAIT).unwrap_err();
    let (size, free) = (1, 0);
    assert_eq!(refused, DmaError::PoolExhausted { size, free });
    assert_eq!(machine.pool.info().exhausted, 1);
    drop((from_pool, contiguous, atomic));
    assert_eq!((machine.pool.free_pages(), machine.runs()), (64, 0));
}

#[test]
fn a_run_leaves_the_direct_map_and_comes_back_in_the_order_of_the_design() {
    const SIZE: usize = 72 * PAGE_SIZE;
    let machine = Machine::new();
    let (mut memory, ops) = record_during(|| machine.alloc(SIZE, Gfp::KERNEL).unwrap());
    let (va, frames) = machine.run();
    assert!(machine.cma.contains(frames.start.pfn()));
    assert_eq!(frames.size(), SIZE as u64);
    let mut expected = change(direct(frames.start), va, SIZE);
    expected.push(Op::DmbOshst);
    assert_eq!(ops, expected);
    assert!(va.is_aligned(128 * PAGE_SIZE) && frames.start.is_aligned(128 * PAGE_SIZE));
    assert_eq!(memory.dma_addr().get(), 0x1_0000_0000 + frames.start.get());
    assert!(memory.as_slice().iter().all(|byte| *byte == 0));
    for pfn in frames.start.pfn().get()..frames.end.pfn().get() {
        let pfn = crate::addr::Pfn::new(pfn);
        assert_eq!(machine.tables.lock().leaf(direct(pfn.phys())), None);
        let recorded = machine.pages.frames().memory_type(pfn);
        assert_eq!(recorded, Ok(MemoryType::NormalNonCacheable));
    }
    memory.as_mut_slice().fill(0xA5);
    let ((), ops) = record_during(|| drop(memory));
    assert_eq!(ops, change(va, direct(frames.start), SIZE));
    assert!(machine.is_restored(frames));
    assert_eq!((machine.cma.stats().used, machine.runs()), (0, 0));
    let again = machine.alloc(SIZE, Gfp::KERNEL).unwrap();
    assert!(
        again.as_slice().iter().all(|byte| *byte == 0),
        "zero after reuse"
    );
}

/// More than is changed under one hold of the lock; more than a block of pages.
#[test]
fn large_runs_are_served_and_aligned_as_far_as_the_area_is() {
    let machine = Machine::new();
    for (size, aligned) in [(3 << 20, 4 << 20), (8 << 20, 4 << 20), (16 << 20, 4 << 20)] {
        let memory = machine.alloc(size, Gfp::KERNEL).unwrap();
        let (va, frames) = machine.run();
        assert_eq!((memory.size(), frames.size()), (size, size as u64));
        assert!(va.is_aligned(aligned) && frames.start.is_aligned(aligned));
        drop(memory);
        assert!(machine.is_restored(frames));
    }
    let refused = machine.alloc((16 << 20) + 1, Gfp::KERNEL).unwrap_err();
    let (count, area) = (4097, 4096);
    let error = CmaError::Count { count, area };
    assert_eq!(refused, DmaError::Run(RunError::Contiguous(error)));
    let refused = machine.alloc(usize::MAX, Gfp::KERNEL).unwrap_err();
    assert!(matches!(
        refused,
        DmaError::Run(RunError::Contiguous(CmaError::Count { .. }))
    ));
}

#[test]
fn running_out_of_tables_gives_everything_back() {
    // The area takes eight tables of level 3 and one above; the window's root has one below.
    let machine = Machine::with(16, 1, 12);
    let refused = machine.alloc(8 << 20, Gfp::KERNEL).unwrap_err();
    assert!(
        matches!(refused, DmaError::Run(RunError::Tables(_))),
        "{refused}"
    );
    assert_eq!((machine.cma.stats().used, machine.runs()), (0, 0));
    assert!(machine.is_restored(machine.cma.area().frames));
}

#[test]
fn a_free_where_blocking_is_not_allowed_is_put_off() {
    let machine = Machine::new();
    let pooled = machine.alloc(1, Gfp::ATOMIC).unwrap();
    let memory = machine.alloc(1 << 20, Gfp::KERNEL).unwrap();
    let (_, frames) = machine.run();
    let lock = IrqLock::new(());
    let held = lock.lock();
    let ((), ops) = record_during(|| drop((pooled, memory)));
    assert_eq!(ops, [], "nothing is changed under a lock");
    assert!(DEFERRED.get());
    assert_eq!((machine.pool.free_pages(), machine.runs()), (64, 1));
    drop(held);
    machine.memory.run_deferred();
    assert_eq!(machine.runs(), 0);
    assert!(machine.is_restored(frames));
    machine.memory.run_deferred();
}

#[test]
fn a_low_pool_takes_in_a_chunk_and_gives_it_back() {
    let machine = Machine::new();
    machine.memory.refill();
    assert_eq!(machine.pool.info().chunks, 0, "it was not low");
    let mut held: Vec<_> = (0..49)
        .map(|_| machine.alloc(1, Gfp::ATOMIC).unwrap())
        .collect();
    machine.memory.refill();
    let info = machine.pool.info();
    assert_eq!((info.chunks, info.refills, info.pages), (1, 1, 64 + 512));
    machine.memory.refill();
    assert_eq!(machine.pool.info().chunks, 1, "it is not low any more");
    for _ in 49..64 + 512 {
        let mut page = machine.alloc(1, Gfp::ATOMIC).unwrap();
        assert!(page.as_slice().iter().all(|byte| *byte == 0));
        page.as_mut_slice().fill(0xA5);
        held.push(page);
    }
    let mut places: Vec<_> = held.iter().map(|page| page.dma_addr()).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), held.len(), "no page is handed out twice");
    assert!(machine.alloc(1, Gfp::ATOMIC).is_err());
    let rest = held.split_off(100);
    drop(rest);
    machine.memory.drain();
    assert_eq!(machine.pool.info().chunks, 1, "it is in use");
    drop(held);
    machine.memory.drain();
    let info = machine.pool.info();
    assert_eq!((info.chunks, info.free, info.pages), (0, 64, 64));
    assert_eq!((machine.cma.stats().used, machine.runs()), (0, 0));
}

#[test]
fn chunks_are_bounded_and_a_failed_refill_is_counted() {
    // The larger area has more than the pool takes, the smaller one less.
    for (area, chunks) in [(16, MAX_CHUNKS), (4, 2)] {
        let machine = Machine::with(area, 8, TABLES);
        let mut held = Vec::new();
        for _ in 0..2 * MAX_CHUNKS {
            while let Ok(page) = machine.alloc(1, Gfp::ATOMIC) {
                held.push(page);
            }
            machine.memory.refill();
        }
        assert_eq!(machine.pool.info().chunks, chunks);
        let failed = machine.memory.run_info().failed_refills;
        assert_eq!(failed > 0, chunks < MAX_CHUNKS);
        drop(held);
        machine.memory.drain();
        assert_eq!(machine.pool.free_pages(), 8);
    }
}

#[test]
fn without_an_area_in_reach_the_whole_pool_is_for_everybody() {
    let machine = Machine::new();
    let start = machine.pool.frames().start.get();
    // Reaches the pool only.
    let near = fake(
        "near",
        DmaMask::new::<48>(),
        [start, 0x1000_0000, 64 * PAGE_SIZE as u64],
    );
    let alloc = || machine.memory.alloc(near, 1, Gfp::KERNEL);
    let held: Vec<_> = (0..64).map(|_| alloc().unwrap()).collect();
    assert!(matches!(alloc(), Err(DmaError::PoolExhausted { .. })));
    assert_eq!(machine.runs(), 0);
    drop(held);
    // Reaches the start of the area, and not what it is given.
    let start = machine.cma.area().frames.start.get();
    let short = fake("short", DmaMask::new::<48>(), [start, 0, PAGE_SIZE as u64]);
    let refused = machine
        .memory
        .alloc(short, 2 * PAGE_SIZE, Gfp::KERNEL)
        .unwrap_err();
    assert!(matches!(refused, DmaError::OutOfReach { .. }), "{refused}");
    assert_eq!(machine.cma.stats().used, 0);
}

#[test]
fn a_device_that_snoops_gets_cached_memory() {
    let machine = Machine::new();
    let snooping = fake("snooping", DmaMask::new::<48>(), [0, 0, 1 << 40]);
    snooping.set_coherent(true);
    for (size, gfp) in [
        (1, Gfp::ATOMIC),
        (5 * PAGE_SIZE, Gfp::KERNEL),
        (6 << 20, Gfp::KERNEL),
    ] {
        let (mut memory, ops) =
            record_during(|| machine.memory.alloc(snooping, size, gfp).unwrap());
        assert_eq!(ops, [Op::DmbOshst], "no maintenance");
        let block = size
            .min(4 << 20)
            .next_multiple_of(PAGE_SIZE)
            .next_power_of_two();
        assert!(memory.dma_addr().is_aligned(block));
        assert!(memory.as_slice().iter().all(|byte| *byte == 0));
        memory.as_mut_slice().fill(0xA5);
        let pa = PhysAddr::new(memory.dma_addr().get());
        assert_eq!(memory.va(), layout::phys_to_virt(pa));
        assert_eq!((machine.pool.free_pages(), machine.runs()), (64, 0));
    }
    assert_eq!(machine.cma.stats().used, 0);
    let refused = machine.memory.alloc(snooping, 6 << 20, Gfp::ATOMIC);
    let (order, gfp) = (11, Gfp::ATOMIC);
    let too_large = AllocError::OrderTooLarge { order, gfp };
    assert_eq!(refused.map(drop), Err(too_large.into()));
    let narrow = fake("narrow", DmaMask::new::<12>(), [0, 0, 1 << 40]);
    narrow.set_coherent(true);
    let free = || machine.pages.zone(crate::mm::ZoneKind::Normal).free;
    let before = free();
    let refused = machine.memory.alloc(narrow, 1, Gfp::KERNEL);
    assert!(matches!(refused, Err(DmaError::OutOfReach { .. })));
    assert_eq!(free(), before);
}

#[test]
fn misuse_is_named_and_counted() {
    let machine = Machine::new();
    assert_eq!(
        machine.alloc(0, Gfp::KERNEL).unwrap_err(),
        DmaError::ZeroLength
    );
    let before = Misuse::CoherentCompound.count();
    let gfp = Gfp::KERNEL | Gfp::COMP;
    assert_eq!(machine.alloc(1, gfp).unwrap_err(), DmaError::Compound(gfp));
    assert!(Misuse::CoherentCompound.count() > before);
    for zone in [Gfp::DMA, Gfp::DMA32, Gfp::HIGHMEM] {
        assert!(
            machine.alloc(1, Gfp::ATOMIC | zone).is_ok(),
            "{zone} is dropped"
        );
    }
    let lock = IrqLock::new(());
    let held = lock.lock();
    let (context, gfp) = (Context::LockHeld, Gfp::KERNEL);
    assert_eq!(PerCpu::current().context(), context);
    let refused = machine.alloc(1, gfp).unwrap_err();
    assert_eq!(refused, AllocError::Context { context, gfp }.into());
    assert!(machine.alloc(1, Gfp::ATOMIC).is_ok());
    drop(held);
}

#[test]
fn each_allocation_made_to_fail_ends_in_its_name_and_leaks_nothing() {
    let machine = Machine::new();
    for (size, gfp) in [(1, Gfp::ATOMIC), (1 << 20, Gfp::KERNEL)] {
        fault::fail_nth(1);
        let refused = machine.alloc(size, gfp);
        assert!(fault::has_fired());
        fault::disarm();
        assert!(matches!(
            refused,
            Err(DmaError::NoMemory(AllocError::NoMemory { .. }))
        ));
        assert_eq!((machine.pool.free_pages(), machine.runs()), (64, 0));
    }
}
