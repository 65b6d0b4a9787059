//! Where the coherent pool and the contiguous memory areas lie, and how large they are.

use hal::addr::{PhysAddr, PhysRange};
use hal::board::ZoneLimits;
use hal::devicetree::{CmaNode, CmaPlace};
use hal::memory_map::{MapError, MemoryMap, ReservedKind};
use hal::mm::{AREA_ALIGN, CmaArea, MAX_AREAS};

/// The contiguous memory areas of the machine.
pub type Areas = heapless::Vec<CmaArea, MAX_AREAS>;

/// Default size of the coherent pool: a 64th of RAM between these two.
const POOL_MIN: u64 = 2 << 20;
const POOL_MAX: u64 = 16 << 20;
const POOL_SHARE: u64 = 64;

/// The pool is made of whole level 2 blocks.
const POOL_GRANULE: u64 = 2 << 20;

/// The largest allocation of the pool is aligned to its size, so the pool is too.
pub const POOL_ALIGN: usize = 4 << 20;

/// Size of the default area where nobody says: this share of RAM, and no more than that.
const AREA_SHARE: u64 = 16;
const AREA_MAX: u64 = 64 << 20;

/// No area is larger than this share of RAM.
const MAX_SHARE: u64 = 2;

/// What the default area is called if no node of the device tree names it.
const DEFAULT_NAME: &str = "default";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wishes<'a> {
    /// The areas of the device tree.
    pub nodes: &'a [CmaNode<'static>],
    /// Bytes of the default area by the command line; 0 for none.
    pub cma: Option<u64>,
    /// Bytes of the coherent pool by the command line.
    pub coherent_pool: Option<u64>,
}

/// What was set aside.
#[derive(Debug)]
pub struct Placement {
    /// Frames of the coherent pool.
    pub pool: PhysRange,
    /// The areas.
    pub areas: Areas,
}

/// Sets the coherent pool and the contiguous memory areas aside in `map`.
///
/// What has to be in one place gets it before what may lie anywhere: first the areas whose place
/// the device tree says, then the pool, then the other areas. The default area is the command
/// line's, or else the device tree's, or else one of the usual size. An area that cannot be had is
/// left out, and a size of the command line that cannot be had is replaced by the usual one.
///
/// # Errors
///
/// [`MapError`] when there is no memory for a pool of the usual size.
pub fn place(
    map: &mut MemoryMap,
    limits: ZoneLimits,
    wishes: &Wishes<'_>,
) -> Result<Placement, MapError> {
    let mut areas = Areas::new();
    for node in wishes.nodes {
        if let CmaPlace::Fixed(range) = node.place
            && is_wanted(&areas, wishes, node)
        {
            let found = whole_blocks(range).filter(|range| can_be(map, limits, *range));
            add(map, &mut areas, node.name, found, node.is_default);
        }
    }
    // Where every master reaches it; a machine without RAM there has no such limited masters.
    let pool = allocate_pool(map, limits.dma, wishes.coherent_pool)
        .or_else(|_| allocate_pool(map, limits.dma32, wishes.coherent_pool))?;
    for node in wishes.nodes {
        if let CmaPlace::Anywhere {
            size,
            align,
            within,
        } = node.place
            && is_wanted(&areas, wishes, node)
        {
            let found = anywhere(map, limits, size, align, within);
            add(map, &mut areas, node.name, found, node.is_default);
        }
    }
    if !has_default(&areas) {
        let usual = (map.ram_size() / AREA_SHARE).min(AREA_MAX);
        let asked = wishes.cma.unwrap_or(usual);
        if asked != 0 {
            let found = anywhere(map, limits, asked, 0, None)
                .or_else(|| anywhere(map, limits, usual, 0, None));
            add(map, &mut areas, DEFAULT_NAME, found, true);
        }
    }
    Ok(Placement { pool, areas })
}

fn has_default(areas: &Areas) -> bool {
    areas.iter().any(|area| area.is_default)
}

/// Whether a node counts: there is one default area, and the command line's goes before others.
fn is_wanted(areas: &Areas, wishes: &Wishes<'_>, node: &CmaNode<'_>) -> bool {
    !(node.is_default && (wishes.cma.is_some() || has_default(areas)))
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

/// The whole blocks inside `range`, if there is one.
fn whole_blocks(range: PhysRange) -> Option<PhysRange> {
    let start = range.start.get().checked_next_multiple_of(AREA_ALIGN)?;
    let end = range.end.get() / AREA_ALIGN * AREA_ALIGN;
    (start < end).then(|| PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)))
}

/// Whether an area can be at `range`, which is made of whole blocks.
fn can_be(map: &MemoryMap, limits: ZoneLimits, range: PhysRange) -> bool {
    let parted = [limits.dma, limits.dma32]
        .iter()
        .any(|limit| range.start < *limit && *limit < range.end);
    !parted
        && range.size() <= map.ram_size() / MAX_SHARE
        && map.free_ranges().any(|free| free.contains_range(&range))
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
    let size = usize::try_from(size).ok()?;
    let align = usize::try_from(align.max(AREA_ALIGN)).ok()?;
    let below = |limit| PhysRange::new(PhysAddr::new(0), limit);
    let zones = [below(limits.dma), PhysRange::new(limits.dma, limits.dma32)];
    let asked = within.map(|within| [within, within]);
    asked
        .unwrap_or(zones)
        .into_iter()
        .filter_map(|within| map.find(size, align, within))
        .find(|range| can_be(map, limits, *range))
}

fn allocate_pool(
    map: &mut MemoryMap,
    below: PhysAddr,
    wish: Option<u64>,
) -> Result<PhysRange, MapError> {
    let default = (map.ram_size() / POOL_SHARE).clamp(POOL_MIN, POOL_MAX);
    // A size that cannot be had costs the wish, not the boot; the report shows what was taken.
    let asked = wish.unwrap_or(default).clamp(POOL_GRANULE, POOL_MAX);
    let mut allocate = |size: u64| {
        let size = size.next_multiple_of(POOL_GRANULE) as usize;
        let align = POOL_ALIGN.min(size.next_power_of_two());
        map.allocate(size, align, Some(below), ReservedKind::CoherentPool)
    };
    allocate(asked).or_else(|_| allocate(default))
}

#[cfg(test)]
mod tests;
