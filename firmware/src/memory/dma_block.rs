//! Blocks of DMA pools freed by their addresses, rightly and wrongly.

use hal::dma::pool::RawBlock;
use hal::dma::{DmaPool, DmaPoolError, PoolBlock};

/// Frees a block of `pool`, and then what is no longer its own.
pub(crate) fn freed_twice(
    pool: &DmaPool,
    block: PoolBlock<'_>,
) -> (Result<(), DmaPoolError>, Result<(), DmaPoolError>) {
    let raw = block.into_raw();
    // SAFETY: the block belonged to `block`.
    let first = unsafe { pool.free_raw(raw) };
    // SAFETY: a block that is free is refused. Nobody allocates from the pool between the two calls:
    // the other cores are idle.
    (first, unsafe { pool.free_raw(raw) })
}

/// Frees `block`, which lies at `offset` from where the block starts that `pool` would have to free;
/// that must be refused.
pub(crate) fn freed_as_another(
    pool: &DmaPool,
    block: &PoolBlock<'_>,
    offset: usize,
) -> Result<(), DmaPoolError> {
    let raw = RawBlock {
        cpu: block.as_ptr(),
        addr: block.dma_addr() + offset,
    };
    if offset == 0 {
        return Ok(());
    }
    // SAFETY: the addresses are not of one block.
    unsafe { pool.free_raw(raw) }
}

/// A block that outlives its pool's name.
#[derive(Debug)]
pub(crate) struct Kept(RawBlock);

impl Kept {
    /// The block, to be freed by [`free`](Self::free).
    pub(crate) fn of(block: PoolBlock<'_>) -> Self {
        Self(block.into_raw())
    }

    /// Where it is.
    pub(crate) fn block(&self) -> RawBlock {
        self.0
    }

    /// Frees it.
    pub(crate) fn free(self, pool: &DmaPool) -> Result<(), DmaPoolError> {
        // SAFETY: the block belonged to `self`, or is none of `pool`.
        unsafe { pool.free_raw(self.0) }
    }
}
