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
}

/// Operations by set and way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) operations: u32,
    pub(super) cleans: bool,
    pub(super) invalidates: bool,
}

/// Physical addresses, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<Range<u64>>);

/// More are not remembered: the oldest are forgotten, and a barrier that is missing after so many is
/// not reported.
const MAX_RANGES: usize = 2048;

impl Ranges {
    pub(super) fn add(&mut self, range: Range<u64>) {
        if let Some(last) = self.0.last_mut()
            && range.start <= last.end
            && last.start <= range.end
        {
            *last = last.start.min(range.start)..last.end.max(range.end);
            return;
        }
        if self.0.len() == MAX_RANGES {
            self.0.drain(..MAX_RANGES / 2);
        }
        self.0.push(range);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The first address in common with `range`.
    pub(super) fn meets(&self, range: &Range<u64>) -> Option<u64> {
        let common = |own: &Range<u64>| own.start.max(range.start)..own.end.min(range.end);
        let first = self.0.iter().map(common).find(|common| !common.is_empty());
        first.map(|common| common.start)
    }
}
