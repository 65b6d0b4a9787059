//! Many objects of a named cache at a time.

use super::KmemCache;
use crate::mm::page::PageAllocator;
use crate::mm::slab::ObjectError;
use crate::mm::{AllocError, Gfp};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

impl KmemCache {
    /// Fills `objects` with new objects, or allocates none. [`Gfp::ZERO`] zeroes all of each. Any
    /// context, as the flags say. What `objects` held is overwritten.
    ///
    /// IRQs are masked while objects are taken from a few slabs, not throughout.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc); no object is allocated and `objects` holds nothing then.
    #[doc(alias = "kmem_cache_alloc_bulk")]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub fn alloc_bulk(
        &'static self,
        pages: &PageAllocator,
        gfp: Gfp,
        objects: &mut [Option<NonNull<u8>>],
    ) -> Result<(), AllocError> {
        let (filled, error) = if self.is_plain() {
            self.fill(pages, gfp, objects)
        } else {
            self.fill_singly(pages, gfp, objects)
        };
        let Some(error) = error else { return Ok(()) };
        let (filled, rest) = objects.split_at_mut(filled);
        rest.fill(None);
        // SAFETY: the objects were allocated just now, and nobody has seen them.
        let freed = unsafe { self.free_bulk(pages, filled) };
        debug_assert_eq!(freed, Ok(()), "objects just allocated are in use");
        Err(error)
    }

    /// Fills `objects` from the start: how many, and what ended it before the last.
    fn fill(
        &'static self,
        pages: &PageAllocator,
        gfp: Gfp,
        objects: &mut [Option<NonNull<u8>>],
    ) -> (usize, Option<AllocError>) {
        match self.check_flags(gfp).and_then(|()| self.tag()) {
            Ok(tag) => self.cache(tag).alloc_bulk(pages, gfp, objects),
            Err(error) => (0, Some(error)),
        }
    }

    /// The same where each object takes more than the slabs.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    fn fill_singly(
        &'static self,
        pages: &PageAllocator,
        gfp: Gfp,
        objects: &mut [Option<NonNull<u8>>],
    ) -> (usize, Option<AllocError>) {
        for (filled, place) in objects.iter_mut().enumerate() {
            match self.alloc(pages, gfp) {
                Ok(object) => *place = Some(object),
                Err(error) => return (filled, Some(error)),
            }
        }
        (objects.len(), None)
    }

    /// Frees each object in `objects` and leaves `None` in its place. Any context, any core.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] for the first that is refused; it and those after it stay where they are.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free), for each of them.
    #[doc(alias = "kmem_cache_free_bulk")]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub unsafe fn free_bulk(
        &'static self,
        pages: &PageAllocator,
        objects: &mut [Option<NonNull<u8>>],
    ) -> Result<(), ObjectError> {
        let mut freed = 0;
        while let Some(rest) = objects.get_mut(freed..).filter(|rest| !rest.is_empty()) {
            let tag = self.tag.load(Ordering::Relaxed);
            // A cache without a tag has no objects, and the frames of others may look like its own.
            if tag != 0 && self.is_plain() {
                // SAFETY: handed on to the caller.
                freed += unsafe { self.cache(tag).free_bulk(pages, rest) };
            }
            // One that is charged, refused, or not there.
            if let Some(place) = objects.get_mut(freed) {
                if let Some(object) = *place {
                    // SAFETY: handed on to the caller.
                    unsafe { self.free(pages, object.as_ptr()) }?;
                    *place = None;
                }
                freed += 1;
            }
        }
        Ok(())
    }

    /// Whether objects go to the slabs and come from them with nothing else to be done.
    fn is_plain(&self) -> bool {
        // In the debug build each object is checked.
        self.packed.is_none() && !self.geometry.accounted && !cfg!(feature = "slab-debug")
    }
}
