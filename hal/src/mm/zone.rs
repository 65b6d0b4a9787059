//! Zones: memory by who can reach it.
//!
//! A zone holds its free memory in two forms. Blocks in use at some time are on the lists of a
//! [`Buddy`]. Memory never used is a handful of *virgin* ranges of whole 4 MiB blocks, taken one
//! block at a time when the lists run dry; so the zone is ready at boot without a loop over its
//! memory. A virgin block counts as a free block of [`MAX_ORDER`] in every figure.

use super::buddy::{Buddy, FreeError, Histogram, MAX_BLOCK_PAGES, MAX_ORDER};
use super::frame::FrameTable;
use super::watermark::{Mark, Watermarks};
use super::{Gfp, MigrateType};
use crate::addr::Pfn;
use crate::sync::IrqLock;
use core::fmt;
use core::ops::Range;
use heapless::Vec;

/// Which devices reach a zone's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ZoneKind {
    /// Every DMA master of the board.
    Dma = 0,
    /// Masters with 32-bit addresses.
    Dma32 = 1,
    /// Masters with wider addresses, and the CPU.
    Normal = 2,
}

impl ZoneKind {
    /// Number of zones.
    pub const COUNT: usize = 3;

    /// All zones, from the most reachable memory up.
    pub const ALL: [Self; Self::COUNT] = [Self::Dma, Self::Dma32, Self::Normal];
}

impl fmt::Display for ZoneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dma => "DMA",
            Self::Dma32 => "DMA32",
            Self::Normal => "NORMAL",
        })
    }
}

/// Most ranges of never-used memory a zone keeps.
pub const MAX_RANGES: usize = 32;

/// A zone has more separate ranges of memory than [`MAX_RANGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyRanges;

/// What a zone holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneInfo {
    /// Pages given to the zone at boot.
    pub managed: u32,
    /// Pages free now.
    pub free: u32,
    /// Free blocks per order.
    pub blocks: Histogram,
    /// The watermarks.
    pub watermarks: Watermarks,
}

/// One zone.
#[derive(Debug)]
pub struct Zone {
    inner: IrqLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    buddy: Buddy,
    virgin: Vec<Range<u32>, MAX_RANGES>,
    virgin_blocks: u32,
    managed: u32,
    watermarks: Watermarks,
    /// Pages this zone keeps from requests that may also be served by a higher zone, by the
    /// highest zone the request admits.
    reserve: [u32; ZoneKind::COUNT],
}

impl Zone {
    /// A zone without memory.
    pub(super) const fn new() -> Self {
        Self {
            inner: IrqLock::new(Inner {
                buddy: Buddy::new(),
                virgin: Vec::new(),
                virgin_blocks: 0,
                managed: 0,
                watermarks: Watermarks {
                    min: 0,
                    low: 0,
                    high: 0,
                },
                reserve: [0; ZoneKind::COUNT],
            }),
        }
    }

    /// Gives `range` to the zone.
    ///
    /// # Safety
    ///
    /// As for [`Buddy::add_range`]; no other core uses the frame table yet.
    pub(super) unsafe fn add_range(
        &mut self,
        frames: FrameTable,
        range: Range<Pfn>,
    ) -> Result<(), TooManyRanges> {
        let zone = self.inner.get_mut();
        let (start, end) = (range.start.get(), range.end.get());
        let first = start.next_multiple_of(MAX_BLOCK_PAGES);
        let last = end & !(MAX_BLOCK_PAGES - 1);
        let ragged = if first < last {
            zone.virgin.push(first..last).map_err(|_| TooManyRanges)?;
            zone.virgin_blocks += (last - first) / MAX_BLOCK_PAGES;
            zone.managed += last - first;
            [start..first, last..end]
        } else {
            [start..end, end..end]
        };
        for piece in ragged {
            let piece = Pfn::new(piece.start)..Pfn::new(piece.end);
            // SAFETY: the pieces are disjoint parts of the caller's range.
            zone.managed += unsafe { zone.buddy.add_range(frames, piece, MigrateType::Movable) };
        }
        Ok(())
    }

    /// Sets the watermarks, and the pages kept from requests by the highest zone they admit.
    pub(super) fn set_limits(&mut self, watermarks: Watermarks, reserve: [u32; ZoneKind::COUNT]) {
        let zone = self.inner.get_mut();
        zone.watermarks = watermarks;
        zone.reserve = reserve;
    }

    /// Pages given to the zone at boot.
    pub(super) fn managed(&self) -> u32 {
        self.inner.lock().managed
    }

    /// What the zone holds now.
    pub fn info(&self) -> ZoneInfo {
        let zone = self.inner.lock();
        let mut blocks = zone.buddy.histogram();
        blocks[MAX_ORDER as usize] += zone.virgin_blocks;
        ZoneInfo {
            managed: zone.managed,
            free: zone.free_pages(),
            blocks,
            watermarks: zone.watermarks,
        }
    }

    /// Takes a block if the zone may give it to a request with `gfp` whose highest zone is
    /// `highest`.
    pub(super) fn alloc(
        &self,
        frames: FrameTable,
        gfp: Gfp,
        order: u32,
        highest: ZoneKind,
        mark: Mark,
    ) -> Option<Pfn> {
        let mut zone = self.inner.lock();
        if !zone.admits(gfp, order, highest, mark) {
            return None;
        }
        let migrate = gfp.migrate_type();
        if let Some(pfn) = zone.buddy.take(frames, order, migrate) {
            return Some(pfn);
        }
        zone.open_virgin_block(frames, migrate);
        zone.buddy.alloc(frames, order, migrate)
    }

    /// Gives a block back.
    pub(super) fn free(&self, frames: FrameTable, pfn: Pfn, order: u32) -> Result<(), FreeError> {
        self.inner.lock().buddy.free(frames, pfn, order)
    }
}

impl Inner {
    fn free_pages(&self) -> u32 {
        self.buddy.free_pages() + self.virgin_blocks * MAX_BLOCK_PAGES
    }

    /// Whether enough pages stay free: more than the floor of the request's rights plus what this
    /// zone keeps for requests that no higher zone can serve. The last pages of the block itself
    /// count as gone.
    #[inline]
    fn admits(&self, gfp: Gfp, order: u32, highest: ZoneKind, mark: Mark) -> bool {
        let kept = self.watermarks.kept(gfp, mark) + self.reserve[highest as usize];
        self.free_pages() > kept + ((1 << order) - 1)
    }

    /// Moves one never-used block to the lists of `migrate`.
    #[cold]
    fn open_virgin_block(&mut self, frames: FrameTable, migrate: MigrateType) {
        let Some(range) = self.virgin.last_mut() else {
            return;
        };
        let start = Pfn::new(range.start);
        range.start += MAX_BLOCK_PAGES;
        if range.start == range.end {
            self.virgin.pop();
        }
        self.virgin_blocks -= 1;
        // SAFETY: the block was part of a range given to `add_range` and leaves the virgin ranges
        // here, so it is in no list; it is made of whole pageblocks.
        unsafe {
            self.buddy
                .add_range(frames, start..start + MAX_BLOCK_PAGES, migrate);
        }
    }
}
