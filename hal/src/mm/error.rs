//! Why memory was not allocated.

use super::{Gfp, MAX_ORDER, MAX_SIZE};
use crate::sync::Context;

/// Why memory was not allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// Blocks have at most [`MAX_ORDER`].
    #[error("page allocation failure: order:{order} is above {MAX_ORDER}, mode:{gfp}")]
    OrderTooLarge {
        /// The order asked for.
        order: u32,
        /// The flags.
        gfp: Gfp,
    },
    /// Objects have at most [`MAX_SIZE`] bytes.
    #[error("allocation of {size} bytes failed: more than {MAX_SIZE}, mode:{gfp}")]
    SizeTooLarge {
        /// The size asked for, in bytes.
        size: usize,
        /// The flags.
        gfp: Gfp,
    },
    /// The size of an array is no number.
    #[error("{count} elements of {size} bytes are more than any size, {gfp:?}")]
    Overflow {
        /// Elements asked for.
        count: usize,
        /// The size of each, in bytes.
        size: usize,
        /// The flags.
        gfp: Gfp,
    },
    /// No zone the flags admit can spare the memory.
    #[error("page allocation failure: order:{order}, mode:{gfp}")]
    NoMemory {
        /// The order of the block asked for.
        order: u32,
        /// The flags.
        gfp: Gfp,
    },
    /// The flags let the call block, and its context may not.
    #[error("a blocking allocation, mode:{gfp}, in {context}")]
    Context {
        /// Where the call was made.
        context: Context,
        /// The flags.
        gfp: Gfp,
    },
    /// The owner of the memory may not have that much.
    #[error("{owner} uses {used} of {limit} bytes: no {bytes} more")]
    OverLimit {
        /// Name of the owner.
        owner: &'static str,
        /// Bytes it uses.
        used: usize,
        /// Bytes it may use.
        limit: usize,
        /// Bytes asked for.
        bytes: usize,
    },
    /// There are [`MAX_OWNERS`](super::MAX_OWNERS) owners already.
    #[error("too many owners of memory")]
    TooManyOwners,
    /// Zeroes were asked of a slab cache whose objects a constructor makes.
    #[error("a zeroed object, {gfp:?}, of a slab cache with a constructor")]
    Constructed {
        /// The flags.
        gfp: Gfp,
    },
    /// An object was to be charged, and its named cache has no place to note to whom: it is made
    /// without [`SlabFlags::ACCOUNT`](super::SlabFlags::ACCOUNT).
    #[error("slab cache {cache} charges nobody, mode:{gfp}")]
    NotAccounted {
        /// The cache.
        cache: &'static str,
        /// The flags.
        gfp: Gfp,
    },
    /// All numbers for named caches are taken.
    #[error("too many named caches")]
    TooManyCaches,
    /// The allocators are not set up yet.
    #[error("the memory allocators are not set up yet")]
    NotReady,
}
