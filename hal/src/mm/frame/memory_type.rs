//! The memory type of a frame: one at a time, claimed and released.

use super::flags::{CLAIMED, SET_ASIDE};
use super::{FrameError, FrameTable, MemoryTypeError, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use crate::addr::Pfn;
use crate::mm::MigrateType;
use crate::mmu::MemoryType;
use core::ops::Range;
use core::sync::atomic::Ordering;

impl FrameTable {
    /// Whether a frame of a pageblock that the block of `order` at `pfn` lies in has ever been
    /// claimed. `order` is one that blocks have.
    #[inline(always)]
    pub(in crate::mm) fn was_ever_claimed(&self, pfn: Pfn, order: u32) -> bool {
        let was_claimed = |pfn| {
            let flags = self.lookup().flags(pfn);
            flags.is_some_and(|flags| flags.load(Ordering::Relaxed) & CLAIMED != 0)
        };
        was_claimed(pfn) || order > PAGEBLOCK_ORDER && was_claimed(pfn + PAGEBLOCK_PAGES)
    }

    /// The first frame of the block of `order` at `pfn` that is not write-back memory.
    pub(in crate::mm) fn claimed_frame(&self, pfn: Pfn, order: u32) -> Option<(Pfn, MemoryType)> {
        let end = pfn.get() + (1 << order);
        let mut at = pfn.get();
        while at < end {
            let until = end.min((at | (PAGEBLOCK_PAGES - 1)) + 1);
            let flags = self.lookup().flags(Pfn::new(at));
            if flags.is_some_and(|flags| flags.load(Ordering::Relaxed) & CLAIMED != 0) {
                let found = (at..until).map(Pfn::new).find_map(|pfn| {
                    let memory_type = self.get_ready(pfn)?.memory_type();
                    (memory_type != MemoryType::NormalWriteBack).then_some((pfn, memory_type))
                });
                if found.is_some() {
                    return found;
                }
            }
            at = until;
        }
        None
    }

    /// The memory type `pfn` is mapped as, wherever it is mapped.
    ///
    /// # Errors
    ///
    /// [`FrameError`] when `pfn` is not RAM, or RAM no allocator has touched.
    pub fn memory_type(&self, pfn: Pfn) -> Result<MemoryType, FrameError> {
        match self.get(pfn) {
            Ok(frame) => Ok(frame.memory_type()),
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
        for flags in blocks.filter_map(|pfn| self.lookup().flags(Pfn::new(pfn))) {
            flags.store(SET_ASIDE | wanted as u8, Ordering::Relaxed);
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
            // SAFETY: the caller owns the frame; an allocator that handed it out has prepared the
            // pageblock, and where none did, none runs yet.
            if !unsafe { self.prepare(pfn, 0, MigrateType::Unmovable) } {
                return Err(FrameError::OutOfRange(pfn).into());
            }
            let has = self.get(pfn)?.memory_type();
            if has != MemoryType::NormalWriteBack {
                return Err(MemoryTypeError::Conflict { pfn, has, wanted });
            }
        }
        let first = frames.start.get() & !(PAGEBLOCK_PAGES - 1);
        let blocks = (first..frames.end.get()).step_by(PAGEBLOCK_PAGES as usize);
        for flags in blocks.filter_map(|pfn| self.lookup().flags(Pfn::new(pfn))) {
            flags.fetch_or(CLAIMED, Ordering::Relaxed);
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
                frame.set_memory_type(memory_type);
            }
        }
    }
}
