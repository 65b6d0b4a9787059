//! The end of a named cache.

use super::KmemCache;
use crate::addr::VirtAddr;
use crate::mm::page::PageAllocator;
use crate::mm::slab::mark::in_use;
use crate::mm::slab::registry;
use crate::smp::{self, SmpError};
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

    /// Gives up the cache's memory and number, and what any core has at hand. The cache may be used
    /// again, and then takes new ones. Task context, no lock held.
    ///
    /// Unlike Linux, which forgets a cache that still has objects and leaks them, a cache that
    /// cannot be destroyed stays as it is, so that the objects can still be freed.
    ///
    /// # Errors
    ///
    /// [`DestroyError`] when objects are in use; each is passed to `remaining`. That costs time in
    /// proportion to the memory in use.
    ///
    /// # Safety
    ///
    /// Until this returns nobody allocates from the cache or frees to it, on any core, as a task or
    /// in an interrupt handler: its number may be another cache's at once. Shrinking it is allowed,
    /// and may go on in the background.
    #[doc(alias = "kmem_cache_destroy")]
    pub unsafe fn destroy(
        &'static self,
        pages: &PageAllocator,
        mut remaining: impl FnMut(VirtAddr),
    ) -> Result<(), DestroyError> {
        let tag = self.tag.load(Ordering::Relaxed);
        if tag == 0 {
            return Ok(());
        }
        let cache = self.name;
        // A core's magazine is closed by the core itself. Nobody opens it again.
        let shrink = |_| {
            self.shrink(pages);
        };
        smp::run_on_all(shrink).map_err(|error| DestroyError::Cores { cache, error })?;
        if registry::CACHES.remove(tag, &self.tag, || self.info().slabs == 0) {
            return Ok(());
        }
        let mut in_use = 0;
        self.in_use(pages, tag, |va| {
            in_use += 1;
            remaining(va);
        });
        Err(match in_use {
            0 => DestroyError::AtHand { cache },
            objects => DestroyError::Remaining { cache, objects },
        })
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
    /// All objects are free, but cores that are not online keep some at hand.
    #[error("other cores keep objects of slab cache {cache} at hand")]
    AtHand {
        /// The cache.
        cache: &'static str,
    },
    /// The other cores could not be asked for what they keep at hand.
    #[error("slab cache {cache}: {error}")]
    Cores {
        /// The cache.
        cache: &'static str,
        /// Why they could not.
        error: SmpError,
    },
}
