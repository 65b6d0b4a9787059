//! The slots that one mapping may take neighbours of: a word with a bit for each.

/// Slots in a segment (`IO_TLB_SEGSIZE`).
pub(super) const SEGMENT_SLOTS: u32 = u128::BITS;

/// Which slots of a segment are lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment(u128);

impl Segment {
    /// A segment whose slots are all free.
    pub(super) const EMPTY: Self = Self(0);

    /// Takes the first `count` free neighbours, more than none; the number of the first.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        // A bit stays set where as many free slots start as `run` says, which grows to `count`.
        let mut starts = !self.0;
        let mut run = 1;
        while run < count {
            let step = run.min(count - run);
            starts &= starts >> step;
            run += step;
        }
        if starts == 0 || count > SEGMENT_SLOTS {
            return None;
        }
        let first = starts.trailing_zeros();
        self.0 |= mask(first, count);
        Some(first)
    }

    /// Takes back the `count` slots from `first` on.
    pub(super) fn give_back(&mut self, first: u32, count: u32) {
        debug_assert_eq!(self.0 & mask(first, count), mask(first, count));
        self.0 &= !mask(first, count);
    }
}

/// Bits for `count` slots from `first` on, all within the segment.
const fn mask(first: u32, count: u32) -> u128 {
    (u128::MAX >> (SEGMENT_SLOTS - count)) << first
}
