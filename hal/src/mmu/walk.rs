//! Reading a translation tree in software.
//!
//! `AT` and `PAR_EL1` tell type and shareability of one address as the MMU sees it; sizes,
//! permissions and the question what else maps a frame are answered here.

use super::descriptor::{Access, Attributes, Descriptor};
use super::mair::MemoryType;
use super::mapper::{FIRST, LIMIT, Mapper};
use super::table::{Level, TableMemory};
use crate::addr::{PhysAddr, PhysRange, VirtAddr};

/// A stretch of addresses that translate, contiguous on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// First virtual address.
    pub va: VirtAddr,
    /// First physical address.
    pub pa: PhysAddr,
    /// Bytes; a multiple of the size of a leaf of `level`.
    pub size: usize,
    /// The level of the entry: page or block.
    pub level: Level,
    descriptor: Descriptor,
}

impl Leaf {
    pub(super) const fn new(va: VirtAddr, level: Level, descriptor: Descriptor) -> Self {
        Self {
            va,
            pa: descriptor.output_address(),
            size: level.size(),
            level,
            descriptor,
        }
    }

    /// First address after the leaf.
    pub fn end(&self) -> VirtAddr {
        self.va + self.size
    }

    /// The frames behind the leaf.
    pub fn frames(&self) -> PhysRange {
        PhysRange::new(self.pa, self.pa + self.size)
    }

    /// The memory type, or `None` if `MAIR_EL1` gives the index no meaning.
    pub const fn memory_type(&self) -> Option<MemoryType> {
        self.descriptor.memory_type()
    }

    /// The permissions, or `None` if they are not ones this kernel gives.
    pub const fn access(&self) -> Option<Access> {
        self.descriptor.access()
    }

    /// Type and permissions, if both are ones this kernel gives.
    pub const fn attributes(&self) -> Option<Attributes> {
        self.descriptor.attributes()
    }

    /// The entry as the hardware reads it (the first one, for several in a row).
    pub const fn descriptor(&self) -> Descriptor {
        self.descriptor
    }

    /// The physical address behind `va`, if the leaf covers it.
    pub fn translate(&self, va: VirtAddr) -> Option<PhysAddr> {
        let offset = va.checked_sub(self.va)?;
        (offset < self.size).then(|| self.pa + offset)
    }

    /// Whether `next` continues this one: same level, attributes and both addresses adjacent.
    fn continues_with(&self, next: &Self) -> bool {
        let flags = |leaf: &Self| {
            let descriptor = leaf.descriptor.with_note(0).raw();
            descriptor & !descriptor_address_bits()
        };
        self.end() == next.va
            && self.frames().end == next.pa
            && self.level == next.level
            && flags(self) == flags(next)
    }
}

const fn descriptor_address_bits() -> u64 {
    Descriptor::from_raw(u64::MAX).output_address().get()
}

impl<M: TableMemory> Mapper<M> {
    /// The first leaf that covers an address in `start..end`, in order of address.
    ///
    /// One call reads a bounded piece of the tree, so that a caller who prints can release the
    /// tables' lock between two.
    pub fn first_leaf(&self, start: VirtAddr, end: VirtAddr) -> Option<Leaf> {
        let mut va = start.max(FIRST);
        let end = end.min(LIMIT);
        while va < end {
            let (level, _, descriptor) = self.lowest_entry(va);
            let base = va.align_down(level.size());
            if descriptor.is_leaf(level) {
                return Some(Leaf::new(base, level, descriptor));
            }
            va = base.checked_add(level.size())?;
        }
        None
    }

    /// As [`first_leaf`](Self::first_leaf), together with all the leaves that continue it: same
    /// attributes and size of leaf, contiguous in virtual and in physical addresses.
    pub fn first_run(&self, start: VirtAddr, end: VirtAddr) -> Option<Leaf> {
        let mut run = self.first_leaf(start, end)?;
        while let Some(next) = self.leaf(run.end()) {
            if next.va >= end || !run.continues_with(&next) {
                break;
            }
            run.size += next.size;
        }
        Some(run)
    }

    /// All leaves that cover an address in `start..end`, in order of address.
    pub fn leaves(&self, start: VirtAddr, end: VirtAddr) -> impl Iterator<Item = Leaf> + '_ {
        let mut next = start;
        core::iter::from_fn(move || {
            let leaf = self.first_leaf(next, end)?;
            next = leaf.end();
            Some(leaf)
        })
    }

    /// All runs of leaves ([`first_run`](Self::first_run)) in `start..end`, in order of address.
    pub fn runs(&self, start: VirtAddr, end: VirtAddr) -> impl Iterator<Item = Leaf> + '_ {
        let mut next = start;
        core::iter::from_fn(move || {
            let run = self.first_run(next, end)?;
            next = run.end();
            Some(run)
        })
    }

    /// Calls `f` with every table the root leads to, itself not among them. Reads every entry above
    /// level 3.
    pub fn for_each_table(&self, mut f: impl FnMut(PhysAddr)) {
        self.for_each_below(self.root(), Level::ROOT, &mut f);
    }

    fn for_each_below(&self, table: PhysAddr, level: Level, f: &mut impl FnMut(PhysAddr)) {
        let Some(below) = level.next() else {
            return;
        };
        for entry in self.table(table).entries_from(0) {
            if let Some(table) = entry.load().next_table(level) {
                f(table);
                self.for_each_below(table, below, f);
            }
        }
    }
}

#[cfg(test)]
mod tests;
