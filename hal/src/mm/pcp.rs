//! Page blocks each core keeps at hand, so that most calls take no lock.
//!
//! A core has one short list for each order and migrate type of a zone. An allocation takes the
//! block put back last, whose lines the core's cache still holds; a free puts one back. An empty
//! list is filled from the zone, a full one gives its oldest blocks back, both in batches small
//! enough that the call that pays stays bounded.
//!
//! A list is an array of frame numbers, not a chain through the descriptors: taking a block reads
//! no descriptor. A block on a list is [`FrameKind::PcpFree`](super::FrameKind::PcpFree), belongs
//! to the core, and does not count as free.

use super::MigrateType;
use crate::addr::Pfn;
use crate::sync::{MAX_CPUS, PerCpuCell, PerCpuSlot};

/// Largest order that is kept at hand.
pub(super) const MAX_PCP_ORDER: u32 = 3;

/// Number of orders that are kept at hand.
pub(super) const ORDERS: usize = MAX_PCP_ORDER as usize + 1;

/// Number of migrate types that are kept at hand: the first ones, the ordinary ones.
const TYPES: usize = 3;

/// Most blocks on a list: with the count they fill a cache line.
pub(super) const MAX_BLOCKS: usize = 15;

/// Most pages on a list, but for the one block it may always hold.
const MAX_PAGES: u32 = 16;

/// A zone lets each list have one page in this many of its own. With eight cores the twelve lists
/// of a core hold 2.4 % of the zone at most.
const ZONE_SHARE: u32 = 4096;

/// Most blocks a list of each order may hold in a zone of `managed` pages.
pub(super) fn limits(managed: u32) -> [u32; ORDERS] {
    let pages = (managed / ZONE_SHARE).min(MAX_PAGES);
    core::array::from_fn(|order| (pages >> order).min(MAX_BLOCKS as u32))
}

/// The blocks of one order and migrate type a core has at hand.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct List {
    /// How many of `blocks` are in use, and then the blocks, oldest first: one array, so that a
    /// masked index needs no check.
    slots: [u32; MAX_BLOCKS + 1],
}

/// Keeps an index within a list's slots.
const SLOT_MASK: u32 = MAX_BLOCKS as u32;

const _: () = assert!((MAX_BLOCKS + 1).is_power_of_two());

impl List {
    const fn new() -> Self {
        Self {
            slots: [0; MAX_BLOCKS + 1],
        }
    }

    /// Blocks on the list.
    #[inline(always)]
    pub(super) fn len(&self) -> u32 {
        self.slots[0]
    }

    /// Takes the block put on last.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<Pfn> {
        let len = self.slots[0];
        if len == 0 {
            return None;
        }
        self.slots[0] = len - 1;
        Some(Pfn::new(self.slots[(len & SLOT_MASK) as usize]))
    }

    /// Puts a block on, unless there are `limit` already.
    #[inline(always)]
    pub(super) fn push(&mut self, block: Pfn, limit: u32) -> bool {
        let len = self.slots[0];
        if len >= limit {
            return false;
        }
        self.slots[0] = len + 1;
        self.slots[((len + 1) & SLOT_MASK) as usize] = block.get();
        true
    }

    /// Takes blocks off, the oldest first, and hands them to `give` until that returns `false`.
    pub(super) fn give_oldest(&mut self, mut give: impl FnMut(Pfn) -> bool) {
        let len = self.slots[0] as usize;
        let blocks = self.slots.get(1..=len).unwrap_or_default();
        let given = match blocks.iter().position(|block| !give(Pfn::new(*block))) {
            Some(last) => last + 1,
            None => blocks.len(),
        };
        self.slots.copy_within(1 + given..=len, 1);
        self.slots[0] = (len - given) as u32;
    }
}

/// All lists of a core for one zone.
#[derive(Debug)]
pub(super) struct Lists {
    lists: [[List; ORDERS]; TYPES],
}

impl Lists {
    const fn new() -> Self {
        Self {
            lists: [const { [const { List::new() }; ORDERS] }; TYPES],
        }
    }

    /// The list for blocks of `order` and `migrate`, if such blocks are kept at hand.
    #[inline(always)]
    pub(super) fn list(&mut self, order: u32, migrate: MigrateType) -> Option<&mut List> {
        self.lists
            .get_mut(migrate as usize)?
            .get_mut(order as usize)
    }

    /// All lists with their orders.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut List)> {
        self.lists.iter_mut().flat_map(|of_type| (0..).zip(of_type))
    }

    /// Pages on the lists.
    pub(super) fn pages(&mut self) -> u32 {
        self.iter_mut()
            .map(|(order, list)| list.len() << order)
            .sum()
    }
}

/// The lists of all cores for one zone.
pub(super) type PcpLists = PerCpuCell<Lists>;

/// Empty lists for all cores.
pub(super) const fn pcp_lists() -> PcpLists {
    PerCpuCell::new([const { PerCpuSlot::new(Lists::new()) }; MAX_CPUS])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(blocks: impl IntoIterator<Item = u32>) -> List {
        let mut list = List::new();
        for block in blocks {
            assert!(list.push(Pfn::new(block), MAX_BLOCKS as u32));
        }
        list
    }

    #[test]
    fn the_last_block_in_is_the_first_out() {
        let mut list = list(1..=15);
        assert!(!list.push(Pfn::new(16), MAX_BLOCKS as u32));
        let out: Vec<_> = std::iter::from_fn(|| list.pop()).map(Pfn::get).collect();
        assert_eq!(out, (1..=15).rev().collect::<Vec<_>>());
        assert!(!list.push(Pfn::new(1), 0));
    }

    #[test]
    fn the_oldest_go_until_there_is_enough() {
        let mut list = list(1..=5);
        let mut given = Vec::new();
        list.give_oldest(|block| {
            given.push(block.get());
            given.len() < 2
        });
        assert_eq!(given, [1, 2]);
        assert_eq!((list.len(), list.pop()), (3, Some(Pfn::new(5))));
        list.give_oldest(|_| true);
        assert_eq!((list.len(), list.pop()), (0, None));
    }

    #[test]
    fn lists_are_short_in_small_zones() {
        assert_eq!(limits(2048), [0; 4]);
        assert_eq!(limits(16_384), [4, 2, 1, 0]);
        assert_eq!(limits(1 << 20), [15, 8, 4, 2]);
    }
}
