//! Packed slabs: small objects several to a cache line, for memory that no device ever meets.
//!
//! ```text
//! page   | object | object | ... | object | left over | trailer |
//!          from the first byte on                       used bits, links
//! ```
//!
//! A frame's descriptor has a bit for each [`SLOT`](super::SLOT), too few for such objects, so each
//! page keeps its own bits in a trailer. Nothing is written into free objects, whatever is freed is
//! checked against its bit, and each call takes the cache's lock.

use super::cache::OF_OBJECTS;
use super::{Constructor, ObjectError};
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::layout;
use crate::mm::frame::{FIRST_TAG, Frame, FrameKind, FrameLookup, NO_FRAME};
use crate::mm::misuse::note_object_flags;
use crate::mm::page::{PageAllocator, check_context};
use crate::mm::{AllocError, Gfp, fault};
use crate::sync::IrqLock;
use core::mem::offset_of;
use core::ptr::NonNull;

/// Largest object worth packing, in bytes: with more, fewer than four would share three lines.
pub const MAX_PACKED_SIZE: usize = 48;

/// Packed objects are a multiple of this long, in bytes, and at least so aligned.
pub const PACKED_ALIGN: usize = 8;

/// The order in the descriptors of packed pages, which no other slab has. It tells them apart.
const PACKED_ORDER: u32 = 7;

const _: () = assert!(PACKED_ORDER > super::MAX_SLAB_ORDER);

/// Pages without an object in use that a cache keeps for the next allocation.
const KEPT_EMPTY: u32 = 1;

/// Words of bits in a trailer: enough for the smallest objects.
const WORDS: usize = PAGE_SIZE / PACKED_ALIGN / u64::BITS as usize;

/// What a page keeps about its objects.
#[repr(C)]
struct Trailer {
    /// A bit for each object in use, and for what is no object.
    used: [u64; WORDS],
    free: u32,
    /// The neighbours on the cache's list, while the page is on it.
    next: u32,
    prev: u32,
}

/// Where in its page a trailer starts.
const TRAILER: usize = PAGE_SIZE - size_of::<Trailer>();

const _: () = assert!(TRAILER.is_multiple_of(align_of::<Trailer>()));
const _: () = assert!(offset_of!(Trailer, used) == 0);

/// How objects lie in a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedLayout {
    /// Bytes from one object to the next.
    size: u32,
    /// Objects in a page.
    count: u32,
    /// 2^[`RECIPROCAL_SHIFT`] by `size`, rounded up.
    reciprocal: u32,
}

/// With this many bits the quotient is exact: an offset is below 2^12 and a size below 2^6.
const RECIPROCAL_SHIFT: u32 = 18;

impl PackedLayout {
    /// Objects of `size` bytes aligned to `align`, a power of two; `None` if they are too large.
    pub(super) const fn new(size: usize, align: usize) -> Option<Self> {
        let align = if align < PACKED_ALIGN {
            PACKED_ALIGN
        } else {
            align
        };
        let size = size.next_multiple_of(align);
        if size > MAX_PACKED_SIZE {
            return None;
        }
        Some(Self {
            size: size as u32,
            count: (TRAILER / size) as u32,
            reciprocal: (1_u32 << RECIPROCAL_SHIFT).div_ceil(size as u32),
        })
    }

    /// Objects in a page.
    pub(super) fn count(self) -> u32 {
        self.count
    }

    /// The number of the object that covers the byte at `offset` of a page, if one does.
    fn covering(self, offset: usize) -> Option<u32> {
        let index = (offset as u32 * self.reciprocal) >> RECIPROCAL_SHIFT;
        (index < self.count).then_some(index)
    }

    /// The number of the object that starts at `offset` of a page, if one does.
    fn starting(self, offset: usize) -> Option<u32> {
        self.covering(offset)
            .filter(|index| (index * self.size) as usize == offset)
    }

    /// Where object `index` of the page is.
    fn object(self, pfn: Pfn, index: u32) -> VirtAddr {
        layout::phys_to_virt(pfn.phys()) + (index * self.size) as usize
    }
}

/// The pages of a cache: those with a free object are on a list, those without an object in use at
/// its end.
#[derive(Debug)]
pub(super) struct PackedPages {
    first: Option<Pfn>,
    last: Option<Pfn>,
    pages: u32,
    empty: u32,
    objects: u32,
}

impl PackedPages {
    pub(super) const fn new() -> Self {
        Self {
            first: None,
            last: None,
            pages: 0,
            empty: 0,
            objects: 0,
        }
    }

    /// Pages, pages without an object in use, and objects in use.
    pub(super) fn counts(&self) -> (u32, u32, u32) {
        (self.pages, self.empty, self.objects)
    }

    /// The trailer of a page of this cache.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "the borrow of the pages is what makes the trailer's exclusive"
    )]
    fn trailer(&mut self, pfn: Pfn) -> &mut Trailer {
        let trailer = layout::phys_to_virt(pfn.phys()) + TRAILER;
        // SAFETY: the page is the cache's and ends in a trailer, which is reached through the one
        // borrow of the cache's pages.
        unsafe { &mut *trailer.as_ptr() }
    }

    fn neighbour(number: u32) -> Option<Pfn> {
        (number != NO_FRAME).then(|| Pfn::new(number))
    }

    fn link(&mut self, pfn: Pfn, at_end: bool) {
        let number = |pfn: Option<Pfn>| pfn.map_or(NO_FRAME, Pfn::get);
        let (prev, next) = if at_end {
            (self.last, None)
        } else {
            (None, self.first)
        };
        let trailer = self.trailer(pfn);
        (trailer.prev, trailer.next) = (number(prev), number(next));
        match prev {
            Some(prev) => self.trailer(prev).next = pfn.get(),
            None => self.first = Some(pfn),
        }
        match next {
            Some(next) => self.trailer(next).prev = pfn.get(),
            None => self.last = Some(pfn),
        }
    }

    fn unlink(&mut self, pfn: Pfn) {
        let trailer = self.trailer(pfn);
        let (prev, next) = (Self::neighbour(trailer.prev), Self::neighbour(trailer.next));
        match prev {
            Some(prev) => self.trailer(prev).next = next.map_or(NO_FRAME, Pfn::get),
            None => self.first = next,
        }
        match next {
            Some(next) => self.trailer(next).prev = prev.map_or(NO_FRAME, Pfn::get),
            None => self.last = prev,
        }
    }

    /// Makes `pfn`, a page that belongs to the caller, one of the cache.
    fn add(&mut self, packed: PackedLayout, pfn: Pfn) {
        let mut used = [u64::MAX; WORDS];
        for index in 0..packed.count {
            used[(index / u64::BITS) as usize] &= !(1 << (index % u64::BITS));
        }
        let trailer = layout::phys_to_virt(pfn.phys()) + TRAILER;
        // SAFETY: the page belongs to the caller, and a trailer fits in its end.
        unsafe {
            trailer.as_ptr::<Trailer>().write(Trailer {
                used,
                free: packed.count,
                next: NO_FRAME,
                prev: NO_FRAME,
            });
        }
        self.link(pfn, true);
        self.pages += 1;
        self.empty += 1;
    }

    /// Takes a page without an object in use out of the cache, if more than `kept` are there.
    fn remove_empty(&mut self, kept: u32, frames: FrameLookup) -> Option<Pfn> {
        let last = self.last.filter(|_| self.empty > kept)?;
        self.unlink(last);
        self.pages -= 1;
        self.empty -= 1;
        if let Some(frame) = frames.find(last) {
            frame.clear_slab();
            frame.set_head(FrameKind::Allocated, 0);
        }
        Some(last)
    }

    /// Takes an object.
    fn take(&mut self, packed: PackedLayout) -> Option<VirtAddr> {
        let pfn = self.first?;
        let trailer = self.trailer(pfn);
        let word = trailer.used.iter().position(|used| *used != u64::MAX)?;
        let bit = trailer.used[word].trailing_ones();
        trailer.used[word] |= 1 << bit;
        trailer.free -= 1;
        let free = trailer.free;
        if free == 0 {
            self.unlink(pfn);
        }
        if free + 1 == packed.count {
            self.empty -= 1;
        }
        self.objects += 1;
        Some(packed.object(pfn, word as u32 * u64::BITS + bit))
    }

    fn is_used(&mut self, pfn: Pfn, index: u32) -> bool {
        let word = self.trailer(pfn).used[(index / u64::BITS) as usize];
        word >> (index % u64::BITS) & 1 == 1
    }

    /// Puts an object that is in use back.
    fn give(&mut self, packed: PackedLayout, pfn: Pfn, index: u32) {
        let trailer = self.trailer(pfn);
        trailer.used[(index / u64::BITS) as usize] &= !(1 << (index % u64::BITS));
        trailer.free += 1;
        let free = trailer.free;
        self.objects -= 1;
        if free == packed.count {
            if free > 1 {
                self.unlink(pfn);
            }
            self.link(pfn, true);
            self.empty += 1;
        } else if free == 1 {
            self.link(pfn, false);
        }
    }
}

/// A packed cache: its constant and its changing part, and its tag in the frame descriptors.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    pub(super) layout: PackedLayout,
    pub(super) pages: &'a IrqLock<PackedPages>,
    pub(super) constructor: Option<Constructor>,
    /// What is asked of the pages.
    pub(super) gfp: Gfp,
    pub(super) tag: u8,
}

impl Packed<'_> {
    /// Allocates an object, with a new page if none is left. No lock is held while the page is
    /// allocated.
    pub(super) fn alloc(&self, pages: &PageAllocator, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        check_context(gfp)?;
        note_object_flags(gfp);
        if fault::should_fail(gfp) {
            return Err(AllocError::NoMemory { order: 0, gfp });
        }
        loop {
            let object = self.pages.lock().take(self.layout);
            if let Some(object) = object.and_then(|va| NonNull::new(va.as_ptr::<u8>())) {
                if gfp.contains(Gfp::ZERO) {
                    // SAFETY: the object is the caller's alone.
                    unsafe { object.write_bytes(0, self.layout.size as usize) };
                }
                return Ok(object);
            }
            let of_page = gfp
                .difference(OF_OBJECTS)
                .union(self.gfp)
                // A page has objects of many owners.
                .difference(Gfp::ACCOUNT);
            let pfn = pages.alloc_pages(of_page, 0)?;
            if let Some(constructor) = self.constructor {
                (0..self.layout.count)
                    .filter_map(|index| NonNull::new(self.layout.object(pfn, index).as_ptr()))
                    .for_each(constructor);
            }
            let mut own = self.pages.lock();
            own.add(self.layout, pfn);
            if let Some(frame) = pages.frames().lookup().find(pfn) {
                frame.set_slab(self.tag, PACKED_ORDER);
            }
        }
    }

    /// The number of the object in use that starts at `va`, in a page whose descriptor is `frame`.
    fn find(
        &self,
        own: &mut PackedPages,
        va: VirtAddr,
        pfn: Pfn,
        frame: &Frame,
    ) -> Result<u32, ObjectError> {
        // Until the lock was taken, the page may have left the cache.
        let index = self
            .layout
            .starting(va.page_offset())
            .filter(|_| frame.tag() == self.tag)
            .ok_or(ObjectError::NotAtObject(va))?;
        // The object may never have been handed out, too.
        own.is_used(pfn, index)
            .then_some(index)
            .ok_or(ObjectError::DoubleFree(va))
    }

    /// Whether an object in use starts at `va`.
    pub(super) fn check(&self, va: VirtAddr, pfn: Pfn, frame: &Frame) -> Result<(), ObjectError> {
        self.find(&mut self.pages.lock(), va, pfn, frame).map(drop)
    }

    /// Frees the object at `va`.
    ///
    /// # Safety
    ///
    /// If an object in use starts at `va`, it belongs to the caller, who no longer uses it.
    pub(super) unsafe fn free(
        &self,
        pages: &PageAllocator,
        va: VirtAddr,
        pfn: Pfn,
        frame: &Frame,
    ) -> Result<(), ObjectError> {
        let mut own = self.pages.lock();
        let found = self.find(&mut own, va, pfn, frame);
        let index = found.map_err(ObjectError::noted)?;
        own.give(self.layout, pfn, index);
        let left = own.remove_empty(KEPT_EMPTY, pages.frames().lookup());
        drop(own);
        if let Some(pfn) = left {
            Self::release(pages, pfn);
        }
        Ok(())
    }

    /// Gives all pages without an object in use back.
    pub(super) fn shrink(&self, pages: &PageAllocator) {
        loop {
            let left = self.pages.lock().remove_empty(0, pages.frames().lookup());
            let Some(pfn) = left else { return };
            Self::release(pages, pfn);
        }
    }

    fn release(pages: &PageAllocator, pfn: Pfn) {
        // SAFETY: the page has left its cache and none of its objects is in use.
        let freed = unsafe { pages.free_pages(pfn, 0) };
        debug_assert_eq!(freed, Ok(()), "a packed page is an allocated page");
    }

    /// Calls `f` with the address of each object in use.
    pub(super) fn in_use(&self, pages: &PageAllocator, mut f: impl FnMut(VirtAddr)) {
        pages
            .frames()
            .lookup()
            .for_each_slab(self.tag, |pfn, frame| {
                for index in 0..self.layout.count {
                    let mut own = self.pages.lock();
                    // Until the lock was taken, the page may have left the cache.
                    let is_used = frame.tag() == self.tag && own.is_used(pfn, index);
                    drop(own);
                    if is_used {
                        f(self.layout.object(pfn, index));
                    }
                }
            });
    }
}

/// Whether `frame` is a page of a packed cache.
#[inline]
pub(in crate::mm) fn is_packed(frame: &Frame) -> bool {
    frame.tag() >= FIRST_TAG && frame.slab_order() == PACKED_ORDER
}

#[cfg(test)]
mod tests;
