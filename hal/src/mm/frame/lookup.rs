//! Finding a descriptor: the half of the table that only reads.

use super::{Frame, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, PAGEBLOCK_SHIFT};
use crate::addr::{PAGE_SHIFT, Pfn};
use crate::mm::slab::SLOT;
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// What every pageblock without descriptors of its own has: all tails. Never written.
pub(super) static TAILS: [Frame; PAGEBLOCK_PAGES as usize] =
    [const { Frame::new() }; PAGEBLOCK_PAGES as usize];

/// log2 of [`SLOT`].
const SLOT_SHIFT: u32 = SLOT.ilog2();

/// The read side of a [`FrameTable`](super::FrameTable): from a frame's number to its descriptor. Freely copied; the
/// empty one knows no frame.
///
/// # Invariants
///
/// `blocks` points to `count` pointers, each to the 512 initialised descriptors of its pageblock,
/// and then to `count` flag bytes, all for the rest of the program.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct FrameLookup {
    pub(super) blocks: *const AtomicPtr<Frame>,
    pub(super) count: usize,
}

impl FrameLookup {
    pub(crate) const EMPTY: Self = Self {
        blocks: ptr::null(),
        count: 0,
    };

    /// The pointer to the descriptors of pageblock number `block`.
    #[inline(always)]
    pub(super) fn block(&self, block: usize) -> Option<&'static AtomicPtr<Frame>> {
        if block >= self.count {
            return None;
        }
        // SAFETY: the table has `count` pointers for the rest of the program.
        Some(unsafe { &*self.blocks.add(block) })
    }

    #[inline(always)]
    pub(super) fn flags(&self, pfn: Pfn) -> Option<&'static AtomicU8> {
        let block = (pfn.get() >> PAGEBLOCK_ORDER) as usize;
        if block >= self.count {
            return None;
        }
        // SAFETY: `count` flag bytes lie behind the `count` pointers.
        Some(unsafe { &*self.blocks.add(self.count).cast::<AtomicU8>().add(block) })
    }

    /// The descriptors of pageblock number `block`, or the shared tails; `None` above the table.
    #[inline(always)]
    fn descriptors(&self, block: usize) -> Option<*const Frame> {
        // Acquire pairs with the release in `prepare`, which makes the zeroes visible.
        let frames = self.block(block)?.load(Ordering::Acquire);
        // SAFETY: the pointer leads to descriptors.
        unsafe { core::hint::assert_unchecked(!frames.is_null()) };
        Some(frames)
    }

    /// The descriptor of `pfn`, or one of the shared tails; `None` above the table.
    #[inline(always)]
    pub(in crate::mm) fn find(&self, pfn: Pfn) -> Option<&'static Frame> {
        let frames = self.descriptors((pfn.get() >> PAGEBLOCK_ORDER) as usize)?;
        // SAFETY: the pointer leads to 512 descriptors.
        Some(unsafe { &*frames.add((pfn.get() & (PAGEBLOCK_PAGES - 1)) as usize) })
    }

    /// The descriptors of the block of `2^order` pages that `pfn` is part of, at most a pageblock.
    #[inline(always)]
    pub(in crate::mm) fn find_block(&self, pfn: Pfn, order: u32) -> Option<&'static [Frame]> {
        let frames = self.descriptors((pfn.get() >> PAGEBLOCK_ORDER) as usize)?;
        let pages = 1 << order.min(PAGEBLOCK_ORDER);
        let index = pfn.get() & (PAGEBLOCK_PAGES - 1) & !(pages - 1);
        // SAFETY: the pointer leads to 512 descriptors, and `index` is a multiple of `pages`, both
        // powers of two up to 512.
        Some(unsafe { slice::from_raw_parts(frames.add(index as usize), pages as usize) })
    }

    /// The descriptors of the slab that the frame `pfn` is part of.
    #[inline(always)]
    pub(in crate::mm) fn find_slab(&self, pfn: Pfn) -> Option<&'static [Frame]> {
        let frames = self.descriptors((pfn.get() >> PAGEBLOCK_ORDER) as usize)?;
        let index = pfn.get() & (PAGEBLOCK_PAGES - 1);
        // SAFETY: the pointer leads to 512 descriptors.
        let order = unsafe { &*frames.add(index as usize) }.slab_order();
        let pages = 1 << order.min(PAGEBLOCK_ORDER);
        let first = index & !(pages - 1);
        // SAFETY: as in `find_block`.
        Some(unsafe { slice::from_raw_parts(frames.add(first as usize), pages as usize) })
    }

    /// Calls `f` with every frame of a slab of the cache with `tag`. Costs time in proportion to the
    /// memory in use.
    pub(in crate::mm) fn for_each_slab(&self, tag: u8, mut f: impl FnMut(Pfn, &'static Frame)) {
        for block in 0..self.count {
            let Some(pointer) = self.block(block) else {
                return;
            };
            let frames = pointer.load(Ordering::Acquire);
            if ptr::eq(frames, TAILS.as_ptr()) {
                continue;
            }
            for index in 0..PAGEBLOCK_PAGES {
                // SAFETY: the pointer leads to 512 descriptors.
                let frame = unsafe { &*frames.add(index as usize) };
                if frame.tag() == tag {
                    f(Pfn::new(block as u32 * PAGEBLOCK_PAGES + index), frame);
                }
            }
        }
    }

    /// The descriptor of the frame that holds physical address `pa`, and in which [`SLOT`] of the
    /// frame the address is, modulo 64. `None` above the table and in the midst of a slot.
    ///
    /// The descriptor may be one of the shared tails.
    #[inline(always)]
    pub(in crate::mm) fn find_slot(&self, pa: usize) -> Option<(&'static Frame, u32)> {
        // A misaligned address becomes a huge one, so that one comparison does for both.
        let turned = pa.rotate_right(SLOT_SHIFT);
        let block = self.block(turned >> (PAGEBLOCK_SHIFT - SLOT_SHIFT))?;
        // Relaxed suffices: who holds an object got it after the descriptors were made, and what
        // another reader makes of old descriptors or new ones is an error either way.
        let frames = block.load(Ordering::Relaxed);
        // SAFETY: the pointer leads to descriptors.
        unsafe { core::hint::assert_unchecked(!frames.is_null()) };
        let index = turned >> (PAGE_SHIFT - SLOT_SHIFT) & (PAGEBLOCK_PAGES as usize - 1);
        // SAFETY: the pointer leads to 512 descriptors.
        Some((unsafe { &*frames.add(index) }, turned as u32))
    }
}
