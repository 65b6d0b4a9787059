//! Page frame descriptors: 16 bytes that say what each frame of RAM is used for.
//!
//! The descriptors form one array indexed by frame number. Its memory is garbage at boot, and
//! clearing it would cost time in proportion to RAM. So each [pageblock](PAGEBLOCK_ORDER) has one
//! state byte, zero at boot, that says which of its descriptors mean anything:
//!
//! ```text
//! untouched --> head: only the first descriptor is valid, the others count as tails
//!     |   |       |
//!     |   +-------+--> ready: all 512 descriptors are valid
//!     +-> set aside: no descriptor is valid; the state says the memory type of all frames
//! ```
//!
//! A pageblock becomes ready when a block smaller than it is first cut from it. It is set aside
//! at boot for memory no page allocator ever owns, which costs one store a pageblock. A lookup reads the
//! state before the descriptor, so any frame number, even one computed from a wild pointer, has an
//! answer.

mod table;

pub use table::FrameTable;

use super::MigrateType;
use super::slab::MAX_SLAB_ORDER;
use crate::addr::{PAGE_SHIFT, Pfn};
use crate::mmu::MemoryType;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// log2 of the pages in a pageblock (2 MiB), the unit of migrate types and of lazy initialisation.
pub const PAGEBLOCK_ORDER: u32 = 9;

/// Pages in a pageblock.
pub(super) const PAGEBLOCK_PAGES: u32 = 1 << PAGEBLOCK_ORDER;

/// log2 of the bytes in a pageblock.
const PAGEBLOCK_SHIFT: u32 = PAGEBLOCK_ORDER + PAGE_SHIFT;

/// Marks the end of a list of frames. No frame has this number: physical addresses end at 2^40.
pub(super) const NO_FRAME: u32 = u32::MAX;

/// What a frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Not the first frame of a block, or never given to an allocator.
    Tail = 0,
    /// First frame of a block on a zone's free lists.
    Free = 1,
    /// First frame of a block that `alloc_pages` handed out.
    Allocated = 2,
    /// Any frame of a slab.
    Slab = 3,
    /// First frame of a block that `kmalloc` handed out whole.
    LargeObject = 4,
    /// First frame of a free block of the coherent pool.
    PoolFree = 5,
    /// First frame of a block of the coherent pool that is in use.
    PoolAllocated = 6,
}

impl FrameKind {
    const fn from_u8(kind: u8) -> Self {
        match kind {
            1 => Self::Free,
            2 => Self::Allocated,
            3 => Self::Slab,
            4 => Self::LargeObject,
            5 => Self::PoolFree,
            6 => Self::PoolAllocated,
            _ => Self::Tail,
        }
    }
}

/// The descriptor of one frame.
///
/// All zero is a tail of Normal write-back memory. The fields are atomics so that a lookup through
/// a bad pointer may race with the owner without undefined behaviour; every access is relaxed, and
/// order comes from the lock of the allocator that owns the frame.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub struct Frame {
    kind: AtomicU8,
    /// Order of the block or slab.
    order: AtomicU8,
    /// Migrate type of the free list; in a slab, the cache's number.
    detail: AtomicU8,
    memory_type: AtomicU8,
    /// Links of the list the block or slab is on, frame numbers.
    next: AtomicU32,
    prev: AtomicU32,
    /// In the first frame of a slab: the state of its objects.
    data: AtomicU32,
}

const _: () = assert!(size_of::<Frame>() == 16);
// A slab order is read by masking, see `slab_order`.
const _: () = assert!((MAX_SLAB_ORDER + 1).is_power_of_two());

impl Frame {
    /// What the frame is used for.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        FrameKind::from_u8(self.kind.load(Ordering::Relaxed))
    }

    /// The order of the block that starts here, or of the slab. Meaningless in a tail.
    #[inline]
    pub fn order(&self) -> u32 {
        u32::from(self.order.load(Ordering::Relaxed))
    }

    /// The type of memory the frame is mapped as.
    #[inline]
    pub fn memory_type(&self) -> MemoryType {
        MemoryType::from_index(self.memory_type.load(Ordering::Relaxed))
            .unwrap_or(MemoryType::NormalWriteBack)
    }

    /// The migrate type of the list a free block is on.
    #[inline]
    pub(super) fn list_type(&self) -> MigrateType {
        MigrateType::from_index(self.detail.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn set_list_type(&self, migrate: MigrateType) {
        self.detail.store(migrate as u8, Ordering::Relaxed);
    }

    /// Makes the frame the first of a block.
    #[inline]
    pub(super) fn set_head(&self, kind: FrameKind, order: u32) {
        self.set_kind(kind);
        self.order.store(order as u8, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn set_kind(&self, kind: FrameKind) {
        self.kind.store(kind as u8, Ordering::Relaxed);
    }

    /// Makes the frame part of a slab of `order`, of the cache with number `cache`.
    #[inline]
    pub(super) fn set_slab(&self, order: u32, cache: u8) {
        self.order.store(order as u8, Ordering::Relaxed);
        self.detail.store(cache, Ordering::Relaxed);
        self.set_kind(FrameKind::Slab);
    }

    /// The order of the slab the frame is part of; at most [`MAX_SLAB_ORDER`] whatever the frame.
    #[inline]
    pub(super) fn slab_order(&self) -> u32 {
        self.order() & MAX_SLAB_ORDER
    }

    /// The number of the cache the slab belongs to.
    #[inline]
    pub(super) fn slab_cache(&self) -> u8 {
        self.detail.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn next(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn prev(&self) -> u32 {
        self.prev.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_next(&self, pfn: u32) {
        self.next.store(pfn, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn set_prev(&self, pfn: u32) {
        self.prev.store(pfn, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn data(&self) -> u32 {
        self.data.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_data(&self, data: u32) {
        self.data.store(data, Ordering::Relaxed);
    }
}

/// Why a frame number does not lead to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The number is above the last frame of RAM.
    #[error("{0} lies above RAM")]
    OutOfRange(Pfn),
    /// No frame near it was ever allocated: it is no RAM, or RAM not handed out yet.
    #[error("{0} was never allocated")]
    Untouched(Pfn),
    /// The frame is not the first of a block, or belongs to no allocator.
    #[error("{0} is not the first frame of a block")]
    Tail(Pfn),
    /// The frame was set aside at boot and is never a page.
    #[error("{pfn} was set aside at boot as {memory_type} memory")]
    SetAside {
        /// The frame.
        pfn: Pfn,
        /// Its memory type.
        memory_type: MemoryType,
    },
}

/// A frame already has another memory type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryTypeError {
    /// The frame cannot be looked up.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame is mapped as `has`.
    #[error("{pfn} is {has} memory and cannot be mapped as {wanted}")]
    Conflict {
        /// The frame.
        pfn: Pfn,
        /// Its memory type.
        has: MemoryType,
        /// The type asked for.
        wanted: MemoryType,
    },
}

#[cfg(test)]
mod tests;
