//! The array of all descriptors, and which of them mean anything.

use super::{
    Frame, FrameError, MemoryTypeError, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, PAGEBLOCK_SHIFT,
};
use crate::addr::{Pfn, PhysAddr, PhysRange, VirtAddr};
use crate::mm::MigrateType;
use crate::mm::zero::zero;
use crate::mmu::MemoryType;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};

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
/// State of a pageblock: set aside at boot, none of its descriptors is valid.
const SET_ASIDE: u8 = 1 << 5;
/// The memory type of a pageblock that was set aside, within its state.
const TYPE_SHIFT: u32 = 3;
const TYPE_MASK: u8 = 0x3;
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
        let states = unsafe { &*(&raw mut *states as *const [AtomicU8]) };
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
    /// [`FrameKind::Tail`](super::FrameKind::Tail).
    #[inline]
    pub fn get(&self, pfn: Pfn) -> Result<&'static Frame, FrameError> {
        let state = self.state(pfn).ok_or(FrameError::OutOfRange(pfn))?;
        // Acquire pairs with the release in `prepare`, which makes the zeroes visible.
        let state = state.load(Ordering::Acquire);
        if state & READY == 0 {
            if state & SET_ASIDE != 0 {
                let memory_type = set_aside_type(state);
                return Err(FrameError::SetAside { pfn, memory_type });
            }
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
    pub(in crate::mm) fn get_ready(&self, pfn: Pfn) -> Option<&'static Frame> {
        if self.state(pfn)?.load(Ordering::Acquire) & READY == 0 {
            return None;
        }
        // SAFETY: the state says that all descriptors of the pageblock are valid.
        Some(unsafe { self.frame_unchecked(pfn) })
    }

    /// The descriptor of the first frame of the slab that `frame`, of this table, is part of.
    #[inline]
    pub(in crate::mm) fn slab_head(&self, frame: &'static Frame) -> &'static Frame {
        let mask = (size_of::<Frame>() << frame.slab_order()) - 1;
        // From the table's pointer, because `frame` gives no right to its neighbours.
        let head = self.frames.with_addr((&raw const *frame).addr() & !mask);
        // SAFETY: descriptors exist in whole pageblocks, and the table's base is aligned to a page
        // (contract of `new`). So rounding down by at most eight descriptors, which is the most
        // `slab_order` gives even for a frame that is no slab's, stays in the pageblock, all of
        // whose descriptors are valid if this one is not the first.
        unsafe { &*head }
    }

    /// Makes the descriptor of `pfn` valid, and with it those of the block of `order` that starts
    /// there: all of the pageblock when the block is smaller than one. `false` when the table does
    /// not reach the block or it was set aside.
    ///
    /// # Safety
    ///
    /// The block is RAM that belongs to the caller's allocator, whose lock is held. If the block is
    /// smaller than a pageblock, so does the whole pageblock, or it is ready already, or no other
    /// core uses the table yet.
    pub(in crate::mm) unsafe fn prepare(&self, pfn: Pfn, order: u32, fresh: MigrateType) -> bool {
        let blocks = 1 << order.saturating_sub(PAGEBLOCK_ORDER);
        for block in 0..blocks {
            let start = Pfn::new((pfn.get() & !(PAGEBLOCK_PAGES - 1)) + block * PAGEBLOCK_PAGES);
            let Some(state) = self.state(start) else {
                return false;
            };
            let old = state.load(Ordering::Relaxed);
            if old & SET_ASIDE != 0 {
                return false;
            }
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
    pub(in crate::mm) fn migrate_type(&self, pfn: Pfn) -> MigrateType {
        let state = self.state(pfn).map_or(0, |s| s.load(Ordering::Relaxed));
        MigrateType::from_index(state & MIGRATE_MASK)
    }

    /// Changes the migrate type of the pageblock that holds `pfn`. The lock of the allocator that
    /// owns the pageblock is held.
    pub(in crate::mm) fn set_migrate_type(&self, pfn: Pfn, migrate: MigrateType) {
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
            Err(FrameError::SetAside { memory_type, .. }) => Ok(memory_type),
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

    /// Sets `frames`, whole pageblocks, aside as memory of type `wanted`, for good: every lookup
    /// names that, and no allocator takes them. All or none; costs a store for each pageblock.
    ///
    /// # Errors
    ///
    /// [`MemoryTypeError`] when a pageblock is in use or beyond the table, or the range is not made
    /// of whole pageblocks ([`FrameError::Tail`]).
    ///
    /// # Safety
    ///
    /// The frames are RAM that the boot code set aside, and no other core uses the table yet.
    pub unsafe fn set_aside(
        &self,
        frames: Range<Pfn>,
        wanted: MemoryType,
    ) -> Result<(), MemoryTypeError> {
        for end in [frames.start, frames.end] {
            if !end.is_order_aligned(PAGEBLOCK_ORDER) {
                return Err(FrameError::Tail(end).into());
            }
        }
        let blocks = (frames.start.get()..frames.end.get()).step_by(PAGEBLOCK_PAGES as usize);
        for pfn in blocks.clone().map(Pfn::new) {
            match self.memory_type(pfn) {
                Err(FrameError::Untouched(_)) => {}
                Ok(has) => return Err(MemoryTypeError::Conflict { pfn, has, wanted }),
                Err(error) => return Err(error.into()),
            }
        }
        for state in blocks.filter_map(|pfn| self.state(Pfn::new(pfn))) {
            state.store(SET_ASIDE | (wanted as u8) << TYPE_SHIFT, Ordering::Release);
        }
        Ok(())
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
            if let Err(FrameError::SetAside { memory_type, .. }) = self.get(pfn) {
                let has = memory_type;
                return Err(MemoryTypeError::Conflict { pfn, has, wanted });
            }
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

/// The memory type in the state of a pageblock that was set aside.
fn set_aside_type(state: u8) -> MemoryType {
    MemoryType::from_index(state >> TYPE_SHIFT & TYPE_MASK).unwrap_or(MemoryType::NormalWriteBack)
}
