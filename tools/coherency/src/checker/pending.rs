//! What a CPU has done that nothing has put in order yet.

use std::ops::Range;

/// Of one CPU.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Lines cleaned or invalidated without a `DSB` since.
    pub(super) maintained: Ranges,
    /// Bytes stored past the cache without a barrier since.
    pub(super) stored: Ranges,
    /// Where the last store-release is.
    pub(super) released_at: Option<u64>,
    /// Operations by set and way without a `DSB` since.
    pub(super) sweep: Sweep,
    /// Whether the CPU has executed anything that any of this is about.
    pub(super) has_acted: bool,
}

impl Pending {
    /// How much of it was forgotten.
    pub(super) fn forgotten(&self) -> u64 {
        self.maintained.forgotten + self.stored.forgotten
    }
}

/// Operations by set and way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) operations: u32,
    /// Whether some of them clean.
    pub(super) cleans: bool,
    /// Where the last one is that invalidates, if any does.
    pub(super) invalidated_at: Option<u64>,
}

/// Physical addresses.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    ranges: Vec<Range<u64>>,
    /// How many ranges to have before those that touch are joined.
    limit: usize,
    forgotten: u64,
}

/// Ranges that are worth joining.
const MIN_LIMIT: usize = 2048;
/// More are not remembered: the rest is forgotten, a barrier that is missing then is not reported, and
/// the report says so.
const MAX_RANGES: usize = 1 << 20;

impl Ranges {
    pub(super) fn add(&mut self, range: Range<u64>) {
        if let Some(last) = self.ranges.last_mut()
            && range.start <= last.end
            && last.start <= range.end
        {
            *last = last.start.min(range.start)..last.end.max(range.end);
            return;
        }
        if self.ranges.len() >= self.limit.max(MIN_LIMIT) {
            self.join();
        }
        self.ranges.push(range);
    }

    /// Joins what touches.
    fn join(&mut self) {
        self.ranges.sort_unstable_by_key(|range| range.start);
        self.ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        if self.ranges.len() >= MAX_RANGES {
            self.forgotten += self.ranges.len() as u64;
            self.ranges.clear();
        }
        self.limit = 2 * self.ranges.len();
    }

    pub(super) fn clear(&mut self) {
        self.ranges.clear();
        self.limit = 0;
    }

    /// The first address in common with `range`.
    pub(super) fn meets(&self, range: &Range<u64>) -> Option<u64> {
        let common = |own: &Range<u64>| own.start.max(range.start)..own.end.min(range.end);
        let first = self
            .ranges
            .iter()
            .map(common)
            .find(|common| !common.is_empty());
        first.map(|common| common.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_is_one_and_nothing_is_forgotten() {
        let mut ranges = Ranges::default();
        // Columns of a picture: no store touches the one before.
        for column in 0..8 {
            for row in 0..4096 {
                let at = row * 0x1000 + column * 8;
                ranges.add(at..at + 8);
            }
        }
        assert!(ranges.ranges.len() <= 2 * 4096);
        assert_eq!(ranges.meets(&(0x10..0x18)), Some(0x10));
        assert_eq!(
            ranges.meets(&(4095 * 0x1000 + 56..u64::MAX)),
            Some(4095 * 0x1000 + 56)
        );
        assert_eq!(ranges.meets(&(64..0x1000)), None);
        assert_eq!(ranges.forgotten, 0);
        ranges.clear();
        assert_eq!(ranges.meets(&(0..u64::MAX)), None);
    }

    #[test]
    fn what_is_forgotten_is_counted() {
        let mut ranges = Ranges::default();
        for at in 0..2 * MAX_RANGES as u64 {
            ranges.add(at * 128..at * 128 + 8);
        }
        assert!(ranges.forgotten >= MAX_RANGES as u64);
    }
}
