//! Tables of the tree: finding the one for an address, making it if there is none.

use super::super::descriptor::{Attributes, Descriptor};
use super::super::table::{Entry, Level, Table, TableMemory};
use super::error::refusal;
use super::{MapError, Mapper, check_physical, check_virtual};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use crate::arch::{barrier, tlb};

/// A table of the tree.
#[derive(Clone, Copy, Debug)]
pub(in crate::mmu) struct Place {
    pub(in crate::mmu) level: Level,
    table: PhysAddr,
}

impl Place {
    const fn new(level: Level, table: PhysAddr) -> Self {
        Self { level, table }
    }
}

/// A level 3 table of the tree, or [`Recent::NONE`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    /// First address it serves.
    span: VirtAddr,
    table: PhysAddr,
    /// Where the CPU reaches it.
    va: VirtAddr,
}

impl Recent {
    /// No page is a multiple of the page size from this span.
    pub(super) const NONE: Self = Self {
        span: VirtAddr::new(1),
        table: PhysAddr::new(0),
        va: VirtAddr::new(0),
    };
}

enum Vacancy {
    OutOfTables,
    Occupied(Level, Descriptor),
}

impl<M: TableMemory> Mapper<M> {
    /// Where a leaf of at most `wanted` level for `va` goes: an empty entry.
    pub(super) fn vacant_place(
        &mut self,
        va: VirtAddr,
        pa: PhysAddr,
        attributes: Attributes,
        wanted: Level,
    ) -> Result<Place, MapError> {
        if wanted == Level::L3
            && let Some(place) = self.recent_place(va)
        {
            return Ok(place);
        }
        match self.vacant_table(va, wanted) {
            Ok((level, table)) => Ok(self.remember(va, Place::new(level, table))),
            Err(Vacancy::OutOfTables) => Err(MapError::OutOfTables(va)),
            Err(Vacancy::Occupied(level, live)) => Err(refusal(va, pa, attributes, level, live)),
        }
    }

    /// The table a walk for `va` ends in.
    pub(in crate::mmu) fn place_of(&mut self, va: VirtAddr) -> Place {
        if let Some(place) = self.recent_place(va) {
            return place;
        }
        let mut place = Place::new(Level::ROOT, self.root);
        while let Some(below) = self.table_below(place, va) {
            place = below;
        }
        self.remember(va, place)
    }

    fn table_below(&self, place: Place, va: VirtAddr) -> Option<Place> {
        let level = place.level;
        let entry = self.table(place.table).entry(level.index(va)).load();
        Some(Place::new(level.next()?, entry.next_table(level)?))
    }

    /// Notes the table that serves `va` if it is of level 3.
    fn remember(&mut self, va: VirtAddr, place: Place) -> Place {
        if place.level == Level::L3 {
            self.recent = Recent {
                span: va.align_down(Level::L2.size()),
                table: place.table,
                va: self.memory.virt(place.table),
            };
        }
        place
    }

    /// The recent table, if it serves the page `va`.
    fn recent_place(&self, va: VirtAddr) -> Option<Place> {
        let table = self.recent.table;
        self.recent_entries(va, PAGE_SIZE)
            .map(|_| Place::new(Level::L3, table))
    }

    /// The entries for the `size` bytes at `va`, whole pages, if the recent table has them all.
    #[inline(always)]
    pub(in crate::mmu) fn recent_entries(&self, va: VirtAddr, size: usize) -> Option<&[Entry]> {
        let offset = va.get().wrapping_sub(self.recent.span.get());
        if offset >= Level::L2.size() || !(offset | size).is_multiple_of(PAGE_SIZE) {
            return None;
        }
        // SAFETY: `recent` is not `NONE`, from which no page has such an offset. So it is a table
        // of this tree, see `table`, and mapped at `va`.
        let table = unsafe { &*self.recent.va.as_ptr::<Table>() };
        let entries = table.entries_from(offset / PAGE_SIZE);
        entries.get(..size / PAGE_SIZE)
    }

    /// The entries of the table at `place` from the one for `va` on.
    #[inline]
    pub(in crate::mmu) fn entries(&self, place: Place, va: VirtAddr) -> &[Entry] {
        self.table(place.table).entries_from(place.level.index(va))
    }

    /// The table of `wanted` level that serves `va`, made if it is not there, with the entry for
    /// `va` empty. Where a table with content lies in the way of a block, the level below.
    fn vacant_table(&mut self, va: VirtAddr, wanted: Level) -> Result<(Level, PhysAddr), Vacancy> {
        let mut table = self.root;
        let mut level = Level::ROOT;
        loop {
            let index = level.index(va);
            let found = self.table(table).entry(index).load();
            let reached = level >= wanted;
            if found.is_empty() && reached {
                return Ok((level, table));
            }
            table = match (found.next_table(level), level.next()) {
                (Some(below), _) if reached && self.table(below).is_empty() => {
                    self.table(table).entry(index).store(Descriptor::EMPTY);
                    barrier::dsb_ishst();
                    tlb::invalidate_all_levels(va);
                    barrier::dsb_ish();
                    barrier::isb();
                    self.recent = Recent::NONE;
                    // SAFETY: the entry is gone, and with the TLBI so is what walkers held of it.
                    unsafe { self.memory.free(below) };
                    return Ok((level, table));
                }
                (Some(below), Some(next)) => {
                    level = next;
                    below
                }
                (None, Some(next)) if found.is_empty() => {
                    let below = self.memory.alloc().ok_or(Vacancy::OutOfTables)?;
                    self.table(below).clear();
                    self.table(table).entry(index).link(below);
                    level = next;
                    below
                }
                _ => return Err(Vacancy::Occupied(level, found)),
            };
        }
    }

    /// The table with the empty entry for `va` at `level`, as [`vacant_table`](Self::vacant_table).
    pub(in crate::mmu) fn vacant_entry(
        &mut self,
        va: VirtAddr,
        pa: PhysAddr,
        attributes: Attributes,
        level: Level,
    ) -> Result<(Level, PhysAddr), MapError> {
        self.vacant_table(va, level).map_err(|error| match error {
            Vacancy::OutOfTables => MapError::OutOfTables(va),
            Vacancy::Occupied(level, live) => refusal(va, pa, attributes, level, live),
        })
    }

    /// Makes the entry for `va` in a table of a level lead to `below`, which this core has filled.
    pub(in crate::mmu) fn link(
        &self,
        (level, table): (Level, PhysAddr),
        va: VirtAddr,
        below: PhysAddr,
    ) {
        self.table(table).entry(level.index(va)).link(below);
    }

    /// Makes the tables for level 3 leaves in `size` bytes at `va` and checks that nothing is
    /// mapped there, so that mapping pages there cannot fail.
    pub(in crate::mmu) fn reserve(
        &mut self,
        start: VirtAddr,
        range: PhysRange,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        check_physical(range)?;
        let size = range.size() as usize;
        check_virtual(start, size)?;
        let mut done = 0;
        while done < size {
            let va = start + done;
            let (level, table) = self
                .vacant_table(va, Level::L3)
                .map_err(|error| match error {
                    Vacancy::OutOfTables => MapError::OutOfTables(va),
                    Vacancy::Occupied(level, live) => {
                        refusal(va, range.start + done, attributes, level, live)
                    }
                })?;
            let free = self
                .table(table)
                .entries_from(level.index(va))
                .iter()
                .take_while(|entry| entry.load().is_empty())
                .count();
            done += free * PAGE_SIZE;
        }
        Ok(())
    }
}
