//! `kmalloc`: physically contiguous memory of any size up to 4 MiB.
//!
//! Sizes up to 8 KiB come from slab caches, one per size class ([`class_of`]) and zone; larger ones are
//! blocks of pages. Every object covers whole cache lines that it shares with nobody, so it may be
//! handed to a device that does not snoop.
//!
//! Alignment: at least [`DMA_ALIGN`]; a power-of-two size is aligned to the size, up to 4 MiB; any
//! other size, as rounded up to its class, to its largest power-of-two divisor.

mod array;
mod class;
mod packed;
mod realloc;

pub use class::{CLASSES, DMA_ALIGN, MAX_CLASS_SIZE, class_align, class_of, class_size};
pub use packed::PackedKmalloc;
pub use realloc::ReallocError;

use super::buddy::{MAX_ORDER, is_free};
use super::frame::{FIRST_TAG, FrameError, FrameKind, FrameTable};
use super::misuse::NO_OBJECT;
use super::owner;
use super::page::PageAllocator;
#[cfg(feature = "slab-debug")]
use super::slab::Slot;
use super::slab::{
    Cache, CacheInfo, Geometry, Magazines, ObjectError, Slabs, SlotStore, alloc_fast, direct_map,
    frame_of, free_fast, named,
};
use super::zero::zero;
use super::{AllocError, Gfp, Misuse};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr};
use crate::arch::cpu;
use crate::layout;
use crate::sync::{IrqLock, Once, PerCpu};
use core::num::NonZero;
use core::ptr::NonNull;

/// What `kmalloc(0)` returns: an address that faults when it is used. Linux: `ZERO_SIZE_PTR`.
pub const ZERO_SIZE_PTR: NonNull<u8> = NonNull::without_provenance(match NonZero::new(16) {
    Some(address) => address,
    None => unreachable!(),
});

/// Largest object, in bytes.
pub const MAX_SIZE: usize = PAGE_SIZE << MAX_ORDER;

/// Sets of classes: what is asked of their pages. Where flags ask for several, the last set does.
/// Only objects of the second are charged to owners: the others are needed below a limit or by
/// shrinkers, whoever asked for them.
const SET_PAGES: [Gfp; 4] = [Gfp::empty(), Gfp::ACCOUNT, Gfp::RECLAIMABLE, Gfp::DMA];

/// Names of the sets' caches in reports.
const NAMES: [&str; SETS] = ["kmalloc", "kmalloc-cg", "kmalloc-rcl", "kmalloc-dma"];

const SETS: usize = SET_PAGES.len();

/// Geometry of the caches, set by set. Only the first set's magazines are larger than a stride, and
/// only its caches keep many empty slabs.
static GEOMETRY: [Geometry; SETS * CLASSES] = {
    let mut all = [geometry(0, Gfp::empty()); SETS * CLASSES];
    let mut cache = 0;
    while cache < all.len() {
        all[cache] = geometry(cache % CLASSES, SET_PAGES[cache / CLASSES]);
        if cache >= CLASSES {
            all[cache] = all[cache].with_magazine_of(1);
        } else {
            all[cache] = all[cache].keeping_many();
        }
        cache += 1;
    }
    all
};

/// Evaluated at compile time only, where a class no slab can hold stops the build.
const fn geometry(class: usize, pages: Gfp) -> Geometry {
    match Geometry::new(class_size(class), class_align(class), pages) {
        Ok(geometry) => geometry,
        Err(_) => panic!("every class fits a slab"),
    }
}

/// Number of caches.
pub(super) const KMALLOC_CACHES: usize = SETS * CLASSES;

/// Where a core's magazines start, in strides, by cache; and where they end.
static OFFSETS: [u16; KMALLOC_CACHES + 1] = {
    let mut offsets = [0; KMALLOC_CACHES + 1];
    let mut cache = 0;
    while cache < KMALLOC_CACHES {
        offsets[cache + 1] = offsets[cache] + GEOMETRY[cache].strides() as u16;
        cache += 1;
    }
    offsets
};

/// Strides of a core's magazines.
const STRIDES: usize = OFFSETS[KMALLOC_CACHES] as usize;

/// The `kmalloc` caches of a machine.
///
/// Nothing but zeroes until the first allocation.
#[derive(Debug)]
pub struct Kmalloc {
    slabs: [IrqLock<Slabs>; KMALLOC_CACHES],
    slots: SlotStore<STRIDES>,
    pages: Once<&'static PageAllocator>,
}

impl Kmalloc {
    /// Caches without memory. What cores have at hand is not told apart by instance, so a machine
    /// has one.
    pub(crate) const fn new() -> Self {
        Self {
            slabs: [const { IrqLock::new(Slabs::new()) }; KMALLOC_CACHES],
            slots: SlotStore::new(),
            pages: Once::new(),
        }
    }

    /// Tells the caches where to get pages. Only the first call counts.
    pub(crate) fn set_pages(&self, pages: &'static PageAllocator) {
        self.pages.call_once(|| pages);
    }

    /// What the executing core has at hand of these caches.
    #[cfg(target_os = "none")]
    #[inline(always)]
    #[expect(clippy::unused_self, reason = "a host has several machines")]
    fn core(&self) -> &'static Magazines {
        PerCpu::current().magazines()
    }

    /// What the executing thread has at hand of these caches.
    #[cfg(not(target_os = "none"))]
    fn core(&self) -> &'static Magazines {
        let magazines = Magazines::on_host((&raw const *self).addr());
        if let Some(pages) = self.pages.get() {
            magazines.set_frames(pages.frames().lookup());
        }
        magazines
    }

    /// The cache whose tag is `tag`.
    pub(super) fn cache(&self, tag: u8) -> Option<Cache<'_>> {
        let number = usize::from(tag.checked_sub(FIRST_TAG)?);
        let geometry = GEOMETRY.get(number)?;
        let (offset, capacity) = (usize::from(OFFSETS[number]), usize::from(geometry.magazine));
        let at_hand = || {
            let core = PerCpu::current().index();
            self.core().holder(tag, &self.slots, offset, capacity, core)
        };
        Some(Cache {
            geometry,
            slabs: self.slabs.get(number)?,
            at_hand: (!geometry.accounted).then(at_hand),
            constructor: None,
            tag,
        })
    }

    /// Allocates `size` bytes. Linux: `kmalloc`.
    ///
    /// The memory is in the direct map and holds garbage unless `gfp` has [`Gfp::ZERO`]; all of
    /// [`ksize`](Self::ksize) is zeroed then. Size 0 gives [`ZERO_SIZE_PTR`]. May be called in any
    /// context with flags that do not block.
    ///
    /// Up to [`MAX_CLASS_SIZE`], where `gfp` asks for several kinds of memory, the first of these
    /// counts, as in Linux: [`Gfp::DMA`] or [`Gfp::DMA32`], [`Gfp::RECLAIMABLE`], [`Gfp::ACCOUNT`].
    /// So objects of the former kinds are charged to nobody.
    ///
    /// Flags that make no sense, and [`Gfp::HIGHMEM`] and [`Gfp::MOVABLE`], which no object is, are
    /// ignored and counted as [`Misuse`], except where an object is at hand.
    ///
    /// # Errors
    ///
    /// [`AllocError`]: the size is above [`MAX_SIZE`], which is counted as [`Misuse`] too, or the
    /// zones `gfp` admits have no memory.
    #[inline(always)]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub fn kmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        // Size 0 becomes the largest number, so that one comparison does for both ends.
        let last = size.wrapping_sub(1);
        if last >= MAX_CLASS_SIZE {
            return self.alloc_other(size, gfp);
        }
        let tag = tag_of(last, gfp);
        // An interrupt handler has nothing at hand, and a lock masks IRQs: the slow path names them.
        let core = self.core();
        let may = !gfp.may_block() || !cpu::irqs_masked();
        if may && let Some(object) = alloc_fast(core, tag) {
            if gfp.contains(Gfp::ZERO) {
                let len = class_size(class_of(size));
                // SAFETY: the object is `len` bytes of mapped memory that is ours.
                unsafe { zero(VirtAddr::from_ptr(object.as_ptr()), len) };
            }
            return Ok(object);
        }
        #[cfg(not(feature = "slab-debug"))]
        return self.alloc_slow(tag, gfp);
        #[cfg(feature = "slab-debug")]
        self.alloc_slow(tag, gfp).inspect(|object| {
            self.slot(tag, *object)
                .inspect(|slot| slot.set_requested(size));
        })
    }

    /// What surrounds an object in use of the cache with `tag`.
    #[cfg(feature = "slab-debug")]
    fn slot(&self, tag: u8, object: NonNull<u8>) -> Option<Slot<'_>> {
        let geometry = self.cache(tag)?.geometry;
        // SAFETY: the object is the cache's, and in use.
        Some(unsafe { Slot::new(geometry, object) })
    }

    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    fn alloc_slow(&self, tag: u8, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let pages = self.pages.get().ok_or(AllocError::NotReady)?;
        match self.cache(tag) {
            Some(cache) => cache.alloc(pages, gfp),
            None => Err(AllocError::TooManyCaches),
        }
    }

    /// Allocates `size` zeroed bytes. Linux: `kzalloc`. Otherwise as [`kmalloc`](Self::kmalloc).
    ///
    /// # Errors
    ///
    /// As [`kmalloc`](Self::kmalloc).
    #[inline(always)]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub fn kzalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kmalloc(size, gfp | Gfp::ZERO)
    }

    /// What no class serves: nothing, or whole pages.
    #[cold]
    #[inline(never)]
    fn alloc_other(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        if size == 0 {
            return Ok(ZERO_SIZE_PTR);
        }
        let order = (size - 1).ilog2() + 1 - PAGE_SHIFT;
        if size > MAX_SIZE {
            Misuse::OrderTooLarge(order).note(gfp);
            return Err(AllocError::SizeTooLarge { size, gfp });
        }
        if gfp.intersects(NO_OBJECT) {
            Misuse::ObjectFlags(gfp).note(gfp);
        }
        let pages = self.pages.get().ok_or(AllocError::NotReady)?;
        let pfn = pages.alloc_pages((gfp - NO_OBJECT) | Gfp::COMP, order)?;
        if let Ok(frame) = pages.frames().get(pfn) {
            owner::pages_to_object(frame, order);
        }
        NonNull::new(layout::phys_to_virt(pfn.phys()).as_ptr::<u8>())
            .ok_or(AllocError::NoMemory { order, gfp })
    }

    /// Frees what [`kmalloc`](Self::kmalloc) returned; null and [`ZERO_SIZE_PTR`] are ignored.
    /// Linux: `kfree`. Any context, any core.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] when no object in use starts at `object`; nothing has changed then. An
    /// object freed twice is found as long as nobody allocated or wrote it in between.
    ///
    /// # Safety
    ///
    /// If an object in use starts at `object`, it belongs to the caller, who no longer uses it.
    #[inline(always)]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub unsafe fn kfree(&self, object: *mut u8) -> Result<(), ObjectError> {
        let va = VirtAddr::from_ptr(object);
        // SAFETY: handed on to the caller.
        match unsafe { free_fast(self.core(), va, |_| true) } {
            Some(()) => Ok(()),
            // SAFETY: as above.
            None => unsafe { self.free_slow(va) },
        }
    }

    /// Frees what the magazine has no room for, a large object or nothing, or says what is wrong.
    ///
    /// # Safety
    ///
    /// As for [`kfree`](Self::kfree).
    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    unsafe fn free_slow(&self, va: VirtAddr) -> Result<(), ObjectError> {
        if va.get() == 0 || va == VirtAddr::from_ptr(ZERO_SIZE_PTR.as_ptr()) {
            return Ok(());
        }
        let pages = self.ready_pages(va).map_err(ObjectError::noted)?;
        let (pa, frame) = frame_of(pages.frames(), va).map_err(ObjectError::noted)?;
        if let Some(cache) = self.cache(frame.tag()) {
            // SAFETY: the caller gives the object up; the frame belongs to the cache.
            return unsafe { cache.free(pages, va, pa, frame) };
        }
        if let Some(cache) = named(frame.tag()) {
            // SAFETY: as above.
            return unsafe { cache.free(pages, va.as_ptr()) };
        }
        let checked = Self::check_large(pages.frames(), va, pa, frame.kind());
        checked.map_err(ObjectError::noted)?;
        let order = frame.order();
        owner::object_to_pages(frame, order);
        // SAFETY: the caller gives the object up, which is this block.
        let freed = unsafe { pages.free_pages(pa.pfn(), order) };
        // What was refused is an object as before.
        freed.inspect_err(|_| owner::pages_to_object(frame, order))?;
        Ok(())
    }

    fn ready_pages(&self, va: VirtAddr) -> Result<&'static PageAllocator, ObjectError> {
        let error = FrameError::Untouched(direct_map(va)?.pfn());
        let pages = self.pages.get().copied();
        pages.ok_or(ObjectError::NotAllocated { va, error })
    }

    /// Whether a large object starts at `va`, in a frame of `kind`.
    fn check_large(
        frames: &FrameTable,
        va: VirtAddr,
        pa: PhysAddr,
        kind: FrameKind,
    ) -> Result<(), ObjectError> {
        match kind {
            FrameKind::LargeObject if pa.page_offset() == 0 => Ok(()),
            FrameKind::LargeObject => Err(ObjectError::NotAtObject(va)),
            _ if is_free(frames, pa.pfn()) => Err(ObjectError::DoubleFree(va)),
            kind => Err(ObjectError::NotAnObject { va, kind }),
        }
    }

    /// Bytes usable at `object`; 0 for null and [`ZERO_SIZE_PTR`]. Linux: `ksize`.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] when no object in use starts at `object`, as far as [`kfree`](Self::kfree)
    /// would find it.
    pub fn ksize(&self, object: *const u8) -> Result<usize, ObjectError> {
        let va = VirtAddr::from_ptr(object);
        if va.get() == 0 || va == VirtAddr::from_ptr(ZERO_SIZE_PTR.as_ptr()) {
            return Ok(0);
        }
        let frames = self.ready_pages(va)?.frames();
        let (pa, frame) = frame_of(frames, va)?;
        if let Some(cache) = self.cache(frame.tag()) {
            let checked = cache.check_object(va, pa, frame);
            #[cfg(feature = "slab-debug")]
            if let Some(slot) = checked
                .ok()
                .and_then(|object| self.slot(frame.tag(), object))
            {
                slot.expose();
            }
            checked?;
            return Ok(cache.object_size());
        }
        if let Some(cache) = named(frame.tag()) {
            return cache.check(va, pa, frame);
        }
        Self::check_large(frames, va, pa, frame.kind())?;
        Ok(PAGE_SIZE << frame.order())
    }

    /// Gives the memory of free objects back to the page allocator, except what other cores keep
    /// at hand. Call it on every core before comparing counts of free pages.
    pub fn shrink(&self) {
        let Some(pages) = self.pages.get() else {
            return;
        };
        for cache in self.all() {
            cache.shrink(pages);
        }
    }

    /// Checks all objects; how many are not as they should be, see
    /// [`SlabReport`](crate::mm::SlabReport). Nobody allocates or frees meanwhile. The debug build
    /// only.
    #[cfg(feature = "slab-debug")]
    #[track_caller]
    pub fn validate(&self) -> usize {
        let Some(pages) = self.pages.get() else {
            return 0;
        };
        let frames = pages.frames().lookup();
        let mut wrong = 0;
        for cache in self.all() {
            wrong += cache.validate(frames);
        }
        wrong
    }

    /// What each cache holds, for the slab report.
    #[doc(alias = "slabinfo")]
    pub fn caches(&self) -> impl Iterator<Item = CacheInfo> {
        self.all()
            .zip(NAMES.iter().flat_map(|name| [*name; CLASSES]))
            .map(|(cache, name)| cache.info(name))
    }

    fn all(&self) -> impl Iterator<Item = Cache<'_>> {
        (0..KMALLOC_CACHES as u8).filter_map(|number| self.cache(FIRST_TAG + number))
    }
}

/// The tags of the first set's caches by the cache line that the last byte of an object lies in.
static TAGS: [u8; MAX_CLASS_SIZE / DMA_ALIGN] = {
    let mut tags = [0; MAX_CLASS_SIZE / DMA_ALIGN];
    let mut line = 0;
    while line < tags.len() {
        tags[line] = FIRST_TAG + class_of(line * DMA_ALIGN + 1) as u8;
        line += 1;
    }
    tags
};

/// The tag of the cache that serves objects whose last byte is at offset `last`, which is below
/// [`MAX_CLASS_SIZE`].
#[inline(always)]
fn tag_of(last: usize, gfp: Gfp) -> u8 {
    // Memory below the DMA limit is below the 32-bit one too.
    const DMA: Gfp = Gfp::DMA.union(Gfp::DMA32);
    const ANY: Gfp = DMA.union(Gfp::RECLAIMABLE).union(Gfp::ACCOUNT);
    let set = if !gfp.intersects(ANY) {
        0
    } else if gfp.intersects(DMA) {
        3 * CLASSES
    } else if gfp.contains(Gfp::RECLAIMABLE) {
        2 * CLASSES
    } else {
        CLASSES
    };
    TAGS[last / DMA_ALIGN].wrapping_add(set as u8)
}

#[cfg(test)]
mod tests;
