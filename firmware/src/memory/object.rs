//! Objects of `kmalloc`.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use hal::addr::{Pfn, VirtAddr};
use hal::layout;
use hal::mm::{self, AllocError, FreeError, Gfp, ObjectError, ReallocError};

/// An object from `kmalloc`.
#[derive(Debug)]
pub(crate) struct Object {
    pub(super) va: VirtAddr,
    pub(super) size: usize,
}

// SAFETY: an object belongs to its holder, whichever core that runs on.
unsafe impl Send for Object {}

impl Object {
    /// `kmalloc`. The content is unspecified.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(crate) fn alloc(size: usize, gfp: Gfp) -> Result<Self, AllocError> {
        let object = mm::kmalloc(size, gfp)?;
        let va = VirtAddr::from_ptr(object.as_ptr());
        Ok(Self { va, size })
    }

    /// `kzalloc`.
    pub(crate) fn zeroed(size: usize, gfp: Gfp) -> Result<Self, AllocError> {
        Self::alloc(size, gfp | Gfp::ZERO)
    }

    /// Where it is.
    pub(crate) fn va(&self) -> VirtAddr {
        self.va
    }

    /// `ksize`; 0 if it is refused.
    pub(crate) fn usable(&self) -> usize {
        mm::ksize(self.va.as_ptr()).unwrap_or(0)
    }

    /// All usable bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `ksize` bytes from the object's start are its own.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.usable()) }
    }

    /// `kfree`.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(crate) fn free(self) -> Result<(), ObjectError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the object belonged to `self`.
        unsafe { mm::kfree(va.as_ptr()) }
    }

    /// `kmalloc_array`.
    pub(crate) fn array(count: usize, size: usize, gfp: Gfp) -> Result<Self, AllocError> {
        mm::kmalloc_array(count, size, gfp).map(|object| Self {
            va: VirtAddr::from_ptr(object.as_ptr()),
            size: count * size,
        })
    }

    /// `krealloc` of null.
    pub(crate) fn resized_nothing(size: usize, gfp: Gfp) -> Result<Self, ReallocError> {
        // SAFETY: there is no object at null.
        let object = unsafe { mm::krealloc(core::ptr::null_mut(), size, gfp) }?;
        let va = VirtAddr::from_ptr(object.as_ptr());
        Ok(Self { va, size })
    }

    /// `krealloc`, to a size that is not 0.
    pub(crate) fn resize(&mut self, size: usize, gfp: Gfp) -> Result<(), ReallocError> {
        debug_assert_ne!(size, 0);
        // SAFETY: the object belongs to `self`, which takes the new address.
        let object = unsafe { mm::krealloc(self.va.as_ptr(), size, gfp) }?;
        (self.va, self.size) = (VirtAddr::from_ptr(object.as_ptr()), size);
        Ok(())
    }

    /// `krealloc` to 0 bytes, and what it returns.
    pub(crate) fn resize_to_nothing(self) -> Result<NonNull<u8>, ReallocError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the object belonged to `self`.
        unsafe { mm::krealloc(va.as_ptr(), 0, Gfp::KERNEL) }
    }

    /// `kfree_sensitive`.
    pub(crate) fn free_sensitive(self) -> Result<(), ObjectError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the object belonged to `self`.
        unsafe { mm::kfree_sensitive(va.as_ptr()) }
    }

    /// Frees the object, and then what is no longer its own.
    pub(crate) fn free_twice(self) -> (Result<(), ObjectError>, Result<(), ObjectError>) {
        let va = self.va;
        let first = self.free();
        // SAFETY: nobody allocates between the two calls, as in `Pages::free_twice`.
        (first, unsafe { mm::kfree(va.as_ptr()) })
    }

    /// Frees the object's first page as pages, which must be refused.
    pub(crate) fn free_as_page(&self) -> Result<(), FreeError> {
        let pa = layout::virt_to_phys(self.va).unwrap_or_default();
        // SAFETY: the frame holds an object, so no block of pages in use starts there.
        unsafe { mm::free_pages(pa.pfn(), 0) }
    }

    /// Frees an address inside the object, which must be refused. `offset` is not 0.
    pub(crate) fn free_interior(&self, offset: usize) -> Result<(), ObjectError> {
        debug_assert!(offset != 0 && offset < self.len());
        // SAFETY: no object starts inside another.
        unsafe { mm::kfree((self.va + offset).as_ptr()) }
    }
}

/// The bytes asked for.
impl Deref for Object {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `kmalloc` gave at least `size` bytes, which belong to `self`.
        unsafe { core::slice::from_raw_parts(self.va.as_ptr(), self.size) }
    }
}

impl DerefMut for Object {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.size) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the object belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { mm::kfree(self.va.as_ptr()) };
    }
}

/// How `kmalloc_array`, `kcalloc` and `krealloc_array` refuse `count` elements of `size` bytes;
/// `None` for one that does not, whose memory leaks.
pub(crate) fn no_array(count: usize, size: usize) -> [Option<AllocError>; 3] {
    // SAFETY: there is no object at null.
    let grown =
        unsafe { mm::krealloc_array(core::ptr::null_mut(), count, size, Gfp::KERNEL) }.err();
    let grown = grown.and_then(|error| match error {
        ReallocError::Alloc(error) => Some(error),
        ReallocError::Object(_) => None,
    });
    [
        mm::kmalloc_array(count, size, Gfp::KERNEL).err(),
        mm::kcalloc(count, size, Gfp::KERNEL).err(),
        grown,
    ]
}

/// What `krealloc` of null to 0 bytes returns.
pub(crate) fn nothing_resized() -> Result<NonNull<u8>, ReallocError> {
    // SAFETY: there is no object at null.
    unsafe { mm::krealloc(core::ptr::null_mut(), 0, Gfp::KERNEL) }
}

/// Frees an address outside the direct map, or one `kmalloc` gives out for nothing. `None` if the
/// address is in the direct map.
pub(crate) fn free_no_object(va: VirtAddr) -> Option<Result<(), ObjectError>> {
    // SAFETY: objects lie in the direct map only, so none starts there.
    (layout::virt_to_phys(va).is_none()).then(|| unsafe { mm::kfree(va.as_ptr()) })
}

/// Frees where the direct map would have a frame of the pool, which must be refused.
pub(crate) fn free_pool_frame(frame: Pfn) -> Option<Result<(), ObjectError>> {
    let pool = crate::machine::machine().pool.frames();
    let va = layout::phys_to_virt(frame.phys());
    // SAFETY: objects lie in frames of the page allocator, and this one is the pool's.
    pool.contains(frame.phys())
        .then(|| unsafe { mm::kfree(va.as_ptr()) })
}
