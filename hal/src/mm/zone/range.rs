//! A zone's frames by place: lending areas, isolating pageblocks, taking a stretch.
//!
//! Every step holds the zone's lock for a bounded number of blocks, whatever the size of the
//! stretch.

use super::Zone;
use crate::addr::Pfn;
use crate::mm::buddy::{Buddy, block_at};
use crate::mm::frame::{Frame, FrameKind, FrameTable, PAGEBLOCK_PAGES};
use crate::mm::movable::{MovableBlock, OwnerId};
use crate::mm::{FreeError, MigrateType};
use core::ops::Range;

/// Blocks looked at while the lock is held once.
const BATCH: usize = 64;

/// What is at the start of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Found {
    /// Free frames up to this one, which now belong to the caller.
    Taken(Pfn),
    /// A block in use whose owner moves it.
    Movable(MovableBlock),
    /// Something in use that stays where it is.
    InUse,
}

/// The pageblocks of `range`, by their first frames.
fn pageblocks(range: &Range<Pfn>) -> impl Iterator<Item = Pfn> + use<> {
    let first = range.start.get() & !(PAGEBLOCK_PAGES - 1);
    (first..range.end.get())
        .step_by(PAGEBLOCK_PAGES as usize)
        .map(Pfn::new)
}

impl Zone {
    /// Stops allocations from the pageblocks that `range`, of a contiguous memory area, touches: what
    /// is free there, and what will be, is isolated.
    pub(in crate::mm) fn isolate(&self, frames: &FrameTable, range: &Range<Pfn>) {
        self.convert(frames, range, MigrateType::Isolate);
    }

    /// Ends what [`isolate`](Self::isolate) began: the free memory is lent again.
    pub(in crate::mm) fn lend_again(&self, frames: &FrameTable, range: &Range<Pfn>) {
        self.convert(frames, range, MigrateType::Cma);
    }

    fn convert(&self, frames: &FrameTable, range: &Range<Pfn>, to: MigrateType) {
        for block in pageblocks(range) {
            self.change(|free| free.buddy.convert(frames, block, to));
        }
    }

    /// Takes the free frames at the start of `wanted`, which is not empty, or says what is there.
    pub(in crate::mm) fn take_range(&self, frames: &FrameTable, wanted: &Range<Pfn>) -> Found {
        self.change(|free| take_from(frames, &mut free.buddy, wanted))
    }

    /// Gives frames back that [`take_range`](Self::take_range) took.
    ///
    /// # Safety
    ///
    /// The frames are the caller's and consist of tails. Their pageblocks have been cut where the
    /// ends of `range` are not ends of pageblocks.
    pub(in crate::mm) unsafe fn give_range(&self, frames: &FrameTable, range: &Range<Pfn>) {
        for block in pageblocks(range) {
            let start = block.max(range.start);
            let end = (block + PAGEBLOCK_PAGES).min(range.end);
            // SAFETY: a part of the caller's range; pageblocks that are cut are ready.
            unsafe { self.change(|free| free.buddy.give_back(frames, start..end)) };
        }
    }

    /// Notes that the block at `pfn`, which is in use, is moved by `owner` from now on.
    pub(in crate::mm) fn set_movable(
        &self,
        frames: &FrameTable,
        pfn: Pfn,
        owner: OwnerId,
        private: u32,
    ) -> Result<(), FreeError> {
        self.change_kind(frames, pfn, FrameKind::Allocated, |frame| {
            frame.set_movable(owner.0, private);
        })
    }

    /// Ends [`set_movable`](Self::set_movable): the block may be freed.
    pub(in crate::mm) fn clear_movable(
        &self,
        frames: &FrameTable,
        pfn: Pfn,
    ) -> Result<(), FreeError> {
        self.change_kind(frames, pfn, FrameKind::Movable, |frame| {
            frame.set_kind(FrameKind::Allocated);
        })
    }

    fn change_kind(
        &self,
        frames: &FrameTable,
        pfn: Pfn,
        from: FrameKind,
        change: impl FnOnce(&Frame),
    ) -> Result<(), FreeError> {
        let _free = self.free.lock();
        let frame = frames.get(pfn)?;
        match frame.kind() {
            kind if kind == from => {
                change(frame);
                Ok(())
            }
            kind => Err(FreeError::WrongKind { pfn, kind }),
        }
    }
}

/// What is at the start of `wanted`, taken if it is free.
fn take_from(frames: &FrameTable, buddy: &mut Buddy, wanted: &Range<Pfn>) -> Found {
    let mut at = wanted.start;
    for _ in 0..BATCH {
        if at >= wanted.end {
            break;
        }
        let Some((head, frame)) = block_at(frames, at) else {
            break;
        };
        let Some(end) = buddy.claim(frames, head, &(at..wanted.end)) else {
            if at == wanted.start && frame.kind() == FrameKind::Movable {
                return Found::Movable(MovableBlock {
                    pfn: head,
                    order: frame.order(),
                    owner: OwnerId(frame.movable_owner()),
                    private: frame.data(),
                });
            }
            break;
        };
        at = end;
    }
    if at == wanted.start {
        Found::InUse
    } else {
        Found::Taken(at)
    }
}
