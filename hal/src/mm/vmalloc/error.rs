//! What can go wrong.

use crate::addr::VirtAddr;
use crate::mm::va::VaError;
use crate::mm::vmalloc::AreaKind;
use crate::mm::{AllocError, Gfp, MemoryTypeError};
use crate::mmu::MapError;
use crate::sync::Context;

/// Why memory was not given out or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmallocError {
    /// Zero bytes, or no pages, were asked for.
    #[error("zero bytes")]
    ZeroSize,
    /// More than the machine's memory was asked for.
    #[error("{size:#x} bytes are more than the {frames} frames of the machine")]
    TooLarge {
        /// Bytes asked for.
        size: usize,
        /// Frames there are.
        frames: usize,
    },
    /// The call may block, and its context may not.
    #[error("called in {0}, where blocking is not allowed")]
    Context(Context),
    /// The flags forbid blocking, which `vmalloc` cannot promise.
    #[error("vmalloc may block, and {0:?} may not")]
    NonBlocking(Gfp),
    /// Flags that `vmalloc` cannot honour.
    #[error("vmalloc does not support {refused:?} of {gfp:?}")]
    Flags {
        /// The flags it cannot honour.
        refused: Gfp,
        /// All flags.
        gfp: Gfp,
    },
    /// The owner of the memory may not have that much: [`AllocError::OverLimit`].
    #[error(transparent)]
    OverLimit(AllocError),
    /// The page allocator had no frame left.
    #[error("out of memory after {mapped:#x} of {size:#x} bytes")]
    OutOfMemory {
        /// Bytes that had been mapped (and were given back).
        mapped: usize,
        /// Bytes asked for.
        size: usize,
    },
    /// The address is not the start of an area that was given out and not taken back.
    #[error("trying to free nonexistent vm area ({0})")]
    NotAnArea(VirtAddr),
    /// The area came from the other call.
    #[error("the area at {va} came from {kind}")]
    WrongKind {
        /// Its first address.
        va: VirtAddr,
        /// Where it came from.
        kind: AreaKind,
    },
    /// The address is not in a mapped page of the vmalloc window.
    #[error("{0} is not vmalloc memory")]
    NotMapped(VirtAddr),
    /// The window is not set up yet.
    #[error("vmalloc is not set up yet")]
    NotReady,
    /// A page has another memory type, or is none.
    #[error(transparent)]
    MemoryType(#[from] MemoryTypeError),
    /// No addresses or descriptors are left.
    #[error(transparent)]
    Addresses(#[from] VaError),
    /// The tables could not be changed.
    #[error(transparent)]
    Map(#[from] MapError),
}
