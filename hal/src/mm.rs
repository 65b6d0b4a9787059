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
//! Locks: slab cache before zone. Neither lock is held while memory is zeroed, and no allocator
//! allocates while it holds one.

mod buddy;
mod cma;
mod contig;
pub mod fault;
mod frame;
mod gfp;
mod ioremap;
mod kmalloc;
mod kmap;
mod kvmalloc;
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

pub use buddy::{Buddy, FreeError, Histogram, MAX_ORDER, ORDERS};
pub use cma::{AREA_ALIGN, Cma, CmaArea, CmaError, CmaStats, MAX_ALIGN_ORDER, MAX_AREAS};
#[cfg(target_os = "none")]
pub(crate) use frame::FrameLookup;
pub use frame::{Frame, FrameError, FrameKind, FrameTable, MemoryTypeError, PAGEBLOCK_ORDER};
pub use gfp::{Gfp, GfpError};
pub use ioremap::{IoKind, Ioremap, IoremapError, Resource, ResourceError, request_mem_region};
pub use kmalloc::{
    CLASSES, DMA_ALIGN, Kmalloc, MAX_CLASS_SIZE, MAX_SIZE, PackedKmalloc, ReallocError,
    ZERO_SIZE_PTR, class_align, class_of, class_size,
};
pub use kmap::{KMAP_SLOTS, Kmap, KmapError, LocalMapping};
pub use kvmalloc::{KVMALLOC_MAX_SIZE, Kvmalloc, KvmallocError};
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
    AreaInfo, AreaKind, PageSource, Protection, PurgeInfo, Vmalloc, VmallocError, is_vmalloc_addr,
};
pub use watermark::{Mark, Watermarks};
pub use zone::{MAX_RANGES, Zone, ZoneInfo, ZoneKind};

use crate::addr::{Pfn, PhysAddr, PhysRange, VirtAddr};
use crate::memory_map::MAX_RAM;
use crate::mmu::{KernelMapper, MemoryType};
use crate::sync::{Context, IrqLock, Once};
use crate::work::{self, Work};
use core::ptr::NonNull;
use pcp::AtHand;
#[cfg(target_os = "none")]
pub(crate) use pcp::{Limits as PageLimits, PageLists};

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
    /// There are [`MAX_OWNERS`] owners already.
    #[error("too many owners of memory")]
    TooManyOwners,
    /// Zeroes were asked of a slab cache whose objects a constructor makes.
    #[error("a zeroed object, {gfp:?}, of a slab cache with a constructor")]
    Constructed {
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
static AT_HAND: AtHand = AtHand::new();
static KMALLOC: Kmalloc = Kmalloc::new();
static PACKED: PackedKmalloc = PackedKmalloc::new();

static MIGRATION: Migration = Migration::new();
static CMA: Once<heapless::Vec<Cma, MAX_AREAS>> = Once::new();

/// Sets the machine's allocators up, with the contiguous memory areas `areas`, which are not part
/// of `map`. Its cost does not depend on the amount of RAM, but on that of the areas.
///
/// # Errors
///
/// [`InitError`] when the map contradicts itself, or on a second call.
///
/// # Safety
///
/// As for [`PageAllocator::new`] and [`PageAllocator::lend`]; one core runs.
pub unsafe fn init(
    frames: FrameTable,
    map: &UsableRam<'_>,
    areas: &[CmaArea],
) -> Result<(), InitError> {
    if PAGES.is_completed() {
        return Err(InitError::Twice);
    }
    // SAFETY: handed on to the caller.
    let mut pages = unsafe { PageAllocator::new(frames, map) }?;
    for area in areas {
        // SAFETY: as above.
        unsafe { pages.lend(area.frames) }?;
    }
    #[cfg(target_os = "none")]
    // SAFETY: one core runs.
    unsafe {
        crate::sync::percpu::set_frames(frames.lookup());
    }
    // SAFETY: one core runs, and this runs once.
    let pages = PAGES.call_once(|| unsafe { pages.with_lists(&AT_HAND) });
    KMALLOC.set_pages(pages);
    pages.set_reclaim_waker(|| work::schedule(Work::Reclaim));
    work::set_handler(Work::Reclaim, reclaim_in_the_background);
    // The list of shrinkers is empty, so there is room.
    let _ = pages.register_shrinker(&reclaim::EmptySlabs);
    CMA.call_once(|| {
        // Without memory for its bits an area stays lent for good.
        let area = |area: &CmaArea| {
            // SAFETY: the area was lent above, and this runs once.
            unsafe { Cma::new(*area, pages, &MIGRATION) }.ok()
        };
        areas.iter().filter_map(area).take(MAX_AREAS).collect()
    });
    Ok(())
}

/// What [`Work::Reclaim`] does.
fn reclaim_in_the_background() {
    if let Some(pages) = pages() {
        pages.background_reclaim();
    }
}

/// The machine's contiguous memory areas.
pub fn cma_areas() -> &'static [Cma] {
    CMA.get().map_or(&[], |areas| areas)
}

/// The contiguous memory area for everybody who has none of their own, if there is one.
#[doc(alias = "dma_contiguous_default_area")]
pub fn default_cma() -> Option<&'static Cma> {
    cma_areas().iter().find(|cma| cma.area().is_default)
}

/// The owners of the machine's movable memory.
pub fn migration() -> &'static Migration {
    &MIGRATION
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
#[doc(alias = "alloc_page")]
#[inline(always)]
pub fn alloc_pages(gfp: Gfp, order: u32) -> Result<Pfn, AllocError> {
    match page::take(&AT_HAND, gfp, order) {
        Some(pfn) => Ok(pfn),
        // Taken apart, so that a caller's fast path keeps the result in registers.
        None => match pages()
            .ok_or(AllocError::NotReady)?
            .alloc_from_zones(gfp, order)
        {
            Ok(pfn) => Ok(pfn),
            Err(error) => Err(error),
        },
    }
}

/// Allocates pages of the machine by address: [`PageAllocator::get_free_pages`].
///
/// # Errors
///
/// As [`alloc_pages`].
#[doc(alias = "__get_free_pages")]
pub fn get_free_pages(gfp: Gfp, order: u32) -> Result<VirtAddr, AllocError> {
    let pages = pages().ok_or(AllocError::NotReady)?;
    pages.get_free_pages(gfp, order)
}

/// Allocates as many pages of the machine as `size` bytes take:
/// [`PageAllocator::alloc_pages_exact`].
///
/// # Errors
///
/// As there, and [`AllocError::NotReady`] before [`init`].
pub fn alloc_pages_exact(size: usize, gfp: Gfp) -> Result<VirtAddr, AllocError> {
    let pages = pages().ok_or(AllocError::NotReady)?;
    pages.alloc_pages_exact(size, gfp)
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
#[doc(alias = "__free_pages")]
#[inline(always)]
pub unsafe fn free_pages(pfn: Pfn, order: u32) -> Result<(), FreeError> {
    if AT_HAND.lists().push(pfn, order) {
        return Ok(());
    }
    let pages = pages().ok_or(FrameError::Untouched(pfn))?;
    pages.free_to_zone(pfn, order)
}

/// Frees pages of the machine by address: [`PageAllocator::free_pages_at`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[doc(alias = "free_pages")]
pub unsafe fn free_pages_at(va: VirtAddr, order: u32) -> Result<(), FreeError> {
    let pages = pages().ok_or(FreeError::Address(va))?;
    // SAFETY: handed on to the caller.
    unsafe { pages.free_pages_at(va, order) }
}

/// Frees pages of the machine by size: [`PageAllocator::free_pages_exact`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn free_pages_exact(va: VirtAddr, size: usize) -> Result<(), FreeError> {
    let pages = pages().ok_or(FreeError::Address(va))?;
    // SAFETY: handed on to the caller.
    unsafe { pages.free_pages_exact(va, size) }
}

/// Takes a block of pages of the machine apart: [`PageAllocator::split_page`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn split_page(pfn: Pfn, order: u32) -> Result<(), FreeError> {
    let pages = pages().ok_or(FrameError::Untouched(pfn))?;
    // SAFETY: handed on to the caller.
    unsafe { pages.split_page(pfn, order) }
}

/// Allocates memory of the machine: [`Kmalloc::kmalloc`].
///
/// # Errors
///
/// As there.
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
pub fn kmalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kmalloc(size, gfp)
}

/// Allocates zeroed memory of the machine: [`Kmalloc::kzalloc`].
///
/// # Errors
///
/// As there.
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
pub fn kzalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kzalloc(size, gfp)
}

/// Allocates memory of the machine that no device may meet: [`PackedKmalloc::kmalloc`].
///
/// # Errors
///
/// As there, and [`AllocError::NotReady`] before [`init`].
pub fn kmalloc_packed(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    if size == 0 || size > MAX_PACKED_SIZE {
        return kmalloc(size, gfp);
    }
    PACKED.kmalloc(pages().ok_or(AllocError::NotReady)?, size, gfp)
}

/// The name of the packed cache that has the memory at `pa`, if one has it.
///
/// Its objects share cache lines, so it must not be handed to a device that does not snoop.
pub fn packed_cache_at(pa: PhysAddr) -> Option<&'static str> {
    let frame = pages()?.frames().get(pa.pfn()).ok()?;
    slab::is_packed(frame).then(|| slab::name_of(frame.tag()))
}

/// The name of the slab cache whose free object the memory at `pa` is part of, if it is. The debug
/// build only.
#[cfg(feature = "slab-debug")]
pub fn freed_object_at(pa: PhysAddr) -> Option<&'static str> {
    let frames = pages()?.frames();
    let frame = frames.get(pa.pfn()).ok()?;
    slab::freed_object_at(frames.lookup(), pa, frame)
}

/// Checks all objects of all slab caches; how many are not as they should be, see [`SlabReport`].
/// Nobody allocates or frees meanwhile. The debug build only.
#[cfg(feature = "slab-debug")]
#[track_caller]
pub fn validate_slabs() -> usize {
    let Some(pages) = pages() else { return 0 };
    let mut wrong = KMALLOC.validate();
    for cache in named_caches() {
        wrong += cache.validate(pages);
    }
    wrong
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
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
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

/// Allocates an array of the machine: [`Kmalloc::kmalloc_array`].
///
/// # Errors
///
/// As there.
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
pub fn kmalloc_array(count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kmalloc_array(count, size, gfp)
}

/// Allocates a zeroed array of the machine: [`Kmalloc::kcalloc`].
///
/// # Errors
///
/// As there.
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
pub fn kcalloc(count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kcalloc(count, size, gfp)
}

/// Resizes an object of the machine: [`Kmalloc::krealloc`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[cfg_attr(feature = "slab-debug", track_caller)]
pub unsafe fn krealloc(
    object: *mut u8,
    size: usize,
    gfp: Gfp,
) -> Result<NonNull<u8>, ReallocError> {
    // SAFETY: handed on to the caller.
    unsafe { KMALLOC.krealloc(object, size, gfp) }
}

/// Resizes an array of the machine: [`Kmalloc::krealloc_array`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[cfg_attr(feature = "slab-debug", track_caller)]
pub unsafe fn krealloc_array(
    object: *mut u8,
    count: usize,
    size: usize,
    gfp: Gfp,
) -> Result<NonNull<u8>, ReallocError> {
    // SAFETY: handed on to the caller.
    unsafe { KMALLOC.krealloc_array(object, count, size, gfp) }
}

/// Zeroes and frees memory of the machine: [`Kmalloc::kfree_sensitive`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[cfg_attr(feature = "slab-debug", track_caller)]
pub unsafe fn kfree_sensitive(object: *mut u8) -> Result<(), ObjectError> {
    // SAFETY: handed on to the caller.
    unsafe { KMALLOC.kfree_sensitive(object) }
}

/// The machine's page allocator as the source of `vmalloc` memory.
#[derive(Debug)]
struct MachinePages;

// SAFETY: the page allocator's frames are RAM in the direct map, aligned to their size, and the
// caller's until they are freed.
unsafe impl PageSource for MachinePages {
    const MAX_ORDER: u32 = MAX_ORDER;

    fn alloc(&self, order: u32, gfp: Gfp) -> Option<Pfn> {
        let gfp = match order {
            0 => gfp,
            // A smaller run will do, so nothing is moved or reclaimed for a large one.
            _ => gfp
                .difference(Gfp::NOFAIL | Gfp::RETRY_MAYFAIL)
                .union(Gfp::NORETRY | Gfp::NOWARN),
        };
        alloc_pages(gfp, order).ok()
    }

    unsafe fn free(&self, pfn: Pfn, order: u32) {
        // SAFETY: handed on to the caller.
        let freed = unsafe { free_pages(pfn, order) };
        debug_assert_eq!(freed, Ok(()));
    }

    fn total_frames(&self) -> usize {
        pages().map_or(0, |pages| pages.managed_pages() as usize)
    }

    fn check_memory_type(&self, pfn: Pfn, wanted: MemoryType) -> Result<(), MemoryTypeError> {
        let pages = pages().ok_or(FrameError::Untouched(pfn))?;
        pages.frames().check_memory_type(pfn, wanted)
    }
}

static VMALLOC: Once<Vmalloc<MachinePages>> = Once::new();
static KMAP: Once<Kmap> = Once::new();
static IOREMAP: Once<Ioremap> = Once::new();
static RAM: Once<heapless::Vec<PhysRange, MAX_RAM>> = Once::new();

/// Sets up the machine's windows of `vmalloc` and of temporary mappings in `tables`; the first call
/// wins. After [`init`].
pub fn init_vmalloc(tables: &'static IrqLock<KernelMapper>) {
    VMALLOC.call_once(|| Vmalloc::new(tables, &MachinePages));
    KMAP.call_once(|| {
        Kmap::new(tables, |pfn, wanted| {
            MachinePages.check_memory_type(pfn, wanted)
        })
    });
    if let Some(pages) = pages() {
        // The boot code registers no more than there is room for, and a second call changes nothing.
        let _ = pages.register_shrinker(&reclaim::LazyPurge);
    }
    work::set_handler(Work::Vfree, || {
        if let Some(vmalloc) = VMALLOC.get() {
            vmalloc.run_deferred();
        }
    });
}

/// Sets up the machine's ioremap window in `tables`; the first call wins. Until [`set_ram`] no
/// range counts as RAM.
pub fn init_ioremap(tables: &'static IrqLock<KernelMapper>) {
    IOREMAP.call_once(|| Ioremap::new(tables, is_ram));
}

/// Says where RAM is, used or not; the first call wins.
pub fn set_ram(ram: &[PhysRange]) {
    RAM.call_once(|| ram.iter().copied().take(MAX_RAM).collect());
}

/// Whether `range` holds a byte of RAM, as far as [`set_ram`] has said.
pub fn is_ram(range: PhysRange) -> bool {
    RAM.get()
        .is_some_and(|ram| ram.iter().any(|ram| ram.overlaps(&range)))
}

/// Maps a frame of the machine for a moment: [`Kmap::kmap_local`].
///
/// # Errors
///
/// As there, and [`KmapError::NotReady`] before [`init_vmalloc`].
///
/// # Safety
///
/// As there.
#[doc(alias = "kmap_local_page")]
pub unsafe fn kmap_local(pfn: Pfn) -> Result<LocalMapping<'static>, KmapError> {
    let kmap = KMAP.get().ok_or(KmapError::NotReady)?;
    // SAFETY: handed on to the caller.
    unsafe { kmap.kmap_local(pfn) }
}

fn vmalloc_window() -> Result<&'static Vmalloc<MachinePages>, VmallocError> {
    VMALLOC.get().ok_or(VmallocError::NotReady)
}

/// Allocates memory contiguous in virtual addresses only: [`Vmalloc::vmalloc`].
///
/// # Errors
///
/// As there, and [`VmallocError::NotReady`] before [`init_vmalloc`].
pub fn vmalloc(size: usize) -> Result<VirtAddr, VmallocError> {
    vmalloc_window()?.vmalloc(size)
}

/// Allocates zeroed memory contiguous in virtual addresses only: [`Vmalloc::vzalloc`].
///
/// # Errors
///
/// As [`vmalloc`].
pub fn vzalloc(size: usize) -> Result<VirtAddr, VmallocError> {
    vmalloc_window()?.vzalloc(size)
}

/// Allocates memory contiguous in virtual addresses only, with flags: [`Vmalloc::vmalloc_with`].
///
/// # Errors
///
/// As [`vmalloc`].
#[doc(alias = "__vmalloc")]
pub fn vmalloc_with(size: usize, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
    vmalloc_window()?.vmalloc_with(size, gfp)
}

/// Changes the size of what [`vmalloc()`] returned: [`Vmalloc::vrealloc`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn vrealloc(
    old: Option<VirtAddr>,
    size: usize,
    gfp: Gfp,
) -> Result<Option<VirtAddr>, VmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { vmalloc_window()?.vrealloc(old, size, gfp) }
}

/// Frees what [`vmalloc()`] returned: [`Vmalloc::vfree`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn vfree(va: VirtAddr) -> Result<(), VmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { vmalloc_window()?.vfree(va) }
}

/// Maps pages to contiguous addresses: [`Vmalloc::vmap`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn vmap(pages: &[Pfn], protection: Protection) -> Result<VirtAddr, VmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { vmalloc_window()?.vmap(pages, protection) }
}

/// Removes a mapping of [`vmap`]: [`Vmalloc::vunmap`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn vunmap(va: VirtAddr) -> Result<(), VmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { vmalloc_window()?.vunmap(va) }
}

/// The frame behind an address of `vmalloc` memory: [`Vmalloc::vmalloc_to_page`].
///
/// # Errors
///
/// As there.
pub fn vmalloc_to_page(va: VirtAddr) -> Result<Pfn, VmallocError> {
    vmalloc_window()?.vmalloc_to_page(va)
}

/// Bytes of what [`vmalloc()`] returned: [`Vmalloc::vmalloc_size`].
///
/// # Errors
///
/// As there.
pub fn vmalloc_size(va: VirtAddr) -> Result<usize, VmallocError> {
    vmalloc_window()?.vmalloc_size(va)
}

/// Flushes and frees what `vfree` and `iounmap` put off: [`Vmalloc::vm_unmap_aliases`] and
/// [`Ioremap::vm_unmap_aliases`]. The frames freed. A task.
///
/// Reclaim calls it when memory runs short, ledgers before they count.
pub fn vm_unmap_aliases() -> usize {
    if let Some(ioremap) = IOREMAP.get() {
        ioremap.vm_unmap_aliases();
    }
    VMALLOC.get().map_or(0, Vmalloc::vm_unmap_aliases)
}

/// Pages that `vfree` has put off freeing: [`Vmalloc::pages_put_off`].
pub fn pages_put_off() -> usize {
    VMALLOC.get().map_or(0, Vmalloc::pages_put_off)
}

/// What of the `vmalloc` window waits for a flush: [`Vmalloc::purge_info`].
pub fn purge_info() -> Option<PurgeInfo> {
    VMALLOC.get().map(Vmalloc::purge_info)
}

/// Frames that describe `vmalloc` areas, which are kept for good: [`Vmalloc::kept_frames`].
pub fn vmalloc_kept_frames() -> usize {
    VMALLOC.get().map_or(0, Vmalloc::kept_frames)
}

/// The areas of the `vmalloc` window, then those of the ioremap window, by address. No lock is
/// held between two. Linux: `/proc/vmallocinfo`.
pub fn vmallocinfo() -> impl Iterator<Item = AreaInfo> {
    let mut from = VirtAddr::new(0);
    let vmalloc = core::iter::from_fn(move || {
        let area = VMALLOC.get()?.area_from(from)?;
        from = area.end();
        Some(area)
    });
    let mut from = VirtAddr::new(0);
    let ioremap = core::iter::from_fn(move || {
        let area = IOREMAP.get()?.area_from(from)?;
        from = area.end();
        Some(area)
    });
    vmalloc.chain(ioremap)
}

#[inline]
fn kv() -> Kvmalloc<'static, MachinePages> {
    Kvmalloc::new(&KMALLOC, VMALLOC.get())
}

/// Allocates contiguous memory if that is easy, else pages: [`Kvmalloc::kvmalloc`].
///
/// # Errors
///
/// As there.
#[inline]
pub fn kvmalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    kv().kvmalloc(size, gfp)
}

/// As [`kvmalloc`], zeroed: [`Kvmalloc::kvzalloc`].
///
/// # Errors
///
/// As there.
#[inline]
pub fn kvzalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    kv().kvzalloc(size, gfp)
}

/// As [`kvmalloc`], for `n` elements: [`Kvmalloc::kvmalloc_array`].
///
/// # Errors
///
/// As there.
#[inline]
pub fn kvmalloc_array(n: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    kv().kvmalloc_array(n, size, gfp)
}

/// As [`kvmalloc_array`], zeroed: [`Kvmalloc::kvcalloc`].
///
/// # Errors
///
/// As there.
#[inline]
pub fn kvcalloc(n: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    kv().kvcalloc(n, size, gfp)
}

/// Changes the size of what [`kvmalloc`] returned: [`Kvmalloc::kvrealloc`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn kvrealloc(old: *mut u8, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { kv().kvrealloc(old, size, gfp) }
}

/// Frees memory of [`kvmalloc`], [`kmalloc`] or [`vmalloc()`]: [`Kvmalloc::kvfree`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[inline]
pub unsafe fn kvfree(address: *mut u8) -> Result<(), KvmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { kv().kvfree(address) }
}

/// Maps device registers: [`Ioremap::ioremap`].
///
/// # Errors
///
/// As there, and [`IoremapError::NotReady`] before [`init_ioremap`].
pub fn ioremap(range: PhysRange, kind: IoKind) -> Result<VirtAddr, IoremapError> {
    IOREMAP
        .get()
        .ok_or(IoremapError::NotReady)?
        .ioremap(range, kind)
}

/// Takes a mapping of device registers back: [`Ioremap::iounmap`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn iounmap(va: VirtAddr) -> Result<(), IoremapError> {
    // SAFETY: handed on to the caller.
    unsafe { IOREMAP.get().ok_or(IoremapError::NotReady)?.iounmap(va) }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
