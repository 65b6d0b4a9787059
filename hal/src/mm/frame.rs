//! Page frame descriptors: 16 bytes that say what each frame of RAM is used for.
//!
//! The descriptors form one array indexed by frame number. Its memory is garbage at boot, and
//! clearing it would cost time in proportion to RAM. So each [pageblock](PAGEBLOCK_ORDER) has one
//! state byte, zero at boot, that says which of its descriptors mean anything:
//!
//! ```text
//! untouched --> head: only the first descriptor is valid, the others count as tails
//!     |           |
//!     +-----------+--> ready: all 512 descriptors are valid
//! ```
//!
//! A pageblock becomes ready when a block smaller than it is first cut from it. A lookup reads the
//! state before the descriptor, so any frame number, even one computed from a wild pointer, has an
//! answer.

use super::MigrateType;
use super::slab::MAX_SLAB_ORDER;
use super::zero::zero;
use crate::addr::{PAGE_SHIFT, Pfn, PhysAddr, PhysRange, VirtAddr};
use crate::mmu::MemoryType;
use core::mem::MaybeUninit;
use core::ops::Range;
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

    /// The descriptor of the first frame of the slab this frame is part of.
    #[inline]
    pub(super) fn slab_head(&'static self) -> &'static Self {
        let mask = (size_of::<Self>() << self.slab_order()) - 1;
        let this = &raw const *self;
        // SAFETY: descriptors exist in whole pageblocks, and the table's base is aligned to a page
        // (contract of `FrameTable::new`). So rounding down by at most eight descriptors, which is
        // the most `slab_order` gives even for a frame that is no slab's, stays in the pageblock,
        // all of whose descriptors are valid if this one is not the first.
        unsafe { &*this.wrapping_byte_sub(this.addr() & mask) }
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

/// Access to the descriptors of all frames: a handle, freely copied.
///
/// # Invariants
///
/// For every pageblock with a state other than untouched, the descriptors its state calls valid
/// are initialised.
#[derive(Clone, Copy, Debug)]
pub struct FrameTable {
    /// Where the descriptor of frame 0 is or would be.
    frames: *const Frame,
    /// The states of the pageblocks `first..first + states.len()`.
    states: &'static [AtomicU8],
    first: u32,
}

// SAFETY: the handle gives access to atomics only.
unsafe impl Send for FrameTable {}
// SAFETY: as above.
unsafe impl Sync for FrameTable {}

/// State of a pageblock: its first descriptor is valid.
const HEAD: u8 = 1 << 6;
/// State of a pageblock: all its descriptors are valid.
const READY: u8 = 1 << 7;
/// The pageblock's migrate type, within its state.
const MIGRATE_MASK: u8 = 0x7;

impl FrameTable {
    /// State bytes that a table for the frames of `span` needs.
    pub const fn states_for(span: PhysRange) -> usize {
        let first = span.start.get() >> PAGEBLOCK_SHIFT;
        let end = span.end.get().div_ceil(1 << PAGEBLOCK_SHIFT);
        end.saturating_sub(first) as usize
    }

    /// The virtual addresses, relative to the descriptor of frame 0, that must be backed by memory
    /// before `ram` is given to an allocator: the descriptors of every pageblock it touches.
    pub const fn backing_for(ram: PhysRange) -> Range<usize> {
        let first = ram.start.get() >> PAGEBLOCK_SHIFT << PAGEBLOCK_ORDER;
        let end = ram.end.get().div_ceil(1 << PAGEBLOCK_SHIFT) << PAGEBLOCK_ORDER;
        first as usize * size_of::<Frame>()..end as usize * size_of::<Frame>()
    }

    /// A table whose descriptor of frame 0 is, or would be, at `frames`, for pageblocks from the
    /// one that holds `start` on, one for each byte of `states`. What the memory holds does not
    /// matter.
    ///
    /// # Safety
    ///
    /// For every range of RAM that is later given to an allocator using this table,
    /// [`backing_for`](Self::backing_for) the range from `frames` on is mapped as Normal memory,
    /// used for nothing else, for the rest of the program. `frames` is aligned to a page.
    pub unsafe fn new(
        frames: VirtAddr,
        start: PhysAddr,
        states: &'static mut [MaybeUninit<u8>],
    ) -> Self {
        for state in states.iter_mut() {
            state.write(0);
        }
        // SAFETY: the bytes are initialised, an AtomicU8 has the layout of a u8, and the exclusive
        // borrow ends here, so that nobody writes them other than as atomics.
        let states = unsafe { &*(&raw const *states as *const [AtomicU8]) };
        Self {
            frames: frames.as_ptr(),
            states,
            first: (start.get() >> PAGEBLOCK_SHIFT) as u32,
        }
    }

    #[inline]
    fn state(&self, pfn: Pfn) -> Option<&'static AtomicU8> {
        let block = (pfn.get() >> PAGEBLOCK_ORDER).wrapping_sub(self.first);
        self.states.get(block as usize)
    }

    /// The descriptor of `pfn`.
    ///
    /// # Safety
    ///
    /// The state of the frame's pageblock is not untouched (so the descriptor is backed by memory)
    /// and says that the descriptor is valid.
    #[inline]
    unsafe fn frame_unchecked(&self, pfn: Pfn) -> &'static Frame {
        // `wrapping_add`, because the table need not begin with frame 0.
        let frame = self.frames.wrapping_add(pfn.get() as usize);
        // SAFETY: backed, hence not null and valid for the program's duration.
        unsafe {
            core::hint::assert_unchecked(!frame.is_null());
            &*frame
        }
    }

    /// The descriptor of `pfn`. May be called in any context and with any number.
    ///
    /// # Errors
    ///
    /// See [`FrameError`]. A tail in a pageblock that is ready is returned as a frame of kind
    /// [`FrameKind::Tail`].
    #[inline]
    pub fn get(&self, pfn: Pfn) -> Result<&'static Frame, FrameError> {
        let state = self.state(pfn).ok_or(FrameError::OutOfRange(pfn))?;
        // Acquire pairs with the release in `prepare`, which makes the zeroes visible.
        let state = state.load(Ordering::Acquire);
        if state & READY == 0 {
            if state & HEAD == 0 {
                return Err(FrameError::Untouched(pfn));
            }
            if !pfn.is_order_aligned(PAGEBLOCK_ORDER) {
                return Err(FrameError::Tail(pfn));
            }
        }
        // SAFETY: the state says that the descriptor is valid.
        Ok(unsafe { self.frame_unchecked(pfn) })
    }

    /// The descriptor of `pfn` if its pageblock is ready: the fast half of [`get`](Self::get).
    #[inline]
    pub(super) fn get_ready(&self, pfn: Pfn) -> Option<&'static Frame> {
        if self.state(pfn)?.load(Ordering::Acquire) & READY == 0 {
            return None;
        }
        // SAFETY: the state says that all descriptors of the pageblock are valid.
        Some(unsafe { self.frame_unchecked(pfn) })
    }

    /// Makes the descriptor of `pfn` valid, and with it those of the block of `order` that starts
    /// there: all of the pageblock when the block is smaller than one. `false` when the table does
    /// not reach the block.
    ///
    /// # Safety
    ///
    /// The block is RAM that belongs to the caller's allocator, whose lock is held. If the block is
    /// smaller than a pageblock, so does the whole pageblock, or it is ready already, or no other
    /// core uses the table yet.
    pub(super) unsafe fn prepare(&self, pfn: Pfn, order: u32, fresh: MigrateType) -> bool {
        let blocks = 1 << order.saturating_sub(PAGEBLOCK_ORDER);
        for block in 0..blocks {
            let start = Pfn::new((pfn.get() & !(PAGEBLOCK_PAGES - 1)) + block * PAGEBLOCK_PAGES);
            let Some(state) = self.state(start) else {
                return false;
            };
            let old = state.load(Ordering::Relaxed);
            let wanted = if order < PAGEBLOCK_ORDER { READY } else { HEAD };
            if old & (wanted | READY) != 0 {
                continue;
            }
            let (from, until, migrate) = match (wanted, old & HEAD) {
                (HEAD, _) => (0, 1, fresh as u8),
                (_, 0) => (0, PAGEBLOCK_PAGES, fresh as u8),
                (_, _) => (1, PAGEBLOCK_PAGES, old & MIGRATE_MASK),
            };
            // SAFETY: only the owner of the pageblock prepares it (contract of this function).
            unsafe { self.clear(start + from, until - from) };
            state.store(wanted | migrate, Ordering::Release);
        }
        true
    }

    /// Zeroes the descriptors of `count` frames of one pageblock.
    ///
    /// # Safety
    ///
    /// The pageblock's state does not call them valid, and this allocator is the one to change it.
    unsafe fn clear(&self, first: Pfn, count: u32) {
        let start = self.frames.wrapping_add(first.get() as usize);
        // SAFETY: the descriptors are backed by memory and used for nothing else (contract of
        // `new`), and no reference to them exists, because no state ever called them valid.
        unsafe {
            zero(
                VirtAddr::from_ptr(start),
                count as usize * size_of::<Frame>(),
            );
        };
    }

    /// The migrate type of the pageblock that holds `pfn`.
    #[inline]
    pub(super) fn migrate_type(&self, pfn: Pfn) -> MigrateType {
        let state = self.state(pfn).map_or(0, |s| s.load(Ordering::Relaxed));
        MigrateType::from_index(state & MIGRATE_MASK)
    }

    /// Changes the migrate type of the pageblock that holds `pfn`. The lock of the allocator that
    /// owns the pageblock is held.
    pub(super) fn set_migrate_type(&self, pfn: Pfn, migrate: MigrateType) {
        if let Some(state) = self.state(pfn) {
            let kept = state.load(Ordering::Relaxed) & !MIGRATE_MASK;
            // Release, so that a reader of this value sees the descriptors the kept bits promise.
            state.store(kept | migrate as u8, Ordering::Release);
        }
    }

    /// The memory type `pfn` is mapped as, wherever it is mapped.
    ///
    /// # Errors
    ///
    /// [`FrameError`] when `pfn` is not RAM, or RAM no allocator has touched.
    pub fn memory_type(&self, pfn: Pfn) -> Result<MemoryType, FrameError> {
        match self.get(pfn) {
            Ok(frame) => Ok(frame.memory_type()),
            // No frame of a block this large was ever claimed for another type.
            Err(FrameError::Tail(_)) => Ok(MemoryType::NormalWriteBack),
            Err(error) => Err(error),
        }
    }

    /// Whether `pfn` may be mapped as `wanted`: a frame has one memory type at a time.
    ///
    /// # Errors
    ///
    /// [`MemoryTypeError`] when it has another type or cannot be looked up.
    pub fn check_memory_type(&self, pfn: Pfn, wanted: MemoryType) -> Result<(), MemoryTypeError> {
        match self.memory_type(pfn)? {
            has if has == wanted => Ok(()),
            has => Err(MemoryTypeError::Conflict { pfn, has, wanted }),
        }
    }

    /// Changes the memory type of `frames` from Normal write-back to `wanted`, all or none.
    ///
    /// Records only; mappings and caches are the caller's business. Costs time in proportion to
    /// the number of frames.
    ///
    /// # Errors
    ///
    /// [`MemoryTypeError`] when a frame has another type than Normal write-back already, or cannot
    /// be looked up.
    ///
    /// # Safety
    ///
    /// The caller owns the frames: an allocator handed them to it, or they were set aside at boot.
    pub unsafe fn claim_memory_type(
        &self,
        frames: Range<Pfn>,
        wanted: MemoryType,
    ) -> Result<(), MemoryTypeError> {
        for number in frames.start.get()..frames.end.get() {
            let pfn = Pfn::new(number);
            // SAFETY: the caller owns the frame; where the pageblock is not ready, it belongs to
            // one block of that size or larger, or the frames were set aside before any allocator
            // ran.
            if !unsafe { self.prepare(pfn, 0, MigrateType::Unmovable) } {
                return Err(FrameError::OutOfRange(pfn).into());
            }
            let has = self.get(pfn)?.memory_type();
            if has != MemoryType::NormalWriteBack {
                return Err(MemoryTypeError::Conflict { pfn, has, wanted });
            }
        }
        self.store_memory_type(frames, wanted);
        Ok(())
    }

    /// Makes `frames` Normal write-back again. Frames of that type stay as they are.
    ///
    /// # Safety
    ///
    /// As for [`claim_memory_type`](Self::claim_memory_type); no mapping of another type is left,
    /// in a table or in a TLB.
    pub unsafe fn release_memory_type(&self, frames: Range<Pfn>) {
        self.store_memory_type(frames, MemoryType::NormalWriteBack);
    }

    fn store_memory_type(&self, frames: Range<Pfn>, memory_type: MemoryType) {
        for number in frames.start.get()..frames.end.get() {
            if let Some(frame) = self.get_ready(Pfn::new(number)) {
                let value = memory_type as u8;
                frame.memory_type.store(value, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
