//! Ranges that wait for a TLB flush they share.

use super::flush::{Flushed, Stale, flush_all_of};

/// Up to `N` ranges, first in, first out: the older ones flushed, the newer ones not yet. Each
/// carries a `T` for its owner. `N` is a power of two.
///
/// One flush serves all ranges that wait. A range leaves as a [`Flushed`], and only after the flush
/// that covered it.
#[derive(Debug)]
pub struct Quarantine<T, const N: usize> {
    /// The `n`th range ever is in the place `n % N`, those from `left` to `entered` now.
    ranges: [Option<(Stale, T)>; N],
    entered: usize,
    left: usize,
    /// No TLB holds the ranges before this one any more.
    flushed: usize,
    /// Bytes of the others, and invalidations by address that drop them.
    stale_bytes: usize,
    invalidations: usize,
}

impl<T: Copy, const N: usize> Quarantine<T, N> {
    /// A quarantine without ranges.
    pub const fn new() -> Self {
        // So that places stay the same when a count wraps.
        const { assert!(N.is_power_of_two()) };
        Self {
            ranges: [const { None }; N],
            entered: 0,
            left: 0,
            flushed: 0,
            stale_bytes: 0,
            invalidations: 0,
        }
    }

    /// Whether no range fits in.
    #[inline]
    pub const fn is_full(&self) -> bool {
        self.entered.wrapping_sub(self.left) == N
    }

    /// Whether [`pop`](Self::pop) has a range to give.
    #[inline]
    pub const fn has_flushed(&self) -> bool {
        self.flushed != self.left
    }

    /// Ranges that TLBs may still hold.
    #[inline]
    pub const fn stale(&self) -> usize {
        self.entered.wrapping_sub(self.flushed)
    }

    /// Bytes of the ranges that TLBs may still hold.
    #[inline]
    pub const fn stale_bytes(&self) -> usize {
        self.stale_bytes
    }

    /// Bytes of all ranges. Costs time in proportion to their number.
    pub fn bytes(&self) -> usize {
        let ranges = self.ranges.iter().flatten();
        ranges.map(|(range, _)| range.size()).sum()
    }

    /// Takes a range in.
    ///
    /// # Errors
    ///
    /// The range, if the quarantine [is full](Self::is_full).
    #[inline(always)]
    pub fn push(&mut self, range: Stale, note: T) -> Result<(), Stale> {
        if self.is_full() {
            return Err(range);
        }
        self.stale_bytes += range.size();
        self.invalidations += range.invalidations();
        self.ranges[self.entered % N] = Some((range, note));
        self.entered = self.entered.wrapping_add(1);
        Ok(())
    }

    /// Drops what waits from the TLBs of all cores, by address when it is little; nothing, not even
    /// a barrier, if nothing waits. May be called in any context.
    pub fn flush(&mut self) {
        if self.stale() > 0 {
            let stale = (0..self.stale()).filter_map(|later| {
                let place = self.flushed.wrapping_add(later) % N;
                self.ranges[place].as_ref().map(|(range, _)| range)
            });
            flush_all_of(self.invalidations, stale);
            self.flushed = self.entered;
            self.stale_bytes = 0;
            self.invalidations = 0;
        }
    }

    /// The oldest range, if it has been flushed, and what its owner noted.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<(Flushed, T)> {
        if !self.has_flushed() {
            return None;
        }
        let (range, note) = self.ranges[self.left % N].take()?;
        self.left = self.left.wrapping_add(1);
        Some((range.into_flushed(), note))
    }
}

impl<T: Copy, const N: usize> Default for Quarantine<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PAGE_SIZE;
    use crate::arch::trace::{Op, record_during};
    use crate::layout::VMALLOC;
    use crate::mmu::Level;
    use crate::mmu::flush::MAX_BY_ADDRESS;

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
