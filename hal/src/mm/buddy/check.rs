//! What may be freed: the checks every free passes, and what they find.

use super::is_free;
use crate::addr::{Pfn, VirtAddr};
use crate::mm::frame::{FrameError, FrameKind, FrameTable};
use crate::mmu::MemoryType;

/// Why a block was not freed or split. Nothing has changed.
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
    /// A frame of the block is not Normal write-back memory again yet.
    #[error("{pfn} is still {memory_type} memory")]
    MemoryType {
        /// The first such frame.
        pfn: Pfn,
        /// Its memory type.
        memory_type: MemoryType,
    },
    /// More bytes than the largest block has.
    #[error("{pfn} has no {size:#x} bytes")]
    Size {
        /// First frame of what was given back.
        pfn: Pfn,
        /// Bytes given back.
        size: usize,
    },
    /// No page starts at the address: it is not in the direct map, or inside a page.
    #[error("no page of the direct map starts at {0}")]
    Address(VirtAddr),
}

/// Whether `pfn` is the first frame of a block of `order` that was handed out as pages, all of it
/// write-back memory.
///
/// # Errors
///
/// [`FreeError`] when it is not. A block that has been merged with others since it was freed is
/// a [`DoubleFree`](FreeError::DoubleFree) too.
#[inline(always)]
pub(in crate::mm) fn check_allocated(
    frames: &FrameTable,
    pfn: Pfn,
    order: u32,
) -> Result<(), FreeError> {
    // A copy, whose fields stay in registers past the atomic reads.
    let table = *frames;
    match table.get_ready(pfn) {
        Some(frame)
            if frame.is_head(FrameKind::Allocated, order)
                && !table.was_ever_claimed(pfn, order) =>
        {
            Ok(())
        }
        _ => examine(frames, pfn, order, &[FrameKind::Allocated]),
    }
}

/// As [`check_allocated`], but the block may be charged to an owner.
///
/// # Errors
///
/// As there.
pub(in crate::mm) fn check_pages(
    frames: &FrameTable,
    pfn: Pfn,
    order: u32,
) -> Result<(), FreeError> {
    const PAGES: [FrameKind; 2] = [FrameKind::Allocated, FrameKind::Accounted];
    examine(frames, pfn, order, &PAGES)
}

/// Whether `pfn` is a whole block of `order` of one of `kinds`: says what is wrong, if anything is.
#[cold]
#[inline(never)]
fn examine(
    frames: &FrameTable,
    pfn: Pfn,
    order: u32,
    kinds: &[FrameKind],
) -> Result<(), FreeError> {
    let frame = frames.get(pfn)?;
    match frame.kind() {
        kind if kinds.contains(&kind) => {}
        _ if is_free(frames, pfn) => return Err(FreeError::DoubleFree(pfn)),
        kind => return Err(FreeError::WrongKind { pfn, kind }),
    }
    if frame.order() != order {
        return Err(FreeError::WrongOrder {
            pfn,
            has: frame.order(),
            given: order,
        });
    }
    match frames.claimed_frame(pfn, order) {
        Some((pfn, memory_type)) => Err(FreeError::MemoryType { pfn, memory_type }),
        None => Ok(()),
    }
}
