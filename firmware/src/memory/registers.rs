//! Mappings of device registers.

use hal::addr::{PhysRange, VirtAddr};
use hal::mm::{self, IoKind, IoremapError};

/// Registers mapped by `ioremap`.
#[derive(Debug)]
pub(crate) struct Registers(VirtAddr);

impl Registers {
    /// `ioremap`.
    pub(crate) fn map(range: PhysRange, kind: IoKind) -> Result<Self, IoremapError> {
        mm::ioremap(range, kind).map(Self)
    }

    /// Where the first byte is.
    pub(crate) fn va(&self) -> VirtAddr {
        self.0
    }

    /// `iounmap`, and then once more what is no longer its own.
    pub(crate) fn unmap_twice(self) -> (Result<(), IoremapError>, Result<(), IoremapError>) {
        let va = self.0;
        core::mem::forget(self);
        // SAFETY: the mapping belonged to `self`; nobody maps between the two calls.
        unsafe { (mm::iounmap(va), mm::iounmap(va)) }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`. A refusal shows in the list of areas.
        let _ = unsafe { mm::iounmap(self.0) };
    }
}
