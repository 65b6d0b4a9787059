//! A cache of objects, whichever it is: between the cores' magazines, the slabs and the pages.

#[cfg(feature = "slab-debug")]
use super::debug::{Site, SlabFault};
use super::magazine::{Holder, Magazine};
use super::mark::{is_marked_free, mark_free, mark_used};
use super::{CacheInfo, Geometry, ObjectError, SLOT, Slabs, slabs};
use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::layout;
use crate::mm::frame::{Frame, FrameLookup};
use crate::mm::misuse::{NO_OBJECT, note_object_flags};
use crate::mm::page::{PageAllocator, check_context};
use crate::mm::{AllocError, Gfp, fault};
use crate::sync::IrqLock;
use core::ptr::NonNull;

/// Most slabs that go back to the page allocator in one call.
const RELEASED_PER_DRAIN: usize = 1;

/// What a request says of its object and not of the slab, whose zone and grouping are the cache's.
pub(super) const OF_OBJECTS: Gfp = NO_OBJECT
    .union(Gfp::ZERO)
    .union(Gfp::DMA)
    .union(Gfp::DMA32)
    .union(Gfp::RECLAIMABLE);

/// What makes an object of a cache ready for use, in a slab just made. It is called with the
/// address of the object, whose content is garbage.
pub type Constructor = fn(NonNull<u8>);

/// A cache: its constant and its changing part, and its tag in the frame descriptors.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Cache<'a> {
    pub(in crate::mm) geometry: &'a Geometry,
    pub(in crate::mm) slabs: &'a IrqLock<Slabs>,
    /// Where this core has objects at hand, unless the cache has none on any core. A cache with a
    /// constructor has none, and writes nothing into free objects.
    pub(in crate::mm) at_hand: Option<Holder<'a>>,
    pub(in crate::mm) constructor: Option<Constructor>,
    pub(in crate::mm) tag: u8,
}

impl Cache<'_> {
    /// Allocates an object when the magazine has none: fills it from the slabs, adding one if they
    /// are used up. Pages are allocated without a lock and with IRQs as the caller had them. Flags
    /// that make no sense are counted here and not where an object is at hand.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(in crate::mm) fn alloc(
        &self,
        pages: &PageAllocator,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        check_context(gfp)?;
        note_object_flags(gfp);
        if fault::should_fail(gfp) {
            return Err(AllocError::NoMemory { order: 0, gfp });
        }
        if self.geometry.accounted {
            return self.alloc_charged(pages, gfp);
        }
        self.alloc_object(pages, gfp)
    }

    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(super) fn alloc_object(
        &self,
        pages: &PageAllocator,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let frames = pages.frames().lookup();
        let mut most = usize::from(self.geometry.refill);
        loop {
            if let Some(object) = self.take(frames, most) {
                #[cfg(feature = "slab-debug")]
                self.object_taken(object);
                if self.constructor.is_none() {
                    mark_used(object);
                    self.geometry.zero_if(object, gfp);
                }
                return Ok(object);
            }
            self.add_slab(pages, gfp)?;
            // A slab was dear enough: the next call fills the magazine.
            most = 1;
        }
    }

    /// Takes an object: from the magazine, which is filled with up to `most` if it is empty. Asks for
    /// the magazine anew: it may have been closed since the last time.
    fn take(&self, frames: FrameLookup, most: usize) -> Option<NonNull<u8>> {
        if let Some(magazine) = self.at_hand.and_then(Holder::open) {
            let mut open = magazine.open();
            if let Some(object) = open.pop() {
                return Some(object);
            }
            let mut slabs = self.slabs.lock();
            // One alone is taken from the magazine at once.
            if most > 1 {
                slabs.mark(frames, self.geometry);
            }
            slabs.take(frames, self.geometry, most, |row| {
                for object in row.objects() {
                    // SAFETY: a magazine has room for what it is filled with.
                    unsafe { open.push(object) };
                }
            });
            drop(slabs);
            return open.pop();
        }
        let mut taken = None;
        self.slabs.lock().take(frames, self.geometry, 1, |row| {
            taken = row.objects().next();
        });
        taken
    }

    /// Bytes usable in an object.
    pub(in crate::mm) fn object_size(&self) -> usize {
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

    /// Allocates a slab.
    pub(super) fn add_slab(&self, pages: &PageAllocator, gfp: Gfp) -> Result<(), AllocError> {
        let (slab, order) = self.alloc_slab(pages, gfp)?;
        #[cfg(feature = "slab-debug")]
        self.prepare(slab, order);
        self.construct(slab, order);
        let frames = pages.frames().lookup();
        let mut slabs = self.slabs.lock();
        slabs.add(frames, slab, order, self.tag);
        // The debug build has poison there, and no magazines.
        if self.at_hand.is_some() && !cfg!(feature = "slab-debug") {
            slabs.mark_later(frames, self.geometry, slab);
        }
        Ok(())
    }

    /// A block for a slab: of the preferred order if that is easily had, else of the smallest.
    fn alloc_slab(&self, pages: &PageAllocator, gfp: Gfp) -> Result<(Pfn, u32), AllocError> {
        let gfp = gfp
            .difference(OF_OBJECTS)
            .union(self.geometry.pages)
            // A slab has objects of many owners.
            .difference(Gfp::ACCOUNT);
        let (order, least) = (
            u32::from(self.geometry.preferred_order),
            u32::from(self.geometry.smallest_order),
        );
        if order > least {
            let mut light = gfp
                .difference(Gfp::NOFAIL)
                .union(Gfp::NOWARN | Gfp::NORETRY);
            // The smaller one will do, so nothing is reclaimed, and no reserve taken, for this one.
            if light.may_block() {
                light = light.difference(Gfp::RECLAIM).union(Gfp::NOMEMALLOC);
            }
            if let Ok(slab) = pages.alloc_pages(light, order) {
                return Ok((slab, order));
            }
        }
        Ok((pages.alloc_pages(gfp, least)?, least))
    }

    /// Whether an object in use starts at `va`, in `frame`, part of a slab of this cache.
    pub(in crate::mm) fn check_object(
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
            None if is_marked_free(object) => Err(ObjectError::DoubleFree(va)),
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
    pub(in crate::mm) unsafe fn free(
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
        let object = checked.map_err(ObjectError::noted)?;
        if self.geometry.accounted {
            self.uncharge(pa, frame);
        }
        #[cfg(feature = "slab-debug")]
        self.object_given(object);
        // The debug build has poison there, and each object out of its slab is in use.
        if self.constructor.is_none() && !cfg!(feature = "slab-debug") {
            mark_free(object);
        }
        let lookup = pages.frames().lookup();
        match self.at_hand.and_then(Holder::open) {
            Some(magazine) => {
                let releases = magazine.free() == 0 && self.make_room(lookup, magazine);
                // SAFETY: there was room, or a batch just left.
                unsafe { magazine.open().push(object) };
                if releases {
                    self.release_empty(pages, self.kept_empty(), RELEASED_PER_DRAIN);
                }
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

    pub(super) fn kept_empty(&self) -> u32 {
        self.geometry.kept_empty.into()
    }

    /// Gives a batch of the full magazine back, or a single object if a slab is to be released too,
    /// which it tells.
    fn make_room(&self, frames: FrameLookup, magazine: Magazine<'_>) -> bool {
        let mut slabs = self.slabs.lock();
        let releases = slabs.empty_count() > self.kept_empty();
        let count = if releases { 1 } else { self.geometry.drain };
        let mut open = magazine.open();
        slabs.give(frames, count.into(), || open.pop());
        releases
    }

    /// Gives up to `most` empty slabs back to the page allocator, as long as more than `kept` are
    /// there.
    pub(super) fn release_empty(&self, pages: &PageAllocator, kept: u32, most: usize) {
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
    pub(in crate::mm) fn shrink(&self, pages: &PageAllocator) {
        if let Some(magazine) = self.at_hand.and_then(Holder::opened) {
            let frames = pages.frames().lookup();
            while magazine.len() != 0 {
                let mut open = magazine.open();
                self.slabs.lock().give(frames, usize::MAX, || open.pop());
            }
            magazine.close();
        }
        self.release_empty(pages, 0, usize::MAX);
    }

    pub(in crate::mm) fn info(&self, name: &'static str) -> CacheInfo {
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
