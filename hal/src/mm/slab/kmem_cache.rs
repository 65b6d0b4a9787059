//! Named caches.

use super::magazine::SlotStore;
use super::{
    Cache, CacheError, CacheInfo, FIRST_NAMED, Geometry, ObjectError, Slabs, alloc_fast, frame_of,
};
use crate::addr::VirtAddr;
use crate::mm::frame::FrameKind;
use crate::mm::page::{PageAllocator, check_context};
use crate::mm::{AllocError, Gfp};
use crate::sync::{IrqLock, PerCpu};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

/// A named cache of objects of one size. Linux: `kmem_cache`.
///
/// Lives in a `static`. Objects keep their slabs alive; a cache is not destroyed yet.
#[derive(Debug)]
pub struct KmemCache {
    name: &'static str,
    geometry: Geometry,
    slabs: IrqLock<Slabs>,
    slots: SlotStore<MAGAZINE_STRIDES>,
    /// The number in the frame descriptors, 0 until the first allocation.
    tag: AtomicU8,
}

/// Room for the objects a core keeps at hand.
const MAGAZINE_STRIDES: usize = 1;

impl KmemCache {
    /// A cache of objects of `size` bytes, aligned to `align` (a power of two up to a page).
    ///
    /// Objects that a device will reach need an alignment, and hence a size, of whole cache lines.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when no slab can hold such objects.
    pub const fn new(name: &'static str, size: usize, align: usize) -> Result<Self, CacheError> {
        match Geometry::new(size, align, Gfp::empty()) {
            Ok(geometry) => Ok(Self {
                name,
                geometry: geometry.with_magazine_of(MAGAZINE_STRIDES),
                slabs: IrqLock::new(Slabs::new()),
                slots: SlotStore::new(),
                tag: AtomicU8::new(0),
            }),
            Err(error) => Err(error),
        }
    }

    /// The name given at creation.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What the cache holds now.
    pub fn info(&'static self) -> CacheInfo {
        self.cache(0).info()
    }

    fn cache(&'static self, tag: u8) -> Cache<'static> {
        let core = PerCpu::current();
        let magazine = (tag != 0).then(|| {
            let capacity = usize::from(self.geometry.magazine);
            core.magazines()
                .magazine(tag, &self.slots, 0, capacity, core.index())
        });
        Cache {
            geometry: &self.geometry,
            slabs: &self.slabs,
            magazine: magazine.flatten(),
            tag,
        }
    }

    /// The cache's tag, given to it at its first allocation.
    fn tag(&self) -> Result<u8, AllocError> {
        static NEXT: AtomicU8 = AtomicU8::new(FIRST_NAMED);
        match self.tag.load(Ordering::Relaxed) {
            0 => {
                let new = NEXT
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1))
                    .map_err(|_| AllocError::TooManyCaches)?;
                let raced = self
                    .tag
                    .compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
                Ok(raced.err().unwrap_or(new))
            }
            tag => Ok(tag),
        }
    }

    /// Allocates an object. Linux: `kmem_cache_alloc`. Any context, as the flags say.
    ///
    /// # Errors
    ///
    /// [`AllocError`] when there is no page for a new slab, or no number left for the cache.
    pub fn alloc(
        &'static self,
        pages: &PageAllocator,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        check_context(gfp)?;
        let tag = self.tag()?;
        match alloc_fast(PerCpu::current().magazines(), tag) {
            Some(object) => {
                self.cache(tag).finish(object, gfp);
                Ok(object)
            }
            None => self.cache(tag).alloc(pages, gfp),
        }
    }

    /// Frees an object. Linux: `kmem_cache_free`. Any context.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] when no object of this cache starts at `object` or it is free already.
    ///
    /// # Safety
    ///
    /// If an object in use starts at `object`, it belongs to the caller, who no longer uses it.
    pub unsafe fn free(
        &'static self,
        pages: &PageAllocator,
        object: *mut u8,
    ) -> Result<(), ObjectError> {
        let va = VirtAddr::from_ptr(object);
        let (pa, frame) = frame_of(pages.frames(), va)?;
        let tag = self.tag.load(Ordering::Relaxed);
        match frame.kind() {
            // A cache without a tag has no objects.
            FrameKind::Slab if frame.tag() == tag => {
                // SAFETY: the caller gives the object up; the frame belongs to this cache.
                unsafe { self.cache(tag).free(pages, va, pa, frame) }
            }
            FrameKind::Slab => Err(ObjectError::WrongCache {
                va,
                cache: frame.tag(),
            }),
            kind => Err(ObjectError::NotAnObject { va, kind }),
        }
    }

    /// Gives the memory of free objects back, except what other cores keep at hand.
    pub fn shrink(&'static self, pages: &PageAllocator) {
        self.cache(self.tag.load(Ordering::Relaxed)).shrink(pages);
    }
}
