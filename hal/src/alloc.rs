//! Owned memory: boxes and vectors whose every allocation may fail and takes its flags.
//!
//! The shape is that of Rust for Linux's `kernel::alloc`. A container is generic over where its
//! memory comes from:
//!
//! | allocator | box | vector | memory | from interrupts and under locks |
//! |---|---|---|---|---|
//! | [`Kmalloc`] | [`KBox`] | [`KVec`] | physically contiguous, whole cache lines | with flags that do not block |
//! | [`Vmalloc`] | [`VBox`] | [`VVec`] | whole pages in the vmalloc window | drop only |
//! | [`KVmalloc`] | [`KVBox`] | [`KVVec`] | the first if it can be had, else the second | with flags that do not block, like the first |
//!
//! Nothing here panics for want of memory: what may allocate takes [`Flags`] and returns a
//! `Result`, and after an error the container is as it was.
//!
//! ```no_run
//! use hal::alloc::{AllocError, KBox, KVec, flags::*};
//!
//! fn squares(count: u64) -> Result<KBox<[u64]>, AllocError> {
//!     let mut squares = KVec::with_capacity(count as usize, GFP_KERNEL)?;
//!     for number in 0..count {
//!         squares.push(number * number, GFP_KERNEL)?;
//!     }
//!     squares.into_boxed_slice(GFP_KERNEL)
//! }
//! ```
//!
//! [`GlobalKernelAllocator`] puts the collections of Rust's own `alloc` crate on the same memory;
//! those do panic when it runs out.

mod allocator;
mod boxed;
mod global;
mod kernel;
mod vec;

pub use allocator::Allocator;
pub use boxed::{Box, KBox, KVBox, VBox};
pub use global::GlobalKernelAllocator;
pub use kernel::{KVmalloc, Kmalloc, Vmalloc};
pub use vec::{IntoIter, KVVec, KVec, PushError, RemoveError, VVec, Vec};

/// What an allocation may do and which memory it takes.
pub use crate::mm::Gfp as Flags;

use crate::mm::{self, KvmallocError, ObjectError, ReallocError, VmallocError};

/// The flags by the names C drivers use.
pub mod flags {
    use super::Flags;

    /// The normal choice in task context: [`Flags::KERNEL`].
    pub const GFP_KERNEL: Flags = Flags::KERNEL;
    /// As [`GFP_KERNEL`], charged to an owner: [`Flags::KERNEL_ACCOUNT`].
    pub const GFP_KERNEL_ACCOUNT: Flags = Flags::KERNEL_ACCOUNT;
    /// In interrupt handlers and under locks: [`Flags::ATOMIC`].
    pub const GFP_ATOMIC: Flags = Flags::ATOMIC;
    /// Never blocks, no reserve: [`Flags::NOWAIT`].
    pub const GFP_NOWAIT: Flags = Flags::NOWAIT;
    /// Reclaim starts no I/O: [`Flags::NOIO`].
    pub const GFP_NOIO: Flags = Flags::NOIO;
    /// Reclaim enters no file system: [`Flags::NOFS`].
    pub const GFP_NOFS: Flags = Flags::NOFS;
    /// Memory the most limited DMA master reaches: [`Flags::DMA`], a zone only.
    pub const GFP_DMA: Flags = Flags::DMA;
    /// Memory below 4 GiB: [`Flags::DMA32`], a zone only.
    pub const GFP_DMA32: Flags = Flags::DMA32;
    /// Zeroed memory: [`Flags::ZERO`].
    pub const __GFP_ZERO: Flags = Flags::ZERO;
    /// A failure prints nothing: [`Flags::NOWARN`].
    pub const __GFP_NOWARN: Flags = Flags::NOWARN;
}

/// Why a container got no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// The elements do not fit into an address space.
    #[error("{count} elements of {size} bytes are more than any allocation")]
    CapacityOverflow {
        /// Elements there would be.
        count: usize,
        /// The size of each, in bytes.
        size: usize,
    },
    /// There is no physically contiguous memory.
    #[error(transparent)]
    Kmalloc(#[from] mm::AllocError),
    /// There is no memory for the vmalloc window.
    #[error(transparent)]
    Vmalloc(#[from] VmallocError),
    /// Neither will do for so much, or the size is no number.
    #[error(transparent)]
    Kvmalloc(KvmallocError),
    /// The memory to be resized is not the allocator's.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The allocator's memory is not aligned like that.
    #[error("alignment to {align} bytes, at most {most} can be had")]
    Alignment {
        /// The alignment asked for, in bytes.
        align: usize,
        /// The largest there is.
        most: usize,
    },
}

impl From<ReallocError> for AllocError {
    fn from(error: ReallocError) -> Self {
        match error {
            ReallocError::Alloc(error) => Self::Kmalloc(error),
            ReallocError::Object(error) => Self::Object(error),
        }
    }
}

impl From<KvmallocError> for AllocError {
    fn from(error: KvmallocError) -> Self {
        match error {
            KvmallocError::Kmalloc(error) => Self::Kmalloc(error),
            KvmallocError::Vmalloc(error) => Self::Vmalloc(error),
            KvmallocError::Object(error) => Self::Object(error),
            error => Self::Kvmalloc(error),
        }
    }
}

#[cfg(doctest)]
mod misuse;
#[cfg(test)]
pub(crate) mod testing;
