//! Objects of a named cache, allocated and freed together.

use core::ptr::NonNull;
use hal::addr::VirtAddr;
use hal::mm::{self, AllocError, Gfp, KmemCache, ObjectError};

/// Objects of a named cache, at most `N`, freed with it.
#[derive(Debug)]
pub(crate) struct Bulk<const N: usize> {
    cache: &'static KmemCache,
    objects: [Option<NonNull<u8>>; N],
}

impl<const N: usize> Bulk<N> {
    /// No objects.
    pub(crate) const fn new(cache: &'static KmemCache) -> Self {
        let objects = [None; N];
        Self { cache, objects }
    }

    /// `kmem_cache_alloc_bulk`; there are no objects yet.
    pub(crate) fn fill(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        debug_assert_eq!(self.len(), 0, "objects would leak");
        let pages = mm::pages().ok_or(AllocError::NotReady)?;
        self.cache.alloc_bulk(pages, gfp, &mut self.objects)
    }

    /// Objects at hand.
    pub(crate) fn len(&self) -> usize {
        self.objects.iter().flatten().count()
    }

    /// Where the objects are.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = VirtAddr> {
        let objects = self.objects.iter().flatten();
        objects.map(|object| VirtAddr::from_ptr(object.as_ptr()))
    }

    /// `kmem_cache_free_bulk`.
    pub(crate) fn free(&mut self) -> Result<(), ObjectError> {
        let Some(pages) = mm::pages() else {
            return Ok(());
        };
        // SAFETY: the objects belong to `self`, which forgets those that are freed.
        unsafe { self.cache.free_bulk(pages, &mut self.objects) }
    }

    /// Frees all objects but every `step`th.
    pub(crate) fn thin_out(&mut self, step: usize) -> Result<(), ObjectError> {
        for (index, slot) in self.objects.iter_mut().enumerate() {
            if index % step != 0
                && let Some(object) = slot.take()
            {
                let Some(pages) = mm::pages() else { continue };
                // SAFETY: the object belonged to `self`.
                unsafe { self.cache.free(pages, object.as_ptr()) }?;
            }
        }
        Ok(())
    }
}

impl<const N: usize> Drop for Bulk<N> {
    fn drop(&mut self) {
        // A refusal shows in the ledger.
        let _ = self.free();
    }
}
