//! Memory that is physically contiguous if that is cheap to have, else virtually.
//!
//! Small requests are `kmalloc`'s. Larger ones try `kmalloc` without effort, because a long run of
//! frames is not worth evicting anything for, and then take pages from anywhere with `vmalloc`.

use super::vmalloc::{PageSource, Vmalloc, VmallocError, is_vmalloc_addr};
use super::{AllocError, Gfp, Kmalloc, MAX_SIZE, Misuse, ObjectError, ZERO_SIZE_PTR};
use crate::addr::{PAGE_SIZE, VirtAddr};
use core::ptr::NonNull;

/// Largest request, in bytes. Linux: `INT_MAX`.
pub const KVMALLOC_MAX_SIZE: usize = i32::MAX as usize;

/// How hard `kmalloc` tries before `vmalloc` is asked, to which these flags mean nothing.
const EFFORT: Gfp = Gfp::NORETRY.union(Gfp::RETRY_MAYFAIL);

/// Why memory was not given out or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvmallocError {
    /// More than [`KVMALLOC_MAX_SIZE`] bytes.
    #[error("{size} bytes are more than kvmalloc's {KVMALLOC_MAX_SIZE}, {gfp:?}")]
    TooLarge {
        /// Bytes asked for.
        size: usize,
        /// The flags.
        gfp: Gfp,
    },
    /// The number of elements times their size is no size.
    #[error("{n} elements of {size} bytes overflow")]
    Overflow {
        /// Elements.
        n: usize,
        /// Bytes in each.
        size: usize,
    },
    /// `kmalloc` failed, and the request may not fall back.
    #[error(transparent)]
    Kmalloc(#[from] AllocError),
    /// `vmalloc` failed, after `kmalloc` had.
    #[error(transparent)]
    Vmalloc(#[from] VmallocError),
    /// The address is neither `vmalloc`'s nor the start of an object of `kmalloc`.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// `kmalloc` with `vmalloc` behind it.
#[derive(Debug)]
pub struct Kvmalloc<'a, P: 'static> {
    kmalloc: &'a Kmalloc,
    /// `None` before the window is set up.
    vmalloc: Option<&'a Vmalloc<P>>,
}

impl<'a, P: PageSource> Kvmalloc<'a, P> {
    /// Falls back from `kmalloc` to `vmalloc`, if there is one.
    #[inline]
    pub const fn new(kmalloc: &'a Kmalloc, vmalloc: Option<&'a Vmalloc<P>>) -> Self {
        Self { kmalloc, vmalloc }
    }

    /// Allocates `size` bytes, from `kmalloc` or, if it has no contiguous memory and `gfp` and
    /// `size` allow, from `vmalloc`. Linux: `kvmalloc`.
    ///
    /// Falls back above [`PAGE_SIZE`] and with flags that contain [`Gfp::KERNEL`]: [`Gfp::NOWAIT`],
    /// [`Gfp::ATOMIC`], [`Gfp::NOIO`] and [`Gfp::NOFS`] are `kmalloc`'s alone. With
    /// [`Gfp::RETRY_MAYFAIL`] `kmalloc` tries as hard as it does by itself, without it it gives up
    /// early and silently. [`Gfp::NOFAIL`] holds for the fallback: `kmalloc` may fail.
    /// [`Gfp::NORETRY`] has no meaning of its own.
    /// Size 0 gives [`ZERO_SIZE_PTR`]. Context as the flags demand.
    ///
    /// # Errors
    ///
    /// See [`KvmallocError`].
    #[inline]
    pub fn kvmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
        if size <= PAGE_SIZE {
            return Ok(self.kmalloc.kmalloc(size, gfp)?);
        }
        self.kvmalloc_large(size, gfp)
    }

    fn kvmalloc_large(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
        if size > KVMALLOC_MAX_SIZE {
            return Err(refuse_size(size, gfp));
        }
        if !gfp.contains(Gfp::KERNEL) {
            return Ok(self.kmalloc.kmalloc(size, gfp)?);
        }
        if size > MAX_SIZE {
            return self.fall_back(size, gfp);
        }
        // Memory that must be had is had from `vmalloc`.
        let mut first = (gfp | Gfp::NOWARN) - Gfp::NOFAIL;
        if !gfp.contains(Gfp::RETRY_MAYFAIL) {
            first |= Gfp::NORETRY;
        }
        match self.kmalloc.kmalloc(size, first) {
            Ok(object) => Ok(object),
            // The context is as wrong for `vmalloc`, and the limit as near.
            Err(error @ (AllocError::Context { .. } | AllocError::OverLimit { .. })) => {
                Err(error.into())
            }
            Err(_) => self.fall_back(size, gfp),
        }
    }

    #[cold]
    fn fall_back(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
        let vmalloc = self.vmalloc.ok_or(VmallocError::NotReady)?;
        let allocated = vmalloc.vmalloc_with(size, gfp - EFFORT);
        let va = allocated.map_err(|error| error.noted(gfp))?;
        // Never null: the window is not at 0.
        NonNull::new(va.as_ptr()).ok_or(VmallocError::NotMapped(va).into())
    }

    /// As [`kvmalloc`](Self::kvmalloc), zeroed. Linux: `kvzalloc`.
    ///
    /// # Errors
    ///
    /// As [`kvmalloc`](Self::kvmalloc).
    #[inline]
    pub fn kvzalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
        self.kvmalloc(size, gfp | Gfp::ZERO)
    }

    /// As [`kvmalloc`](Self::kvmalloc), for `n` elements of `size` bytes. Linux: `kvmalloc_array`.
    ///
    /// # Errors
    ///
    /// As [`kvmalloc`](Self::kvmalloc), and [`KvmallocError::Overflow`].
    #[inline]
    pub fn kvmalloc_array(
        &self,
        n: usize,
        size: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, KvmallocError> {
        match n.checked_mul(size) {
            Some(bytes) => self.kvmalloc(bytes, gfp),
            None => Err(KvmallocError::Overflow { n, size }),
        }
    }

    /// As [`kvmalloc_array`](Self::kvmalloc_array), zeroed. Linux: `kvcalloc`.
    ///
    /// # Errors
    ///
    /// As [`kvmalloc_array`](Self::kvmalloc_array).
    #[inline]
    pub fn kvcalloc(&self, n: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
        self.kvmalloc_array(n, size, gfp | Gfp::ZERO)
    }

    /// Makes the memory at `old` at least `size` bytes long, moving it if it must. Without `old` it
    /// allocates; size 0 frees and gives [`ZERO_SIZE_PTR`]. Linux: `kvrealloc`.
    ///
    /// With [`Gfp::ZERO`] on every call from the first, bytes never asked for are zero.
    ///
    /// # Errors
    ///
    /// As [`kvmalloc`](Self::kvmalloc) and [`kvfree`](Self::kvfree); the old memory stays as it was.
    ///
    /// # Safety
    ///
    /// As for [`kvfree`](Self::kvfree), unless an error is returned.
    pub unsafe fn kvrealloc(
        &self,
        old: *mut u8,
        size: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, KvmallocError> {
        if size == 0 {
            // SAFETY: handed on to the caller.
            unsafe { self.kvfree(old) }?;
            return Ok(ZERO_SIZE_PTR);
        }
        let va = VirtAddr::from_ptr(old);
        if is_vmalloc_addr(va) {
            if size > KVMALLOC_MAX_SIZE {
                return Err(refuse_size(size, gfp));
            }
            let vmalloc = self.vmalloc.ok_or(VmallocError::NotReady)?;
            // SAFETY: handed on to the caller.
            let new = unsafe { vmalloc.vrealloc(Some(va), size, gfp - EFFORT) };
            let new = new.map_err(|error| error.noted(gfp))?;
            // Neither `None`, because the size is not 0, nor null.
            let new = new.and_then(|new| NonNull::new(new.as_ptr()));
            return new.ok_or(VmallocError::NotMapped(va).into());
        }
        let usable = self.kmalloc.ksize(old)?;
        if size <= usable
            && let Some(same) = NonNull::new(old)
        {
            if gfp.contains(Gfp::ZERO) {
                // SAFETY: `ksize` bytes of the object are the caller's.
                unsafe { old.add(size).write_bytes(0, usable - size) };
            }
            return Ok(same);
        }
        let new = self.kvmalloc(size, gfp)?;
        if usable > 0 {
            self.fill_from(new, old, usable)?;
        }
        // SAFETY: handed on to the caller.
        unsafe { self.kvfree(old) }?;
        Ok(new)
    }

    /// Copies the `len` bytes of an object of `kmalloc` to the start of fresh, larger memory.
    fn fill_from(&self, new: NonNull<u8>, old: *const u8, len: usize) -> Result<(), VmallocError> {
        let va = VirtAddr::from_ptr(new.as_ptr());
        match self.vmalloc.filter(|_| is_vmalloc_addr(va)) {
            // SAFETY: `new` is longer than `len` and nobody else's, and `old` has as many bytes.
            Some(vmalloc) => unsafe { vmalloc.copy_to(va, old, len) },
            None => {
                // SAFETY: as above.
                unsafe { new.as_ptr().copy_from_nonoverlapping(old, len) };
                Ok(())
            }
        }
    }

    /// Frees memory of [`kvmalloc`](Self::kvmalloc), `kmalloc` or `vmalloc`, by its address; null
    /// and [`ZERO_SIZE_PTR`] are ignored. Linux: `kvfree`. Any context.
    ///
    /// # Errors
    ///
    /// [`KvmallocError::Vmalloc`] and [`KvmallocError::Object`], when no memory in use starts at
    /// the address; nothing has changed then.
    ///
    /// # Safety
    ///
    /// If memory in use starts at `address`, it belongs to the caller, who no longer uses it.
    #[inline]
    pub unsafe fn kvfree(&self, address: *mut u8) -> Result<(), KvmallocError> {
        let va = VirtAddr::from_ptr(address);
        if is_vmalloc_addr(va) {
            let vmalloc = self.vmalloc.ok_or(VmallocError::NotReady)?;
            // SAFETY: handed on to the caller.
            let freed = unsafe { vmalloc.vfree(va) };
            return Ok(freed.map_err(|error| error.noted(Gfp::empty()))?);
        }
        // SAFETY: handed on to the caller.
        Ok(unsafe { self.kmalloc.kfree(address) }?)
    }
}

/// The refusal of more than [`KVMALLOC_MAX_SIZE`] bytes, counted.
#[cold]
fn refuse_size(size: usize, gfp: Gfp) -> KvmallocError {
    Misuse::TooLarge(size).note(gfp);
    KvmallocError::TooLarge { size, gfp }
}

#[cfg(test)]
mod tests;
