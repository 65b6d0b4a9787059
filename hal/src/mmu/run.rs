//! Runs of frames whose mapping remembers how they were allocated.
//!
//! The first leaf of a run notes the run's order in the bits the hardware leaves to software, so
//! that memory made of many runs needs no list of them.

use super::descriptor::{Attributes, Descriptor};
use super::flush::{Flushed, Stale};
#[cfg(doc)]
use super::mapper::publish;
use super::mapper::{MapError, Mapper, check_physical, check_virtual};
use super::table::{Entry, Level, TableMemory};
use crate::addr::{PAGE_SIZE, Pfn, PhysRange, VirtAddr};

/// Entries looked at together where that saves tests.
const GROUP: usize = 8;

/// `2^order` frames that were allocated and mapped as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first frame.
    pub pfn: Pfn,
    /// log2 of the number of frames, at most 14.
    pub order: u32,
}

impl Run {
    /// Bytes in the run.
    pub const fn size(self) -> usize {
        PAGE_SIZE << self.order
    }
}

impl<M: TableMemory> Mapper<M> {
    /// Maps `runs` one after the other from `va` on, in blocks where they fit, and notes each
    /// run's order in its first leaf for [`reap`](Self::reap). Nobody may use the addresses before
    /// [`publish`].
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map), with the number of runs before the one that failed; those stay
    /// mapped.
    ///
    /// # Safety
    ///
    /// As [`map`](Self::map).
    #[inline(always)]
    pub unsafe fn map_runs(
        &mut self,
        va: VirtAddr,
        runs: &[Run],
        attributes: Attributes,
    ) -> Result<(), (usize, MapError)> {
        let mut va = va;
        for (number, run) in runs.iter().enumerate() {
            let start = run.pfn.phys();
            let range = PhysRange::new(start, start + run.size());
            // The note of a leaf that no run starts at is 0.
            let note = run.order as u8 + 1;
            if !self.write_pages(va, range, attributes, note) {
                self.write_leaves(va, range, attributes, Level::L2, note)
                    .map_err(|error| (number, error))?;
            }
            va = va + run.size();
        }
        Ok(())
    }

    /// [`write_leaves`](Self::write_leaves) for less than a block in the table used last, which has
    /// most of what is mapped run by run. Changes nothing where it returns `false`.
    #[inline(always)]
    pub(super) fn write_pages(
        &self,
        va: VirtAddr,
        range: PhysRange,
        attributes: Attributes,
        note: u8,
    ) -> bool {
        let size = range.size() as usize;
        if size == 0 || size >= Level::L2.size() || check_physical(range).is_err() {
            return false;
        }
        let Some(entries) = self.recent_entries(va, size) else {
            return false;
        };
        let Some((first, others)) = entries.split_first() else {
            return false;
        };
        let mut leaf = Descriptor::leaf(Level::L3, range.start, attributes);
        // What most calls map.
        if others.is_empty() {
            let is_vacant = first.load().is_empty();
            if is_vacant {
                first.store(leaf.with_note(note));
            }
            return is_vacant;
        }
        let (groups, rest) = others.as_chunks::<GROUP>();
        let is_vacant = first.load().is_empty()
            && groups.iter().all(|group| every_and_any(group).1.is_empty())
            && rest.iter().all(|entry| entry.load().is_empty());
        if !is_vacant {
            return false;
        }
        first.store(leaf.with_note(note));
        let mut fill = |entry: &Entry| {
            leaf = leaf.following(PAGE_SIZE);
            entry.store(leaf);
        };
        for group in groups {
            group.iter().for_each(&mut fill);
        }
        rest.iter().for_each(fill);
        true
    }

    /// Makes the next `size` bytes behind `stale` invalid, and part of it: the first half of a
    /// removal whose TLB flush may be shared with others. Runs of [`map_runs`](Self::map_runs) are
    /// not forgotten: after the flush [`reap`](Self::reap) hands them out.
    ///
    /// One walk, and no check beforehand that the range is mapped whole.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap); `stale` is unchanged then, but leaves before the one named by the
    /// error are invalid.
    ///
    /// # Safety
    ///
    /// As [`unmap`](Self::unmap).
    #[inline(always)]
    pub unsafe fn retire(&mut self, stale: &mut Stale, size: usize) -> Result<(), MapError> {
        let start = stale.va() + stale.size();
        if let Some(entries) = self.recent_entries(start, size)
            && retire_leaves(entries, Level::L3) == entries.len()
            && size > 0
        {
            stale.extend(size, Level::L3);
            return Ok(());
        }
        stale.extend(size, self.retire_anywhere(start, size)?);
        Ok(())
    }

    /// [`retire`](Self::retire) of any leaves in any tables; some may be retired already. The level
    /// of the smallest.
    #[inline(never)]
    fn retire_anywhere(&mut self, start: VirtAddr, size: usize) -> Result<Level, MapError> {
        check_virtual(start, size)?;
        let end = start + size;
        let mut smallest = Level::ROOT;
        let mut va = start;
        while va < end {
            let place = self.place_of(va);
            let leaves = (end.get() - va.get()) / place.level.size();
            let retired = match leaves {
                0 => 0,
                _ if !va.is_aligned(place.level.size()) => 0,
                _ => {
                    let entries = self.entries(place, va);
                    retire_leaves(&entries[..leaves.min(entries.len())], place.level)
                }
            };
            if retired == 0 {
                // Not a whole leaf: the general walk says why.
                self.check_live(va, end.get() - va.get())?;
                return Err(MapError::NotMapped(va));
            }
            smallest = smallest.max(place.level);
            va = va + retired * place.level.size();
        }
        Ok(smallest)
    }

    /// Forgets the first run of a retired and flushed range and returns its frames, which nothing
    /// translates to any more; `rest` becomes what follows the run. `None` when nothing is left.
    ///
    /// # Errors
    ///
    /// [`MapError::NotOneRun`] if the range does not start with a whole retired run.
    #[inline(always)]
    pub fn reap(&mut self, rest: &mut Flushed) -> Result<Option<Run>, MapError> {
        if rest.size == 0 {
            return Ok(None);
        }
        let va = rest.va;
        let entry = match self.recent_entries(va, PAGE_SIZE) {
            Some([entry]) => entry,
            _ => {
                let place = self.place_of(va);
                let [entry, ..] = self.entries(place, va) else {
                    return Err(MapError::NotOneRun(va));
                };
                entry
            }
        };
        let first = entry.load();
        let run = match first.note().checked_sub(1) {
            Some(order) if !first.is_valid() => Run {
                pfn: first.output_address().pfn(),
                order: u32::from(order),
            },
            _ => return Err(MapError::NotOneRun(va)),
        };
        let size = run.size();
        if size > rest.size {
            return Err(MapError::NotOneRun(va));
        }
        // The run's other leaves were emptied when they were retired.
        entry.store(Descriptor::EMPTY);
        *rest = Flushed {
            va: va + size,
            size: rest.size - size,
        };
        Ok(Some(run))
    }
}

/// The bits that all entries of a group have, and those that any has.
#[inline(always)]
fn every_and_any(group: &[Entry; GROUP]) -> (Descriptor, Descriptor) {
    let (every, any) = group.iter().fold((u64::MAX, 0), |(every, any), entry| {
        let raw = entry.load().raw();
        (every & raw, any | raw)
    });
    (Descriptor::from_raw(every), Descriptor::from_raw(any))
}

/// Whether a group holds pages that no run starts at.
#[inline(always)]
fn is_inside_runs(group: &[Entry; GROUP]) -> bool {
    let (every, any) = every_and_any(group);
    // What makes a page are bits that are set.
    every.is_leaf(Level::L3) && any.note() == 0
}

/// Retires the leaves at the start of `entries` of a table of `level`; how many there are.
#[inline(always)]
fn retire_leaves(entries: &[Entry], level: Level) -> usize {
    let mut rest = entries;
    while let Some((entry, others)) = rest.split_first() {
        let leaf = entry.load();
        if !leaf.is_leaf(level) {
            break;
        }
        if leaf.note() != 0 {
            entry.store(leaf.retired());
            rest = others;
        } else if level == Level::L3
            && let Some((group, others)) = rest.split_first_chunk::<GROUP>()
            && is_inside_runs(group)
        {
            group
                .iter()
                .for_each(|entry| entry.store(Descriptor::EMPTY));
            rest = others;
        } else {
            entry.store(Descriptor::EMPTY);
            rest = others;
        }
    }
    entries.len() - rest.len()
}
