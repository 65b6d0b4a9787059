//! Blocks of DMA pools: handed to an engine, and freed by their addresses, rightly and wrongly.

use hal::dma::engine::{Destination, Source};
use hal::dma::pool::{PoolCreateError, RawBlock};
use hal::dma::{Device, DmaError, DmaPool, DmaPoolError, DmaSegment, PoolBlock};
use hal::mm::Gfp;

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

/// A pool, and the device it was made for.
#[derive(Debug)]
pub(crate) struct BlockPool {
    pool: DmaPool,
    device: &'static Device,
}

impl BlockPool {
    /// `dma_pool_create`, of blocks of `size` bytes.
    pub(crate) fn create(device: &'static Device, size: usize) -> Result<Self, PoolCreateError> {
        let pool = DmaPool::create("blocks", device, size, 0, 0)?;
        Ok(Self { pool, device })
    }

    /// `dma_pool_zalloc`.
    pub(crate) fn alloc(&self) -> Result<Block<'_>, DmaPoolError> {
        let block = self.pool.alloc(Gfp::KERNEL | Gfp::ZERO)?;
        let device = self.device;
        Ok(Block { block, device })
    }
}

/// A block of a [`BlockPool`].
#[derive(Debug)]
pub(crate) struct Block<'a> {
    block: PoolBlock<'a>,
    device: &'static Device,
}

impl<'a> Block<'a> {
    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.block.as_slice()
    }

    /// The bytes, writable.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.block.as_mut_slice()
    }

    /// The `len` bytes at `offset`, to be read by the device.
    pub(crate) fn part(
        &mut self,
        offset: usize,
        len: usize,
    ) -> Result<BlockPart<'_, 'a>, DmaError> {
        self.part_mut(offset, len)
    }

    /// The `len` bytes at `offset`, to be written by the device.
    pub(crate) fn part_mut(
        &mut self,
        offset: usize,
        len: usize,
    ) -> Result<BlockPart<'_, 'a>, DmaError> {
        let size = self.as_slice().len();
        let addr = self.block.dma_addr() + offset;
        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(BlockPart {
                segment: DmaSegment { addr, len },
                block: self,
            }),
            _ => Err(DmaError::OutOfBounds { offset, len, size }),
        }
    }
}

/// Bytes of a [`Block`] that the device may use.
#[derive(Debug)]
pub(crate) struct BlockPart<'a, 'b> {
    segment: DmaSegment,
    block: &'a mut Block<'b>,
}

// SAFETY: the segment lies in the block, which is mapped as non-cacheable memory or for a device
// that snoops, and which the part borrows exclusively.
unsafe impl Source for BlockPart<'_, '_> {
    fn device(&self) -> &Device {
        self.block.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        (index == 0).then_some(self.segment)
    }
}

// SAFETY: as for reading.
unsafe impl Destination for BlockPart<'_, '_> {
    fn device(&self) -> &Device {
        self.block.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        (index == 0).then_some(self.segment)
    }
}
