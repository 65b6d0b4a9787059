//! Contiguous memory areas: memory for large contiguous buffers that is not idle meanwhile.
//!
//! An area's frames belong to their zone, which lends them to movable requests only. A contiguous
//! allocation has whatever is there moved out of the way, and takes the frames; a release lends
//! them again. Each area notes in a bitmap which of its pages are taken.

mod bitmap;

use super::frame::{Frame, FrameKind};
use super::movable::Migration;
use super::page::PageAllocator;
use super::{AllocError, Gfp, MAX_ORDER, contig};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysRange};
use crate::layout;
use crate::mmu::MemoryType;
use crate::sync::{Context, IrqLock, PerCpu};
use crate::trace::trace;
use bitmap::Bitmap;
use core::fmt;
use core::ops::Range;

/// Most contiguous memory areas.
pub const MAX_AREAS: usize = 4;

/// Largest alignment an allocation can ask for, as a power of two of pages: 4 GiB.
pub const MAX_ALIGN_ORDER: u32 = 20;

/// Bytes that an area and its ends are a multiple of: the largest block, so that no free block lies
/// on both sides of an end.
pub const AREA_ALIGN: u64 = (PAGE_SIZE as u64) << MAX_ORDER;

/// Why contiguous memory was not allocated or released. Nothing has changed, but that movable
/// memory may have moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmaError {
    /// No pages, or more than the area has.
    #[error("a contiguous allocation of {count} pages from an area of {area}")]
    Count {
        /// Pages asked for.
        count: u32,
        /// Pages of the area.
        area: u32,
    },
    /// The alignment is above [`MAX_ALIGN_ORDER`].
    #[error("a contiguous allocation aligned to 2^{0} pages")]
    Alignment(u32),
    /// The call may block, and its context may not.
    #[error("a contiguous allocation in {0}")]
    Context(Context),
    /// The call was made by an owner that is moving memory for another one.
    #[error("a contiguous allocation inside another")]
    Nested,
    /// No stretch of the area that is long enough and aligned is without allocations.
    #[error("no {count} contiguous pages aligned to 2^{align_order} are left")]
    Full {
        /// Pages asked for.
        count: u32,
        /// The alignment asked for, as an order.
        align_order: u32,
    },
    /// There are such stretches, but each holds memory that cannot be moved; this frame is in the
    /// last of them.
    #[error("{0} is in use and cannot be moved")]
    Busy(Pfn),
    /// There is no memory to move what is in the way to.
    #[error("what is in the way has nowhere to go: {0}")]
    NoTarget(AllocError),
    /// The frame to be released is not the area's.
    #[error("{0} is in no contiguous memory area")]
    Foreign(Pfn),
    /// The frame to be released is free.
    #[error("{0} is not allocated")]
    DoubleRelease(Pfn),
    /// The frame to be released is inside an allocation.
    #[error("{0} is not the first frame of its allocation")]
    NotFirst(Pfn),
    /// The allocation has another size.
    #[error("the allocation at {pfn} has {has} pages, not {given}")]
    Partial {
        /// First frame of the allocation.
        pfn: Pfn,
        /// Its pages.
        has: u32,
        /// The number given.
        given: u32,
    },
    /// A frame to be released is not Normal write-back memory again yet.
    #[error("{pfn} is still {memory_type} memory")]
    MemoryType {
        /// The frame.
        pfn: Pfn,
        /// Its memory type.
        memory_type: MemoryType,
    },
}

/// What has become of an area's memory so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CmaStats {
    /// Pages allocated now.
    pub used: u32,
    /// Allocations that succeeded.
    pub allocated: u32,
    /// Allocations that failed.
    pub failed: u32,
    /// Allocations released.
    pub released: u32,
    /// Pages moved out of the way.
    pub migrated: u32,
    /// Stretches given up because something there could not be moved.
    pub busy: u32,
}

/// Where a contiguous memory area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmaArea {
    /// What it is called.
    pub name: &'static str,
    /// Its frames: a multiple of [`AREA_ALIGN`] on both ends, in one zone.
    pub frames: PhysRange,
    /// Whether it serves everybody who has no area of their own.
    pub is_default: bool,
}

/// A contiguous memory area.
///
/// Its lock is taken alone.
#[derive(Debug)]
pub struct Cma {
    area: CmaArea,
    pages: &'static PageAllocator,
    migration: &'static Migration,
    state: IrqLock<State>,
}

#[derive(Debug)]
struct State {
    taken: Bitmap,
    stats: CmaStats,
}

impl Cma {
    /// The area `area`, all of it lent. Allocates a bit for each page, for good.
    ///
    /// # Errors
    ///
    /// [`AllocError`] when there is no memory for the bits.
    ///
    /// # Safety
    ///
    /// The frames were given to `pages` with [`PageAllocator::lend`], and are no other area's.
    pub unsafe fn new(
        area: CmaArea,
        pages: &'static PageAllocator,
        migration: &'static Migration,
    ) -> Result<Self, AllocError> {
        let count = (area.frames.size() >> PAGE_SHIFT) as u32;
        let words = Bitmap::words_for(count);
        let bytes = words * size_of::<u64>();
        let order = bytes.div_ceil(PAGE_SIZE).next_power_of_two().ilog2();
        let memory = pages.alloc_pages(Gfp::NOWAIT | Gfp::ZERO, order)?;
        let words = core::ptr::slice_from_raw_parts_mut(
            layout::phys_to_virt(memory.phys()).as_ptr::<u64>(),
            words,
        );
        // SAFETY: the block was just allocated, is zeroed, at least that large, aligned to pages,
        // and never freed.
        let words = unsafe { &mut *words };
        Ok(Self {
            area,
            pages,
            migration,
            state: IrqLock::new(State {
                taken: Bitmap::new(words, count),
                stats: CmaStats::default(),
            }),
        })
    }

    /// Where the area is.
    #[doc(alias = "cma_get_name")]
    pub fn area(&self) -> &CmaArea {
        &self.area
    }

    /// First frame of the area.
    #[doc(alias = "cma_get_base")]
    pub fn base(&self) -> Pfn {
        self.area.frames.start.pfn()
    }

    /// Pages of the area.
    #[doc(alias = "cma_get_size")]
    pub fn count(&self) -> u32 {
        (self.area.frames.size() >> PAGE_SHIFT) as u32
    }

    /// Whether `pfn` is a frame of the area.
    pub fn contains(&self, pfn: Pfn) -> bool {
        self.area.frames.contains(pfn.phys())
    }

    /// Whether `pfn` is part of an allocation from the area.
    pub(super) fn is_allocated(&self, pfn: Pfn) -> bool {
        self.contains(pfn) && {
            let state = self.state.lock();
            state.taken.is_set(pfn.get() - self.base().get())
        }
    }

    /// What has become of the area's memory so far.
    pub fn stats(&self) -> CmaStats {
        self.state.lock().stats
    }

    /// Allocates `count` contiguous pages, the first a multiple of `2^align_order` pages.
    ///
    /// Movable memory in the way is moved out of the area or elsewhere in it; where that is not
    /// possible the next stretch is tried. The memory is in the direct map, mapped by pages, Normal
    /// write-back, not zeroed, and belongs to the caller until [`release`](Self::release). Its
    /// memory type may be changed meanwhile. Unless `no_warn`, a failure is traced.
    ///
    /// Task context: may block. Costs time in proportion to `count`.
    ///
    /// # Errors
    ///
    /// [`CmaError`] up to `NoTarget`.
    #[doc(alias = "cma_alloc")]
    pub fn alloc(&self, count: u32, align_order: u32, no_warn: bool) -> Result<Pfn, CmaError> {
        let outcome = self.try_alloc(count, align_order);
        let mut state = self.state.lock();
        match outcome {
            Ok(_) => state.stats.allocated += 1,
            Err(_) => state.stats.failed += 1,
        }
        drop(state);
        if outcome.is_err() && !no_warn {
            trace!(
                "contiguous area at {=u32:x}: no {=u32} pages, align order {=u32}",
                self.base().get(),
                count,
                align_order
            );
        }
        outcome
    }

    fn try_alloc(&self, count: u32, align_order: u32) -> Result<Pfn, CmaError> {
        if count == 0 || count > self.count() {
            let area = self.count();
            return Err(CmaError::Count { count, area });
        }
        if align_order > MAX_ALIGN_ORDER {
            return Err(CmaError::Alignment(align_order));
        }
        match PerCpu::current().context() {
            Context::Task => {}
            context => return Err(CmaError::Context(context)),
        }
        let turn = self.migration.take_turn().ok_or(CmaError::Nested)?;
        let mut failure = CmaError::Full { count, align_order };
        let mut from = 0;
        loop {
            let Some(wanted) = self.reserve(from, count, align_order) else {
                return Err(failure);
            };
            match contig::take(self.pages, self.migration, &turn, &wanted) {
                Ok(moved) => {
                    self.record(wanted.start, count);
                    self.state.lock().stats.migrated += moved;
                    return Ok(wanted.start);
                }
                Err(contig::Obstacle::Busy(pfn)) => {
                    self.unreserve(&wanted);
                    self.state.lock().stats.busy += 1;
                    failure = CmaError::Busy(pfn);
                    // No stretch with that frame in it would do better.
                    from = pfn.get() - self.base().get() + 1;
                }
                Err(contig::Obstacle::NoTarget(error)) => {
                    self.unreserve(&wanted);
                    return Err(CmaError::NoTarget(error));
                }
            }
        }
    }

    /// Marks the first stretch at or after page `from` that will do as taken.
    fn reserve(&self, from: u32, count: u32, align_order: u32) -> Option<Range<Pfn>> {
        let mut state = self.state.lock();
        let skew = self.base().get() & ((1 << align_order) - 1);
        let first = state.taken.find_clear(from, count, align_order, skew)?;
        state.taken.set(first..first + count);
        state.stats.used += count;
        let start = self.base() + first;
        Some(start..start + count)
    }

    fn unreserve(&self, range: &Range<Pfn>) {
        let first = range.start.get() - self.base().get();
        let end = range.end.get() - self.base().get();
        let mut state = self.state.lock();
        state.taken.clear(first..end);
        state.stats.used -= end - first;
    }

    /// Notes in the first frame's descriptor what starts there.
    fn record(&self, start: Pfn, count: u32) {
        // The frame was taken from its zone: its descriptor is there.
        if let Ok(frame) = self.pages.frames().get(start) {
            frame.set_data(count);
            frame.set_head(FrameKind::CmaAllocated, 0);
        }
    }

    /// The descriptor of the first frame of the allocation of `count` pages at `pfn`.
    fn head(&self, state: &State, pfn: Pfn, count: u32) -> Result<&'static Frame, CmaError> {
        if !state.taken.is_set(pfn.get() - self.base().get()) {
            return Err(CmaError::DoubleRelease(pfn));
        }
        let head = self.pages.frames().get(pfn).ok();
        let head = head
            .filter(|frame| frame.kind() == FrameKind::CmaAllocated)
            .ok_or(CmaError::NotFirst(pfn))?;
        match head.data() {
            has if has == count => Ok(head),
            has => Err(CmaError::Partial {
                pfn,
                has,
                given: count,
            }),
        }
    }

    /// Releases what [`alloc`](Self::alloc) returned; the pages are lent again. May be called in any
    /// context.
    ///
    /// # Errors
    ///
    /// [`CmaError`] from `Foreign` on, when `pfn` is not the first frame of an allocation of
    /// `count` pages from this area, or a page of it has another memory type than Normal
    /// write-back.
    ///
    /// # Safety
    ///
    /// If it is such an allocation, it belongs to the caller, who no longer uses it, and no mapping
    /// of it other than the direct map is left.
    #[doc(alias = "cma_release")]
    pub unsafe fn release(&self, pfn: Pfn, count: u32) -> Result<(), CmaError> {
        if !self.contains(pfn) {
            return Err(CmaError::Foreign(pfn));
        }
        let frames = self.pages.frames();
        self.head(&self.state.lock(), pfn, count)?;
        for page in (0..count).map(|page| pfn + page) {
            if let Ok(memory_type) = frames.memory_type(page)
                && memory_type != MemoryType::NormalWriteBack
            {
                return Err(CmaError::MemoryType {
                    pfn: page,
                    memory_type,
                });
            }
        }
        let mut state = self.state.lock();
        // Asked again under the lock, so that of two releases one finds a tail.
        self.head(&state, pfn, count)?.set_kind(FrameKind::Tail);
        state.stats.released += 1;
        drop(state);
        let range = pfn..pfn + count;
        // SAFETY: the frames were taken by `alloc` and belong to the caller; they are tails, as
        // the head is now too.
        unsafe { self.pages.zone_at(pfn).give_range(frames, &range) };
        self.unreserve(&range);
        Ok(())
    }
}

impl fmt::Display for Cma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        write!(
            f,
            "cma name={} frames={} pages={} used={} allocated={} failed={} released={} migrated={} busy={}",
            self.area.name,
            self.area.frames,
            self.count(),
            stats.used,
            stats.allocated,
            stats.failed,
            stats.released,
            stats.migrated,
            stats.busy
        )
    }
}

#[cfg(test)]
mod tests;
