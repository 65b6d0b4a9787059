//! Slab caches: objects of one size, carved from blocks of pages.
//!
//! ```text
//! caller <--> magazine of this core <--batch--> slabs of the cache <--> page allocator
//!             (IRQs masked, no lock)            (one lock per cache)
//! ```
//!
//! Whichever core frees an object, it goes into that core's magazine; when the magazine overflows,
//! its older half goes back to the slabs the objects came from. So there is no remote path: an
//! object freed far from home takes the same two steps as any other. Batches are small and at most
//! two slabs go back to the page allocator in one call, which bounds the cost of
//! any single call.
//!
//! Slabs have no header: objects start at the first byte, which keeps the alignment promise, and
//! the frame descriptors lead from any address to its slab and cache.

mod geometry;
mod kmem_cache;
mod magazine;
mod slabs;

pub(super) use geometry::Geometry;
pub use geometry::{CacheError, MAX_OBJECT_SIZE, MAX_SLAB_ORDER, MIN_OBJECT_SIZE};
pub use kmem_cache::KmemCache;

use super::buddy::FreeError;
use super::frame::{Frame, FrameError, FrameKind, FrameTable};
use super::page::PageAllocator;
use super::zero::zero;
use super::{AllocError, Gfp};
use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::layout;
use crate::sync::{IrqLock, MAX_CPUS, PerCpuCell, PerCpuSlot};
use core::ptr::NonNull;
use magazine::Magazine;
use slabs::Slabs;

/// Empty slabs a cache keeps for the next allocation.
const KEPT_EMPTY: u32 = 1;

/// Most slabs that go back to the page allocator in one call.
const RELEASED_PER_DRAIN: usize = 2;

/// Why an object was not freed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The memory was mapped page by page: it is freed with `vfree`.
    #[error("{0} is a vmalloc address")]
    VmallocAddress(VirtAddr),
    /// The address is not in the direct map.
    #[error("{0} is not in the direct map")]
    NotDirectMap(VirtAddr),
    /// No allocator ever handed out memory there.
    #[error("{va} was never allocated: {error}")]
    NotAllocated {
        /// The address.
        va: VirtAddr,
        /// What the frame's descriptor says.
        error: FrameError,
    },
    /// The memory is free, or in use for something else.
    #[error("{va} is no object: its frame is {kind:?}")]
    NotAnObject {
        /// The address.
        va: VirtAddr,
        /// What its frame is used for.
        kind: FrameKind,
    },
    /// No object that is in use starts there.
    #[error("{0} points into a slab but not at an object in use")]
    NotAtObject(VirtAddr),
    /// The object is free already.
    #[error("the object at {0} is free already")]
    DoubleFree(VirtAddr),
    /// The object belongs to another cache.
    #[error("the object at {va} belongs to cache number {cache}")]
    WrongCache {
        /// The address.
        va: VirtAddr,
        /// Number of the cache it belongs to.
        cache: u8,
    },
    /// The page allocator refused the block.
    #[error(transparent)]
    Pages(#[from] FreeError),
}

/// What a cache holds at one moment: a line of the slab report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// Bytes per object.
    pub object_size: usize,
    /// Slabs the cache owns.
    pub slabs: u32,
    /// Slabs without an object in use.
    pub empty_slabs: u32,
    /// Objects with callers or in the cores' magazines.
    pub objects_out: u32,
}

/// The changing part of a cache. All zero is one without memory.
#[derive(Debug)]
pub(super) struct CacheState {
    magazines: PerCpuCell<Magazine>,
    slabs: IrqLock<Slabs>,
}

impl CacheState {
    pub(super) const fn new() -> Self {
        Self {
            magazines: PerCpuCell::new([const { PerCpuSlot::new(Magazine::new()) }; MAX_CPUS]),
            slabs: IrqLock::new(Slabs::new()),
        }
    }
}

/// A cache: its constant and its changing part, and its number in the frame descriptors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cache<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) state: &'a CacheState,
    pub(super) number: u8,
}

impl Cache<'_> {
    /// Takes an object from this core's magazine.
    #[inline(always)]
    pub(super) fn alloc_fast(&self) -> Option<NonNull<u8>> {
        // SAFETY: taking an object off the stack does not come back to the cell.
        let object = unsafe { self.state.magazines.with(Magazine::pop) }?;
        // SAFETY: the object is free and ours now, at least 16 bytes long and aligned to 8.
        unsafe { mark_of(object).write(0) };
        Some(object)
    }

    /// Allocates an object; [`Gfp::ZERO`] is honoured over its whole size.
    #[inline(always)]
    pub(super) fn alloc<'p>(
        &self,
        pages: impl FnOnce() -> Option<&'p PageAllocator>,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let object = match self.alloc_fast() {
            Some(object) => object,
            None => self.alloc_slow(pages().ok_or(AllocError::NotReady)?, gfp)?,
        };
        if gfp.contains(Gfp::ZERO) {
            // SAFETY: the object is `size` bytes of mapped memory that is ours.
            unsafe {
                zero(
                    VirtAddr::from_ptr(object.as_ptr()),
                    self.geometry.size as usize,
                );
            };
        }
        Ok(object)
    }

    /// Fills the magazine from the slabs, adding one if they are used up. Pages are allocated
    /// without a lock and with IRQs as the caller had them.
    #[cold]
    fn alloc_slow(&self, pages: &PageAllocator, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let frames = pages.frames();
        loop {
            // SAFETY: the slabs do not reach the magazines.
            unsafe {
                self.state.magazines.with(|magazine| {
                    let batch = usize::from(self.geometry.magazine).div_ceil(2);
                    let wanted = batch.saturating_sub(magazine.len());
                    let mut slabs = self.state.slabs.lock();
                    slabs.take(frames, self.geometry, magazine, wanted);
                });
            }
            // An interrupt handler may have emptied the magazine in between: try again then.
            if let Some(object) = self.alloc_fast() {
                return Ok(object);
            }
            let (slab, order) = self.alloc_slab(pages, gfp)?;
            let mut slabs = self.state.slabs.lock();
            slabs.add(frames, slab, order, self.number);
        }
    }

    /// A block for a slab: of the preferred order if that is easily had, else of the smallest.
    fn alloc_slab(&self, pages: &PageAllocator, gfp: Gfp) -> Result<(Pfn, u32), AllocError> {
        let gfp = gfp
            .difference(Gfp::ZERO | Gfp::DMA | Gfp::DMA32 | Gfp::HIGHMEM | Gfp::MOVABLE)
            .union(self.geometry.zone);
        let (order, least) = (
            u32::from(self.geometry.preferred_order),
            u32::from(self.geometry.smallest_order),
        );
        if order > least {
            let light = gfp
                .difference(Gfp::NOFAIL)
                .union(Gfp::NOWARN | Gfp::NORETRY);
            if let Ok(slab) = pages.alloc_pages(light, order) {
                return Ok((slab, order));
            }
        }
        Ok((pages.alloc_pages(gfp, least)?, least))
    }

    /// The object that starts at `va`, whose frame is `frame`, part of a slab of this cache. It was
    /// handed out at some time, but may be free by now.
    #[inline(always)]
    pub(super) fn object_at(
        &self,
        frames: FrameTable,
        va: VirtAddr,
        pa: PhysAddr,
        frame: &'static Frame,
    ) -> Result<NonNull<u8>, ObjectError> {
        let offset = slabs::offset_in_slab(pa, frame.slab_order());
        let index = self.geometry.index_of(offset);
        let carved = index.is_some_and(|index| slabs::was_carved(frames.slab_head(frame), index));
        match NonNull::new(va.as_ptr::<u8>()) {
            Some(object) if carved => Ok(object),
            _ => Err(ObjectError::NotAtObject(va)),
        }
    }

    /// Frees the object at `va`, whose frame is `frame`, part of a slab of this cache.
    ///
    /// # Safety
    ///
    /// If an object in use starts at `va`, it belongs to the caller, who no longer uses it.
    #[inline(always)]
    pub(super) unsafe fn free(
        &self,
        pages: &PageAllocator,
        va: VirtAddr,
        pa: PhysAddr,
        frame: &'static Frame,
    ) -> Result<(), ObjectError> {
        let object = self.object_at(pages.frames(), va, pa, frame)?;
        let mark = mark_of(object);
        let marked = !va.get();
        // SAFETY: an object of this cache starts here: at least 16 bytes long, aligned to 8. It
        // belongs to the caller, or is free. Volatile, because the caller may never have written
        // the word, and the comparison must be with what memory holds.
        if unsafe { mark.read_volatile() } == marked {
            return Err(ObjectError::DoubleFree(va));
        }
        // SAFETY: as above, and the caller no longer uses it.
        unsafe { mark.write(marked) };
        let limit = usize::from(self.geometry.magazine);
        // SAFETY: pushing onto the stack does not come back to the cell.
        let pushed = unsafe { self.state.magazines.with(|m| m.push(object, limit)) };
        if !pushed {
            self.free_slow(pages, object);
        }
        Ok(())
    }

    /// Makes room in the magazine, then puts `object` there.
    #[cold]
    fn free_slow(&self, pages: &PageAllocator, object: NonNull<u8>) {
        let batch = usize::from(self.geometry.magazine).div_ceil(2);
        // SAFETY: the slabs do not reach the magazines.
        unsafe {
            self.state.magazines.with(|magazine| {
                self.drain(pages.frames(), magazine, batch);
                magazine.push(object, usize::MAX);
            });
        }
        self.release_empty(pages, KEPT_EMPTY, RELEASED_PER_DRAIN);
    }

    fn drain(&self, frames: FrameTable, magazine: &mut Magazine, count: usize) {
        let mut slabs = self.state.slabs.lock();
        magazine.drain_oldest(count, |object| slabs.give(frames, self.geometry, object));
    }

    /// Gives up to `most` empty slabs back to the page allocator, as long as more than `kept` are
    /// there. Returns how many.
    fn release_empty(&self, pages: &PageAllocator, kept: u32, most: usize) -> usize {
        let frames = pages.frames();
        for released in 0..most {
            let mut slabs = self.state.slabs.lock();
            if slabs.empty_count() <= kept {
                return released;
            }
            let Some((slab, order)) = slabs.remove_empty(frames) else {
                return released;
            };
            drop(slabs);
            // SAFETY: the slab has left the cache and none of its objects is in use.
            let freed = unsafe { pages.free_pages(slab, order) };
            debug_assert_eq!(freed, Ok(()), "a slab is a block of allocated pages");
        }
        most
    }

    /// Empties this core's magazine and gives all empty slabs back. Objects in the magazines of
    /// other cores keep their slabs.
    pub(super) fn shrink(&self, pages: &PageAllocator) {
        // SAFETY: the slabs do not reach the magazines.
        unsafe {
            self.state.magazines.with(|magazine| {
                self.drain(pages.frames(), magazine, magazine::CAPACITY);
            });
        }
        self.release_empty(pages, 0, usize::MAX);
    }

    pub(super) fn info(&self) -> CacheInfo {
        let slabs = self.state.slabs.lock();
        CacheInfo {
            object_size: self.geometry.size as usize,
            slabs: slabs.count(),
            empty_slabs: slabs.empty_count(),
            objects_out: slabs.objects_out(),
        }
    }
}

/// The second word of an object: while the object is free it holds the complement of its address,
/// which no user is likely to store there.
#[inline(always)]
fn mark_of(object: NonNull<u8>) -> NonNull<usize> {
    // SAFETY: objects are at least two words long.
    unsafe { object.cast::<usize>().add(1) }
}

/// The physical address behind `va`, if it is in the direct map.
pub(super) fn direct_map(va: VirtAddr) -> Result<PhysAddr, ObjectError> {
    layout::virt_to_phys(va).ok_or(if layout::VMALLOC.contains(va) {
        ObjectError::VmallocAddress(va)
    } else {
        ObjectError::NotDirectMap(va)
    })
}

/// The physical address behind `va` and its frame, if an allocator uses the memory there.
pub(super) fn frame_of(
    frames: FrameTable,
    va: VirtAddr,
) -> Result<(PhysAddr, &'static Frame), ObjectError> {
    let pa = direct_map(va)?;
    let frame = frames
        .get(pa.pfn())
        .map_err(|error| ObjectError::NotAllocated { va, error })?;
    Ok((pa, frame))
}

#[cfg(test)]
mod tests;
