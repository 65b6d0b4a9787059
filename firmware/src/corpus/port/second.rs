//! Frames mapped a second time, against the rules.

use crate::machine::machine;
use hal::addr::{PhysRange, VirtAddr};
use hal::layout::EARLY;
use hal::mmu::{Attributes, Level, MapError};

/// Addresses for such mappings: a part of a window that is otherwise used while booting only, and not
/// that of the mappings which the suites plant.
const ADDRESS: VirtAddr = VirtAddr::new(EARLY.base.get() + EARLY.size / 8 * 6);

/// The mapping, until it is dropped. One at a time.
pub(in crate::corpus) struct Second {
    size: usize,
}

impl Second {
    /// Maps `frames` once more, as `attributes` say.
    pub(in crate::corpus) fn map(
        frames: PhysRange,
        attributes: Attributes,
    ) -> Result<Self, MapError> {
        // SAFETY: breaking the rule is what the seeds are for. The frames are the seed's own, which
        // drops their lines before anybody else has them; QEMU keeps one copy of every byte.
        unsafe {
            machine()
                .tables
                .lock()
                .map(ADDRESS, frames, attributes, Level::L3)?;
        }
        Ok(Self {
            size: frames.size() as usize,
        })
    }

    /// Where they are.
    #[inline(always)]
    pub(in crate::corpus) fn va(&self) -> VirtAddr {
        ADDRESS
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more. It is whole.
        let _ = unsafe { machine().tables.lock().unmap(ADDRESS, self.size) };
    }
}
