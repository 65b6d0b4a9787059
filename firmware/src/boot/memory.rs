//! From the boot tables to the whole address space.
//!
//! Order matters: the device tree is looked at through the `early` window, because it says what
//! the direct map is made of; the direct map must exist before the page allocator hands out
//! tables; the coherent pool and the frame descriptors are taken before the allocator owns the
//! rest.

use super::cma;
use super::image::Image;
use crate::cmdline::CmdLine;
use crate::placement::{self, POOL_ALIGN, Placement, Wishes};
use core::mem::MaybeUninit;
use core::slice;
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use hal::arch::exception::FaultInfo;
use hal::arch::fault_probe;
use hal::board::Board;
use hal::devicetree::{self, Description, DeviceTree, DtbError};
use hal::dma::CoherentPool;
use hal::layout::{self, COHERENT, EARLY, FRAMES};
use hal::memory_map::{self, BoardMemory, MemoryMap, Reserved, ReservedKind};
use hal::mm::{self, FrameTable, Gfp, UsableRam};
use hal::mmu::mapper::MapError;
use hal::mmu::{Access, Attributes, KernelMapper, Level, MemoryType};
use hal::sync::{IrqLock, Once};
use thiserror::Error;

/// Where a range of RAM is probed, clear of the device tree's view.
const PROBE_VA: VirtAddr = VirtAddr::new(EARLY.base.get() + (EARLY.size / 2));

const RW: Access = Access::ReadWrite;
const CACHED: Attributes = Attributes::new(MemoryType::NormalWriteBack, RW);

/// Why there is no device tree to go by.
#[derive(Clone, Copy, Debug, Error)]
pub enum TreeFault {
    /// Neither register `x0` nor the start of RAM has one.
    #[error("no device tree at {0} or at the start of RAM")]
    Missing(PhysAddr),
    /// It cannot be mapped.
    #[error("the device tree cannot be mapped: {0}")]
    Unmappable(MapError),
    /// Its content is damaged.
    #[error("the device tree is damaged: {0}")]
    Damaged(DtbError<'static>),
    /// What it says of memory cannot be.
    #[error("the device tree lies: {0}")]
    Lies(memory_map::MapError),
    /// It calls something RAM that does not answer.
    #[error("the device tree lies: no RAM answers at {0}")]
    NoRam(PhysAddr),
}

/// Why the address space cannot be built.
#[derive(Clone, Copy, Debug, Error)]
pub enum MemoryFault {
    /// The board's own map is wrong for this machine.
    #[error("memory map: {0}")]
    Map(#[from] memory_map::MapError),
    /// Translation tables.
    #[error("translation tables: {0}")]
    Tables(#[from] MapError),
    /// Frames or zones.
    #[error("page allocator: {0}")]
    Pages(#[from] mm::InitError),
    /// The memory type of the coherent pool's frames.
    #[error("memory type of the coherent pool: {0}")]
    PoolType(#[from] mm::MemoryTypeError),
    /// The coherent pool.
    #[error("coherent pool: {0}")]
    Pool(#[from] hal::dma::coherent::BadPool),
}

/// What was found and built.
#[derive(Debug)]
pub struct Memory {
    /// RAM and its owners.
    pub map: MemoryMap,
    /// The device tree, or why there is none to go by.
    pub tree: Result<DeviceTree<'static>, TreeFault>,
    /// What the device tree says; empty without one.
    pub description: Description<'static>,
    /// The coherent pool.
    pub pool: &'static CoherentPool,
}

static POOL: Once<CoherentPool> = Once::new();

/// The device tree as far as it could be read.
struct Tree {
    tree: DeviceTree<'static>,
    blob: PhysRange,
    description: Result<Description<'static>, DtbError<'static>>,
}

/// Finds out what memory there is and who has it. `x0` is what the loader passed.
///
/// # Errors
///
/// [`MemoryFault::Map`] only: a bad device tree is reported in the result and replaced by the
/// board's own map.
pub fn survey(
    tables: &IrqLock<KernelMapper>,
    board: &'static dyn Board,
    image: &Image,
    x0: u64,
) -> Result<
    (
        MemoryMap,
        Result<DeviceTree<'static>, TreeFault>,
        Description<'static>,
    ),
    MemoryFault,
> {
    let reserved: heapless::Vec<Reserved, 4> = board
        .firmware_ram()
        .iter()
        .map(|&range| Reserved {
            range,
            kind: ReservedKind::Firmware,
        })
        .collect();
    let facts = BoardMemory {
        ram: board.built_in_ram(),
        reserved: &reserved,
        devices: board.device_windows(),
    };
    let judge = |found: &Tree| {
        let description = found
            .description
            .as_ref()
            .map_err(|&fault| TreeFault::Damaged(fault))?;
        let map = MemoryMap::from_description(description, &facts, image.frames(), found.blob)
            .map_err(TreeFault::Lies)?;
        match map.ram().iter().find_map(|ram| first_silent(tables, *ram)) {
            None => Ok(map),
            Some(silent) => Err(TreeFault::NoRam(silent)),
        }
    };
    let (fault, liar) = match find_tree(tables, board, x0) {
        Ok(found) => match judge(&found) {
            Ok(map) => return Ok((map, Ok(found.tree), found.description.unwrap_or_default())),
            Err(fault) => (fault, Some(found)),
        },
        Err(fault) => (fault, None),
    };
    let mut map = MemoryMap::from_board(&facts, image.frames())?;
    let mut description = Description::default();
    if let Some(liar) = liar {
        keep_view(&mut map, liar.blob);
        // It is wrong about the hardware; the command line is still what the user asked for.
        description.bootargs = liar.description.ok().and_then(|said| said.bootargs);
    }
    Ok((map, Err(fault), description))
}

/// Reserves what `map` calls RAM of a device tree that stays mapped: no frame of it may become
/// memory of another type. What `map` does not call RAM is never handed out.
fn keep_view(map: &mut MemoryMap, blob: PhysRange) {
    let parts: heapless::Vec<PhysRange, { memory_map::MAX_RAM }> = map
        .ram()
        .iter()
        .map(|ram| PhysRange::new(blob.start.max(ram.start), blob.end.min(ram.end)))
        .filter(|part| part.start < part.end)
        .collect();
    for part in parts {
        // Refused where somebody has it already, and then it is not free either.
        let _ = map.reserve(part, ReservedKind::DeviceTree);
    }
}

/// Reads the device tree `x0` points to, or else the one at the start of RAM.
fn find_tree(
    tables: &IrqLock<KernelMapper>,
    board: &'static dyn Board,
    x0: u64,
) -> Result<Tree, TreeFault> {
    let passed = PhysAddr::new(x0);
    let start_of_ram = board.built_in_ram().first().map(|ram| ram.start);
    let could_be_ram = |pa: &PhysAddr| {
        pa.is_aligned(8)
            && *pa < layout::DIRECT_MAP_LIMIT
            && !board
                .device_windows()
                .iter()
                .any(|window| window.contains(*pa))
    };
    let candidates = [Some(passed), start_of_ram];
    for pa in candidates.into_iter().flatten().filter(could_be_ram) {
        match view_tree(tables, pa) {
            Ok(Some(view)) => {
                let blob = PhysRange::new(pa, pa + view.len());
                let tree = DeviceTree::new(view).map_err(|fault| {
                    discard_view(tables, blob);
                    TreeFault::Damaged(fault)
                })?;
                return Ok(Tree {
                    tree,
                    blob,
                    description: tree.describe(),
                });
            }
            Ok(None) => {}
            Err(fault) => return Err(fault),
        }
    }
    Err(TreeFault::Missing(passed))
}

/// Maps the blob at `pa` read-only in the `early` window, where it stays. `None` if nothing there
/// looks like a device tree.
fn view_tree(
    tables: &IrqLock<KernelMapper>,
    pa: PhysAddr,
) -> Result<Option<&'static [u8]>, TreeFault> {
    let view = Attributes::new(MemoryType::NormalWriteBack, Access::ReadOnly);
    let first = PhysRange::new(
        pa.align_down(PAGE_SIZE),
        pa.align_down(PAGE_SIZE) + PAGE_SIZE,
    );
    let map = |va, range| {
        // SAFETY: the range is not device memory, nothing else maps it yet, and it is mapped
        // Normal write-back in the direct map later, as here.
        unsafe { tables.lock().map(va, range, view, Level::L3) }.map_err(TreeFault::Unmappable)
    };
    map(EARLY.base, first)?;
    let start = EARLY.base + pa.page_offset();
    // SAFETY: reading has no side effect; nothing but RAM or a hole is there.
    let header = unsafe { fault_probe::probe_read_u64(start) }
        .ok()
        .and_then(|_| {
            let bytes = PAGE_SIZE - pa.page_offset();
            // SAFETY: the rest of the page just answered, stays mapped below, and is not written.
            devicetree::blob_size(unsafe { slice::from_raw_parts(start.as_ptr(), bytes) }).ok()
        });
    let Some(size) = header else {
        // SAFETY: nothing refers to the page.
        unsafe { tables.lock().unmap(EARLY.base, PAGE_SIZE) }.map_err(TreeFault::Unmappable)?;
        return Ok(None);
    };
    let end = (pa + size + (PAGE_SIZE - 1)).align_down(PAGE_SIZE);
    if end > first.end {
        map(EARLY.base + PAGE_SIZE, PhysRange::new(first.end, end))
            .inspect_err(|_| discard_view(tables, first))?;
    }
    if let Err(silent) = answers(EARLY.base, (end.get() - first.start.get()) as usize) {
        discard_view(tables, PhysRange::new(pa, pa + size));
        return Err(TreeFault::NoRam(
            first.start + (silent.get() - EARLY.base.get()),
        ));
    }
    // SAFETY: the pages answered. They are reserved in the memory map and stay mapped, or are
    // unmapped by `discard_view` when nothing refers to them.
    Ok(Some(unsafe { slice::from_raw_parts(start.as_ptr(), size) }))
}

/// Removes the view of a device tree that is of no use: nobody reserves its frames, so they may
/// become memory of another type.
fn discard_view(tables: &IrqLock<KernelMapper>, blob: PhysRange) {
    let start = blob.start.align_down(PAGE_SIZE);
    let size = (blob.end.get() - start.get()).next_multiple_of(PAGE_SIZE as u64);
    // SAFETY: the callers are done with the tree. It was mapped whole; if not, nothing changes.
    let _ = unsafe { tables.lock().unmap(EARLY.base, size as usize) };
}

/// Whether every page of a mapped range can be read; the first that cannot otherwise.
fn answers(va: VirtAddr, size: usize) -> Result<(), VirtAddr> {
    (0..size)
        .step_by(PAGE_SIZE)
        .map(|offset| va + offset)
        .try_for_each(|page| {
            // SAFETY: nothing but RAM or a hole is there.
            unsafe { fault_probe::probe_read_u64(page) }
                .map(|_| ())
                .map_err(|_: FaultInfo| page)
        })
}

/// The first or last page of `ram` if reading it is answered by an abort.
fn first_silent(tables: &IrqLock<KernelMapper>, ram: PhysRange) -> Option<PhysAddr> {
    let last = PhysAddr::new(ram.end.get() - PAGE_SIZE as u64);
    [ram.start, last].into_iter().find(|&page| {
        // Device memory, because nothing speculates into it should it be a hole.
        let probe = Attributes::new(MemoryType::DeviceNgnrne, Access::ReadOnly);
        let range = PhysRange::new(page, page + PAGE_SIZE);
        // SAFETY: the view lives for one read; the device tree's cached view is read-only, so no
        // dirty line of the page exists.
        if unsafe { tables.lock().map(PROBE_VA, range, probe, Level::L3) }.is_err() {
            return true;
        }
        // SAFETY: the board says that no device is there.
        let silent = unsafe { fault_probe::probe_read_u64(PROBE_VA) }.is_err();
        // SAFETY: nothing refers to the page.
        silent | unsafe { tables.lock().unmap(PROBE_VA, PAGE_SIZE) }.is_err()
    })
}

/// Builds the direct map, the coherent pool, the contiguous memory areas and the frame descriptors, and starts the page
/// allocator with what is left.
///
/// # Errors
///
/// [`MemoryFault`]: the machine has too little memory for what the command line asks.
pub fn build(
    tables: &'static IrqLock<KernelMapper>,
    board: &'static dyn Board,
    map: &mut MemoryMap,
    description: &Description<'static>,
    cmdline: &CmdLine<'_>,
) -> Result<&'static CoherentPool, MemoryFault> {
    let limits = board.zone_limits();
    let wishes = Wishes {
        nodes: &description.cma,
        cma: cmdline.cma,
        coherent_pool: cmdline.coherent_pool,
    };
    let Placement { pool, areas } = placement::place(map, limits, &wishes)?;
    let area_tables = cma::allocate_tables(map, &areas)?;
    let table = allocate_frame_table(map)?;
    let descriptors = allocate_descriptors(map)?;

    for range in map.block_ranges() {
        // SAFETY: the map calls the range RAM; no other mapping of it exists but the device
        // tree's, which has the same type and cannot be executed.
        unsafe {
            tables
                .lock()
                .map(layout::phys_to_virt(range.start), range, CACHED, Level::L1)
        }?;
    }
    cma::map_areas(tables, &areas, area_tables)?;
    for &(va, range) in &descriptors {
        // SAFETY: the range was just set aside for the descriptors; its direct map has this type.
        unsafe { tables.lock().map(va, range, CACHED, Level::L2) }?;
    }
    let pool = map_pool(tables, pool)?;

    let words = layout::phys_to_virt(table.start).as_ptr::<MaybeUninit<u64>>();
    let count = table.size() as usize / size_of::<u64>();
    // SAFETY: the range was set aside for the table, is aligned to a page and in the direct map.
    let words = unsafe { slice::from_raw_parts_mut(words, count) };
    // SAFETY: `allocate_descriptors` backed the descriptors of all RAM, mapped above.
    let frames = unsafe { FrameTable::new(FRAMES.base, words) };
    let pool_frames = pool.frames().start.pfn()..pool.frames().end.pfn();
    // SAFETY: the pool's frames are RAM that was set aside above, and one core runs.
    unsafe { frames.set_aside(pool_frames, MemoryType::NormalNonCacheable) }?;
    let usable: heapless::Vec<PhysRange, { memory_map::MAX_RESERVED }> =
        map.free_ranges().collect();
    let ram = UsableRam {
        ram: &usable,
        dma_limit: limits.dma,
        dma32_limit: limits.dma32,
    };
    // SAFETY: the ranges are the ones nobody has, are in the direct map, and one core runs.
    unsafe { mm::init(frames, &ram, &areas) }?;
    // The tables' lock is held where a table is wanted: nothing is printed then. The reserve is for
    // those that cannot fail as mildly.
    const TABLES: Gfp = Gfp::NOWAIT.union(Gfp::NOWARN);
    // SAFETY: the page allocator's frames are in the direct map and belong to the caller.
    unsafe {
        tables
            .lock()
            .memory_mut()
            .set_allocator(|| mm::alloc_pages(TABLES, 0).ok());
    }
    Ok(pool)
}

fn allocate_frame_table(map: &mut MemoryMap) -> Result<PhysRange, memory_map::MapError> {
    let last = map.ram().last().ok_or(memory_map::MapError::NoRam)?;
    let bytes = FrameTable::words_for(*last) * size_of::<u64>();
    map.allocate(bytes, PAGE_SIZE, None, ReservedKind::FrameDescriptors)
}

/// Memory for the descriptors of all RAM: the addresses to map it at, and the memory.
fn allocate_descriptors(
    map: &mut MemoryMap,
) -> Result<heapless::Vec<(VirtAddr, PhysRange), { memory_map::MAX_RAM }>, memory_map::MapError> {
    let mut wanted = heapless::Vec::<core::ops::Range<usize>, { memory_map::MAX_RAM }>::new();
    for ram in map.ram() {
        let backing = FrameTable::backing_for(*ram);
        match wanted.last_mut() {
            // Two ranges of RAM in one pageblock share its descriptors.
            Some(last) if backing.start <= last.end => last.end = last.end.max(backing.end),
            _ => wanted
                .push(backing)
                .map_err(|_| memory_map::MapError::TooMany(memory_map::MAX_RAM))?,
        }
    }
    let block = Level::L2.size();
    wanted
        .into_iter()
        .map(|backing| {
            let size = backing.len();
            let align = if size >= block { block } else { PAGE_SIZE };
            let range = map.allocate(size, align, None, ReservedKind::FrameDescriptors)?;
            Ok((FRAMES.base + backing.start, range))
        })
        .collect()
}

fn map_pool(
    tables: &IrqLock<KernelMapper>,
    frames: PhysRange,
) -> Result<&'static CoherentPool, MemoryFault> {
    let uncached = Attributes::new(MemoryType::NormalNonCacheable, RW);
    // The pool and its mapping agree modulo the largest allocation.
    let va = COHERENT.base + frames.start.get() as usize % POOL_ALIGN;
    // SAFETY: the frames were set aside and are absent from the direct map.
    unsafe { tables.lock().map(va, frames, uncached, Level::L2) }?;
    // SAFETY: the pool's frames are mapped there and nowhere else; the pool drops lines the
    // loader may have left before it hands a page out.
    let pool = unsafe { CoherentPool::new(frames, va) }?;
    Ok(POOL.call_once(|| pool))
}
