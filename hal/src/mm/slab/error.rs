//! What is wrong with an address that was said to be an object.

use crate::addr::VirtAddr;
use crate::mm::buddy::FreeError;
use crate::mm::frame::{FrameError, FrameKind};

/// Why an object was not freed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The memory was mapped page by page: it is freed with `vfree`.
    #[error("{0} is a vmalloc address")]
    VmallocAddress(VirtAddr),
    /// The address is not in the direct map.
    #[error("{0} is not in the direct map")]
    NotDirectMap(VirtAddr),
    /// No allocator ever handed out memory there.
    #[error("{va} was never allocated: {error}")]
    NotAllocated {
        /// The address.
        va: VirtAddr,
        /// What the frame's descriptor says.
        error: FrameError,
    },
    /// The memory is free, or in use for something else.
    #[error("{va} is no object: its frame is {kind:?}")]
    NotAnObject {
        /// The address.
        va: VirtAddr,
        /// What its frame is used for.
        kind: FrameKind,
    },
    /// No object that is in use starts there.
    #[error("{0} points into a slab but not at an object in use")]
    NotAtObject(VirtAddr),
    /// The object is free already.
    #[error("the object at {0} is free already")]
    DoubleFree(VirtAddr),
    /// The object belongs to another cache.
    #[error("the object at {va} belongs to slab cache {cache}")]
    WrongCache {
        /// The address.
        va: VirtAddr,
        /// The cache it belongs to.
        cache: &'static str,
    },
    /// Bytes of an object outside the window that may be copied out.
    #[error("{len} bytes at offset {offset} of slab cache {cache} lie outside {window:?}")]
    Usercopy {
        /// The cache.
        cache: &'static str,
        /// Offset of the first byte in the object.
        offset: usize,
        /// Bytes asked for.
        len: usize,
        /// Start and end of the window.
        window: (usize, usize),
    },
    /// The page allocator refused the block.
    #[error(transparent)]
    Pages(#[from] FreeError),
}
