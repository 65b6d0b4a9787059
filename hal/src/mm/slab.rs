//! Slab caches: objects of one size, carved from blocks of pages.
//!
//! ```text
//! caller <--> magazine of this core <--batch--> slabs of the cache <--> page allocator
//!             (no mask, no lock)                (one lock per cache)
//! ```
//!
//! Whichever core frees an object, it goes into that core's magazine; when the magazine overflows,
//! a batch goes back to the slabs the objects came from. So there is no remote path: an object
//! freed far from home takes the same two steps as any other. Interrupt handlers have no
//! magazines and go to the slabs, so that a task need not mask them. Batches are small, a call that
//! gets a slab does not fill the magazine too, and at most one slab goes back to the page allocator
//! in one call, which bounds the cost of any single call.
//!
//! Slabs have no header: objects start at the first byte, which keeps the alignment promise, and
//! the frame descriptors lead from any address to its slab and cache.

mod bulk;
mod cache;
mod charge;
#[cfg(feature = "slab-debug")]
mod debug;
mod error;
mod fast;
mod flags;
mod geometry;
mod info;
mod kmem_cache;
mod magazine;
mod mark;
mod packed;
mod registry;
mod slabs;

pub(super) use cache::Cache;
pub use cache::Constructor;
#[cfg(feature = "slab-debug")]
pub use debug::{Site, SlabFault, SlabReport, set_slab_hook, take_slab_report};
#[cfg(feature = "slab-debug")]
pub(super) use debug::{Slot, freed_object_in};
pub use error::ObjectError;
pub(super) use fast::{alloc_fast, free_fast};
pub use flags::SlabFlags;
pub(super) use geometry::Geometry;
pub(crate) use geometry::SLOT;
pub use geometry::{CacheError, MAX_OBJECT_SIZE, MAX_SLAB_ORDER};
pub use info::CacheInfo;
pub use kmem_cache::{DestroyError, KmemCache};
pub(crate) use magazine::Magazines;
pub(super) use magazine::SlotStore;
#[cfg(test)]
pub(super) use mark::free_mark;
pub use packed::{MAX_PACKED_SIZE, PACKED_ALIGN};
pub(super) use packed::{has_whole_lines, is_packed};
pub use registry::{MAX_NAMED_CACHES, named_caches};
pub(super) use registry::{name_of, named};
pub(super) use slabs::Slabs;

use super::frame::{Frame, FrameTable};
use crate::addr::{PhysAddr, VirtAddr};
use crate::layout;

/// The physical address behind `va`, if it is in the direct map.
pub(super) fn direct_map(va: VirtAddr) -> Result<PhysAddr, ObjectError> {
    layout::virt_to_phys(va).ok_or(if layout::VMALLOC.contains(va) {
        ObjectError::VmallocAddress(va)
    } else {
        ObjectError::NotDirectMap(va)
    })
}

/// The physical address behind `va` and its frame, if an allocator uses the memory there.
pub(super) fn frame_of(
    frames: &FrameTable,
    va: VirtAddr,
) -> Result<(PhysAddr, &'static Frame), ObjectError> {
    let pa = direct_map(va)?;
    let frame = frames
        .get(pa.pfn())
        .map_err(|error| ObjectError::NotAllocated { va, error })?;
    Ok((pa, frame))
}

#[cfg(test)]
mod tests;
