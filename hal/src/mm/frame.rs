//! Page frame descriptors: 16 bytes that say what each frame of RAM is used for.
//!
//! The descriptors form one array indexed by frame number. Its memory is garbage at boot, and
//! clearing it would cost time in proportion to RAM. So a [`FrameTable`] holds one pointer per
//! [pageblock](PAGEBLOCK_ORDER) to that pageblock's 512 descriptors, and until the pageblock is
//! first used the pointer leads to 512 zero descriptors that all such pageblocks share. A lookup
//! needs no state: any frame number, even one computed from a wild pointer, has an answer.
//!
//! ```text
//! untouched --> ready: the pageblock has its own 512 descriptors
//!     |
//!     +-> set aside: never has descriptors; a flag byte says the memory type of all frames
//! ```
//!
//! A pageblock is set aside at boot for memory no page allocator ever owns.

mod flags;
mod lookup;
mod memory_type;
mod plain;
mod table;
mod words;

pub(super) use flags::Group;
pub(crate) use lookup::FrameLookup;
pub(super) use plain::PlainFrames;
pub use table::FrameTable;
pub use words::Frame;

use super::MigrateType;
use crate::addr::{PAGE_SHIFT, Pfn};
use crate::layout;
use crate::mmu::MemoryType;
use core::sync::atomic::{self, AtomicU64, Ordering};
use words::ORDER_SHIFT;

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
    /// Any frame of a slab. Descriptors hold the cache's tag instead of this number.
    Slab = 3,
    /// First frame of a block that `kmalloc` handed out whole.
    LargeObject = 4,
    /// First frame of a block a core keeps at hand.
    PcpFree = 5,
    /// First frame of a block that `alloc_pages` handed out and whose owner moves it on demand.
    Movable = 6,
    /// First frame of an allocation from a contiguous memory area.
    CmaAllocated = 7,
    /// First frame of a block that `alloc_pages` handed out and charged to an owner.
    Accounted = 8,
    /// A translation table, in use or kept for the next demand. Never given back.
    Table = 9,
}

impl FrameKind {
    const fn from_u8(kind: u8) -> Self {
        match kind {
            1 => Self::Free,
            2 => Self::Allocated,
            FIRST_TAG.. => Self::Slab,
            4 => Self::LargeObject,
            5 => Self::PcpFree,
            6 => Self::Movable,
            7 => Self::CmaAllocated,
            8 => Self::Accounted,
            9 => Self::Table,
            _ => Self::Tail,
        }
    }
}

const _: () = assert!(size_of::<Frame>() == 16);

/// Lowest number in a first word's low byte that is a slab cache's tag and no [`FrameKind`].
pub(crate) const FIRST_TAG: u8 = 16;

const KIND_MASK: u64 = 0xFF;
const ORDER_MASK: u64 = 0xF << ORDER_SHIFT;
const TYPE_SHIFT: u32 = 12;
const TYPE_MASK: u64 = 0x3 << TYPE_SHIFT;
const MIGRATE_SHIFT: u32 = 14;
const MIGRATE_MASK: u64 = 0x7 << MIGRATE_SHIFT;
const DATA_SHIFT: u32 = 32;
const LOW_HALF: u64 = u32::MAX as u64;
/// In a slab, which needs fewer orders: it is on the cache's partial list.
const LISTED: u64 = 1 << (TYPE_SHIFT - 1);
const SLAB_NEXT_SHIFT: u32 = 12;
const SLAB_PREV_SHIFT: u32 = SLAB_NEXT_SHIFT + SLAB_LINK_BITS;
/// Frames are numbered in 26 bits: the direct map has 2^38 bytes.
const SLAB_LINK_BITS: u32 = 26;
const SLAB_LINK_MASK: u64 = (1 << SLAB_LINK_BITS) - 1;

const _: () = assert!(layout::DIRECT_MAP.size >> PAGE_SHIFT <= 1 << SLAB_LINK_BITS);

impl Frame {
    const fn new() -> Self {
        Self {
            head: AtomicU64::new(0),
            body: AtomicU64::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn set_head_bits(&self, mask: u64, value: u64) {
        self.head
            .store(self.head() & !mask | value, Ordering::Relaxed);
    }

    /// What the frame is used for.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        FrameKind::from_u8(self.head() as u8)
    }

    /// The order of the block that starts here. Meaningless in a tail and in a slab.
    #[inline]
    pub fn order(&self) -> u32 {
        ((self.head() & ORDER_MASK) >> ORDER_SHIFT) as u32
    }

    /// Whether a block of `kind` and `order` starts here.
    #[inline(always)]
    pub(super) fn is_head(&self, kind: FrameKind, order: u32) -> bool {
        let value = kind as u64 | u64::from(order) << ORDER_SHIFT;
        self.head() & (KIND_MASK | ORDER_MASK) == value
    }

    /// The frame as the first of a block of `kind` and `order`, if it is that.
    #[inline(always)]
    pub(super) fn as_head(&self, kind: FrameKind, order: u32) -> Option<Head<'_>> {
        let head = self.head();
        let value = kind as u64 | u64::from(order) << ORDER_SHIFT;
        (head & (KIND_MASK | ORDER_MASK) == value).then_some(Head {
            frame: self,
            head,
            kind,
        })
    }

    /// The order of the slab the frame is part of.
    #[inline(always)]
    pub(super) fn slab_order(&self) -> u32 {
        ((self.head() & ORDER_MASK & !LISTED) >> ORDER_SHIFT) as u32
    }

    /// The frame's tag and the order of the slab it is part of, if it is, by one look.
    #[inline(always)]
    pub(super) fn tag_and_order(&self) -> (u8, u32) {
        let head = self.head();
        let order = (head & ORDER_MASK & !LISTED) >> ORDER_SHIFT;
        (head as u8, order as u32)
    }

    /// Whether the slab the frame is part of is on its cache's partial list.
    #[inline(always)]
    pub(super) fn is_listed(&self) -> bool {
        self.head() & LISTED != 0
    }

    #[inline]
    pub(super) fn set_listed(&self, listed: bool) {
        self.set_head_bits(LISTED, if listed { LISTED } else { 0 });
    }

    /// The type of memory the frame is mapped as.
    #[inline]
    pub fn memory_type(&self) -> MemoryType {
        let head = self.head();
        if head as u8 >= FIRST_TAG {
            return MemoryType::NormalWriteBack;
        }
        MemoryType::from_index(((head & TYPE_MASK) >> TYPE_SHIFT) as u8)
            .unwrap_or(MemoryType::NormalWriteBack)
    }

    /// Changes the type of memory of a frame that is no slab's.
    #[inline]
    fn set_memory_type(&self, memory_type: MemoryType) {
        self.set_head_bits(TYPE_MASK, (memory_type as u64) << TYPE_SHIFT);
    }

    /// The migrate type of the list a free block is on.
    #[inline]
    pub(super) fn list_type(&self) -> MigrateType {
        list_type_in(self.head())
    }

    /// The migrate type of the list that a free block of `order` is on, if such a block starts here.
    #[inline(always)]
    pub(super) fn as_free(&self, order: u32) -> Option<MigrateType> {
        let head = self.head();
        let value = FrameKind::Free as u64 | u64::from(order) << ORDER_SHIFT;
        (head & (KIND_MASK | ORDER_MASK) == value).then(|| list_type_in(head))
    }

    /// Makes a frame of write-back memory the first of a free block of `order`: the first one of the
    /// list of `migrate`, before the block at `next`.
    #[inline(always)]
    pub(super) fn set_free(&self, order: u32, migrate: MigrateType, next: u32) {
        let head = FrameKind::Free as u64
            | u64::from(order) << ORDER_SHIFT
            | (migrate as u64) << MIGRATE_SHIFT;
        let links = u64::from(NO_FRAME) << u32::BITS | u64::from(next);
        self.head.store(head, Ordering::Relaxed);
        self.body.store(links, Ordering::Relaxed);
    }

    /// Makes a frame of write-back memory a tail.
    #[inline(always)]
    pub(super) fn set_tail(&self) {
        self.head.store(0, Ordering::Relaxed);
    }

    /// Makes the frame the first of a block.
    #[inline]
    pub(super) fn set_head(&self, kind: FrameKind, order: u32) {
        let value = kind as u64 | u64::from(order) << ORDER_SHIFT;
        self.set_head_bits(KIND_MASK | ORDER_MASK, value);
    }

    /// Makes a frame of write-back memory, in no list of its own, the first of a block, and forgets
    /// what its owner kept.
    #[inline(always)]
    pub(super) fn set_plain_head(&self, kind: FrameKind, order: u32) {
        let head = kind as u64 | u64::from(order) << ORDER_SHIFT;
        self.head.store(head, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn set_kind(&self, kind: FrameKind) {
        self.set_head_bits(KIND_MASK, kind as u64);
    }

    /// The numbers of the next and the previous frame of the list the block is on.
    #[inline(always)]
    pub(super) fn links(&self) -> (u32, u32) {
        let body = self.body();
        (body as u32, (body >> u32::BITS) as u32)
    }

    #[inline]
    pub(super) fn set_next(&self, pfn: u32) {
        let body = self.body() & !LOW_HALF | u64::from(pfn);
        self.body.store(body, Ordering::Relaxed);
    }

    /// Makes the first frame of an allocated block one that the owner with number `owner` moves,
    /// which knows the block as `private`.
    pub(super) fn set_movable(&self, owner: u8, private: u32) {
        self.body.store(u64::from(owner), Ordering::Relaxed);
        self.set_data(private);
        self.set_kind(FrameKind::Movable);
    }

    /// The number of the owner that moves the block.
    pub(super) fn movable_owner(&self) -> u8 {
        self.body() as u8
    }

    #[inline]
    pub(super) fn set_prev(&self, pfn: u32) {
        let body = self.body() & LOW_HALF | u64::from(pfn) << u32::BITS;
        self.body.store(body, Ordering::Relaxed);
    }

    /// What the owner of the block keeps here.
    #[inline]
    pub(super) fn data(&self) -> u32 {
        (self.head() >> DATA_SHIFT) as u32
    }

    /// Changes what [`data`](Self::data) gives.
    #[inline]
    pub(super) fn set_data(&self, data: u32) {
        self.set_head_bits(LOW_HALF << DATA_SHIFT, u64::from(data) << DATA_SHIFT);
    }

    /// The first frames of the slabs after and before this one on the list it is on.
    #[inline]
    pub(super) fn slab_links(&self) -> (u32, u32) {
        let head = self.head();
        (
            (head >> SLAB_NEXT_SHIFT & SLAB_LINK_MASK) as u32,
            (head >> SLAB_PREV_SHIFT) as u32,
        )
    }

    #[inline]
    pub(super) fn set_slab_next(&self, pfn: u32) {
        let mask = SLAB_LINK_MASK << SLAB_NEXT_SHIFT;
        self.set_head_bits(mask, u64::from(pfn) << SLAB_NEXT_SHIFT & mask);
    }

    #[inline]
    pub(super) fn set_slab_prev(&self, pfn: u32) {
        let mask = SLAB_LINK_MASK << SLAB_PREV_SHIFT;
        self.set_head_bits(mask, u64::from(pfn) << SLAB_PREV_SHIFT);
    }
}

/// The migrate type in the first word of a free block's descriptor.
#[inline(always)]
fn list_type_in(head: u64) -> MigrateType {
    MigrateType::from_index(((head & MIGRATE_MASK) >> MIGRATE_SHIFT) as u8)
}

/// A frame that was found to be the first of a block of some kind.
#[derive(Debug)]
pub(super) struct Head<'a> {
    frame: &'a Frame,
    /// The first word.
    head: u64,
    kind: FrameKind,
}

impl Head<'_> {
    /// Makes the block one of `kind`.
    #[inline(always)]
    pub(super) fn change_kind(self, kind: FrameKind) {
        let changed = self.kind as u64 ^ kind as u64;
        self.frame
            .head
            .store(self.head ^ changed, Ordering::Relaxed);
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
