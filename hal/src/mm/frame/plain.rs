//! Blocks about which nothing is special: what the fast paths of pages at hand ask.

use super::flags::Group;
use super::{Frame, PAGEBLOCK_ORDER};
use crate::addr::Pfn;
use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering};

/// What the fast paths of pages at hand need of a [`FrameTable`](super::FrameTable). Freely copied; the empty one knows
/// no frame.
///
/// # Invariants
///
/// `flags` points to `count` flag bytes, and `frames` to where the descriptor of frame 0 is or would
/// be, for the rest of the program.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct PlainFrames {
    pub(super) flags: *const AtomicU8,
    pub(super) count: usize,
    pub(super) frames: *const Frame,
}

impl PlainFrames {
    pub(in crate::mm) const EMPTY: Self = Self {
        flags: ptr::null(),
        count: 0,
        frames: ptr::null(),
    };

    /// The descriptor of `pfn` and the group of its pageblock, if that has descriptors, all of it
    /// has always been write-back memory and its type is an ordinary one, or the reserve for atomic
    /// requests, for which no list has room.
    #[inline(always)]
    pub(in crate::mm) fn get_plain(&self, pfn: Pfn) -> Option<(&'static Frame, Group)> {
        let block = (pfn.get() >> PAGEBLOCK_ORDER) as usize;
        if block >= self.count {
            return None;
        }
        // SAFETY: there are `count` flag bytes for the rest of the program.
        let flags = unsafe { &*self.flags.add(block) };
        // Acquire pairs with the release in `prepare`, which makes the zeroes visible.
        let flags = flags.load(Ordering::Acquire);
        if usize::from(flags) >= Group::COUNT {
            return None;
        }
        // SAFETY: the flags of a pageblock without descriptors are `UNTOUCHED` or `SET_ASIDE`, which
        // are more than any group's number.
        Some((unsafe { self.frame(pfn) }, Group(flags)))
    }

    /// The descriptor of `pfn`, whose pageblock is known to have descriptors.
    ///
    /// # Safety
    ///
    /// As for [`FrameTable::frame_unchecked`](super::FrameTable::frame_unchecked).
    #[inline(always)]
    pub(in crate::mm) unsafe fn frame(&self, pfn: Pfn) -> &'static Frame {
        // `wrapping_add`, because the array need not begin with frame 0.
        let frame = self.frames.wrapping_add(pfn.get() as usize);
        // SAFETY: the descriptor is backed by memory (contract of `FrameTable::new`) and initialised
        // (the caller's contract), for the rest of the program; hence not null.
        unsafe {
            core::hint::assert_unchecked(!frame.is_null());
            &*frame
        }
    }
}
