//! The table of all descriptors: a pointer for each pageblock.

use super::flags::{
    MIGRATE_MASK, SET_ASIDE, UNTOUCHED, ZONE_SHIFT, migrate_bits, migrate_of, set_aside_type,
};
use super::lookup::{FrameLookup, TAILS};
use super::plain::PlainFrames;
use super::{Frame, FrameError, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, PAGEBLOCK_SHIFT};
use crate::addr::{PAGE_SHIFT, Pfn, PhysRange, VirtAddr};
use crate::mm::zero::zero_pages;
use crate::mm::{MigrateType, ZoneKind};
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Pages that the descriptors of a pageblock fill.
const DESCRIPTOR_PAGES: usize = size_of::<[Frame; PAGEBLOCK_PAGES as usize]>() >> PAGE_SHIFT;

/// Access to the descriptors of all frames: a handle, freely copied.
#[derive(Clone, Copy, Debug)]
pub struct FrameTable {
    lookup: FrameLookup,
    /// Where the descriptor of frame 0 is or would be.
    frames: *const Frame,
    /// First frame above each zone but the last.
    zone_limits: [Pfn; ZoneKind::COUNT - 1],
}

// SAFETY: the handle gives access to atomics only.
unsafe impl Send for FrameTable {}
// SAFETY: as above.
unsafe impl Sync for FrameTable {}

impl FrameTable {
    /// Words of memory a table for RAM up to the end of `span` needs: a pointer and a flag byte for
    /// each pageblock from physical address 0 on.
    pub const fn words_for(span: PhysRange) -> usize {
        let blocks = span.end.get().div_ceil(1 << PAGEBLOCK_SHIFT) as usize;
        blocks + blocks.div_ceil(size_of::<u64>())
    }

    /// The virtual addresses, relative to the descriptor of frame 0, that must be backed by memory
    /// before `ram` is given to an allocator: the descriptors of every pageblock it touches.
    pub const fn backing_for(ram: PhysRange) -> Range<usize> {
        let first = ram.start.get() >> PAGEBLOCK_SHIFT << PAGEBLOCK_ORDER;
        let end = ram.end.get().div_ceil(1 << PAGEBLOCK_SHIFT) << PAGEBLOCK_ORDER;
        first as usize * size_of::<Frame>()..end as usize * size_of::<Frame>()
    }

    /// A table whose descriptor of frame 0 is, or would be, at `frames`, with as many pageblocks as
    /// `words` has room for, see [`words_for`](Self::words_for). What the memory holds does not
    /// matter.
    ///
    /// # Safety
    ///
    /// For every range of RAM that is later given to an allocator using this table,
    /// [`backing_for`](Self::backing_for) the range from `frames` on is mapped as Normal memory,
    /// used for nothing else, for the rest of the program. `frames` is aligned to a page.
    pub unsafe fn new(frames: VirtAddr, words: &'static mut [MaybeUninit<u64>]) -> Self {
        const _: () = assert!(size_of::<AtomicPtr<Frame>>() == size_of::<u64>());
        // Of nine words eight are pointers and one holds their flags.
        let count = words.len() * size_of::<u64>() / (size_of::<u64>() + 1);
        let (pointers, flags) = words.split_at_mut(count);
        let blocks = pointers.as_mut_ptr().cast::<*const Frame>();
        for block in 0..pointers.len() {
            // SAFETY: the pointer has the size of the word it replaces.
            unsafe { blocks.add(block).write(TAILS.as_ptr()) };
        }
        flags.fill(MaybeUninit::new(u64::from_ne_bytes(
            [UNTOUCHED; size_of::<u64>()],
        )));
        Self {
            lookup: FrameLookup {
                blocks: words.as_mut_ptr().cast(),
                count,
            },
            frames: frames.as_ptr(),
            zone_limits: [Pfn::new(0); ZoneKind::COUNT - 1],
        }
    }

    /// The table for an allocator whose zones but the last end at `limits`, multiples of a
    /// pageblock. It notes the zone of each pageblock it prepares.
    pub(in crate::mm) fn with_zone_limits(self, zone_limits: [Pfn; ZoneKind::COUNT - 1]) -> Self {
        Self {
            zone_limits,
            ..self
        }
    }

    /// First frame above each zone but the last.
    pub(crate) fn zone_limits(&self) -> [Pfn; ZoneKind::COUNT - 1] {
        self.zone_limits
    }

    /// The zone that has `pfn`.
    #[inline]
    pub(in crate::mm) fn zone_of(&self, pfn: Pfn) -> ZoneKind {
        if pfn < self.zone_limits[0] {
            ZoneKind::Dma
        } else if pfn < self.zone_limits[1] {
            ZoneKind::Dma32
        } else {
            ZoneKind::Normal
        }
    }

    /// The read side alone.
    #[inline(always)]
    pub(in crate::mm) fn lookup(&self) -> FrameLookup {
        self.lookup
    }

    /// The descriptor of `pfn`. May be called in any context and with any number.
    ///
    /// # Errors
    ///
    /// See [`FrameError`]. A tail in a pageblock that is in use is returned as a frame of kind
    /// [`FrameKind::Tail`](super::FrameKind::Tail).
    #[inline]
    pub fn get(&self, pfn: Pfn) -> Result<&'static Frame, FrameError> {
        match self.get_ready(pfn) {
            Some(frame) => Ok(frame),
            None => Err(self.why_not_ready(pfn)),
        }
    }

    #[cold]
    fn why_not_ready(&self, pfn: Pfn) -> FrameError {
        let Some(flags) = self.lookup.flags(pfn) else {
            return FrameError::OutOfRange(pfn);
        };
        let flags = flags.load(Ordering::Relaxed);
        if flags & SET_ASIDE == 0 {
            return FrameError::Untouched(pfn);
        }
        let memory_type = set_aside_type(flags);
        FrameError::SetAside { pfn, memory_type }
    }

    /// The descriptor of `pfn` if its pageblock has any: the fast half of [`get`](Self::get).
    #[inline]
    pub(in crate::mm) fn get_ready(&self, pfn: Pfn) -> Option<&'static Frame> {
        let block = self.lookup.block((pfn.get() >> PAGEBLOCK_ORDER) as usize)?;
        // Acquire pairs with the release in `prepare`, which makes the zeroes visible.
        let frames = block.load(Ordering::Acquire);
        if ptr::eq(frames, TAILS.as_ptr()) {
            return None;
        }
        // SAFETY: the pointer leads to descriptors.
        unsafe { core::hint::assert_unchecked(!frames.is_null()) };
        // SAFETY: the pointer leads to 512 descriptors.
        Some(unsafe { &*frames.add((pfn.get() & (PAGEBLOCK_PAGES - 1)) as usize) })
    }

    /// The descriptor of `pfn`, whose pageblock is known to have descriptors.
    ///
    /// # Safety
    ///
    /// [`prepare`](Self::prepare) has given the pageblock descriptors, and the caller has learnt of
    /// it from whoever did.
    #[inline(always)]
    pub(in crate::mm) unsafe fn frame_unchecked(&self, pfn: Pfn) -> &'static Frame {
        // SAFETY: handed on to the caller.
        unsafe { self.plain().frame(pfn) }
    }

    /// What the fast paths of pages at hand need of the table.
    #[inline(always)]
    pub(in crate::mm) fn plain(&self) -> PlainFrames {
        PlainFrames {
            // The flag bytes lie behind the pointers.
            flags: self.lookup.blocks.wrapping_add(self.lookup.count).cast(),
            count: self.lookup.count,
            frames: self.frames,
        }
    }

    /// Gives the pageblocks of the block of `order` that starts at `pfn` descriptors, all zero, and
    /// the migrate type `fresh`, where they have none yet. `false` when the table does not reach
    /// the block or it was set aside.
    ///
    /// # Safety
    ///
    /// The block is RAM that belongs to the caller's allocator, whose lock is held. If the block is
    /// smaller than a pageblock, so does the whole pageblock, or it has descriptors already, or no
    /// other core uses the table yet.
    pub(in crate::mm) unsafe fn prepare(&self, pfn: Pfn, order: u32, fresh: MigrateType) -> bool {
        let first = pfn.get() & !(PAGEBLOCK_PAGES - 1);
        for block in 0..1 << order.saturating_sub(PAGEBLOCK_ORDER) {
            let start = Pfn::new(first + block * PAGEBLOCK_PAGES);
            if self.get_ready(start).is_some() {
                continue;
            }
            // SAFETY: the pageblock has no descriptors, and is the caller's, or no other core uses
            // the table (contract of this function).
            if !unsafe { self.prepare_pageblock(start, fresh) } {
                return false;
            }
        }
        true
    }

    /// Gives the pageblock that starts at `start` descriptors. `false` as for
    /// [`prepare`](Self::prepare).
    ///
    /// # Safety
    ///
    /// As for [`prepare`](Self::prepare); the pageblock has no descriptors.
    #[inline(never)]
    unsafe fn prepare_pageblock(&self, start: Pfn, fresh: MigrateType) -> bool {
        let (Some(pointer), Some(flags)) = (
            self.lookup.block((start.get() >> PAGEBLOCK_ORDER) as usize),
            self.lookup.flags(start),
        ) else {
            return false;
        };
        if flags.load(Ordering::Relaxed) & SET_ASIDE != 0 {
            return false;
        }
        let frames = self.frames.wrapping_add(start.get() as usize).cast_mut();
        // SAFETY: the descriptors are whole pages of memory used for nothing else (contract of
        // `new`), and no reference to them exists, because no pointer led to them. Only the owner
        // of the pageblock prepares it (contract of this function).
        unsafe { zero_pages(VirtAddr::from_ptr(frames), DESCRIPTOR_PAGES) };
        let zone = (self.zone_of(start) as u8) << ZONE_SHIFT;
        flags.store(migrate_bits(fresh) | zone, Ordering::Release);
        pointer.store(frames, Ordering::Release);
        true
    }

    /// The migrate type of the pageblock that holds `pfn`.
    #[inline]
    pub(in crate::mm) fn migrate_type(&self, pfn: Pfn) -> MigrateType {
        let flags = self.lookup.flags(pfn);
        let flags = flags.map_or(0, |flags| flags.load(Ordering::Relaxed));
        migrate_of(flags)
    }

    /// Changes the migrate type of the pageblock that holds `pfn`. The lock of the allocator that
    /// owns the pageblock is held.
    pub(in crate::mm) fn set_migrate_type(&self, pfn: Pfn, migrate: MigrateType) {
        if let Some(flags) = self.lookup.flags(pfn) {
            let change = |old: u8| Some(old & !MIGRATE_MASK | migrate_bits(migrate));
            // Atomic, because the owner of a block may claim frames of it meanwhile.
            let _ = flags.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        }
    }
}
