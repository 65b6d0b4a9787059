//! Free memory by place: what taking a given stretch of frames needs.

use super::{Buddy, MAX_ORDER};
use crate::addr::Pfn;
use crate::mm::frame::{Frame, FrameKind, FrameTable, PAGEBLOCK_PAGES};
use core::ops::Range;

/// The first frame of the block that holds `pfn`, free or in use. `None` for a frame of no block,
/// and inside an allocation that is no block.
pub(in crate::mm) fn block_at(frames: &FrameTable, pfn: Pfn) -> Option<(Pfn, &'static Frame)> {
    (0..=MAX_ORDER).find_map(|order| {
        let head = Pfn::new(pfn.get() & !((1 << order) - 1));
        let frame = frames.get(head).ok()?;
        let holds = match frame.kind() {
            FrameKind::Tail => false,
            // Each frame of a slab says so itself, and no order.
            FrameKind::Slab => head == pfn,
            _ => (pfn.get() - head.get()) >> frame.order() == 0,
        };
        holds.then_some((head, frame))
    })
}

/// Whether `pfn` is part of a free block, on a zone's lists or at hand of a core. Without the locks of
/// both the answer may be an old one.
pub(in crate::mm) fn is_free(frames: &FrameTable, pfn: Pfn) -> bool {
    block_at(frames, pfn)
        .is_some_and(|(_, head)| matches!(head.kind(), FrameKind::Free | FrameKind::PcpFree))
}

impl Buddy {
    /// Takes the free block with first frame `head` off its list and keeps what lies in `wanted`;
    /// the rest goes back. Returns the end of what was kept, or `None` if the block is not free
    /// here.
    ///
    /// What is kept consists of tails.
    pub(in crate::mm) fn claim(
        &mut self,
        frames: &FrameTable,
        head: Pfn,
        wanted: &Range<Pfn>,
    ) -> Option<Pfn> {
        let frame = frames.get(head).ok()?;
        if frame.kind() != FrameKind::Free {
            return None;
        }
        let order = frame.order();
        let end = head + (1 << order);
        self.remove(frames, frame, order);
        for rest in [head..wanted.start, wanted.end..end] {
            // SAFETY: the rest is part of a block that was free here a moment ago, which is made of
            // whole pageblocks or lies in one that is ready.
            unsafe { self.give_back(frames, rest) };
        }
        Some(end.min(wanted.end))
    }

    /// Puts `range`, which consists of tails, on the lists that its pageblocks' types name.
    ///
    /// # Safety
    ///
    /// The frames came from this allocator and belong to the caller. A pageblock that an end of the
    /// range cuts is ready, or all of it belongs to the caller.
    pub(in crate::mm) unsafe fn give_back(&mut self, frames: &FrameTable, range: Range<Pfn>) {
        let mut at = range.start;
        while at < range.end {
            let next = Pfn::new((at.get() | (PAGEBLOCK_PAGES - 1)) + 1).min(range.end);
            // SAFETY: a part of the caller's range, which ends at pageblocks where that does not.
            unsafe { self.add_range(frames, at..next, frames.migrate_type(at)) };
            at = next;
        }
    }
}
