//! The leak ledger: what is free, zone by zone and order by order, and how much is out of
//! everything that takes no page of its own.
//!
//! Two ledgers around a piece of work must be equal, whatever it allocated in between. Before
//! counting, every core gives the objects and pages it keeps at hand back, and what `vfree` put off
//! is done.
//!
//! Frames that became translation tables or describe areas are kept for the next demand and never
//! given back. So that none of them hides a leak, they are counted zone by zone where they are: in
//! the tree, on the list of freed tables, in the window's arena.

use crate::dma_debug;
use crate::machine::machine;
use core::fmt;
use hal::addr::Pfn;
use hal::dma::{bounce, coherent};
use hal::mm::{self, Frame, FrameKind, MAX_ORDER, Owner, ZoneInfo, ZoneKind};
use hal::smp::{self, SmpError};

/// What is free and what is out at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    zones: [ZoneInfo; ZoneKind::COUNT],
    /// Frames of each zone that became translation tables or describe areas.
    kept: [usize; ZoneKind::COUNT],
    counts: [usize; Item::ALL.len()],
}

impl Ledger {
    /// Drains what the cores keep at hand, and counts. Task context, no lock held.
    ///
    /// # Errors
    ///
    /// [`SmpError`] when a core cannot be asked.
    pub fn take() -> Result<Self, SmpError> {
        mm::vm_unmap_aliases();
        smp::run_on_all(|_| {
            mm::kmalloc_caches().shrink();
            for cache in mm::named_caches() {
                if let Some(pages) = mm::pages() {
                    cache.shrink(pages);
                }
            }
            if let Some(pages) = mm::pages() {
                pages.drain();
            }
        })?;
        // After the cores have answered: none of them is about to refill the pool any more.
        coherent::drain();
        let mut zones = [ZoneInfo::default(); ZoneKind::COUNT];
        let mut kept = [0; ZoneKind::COUNT];
        if let Some(pages) = mm::pages() {
            // A block in the reserve does not merge with one outside.
            pages.unreserve_highatomic(true);
            zones = ZoneKind::ALL.map(|kind| pages.zone(kind));
            for_each_kept(|frame| {
                let kind = pages.frames().get(frame).map(Frame::kind);
                // The first tables came from memory that the allocator never had.
                if matches!(kind, Ok(FrameKind::Allocated | FrameKind::Table)) {
                    kept[pages.zone_of(frame) as usize] += 1;
                }
            });
        }
        Ok(Self {
            zones,
            kept,
            counts: Item::ALL.map(Item::count),
        })
    }

    /// Free pages of all zones.
    pub fn free_pages(&self) -> usize {
        self.zones.iter().map(|zone| zone.free as usize).sum()
    }

    /// What is missing or surplus in `later`, or `None` if the two agree.
    ///
    /// Free blocks are compared order by order, except in a zone of which frames were kept in
    /// between, which cuts blocks for good; there the number of pages is.
    pub fn difference(&self, later: &Self) -> Option<Difference> {
        let differ = |what, before: usize, after: usize| {
            (before != after).then_some(Difference {
                what,
                before,
                after,
            })
        };
        let item = |item: Item| {
            let count = |ledger: &Self| ledger.counts[item as usize];
            differ(Place::Count(item), count(self), count(later))
        };
        let zone = |kind: ZoneKind| {
            let pages = |ledger: &Self| ledger.free(kind).free as usize + ledger.kept(kind);
            let missing = differ(Place::Zone(kind), pages(self), pages(later));
            if missing.is_some() || self.kept(kind) != later.kept(kind) {
                return missing;
            }
            (0..=MAX_ORDER as usize).find_map(|order| {
                let blocks = |ledger: &Self| ledger.free(kind).blocks[order] as usize;
                differ(Place::Blocks(kind, order), blocks(self), blocks(later))
            })
        };
        let items = Item::ALL.into_iter().find_map(item);
        items.or_else(|| ZoneKind::ALL.into_iter().find_map(zone))
    }

    fn free(&self, kind: ZoneKind) -> &ZoneInfo {
        &self.zones[kind as usize]
    }

    fn kept(&self, kind: ZoneKind) -> usize {
        self.kept[kind as usize]
    }
}

/// Calls `f` with the frames of tables, in use or freed, and those that describe areas.
fn for_each_kept(mut f: impl FnMut(Pfn)) {
    let mut tables = machine().tables.lock();
    tables.for_each_table(|table| f(table.pfn()));
    let freed = tables.memory_mut().freed_tables();
    freed.for_each(|table| f(table.pfn()));
    drop(tables);
    mm::vmalloc_kept_frames()
        .chain(coherent::kept_frames())
        .for_each(f);
}

/// What is counted besides the zones' pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Free pages of the coherent pool.
    Pool,
    /// Runs of contiguous memory that are non-cacheable.
    Runs,
    /// Translation tables that are in use, beyond those in the tree. Less than none where boot
    /// linked some that it had made before it kept count.
    LooseTables,
    /// Areas of the vmalloc and ioremap windows.
    Areas,
    /// Bytes of these areas.
    AreaBytes,
    /// Claimed ranges of device memory.
    Claims,
    /// Objects of slab caches.
    Objects,
    /// Registered shrinkers.
    Shrinkers,
    /// Bytes charged to owners.
    Charged,
    /// Zones whose lists of free blocks are damaged.
    DamagedLists,
    /// Slots of the bounce pool.
    Slots,
    /// Memory mapped for devices, coherent or not, if DMA calls are checked.
    Mappings,
    /// Wrong DMA calls that no test planted, if they are checked.
    Reports,
}

impl Item {
    const ALL: [Self; 13] = [
        Self::Pool,
        Self::Runs,
        Self::LooseTables,
        Self::Areas,
        Self::AreaBytes,
        Self::Claims,
        Self::Objects,
        Self::Shrinkers,
        Self::Charged,
        Self::DamagedLists,
        Self::Slots,
        Self::Mappings,
        Self::Reports,
    ];

    /// How much of it there is now.
    fn count(self) -> usize {
        let areas = || mm::vmallocinfo().filter(|area| !area.freed);
        match self {
            Self::Pool => machine().pool.free_pages(),
            Self::Runs => coherent::info().map_or(0, |(_, runs)| runs.runs),
            Self::LooseTables => {
                let mut tables = machine().tables.lock();
                let mut linked = 0;
                tables.for_each_table(|_| linked += 1);
                tables.memory_mut().tables_in_use().wrapping_sub(linked)
            }
            Self::Areas => areas().count(),
            Self::AreaBytes => areas().map(|area| area.size).sum(),
            Self::Claims => mm::claimed_regions().count(),
            Self::Objects => {
                let named = mm::named_caches().map(|cache| cache.info());
                let caches = mm::kmalloc_caches().caches().chain(named);
                caches.map(|cache| cache.objects_out as usize).sum()
            }
            Self::Shrinkers => mm::pages().map_or(0, |pages| pages.shrinkers().count()),
            Self::Charged => mm::owners().map(Owner::used).sum(),
            Self::DamagedLists => {
                let pages = mm::pages();
                let damaged =
                    |kind: &ZoneKind| pages.is_some_and(|pages| pages.validate(*kind).is_err());
                ZoneKind::ALL.iter().filter(|kind| damaged(kind)).count()
            }
            Self::Slots => bounce::pool().map_or(0, |pool| pool.stats().used),
            Self::Mappings => dma_debug::live(),
            Self::Reports => dma_debug::unplanted(),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool => "free pages of the coherent pool",
            Self::Runs => "runs of non-cacheable memory",
            Self::LooseTables => "translation tables beyond those in the tree",
            Self::Areas => "areas of the vmalloc and ioremap windows",
            Self::AreaBytes => "bytes of areas of the vmalloc and ioremap windows",
            Self::Claims => "claimed ranges of device memory",
            Self::Objects => "objects of slab caches",
            Self::Shrinkers => "shrinkers",
            Self::Charged => "bytes charged to owners",
            Self::DamagedLists => "zones whose lists of free blocks are damaged",
            Self::Slots => "slots of the bounce pool",
            Self::Mappings => "mappings for devices",
            Self::Reports => "wrong DMA calls reported",
        })
    }
}

/// What two ledgers may differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A number of things.
    Count(Item),
    /// The pages of a zone that are free or were kept.
    Zone(ZoneKind),
    /// The free blocks of an order in a zone.
    Blocks(ZoneKind, usize),
}

/// Where two ledgers differ first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    what: Place,
    before: usize,
    after: usize,
}

impl Difference {
    /// What differs, and by how much more there is of it later.
    pub fn growth(&self) -> (Place, isize) {
        (self.what, self.after.wrapping_sub(self.before) as isize)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Place::Count(item) => write!(f, "{item}"),
            Place::Zone(zone) => write!(f, "free pages and kept tables of zone {zone}"),
            Place::Blocks(zone, order) => write!(f, "free blocks of order {order} in zone {zone}"),
        }?;
        let (before, after) = (self.before as isize, self.after as isize);
        write!(f, ": {before} before, {after} after")
    }
}
