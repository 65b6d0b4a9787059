//! What is done for a request that finds no zone above its low watermark.

use super::PageAllocator;
use crate::addr::Pfn;
use crate::mm::watermark::Mark;
use crate::mm::{AllocError, Gfp};

impl PageAllocator {
    /// Tries again down to the floor of the request's rights.
    #[cold]
    pub(super) fn alloc_slow(&self, gfp: Gfp, order: u32) -> Result<Pfn, AllocError> {
        self.try_alloc(gfp, order, Mark::Min)
            .ok_or(AllocError::NoMemory { order, gfp })
    }
}
