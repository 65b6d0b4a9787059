//! Lines that stayed in the cache when their memory stopped being cached.

use super::adversary::{Adversary, Whim};
use super::ram::LINE;
use std::collections::BTreeMap;

/// A line of memory that is accessed past the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leftover {
    pub(super) bytes: [u8; LINE],
    /// It overwrites memory when it leaves.
    pub(super) is_dirty: bool,
}

/// The leftovers of a stretch, by line. Loads may hit them, so that what a master writes is hidden
/// from the core (Arm ARM B2.8, mismatched attributes); dirty ones are written back some day.
#[derive(Debug, Default)]
pub(super) struct Leftovers(BTreeMap<usize, Leftover>);

impl Leftovers {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Leaves line number `index` behind.
    pub(super) fn leave(&mut self, index: usize, leftover: Leftover) {
        self.0.insert(index, leftover);
    }

    /// Whether the line of byte `at` is one.
    pub(super) fn hides(&self, at: usize) -> bool {
        self.0.contains_key(&(at / LINE))
    }

    /// Takes line number `index` out of the cache.
    pub(super) fn take(&mut self, index: usize) -> Option<Leftover> {
        self.0.remove(&index)
    }

    /// Time passes: a line that leaves the cache now, with its number.
    pub(super) fn pass(&mut self, adversary: &mut Adversary) -> Option<(usize, Leftover)> {
        if self.0.is_empty() || !adversary.follows(Whim::Evict) {
            return None;
        }
        let pick = adversary.below(self.0.len());
        let index = *self.0.keys().nth(pick)?;
        Some((index, self.take(index)?))
    }
}
