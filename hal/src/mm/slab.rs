//! Slab caches: objects of one size, carved from blocks of pages.
//!
//! ```text
//! caller <--> magazine of this core <--batch--> slabs of the cache <--> page allocator
//!             (no mask, no lock)                (one lock per cache)
//! ```
//!
//! Whichever core frees an object, it goes into that core's magazine; when the magazine overflows,
//! a batch goes back to the slabs the objects came from. So there is no remote path: an object
//! freed far from home takes the same two steps as any other. Interrupt handlers have no
//! magazines and go to the slabs, so that a task need not mask them. Batches are small, a call that
//! gets a slab does not fill the magazine too, and at most one slab goes back to the page allocator
//! in one call, which bounds the cost of any single call.
//!
//! Slabs have no header: objects start at the first byte, which keeps the alignment promise, and
//! the frame descriptors lead from any address to its slab and cache.

mod charge;
#[cfg(feature = "slab-debug")]
mod debug;
mod flags;
mod geometry;
mod kmem_cache;
mod magazine;
mod packed;
mod registry;
mod slabs;

#[cfg(feature = "slab-debug")]
pub use debug::{Site, SlabFault, SlabReport, set_slab_hook, take_slab_report};
#[cfg(feature = "slab-debug")]
pub(super) use debug::{Slot, freed_object_at};
pub use flags::SlabFlags;
pub(super) use geometry::Geometry;
pub(crate) use geometry::SLOT;
pub use geometry::{CacheError, MAX_OBJECT_SIZE, MAX_SLAB_ORDER};
pub use kmem_cache::{DestroyError, KmemCache};
pub(crate) use magazine::Magazines;
pub(super) use magazine::SlotStore;
pub(super) use packed::is_packed;
pub use packed::{MAX_PACKED_SIZE, PACKED_ALIGN};
pub use registry::{MAX_NAMED_CACHES, named_caches};
pub(super) use registry::{name_of, named};
pub(super) use slabs::Slabs;

use super::buddy::FreeError;
use super::frame::{FIRST_TAG, Frame, FrameError, FrameKind, FrameLookup, FrameTable};
use super::kmalloc::KMALLOC_CACHES;
use super::page::{PageAllocator, check_context};
use super::{AllocError, Gfp, fault};
use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::layout;
use crate::sync::IrqLock;
use core::fmt;
use core::ptr::NonNull;
use magazine::Magazine;

/// Most slabs that go back to the page allocator in one call.
const RELEASED_PER_DRAIN: usize = 1;

/// Tag of the first named cache; those below belong to `kmalloc`.
const FIRST_NAMED: u8 = FIRST_TAG + KMALLOC_CACHES as u8;

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
    #[error("the object at {va} belongs to slab cache {cache}")]
    WrongCache {
        /// The address.
        va: VirtAddr,
        /// The cache it belongs to.
        cache: &'static str,
    },
    /// Bytes of an object outside the window that may be copied out.
    #[error("{len} bytes at offset {offset} of slab cache {cache} lie outside {window:?}")]
    Usercopy {
        /// The cache.
        cache: &'static str,
        /// Offset of the first byte in the object.
        offset: usize,
        /// Bytes asked for.
        len: usize,
        /// Start and end of the window.
        window: (usize, usize),
    },
    /// The page allocator refused the block.
    #[error(transparent)]
    Pages(#[from] FreeError),
}

/// What makes an object of a cache ready for use, in a slab just made. It is called with the
/// address of the object, whose content is garbage.
pub type Constructor = fn(NonNull<u8>);

/// What a cache holds at one moment: a line of the slab report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// The cache's name; `kmalloc` caches are told apart by their objects' size.
    pub name: &'static str,
    /// Bytes per object.
    pub object_size: usize,
    /// Objects in a slab of the order the cache prefers.
    pub objects_per_slab: u32,
    /// Slabs the cache owns.
    pub slabs: u32,
    /// Slabs without an object in use.
    pub empty_slabs: u32,
    /// Objects with callers or in the cores' magazines.
    pub objects_out: u32,
}

impl fmt::Display for CacheInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            object_size,
            objects_per_slab,
            slabs,
            empty_slabs,
            objects_out,
        } = self;
        write!(
            f,
            "{name} objects_out={objects_out} objsize={object_size} objperslab={objects_per_slab} \
             slabs={slabs} empty={empty_slabs}"
        )
    }
}

/// A cache: its constant and its changing part, and its tag in the frame descriptors.
#[derive(Clone, Copy)]
pub(super) struct Cache<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) slabs: &'a IrqLock<Slabs>,
    /// Objects at hand, unless this core or the cache has none. A cache with a constructor has none
    /// on any core, and writes nothing into free objects.
    pub(super) magazine: Option<Magazine<'a>>,
    pub(super) constructor: Option<Constructor>,
    pub(super) tag: u8,
}

impl Cache<'_> {
    /// Allocates an object when the magazine has none: fills it from the slabs, adding one if they
    /// are used up. Pages are allocated without a lock and with IRQs as the caller had them.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(super) fn alloc(&self, pages: &PageAllocator, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        check_context(gfp)?;
        if fault::should_fail(gfp) {
            return Err(AllocError::NoMemory { order: 0, gfp });
        }
        if self.geometry.accounted {
            return self.alloc_charged(pages, gfp);
        }
        self.alloc_object(pages, gfp)
    }

    #[cfg_attr(feature = "slab-debug", track_caller)]
    fn alloc_object(&self, pages: &PageAllocator, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let frames = pages.frames().lookup();
        let mut most = usize::from(self.geometry.refill);
        loop {
            if let Some(object) = self.take(frames, most) {
                #[cfg(feature = "slab-debug")]
                self.object_taken(object);
                if self.constructor.is_none() {
                    set_mark(object, NO_MARK);
                    self.geometry.zero_if(object, gfp);
                }
                return Ok(object);
            }
            let (slab, order) = self.alloc_slab(pages, gfp)?;
            #[cfg(feature = "slab-debug")]
            self.prepare(slab, order);
            self.construct(slab, order);
            self.slabs.lock().add(frames, slab, order, self.tag);
            // A slab was dear enough: the next call fills the magazine.
            most = 1;
        }
    }

    /// Takes an object: from the magazine, which is filled with up to `most` if it is empty.
    fn take(&self, frames: FrameLookup, most: usize) -> Option<NonNull<u8>> {
        if let Some(magazine) = self.magazine {
            if magazine.len() == 0 {
                self.slabs.lock().take(frames, self.geometry, most, |va| {
                    // SAFETY: a magazine has room for what it is filled with.
                    unsafe { magazine.push(va.as_ptr()) };
                });
            }
            return magazine.pop();
        }
        let mut taken = None;
        self.slabs.lock().take(frames, self.geometry, 1, |va| {
            taken = NonNull::new(va.as_ptr());
        });
        taken
    }

    /// Bytes usable in an object.
    pub(super) fn object_size(&self) -> usize {
        self.geometry.object as usize
    }

    /// Runs the constructor for each object of a block that will be a slab.
    fn construct(&self, slab: Pfn, order: u32) {
        let Some(constructor) = self.constructor else {
            return;
        };
        let start = layout::phys_to_virt(slab.phys()) + self.geometry.lead as usize;
        for number in 0..self.geometry.objects(order) as usize {
            let object = start + number * self.geometry.size as usize;
            if let Some(object) = NonNull::new(object.as_ptr()) {
                constructor(object);
            }
        }
    }

    /// A block for a slab: of the preferred order if that is easily had, else of the smallest.
    fn alloc_slab(&self, pages: &PageAllocator, gfp: Gfp) -> Result<(Pfn, u32), AllocError> {
        let gfp = gfp
            .difference(Gfp::ZERO | Gfp::DMA | Gfp::DMA32 | Gfp::HIGHMEM | Gfp::MOVABLE)
            .union(self.geometry.pages)
            // A slab has objects of many owners.
            .difference(Gfp::ACCOUNT);
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

    /// Whether an object in use starts at `va`, in `frame`, part of a slab of this cache.
    pub(super) fn check_object(
        &self,
        va: VirtAddr,
        pa: PhysAddr,
        frame: &'static Frame,
    ) -> Result<NonNull<u8>, ObjectError> {
        let object = match NonNull::new(va.as_ptr::<u8>()) {
            Some(object) if slabs::is_start(self.geometry, pa, frame) => object,
            _ => return Err(ObjectError::NotAtObject(va)),
        };
        let out = frame.objects_out() & 1 << (pa.page_offset() / SLOT) != 0;
        match self.constructor {
            None if mark_at(object) == mark_in(frame) => Err(ObjectError::DoubleFree(va)),
            // The object may never have been handed out, too.
            Some(_) if !out => Err(ObjectError::DoubleFree(va)),
            #[cfg(feature = "slab-debug")]
            None if !out && self.was_freed(object) => Err(ObjectError::DoubleFree(va)),
            None if !out => Err(ObjectError::NotAtObject(va)),
            _ => Ok(object),
        }
    }

    /// Frees the object at `va`, in `frame`, part of a slab of this cache: into the magazine, which
    /// gives its newest objects back if it is full, or into the slab.
    ///
    /// # Safety
    ///
    /// If an object in use starts at `va`, it belongs to the caller, who no longer uses it.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(super) unsafe fn free(
        &self,
        pages: &PageAllocator,
        va: VirtAddr,
        pa: PhysAddr,
        frame: &'static Frame,
    ) -> Result<(), ObjectError> {
        let checked = self.check_object(va, pa, frame);
        #[cfg(feature = "slab-debug")]
        if let Err(error) = checked {
            let fault = match error {
                ObjectError::DoubleFree(_) => SlabFault::AlreadyFree,
                _ => SlabFault::NotAnObject,
            };
            self.wrong_free(fault, va, pa, frame, Site::here());
        }
        let object = checked?;
        if self.geometry.accounted {
            self.uncharge(pa, frame);
        }
        #[cfg(feature = "slab-debug")]
        self.object_given(object);
        // The debug build has poison there, and each object out of its slab is in use.
        if self.constructor.is_none() && !cfg!(feature = "slab-debug") {
            set_mark(object, mark_in(frame));
        }
        let lookup = pages.frames().lookup();
        match self.magazine {
            Some(magazine) => {
                if magazine.free() == 0 && self.make_room(lookup, magazine) {
                    self.release_empty(pages, self.kept_empty(), RELEASED_PER_DRAIN);
                }
                // SAFETY: there was room, or a batch just left.
                unsafe { magazine.push(object.as_ptr()) };
            }
            None => {
                let mut object = Some(object);
                let mut slabs = self.slabs.lock();
                slabs.give(lookup, 1, || object.take());
                let releases = slabs.empty_count() > self.kept_empty();
                drop(slabs);
                if releases {
                    self.release_empty(pages, self.kept_empty(), RELEASED_PER_DRAIN);
                }
            }
        }
        Ok(())
    }

    fn kept_empty(&self) -> u32 {
        self.geometry.kept_empty.into()
    }

    /// Gives a batch of the full magazine back, or a single object if a slab is to be released too,
    /// which it tells.
    fn make_room(&self, frames: FrameLookup, magazine: Magazine<'_>) -> bool {
        let mut slabs = self.slabs.lock();
        let releases = slabs.empty_count() > self.kept_empty();
        let count = if releases { 1 } else { self.geometry.drain };
        slabs.give(frames, count.into(), || magazine.pop());
        releases
    }

    /// Gives the newest objects of the magazine back to their slabs: no entry moves.
    fn drain(&self, frames: FrameLookup, magazine: Magazine<'_>, count: usize) {
        self.slabs.lock().give(frames, count, || magazine.pop());
    }

    /// Gives up to `most` empty slabs back to the page allocator, as long as more than `kept` are
    /// there.
    fn release_empty(&self, pages: &PageAllocator, kept: u32, most: usize) {
        let frames = pages.frames().lookup();
        for _ in 0..most {
            let mut slabs = self.slabs.lock();
            if slabs.empty_count() <= kept {
                return;
            }
            let Some((slab, order)) = slabs.remove_empty(frames) else {
                return;
            };
            drop(slabs);
            // SAFETY: the slab has left the cache and none of its objects is in use.
            let freed = unsafe { pages.free_pages(slab, order) };
            debug_assert_eq!(freed, Ok(()), "a slab is a block of allocated pages");
        }
    }

    /// Empties this core's magazine, takes it away until the next slow call, and gives all empty
    /// slabs back. Objects in the magazines of other cores keep their slabs.
    pub(super) fn shrink(&self, pages: &PageAllocator) {
        if let Some(magazine) = self.magazine {
            self.drain(pages.frames().lookup(), magazine, usize::MAX);
            magazine.close();
        }
        self.release_empty(pages, 0, usize::MAX);
    }

    pub(super) fn info(&self, name: &'static str) -> CacheInfo {
        let slabs = self.slabs.lock();
        CacheInfo {
            name,
            object_size: self.geometry.object as usize,
            objects_per_slab: self
                .geometry
                .objects(u32::from(self.geometry.preferred_order)),
            slabs: slabs.count(),
            empty_slabs: slabs.empty_count(),
            objects_out: slabs.objects_out(),
        }
    }
}

/// What the second word of an object in use is set to when the object is handed out.
const NO_MARK: usize = 0;

/// What the second word of a free object holds: the address of a word of its frame's descriptor
/// that no descriptor's user can name, so no caller stores it there.
#[inline(always)]
fn mark_in(frame: &Frame) -> usize {
    frame.private_address()
}

#[inline(always)]
fn mark_of(object: NonNull<u8>) -> *mut usize {
    // SAFETY: objects are at least two words long.
    unsafe { object.cast::<usize>().add(1).as_ptr() }
}

/// The second word of `object`, which is an object of a slab, or at least memory of one.
#[inline(always)]
fn mark_at(object: NonNull<u8>) -> usize {
    // SAFETY: the memory is mapped, and aligned to 8. Volatile, because the caller may never have
    // written the word, and the comparison must be with what memory holds.
    unsafe { mark_of(object).read_volatile() }
}

/// Marks `object`, which belongs to nobody but the caller.
#[inline(always)]
fn set_mark(object: NonNull<u8>, mark: usize) {
    // SAFETY: the object is mapped and aligned to 8, and nobody uses it.
    unsafe { mark_of(object).write(mark) };
}

/// Takes an object of the cache with `tag` from this core's magazine.
#[inline(always)]
pub(super) fn alloc_fast(core: &Magazines, tag: u8) -> Option<NonNull<u8>> {
    let object = core.pop(tag)?;
    set_mark(object, NO_MARK);
    Some(object)
}

/// Frees the object at `va` into this core's magazine of its cache, if `admits` its tag. `None` when
/// that takes more, or is a mistake; nothing has changed then.
///
/// # Safety
///
/// If an object in use starts at `va`, it belongs to the caller, who no longer uses it.
#[inline(always)]
pub(super) unsafe fn free_fast(
    core: &Magazines,
    va: VirtAddr,
    admits: impl FnOnce(u8) -> bool,
) -> Option<()> {
    let (frame, slot) = core
        .frames()
        .find_slot(layout::distance_into_direct_map(va))?;
    if frame.objects_out().wrapping_shr(slot) & 1 == 0 {
        return None;
    }
    // A frame of another kind gets no further: no cache has its kind as a tag.
    let tag = frame.tag();
    if !admits(tag) {
        return None;
    }
    let room = core.room(tag)?;
    // SAFETY: an address of the direct map is not null.
    let object = unsafe { NonNull::new_unchecked(va.as_ptr::<u8>()) };
    if mark_at(object) == mark_in(frame) {
        return None;
    }
    set_mark(object, mark_in(frame));
    room.fill(object);
    Some(())
}

/// Whether the object at `object`, in the slab that `frame` is part of, is free, as far as its mark
/// tells.
pub(super) fn is_marked_free(frame: &Frame, object: NonNull<u8>) -> bool {
    mark_at(object) == mark_in(frame)
}

/// Calls `f` with the address of each object of a frame of a slab that is out of it and not free.
fn in_use(pfn: Pfn, frame: &Frame, f: &mut impl FnMut(VirtAddr)) {
    let mut out = frame.objects_out();
    while out != 0 {
        let slot = out.trailing_zeros() as usize;
        out &= out - 1;
        let va = layout::phys_to_virt(pfn.phys()) + slot * SLOT;
        let marked = NonNull::new(va.as_ptr()).is_some_and(|o| mark_at(o) == mark_in(frame));
        if !marked {
            f(va);
        }
    }
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
