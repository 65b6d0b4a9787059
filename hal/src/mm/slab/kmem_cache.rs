//! Named caches.

use super::{Cache, CacheError, CacheInfo, CacheState, Geometry, ObjectError, frame_of};
use crate::addr::VirtAddr;
use crate::mm::frame::FrameKind;
use crate::mm::page::PageAllocator;
use crate::mm::{AllocError, Gfp};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

/// A named cache of objects of one size. Linux: `kmem_cache`.
///
/// Usable in a `static`. Objects keep their slabs alive; a cache is not destroyed yet.
#[derive(Debug)]
pub struct KmemCache {
    name: &'static str,
    geometry: Geometry,
    state: CacheState,
    /// The number in the frame descriptors, 0 until the first allocation.
    number: AtomicU8,
}

/// Numbers of named caches; those below belong to `kmalloc`.
const FIRST_NAMED: u8 = 64;

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
                geometry,
                state: CacheState::new(),
                number: AtomicU8::new(0),
            }),
            Err(error) => Err(error),
        }
    }

    /// The name given at creation.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What the cache holds now.
    pub fn info(&self) -> CacheInfo {
        self.cache(0).info()
    }

    fn cache(&self, number: u8) -> Cache<'_> {
        Cache {
            geometry: &self.geometry,
            state: &self.state,
            number,
        }
    }

    /// The cache's number, given to it at its first allocation.
    fn number(&self) -> Result<u8, AllocError> {
        static NEXT: AtomicU8 = AtomicU8::new(FIRST_NAMED);
        match self.number.load(Ordering::Relaxed) {
            0 => {
                let new = NEXT
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1))
                    .map_err(|_| AllocError::TooManyCaches)?;
                let raced =
                    self.number
                        .compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
                Ok(raced.err().unwrap_or(new))
            }
            number => Ok(number),
        }
    }

    /// Allocates an object. Linux: `kmem_cache_alloc`. Any context, as the flags say.
    ///
    /// # Errors
    ///
    /// [`AllocError`] when there is no page for a new slab, or no number left for the cache.
    pub fn alloc(&self, pages: &PageAllocator, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.cache(self.number()?).alloc(|| Some(pages), gfp)
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
    pub unsafe fn free(&self, pages: &PageAllocator, object: *mut u8) -> Result<(), ObjectError> {
        let va = VirtAddr::from_ptr(object);
        let (pa, frame) = frame_of(pages.frames(), va)?;
        let number = self.number.load(Ordering::Relaxed);
        match frame.kind() {
            // Number 0 is a kmalloc cache's: what a named cache has before its first allocation.
            FrameKind::Slab if number != 0 && frame.slab_cache() == number => {
                // SAFETY: the caller gives the object up; the frame belongs to this cache.
                unsafe { self.cache(number).free(pages, va, pa, frame) }
            }
            FrameKind::Slab => Err(ObjectError::WrongCache {
                va,
                cache: frame.slab_cache(),
            }),
            kind => Err(ObjectError::NotAnObject { va, kind }),
        }
    }

    /// Gives the memory of free objects back, except what other cores keep at hand.
    pub fn shrink(&self, pages: &PageAllocator) {
        self.cache(0).shrink(pages);
    }
}
