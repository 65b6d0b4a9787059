//! Translations that tables no longer hold but TLBs may.
//!
//! A range goes from [`Stale`] to [`Flushed`] by one call that invalidates it on every core, or by
//! one flush of the [`Quarantine`](super::Quarantine) that it shares with others. Whoever frees the frames behind the
//! range, or hands out its addresses again, asks for a [`Flushed`], so the order cannot be got
//! wrong.

use super::table::Level;
use crate::addr::{PAGE_SHIFT, VirtAddr};
use crate::arch::{barrier, tlb};

/// Invalidations by address above which everything is dropped instead: one full table's worth,
/// past which refilling the TLBs costs less than the broadcasts.
pub const MAX_BY_ADDRESS: usize = super::table::ENTRIES;

/// A range whose leaves were made invalid or given other permissions, still in TLBs.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "TLBs still hold the range until `flush`"]
pub struct Stale {
    va: VirtAddr,
    pages: u32,
    /// The level of the smallest leaf of the range: one invalidation per leaf is enough.
    smallest: Level,
}

impl Stale {
    /// A range of no bytes at `va`, which [`Mapper::retire`](super::Mapper::retire) extends.
    #[inline]
    pub const fn empty(va: VirtAddr) -> Self {
        Self::new(va, 0, Level::ROOT)
    }

    /// `size` bytes at `va`, in leaves of at least the size at `smallest`.
    #[inline]
    pub(super) const fn new(va: VirtAddr, size: usize, smallest: Level) -> Self {
        Self {
            va,
            pages: (size >> PAGE_SHIFT) as u32,
            smallest,
        }
    }

    /// Adds the `size` bytes that follow, in leaves of at least the size at `smallest`.
    #[inline]
    pub(super) fn extend(&mut self, size: usize, smallest: Level) {
        self.pages += (size >> PAGE_SHIFT) as u32;
        self.smallest = self.smallest.max(smallest);
    }

    /// First address of the range.
    #[inline]
    pub const fn va(&self) -> VirtAddr {
        self.va
    }

    /// Bytes in the range.
    #[inline]
    pub const fn size(&self) -> usize {
        (self.pages as usize) << PAGE_SHIFT
    }

    /// Invalidations by address that drop the range.
    #[inline]
    pub(super) const fn invalidations(&self) -> usize {
        self.size() / self.smallest.size()
    }

    /// Drops the range from the TLBs of all cores; on return no core uses the old translations.
    ///
    /// Also completes the table writes before it. May be called in any context.
    pub fn flush(self) -> Flushed {
        flush_all_of(self.invalidations(), core::iter::once(&self));
        self.into_flushed()
    }

    /// The same range after a flush that covered it.
    #[inline]
    pub(super) const fn into_flushed(self) -> Flushed {
        Flushed {
            va: self.va,
            size: self.size(),
        }
    }
}

/// Drops the ranges from the TLBs of all cores, by address when that takes few `invalidations`.
///
/// The leaves may have been made invalid by another core. Its stores were observed by whoever took
/// the tables' lock after it, and so by every observer before the `DSB` here is done (Arm ARM
/// B2.3: stores are other-multi-copy atomic).
pub(super) fn flush_all_of<'a>(invalidations: usize, ranges: impl Iterator<Item = &'a Stale>) {
    barrier::dsb_ishst();
    if invalidations > MAX_BY_ADDRESS {
        tlb::invalidate_all();
    } else {
        for range in ranges {
            let leaf = range.smallest.size();
            let mut va = range.va;
            for _ in 0..range.invalidations() {
                tlb::invalidate_last_level(va);
                va = va + leaf;
            }
        }
    }
    barrier::dsb_ish();
    barrier::isb();
}

/// A range no TLB holds any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Flushed {
    pub(super) va: VirtAddr,
    pub(super) size: usize,
}

impl Flushed {
    /// First address of the range.
    #[inline]
    pub const fn va(&self) -> VirtAddr {
        self.va
    }

    /// Bytes in the range.
    #[inline]
    pub const fn size(&self) -> usize {
        self.size
    }
}
