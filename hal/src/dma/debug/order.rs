//! Ranges in the order of their addresses.

use crate::alloc::{AllocError, Allocator, Flags, Vec};

/// A range of addresses and the slot of what lies there.
#[derive(Clone, Copy, Debug)]
struct Node {
    first: u64,
    last: u64,
    slot: u32,
}

/// Ranges that may overlap, sorted by their first address.
///
/// An array: a step costs a move of what lies behind, at most the whole. There are few ranges at a
/// time, and an array has nothing to balance and nothing to allocate.
#[derive(Debug)]
pub(super) struct Order<A: Allocator> {
    nodes: Vec<Node, A>,
    /// No range here reaches further: `last - first` of the widest since the order was empty.
    widest: u64,
}

impl<A: Allocator> Order<A> {
    pub(super) fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            nodes: Vec::with_capacity(capacity, flags)?,
            widest: 0,
        })
    }

    /// Adds a range, behind those that start where it does. Returns whether there was room.
    pub(super) fn insert(&mut self, (first, last): (u64, u64), slot: u32) -> bool {
        let at = self.nodes.partition_point(|node| node.first <= first);
        let node = Node { first, last, slot };
        if self.nodes.push_within_capacity(node).is_err() {
            return false;
        }
        self.nodes[at..].rotate_right(1);
        self.widest = self.widest.max(last - first);
        true
    }

    /// Removes the range that was inserted with `slot`.
    pub(super) fn remove(&mut self, (first, _): (u64, u64), slot: u32) {
        let from = self.nodes.partition_point(|node| node.first < first);
        let same = self.nodes[from..].iter();
        let same = same.take_while(|node| node.first == first);
        if let Some(offset) = same.into_iter().position(|node| node.slot == slot) {
            // The position was just found.
            let _ = self.nodes.remove(from + offset);
        }
        if self.nodes.is_empty() {
            self.widest = 0;
        }
    }

    /// The slots of the ranges that share an address with `first..=last`, the last to start first.
    pub(super) fn overlapping(&self, (first, last): (u64, u64)) -> impl Iterator<Item = u32> {
        let end = self.nodes.partition_point(|node| node.first <= last);
        let lowest = first.saturating_sub(self.widest);
        let near = self.nodes[..end].iter().rev();
        near.take_while(move |node| node.first >= lowest)
            .filter(move |node| node.last >= first)
            .map(|node| node.slot)
    }

    /// The slots in the order of the first addresses.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().map(|node| node.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alloc::testing::Host;
    use proptest::prelude::*;

    proptest! {
        /// Every query against a look at every range.
        #[test]
        fn overlaps_are_those_that_a_look_at_every_range_finds(
            steps in prop::collection::vec((0_u64..200, 0_u64..40, any::<bool>()), 1..80),
        ) {
            let mut order = Order::<Host>::with_capacity(16, Flags::KERNEL).unwrap();
            let mut all: std::vec::Vec<((u64, u64), u32)> = std::vec::Vec::new();
            for (slot, (first, length, insert)) in (0..).zip(steps) {
                let range = (first, first + length);
                if insert {
                    let has_room = all.len() < 16;
                    prop_assert_eq!(order.insert(range, slot), has_room);
                    if has_room {
                        all.push((range, slot));
                    }
                } else if !all.is_empty() {
                    let (range, slot) = all.remove(first as usize % all.len());
                    order.remove(range, slot);
                }
                let mut found: std::vec::Vec<_> = order.overlapping(range).collect();
                found.sort_unstable();
                let share = |&((a, b), _): &((u64, u64), u32)| a <= range.1 && range.0 <= b;
                let mut expected: std::vec::Vec<_> =
                    all.iter().copied().filter(|entry| share(entry)).map(|entry| entry.1).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
                let starts: std::vec::Vec<_> = order.nodes.iter().map(|node| node.first).collect();
                prop_assert!(starts.is_sorted());
                prop_assert_eq!(starts.len(), all.len());
            }
        }
    }
}
