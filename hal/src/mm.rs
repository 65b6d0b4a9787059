//! Memory management: frames, zones, buddy pages, slab caches and `kmalloc`.
//!
//! ```text
//! kmalloc ---> slab caches ---+
//!    |  (up to 8 KiB)         v
//!    +------------------> page allocator ---> zones ---> buddy lists ---> frame descriptors
//!       (up to 4 MiB)     (GFP, fallback)    (lock, watermarks)
//! ```
//!
//! The machine has one page allocator and one set of `kmalloc` caches, set up by [`init`] and
//! reached through the functions of this module; tests make their own. Until `init` returned,
//! every allocation fails with [`AllocError::NotReady`].
//!
//! Locks: slab cache before zone. Neither lock is held while memory is zeroed, and no allocator
//! allocates while it holds one.

mod buddy;
mod frame;
mod gfp;
pub mod ioremap;
mod kmalloc;
mod migrate;
mod page;
mod slab;
pub mod va;
pub mod vmalloc;
mod watermark;
mod zero;
mod zone;

pub use buddy::{Buddy, FreeError, Histogram, MAX_ORDER, ORDERS};
pub use frame::{Frame, FrameError, FrameKind, FrameTable, MemoryTypeError, PAGEBLOCK_ORDER};
pub use gfp::Gfp;
pub use kmalloc::{
    CLASSES, DMA_ALIGN, Kmalloc, MAX_CLASS_SIZE, MAX_SIZE, ZERO_SIZE_PTR, class_align, class_of,
    class_size,
};
pub use migrate::MigrateType;
pub use page::{InitError, MemoryMap, PageAllocator};
pub use slab::{
    CacheError, CacheInfo, KmemCache, MAX_OBJECT_SIZE, MAX_SLAB_ORDER, MIN_OBJECT_SIZE, ObjectError,
};
pub use watermark::Watermarks;
pub use zone::{MAX_RANGES, Zone, ZoneInfo, ZoneKind};

use crate::addr::Pfn;
use crate::sync::Once;
use core::ptr::NonNull;

/// Why memory was not allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// Blocks have at most [`MAX_ORDER`].
    #[error("page allocation failure: order:{order} is above {MAX_ORDER}, {gfp:?}")]
    OrderTooLarge {
        /// The order asked for.
        order: u32,
        /// The flags.
        gfp: Gfp,
    },
    /// Objects have at most [`MAX_SIZE`] bytes.
    #[error("allocation of {size} bytes failed: more than {MAX_SIZE}, {gfp:?}")]
    SizeTooLarge {
        /// The size asked for, in bytes.
        size: usize,
        /// The flags.
        gfp: Gfp,
    },
    /// No zone the flags admit can spare the memory.
    #[error("page allocation failure: order:{order}, {gfp:?}")]
    NoMemory {
        /// The order of the block asked for.
        order: u32,
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

static PAGES: Once<PageAllocator> = Once::new();
static KMALLOC: Kmalloc = Kmalloc::new();

/// Sets the machine's allocators up. Its cost does not depend on the amount of RAM.
///
/// # Errors
///
/// [`InitError`] when the map contradicts itself, or on a second call.
///
/// # Safety
///
/// As for [`PageAllocator::new`]; one core runs.
pub unsafe fn init(frames: FrameTable, map: &MemoryMap<'_>) -> Result<(), InitError> {
    if PAGES.is_completed() {
        return Err(InitError::Twice);
    }
    // SAFETY: handed on to the caller.
    let pages = unsafe { PageAllocator::new(frames, map) }?;
    KMALLOC.set_pages(PAGES.call_once(|| pages));
    Ok(())
}

/// The machine's page allocator, once [`init`] has run.
#[inline]
pub fn pages() -> Option<&'static PageAllocator> {
    PAGES.get()
}

/// The machine's `kmalloc` caches, for their reports and for [`Kmalloc::shrink`].
pub fn kmalloc_caches() -> &'static Kmalloc {
    &KMALLOC
}

/// Allocates pages of the machine: [`PageAllocator::alloc_pages`].
///
/// # Errors
///
/// As there, and [`AllocError::NotReady`] before [`init`].
pub fn alloc_pages(gfp: Gfp, order: u32) -> Result<Pfn, AllocError> {
    pages().ok_or(AllocError::NotReady)?.alloc_pages(gfp, order)
}

/// Allocates one zeroed page of the machine: [`PageAllocator::get_zeroed_page`].
///
/// # Errors
///
/// As [`alloc_pages`].
pub fn get_zeroed_page(gfp: Gfp) -> Result<Pfn, AllocError> {
    alloc_pages(gfp | Gfp::ZERO, 0)
}

/// Frees pages of the machine: [`PageAllocator::free_pages`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn free_pages(pfn: Pfn, order: u32) -> Result<(), FreeError> {
    let pages = pages().ok_or(FrameError::Untouched(pfn))?;
    // SAFETY: handed on to the caller.
    unsafe { pages.free_pages(pfn, order) }
}

/// Allocates memory of the machine: [`Kmalloc::kmalloc`].
///
/// # Errors
///
/// As there.
#[inline(always)]
pub fn kmalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kmalloc(size, gfp)
}

/// Allocates zeroed memory of the machine: [`Kmalloc::kzalloc`].
///
/// # Errors
///
/// As there.
#[inline(always)]
pub fn kzalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kzalloc(size, gfp)
}

/// Frees memory of the machine: [`Kmalloc::kfree`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[inline]
pub unsafe fn kfree(object: *mut u8) -> Result<(), ObjectError> {
    // SAFETY: handed on to the caller.
    unsafe { KMALLOC.kfree(object) }
}

/// Bytes usable at an object of the machine: [`Kmalloc::ksize`].
///
/// # Errors
///
/// As there.
pub fn ksize(object: *const u8) -> Result<usize, ObjectError> {
    KMALLOC.ksize(object)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
