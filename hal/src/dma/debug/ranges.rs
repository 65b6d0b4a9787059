//! Ranges of addresses, found by the addresses in them.

use crate::alloc::{AllocError, Allocator, Flags, Vec};
use core::iter;

/// Ends a chain.
const NIL: u32 = u32::MAX;

/// Most buckets, as Linux has.
const MAX_BUCKETS: usize = 16_384;

/// A range of the lowest level spans at most this, as a power of two of bytes: a page. One of the
/// next level spans [`LEVEL_SHIFT`] more.
const LOWEST_SHIFT: u32 = 12;
const LEVEL_SHIFT: u32 = 4;

/// Levels until every length has one.
const LEVELS: usize = ((u64::BITS - LOWEST_SHIFT) / LEVEL_SHIFT) as usize + 1;

/// A range, by the slot it was inserted with.
#[derive(Clone, Copy, Debug)]
struct Node {
    first: u64,
    last: u64,
    /// The next slot of the bucket.
    next: u32,
    level: u8,
}

impl Node {
    const NONE: Self = Self {
        first: 0,
        last: 0,
        next: NIL,
        level: 0,
    };
}

/// Ranges that may overlap, each with a slot of its own below the capacity, in buckets by their first
/// address.
///
/// Long ranges would have to be looked for far before an address. So each has a level by its length,
/// and per level the addresses are cut into stretches as long as its longest range: a range that
/// reaches an address starts in the same stretch or in the one before. To insert or to remove costs
/// a look at one bucket; a search looks at two for each level in use, and at one more for each
/// stretch that what is searched for covers.
#[derive(Debug)]
pub(super) struct Ranges<A: Allocator> {
    /// The first slot of each bucket; a power of two of them.
    buckets: Vec<u32, A>,
    /// By slot; of a slot without a range, anything.
    nodes: Vec<Node, A>,
    /// Ranges of each level.
    counts: [u32; LEVELS],
}

impl<A: Allocator> Ranges<A> {
    /// Room for ranges with slots below `capacity`.
    pub(super) fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let count = capacity.clamp(1, MAX_BUCKETS).next_power_of_two();
        Ok(Self {
            buckets: Vec::from_elem(NIL, count, flags)?,
            nodes: Vec::from_elem(Node::NONE, capacity, flags)?,
            counts: [0; LEVELS],
        })
    }

    /// Adds a range, from its first to its last address, with a `slot` that has none.
    pub(super) fn insert(&mut self, (first, last): (u64, u64), slot: u32) {
        let level = level_of(last - first);
        let bucket = self.bucket(level, first >> shift(level));
        let node = Node {
            first,
            last,
            next: self.buckets[bucket],
            level: level as u8,
        };
        self.nodes[slot as usize] = node;
        self.buckets[bucket] = slot;
        self.counts[level] += 1;
    }

    /// Removes the range that was inserted with `slot`.
    pub(super) fn remove(&mut self, slot: u32) {
        let Node {
            first, next, level, ..
        } = self.nodes[slot as usize];
        let level = usize::from(level);
        let bucket = self.bucket(level, first >> shift(level));
        let mut before = NIL;
        let mut at = self.buckets[bucket];
        while at != slot {
            if at == NIL {
                return;
            }
            (before, at) = (at, self.nodes[at as usize].next);
        }
        match self.nodes.get_mut(before as usize) {
            Some(node) => node.next = next,
            None => self.buckets[bucket] = next,
        }
        self.counts[level] -= 1;
    }

    /// The slots of the ranges that share an address with `first..=last`, each once.
    pub(super) fn overlapping(&self, (first, last): (u64, u64)) -> impl Iterator<Item = u32> {
        let in_use = (0..LEVELS).filter(|&level| self.counts[level] != 0);
        let near = in_use.flat_map(move |level| {
            let from = (first >> shift(level)).saturating_sub(1);
            let stretches = (last >> shift(level)) - from + 1;
            // Where there are more stretches than buckets, all of each bucket is looked at.
            let all = self.buckets.len() as u64;
            let is_far = stretches > all;
            (0..stretches.min(all)).flat_map(move |index| {
                let bucket = match is_far {
                    true => index as usize,
                    false => self.bucket(level, from + index),
                };
                self.chain(bucket).filter(move |(_, node)| {
                    let stretch = node.first >> shift(level);
                    usize::from(node.level) == level && (is_far || stretch == from + index)
                })
            })
        });
        near.filter(move |(_, node)| node.first <= last && first <= node.last)
            .map(|(slot, _)| slot)
    }

    /// The ranges in a bucket.
    fn chain(&self, bucket: usize) -> impl Iterator<Item = (u32, &Node)> {
        let node = move |slot: u32| Some((slot, self.nodes.get(slot as usize)?));
        iter::successors(node(self.buckets[bucket]), move |(_, before)| {
            node(before.next)
        })
    }

    /// The bucket of a stretch of a level.
    fn bucket(&self, level: usize, stretch: u64) -> usize {
        /// An odd number with bits everywhere (2^64 by the golden ratio), whose product with a
        /// stretch has in its high bits something of each of the stretch's.
        const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
        let hash = (stretch ^ (level as u64) << 56).wrapping_mul(SPREAD) >> 32;
        hash as usize & (self.buckets.len() - 1)
    }
}

/// The level of a range whose last address is `span` behind its first.
const fn level_of(span: u64) -> usize {
    let bits = u64::BITS - span.leading_zeros();
    bits.saturating_sub(LOWEST_SHIFT).div_ceil(LEVEL_SHIFT) as usize
}

/// Bytes in a stretch of a level, as a power of two; the highest level has one, of all addresses.
const fn shift(level: usize) -> u32 {
    let shift = LOWEST_SHIFT + LEVEL_SHIFT * level as u32;
    if shift < u64::BITS {
        shift
    } else {
        u64::BITS - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alloc::testing::Host;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const CAPACITY: u32 = 16;

    fn sorted(slots: impl Iterator<Item = u32>) -> std::vec::Vec<u32> {
        let mut slots: std::vec::Vec<_> = slots.collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn every_length_has_a_level() {
        assert_eq!((level_of(0), level_of(4095)), (0, 0));
        assert_eq!(
            (level_of(4096), level_of(0xFFFF), level_of(0x1_0000)),
            (1, 1, 2)
        );
        assert_eq!(level_of(u64::MAX), LEVELS - 1);
        for level in 0..LEVELS - 1 {
            assert_eq!(level_of((1 << shift(level)) - 1), level);
            assert_eq!(level_of(1 << shift(level)), level + 1);
        }
    }

    /// A search and a removal look at a bucket or two, however many ranges there are.
    #[test]
    fn ranges_of_all_machines_sizes_are_spread_over_the_buckets() {
        const COUNT: u32 = 4096;
        for step in [64, 4096, 1 << 16, 1 << 20, 1 << 21] {
            let mut ranges = Ranges::<Host>::with_capacity(COUNT as usize, Flags::KERNEL).unwrap();
            for slot in 0..COUNT {
                let first = 0x4000_0000 + u64::from(slot) * step;
                ranges.insert((first, first + step - 1), slot);
            }
            let longest = (0..ranges.buckets.len()).map(|bucket| ranges.chain(bucket).count());
            // At least as many as one stretch has ranges.
            let in_a_stretch = ((1_u64 << shift(level_of(step - 1))) / step) as usize;
            assert!(longest.max().unwrap() <= 12 * in_a_stretch, "{step:#x}");
        }
    }

    proptest! {
        /// Every query against a look at every range, of few addresses and of all.
        #[test]
        fn overlaps_are_those_that_a_look_at_every_range_finds(
            scale in prop::sample::select(vec![0_u32, 6, 12, 20, 40, 55]),
            steps in prop::collection::vec((0_u64..200, 0_u64..40, any::<bool>()), 1..40),
        ) {
            let mut ranges = Ranges::<Host>::with_capacity(CAPACITY as usize, Flags::KERNEL).unwrap();
            let mut all = BTreeMap::<u32, (u64, u64)>::new();
            for (first, length, insert) in steps {
                let range = (first << scale, ((first + length) << scale) + length);
                let unused = (0..CAPACITY).find(|slot| !all.contains_key(slot));
                match unused {
                    Some(slot) if insert => {
                        ranges.insert(range, slot);
                        all.insert(slot, range);
                    }
                    _ => {
                        let nth = first as usize % all.len().max(1);
                        if let Some(slot) = all.keys().copied().nth(nth) {
                            ranges.remove(slot);
                            all.remove(&slot);
                        }
                    }
                }
                let share = |&(a, b): &(u64, u64)| a <= range.1 && range.0 <= b;
                let expected: std::vec::Vec<_> =
                    all.iter().filter(|(_, other)| share(other)).map(|(slot, _)| *slot).collect();
                prop_assert_eq!(sorted(ranges.overlapping(range)), expected);
            }
            let everything = sorted(ranges.overlapping((0, u64::MAX)));
            prop_assert!(everything.into_iter().eq(all.keys().copied()));
        }
    }
}
