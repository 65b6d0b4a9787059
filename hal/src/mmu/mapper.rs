//! Changes to a translation tree.
//!
//! The rules every method keeps (Arm ARM D8.16, D8.17):
//!
//! - A live entry is never overwritten by another translation. It is first made invalid and
//!   flushed from the TLBs (break-before-make); asking for anything else is an error.
//! - A live block is never split: other cores may be using it.
//! - A new leaf is a store, `DSB ISHST`, `ISB`. A removed one is a store, `DSB ISHST`,
//!   `TLBI VAALE1IS`, `DSB ISH`, `ISB`. A call pays for its barriers once, not per page.
//!
//! Tables stay in the tree when their last leaf goes, because the addresses they serve are
//! reused soon; the one exception is an empty table in the way of a block, which is unlinked,
//! flushed and freed. Nothing else frees memory here.

mod error;
mod place;

pub use error::MapError;
pub(super) use error::{check_physical, check_virtual};

use super::descriptor::{Access, Attributes, Descriptor};
use super::flush::{Flushed, Stale};
use super::table::{Entry, Level, Table, TableMemory};
use super::walk::Leaf;
use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::arch::barrier;
use crate::layout;
use crate::trace::trace;
use error::refusal;
use place::{Place, Recent};

/// First address translated through `TTBR1_EL1`.
pub const FIRST: VirtAddr = layout::DIRECT_MAP.base;

/// First address never mapped: the top 2 MiB hold error pointers.
pub const LIMIT: VirtAddr = VirtAddr::new(0xFFFF_FFFF_FFE0_0000);

/// A translation tree and the memory its tables come from.
///
/// # Invariants
///
/// Every table reachable from `root` came from `memory` (or is the root) and is used by this tree
/// only, so that a `&mut Mapper` is the only writer.
#[derive(Debug)]
pub struct Mapper<M> {
    root: PhysAddr,
    memory: M,
    /// Most changes come in the neighbourhood of the last one.
    recent: Recent,
}

impl<M: TableMemory> Mapper<M> {
    /// The tree whose level 1 table lies at `root`.
    ///
    /// # Safety
    ///
    /// `root` is a table `memory` can reach ([`TableMemory::virt`]), every table it leads to came
    /// from `memory`, and no other `Mapper` changes the tree.
    pub const unsafe fn new(root: PhysAddr, memory: M) -> Self {
        Self {
            root,
            memory,
            recent: Recent::NONE,
        }
    }

    /// The root table's address, what `TTBR1_EL1` holds.
    pub const fn root(&self) -> PhysAddr {
        self.root
    }

    /// The memory tables come from.
    pub const fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// Maps `range` at `va` with leaves of at most `largest`, as large as the alignment of both
    /// addresses allows.
    ///
    /// May be called in any context that may take the tables' lock. On return every core may use
    /// the mapping.
    ///
    /// # Errors
    ///
    /// See [`MapError`]; nothing stays mapped that was not before.
    ///
    /// # Safety
    ///
    /// No frame of `range` is mapped anywhere with another memory type, and none is both writable
    /// and executable when all its mappings are taken together.
    pub unsafe fn map(
        &mut self,
        va: VirtAddr,
        range: PhysRange,
        attributes: Attributes,
        largest: Level,
    ) -> Result<(), MapError> {
        // SAFETY: handed on to the caller.
        unsafe { self.map_untraced(va, range, attributes, largest) }?;
        trace!(
            "map {=u64:x} -> {=u64:x}..{=u64:x}",
            va.get() as u64,
            range.start.get(),
            range.end.get()
        );
        Ok(())
    }

    /// As [`map`](Self::map), for those who map often: without a trace frame, which costs more than
    /// the mapping even where nobody listens.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    ///
    /// # Safety
    ///
    /// As [`map`](Self::map).
    #[inline(always)]
    pub unsafe fn map_untraced(
        &mut self,
        va: VirtAddr,
        range: PhysRange,
        attributes: Attributes,
        largest: Level,
    ) -> Result<(), MapError> {
        if !self.write_pages(va, range, attributes, 0) {
            self.write_leaves(va, range, attributes, largest, 0)?;
        }
        publish();
        Ok(())
    }

    /// Removes `size` bytes at `va` and flushes them from the TLBs.
    ///
    /// # Errors
    ///
    /// [`MapError::NotMapped`] if a page of the range is not mapped, [`MapError::SplitsBlock`] if
    /// the range holds a part of a block; nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nothing refers to memory through the range any more, this code and its stack included.
    pub unsafe fn unmap(&mut self, va: VirtAddr, size: usize) -> Result<Flushed, MapError> {
        let stride = self.check_live(va, size)?;
        self.clear(va, size)?;
        let flushed = Stale::new(va, size, stride).flush();
        trace!(
            "unmap {=u64:x}, {=u64:x} bytes",
            va.get() as u64,
            size as u64
        );
        Ok(flushed)
    }

    /// Gives `size` bytes at `va` other permissions and flushes the old ones from the TLBs.
    ///
    /// Permissions may change while the mapping is live (Arm ARM D8.17.1). Before memory becomes
    /// executable the caller has made its content visible to instruction fetch.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap).
    ///
    /// # Safety
    ///
    /// Nothing relies on a permission that goes, and no other mapping of the frames is writable
    /// while this one becomes executable or the reverse.
    pub unsafe fn protect(
        &mut self,
        va: VirtAddr,
        size: usize,
        access: Access,
    ) -> Result<(), MapError> {
        let stride = self.check_live(va, size)?;
        self.visit(va, size, |slot| {
            slot.entry.store(slot.descriptor.with_access(access));
            Ok(())
        })?;
        Stale::new(va, size, stride).flush();
        Ok(())
    }

    /// What `va` translates to. No hardware is involved, so it works for trees not in use.
    pub fn leaf(&self, va: VirtAddr) -> Option<Leaf> {
        if va < FIRST || va >= LIMIT {
            return None;
        }
        let (level, _, descriptor) = self.lowest_entry(va);
        descriptor
            .is_leaf(level)
            .then(|| Leaf::new(va.align_down(level.size()), level, descriptor))
    }

    /// The entry a walk for `va` ends at: a leaf, or one that translates to nothing.
    #[inline]
    pub(super) fn lowest_entry(&self, va: VirtAddr) -> (Level, &Entry, Descriptor) {
        let (level, table) = self.lowest_table(va);
        let entry = table.entry(level.index(va));
        (level, entry, entry.load())
    }

    #[inline]
    fn lowest_table(&self, va: VirtAddr) -> (Level, &Table) {
        let mut level = Level::ROOT;
        let mut table = self.table(self.root);
        loop {
            let entry = table.entry(level.index(va)).load();
            match (entry.next_table(level), level.next()) {
                (Some(pa), Some(next)) => (level, table) = (next, self.table(pa)),
                _ => return (level, table),
            }
        }
    }

    #[inline]
    pub(super) fn table(&self, pa: PhysAddr) -> &Table {
        // SAFETY: `pa` is the root or was linked by this tree, so it came from `memory`, which
        // keeps it mapped at `virt`; entries are atomics, so walkers may read them meanwhile. A
        // table is freed by `&mut self` only, when this borrow has ended.
        unsafe { &*self.memory.virt(pa).as_ptr::<Table>() }
    }

    /// Checks that `size` bytes at `va` are live and end at leaf borders; the level of the
    /// smallest leaf.
    pub(super) fn check_live(&self, va: VirtAddr, size: usize) -> Result<Level, MapError> {
        check_virtual(va, size)?;
        let mut smallest = Level::ROOT;
        self.visit(va, size, |slot| {
            smallest = smallest.max(slot.level);
            if slot.descriptor.is_leaf(slot.level) {
                Ok(())
            } else {
                Err(MapError::NotMapped(slot.va))
            }
        })?;
        Ok(smallest)
    }

    /// Calls `f` for every entry that holds a leaf, live or retired, of a checked range. Entries
    /// that hold nothing are an error, and so is a leaf that reaches beyond the range.
    #[inline]
    pub(super) fn visit(
        &self,
        start: VirtAddr,
        size: usize,
        mut f: impl FnMut(Slot<'_>) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        let end = start + size;
        let mut va = start;
        while va < end {
            let (level, table) = self.lowest_table(va);
            let leaf_size = level.size();
            for entry in table.entries_from(level.index(va)) {
                if va >= end {
                    break;
                }
                let descriptor = entry.load();
                if descriptor.next_table(level).is_some() {
                    break;
                }
                if descriptor.is_empty() {
                    return Err(MapError::NotMapped(va));
                }
                let starts_inside = !va.is_aligned(leaf_size);
                if starts_inside || end.get() - va.get() < leaf_size {
                    return Err(MapError::SplitsBlock {
                        va: if starts_inside { va } else { end },
                        size: leaf_size,
                    });
                }
                f(Slot {
                    va,
                    level,
                    entry,
                    descriptor,
                })?;
                va = va + leaf_size;
            }
        }
        Ok(())
    }

    /// Empties the entries of a visitable range. The callers hold the tree exclusively.
    pub(super) fn clear(&self, va: VirtAddr, size: usize) -> Result<(), MapError> {
        self.visit(va, size, |slot| {
            slot.entry.store(Descriptor::EMPTY);
            Ok(())
        })
    }

    /// Writes the leaves for `range` at `va`, the first one with `note`; undone on error.
    #[inline(never)]
    pub(super) fn write_leaves(
        &mut self,
        start: VirtAddr,
        range: PhysRange,
        attributes: Attributes,
        largest: Level,
        note: u8,
    ) -> Result<(), MapError> {
        check_physical(range)?;
        let size = range.size() as usize;
        check_virtual(start, size)?;
        let mut done = 0;
        while done < size {
            let (va, pa) = (start + done, range.start + done);
            let wanted = fitting_level(va, pa, size - done, largest);
            let written = self
                .vacant_place(va, pa, attributes, wanted)
                .and_then(|place| {
                    let note = if done == 0 { note } else { 0 };
                    let first = Descriptor::leaf(place.level, pa, attributes);
                    self.fill(place, va, first, note, size - done)
                        .map_err(|live| refusal(va, pa, attributes, place.level, live))
                });
            match written {
                Ok(written) => done += written,
                Err(error) => {
                    if done > 0 {
                        // SAFETY: the caller has not learnt of these mappings, nobody uses them.
                        unsafe { self.unmap(start, done) }?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Writes `first`, with `note`, and the leaves that continue it to the table at `place`, from
    /// the entry for `va` on: up to the first entry that is not empty, the end of the table, or the
    /// last leaf that fits into `size`. The bytes mapped, or what is in the entry for `va`.
    #[inline]
    fn fill(
        &self,
        place: Place,
        va: VirtAddr,
        first: Descriptor,
        note: u8,
        size: usize,
    ) -> Result<usize, Descriptor> {
        let leaf_size = place.level.size();
        let entries = self.entries(place, va);
        let mut leaf = first;
        let mut written = 0;
        for entry in entries.iter().take(size / leaf_size) {
            let live = entry.load();
            if !live.is_empty() {
                if written == 0 {
                    return Err(live);
                }
                break;
            }
            entry.store(leaf);
            leaf = leaf.following(leaf_size);
            written += leaf_size;
        }
        if let Some(entry) = entries.first() {
            entry.store(first.with_note(note));
        }
        Ok(written)
    }
}

/// Makes new leaves usable by every core, this one from the next instruction on.
pub fn publish() {
    barrier::dsb_ishst();
    barrier::isb();
}

/// An entry of the range being visited.
pub(super) struct Slot<'a> {
    pub(super) va: VirtAddr,
    pub(super) level: Level,
    pub(super) entry: &'a Entry,
    pub(super) descriptor: Descriptor,
}

/// The largest level, at most `largest`, whose leaf fits both addresses and the size.
fn fitting_level(va: VirtAddr, pa: PhysAddr, size: usize, largest: Level) -> Level {
    let fits = |level: Level| {
        va.is_aligned(level.size()) && pa.is_aligned(level.size()) && size >= level.size()
    };
    match largest {
        Level::L1 if fits(Level::L1) => Level::L1,
        Level::L1 | Level::L2 if fits(Level::L2) => Level::L2,
        _ => Level::L3,
    }
}

#[cfg(test)]
mod tests;
