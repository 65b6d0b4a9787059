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

mod audit;
mod check;
mod range;

pub use audit::ListError;
pub use check::FreeError;
pub(super) use check::{check_allocated, check_pages};
pub(super) use range::{block_at, is_free};

use super::MigrateType;
use super::frame::{Frame, FrameKind, FrameTable, NO_FRAME, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use crate::addr::Pfn;
use core::ops::Range;

/// Largest order: blocks of 4 MiB.
pub const MAX_ORDER: u32 = 10;

/// Number of orders.
pub const ORDERS: usize = MAX_ORDER as usize + 1;

// Two pageblocks at most make a block.
const _: () = assert!(MAX_ORDER == PAGEBLOCK_ORDER + 1);

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
        sum(&self.pages) - self.pages_of(MigrateType::Isolate)
    }

    /// Pages in free blocks that any request may be given.
    #[inline]
    pub(super) fn ordinary_pages(&self) -> u32 {
        let [unmovable, movable, reclaimable, ..] = self.pages;
        sum(&[unmovable, movable, reclaimable])
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
        frames: &FrameTable,
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
        frames: &FrameTable,
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
        frames: &FrameTable,
        order: u32,
        most: u32,
        migrate: MigrateType,
    ) -> Option<(Pfn, u32)> {
        let fallbacks = migrate.fallbacks();
        let least = match migrate {
            MigrateType::Movable => STEAL_ORDER.max(order),
            _ => order,
        };
        let occupied = |from: &MigrateType| u32::from(self.occupied[*from as usize]) >> least;
        let any = fallbacks.iter().fold(0, |any, from| any | occupied(from));
        if let Some(above) = any.checked_ilog2()
            && let Some(from) = fallbacks.iter().find(|from| occupied(from) >> above != 0)
        {
            let found = least + above;
            let first = Pfn::new(self.lists[*from as usize][found as usize].first);
            for block in 0..1 << found.saturating_sub(PAGEBLOCK_ORDER) {
                frames.set_migrate_type(first + block * PAGEBLOCK_PAGES, migrate);
            }
            return Some(self.cut(frames, found.min(most), found, *from, migrate));
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
        frames: &FrameTable,
        order: u32,
        found: u32,
        from: MigrateType,
        to: MigrateType,
    ) -> (Pfn, u32) {
        let pfn = self.lists[from as usize][found as usize].first;
        let frame = first_frame(frames, pfn);
        self.unlink(frames, frame, found, from);
        self.pages[from as usize] -= 1 << found;
        if found > order {
            for half in (order..found).rev() {
                self.link(frames, pfn | 1 << half, half, to);
            }
            self.pages[to as usize] += (1 << found) - (1 << order);
        }
        frame.set_plain_head(FrameKind::Allocated, order);
        (Pfn::new(pfn), order)
    }

    /// Gives back a block of `2^order` pages, known to be in use, and merges it with its free
    /// buddies. Returns how many times it was merged.
    #[inline(always)]
    pub(super) fn release(&mut self, frames: &FrameTable, pfn: Pfn, order: u32) -> u32 {
        self.merge(frames, pfn.get(), order, frames.migrate_type(pfn))
    }

    /// Gives the pageblock that starts at `start` another migrate type and moves the free blocks
    /// in it to the lists of that type. Returns the number of pages moved.
    ///
    /// Takes time in proportion to the pageblock's free blocks and its pages in use: a block in use
    /// does not say where it ends, so its frames are looked at one by one.
    pub(super) fn convert(&mut self, frames: &FrameTable, start: Pfn, to: MigrateType) -> u32 {
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
                    self.remove(frames, frame, order);
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
    fn split_around(&mut self, frames: &FrameTable, pageblock: Pfn) {
        let first = pageblock.get() & !(MAX_BLOCK_PAGES - 1);
        if let Ok(frame) = frames.get(Pfn::new(first))
            && frame.kind() == FrameKind::Free
            && frame.order() == MAX_ORDER
        {
            self.remove(frames, frame, MAX_ORDER);
            for half in [first, first + PAGEBLOCK_PAGES] {
                let list = frames.migrate_type(Pfn::new(half));
                self.link(frames, half, PAGEBLOCK_ORDER, list);
                self.pages[list as usize] += PAGEBLOCK_PAGES;
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
    fn merge(&mut self, frames: &FrameTable, pfn: u32, order: u32, migrate: MigrateType) -> u32 {
        let (mut at, mut merged) = (pfn, order);
        first_frame(frames, pfn).set_tail();
        self.pages[migrate as usize] += 1 << order;
        while merged < PAGEBLOCK_ORDER {
            let buddy = at ^ 1 << merged;
            // In the pageblock of a block smaller than that, so it has a descriptor.
            let frame = first_frame(frames, buddy);
            let Some(list) = frame.as_free(merged) else {
                break;
            };
            self.absorb(frames, frame, merged, list, migrate);
            at &= buddy;
            merged += 1;
        }
        if merged == PAGEBLOCK_ORDER && self.absorb_pageblock(frames, at ^ PAGEBLOCK_PAGES, migrate)
        {
            at &= !PAGEBLOCK_PAGES;
            merged += 1;
        }
        self.link(frames, at, merged, migrate);
        merged - order
    }

    /// Takes the pageblock at `pfn` off its list, for a block of `migrate` beside it, if it is free
    /// and may be merged with that. Whether it was.
    fn absorb_pageblock(&mut self, frames: &FrameTable, pfn: u32, migrate: MigrateType) -> bool {
        let Some(frame) = frames.get_ready(Pfn::new(pfn)) else {
            return false;
        };
        let Some(list) = frame.as_free(PAGEBLOCK_ORDER) else {
            return false;
        };
        if list != migrate {
            if !(list.is_ordinary() && migrate.is_ordinary()) {
                return false;
            }
            // So that what is cut from the block goes back to the lists it came from.
            frames.set_migrate_type(Pfn::new(pfn), migrate);
        }
        self.absorb(frames, frame, PAGEBLOCK_ORDER, list, migrate);
        true
    }

    /// Takes a free block off the list of `from`, as part of a block that `to` gets.
    #[inline(always)]
    fn absorb(
        &mut self,
        frames: &FrameTable,
        frame: &Frame,
        order: u32,
        from: MigrateType,
        to: MigrateType,
    ) {
        self.unlink(frames, frame, order, from);
        if from != to {
            self.pages[from as usize] -= 1 << order;
            self.pages[to as usize] += 1 << order;
        }
        frame.set_tail();
    }

    /// Takes a free block out of the allocator.
    fn remove(&mut self, frames: &FrameTable, frame: &Frame, order: u32) {
        let list = frame.list_type();
        self.unlink(frames, frame, order, list);
        self.pages[list as usize] -= 1 << order;
        frame.set_tail();
    }

    /// Puts a block at the front of its list. Its pages are counted by the caller.
    #[inline(always)]
    fn link(&mut self, frames: &FrameTable, pfn: u32, order: u32, migrate: MigrateType) {
        let list = &mut self.lists[migrate as usize][order as usize];
        let next = core::mem::replace(&mut list.first, pfn);
        list.blocks += 1;
        first_frame(frames, pfn).set_free(order, migrate, next);
        if next != NO_FRAME {
            first_frame(frames, next).set_prev(pfn);
        }
        self.occupied[migrate as usize] |= 1 << order;
    }

    /// Takes a block off its list. Its pages are counted by the caller.
    #[inline(always)]
    fn unlink(&mut self, frames: &FrameTable, frame: &Frame, order: u32, migrate: MigrateType) {
        let (next, prev) = frame.links();
        if next != NO_FRAME {
            first_frame(frames, next).set_prev(prev);
        }
        let list = &mut self.lists[migrate as usize][order as usize];
        list.blocks -= 1;
        if prev == NO_FRAME {
            list.first = next;
            if next == NO_FRAME {
                self.occupied[migrate as usize] &= !(1 << order);
            }
        } else {
            first_frame(frames, prev).set_next(next);
        }
    }
}

/// The sum of counts of different frames. It needs no check: frames are numbered by a `u32`.
#[inline(always)]
fn sum(pages: &[u32]) -> u32 {
    pages.iter().fold(0, |sum, pages| sum.wrapping_add(*pages))
}

/// The descriptor of the first frame of a block that is free, or of one next to a block smaller
/// than a pageblock. The allocator makes the descriptors valid before it puts a block on a list,
/// and nothing else writes the links.
#[inline(always)]
fn first_frame(frames: &FrameTable, pfn: u32) -> &'static Frame {
    // SAFETY: see above; a descriptor stays valid for good.
    unsafe { frames.frame_unchecked(Pfn::new(pfn)) }
}

#[cfg(test)]
mod tests;
