//! Objects that grow, and objects whose content must not outlive them.

use super::array::array_bytes;
use super::{DMA_ALIGN, Kmalloc, ZERO_SIZE_PTR};
use crate::mm::slab::PACKED_ALIGN;
use crate::mm::{AllocError, Gfp, ObjectError};
use core::ptr::NonNull;

/// Why an object was not resized. The object is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReallocError {
    /// There is no memory for the larger object.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// No object to resize starts there.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl Kmalloc {
    /// Gives `object` room for `size` bytes and returns where it is now; its content is kept.
    /// Linux: `krealloc`.
    ///
    /// - Null and [`ZERO_SIZE_PTR`] stand for no object: this is [`kmalloc`](Self::kmalloc) then.
    /// - Size 0 frees the object and returns [`ZERO_SIZE_PTR`].
    /// - Up to [`ksize`](Self::ksize) the object stays where it is; it never shrinks.
    /// - Beyond, all its bytes move to a new object and it is freed.
    ///
    /// With [`Gfp::ZERO`] on every call from the allocation on, the bytes beyond the size asked
    /// for last are zero. May be called in any context with flags that do not block.
    ///
    /// # Errors
    ///
    /// [`ReallocError`]; the object stays as it was, and the caller's.
    ///
    /// # Safety
    ///
    /// If an object in use starts at `object`, it belongs to the caller, who no longer uses
    /// `object` unless it is returned.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub unsafe fn krealloc(
        &self,
        object: *mut u8,
        size: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, ReallocError> {
        let Some(old) = NonNull::new(object).filter(|object| *object != ZERO_SIZE_PTR) else {
            return Ok(self.kmalloc(size, gfp)?);
        };
        if size == 0 {
            // SAFETY: the caller gives the object up.
            unsafe { self.kfree(object) }?;
            return Ok(ZERO_SIZE_PTR);
        }
        let usable = self.ksize(object)?;
        if size <= usable {
            if gfp.contains(Gfp::ZERO) {
                // SAFETY: the bytes up to `usable` are the caller's object.
                unsafe { old.add(size).write_bytes(0, usable - size) };
            }
            return Ok(old);
        }
        let new = self.kmalloc(size, gfp)?;
        // SAFETY: the new object has more than `usable` bytes, the old one as many, and they are
        // two objects in use. The caller gives the old one up.
        let freed = unsafe {
            new.copy_from_nonoverlapping(old, usable);
            self.kfree(object)
        };
        debug_assert_eq!(freed, Ok(()));
        Ok(new)
    }

    /// Gives `object` room for `count` elements of `size` bytes: [`krealloc`](Self::krealloc) to
    /// the product. Linux: `krealloc_array`.
    ///
    /// # Errors
    ///
    /// [`AllocError::Overflow`] when the product is no size, else as [`krealloc`](Self::krealloc);
    /// the object stays as it was.
    ///
    /// # Safety
    ///
    /// As for [`krealloc`](Self::krealloc).
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub unsafe fn krealloc_array(
        &self,
        object: *mut u8,
        count: usize,
        size: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, ReallocError> {
        let bytes = array_bytes(count, size, gfp)?;
        // SAFETY: handed on to the caller.
        unsafe { self.krealloc(object, bytes, gfp) }
    }

    /// Zeroes all usable bytes of `object` with stores that the compiler keeps, and frees it. For
    /// keys and the like. Linux: `kfree_sensitive`. Otherwise as [`kfree`](Self::kfree).
    ///
    /// # Errors
    ///
    /// As [`kfree`](Self::kfree); nothing is zeroed then.
    ///
    /// # Safety
    ///
    /// As for [`kfree`](Self::kfree).
    #[doc(alias = "kzfree")]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub unsafe fn kfree_sensitive(&self, object: *mut u8) -> Result<(), ObjectError> {
        let Some(secret) = NonNull::new(object).filter(|object| *object != ZERO_SIZE_PTR) else {
            return Ok(());
        };
        let usable = self.ksize(object)?;
        let words = secret.cast::<u64>();
        let whole = usable / size_of::<u64>();
        for word in 0..whole {
            // SAFETY: the object is in use and the caller's; it starts at a whole word, see below.
            unsafe { words.add(word).write_volatile(0) };
        }
        for byte in whole * size_of::<u64>()..usable {
            // SAFETY: the object has that many bytes.
            unsafe { secret.add(byte).write_volatile(0) };
        }
        // SAFETY: handed on to the caller.
        unsafe { self.kfree(object) }
    }
}

/// Objects are aligned to whole words.
const _: () = assert!(
    DMA_ALIGN.is_multiple_of(size_of::<u64>()) && PACKED_ALIGN.is_multiple_of(size_of::<u64>())
);

#[cfg(test)]
mod tests;
