//! Page blocks each core keeps at hand, so that most calls take no lock.
//!
//! A core has one short list for each order and migrate type of a zone. An allocation takes the
//! block put back last, whose lines the core's cache still holds; a free puts one back. An empty
//! list is filled from the zone, a full one gives its oldest blocks back, both in batches small
//! enough that the call that pays stays bounded.
//!
//! A list is an array of frame numbers, not a chain through the descriptors: taking a block reads
//! no descriptor. A block on a list is [`FrameKind::PcpFree`], belongs to the core, and does not
//! count as free.
//!
//! The lists are the tasks': interrupt handlers, which have an area of their own, find lists without
//! blocks or room and go to the zone, see [`PerCpu`](crate::sync::PerCpu). So nothing is masked and
//! nothing is atomic.

use super::frame::{FrameKind, FrameTable, Group, PlainFrames};
use super::zone::ZoneKind;
use super::{Gfp, MigrateType, fault};
use crate::addr::Pfn;
#[cfg(target_os = "none")]
use crate::sync::PerCpu;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

/// Largest order that is kept at hand.
pub(super) const MAX_PCP_ORDER: u32 = 3;

/// Number of orders that are kept at hand.
pub(super) const ORDERS: usize = MAX_PCP_ORDER as usize + 1;

/// Most blocks on a list: with the count and the limit they fill a cache line.
pub(super) const MAX_BLOCKS: usize = 14;

/// Most pages on a list, but for the one block it may always hold.
const MAX_PAGES: u32 = 16;

/// A zone lets each list have one page in this many of its own. With eight cores the twelve lists
/// of a core hold 2.4 % of the zone at most.
const ZONE_SHARE: u32 = 4096;

/// Most blocks a list may hold, by zone and order.
pub(crate) type Limits = [[u32; ORDERS]; ZoneKind::COUNT];

/// Most blocks a list of each order may hold in a zone of `managed` pages.
pub(super) fn limits(managed: u32) -> [u32; ORDERS] {
    let pages = (managed / ZONE_SHARE).min(MAX_PAGES);
    core::array::from_fn(|order| (pages >> order).min(MAX_BLOCKS as u32))
}

/// The blocks of one order and migrate type a core has at hand.
///
/// # Invariants
///
/// `len` and `limit` are [`MAX_BLOCKS`] at most.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct List {
    len: Cell<u32>,
    limit: Cell<u32>,
    /// The blocks, oldest first.
    blocks: [Cell<u32>; MAX_BLOCKS],
}

impl List {
    const fn new() -> Self {
        Self {
            len: Cell::new(0),
            limit: Cell::new(0),
            blocks: [const { Cell::new(0) }; MAX_BLOCKS],
        }
    }

    fn set_limit(&self, limit: u32) {
        self.limit.set(limit.min(MAX_BLOCKS as u32));
    }

    /// Blocks on the list.
    #[inline(always)]
    pub(super) fn len(&self) -> u32 {
        self.len.get()
    }

    /// Most blocks there may be on the list.
    #[inline(always)]
    pub(super) fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// Takes the block put on last.
    #[inline(always)]
    pub(super) fn pop(&self) -> Option<Pfn> {
        let len = self.len.get();
        if len == 0 {
            return None;
        }
        self.len.set(len - 1);
        // SAFETY: the index is below `MAX_BLOCKS`, as `len` is that at most.
        let block = unsafe { self.blocks.get_unchecked(len as usize - 1) };
        Some(Pfn::new(block.get()))
    }

    /// Puts a block on, unless there are as many as may be.
    #[inline(always)]
    pub(super) fn push(&self, block: Pfn) -> bool {
        let len = self.len.get();
        if len >= self.limit.get() {
            return false;
        }
        // SAFETY: the index is below `limit`, which is `MAX_BLOCKS` at most.
        unsafe { self.blocks.get_unchecked(len as usize) }.set(block.get());
        self.len.set(len + 1);
        true
    }

    /// Takes blocks off, the oldest first, and hands them to `give` until that returns `false`.
    pub(super) fn give_oldest(&self, mut give: impl FnMut(Pfn) -> bool) {
        let len = self.len.get() as usize;
        let blocks = self.blocks.get(..len).unwrap_or_default();
        let given = match blocks.iter().position(|block| !give(Pfn::new(block.get()))) {
            Some(last) => last + 1,
            None => blocks.len(),
        };
        for (to, from) in blocks.iter().zip(blocks.iter().skip(given)) {
            to.set(from.get());
        }
        self.len.set((len - given) as u32);
    }
}

/// All lists of a core. All zero until [`init`](Self::init): without blocks and without room.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PageLists {
    frames: Cell<PlainFrames>,
    lists: [[List; ORDERS]; Group::COUNT],
}

impl PageLists {
    pub(crate) const fn new() -> Self {
        Self {
            frames: Cell::new(PlainFrames::EMPTY),
            lists: [const { [const { List::new() }; ORDERS] }; Group::COUNT],
        }
    }

    /// Gives the lists room for blocks of `frames`.
    pub(crate) fn init(&self, frames: FrameTable, limits: &Limits) {
        self.frames.set(frames.plain());
        for (zone, limits) in ZoneKind::ALL.into_iter().zip(limits) {
            for (migrate, lists) in MigrateType::ALL.into_iter().zip(self.of_zone(zone)) {
                if migrate.is_ordinary() {
                    let lists = lists.iter().zip(limits);
                    lists.for_each(|(list, limit)| list.set_limit(*limit));
                }
            }
        }
    }

    /// The lists of `zone`, by migrate type and order.
    fn of_zone(&self, zone: ZoneKind) -> &[[List; ORDERS]] {
        let first = usize::from(Group::first_of(zone));
        let end = usize::from(Group::first_of(ZoneKind::Dma32)) + first;
        self.lists.get(first..end).unwrap_or_default()
    }

    /// The list with the group's number `group` for blocks of `order`.
    ///
    /// # Safety
    ///
    /// `group` is below [`Group::COUNT`], and `order` no more than [`MAX_PCP_ORDER`].
    #[inline(always)]
    unsafe fn list_unchecked(&self, group: usize, order: u32) -> &List {
        // In 32 bits, where the order needs no extension.
        let index = (group as u32)
            .wrapping_mul(ORDERS as u32)
            .wrapping_add(order);
        // SAFETY: the index is in bounds, as both numbers are (contract of this function).
        unsafe { self.lists.as_flattened().get_unchecked(index as usize) }
    }

    /// Takes a block of `order` off the list with the group's number `group`.
    ///
    /// # Safety
    ///
    /// As for [`list_unchecked`](Self::list_unchecked).
    #[inline(always)]
    unsafe fn pop(&self, group: usize, order: u32) -> Option<Pfn> {
        // SAFETY: handed on to the caller.
        let block = unsafe { self.list_unchecked(group, order) }.pop()?;
        // SAFETY: a block on a list was handed out before and lies in one pageblock, which is ready.
        let frame = unsafe { self.frames.get().frame(block) };
        frame.set_plain_head(FrameKind::Allocated, order);
        Some(block)
    }

    /// Puts a block in use as pages on its list, if that has room and nothing is wrong or special
    /// about the block.
    #[inline(always)]
    pub(crate) fn push(&self, block: Pfn, order: u32) -> bool {
        if order > MAX_PCP_ORDER {
            return false;
        }
        let Some((frame, group)) = self.frames.get().get_plain(block) else {
            return false;
        };
        // SAFETY: a group's number is below `COUNT`, and the order was compared above.
        let list = unsafe { self.list_unchecked(group.number(), order) };
        let Some(allocated) = frame.as_head(FrameKind::Allocated, order) else {
            return false;
        };
        let pushed = list.push(block);
        if pushed {
            allocated.change_kind(FrameKind::PcpFree);
        }
        pushed
    }
}

/// The lists of a core for one zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZoneLists<'a>(&'a [[List; ORDERS]]);

impl<'a> ZoneLists<'a> {
    /// The list for blocks of `order` and `migrate`, if such blocks are kept at hand.
    #[inline(always)]
    pub(super) fn list(self, order: u32, migrate: MigrateType) -> Option<&'a List> {
        self.0
            .get(migrate as usize)?
            .get(order as usize)
            .filter(|list| list.limit() != 0)
    }

    /// All lists with their orders.
    pub(super) fn iter(self) -> impl Iterator<Item = (u32, &'a List)> {
        self.0.iter().flat_map(|of_type| (0..).zip(of_type))
    }

    /// Pages on the lists.
    pub(super) fn pages(self) -> u32 {
        self.iter().map(|(order, list)| list.len() << order).sum()
    }
}

/// What an allocator whose cores keep blocks at hand tells all of them.
#[derive(Debug)]
pub(crate) struct AtHand {
    /// By the highest zone a request admits: one more than the number of the first list of the zone
    /// it starts with, as long as that zone can spare so much that a first try for a block would
    /// succeed, and no allocation is to fail on purpose; else 0.
    starts: [AtomicU32; ZoneKind::COUNT],
    /// What the lists of a host thread start with.
    #[cfg(not(target_os = "none"))]
    room: std::sync::OnceLock<(FrameTable, Limits)>,
}

impl AtHand {
    /// Nothing to spare, and no room on any list.
    pub(crate) const fn new() -> Self {
        Self {
            starts: [const { AtomicU32::new(0) }; ZoneKind::COUNT],
            #[cfg(not(target_os = "none"))]
            room: std::sync::OnceLock::new(),
        }
    }

    /// Gives the lists of all cores room.
    ///
    /// # Safety
    ///
    /// One core runs, and no other allocator of the machine keeps blocks at hand.
    pub(super) unsafe fn init(&self, frames: FrameTable, limits: &Limits) {
        #[cfg(target_os = "none")]
        // SAFETY: handed on to the caller.
        unsafe {
            crate::sync::percpu::set_page_lists(frames, limits);
        }
        #[cfg(not(target_os = "none"))]
        self.room.get_or_init(|| (frames, *limits));
    }

    /// Says whether `zone`, with which the requests with a bit in `highest` start, can spare blocks.
    pub(super) fn set_plenty(&self, zone: ZoneKind, highest: u8, plenty: bool) {
        let start = u32::from(Group::first_of(zone)) + 1;
        // On the host each thread has injections of its own, and looks itself.
        let is_armed = cfg!(target_os = "none") && fault::is_armed();
        let value = if plenty && !is_armed { start } else { 0 };
        for (index, start) in self.starts.iter().enumerate() {
            if highest & (1 << index) != 0 {
                start.store(value, Ordering::Relaxed);
            }
        }
    }

    /// The lists of the executing core.
    #[cfg(target_os = "none")]
    #[inline(always)]
    pub(super) fn lists(&self) -> &'static PageLists {
        PerCpu::current().page_lists()
    }

    /// The lists of the executing thread for this allocator.
    #[cfg(not(target_os = "none"))]
    pub(super) fn lists(&self) -> &'static PageLists {
        use std::cell::RefCell;
        use std::collections::HashMap;
        thread_local! {
            static OWN: RefCell<HashMap<usize, &'static PageLists>> = RefCell::default();
        }
        OWN.with_borrow_mut(|own| {
            *own.entry(core::ptr::from_ref(self).addr())
                .or_insert_with(|| {
                    let new = Box::leak(Box::new(PageLists::new()));
                    if let Some((frames, limits)) = self.room.get() {
                        new.init(*frames, limits);
                    }
                    new
                })
        })
    }

    /// The lists of the executing core for `zone`.
    #[inline]
    pub(super) fn zone_lists(&self, zone: ZoneKind) -> ZoneLists<'static> {
        ZoneLists(self.lists().of_zone(zone))
    }

    /// Takes a block the executing core has at hand, if the zone has plenty of free memory. For
    /// requests of an order that is kept at hand.
    #[inline(always)]
    pub(super) fn pop(&self, gfp: Gfp, order: u32) -> Option<Pfn> {
        let start = self.starts[gfp.highest_zone() as usize].load(Ordering::Relaxed);
        if start == 0 || order > MAX_PCP_ORDER {
            return None;
        }
        let group = start as usize - 1 + gfp.migrate_type() as usize;
        // SAFETY: `set_plenty` stores one more than the number of a zone's first group or 0, a zone
        // has four groups, and a request has one of the first three types. The order was compared.
        unsafe { self.lists().pop(group, order) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(blocks: impl IntoIterator<Item = u32>) -> List {
        let list = List::new();
        list.set_limit(u32::MAX);
        for block in blocks {
            assert!(list.push(Pfn::new(block)));
        }
        list
    }

    #[test]
    fn the_last_block_in_is_the_first_out() {
        let list = list(1..=14);
        assert!(!list.push(Pfn::new(15)));
        let out: Vec<_> = std::iter::from_fn(|| list.pop()).map(Pfn::get).collect();
        assert_eq!(out, (1..=14).rev().collect::<Vec<_>>());
        assert!(!List::new().push(Pfn::new(1)));
    }

    #[test]
    fn the_oldest_go_until_there_is_enough() {
        let list = list(1..=5);
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
        assert_eq!(limits(1 << 20), [14, 8, 4, 2]);
    }
}
