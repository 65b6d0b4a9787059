//! The buddy allocator: blocks of `2^order` pages, naturally aligned, split and merged.
//!
//! A block of order `k` starts at a multiple of `2^k` pages and has one buddy, the block whose
//! number differs in bit `k`. Free blocks are kept in one list per order and migrate type, linked
//! through the frame descriptors; the pages themselves are never touched. A word per migrate type
//! says which orders have a block, so that finding one takes no search.
//!
//! A pageblock that changes its migrate type does not move the free blocks inside it between
//! lists, which would be a loop over its pages: each block remembers the list it is on and goes to
//! the right one when it is next freed.

use super::MigrateType;
use super::frame::{
    Frame, FrameError, FrameKind, FrameTable, NO_FRAME, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES,
};
use crate::addr::Pfn;
use crate::mmu::MemoryType;
use core::ops::Range;

/// Largest order: blocks of 4 MiB.
pub const MAX_ORDER: u32 = 10;

/// Number of orders.
pub const ORDERS: usize = MAX_ORDER as usize + 1;

/// Pages in a block of [`MAX_ORDER`].
pub(super) const MAX_BLOCK_PAGES: u32 = 1 << MAX_ORDER;

/// From this order on, a block taken from another migrate type takes its pageblock along.
const STEAL_ORDER: u32 = PAGEBLOCK_ORDER / 2;

/// Why a block was not freed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreeError {
    /// The frame is no block an allocator handed out.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The block is free already.
    #[error("{0} is free already")]
    DoubleFree(Pfn),
    /// The frame is in use for something that is freed another way.
    #[error("{pfn} is in use as {kind:?}")]
    WrongKind {
        /// The frame.
        pfn: Pfn,
        /// What it is used for.
        kind: FrameKind,
    },
    /// The block was allocated with another order.
    #[error("{pfn} has order {has}, not {given}")]
    WrongOrder {
        /// First frame of the block.
        pfn: Pfn,
        /// The order it was allocated with.
        has: u32,
        /// The order given.
        given: u32,
    },
    /// The block is not Normal write-back memory again yet.
    #[error("{pfn} is still {memory_type} memory")]
    MemoryType {
        /// First frame of the block.
        pfn: Pfn,
        /// Its memory type.
        memory_type: MemoryType,
    },
}

/// Free blocks per order.
pub type Histogram = [u32; ORDERS];

/// A set of free blocks and the rules to split and merge them.
///
/// The zones have one each, and so has the coherent pool. Frames of two instances with the same
/// kinds must not be buddies of each other: they differ in kind, or a boundary between them is
/// aligned to [`MAX_ORDER`].
#[derive(Debug)]
pub struct Buddy {
    /// First block of each list.
    heads: [[u32; ORDERS]; MigrateType::COUNT],
    /// Bit `k`: the list of order `k` is not empty.
    occupied: [u16; MigrateType::COUNT],
    blocks: Histogram,
    free_pages: u32,
    free: FrameKind,
    allocated: FrameKind,
    /// The memory type of the frames while they are free.
    memory_type: MemoryType,
}

impl Buddy {
    /// An allocator without memory, for pages the zones hand out.
    pub const fn new() -> Self {
        Self::with_kinds(
            FrameKind::Free,
            FrameKind::Allocated,
            MemoryType::NormalWriteBack,
        )
    }

    /// An allocator without memory, for the coherent pool: its frames have their own kinds, so
    /// that `free_pages` refuses them, and stay Normal non-cacheable.
    pub const fn new_pool() -> Self {
        Self::with_kinds(
            FrameKind::PoolFree,
            FrameKind::PoolAllocated,
            MemoryType::NormalNonCacheable,
        )
    }

    const fn with_kinds(free: FrameKind, allocated: FrameKind, memory_type: MemoryType) -> Self {
        Self {
            heads: [[NO_FRAME; ORDERS]; MigrateType::COUNT],
            occupied: [0; MigrateType::COUNT],
            blocks: [0; ORDERS],
            free_pages: 0,
            free,
            allocated,
            memory_type,
        }
    }

    /// Pages in free blocks.
    #[inline]
    pub fn free_pages(&self) -> u32 {
        self.free_pages
    }

    /// Free blocks per order.
    pub fn histogram(&self) -> Histogram {
        self.blocks
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
    pub unsafe fn add_range(
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

    /// Takes a block of `2^order` pages of type `migrate`, splitting a larger one if need be.
    /// Where the type has none left, a block of another type is taken over. `None` if no type the
    /// request may use has a block.
    pub fn alloc(&mut self, frames: FrameTable, order: u32, migrate: MigrateType) -> Option<Pfn> {
        if order > MAX_ORDER {
            return None;
        }
        self.take(frames, order, migrate)
            .or_else(|| self.steal(frames, order, migrate))
    }

    /// As [`alloc`](Self::alloc), from the lists of `migrate` only.
    #[inline]
    pub(super) fn take(
        &mut self,
        frames: FrameTable,
        order: u32,
        migrate: MigrateType,
    ) -> Option<Pfn> {
        let orders = self.occupied[migrate as usize] >> order;
        if orders == 0 {
            return None;
        }
        let found = order + orders.trailing_zeros();
        self.cut(frames, order, found, migrate, migrate)
    }

    /// Takes a block from another migrate type: a large one, which brings its pageblock along, or
    /// else the smallest that fits, so that little of the other type's memory is disturbed.
    #[cold]
    fn steal(&mut self, frames: FrameTable, order: u32, migrate: MigrateType) -> Option<Pfn> {
        let fallbacks = migrate.fallbacks();
        for found in (order..=MAX_ORDER).rev() {
            if found < STEAL_ORDER && migrate == MigrateType::Movable {
                break;
            }
            for from in fallbacks {
                if self.occupied[*from as usize] & (1 << found) != 0 {
                    let first = Pfn::new(self.heads[*from as usize][found as usize]);
                    for block in 0..1 << found.saturating_sub(PAGEBLOCK_ORDER) {
                        frames.set_migrate_type(first + block * PAGEBLOCK_PAGES, migrate);
                    }
                    return self.cut(frames, order, found, *from, migrate);
                }
            }
        }
        fallbacks
            .iter()
            .find_map(|from| self.take(frames, order, *from))
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
    ) -> Option<Pfn> {
        let pfn = Pfn::new(self.heads[from as usize][found as usize]);
        let frame = frames.get(pfn).ok()?;
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
        frame.set_head(self.allocated, order);
        Some(pfn)
    }

    /// Gives back a block of `2^order` pages and merges it with its free buddies.
    ///
    /// # Errors
    ///
    /// [`FreeError`], when `pfn` is not a block of that order that this allocator handed out.
    /// A block that has been merged with others since it was freed counts as
    /// [`WrongKind`](FreeError::WrongKind) with [`FrameKind::Tail`].
    pub fn free(&mut self, frames: FrameTable, pfn: Pfn, order: u32) -> Result<(), FreeError> {
        let frame = frames.get(pfn)?;
        let kind = frame.kind();
        if kind != self.allocated {
            return Err(if kind == self.free {
                FreeError::DoubleFree(pfn)
            } else {
                FreeError::WrongKind { pfn, kind }
            });
        }
        if frame.order() != order {
            return Err(FreeError::WrongOrder {
                pfn,
                has: frame.order(),
                given: order,
            });
        }
        if frame.memory_type() != self.memory_type {
            return Err(FreeError::MemoryType {
                pfn,
                memory_type: frame.memory_type(),
            });
        }
        self.merge(frames, pfn.get(), order, frames.migrate_type(pfn));
        Ok(())
    }

    /// Merges the block with its free buddies and puts the result on a list.
    fn merge(&mut self, frames: FrameTable, pfn: u32, order: u32, migrate: MigrateType) {
        let (mut pfn, mut order) = (pfn, order);
        if let Ok(frame) = frames.get(Pfn::new(pfn)) {
            frame.set_kind(FrameKind::Tail);
        }
        while order < MAX_ORDER {
            let buddy = pfn ^ (1 << order);
            let Ok(frame) = frames.get(Pfn::new(buddy)) else {
                break;
            };
            if frame.kind() != self.free || frame.order() != order {
                break;
            }
            let list = frame.list_type();
            if order >= PAGEBLOCK_ORDER
                && list != migrate
                && !(list.is_ordinary() && migrate.is_ordinary())
            {
                break;
            }
            self.unlink(frames, frame, buddy, order, list);
            frame.set_kind(FrameKind::Tail);
            pfn &= buddy;
            order += 1;
        }
        self.link(frames, pfn, order, migrate);
    }

    /// Puts a block at the front of its list. Its first descriptor is valid.
    #[inline]
    fn link(&mut self, frames: FrameTable, pfn: u32, order: u32, migrate: MigrateType) {
        let Ok(frame) = frames.get(Pfn::new(pfn)) else {
            return;
        };
        let head = &mut self.heads[migrate as usize][order as usize];
        let next = core::mem::replace(head, pfn);
        frame.set_head(self.free, order);
        frame.set_list_type(migrate);
        frame.set_next(next);
        frame.set_prev(NO_FRAME);
        if let Ok(next) = frames.get(Pfn::new(next)) {
            next.set_prev(pfn);
        }
        self.occupied[migrate as usize] |= 1 << order;
        self.blocks[order as usize] += 1;
        self.free_pages += 1 << order;
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
        if let Ok(next) = frames.get(Pfn::new(next)) {
            next.set_prev(prev);
        }
        let head = &mut self.heads[migrate as usize][order as usize];
        if *head == pfn {
            *head = next;
            if next == NO_FRAME {
                self.occupied[migrate as usize] &= !(1 << order);
            }
        } else if let Ok(prev) = frames.get(Pfn::new(prev)) {
            prev.set_next(next);
        }
        self.blocks[order as usize] -= 1;
        self.free_pages -= 1 << order;
    }
}

impl Default for Buddy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
