//! The buddy allocator: blocks of `2^order` pages, naturally aligned, split and merged.
//!
//! A block of order `k` starts at a multiple of `2^k` pages and has one buddy, the block whose
//! number differs in bit `k`. Free blocks are kept in one list per order and migrate type, linked
//! through the frame descriptors; the pages themselves are never touched. A word per migrate type
//! says which orders have a block, so that finding one takes no search.
//!
//! A pageblock taken over by another migrate type does not move the free blocks inside it between
//! lists, which would be a loop over its pages: each block remembers the list it is on and goes to
//! the right one when it is next freed. [`Buddy::convert`] does move them, for the types whose
//! free pages are counted apart.

mod check;
mod range;

pub use check::FreeError;
pub(super) use check::check_allocated;
pub(super) use range::block_at;

use super::MigrateType;
use super::frame::{Frame, FrameKind, FrameTable, NO_FRAME, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use crate::addr::Pfn;
use core::ops::Range;

/// Largest order: blocks of 4 MiB.
pub const MAX_ORDER: u32 = 10;

/// Number of orders.
pub const ORDERS: usize = MAX_ORDER as usize + 1;

/// Pages in a block of [`MAX_ORDER`].
pub(super) const MAX_BLOCK_PAGES: u32 = 1 << MAX_ORDER;

/// From this order on, a block taken from another migrate type takes its pageblock along.
const STEAL_ORDER: u32 = PAGEBLOCK_ORDER / 2;

/// Free blocks per order.
pub type Histogram = [u32; ORDERS];

/// The free blocks of one order and migrate type.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    blocks: u32,
}

/// A set of free blocks and the rules to split and merge them.
///
/// Frames of two instances must not be buddies of each other: a boundary between them is aligned
/// to [`MAX_ORDER`].
#[derive(Debug)]
pub(super) struct Buddy {
    lists: [[List; ORDERS]; MigrateType::COUNT],
    /// Bit `k`: the list of order `k` is not empty.
    occupied: [u16; MigrateType::COUNT],
    /// Pages on the lists.
    pages: [u32; MigrateType::COUNT],
}

impl Buddy {
    /// An allocator without memory.
    pub(super) const fn new() -> Self {
        const EMPTY: List = List {
            first: NO_FRAME,
            blocks: 0,
        };
        Self {
            lists: [[EMPTY; ORDERS]; MigrateType::COUNT],
            occupied: [0; MigrateType::COUNT],
            pages: [0; MigrateType::COUNT],
        }
    }

    /// Pages in free blocks. Isolated ones, which nothing is allocated from, do not count.
    #[inline]
    pub(super) fn free_pages(&self) -> u32 {
        let all: u32 = self.pages.iter().sum();
        all - self.pages_of(MigrateType::Isolate)
    }

    /// Pages in free blocks of one migrate type.
    #[inline]
    pub(super) fn pages_of(&self, migrate: MigrateType) -> u32 {
        self.pages[migrate as usize]
    }

    /// Free blocks of one migrate type per order.
    pub(super) fn histogram_of(&self, migrate: MigrateType) -> Histogram {
        self.lists[migrate as usize].map(|list| list.blocks)
    }

    /// Gives `range` to the allocator, as the largest aligned blocks that fit. Returns the number
    /// of pages taken, less than given only where the frame table ends.
    ///
    /// Takes time in proportion to the number of those blocks, not of pages.
    ///
    /// # Safety
    ///
    /// The frames are RAM, belong to the caller, are in no other allocator, and `frames` has
    /// descriptors for them. Where the range's ends cut a pageblock, no other core uses that
    /// pageblock's frames yet.
    pub(super) unsafe fn add_range(
        &mut self,
        frames: FrameTable,
        range: Range<Pfn>,
        migrate: MigrateType,
    ) -> u32 {
        let mut at = range.start.get();
        let end = range.end.get();
        while at < end {
            let fits = (end - at).ilog2();
            let order = at.trailing_zeros().min(fits).min(MAX_ORDER);
            // SAFETY: the block is part of the caller's range.
            if !unsafe { frames.prepare(Pfn::new(at), order, migrate) } {
                break;
            }
            // Merging matters where the range continues one given earlier.
            self.merge(frames, at, order, migrate);
            at += 1 << order;
        }
        at - range.start.get()
    }

    /// Takes the smallest block of `order` or above, and no more of it than order `most`, from the
    /// lists of `migrate` only. Returns the block and its order.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        frames: FrameTable,
        order: u32,
        most: u32,
        migrate: MigrateType,
    ) -> Option<(Pfn, u32)> {
        let fitting = self.occupied[migrate as usize] >> order;
        if fitting == 0 {
            return None;
        }
        let found = order + fitting.trailing_zeros();
        Some(self.cut(frames, found.min(most), found, migrate, migrate))
    }

    /// As [`take`](Self::take), from another migrate type: a large block, which brings its
    /// pageblock along, or else the smallest that fits, so that little of the other type's memory
    /// is disturbed.
    #[cold]
    pub(super) fn steal(
        &mut self,
        frames: FrameTable,
        order: u32,
        most: u32,
        migrate: MigrateType,
    ) -> Option<(Pfn, u32)> {
        let fallbacks = migrate.fallbacks();
        let least = match migrate {
            MigrateType::Movable => STEAL_ORDER.max(order),
            _ => order,
        };
        for found in (least..=MAX_ORDER).rev() {
            for from in fallbacks {
                if self.occupied[*from as usize] & (1 << found) != 0 {
                    let first = Pfn::new(self.lists[*from as usize][found as usize].first);
                    for block in 0..1 << found.saturating_sub(PAGEBLOCK_ORDER) {
                        frames.set_migrate_type(first + block * PAGEBLOCK_PAGES, migrate);
                    }
                    return Some(self.cut(frames, found.min(most), found, *from, migrate));
                }
            }
        }
        fallbacks
            .iter()
            .find_map(|from| self.take(frames, order, most, *from))
    }

    /// Takes the first block of order `found` off the list of `from`, keeps its low `2^order`
    /// pages and puts the rest on the lists of `to`.
    #[inline]
    fn cut(
        &mut self,
        frames: FrameTable,
        order: u32,
        found: u32,
        from: MigrateType,
        to: MigrateType,
    ) -> (Pfn, u32) {
        let pfn = Pfn::new(self.lists[from as usize][found as usize].first);
        let frame = first_frame(frames, pfn.get());
        self.unlink(frames, frame, pfn.get(), found, from);
        if found >= PAGEBLOCK_ORDER && order < PAGEBLOCK_ORDER {
            // SAFETY: the whole first pageblock was free in this allocator.
            unsafe { frames.prepare(pfn, order, to) };
        }
        let mut half = found;
        while half > order {
            half -= 1;
            let upper = pfn.get() + (1 << half);
            self.link(frames, upper, half, to);
        }
        frame.set_head(FrameKind::Allocated, order);
        (pfn, order)
    }

    /// Gives back a block of `2^order` pages, known to be in use, and merges it with its free
    /// buddies. Returns how many times it was merged.
    #[inline(always)]
    pub(super) fn release(&mut self, frames: FrameTable, pfn: Pfn, order: u32) -> u32 {
        self.merge(frames, pfn.get(), order, frames.migrate_type(pfn))
    }

    /// Gives the pageblock that starts at `start` another migrate type and moves the free blocks
    /// in it to the lists of that type. Returns the number of pages moved.
    ///
    /// Takes time in proportion to the number of free blocks in the pageblock.
    pub(super) fn convert(&mut self, frames: FrameTable, start: Pfn, to: MigrateType) -> u32 {
        debug_assert!(start.is_order_aligned(PAGEBLOCK_ORDER));
        self.split_around(frames, start);
        frames.set_migrate_type(start, to);
        let mut moved = 0;
        let mut at = start.get();
        while at < start.get() + PAGEBLOCK_PAGES {
            let free = frames.get(Pfn::new(at)).ok();
            match free.filter(|frame| frame.kind() == FrameKind::Free) {
                Some(frame) => {
                    let order = frame.order();
                    self.unlink(frames, frame, at, order, frame.list_type());
                    // A whole pageblock may now match its neighbour.
                    self.merge(frames, at, order, to);
                    moved += 1 << order;
                    at += 1 << order;
                }
                None => at += 1,
            }
        }
        moved
    }

    /// Cuts a free block larger than a pageblock into pageblocks if `pageblock` is one of them.
    fn split_around(&mut self, frames: FrameTable, pageblock: Pfn) {
        let first = pageblock.get() & !(MAX_BLOCK_PAGES - 1);
        if let Ok(frame) = frames.get(Pfn::new(first))
            && frame.kind() == FrameKind::Free
            && frame.order() == MAX_ORDER
        {
            self.unlink(frames, frame, first, MAX_ORDER, frame.list_type());
            for half in [first, first + PAGEBLOCK_PAGES] {
                let list = frames.migrate_type(Pfn::new(half));
                self.link(frames, half, PAGEBLOCK_ORDER, list);
            }
        }
    }

    /// The first frame of some free block of `migrate`.
    pub(super) fn first_of(&self, migrate: MigrateType) -> Option<Pfn> {
        let occupied = self.occupied[migrate as usize];
        let order = (occupied != 0).then(|| occupied.trailing_zeros())?;
        Some(Pfn::new(self.lists[migrate as usize][order as usize].first))
    }

    /// Merges the block with its free buddies and puts the result on a list. Returns the number of
    /// merges.
    fn merge(&mut self, frames: FrameTable, pfn: u32, order: u32, migrate: MigrateType) -> u32 {
        let start = order;
        let (mut pfn, mut order) = (pfn, order);
        first_frame(frames, pfn).set_kind(FrameKind::Tail);
        while order < MAX_ORDER {
            let buddy = pfn ^ (1 << order);
            let frame = if order < PAGEBLOCK_ORDER {
                // In the pageblock of a block smaller than that, so it has a descriptor.
                first_frame(frames, buddy)
            } else {
                let Ok(frame) = frames.get(Pfn::new(buddy)) else {
                    break;
                };
                frame
            };
            if !frame.is_head(FrameKind::Free, order) {
                break;
            }
            let list = frame.list_type();
            if order >= PAGEBLOCK_ORDER && list != migrate {
                if !(list.is_ordinary() && migrate.is_ordinary()) {
                    break;
                }
                // So that what is cut from the block goes back to the lists it came from.
                frames.set_migrate_type(Pfn::new(buddy), migrate);
            }
            self.unlink(frames, frame, buddy, order, list);
            frame.set_kind(FrameKind::Tail);
            pfn &= buddy;
            order += 1;
        }
        self.link(frames, pfn, order, migrate);
        order - start
    }

    /// Puts a block at the front of its list. Its first descriptor is valid.
    #[inline]
    fn link(&mut self, frames: FrameTable, pfn: u32, order: u32, migrate: MigrateType) {
        let list = &mut self.lists[migrate as usize][order as usize];
        let next = core::mem::replace(&mut list.first, pfn);
        list.blocks += 1;
        let frame = first_frame(frames, pfn);
        frame.set_head(FrameKind::Free, order);
        frame.set_list_type(migrate);
        frame.set_next(next);
        frame.set_prev(NO_FRAME);
        if next != NO_FRAME {
            first_frame(frames, next).set_prev(pfn);
        }
        self.occupied[migrate as usize] |= 1 << order;
        self.pages[migrate as usize] += 1 << order;
    }

    /// Takes a block off its list.
    #[inline]
    fn unlink(
        &mut self,
        frames: FrameTable,
        frame: &Frame,
        pfn: u32,
        order: u32,
        migrate: MigrateType,
    ) {
        let (next, prev) = (frame.next(), frame.prev());
        if next != NO_FRAME {
            first_frame(frames, next).set_prev(prev);
        }
        let list = &mut self.lists[migrate as usize][order as usize];
        list.blocks -= 1;
        if list.first == pfn {
            list.first = next;
            if next == NO_FRAME {
                self.occupied[migrate as usize] &= !(1 << order);
            }
        } else {
            first_frame(frames, prev).set_next(next);
        }
        self.pages[migrate as usize] -= 1 << order;
    }
}

/// The descriptor of the first frame of a block that is free, or of one next to a block smaller
/// than a pageblock. The allocator makes the descriptors valid before it puts a block on a list,
/// and nothing else writes the links.
#[inline(always)]
fn first_frame(frames: FrameTable, pfn: u32) -> &'static Frame {
    // SAFETY: see above; a descriptor stays valid for good.
    unsafe { frames.frame_unchecked(Pfn::new(pfn)) }
}

#[cfg(test)]
mod tests;
