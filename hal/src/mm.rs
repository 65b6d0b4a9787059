//! Memory management: frames, zones, buddy pages, slab caches, `kmalloc`, `vmalloc`, ioremap.
//!
//! ```text
//! vmalloc ------------------+
//!                            v
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
//! When memory runs low, shrinkers give some back: see [`Shrinker`], [`ReclaimInfo`] and the scopes
//! in [`scope`].
//!
//! Locks: slab cache before zone. Neither lock is held while memory that is handed out is zeroed;
//! a zone's is while the descriptors of a pageblock used for the first time are, which are two
//! pages. No allocator allocates while it holds a lock.

mod buddy;
mod cma;
mod contig;
mod error;
pub mod fault;
mod frame;
mod gfp;
mod ioremap;
mod kmalloc;
mod kmap;
mod kvmalloc;
mod lend;
mod machine;
mod migrate;
mod misuse;
mod movable;
mod owner;
mod page;
mod pcp;
mod reclaim;
mod report;
pub mod scope;
mod shrinker;
mod size;
mod slab;
pub mod va;
mod vmalloc;
mod watermark;
mod zero;
mod zone;

pub use buddy::{FreeError, Histogram, ListError, MAX_ORDER, ORDERS};
pub use cma::{AREA_ALIGN, Cma, CmaArea, CmaError, CmaStats, MAX_ALIGN_ORDER, MAX_AREAS};
pub use error::AllocError;
#[cfg(target_os = "none")]
pub(crate) use frame::FrameLookup;
pub use frame::{Frame, FrameError, FrameKind, FrameTable, MemoryTypeError, PAGEBLOCK_ORDER};
pub use gfp::{Gfp, GfpError};
pub use ioremap::{
    IoKind, Ioremap, IoremapError, Resource, ResourceError, claimed_regions, request_mem_region,
};
pub use kmalloc::{
    CLASSES, DMA_ALIGN, Kmalloc, MAX_CLASS_SIZE, MAX_SIZE, PackedKmalloc, ReallocError,
    ZERO_SIZE_PTR, class_align, class_of, class_size,
};
pub use kmap::{KMAP_SLOTS, Kmap, KmapError, LocalMapping};
pub use kvmalloc::{KVMALLOC_MAX_SIZE, Kvmalloc, KvmallocError};
pub use lend::{Unlendable, note_given_memory};
pub use machine::*;
pub use migrate::MigrateType;
pub use misuse::{Misuse, set_misuse_hook};
pub use movable::{
    MAX_MOVABLE_OWNERS, Migration, MovableOwner, MovablePage, MovablePool, OwnerId, Pinned,
    PinnedPage, TooManyOwners,
};
pub use owner::{ChargeScope, MAX_OWNERS, Owner, charge_to, owners};
pub use page::{InitError, PageAllocator, UsableRam, get_order};
pub use reclaim::ReclaimInfo;
pub use report::{Cause, FailureReport, set_failure_hook};
pub use scope::{Scope, memalloc_nofs, memalloc_noio, memalloc_noreclaim};
pub use shrinker::{MAX_SHRINKERS, Shrinker, ShrinkerError, ShrinkerInfo};
pub use size::{array_size, array3_size, kmalloc_size_roundup, size_add, size_mul, struct_size};
pub(crate) use slab::Magazines;
pub use slab::{
    CacheError, CacheInfo, Constructor, DestroyError, KmemCache, MAX_NAMED_CACHES, MAX_OBJECT_SIZE,
    MAX_PACKED_SIZE, MAX_SLAB_ORDER, ObjectError, PACKED_ALIGN, SlabFlags, named_caches,
};
#[cfg(feature = "slab-debug")]
pub use slab::{Site, SlabFault, SlabReport, set_slab_hook, take_slab_report};
pub use vmalloc::{
    AreaInfo, AreaKind, PageSource, Protection, PurgeInfo, Vmalloc, VmallocError, VmallocUsage,
    is_vmalloc_addr,
};
pub use watermark::Watermarks;
pub(crate) use zero::zero_pages;
pub use zone::{MAX_RANGES, Zone, ZoneInfo, ZoneKind};

#[cfg(target_os = "none")]
pub(crate) use pcp::{Limits as PageLimits, PageLists};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
