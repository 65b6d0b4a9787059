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
    ///
    /// # Safety
    ///
    /// As long as the mapping is there, nobody but the caller accesses the frames, and the caller by
    /// volatile accesses only or by executing them. If the types differ, no line of them is in a cache when the
    /// mapping ends.
    pub(in crate::corpus) unsafe fn map(
        frames: PhysRange,
        attributes: Attributes,
    ) -> Result<Self, MapError> {
        // SAFETY: the range of addresses is used by no other mapping. That the frames are of two types for
        // a while is the caller's responsibility.
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
        // SAFETY: `map` made the mapping, of this size, and its address is lent with the value only.
        let _ = unsafe { machine().tables.lock().unmap(ADDRESS, self.size) };
    }
}
