//! Contiguous memory areas: how large, and where.

use crate::cmdline::CmdLine;
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use hal::board::ZoneLimits;
use hal::devicetree::{CmaPlace, Description};
use hal::memory_map::{MapError, MemoryMap, ReservedKind};
use hal::mm::{AREA_ALIGN, CmaArea, MAX_AREAS};
use hal::mmu::{Access, Attributes, KernelMapper, Level, MemoryType};
use hal::sync::IrqLock;

/// The areas of the machine.
pub(super) type Areas = heapless::Vec<CmaArea, MAX_AREAS>;

/// Size of the default area where nobody says: this share of RAM, and no more than that.
const DEFAULT_SHARE: u64 = 16;
const DEFAULT_MAX: u64 = 64 << 20;

/// No area is larger than this share of RAM.
const MAX_SHARE: u64 = 2;

/// What the default area is called if no node of the device tree names it.
const DEFAULT_NAME: &str = "default";

/// Tables above level 3 that one area may need in addition.
const UPPER_TABLES: usize = 2;

/// Sets the areas aside that the device tree asks for, and the default area: the command line's, or
/// else the device tree's, or else one of the usual size. What cannot be had is left out, and a
/// size of the command line that cannot be had is replaced by the usual one.
pub(super) fn allocate(
    map: &mut MemoryMap,
    limits: ZoneLimits,
    description: &Description<'static>,
    cmdline: &CmdLine<'_>,
) -> Areas {
    let mut areas = Areas::new();
    for node in &description.cma {
        let has_default = areas.iter().any(|area| area.is_default);
        if node.is_default && (cmdline.cma.is_some() || has_default) {
            continue;
        }
        let found = match node.place {
            CmaPlace::Fixed(range) => fitting(map, limits, range),
            CmaPlace::Anywhere {
                size,
                align,
                within,
            } => anywhere(map, limits, size, align, within),
        };
        add(map, &mut areas, node.name, found, node.is_default);
    }
    if !areas.iter().any(|area| area.is_default) {
        let usual = (map.ram_size() / DEFAULT_SHARE).min(DEFAULT_MAX);
        let asked = cmdline.cma.unwrap_or(usual);
        if asked != 0 {
            let found = anywhere(map, limits, asked, 0, None)
                .or_else(|| anywhere(map, limits, usual, 0, None));
            add(map, &mut areas, DEFAULT_NAME, found, true);
        }
    }
    areas
}

fn add(
    map: &mut MemoryMap,
    areas: &mut Areas,
    name: &'static str,
    found: Option<PhysRange>,
    is_default: bool,
) {
    let Some(frames) = found.filter(|_| !areas.is_full()) else {
        return;
    };
    if map.reserve(frames, ReservedKind::Cma).is_ok() {
        // There is room, as was just looked up.
        let _ = areas.push(CmaArea {
            name,
            frames,
            is_default,
        });
    }
}

/// `range` if an area can be there.
fn fitting(map: &MemoryMap, limits: ZoneLimits, range: PhysRange) -> Option<PhysRange> {
    let aligned = range.start.get() | range.end.get();
    let parted = [limits.dma, limits.dma32]
        .iter()
        .any(|limit| range.start < *limit && *limit < range.end);
    let fits = !range.is_empty()
        && aligned.is_multiple_of(AREA_ALIGN)
        && !parted
        && range.size() <= map.ram_size() / MAX_SHARE
        && map.free_ranges().any(|free| free.contains_range(&range));
    fits.then_some(range)
}

/// A place for an area of `size` bytes: in `within`, or else where every master reaches it, or else,
/// on a machine without RAM there, where 32-bit addresses do.
fn anywhere(
    map: &MemoryMap,
    limits: ZoneLimits,
    size: u64,
    align: u64,
    within: Option<PhysRange>,
) -> Option<PhysRange> {
    let size = size.checked_next_multiple_of(AREA_ALIGN)?;
    let align = usize::try_from(align.max(AREA_ALIGN)).ok()?;
    let below = |limit| PhysRange::new(PhysAddr::new(0), limit);
    let zones = [below(limits.dma), PhysRange::new(limits.dma, limits.dma32)];
    let asked = within.map(|within| [within, within]);
    asked
        .unwrap_or(zones)
        .into_iter()
        .filter_map(|within| map.find(usize::try_from(size).ok()?, align, within))
        .find_map(|range| fitting(map, limits, range))
}

/// Sets memory aside for the tables that [`map_areas`] needs.
pub(super) fn allocate_tables(
    map: &mut MemoryMap,
    areas: &Areas,
) -> Result<Option<PhysRange>, MapError> {
    let tables: usize = areas
        .iter()
        .map(|area| area.frames.size() as usize / Level::L2.size() + UPPER_TABLES)
        .sum();
    if tables == 0 {
        return Ok(None);
    }
    map.allocate(tables * PAGE_SIZE, PAGE_SIZE, None, ReservedKind::Tables)
        .map(Some)
}

/// Maps the areas in their places of the direct map, by pages: their memory type may change at run
/// time, page by page, and a live block is never split. `reserve` is what [`allocate_tables`] set
/// aside, and is in the direct map.
pub(super) fn map_areas(
    tables: &IrqLock<KernelMapper>,
    areas: &Areas,
    reserve: Option<PhysRange>,
) -> Result<(), hal::mmu::MapError> {
    const CACHED: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);
    let mut tables = tables.lock();
    if let Some(reserve) = reserve {
        // SAFETY: the memory was set aside for tables, is mapped, and nobody else has it.
        unsafe { tables.memory_mut().add_reserve(reserve) };
    }
    for area in areas {
        let va = hal::layout::phys_to_virt(area.frames.start);
        // SAFETY: the area is RAM that was set aside, mapped nowhere else, and data only.
        unsafe { tables.map_by_pages(va, area.frames, CACHED) }?;
    }
    Ok(())
}
