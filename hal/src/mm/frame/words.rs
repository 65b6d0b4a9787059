//! The words of a descriptor, and what of them cores look at without the lock of the slab's cache.
//!
//! A free needs to know whose slab the object is in and that it is out of it. It reads both without
//! a lock, on any core, while other objects of the frame come and go under the lock. That is right
//! because whoever frees an object got it from the core that took it out: what that core wrote, or
//! anything later, is what it reads, and nobody clears the object's bit before it is freed. The
//! package `hal-loom` explores the interleavings of this file.

use super::atomic::{AtomicU64, Ordering};

/// The descriptor of one frame: two words whose meaning depends on the first one's low byte.
///
/// | kind | first word | second word |
/// |---|---|---|
/// | a [`FrameKind`](super::FrameKind) | kind 8, order 4, memory type 2, migrate type 3, -, data 32 | next 32, prev 32 |
/// | [`Movable`](super::FrameKind::Movable) | as above, data the owner's number for the block | the owner's number |
/// | a slab cache's tag | tag 8, order 3, listed 1, next 26, prev 26 | objects out of the slab |
///
/// All zero is a tail of Normal write-back memory. The words are atomics so that a lookup through
/// a bad pointer may race with the owner without undefined behaviour; every access is relaxed, and
/// order comes from the lock of the allocator that owns the frame.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub struct Frame {
    pub(super) head: AtomicU64,
    pub(super) body: AtomicU64,
}

pub(super) const ORDER_SHIFT: u32 = 8;

impl Frame {
    #[inline(always)]
    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn body(&self) -> u64 {
        self.body.load(Ordering::Relaxed)
    }

    /// Makes the frame part of a slab of `order` of the cache with `tag`, all objects in it.
    #[inline]
    pub(crate) fn set_slab(&self, tag: u8, order: u32) {
        let head = u64::from(tag) | u64::from(order) << ORDER_SHIFT;
        self.head.store(head, Ordering::Relaxed);
        self.body.store(0, Ordering::Relaxed);
    }

    /// Makes a frame of a slab a tail again.
    #[inline]
    pub(crate) fn clear_slab(&self) {
        self.head.store(0, Ordering::Relaxed);
        self.body.store(0, Ordering::Relaxed);
    }

    /// The tag of the cache whose slab the frame is part of; below [`FIRST_TAG`](super::FIRST_TAG) for any other.
    #[inline(always)]
    pub(crate) fn tag(&self) -> u8 {
        self.head() as u8
    }

    /// In a frame of a slab: a bit for each [`SLOT`](crate::mm::slab::SLOT) of it at which an object
    /// starts that is out of the slab. In any other frame: anything.
    #[inline(always)]
    pub(crate) fn objects_out(&self) -> u64 {
        self.body()
    }

    #[inline(always)]
    pub(crate) fn set_objects_out(&self, out: u64) {
        self.body.store(out, Ordering::Relaxed);
    }
}
