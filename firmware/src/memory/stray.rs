//! Stores that no owner of memory makes.

use hal::addr::VirtAddr;

/// A byte of a slab that was changed and is changed back in the end.
#[derive(Debug)]
pub(crate) struct Stray {
    va: VirtAddr,
    was: u8,
}

impl Stray {
    /// Changes the byte at `va`, which is in a slab, outside every object in use but the caller's.
    pub(crate) fn store(va: VirtAddr) -> Self {
        // SAFETY: the byte is mapped, and all that relies on it is what must find the change.
        unsafe {
            let was = va.as_ptr::<u8>().read_volatile();
            va.as_ptr::<u8>().write_volatile(!was);
            Self { va, was }
        }
    }

    /// Leaves the byte as it is now.
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        // SAFETY: as for `store`.
        unsafe { self.va.as_ptr::<u8>().write_volatile(self.was) };
    }
}
