//! The end of a named cache.

use super::KmemCache;
use crate::addr::VirtAddr;
use crate::mm::page::PageAllocator;
use crate::mm::slab::mark::in_use;
use crate::mm::slab::registry;
use core::sync::atomic::Ordering;

impl KmemCache {
    /// Gives the memory of free objects back, except what other cores keep at hand. Whether a slab
    /// is left.
    #[doc(alias = "kmem_cache_shrink")]
    pub fn shrink(&'static self, pages: &PageAllocator) -> bool {
        let tag = self.tag.load(Ordering::Relaxed);
        if let Some(packed) = self.as_packed(tag) {
            packed.shrink(pages);
        } else {
            self.cache(tag).shrink(pages);
        }
        self.info().slabs != 0
    }

    /// Calls `f` with the address of each object in use.
    fn in_use(&'static self, pages: &PageAllocator, tag: u8, mut f: impl FnMut(VirtAddr)) {
        if let Some(packed) = self.as_packed(tag) {
            return packed.in_use(pages, f);
        }
        pages.frames().lookup().for_each_slab(tag, |pfn, frame| {
            in_use(pfn, frame, &mut f);
        });
    }

    /// Gives up the cache's memory and number. The cache may be used again, and then takes new
    /// ones.
    ///
    /// Unlike Linux, which forgets a cache that still has objects and leaks them, a cache that
    /// cannot be destroyed stays as it is, so that the objects can still be freed. Call
    /// [`shrink`](Self::shrink) on every other core before, for the objects they keep at hand.
    ///
    /// # Errors
    ///
    /// [`DestroyError`] when objects are in use; each is passed to `remaining`. That costs time in
    /// proportion to the memory in use.
    #[doc(alias = "kmem_cache_destroy")]
    pub fn destroy(
        &'static self,
        pages: &PageAllocator,
        mut remaining: impl FnMut(VirtAddr),
    ) -> Result<(), DestroyError> {
        let tag = self.tag.load(Ordering::Relaxed);
        if tag == 0 {
            return Ok(());
        }
        if self.shrink(pages) {
            let mut in_use = 0;
            self.in_use(pages, tag, |va| {
                in_use += 1;
                remaining(va);
            });
            let cache = self.name;
            return Err(match in_use {
                0 => DestroyError::AtHand { cache },
                objects => DestroyError::Remaining { cache, objects },
            });
        }
        registry::CACHES.remove(tag, &self.tag);
        Ok(())
    }
}

/// Why a cache was not destroyed. It goes on as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestroyError {
    /// Objects are in use.
    #[error("slab cache {cache} still has {objects} objects")]
    Remaining {
        /// The cache.
        cache: &'static str,
        /// How many objects.
        objects: usize,
    },
    /// All objects are free, but other cores keep some at hand.
    #[error("other cores keep objects of slab cache {cache} at hand")]
    AtHand {
        /// The cache.
        cache: &'static str,
    },
}
