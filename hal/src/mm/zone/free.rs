//! The free memory of a zone, behind its lock.
//!
//! It has two forms. Blocks in use at some time are on the lists of a [`Buddy`]. Memory never used
//! is a handful of *virgin* ranges, which are opened one pageblock at a time when the lists run dry,
//! so that no call pays for more; or a block of 4 MiB at a time for a request larger than that. So
//! the zone is ready at boot without a loop over its memory. Virgin memory counts as free movable
//! blocks of [`MAX_ORDER`] in every figure, and as one of a pageblock where a range starts or ends
//! amid such a block.

use super::{MAX_RANGES, TooManyRanges};
use crate::addr::Pfn;
use crate::mm::buddy::{Buddy, Histogram, MAX_BLOCK_PAGES, MAX_ORDER};
use crate::mm::frame::{FrameTable, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use crate::mm::watermark::{Mark, ignores_marks, is_atomic};
use crate::mm::{Gfp, MigrateType};
use core::ops::Range;
use heapless::Vec;

/// The part of a zone that the reserve for atomic requests may take: one in a hundred pages,
/// rounded up to pageblocks, and nothing if that is less than one.
const HIGHATOMIC_SHARE: u32 = 100;

/// Free memory.
#[derive(Debug)]
pub(super) struct FreeMemory {
    pub(super) buddy: Buddy,
    virgin: Vec<Range<u32>, MAX_RANGES>,
    virgin_pages: u32,
    /// Pageblocks in the reserve for atomic requests of more than one page, and the most there
    /// may be.
    highatomic: u32,
    most_highatomic: u32,
    /// Whether the cores have been told that they may take what they have at hand.
    pub(super) told_plenty: bool,
}

impl FreeMemory {
    pub(super) const fn new() -> Self {
        Self {
            buddy: Buddy::new(),
            virgin: Vec::new(),
            virgin_pages: 0,
            highatomic: 0,
            most_highatomic: 0,
            told_plenty: false,
        }
    }

    /// Adds `range` as memory of type `migrate`; returns the number of pages taken.
    ///
    /// # Safety
    ///
    /// As for [`Buddy::add_range`]; no other core uses the frame table yet.
    pub(super) unsafe fn add_range(
        &mut self,
        frames: &FrameTable,
        range: Range<Pfn>,
        migrate: MigrateType,
    ) -> Result<u32, TooManyRanges> {
        let (start, end) = (range.start.get(), range.end.get());
        let first = start.next_multiple_of(MAX_BLOCK_PAGES);
        let last = end & !(MAX_BLOCK_PAGES - 1);
        let mut taken = 0;
        // A virgin block gets its type when it is first used.
        let ragged = if first < last && migrate == MigrateType::Movable {
            self.virgin.push(first..last).map_err(|_| TooManyRanges)?;
            self.virgin_pages += last - first;
            taken += last - first;
            [start..first, last..end]
        } else {
            [start..end, end..end]
        };
        for piece in ragged {
            let piece = Pfn::new(piece.start)..Pfn::new(piece.end);
            // SAFETY: the pieces are disjoint parts of the caller's range.
            taken += unsafe { self.buddy.add_range(frames, piece, migrate) };
        }
        Ok(taken)
    }

    /// Bounds the reserve for atomic requests of a zone of `managed` pages.
    pub(super) fn limit_highatomic(&mut self, managed: u32) {
        let share = managed / HIGHATOMIC_SHARE;
        self.most_highatomic = if share < PAGEBLOCK_PAGES {
            0
        } else {
            share.div_ceil(PAGEBLOCK_PAGES)
        };
    }

    /// Free pages, without isolated ones.
    #[inline]
    pub(super) fn pages(&self) -> u32 {
        self.buddy.free_pages() + self.virgin_pages
    }

    /// Pages on the lists of one migrate type.
    pub(super) fn pages_of(&self, migrate: MigrateType) -> u32 {
        self.buddy.pages_of(migrate)
    }

    /// Free pages any request may be given.
    #[inline]
    pub(super) fn spare(&self) -> u32 {
        self.buddy.ordinary_pages() + self.virgin_pages
    }

    /// Free pages that count for a request: those of contiguous memory areas only if it is
    /// movable, those of the reserve for atomic requests only if it has a right to a reserve.
    #[inline]
    pub(super) fn usable(&self, gfp: Gfp, mark: Mark) -> u32 {
        let mut usable = self.spare();
        if gfp.migrate_type() == MigrateType::Movable {
            usable += self.pages_of(MigrateType::Cma);
        }
        if mark == Mark::Min && gfp.contains(Gfp::HIGH) {
            usable += self.pages_of(MigrateType::HighAtomic);
        }
        usable
    }

    /// Free blocks of one migrate type per order.
    pub(super) fn histogram_of(&self, migrate: MigrateType) -> Histogram {
        let mut blocks = self.buddy.histogram_of(migrate);
        if migrate == MigrateType::Movable {
            for range in &self.virgin {
                let odd = range.len() as u32 & PAGEBLOCK_PAGES != 0;
                blocks[PAGEBLOCK_ORDER as usize] += u32::from(odd);
                blocks[MAX_ORDER as usize] += range.len() as u32 / MAX_BLOCK_PAGES;
            }
        }
        blocks
    }

    /// Takes a block of `order` for a request, or more of what is found, up to order `most`.
    /// Returns the block and its order.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        frames: &FrameTable,
        gfp: Gfp,
        order: u32,
        most: u32,
        mark: Mark,
    ) -> Option<(Pfn, u32)> {
        let atomic = mark == Mark::Min && is_atomic(gfp);
        if atomic && order > 0 {
            return self.take_atomic(frames, gfp, order);
        }
        if let Some(taken) = self.take_own(frames, gfp.migrate_type(), order, most) {
            return Some(taken);
        }
        // One page now is worth more than several later, and what frees memory has a right to all.
        let has_reserve = atomic || mark == Mark::Min && ignores_marks(gfp);
        self.take_other(frames, gfp.migrate_type(), order, most)
            .or_else(|| {
                let reserve = MigrateType::HighAtomic;
                has_reserve.then(|| self.buddy.take(frames, order, most, reserve))?
            })
    }

    /// Takes a block for an atomic request of more than one page that found the zone low: from the
    /// reserve, or else from elsewhere, and then the pageblock joins the reserve.
    #[cold]
    fn take_atomic(&mut self, frames: &FrameTable, gfp: Gfp, order: u32) -> Option<(Pfn, u32)> {
        if let Some(taken) = self
            .buddy
            .take(frames, order, order, MigrateType::HighAtomic)
        {
            return Some(taken);
        }
        let migrate = gfp.migrate_type();
        let taken = self
            .take_own(frames, migrate, order, order)
            .or_else(|| self.take_other(frames, migrate, order, order))?;
        let first = Pfn::new(taken.0.get() & !(PAGEBLOCK_PAGES - 1));
        for block in 0..1 << order.saturating_sub(PAGEBLOCK_ORDER) {
            let start = first + block * PAGEBLOCK_PAGES;
            if self.highatomic < self.most_highatomic && frames.migrate_type(start).is_ordinary() {
                self.buddy.convert(frames, start, MigrateType::HighAtomic);
                self.highatomic += 1;
            }
        }
        Some(taken)
    }

    /// Takes a block from memory never used, of a contiguous memory area or of another type.
    #[inline(never)]
    fn take_other(
        &mut self,
        frames: &FrameTable,
        migrate: MigrateType,
        order: u32,
        most: u32,
    ) -> Option<(Pfn, u32)> {
        self.open_virgin(frames, migrate, order);
        if let Some(taken) = self.buddy.take(frames, order, most, migrate) {
            return Some(taken);
        }
        if migrate == MigrateType::Movable
            && let Some(taken) = self.buddy.take(frames, order, most, MigrateType::Cma)
        {
            return Some(taken);
        }
        self.buddy.steal(frames, order, most, migrate)
    }

    /// Takes a block from the lists of `migrate`. A movable block comes from a contiguous memory
    /// area as long as these have more than half of the free memory, so that both fill up alike.
    #[inline(always)]
    pub(super) fn take_own(
        &mut self,
        frames: &FrameTable,
        migrate: MigrateType,
        order: u32,
        most: u32,
    ) -> Option<(Pfn, u32)> {
        if migrate == MigrateType::Movable
            && self.pages_of(MigrateType::Cma) > self.pages() / 2
            && let Some(taken) = self.buddy.take(frames, order, most, MigrateType::Cma)
        {
            return Some(taken);
        }
        self.buddy.take(frames, order, most, migrate)
    }

    /// Gives back a block in use as pages. Returns how many times it was merged.
    #[inline(always)]
    pub(super) fn give(&mut self, frames: &FrameTable, block: Pfn, order: u32) -> u32 {
        let merges = self.buddy.release(frames, block, order);
        if order + merges == PAGEBLOCK_ORDER {
            self.complete(frames, block);
        }
        merges
    }

    /// Opens the virgin pageblock that keeps the free one of `block` from being a larger block.
    #[cold]
    fn complete(&mut self, frames: &FrameTable, block: Pfn) {
        let start = block.get() & !(PAGEBLOCK_PAGES - 1);
        let buddy = start ^ PAGEBLOCK_PAGES;
        if start < buddy && self.virgin.last().is_some_and(|range| range.start == buddy) {
            let migrate = match frames.migrate_type(block) {
                ordinary if ordinary.is_ordinary() => ordinary,
                // The reserve grows only by what is counted. The two merge when it gives up its own.
                _ => MigrateType::Movable,
            };
            self.open_virgin(frames, migrate, PAGEBLOCK_ORDER);
        }
    }

    /// Dissolves pageblocks of the reserve that have free memory until no more than `keep` are
    /// left. `false` if there was none to dissolve.
    pub(super) fn unreserve_highatomic(&mut self, frames: &FrameTable, keep: u32) -> bool {
        let before = self.highatomic;
        while self.highatomic > keep
            && let Some(block) = self.buddy.first_of(MigrateType::HighAtomic)
        {
            let start = Pfn::new(block.get() & !(PAGEBLOCK_PAGES - 1));
            // What is in use there is the kernel's.
            self.buddy.convert(frames, start, MigrateType::Unmovable);
            self.highatomic -= 1;
        }
        self.highatomic < before
    }

    /// Moves never-used memory to the lists of `migrate`: a pageblock, or if a block of `order` is
    /// larger, all up to the end of the next such block.
    #[cold]
    fn open_virgin(&mut self, frames: &FrameTable, migrate: MigrateType, order: u32) {
        let Some(range) = self.virgin.last_mut() else {
            return;
        };
        let start = range.start;
        let end = if order <= PAGEBLOCK_ORDER {
            start + PAGEBLOCK_PAGES
        } else {
            start.next_multiple_of(MAX_BLOCK_PAGES) + MAX_BLOCK_PAGES
        };
        let end = end.min(range.end);
        range.start = end;
        if end == range.end {
            self.virgin.pop();
        }
        self.virgin_pages -= end - start;
        // SAFETY: the memory was part of a range given to `add_range` and leaves the virgin ranges
        // here, so it is in no list; it is made of whole pageblocks.
        unsafe {
            self.buddy
                .add_range(frames, Pfn::new(start)..Pfn::new(end), migrate);
        }
    }
}
