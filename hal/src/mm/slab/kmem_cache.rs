//! Named caches.

mod bulk;
mod destroy;
mod usercopy;

pub use destroy::DestroyError;

#[cfg(feature = "slab-debug")]
use super::debug::{Slot, report_wrong_cache};
use super::magazine::SlotStore;
use super::packed::{Packed, PackedLayout, PackedPages};
use super::registry;
use super::{
    Cache, CacheError, CacheInfo, Constructor, Geometry, ObjectError, SlabFlags, Slabs, alloc_fast,
    frame_of, free_fast,
};
use crate::addr::{PhysAddr, VirtAddr};
use crate::arch::cpu;
use crate::mm::frame::{Frame, FrameKind};
use crate::mm::page::{PageAllocator, check_context};
use crate::mm::{AllocError, Gfp, Misuse};
use crate::sync::{IrqLock, PerCpu};
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

/// A named cache of objects of one size.
///
/// Lives in a `static` and takes a number at its first allocation, which [`destroy`](Self::destroy)
/// gives back. Objects start on a cache line and share none with another, whatever their size,
/// unless [`SlabFlags::PACKED`] asks for it.
///
/// ```
/// use hal::mm::{KmemCache, SlabFlags};
///
/// static REQUESTS: KmemCache = match KmemCache::new("request", 200, 8) {
///     Ok(cache) => cache.with_usercopy(16, 64),
///     Err(_) => panic!("no slab holds a request"),
/// };
/// assert_eq!(REQUESTS.usercopy(), 16..80);
/// ```
#[doc(alias = "kmem_cache")]
#[derive(Debug)]
pub struct KmemCache {
    name: &'static str,
    /// Bytes of an object and their alignment as asked for.
    size: usize,
    align: usize,
    pub(super) geometry: Geometry,
    constructor: Option<Constructor>,
    /// What may be copied out of an object.
    usercopy: Range<usize>,
    rejected_usercopy: bool,
    slabs: IrqLock<Slabs>,
    slots: SlotStore<MAGAZINE_STRIDES>,
    /// How objects share cache lines, if they do, and in which pages.
    packed: Option<PackedLayout>,
    packed_pages: IrqLock<PackedPages>,
    /// The tag in the frame descriptors, 0 while the cache has none.
    tag: AtomicU8,
}

/// Room for the objects a core keeps at hand.
const MAGAZINE_STRIDES: usize = 1;

impl KmemCache {
    /// A cache of objects of `size` bytes, aligned to `align` (a power of two up to a page).
    ///
    /// # Errors
    ///
    /// [`CacheError`] when no slab can hold such objects.
    #[doc(alias = "kmem_cache_create")]
    pub const fn new(name: &'static str, size: usize, align: usize) -> Result<Self, CacheError> {
        match Geometry::new(size, align, Gfp::empty()) {
            Ok(geometry) => Ok(Self {
                name,
                size,
                align,
                geometry: geometry.with_magazine_of(MAGAZINE_STRIDES),
                constructor: None,
                usercopy: 0..0,
                rejected_usercopy: false,
                slabs: IrqLock::new(Slabs::new()),
                slots: SlotStore::new(),
                packed: None,
                packed_pages: IrqLock::new(PackedPages::new()),
                tag: AtomicU8::new(0),
            }),
            Err(error) => Err(error),
        }
    }

    /// The same with flags, by their bits.
    ///
    /// # Errors
    ///
    /// [`CacheError::Flags`] when a bit has no meaning, [`CacheError::Packed`] when such objects
    /// cannot be packed, [`CacheError::Size`] when no slab holds such objects and their owners.
    pub const fn with_flags(mut self, bits: u32) -> Result<Self, CacheError> {
        let Some(flags) = SlabFlags::from_bits(bits) else {
            return Err(CacheError::Flags(bits & !SlabFlags::all().bits()));
        };
        match Geometry::new(self.size, self.align, flags.gfp()) {
            Ok(geometry) => self.geometry = geometry.with_magazine_of(MAGAZINE_STRIDES),
            Err(error) => return Err(error),
        }
        if flags.contains(SlabFlags::PACKED) {
            self.packed = PackedLayout::new(self.size, self.align);
            let others = SlabFlags::HWCACHE_ALIGN
                .union(SlabFlags::CACHE_DMA)
                .union(SlabFlags::CACHE_DMA32)
                .union(SlabFlags::ACCOUNT);
            if self.packed.is_none() || flags.intersects(others) {
                let (size, flags) = (self.size, bits);
                return Err(CacheError::Packed { size, flags });
            }
        }
        Ok(self)
    }

    /// The same with a constructor: it runs once for each object when a slab is made, not at each
    /// allocation, so an object is freed in the state the constructor left it in.
    ///
    /// A cache with a constructor keeps no objects at hand: nothing is written to a free object,
    /// and each call takes the cache's lock.
    #[must_use]
    pub const fn with_constructor(mut self, constructor: Constructor) -> Self {
        self.constructor = Some(constructor);
        self
    }

    /// The same with a window of `size` bytes at `offset` that [`copy_out`](Self::copy_out) may
    /// copy. A window that leaves the object is dropped, which
    /// [`rejected_usercopy`](Self::rejected_usercopy) tells: then nothing may be copied.
    #[doc(alias = "kmem_cache_create_usercopy")]
    #[must_use]
    pub const fn with_usercopy(mut self, offset: usize, size: usize) -> Self {
        match offset.checked_add(size) {
            Some(end) if end <= self.size => self.usercopy = offset..end,
            _ => {
                self.usercopy = 0..0;
                self.rejected_usercopy = true;
            }
        }
        self
    }

    /// The name given at creation.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes of an object, as asked for.
    pub fn object_size(&self) -> usize {
        self.size
    }

    /// Which bytes of an object may be copied out.
    pub fn usercopy(&self) -> Range<usize> {
        self.usercopy.clone()
    }

    /// Whether the window asked for did not fit the object.
    pub fn rejected_usercopy(&self) -> bool {
        self.rejected_usercopy
    }

    /// What the cache holds now.
    #[doc(alias = "slabinfo")]
    pub fn info(&'static self) -> CacheInfo {
        let tag = self.tag.load(Ordering::Relaxed);
        let mut info = self.cache(tag).info(self.name);
        if let Some(packed) = self.as_packed(tag) {
            info.object_size = self.size;
            info.objects_per_slab = packed.layout.count();
            (info.slabs, info.empty_slabs, info.objects_out) = packed.pages.lock().counts();
        }
        info
    }

    /// The cache as one of packed objects, if it is one.
    fn as_packed(&'static self, tag: u8) -> Option<Packed<'static>> {
        Some(Packed {
            layout: self.packed?,
            pages: &self.packed_pages,
            constructor: self.constructor,
            gfp: self.geometry.pages,
            tag,
        })
    }

    pub(super) fn cache(&'static self, tag: u8) -> Cache<'static> {
        let is_at_hand = tag != 0
            && self.constructor.is_none()
            && self.packed.is_none()
            && !self.geometry.accounted;
        let holder = || {
            let core = PerCpu::current();
            let capacity = usize::from(self.geometry.magazine);
            core.magazines()
                .holder(tag, &self.slots, 0, capacity, core.index())
        };
        Cache {
            geometry: &self.geometry,
            slabs: &self.slabs,
            at_hand: is_at_hand.then(holder),
            constructor: self.constructor,
            tag,
        }
    }

    /// The cache's tag, given to it at its first allocation.
    #[inline(always)]
    fn tag(&'static self) -> Result<u8, AllocError> {
        match self.tag.load(Ordering::Relaxed) {
            0 => {
                if self.rejected_usercopy {
                    Misuse::UsercopyWindow(self.name).note(Gfp::empty());
                }
                registry::CACHES.add(self, &self.tag)
            }
            tag => Ok(tag),
        }
    }

    /// Refuses zeroes where a constructor has made the objects, and a charge where none is kept.
    #[inline(always)]
    fn check_flags(&self, gfp: Gfp) -> Result<(), AllocError> {
        if gfp.contains(Gfp::ZERO) && self.constructor.is_some() {
            Misuse::Constructed(self.name).note(gfp);
            return Err(AllocError::Constructed { gfp });
        }
        if gfp.contains(Gfp::ACCOUNT) && !self.geometry.accounted {
            let cache = self.name;
            return Err(AllocError::NotAccounted { cache, gfp });
        }
        Ok(())
    }

    /// Allocates an object. [`Gfp::ZERO`] zeroes all of it. Any context, as the flags say.
    ///
    /// # Errors
    ///
    /// [`AllocError`]: a blocking call in the wrong context, zeroes asked of a cache with a
    /// constructor, [`Gfp::ACCOUNT`] of one without [`SlabFlags::ACCOUNT`], no page for a new slab,
    /// or no number left for the cache.
    #[doc(alias = "kmem_cache_alloc")]
    #[doc(alias = "kmem_cache_zalloc")]
    #[inline]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub fn alloc(
        &'static self,
        pages: &PageAllocator,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        self.check_flags(gfp)?;
        let tag = self.tag()?;
        // An interrupt handler has nothing at hand, and a lock masks IRQs: the slow path names them.
        let may = !gfp.may_block() || !cpu::irqs_masked();
        if may && let Some(object) = alloc_fast(PerCpu::current().magazines(), tag) {
            self.geometry.zero_if(object, gfp);
            return Ok(object);
        }
        check_context(gfp)?;
        match self.as_packed(tag) {
            Some(packed) => packed.alloc(pages, gfp),
            #[cfg(feature = "slab-debug")]
            None => {
                let object = self.cache(tag).alloc(pages, gfp)?;
                // SAFETY: the object is new and of this cache.
                unsafe { Slot::new(&self.geometry, object) }.set_requested(self.size);
                Ok(object)
            }
            #[cfg(not(feature = "slab-debug"))]
            None => self.cache(tag).alloc(pages, gfp),
        }
    }

    /// Frees an object. Any context, any core.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] when no object of this cache that is in use starts at `object`; nothing has
    /// changed then.
    ///
    /// # Safety
    ///
    /// If an object in use starts at `object`, it belongs to the caller, who no longer uses it.
    #[doc(alias = "kmem_cache_free")]
    #[inline]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub unsafe fn free(
        &'static self,
        pages: &PageAllocator,
        object: *mut u8,
    ) -> Result<(), ObjectError> {
        let va = VirtAddr::from_ptr(object);
        let core = PerCpu::current().magazines();
        let tag = self.tag.load(Ordering::Relaxed);
        // SAFETY: the caller gives the object up.
        match unsafe { free_fast(core, va, |found| found == tag) } {
            Some(()) => Ok(()),
            // SAFETY: as above.
            None => unsafe { self.free_slow(pages, va) },
        }
    }

    /// Frees what the fast path does not.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free).
    #[cold]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    unsafe fn free_slow(
        &'static self,
        pages: &PageAllocator,
        va: VirtAddr,
    ) -> Result<(), ObjectError> {
        let (pa, frame) = frame_of(pages.frames(), va)?;
        let tag = self.tag.load(Ordering::Relaxed);
        match frame.kind() {
            // A cache without a tag has no objects.
            FrameKind::Slab if frame.tag() == tag => match self.as_packed(tag) {
                // SAFETY: the caller gives the object up; the frame belongs to this cache.
                Some(packed) => unsafe { packed.free(pages, va, pa.pfn(), frame) },
                // SAFETY: as above.
                None => unsafe { self.cache(tag).free(pages, va, pa, frame) },
            },
            FrameKind::Slab => {
                #[cfg(feature = "slab-debug")]
                report_wrong_cache(va, pa, frame);
                Err(ObjectError::WrongCache {
                    va,
                    cache: registry::name_of(frame.tag()),
                })
            }
            kind => Err(ObjectError::NotAnObject { va, kind }),
        }
    }

    /// Bytes usable in the object at `va`, in `frame`, part of a slab of this cache.
    pub(in crate::mm) fn check(
        &'static self,
        va: VirtAddr,
        pa: PhysAddr,
        frame: &'static Frame,
    ) -> Result<usize, ObjectError> {
        let tag = self.tag.load(Ordering::Relaxed);
        match self.as_packed(tag) {
            Some(packed) => packed.check(va, pa.pfn(), frame)?,
            None => self.cache(tag).check_object(va, pa, frame).map(drop)?,
        }
        Ok(self.size)
    }

    /// Checks all objects; how many are not as they should be, see [`SlabReport`](crate::mm::SlabReport).
    /// Nobody allocates from the cache or frees meanwhile. The debug build only.
    #[cfg(feature = "slab-debug")]
    #[track_caller]
    pub fn validate(&'static self, pages: &PageAllocator) -> usize {
        match self.tag.load(Ordering::Relaxed) {
            0 => 0,
            _ if self.packed.is_some() => 0,
            tag => self.cache(tag).validate(pages.frames().lookup()),
        }
    }

    /// The cache with its number, as the owner of a frame.
    #[cfg(feature = "slab-debug")]
    pub(in crate::mm) fn numbered(&'static self) -> Cache<'static> {
        self.cache(self.tag.load(Ordering::Relaxed))
    }
}

impl SlabFlags {
    /// What the flags ask of the pages of a slab.
    const fn gfp(self) -> Gfp {
        let mut gfp = Gfp::empty();
        if self.contains(Self::CACHE_DMA) {
            gfp = gfp.union(Gfp::DMA);
        } else if self.contains(Self::CACHE_DMA32) {
            gfp = gfp.union(Gfp::DMA32);
        }
        if self.contains(Self::RECLAIM_ACCOUNT) {
            gfp = gfp.union(Gfp::RECLAIMABLE);
        }
        if self.contains(Self::ACCOUNT) {
            gfp = gfp.union(Gfp::ACCOUNT);
        }
        gfp
    }
}
