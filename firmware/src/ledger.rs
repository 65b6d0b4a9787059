//! The leak ledger: what is free, zone by zone and order by order.
//!
//! Two ledgers around a piece of work must be equal, whatever it allocated in between. Before
//! counting, every core gives the objects and pages it keeps at hand back, and what `vfree` put off
//! is done. Frames that became translation tables or describe areas are kept for the next demand and
//! never given back; they are counted as kept.

use crate::machine::machine;
use core::fmt;
use hal::mm::{self, ZoneInfo, ZoneKind};
use hal::smp::{self, SmpError};

/// What is free at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    zones: [ZoneInfo; ZoneKind::COUNT],
    pool: usize,
    /// Frames that became translation tables or describe areas.
    kept: usize,
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
        let machine = machine();
        let mut zones = [ZoneInfo::default(); ZoneKind::COUNT];
        if let Some(pages) = mm::pages() {
            // A block in the reserve does not merge with one outside.
            pages.unreserve_highatomic(true);
            zones = ZoneKind::ALL.map(|kind| pages.zone(kind));
        }
        let tables = machine.tables.lock().memory_mut().frames_allocated();
        let kept = tables + mm::vmalloc_kept_frames();
        Ok(Self {
            zones,
            pool: machine.pool.free_pages(),
            kept,
        })
    }

    /// Free pages of all zones.
    pub fn free_pages(&self) -> usize {
        self.zones.iter().map(|zone| zone.free as usize).sum()
    }

    /// What is missing or surplus in `later`, or `None` if the two agree.
    ///
    /// Free blocks are compared order by order unless tables were taken in between, which cuts
    /// blocks for good; then the number of pages is.
    pub fn difference(&self, later: &Self) -> Option<Difference> {
        let found = |what, before: usize, after: usize| Difference {
            what,
            before,
            after,
        };
        if self.pool != later.pool {
            return Some(found(Place::Pool, self.pool, later.pool));
        }
        if self.kept != later.kept {
            let owned = |ledger: &Self| ledger.free_pages() + ledger.kept;
            let (before, after) = (owned(self), owned(later));
            return (before != after).then(|| found(Place::Zones, before, after));
        }
        let pairs = self.zones.iter().zip(&later.zones);
        ZoneKind::ALL
            .into_iter()
            .zip(pairs)
            .find_map(|(kind, (before, after))| {
                if before.free != after.free {
                    let (before, after) = (before.free as usize, after.free as usize);
                    return Some(found(Place::Zone(kind), before, after));
                }
                let mut orders = before.blocks.iter().zip(&after.blocks).enumerate();
                orders.find_map(|(order, (&before, &after))| {
                    let place = Place::Blocks(kind, order);
                    (before != after).then(|| found(place, before as usize, after as usize))
                })
            })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Pool,
    Zones,
    Zone(ZoneKind),
    Blocks(ZoneKind, usize),
}

/// Where two ledgers differ first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    what: Place,
    before: usize,
    after: usize,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Place::Pool => write!(f, "free pages of the coherent pool"),
            Place::Zones => write!(f, "free pages of all zones and kept tables"),
            Place::Zone(zone) => write!(f, "free pages of zone {zone}"),
            Place::Blocks(zone, order) => write!(f, "free blocks of order {order} in zone {zone}"),
        }?;
        write!(f, ": {} before, {} after", self.before, self.after)
    }
}
