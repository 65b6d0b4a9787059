//! The tables of the contiguous memory areas.

use crate::placement::Areas;
use hal::addr::{PAGE_SIZE, PhysRange};
use hal::memory_map::{MapError, MemoryMap, ReservedKind};
use hal::mmu::{Access, Attributes, KernelMapper, Level, MemoryType};
use hal::sync::IrqLock;

/// Tables above level 3 that one area may need in addition.
const UPPER_TABLES: usize = 2;

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
