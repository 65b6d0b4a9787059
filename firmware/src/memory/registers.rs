//! Mappings of device registers that nobody accesses.

use hal::addr::{PhysRange, VirtAddr};
use hal::mm::{self, IoKind, IoremapError};

/// Device registers mapped for a while.
#[derive(Debug)]
pub(crate) struct Registers {
    va: VirtAddr,
}

impl Registers {
    /// `ioremap`.
    pub(crate) fn map(range: PhysRange, kind: IoKind) -> Result<Self, IoremapError> {
        mm::ioremap(range, kind).map(|va| Self { va })
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`, which gave its address to nobody. A refusal would
        // show as a window that fills up.
        let _ = unsafe { mm::iounmap(self.va) };
    }
}
