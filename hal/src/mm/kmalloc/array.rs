//! Arrays: a count times a size, which must not wrap.

use super::Kmalloc;
use crate::mm::{AllocError, Gfp};
use core::ptr::NonNull;

impl Kmalloc {
    /// Allocates `count` elements of `size` bytes: as [`kmalloc`](Self::kmalloc) of the product.
    /// Linux: `kmalloc_array`.
    ///
    /// # Errors
    ///
    /// [`AllocError::Overflow`] when the product is no size, else as [`kmalloc`](Self::kmalloc).
    #[inline(always)]
    pub fn kmalloc_array(
        &self,
        count: usize,
        size: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        self.kmalloc(array_bytes(count, size, gfp)?, gfp)
    }

    /// Allocates `count` zeroed elements of `size` bytes. Linux: `kcalloc`. Otherwise as
    /// [`kmalloc_array`](Self::kmalloc_array).
    ///
    /// # Errors
    ///
    /// As [`kmalloc_array`](Self::kmalloc_array).
    #[inline(always)]
    pub fn kcalloc(&self, count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kmalloc_array(count, size, gfp | Gfp::ZERO)
    }
}

/// `count` times `size`.
#[inline(always)]
pub(super) fn array_bytes(count: usize, size: usize, gfp: Gfp) -> Result<usize, AllocError> {
    let bytes = count.checked_mul(size);
    bytes.ok_or(AllocError::Overflow { count, size, gfp })
}
