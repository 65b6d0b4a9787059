//! What a pool refuses.

use crate::addr::DmaAddr;
use crate::alloc::AllocError;
use crate::dma::DmaError;

/// Why there is no such pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolCreateError {
    /// There is no coherent memory yet.
    #[error("a pool before there is coherent memory")]
    NotReady,
    /// Blocks of no bytes.
    #[error("a pool of blocks of no bytes")]
    ZeroSize,
    /// Blocks of more than `i32::MAX` bytes.
    #[error("a pool of blocks of {0:#x} bytes")]
    TooLarge(usize),
    /// No power of two, or more than the largest block of pages is aligned to.
    #[error("a pool of blocks aligned to {0:#x} bytes")]
    Alignment(usize),
    /// No power of two, or less than a block.
    #[error("a pool of blocks of {block:#x} bytes that cross no multiple of {boundary:#x}")]
    Boundary {
        /// The boundary asked for.
        boundary: usize,
        /// Bytes in a block, rounded up to the alignment.
        block: usize,
    },
}

/// Why a block was not handed out or taken back. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaPoolError {
    /// There is no more coherent memory.
    #[error(transparent)]
    Memory(#[from] DmaError),
    /// There is no memory to note what is free.
    #[error(transparent)]
    Notes(#[from] AllocError),
    /// The block is free. Linux: "dma ... already free".
    #[error("{pool}: {addr} already free")]
    AlreadyFree {
        /// The pool.
        pool: &'static str,
        /// The block.
        addr: DmaAddr,
    },
    /// No block of the pool has that device address. Linux: "bad dma".
    #[error("{pool}: {addr} is no block of the pool")]
    Foreign {
        /// The pool.
        pool: &'static str,
        /// The address.
        addr: DmaAddr,
    },
    /// The two addresses are not of one block. Linux: "bad vaddr".
    #[error("{pool}: {addr} is at another CPU address")]
    OtherAddress {
        /// The pool.
        pool: &'static str,
        /// The device address.
        addr: DmaAddr,
    },
}
