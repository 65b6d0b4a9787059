//! One translation table and where it lies in the tree.
//!
//! With 39-bit addresses the walk starts at level 1: the root's 512 entries cover 1 GiB each
//! (Arm ARM D8.2.4).

use super::descriptor::Descriptor;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr};
use crate::arch::entry;
use core::sync::atomic::{AtomicU64, Ordering};

/// log2 of [`ENTRIES`].
const INDEX_BITS: u32 = 9;

/// Entries in a table.
pub const ENTRIES: usize = 1 << INDEX_BITS;

/// The level of a table: which bits of an address select its entry, how much an entry covers.
///
/// A word, so that what is kept of a range beside its pages has no padding to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// The root: 1 GiB an entry.
    L1 = 1,
    /// 2 MiB an entry.
    L2 = 2,
    /// 4 KiB an entry.
    L3 = 3,
}

impl Level {
    /// Where a walk starts.
    pub const ROOT: Self = Self::L1;

    const fn shift(self) -> u32 {
        PAGE_SHIFT + INDEX_BITS * (Self::L3 as u32 - self as u32)
    }

    /// Bytes one entry covers, which is the size and alignment of a leaf.
    #[inline]
    pub const fn size(self) -> usize {
        1 << self.shift()
    }

    /// The entry that `va` selects.
    #[inline]
    pub const fn index(self, va: VirtAddr) -> usize {
        va.get() >> self.shift() & (ENTRIES - 1)
    }

    /// The next level down.
    #[inline]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::L1 => Some(Self::L2),
            Self::L2 => Some(Self::L3),
            Self::L3 => None,
        }
    }
}

/// An entry in memory that table walkers of all cores read at any time.
///
/// Every access is a single-copy atomic 64-bit access (Arm ARM B2.2.1).
#[derive(Debug)]
#[repr(transparent)]
pub struct Entry(AtomicU64);

impl Entry {
    /// Reads the entry.
    #[inline]
    pub fn load(&self) -> Descriptor {
        Descriptor::from_raw(self.0.load(Ordering::Relaxed))
    }

    /// Writes the entry. The barriers are the caller's.
    #[inline]
    #[track_caller]
    pub(super) fn store(&self, descriptor: Descriptor) {
        entry::store(&self.0, descriptor.raw());
    }

    /// Writes an entry that points to a table this core has just cleared: a walker that sees the
    /// entry sees the cleared table.
    #[inline]
    #[track_caller]
    pub(super) fn link(&self, table: PhysAddr) {
        entry::link(&self.0, Descriptor::table(table).raw());
    }
}

/// One 4 KiB table.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Table([Entry; ENTRIES]);

const _: () = assert!(size_of::<Table>() == PAGE_SIZE);

impl Table {
    /// An empty table.
    pub const fn new() -> Self {
        Self([const { Entry(AtomicU64::new(0)) }; ENTRIES])
    }

    /// The entries from number `index` on.
    #[inline]
    pub fn entries_from(&self, index: usize) -> &[Entry] {
        self.0.get(index..).unwrap_or_default()
    }

    /// Entry number `index` modulo [`ENTRIES`].
    #[inline]
    pub fn entry(&self, index: usize) -> &Entry {
        &self.0[index % ENTRIES]
    }

    /// Whether nothing is in the table, retired leaves included.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|entry| entry.load().is_empty())
    }

    /// Empties the table.
    pub(super) fn clear(&self) {
        for entry in &self.0 {
            entry.store(Descriptor::EMPTY);
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

/// Where tables come from and where the CPU reaches them.
///
/// The indirection exists because the first tables lie in the image, whose frames the direct map
/// does not hold.
///
/// # Safety
///
/// - A frame returned by [`alloc`](Self::alloc) is RAM that nobody else uses until it is given to
///   [`free`](Self::free).
/// - For every frame returned by `alloc`, and for the root of the tree, [`virt`](Self::virt) is a
///   4 KiB aligned address where the frame is mapped Normal write-back, readable and writable.
pub unsafe trait TableMemory {
    /// Takes a frame for a table; its content does not matter.
    fn alloc(&mut self) -> Option<PhysAddr>;

    /// Takes back a frame no walker can reach any more.
    ///
    /// # Safety
    ///
    /// `table` came from [`alloc`](Self::alloc) of this object, and no entry or TLB refers to it.
    unsafe fn free(&mut self, table: PhysAddr);

    /// The address at which the CPU reaches the table at `table`.
    fn virt(&self, table: PhysAddr) -> VirtAddr;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_split_a_39_bit_address() {
        // 1 | 2 | 3 | 4 GiB-, 2 MiB-, 4 KiB- and byte-index of one address.
        let va = VirtAddr::new(0xFFFF_FF80_0000_0000 | 1 << 30 | 2 << 21 | 3 << 12 | 4);
        assert_eq!(Level::L1.index(va), 1);
        assert_eq!(Level::L2.index(va), 2);
        assert_eq!(Level::L3.index(va), 3);
        assert_eq!(Level::L1.index(VirtAddr::new(usize::MAX)), 511);
        assert_eq!(
            [Level::L1.size(), Level::L2.size(), Level::L3.size()],
            [0x4000_0000, 0x20_0000, 0x1000]
        );
    }
}
