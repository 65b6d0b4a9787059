//! Memory of `kvmalloc`.

use super::{Area, Object};
use core::ops::{Deref, DerefMut};
use hal::addr::VirtAddr;
use hal::mm::{self, Gfp, KvmallocError};

/// Memory from `kvmalloc`.
#[derive(Debug)]
pub(crate) struct Kv {
    va: VirtAddr,
    size: usize,
}

impl Kv {
    /// `kvmalloc`. The content is unspecified.
    pub(crate) fn alloc(size: usize, gfp: Gfp) -> Result<Self, KvmallocError> {
        mm::kvmalloc(size, gfp).map(|memory| Self {
            va: VirtAddr::from_ptr(memory.as_ptr()),
            size,
        })
    }

    /// Where it is.
    pub(crate) fn va(&self) -> VirtAddr {
        self.va
    }

    /// `kvrealloc`; the memory stays as it was if that fails.
    pub(crate) fn resize(&mut self, size: usize, gfp: Gfp) -> Result<(), KvmallocError> {
        // SAFETY: the memory belongs to `self`, which forgets its old address.
        let moved = unsafe { mm::kvrealloc(self.va.as_ptr(), size, gfp) }?;
        self.va = VirtAddr::from_ptr(moved.as_ptr());
        self.size = size;
        Ok(())
    }

    /// `kvfree`, and then once more what is no longer its own.
    pub(crate) fn free_twice(self) -> (Result<(), KvmallocError>, Result<(), KvmallocError>) {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the memory belonged to `self`; nobody allocates between the two calls, as in
        // `Pages::free_twice`.
        unsafe { (mm::kvfree(va.as_ptr()), mm::kvfree(va.as_ptr())) }
    }
}

impl Deref for Kv {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `kvmalloc` gave at least `size` bytes, which belong to `self`.
        unsafe { core::slice::from_raw_parts(self.va.as_ptr(), self.size) }
    }
}

impl DerefMut for Kv {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.size) }
    }
}

impl Drop for Kv {
    fn drop(&mut self) {
        // SAFETY: the memory belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { mm::kvfree(self.va.as_ptr()) };
    }
}

/// `kvfree` of an object of `kmalloc`, which it must take.
pub(crate) fn kvfree_object(object: Object) -> Result<(), KvmallocError> {
    let va = object.va;
    core::mem::forget(object);
    // SAFETY: the object was given to this function.
    unsafe { mm::kvfree(va.as_ptr()) }
}

/// `kvfree` of an area of `vmalloc`, which it must take.
pub(crate) fn kvfree_area(area: Area) -> Result<(), KvmallocError> {
    let va = area.va;
    core::mem::forget(area);
    // SAFETY: the area was given to this function.
    unsafe { mm::kvfree(va.as_ptr()) }
}
