//! Packed `kmalloc`: 8 to 48 bytes in steps of 8, several objects to a cache line.

use crate::mm::page::PageAllocator;
use crate::mm::slab::{KmemCache, MAX_PACKED_SIZE, PACKED_ALIGN, SlabFlags};
use crate::mm::{AllocError, Gfp};
use core::ptr::NonNull;

/// Number of classes.
const CLASSES: usize = MAX_PACKED_SIZE / PACKED_ALIGN;

/// Caches for small objects that never meet a device.
///
/// `kmalloc` gives every object whole cache lines, 64 bytes at least, because it may be handed to a
/// device that does not snoop. A list node never is. Objects from here share lines, so streaming
/// maps refuse them by name. They are freed as any other object, with `kfree`.
#[derive(Debug)]
pub struct PackedKmalloc([KmemCache; CLASSES]);

impl PackedKmalloc {
    /// Caches without memory.
    pub const fn new() -> Self {
        Self([
            cache("kmalloc-packed-8", 8),
            cache("kmalloc-packed-16", 16),
            cache("kmalloc-packed-24", 24),
            cache("kmalloc-packed-32", 32),
            cache("kmalloc-packed-40", 40),
            cache("kmalloc-packed-48", 48),
        ])
    }

    /// Allocates `size` bytes, 1 to [`MAX_PACKED_SIZE`], aligned to [`PACKED_ALIGN`]. The content is
    /// garbage unless `gfp` has [`Gfp::ZERO`]. Any context with flags that do not block.
    ///
    /// # Errors
    ///
    /// [`AllocError`]: the size is out of range, the object is to be charged to an owner, or there is
    /// no page for more objects.
    pub fn kmalloc(
        &'static self,
        pages: &PageAllocator,
        size: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let cache = self.0.get(size.wrapping_sub(1) / PACKED_ALIGN);
        let cache = cache.ok_or(AllocError::SizeTooLarge { size, gfp })?;
        cache.alloc(pages, gfp)
    }
}

impl Default for PackedKmalloc {
    fn default() -> Self {
        Self::new()
    }
}

/// Evaluated at compile time only, where a class that cannot be packed stops the build.
const fn cache(name: &'static str, size: usize) -> KmemCache {
    match KmemCache::new(name, size, PACKED_ALIGN) {
        Ok(cache) => match cache.with_flags(SlabFlags::PACKED.bits()) {
            Ok(cache) => cache,
            Err(_) => panic!("every class can be packed"),
        },
        Err(_) => panic!("every class fits a slab"),
    }
}
