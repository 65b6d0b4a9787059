//! Objects of named caches, owned.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::addr::VirtAddr;
use hal::mm::{
    self, AllocError, DestroyError, Gfp, KmemCache, ObjectError, PageAllocator, SlabFlags,
};

/// The state a constructed object is in while it is free.
pub(crate) const STATE: u64 = 0x1234_5678_9ABC_DEF0;

/// How often [`construct`] ran.
static CONSTRUCTED: AtomicUsize = AtomicUsize::new(0);

/// Leaves [`STATE`] in each word of an object of a cache [`with_state`].
fn construct(object: NonNull<u8>) {
    CONSTRUCTED.fetch_add(1, Ordering::Relaxed);
    for word in 0..CONSTRUCTED_SIZE / size_of::<u64>() {
        // SAFETY: the object has that many words.
        unsafe { object.cast::<u64>().add(word).write(STATE) };
    }
}

/// How often the constructor ran since boot.
pub(crate) fn constructed() -> usize {
    CONSTRUCTED.load(Ordering::Relaxed)
}

const CONSTRUCTED_SIZE: usize = 192;

/// A cache with a constructor.
pub(crate) static CONSTRUCTED_CACHE: KmemCache = with_state("test-constructed");

/// A cache whose constructor leaves [`STATE`] in each word of an object.
pub(crate) const fn with_state(name: &'static str) -> KmemCache {
    cache(name, CONSTRUCTED_SIZE, 8, SlabFlags::empty()).with_constructor(construct)
}

/// A cache, made when the firmware is built.
pub(crate) const fn cache(
    name: &'static str,
    size: usize,
    align: usize,
    flags: SlabFlags,
) -> KmemCache {
    match KmemCache::new(name, size, align) {
        Ok(cache) => match cache.with_flags(flags.bits()) {
            Ok(cache) => cache,
            Err(_) => panic!("the flags contradict each other"),
        },
        Err(_) => panic!("no slab holds such objects"),
    }
}

/// `kmem_cache_destroy`, of a cache that only the calling test uses.
pub(crate) fn destroy_cache(
    cache: &'static KmemCache,
    remaining: impl FnMut(VirtAddr),
) -> Result<(), DestroyError> {
    let Some(pages) = mm::pages() else {
        return Ok(());
    };
    // SAFETY: tests run one after another, and this one is the caller, which waits.
    unsafe { cache.destroy(pages, remaining) }
}

fn pages() -> Result<&'static PageAllocator, AllocError> {
    mm::pages().ok_or(AllocError::NotReady)
}

/// An object of a named cache.
#[derive(Debug)]
pub(crate) struct Named {
    cache: &'static KmemCache,
    va: VirtAddr,
}

// SAFETY: an object belongs to its holder, whichever core that runs on.
unsafe impl Send for Named {}

impl Named {
    /// `kmem_cache_alloc`.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(crate) fn alloc(cache: &'static KmemCache, gfp: Gfp) -> Result<Self, AllocError> {
        let va = VirtAddr::from_ptr(cache.alloc(pages()?, gfp)?.as_ptr());
        Ok(Self { cache, va })
    }

    /// Where it is.
    pub(crate) fn va(&self) -> VirtAddr {
        self.va
    }

    /// `ksize`; 0 if it is refused.
    pub(crate) fn usable(&self) -> usize {
        mm::ksize(self.va.as_ptr()).unwrap_or(0)
    }

    /// The content.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: an object of the cache has that many bytes, and this one belongs to `self`.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.cache.object_size()) }
    }

    /// Copies what a reader outside may see.
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) -> Result<(), ObjectError> {
        let pages = mm::pages().ok_or(ObjectError::NotAtObject(self.va))?;
        // SAFETY: writing takes a borrow of `self` that excludes this one.
        unsafe { self.cache.copy_out(pages, self.va.as_ptr(), offset, to) }
    }

    /// `kmem_cache_free`.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(crate) fn free(self) -> Result<(), ObjectError> {
        let (cache, va) = (self.cache, self.va);
        core::mem::forget(self);
        // SAFETY: the object belonged to `self`.
        unsafe { free(cache, va) }
    }

    /// `kfree`, which takes objects of any cache.
    pub(crate) fn kfree(self) -> Result<(), ObjectError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the object belonged to `self`.
        unsafe { mm::kfree(va.as_ptr()) }
    }

    /// Frees the object, and then what is no longer its own.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(crate) fn free_twice(self) -> (Result<(), ObjectError>, Result<(), ObjectError>) {
        let (cache, va) = (self.cache, self.va);
        let first = self.free();
        // SAFETY: nobody allocates between the two calls, as in `Pages::free_twice`.
        (first, unsafe { free(cache, va) })
    }

    /// Frees the object, and then maps what is no longer its own, which must be refused.
    #[cfg(feature = "slab-debug")]
    pub(crate) fn free_and_map(
        self,
        device: &hal::dma::Device,
    ) -> Result<Result<(), hal::dma::DmaError>, ObjectError> {
        let (ptr, len) = (self.va.as_ptr::<u8>(), self.cache.object_size());
        self.free()?;
        // SAFETY: should it not be refused, the mapping ends at once, and no device is told of it;
        // nobody allocates meanwhile, as in `Pages::free_twice`.
        let mapping =
            unsafe { hal::dma::streaming::map_single::<hal::dma::ToDevice>(device, ptr, len) };
        Ok(mapping.map(drop))
    }

    /// Frees the object into another cache than its own, which must be refused.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(crate) fn free_into(&self, other: &'static KmemCache) -> Result<(), ObjectError> {
        debug_assert!(!core::ptr::eq(self.cache, other));
        // SAFETY: no object of the other cache starts where one of this cache does.
        unsafe { free(other, self.va) }
    }

    /// Frees an address inside the object, which must be refused. `offset` is not 0.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(crate) fn free_interior(&self, offset: usize) -> Result<(), ObjectError> {
        debug_assert!(offset != 0 && offset < self.cache.object_size());
        // SAFETY: no object starts inside another.
        unsafe { free(self.cache, self.va + offset) }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // SAFETY: the object belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { free(self.cache, self.va) };
    }
}

/// Frees the object of `kmalloc` into a named cache, which must be refused.
pub(crate) fn free_foreign(
    object: &super::Object,
    cache: &'static KmemCache,
) -> Result<(), ObjectError> {
    // SAFETY: no object of the cache starts where one of `kmalloc` does.
    unsafe { free(cache, object.va()) }
}

/// # Safety
///
/// As for [`KmemCache::free`].
#[cfg_attr(feature = "slab-debug", track_caller)]
unsafe fn free(cache: &'static KmemCache, va: VirtAddr) -> Result<(), ObjectError> {
    let pages = mm::pages().ok_or(ObjectError::NotAtObject(va))?;
    // SAFETY: handed on to the caller.
    unsafe { cache.free(pages, va.as_ptr()) }
}

/// A packed object of `kmalloc_packed`: its bytes belong to the caller until it is dropped.
#[derive(Debug)]
pub(crate) struct Small(super::Object);

impl Small {
    /// `kmalloc_packed`.
    pub(crate) fn alloc(size: usize, gfp: Gfp) -> Result<Self, AllocError> {
        mm::kmalloc_packed(size, gfp).map(|object| {
            let va = VirtAddr::from_ptr(object.as_ptr());
            Self(super::Object { va, size })
        })
    }

    /// The object, which `kfree` takes like any other.
    pub(crate) fn object(&mut self) -> &mut super::Object {
        &mut self.0
    }

    /// The object, to be freed in ways of its own.
    pub(crate) fn into_object(self) -> super::Object {
        self.0
    }
}
