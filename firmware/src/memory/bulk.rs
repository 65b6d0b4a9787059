//! Objects of a named cache, allocated and freed many at a time.

use core::ptr::NonNull;
use hal::mm::{self, AllocError, Gfp, KmemCache};

/// Room for `N` objects of a cache, which are freed with it.
#[derive(Debug)]
pub(crate) struct Bulk<const N: usize> {
    cache: &'static KmemCache,
    objects: [Option<NonNull<u8>>; N],
}

impl<const N: usize> Bulk<N> {
    /// Room for objects of `cache`.
    pub(crate) const fn new(cache: &'static KmemCache) -> Self {
        Self {
            cache,
            objects: [None; N],
        }
    }

    /// `kmem_cache_alloc_bulk` into the room, which is empty.
    pub(crate) fn fill(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        debug_assert!(
            self.objects.iter().all(Option::is_none),
            "objects would leak"
        );
        let pages = mm::pages().ok_or(AllocError::NotReady)?;
        self.cache.alloc_bulk(pages, gfp, &mut self.objects)
    }

    /// `kmem_cache_free_bulk` of the objects. As in every `Drop` the result is not looked at: a
    /// refusal shows in the ledger.
    pub(crate) fn clear(&mut self) {
        if let Some(pages) = mm::pages() {
            // SAFETY: the objects came from `fill`, and each is forgotten as it is freed.
            let _ = unsafe { self.cache.free_bulk(pages, &mut self.objects) };
        }
    }
}

impl<const N: usize> Drop for Bulk<N> {
    fn drop(&mut self) {
        self.clear();
    }
}
