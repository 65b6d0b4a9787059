//! Translations that tables no longer hold but TLBs may.
//!
//! A range goes from [`Stale`] to [`Flushed`] by one call that invalidates it on every core, or by
//! one flush of the [`Quarantine`] that it shares with others. Whoever frees the frames behind the
//! range, or hands out its addresses again, asks for a [`Flushed`], so the order cannot be got
//! wrong.

use super::table::Level;
use crate::addr::{PAGE_SHIFT, VirtAddr};
use crate::arch::{barrier, tlb};
use heapless::Deque;

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
    const fn invalidations(&self) -> usize {
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
    const fn into_flushed(self) -> Flushed {
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
fn flush_all_of<'a>(invalidations: usize, ranges: impl Iterator<Item = &'a Stale>) {
    barrier::dsb_ishst();
    if invalidations > MAX_BY_ADDRESS {
        tlb::invalidate_all();
    } else {
        for range in ranges {
            let mut va = range.va;
            for _ in 0..range.invalidations() {
                tlb::invalidate_last_level(va);
                va = va + range.smallest.size();
            }
        }
    }
    barrier::dsb_ish();
    barrier::isb();
}

/// Up to `N` ranges, first in, first out: the older ones flushed, the newer ones not yet. Each
/// carries a `T` for its owner.
///
/// One flush serves all ranges that wait. A range leaves as a [`Flushed`], and only after the flush
/// that covered it.
#[derive(Debug)]
pub struct Quarantine<T, const N: usize> {
    ranges: Deque<(Stale, T), N>,
    /// How many of the ranges, the older ones, no TLB holds any more.
    flushed: usize,
    /// Bytes of the others, and invalidations by address that drop them.
    stale_bytes: usize,
    invalidations: usize,
}

impl<T: Copy, const N: usize> Quarantine<T, N> {
    /// A quarantine without ranges.
    pub const fn new() -> Self {
        Self {
            ranges: Deque::new(),
            flushed: 0,
            stale_bytes: 0,
            invalidations: 0,
        }
    }

    /// Whether no range fits in.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.ranges.is_full()
    }

    /// Whether [`pop`](Self::pop) has a range to give.
    #[inline]
    pub const fn has_flushed(&self) -> bool {
        self.flushed > 0
    }

    /// Ranges that TLBs may still hold.
    #[inline]
    pub fn stale(&self) -> usize {
        self.ranges.len().wrapping_sub(self.flushed)
    }

    /// Bytes of the ranges that TLBs may still hold.
    #[inline]
    pub const fn stale_bytes(&self) -> usize {
        self.stale_bytes
    }

    /// Bytes of all ranges. Costs time in proportion to their number.
    pub fn bytes(&self) -> usize {
        self.ranges.iter().map(|(range, _)| range.size()).sum()
    }

    /// Takes a range in.
    ///
    /// # Errors
    ///
    /// The range, if the quarantine [is full](Self::is_full).
    #[inline]
    pub fn push(&mut self, range: Stale, note: T) -> Result<(), Stale> {
        let (bytes, invalidations) = (range.size(), range.invalidations());
        self.ranges
            .push_back((range, note))
            .map_err(|(range, _)| range)?;
        self.stale_bytes += bytes;
        self.invalidations += invalidations;
        Ok(())
    }

    /// Drops what waits from the TLBs of all cores, by address when it is little; nothing, not even
    /// a barrier, if nothing waits. May be called in any context.
    pub fn flush(&mut self) {
        if self.stale() > 0 {
            let stale = self.ranges.iter().skip(self.flushed);
            flush_all_of(self.invalidations, stale.map(|(range, _)| range));
            self.flushed = self.ranges.len();
            self.stale_bytes = 0;
            self.invalidations = 0;
        }
    }

    /// The oldest range, if it has been flushed, and what its owner noted.
    #[inline]
    pub fn pop(&mut self) -> Option<(Flushed, T)> {
        self.flushed = self.flushed.checked_sub(1)?;
        let (range, note) = self.ranges.pop_front()?;
        Some((range.into_flushed(), note))
    }
}

impl<T: Copy, const N: usize> Default for Quarantine<T, N> {
    fn default() -> Self {
        Self::new()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PAGE_SIZE;
    use crate::arch::trace::{Op, record_during};
    use crate::layout::VMALLOC;

    fn range(page: usize, pages: usize) -> Stale {
        let va = VMALLOC.base + page * PAGE_SIZE;
        Stale::new(va, pages * PAGE_SIZE, Level::L3)
    }

    #[test]
    fn a_range_leaves_only_after_a_flush_that_covered_it() {
        let mut waiting = Quarantine::<char, 4>::new();
        let (_, ops) = record_during(|| waiting.flush());
        assert_eq!(ops, [], "nothing waits");
        waiting.push(range(0, 1), 'a').unwrap();
        waiting.push(range(2, 2), 'b').unwrap();
        assert_eq!(waiting.pop(), None);
        assert_eq!((waiting.stale(), waiting.stale_bytes()), (2, 3 * PAGE_SIZE));
        let (_, ops) = record_during(|| waiting.flush());
        let page = |page| Op::TlbLastLevel(VMALLOC.base + page * PAGE_SIZE);
        let by_address = [page(0), page(2), page(3)];
        assert_eq!(ops[0], Op::DsbIshst);
        assert_eq!(ops[1..4], by_address);
        assert_eq!(ops[4..], [Op::DsbIsh, Op::Isb]);

        waiting.push(range(9, 1), 'c').unwrap();
        waiting.push(range(11, 1), 'd').unwrap();
        assert!(waiting.is_full());
        assert_eq!(waiting.push(range(13, 1), 'e'), Err(range(13, 1)));
        assert_eq!(waiting.pop(), Some((range(0, 1).into_flushed(), 'a')));
        assert_eq!(waiting.pop(), Some((range(2, 2).into_flushed(), 'b')));
        assert_eq!(waiting.pop(), None, "the newer two were not flushed");
        waiting.flush();
        assert_eq!(waiting.pop(), Some((range(9, 1).into_flushed(), 'c')));
    }

    #[test]
    fn many_pages_are_flushed_by_one_invalidation() {
        let mut waiting = Quarantine::<char, 4>::new();
        waiting.push(range(0, MAX_BY_ADDRESS), 'a').unwrap();
        waiting.push(range(MAX_BY_ADDRESS + 1, 1), 'b').unwrap();
        let (_, ops) = record_during(|| waiting.flush());
        assert_eq!(ops, [Op::DsbIshst, Op::TlbAll, Op::DsbIsh, Op::Isb]);
    }
}
