//! The slabs of a cache, and which of their objects are out.
//!
//! A slab is a block of pages filled with objects from its first byte on. The descriptor of each
//! of its frames has a bit for every object that starts in the frame and is out: with a caller or
//! in a magazine. Nothing is kept in free objects but their mark, and making a slab writes to its
//! descriptors only.
//!
//! A frame in which an object could be taken is on the partial list, unless all of its slab is
//! free: then the slab is on the empty list.

use super::geometry::{Geometry, SLOT};
use super::magazine::Magazine;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::layout;
use crate::mm::frame::{Frame, FrameKind, FrameLookup};
use core::ptr::NonNull;

/// A list of frames, linked through their descriptors in a ring. All zero is an empty one.
#[derive(Debug)]
struct FrameList {
    first: u32,
    len: u32,
}

impl FrameList {
    #[inline]
    fn first(&self) -> Option<Pfn> {
        (self.len != 0).then(|| Pfn::new(self.first))
    }

    fn push(&mut self, frames: FrameLookup, pfn: Pfn, frame: &Frame) {
        let new = pfn.get();
        let (next, prev) = match frames.find(Pfn::new(self.first)) {
            Some(first) if self.len != 0 => {
                let (_, prev) = first.slab_links();
                first.set_slab_prev(new);
                if let Some(prev) = frames.find(Pfn::new(prev)) {
                    prev.set_slab_next(new);
                }
                (self.first, prev)
            }
            _ => (new, new),
        };
        // Where this frame is a neighbour of itself, its links are written last.
        frame.set_slab_next(next);
        frame.set_slab_prev(prev);
        self.first = new;
        self.len += 1;
    }

    fn remove(&mut self, frames: FrameLookup, pfn: Pfn, frame: &Frame) {
        let (next, prev) = frame.slab_links();
        self.len -= 1;
        if self.len == 0 {
            return;
        }
        if let (Some(after), Some(before)) =
            (frames.find(Pfn::new(next)), frames.find(Pfn::new(prev)))
        {
            before.set_slab_next(next);
            after.set_slab_prev(prev);
        }
        if self.first == pfn.get() {
            self.first = next;
        }
    }
}

/// The first frame of the slab of `order` that `pfn` is part of.
fn slab_of(pfn: Pfn, order: u32) -> Pfn {
    Pfn::new(pfn.get() & !((1 << order) - 1))
}

/// Which frame of its slab of `order` `pfn` is.
fn part_of(pfn: Pfn, order: u32) -> u32 {
    pfn.get() & ((1 << order) - 1)
}

/// All slabs of a cache. All zero is none.
#[derive(Debug)]
pub(in crate::mm) struct Slabs {
    partial: FrameList,
    empty: FrameList,
    slabs: u32,
    objects_out: u32,
}

impl Slabs {
    pub(in crate::mm) const fn new() -> Self {
        Self {
            partial: FrameList { first: 0, len: 0 },
            empty: FrameList { first: 0, len: 0 },
            slabs: 0,
            objects_out: 0,
        }
    }

    /// Slabs of the cache.
    pub(super) fn count(&self) -> u32 {
        self.slabs
    }

    /// Slabs without any object out.
    pub(super) fn empty_count(&self) -> u32 {
        self.empty.len
    }

    /// Objects with callers or in magazines.
    pub(super) fn objects_out(&self) -> u32 {
        self.objects_out
    }

    /// Makes the block at `slab` a slab of the cache with `tag`. Touches no object.
    ///
    /// The block has `2^order` pages, at most a slab's, and belongs to the caller.
    pub(super) fn add(&mut self, frames: FrameLookup, slab: Pfn, order: u32, tag: u8) {
        for part in 0..1 << order {
            if let Some(frame) = frames.find(slab + part) {
                frame.set_slab(tag, order);
            }
        }
        if let Some(frame) = frames.find(slab) {
            self.empty.push(frames, slab, frame);
            self.slabs += 1;
        }
    }

    /// Takes an empty slab out of the cache: the block is of kind allocated again and belongs to
    /// the caller.
    pub(super) fn remove_empty(&mut self, frames: FrameLookup) -> Option<(Pfn, u32)> {
        let slab = self.empty.first()?;
        let first = frames.find(slab)?;
        self.empty.remove(frames, slab, first);
        self.slabs -= 1;
        let order = first.slab_order();
        for part in 0..1 << order {
            if let Some(frame) = frames.find(slab + part) {
                frame.clear_slab();
            }
        }
        first.set_head(FrameKind::Allocated, order);
        Some((slab, order))
    }

    /// Puts the frames of an empty slab on the partial list.
    #[cold]
    fn open_empty(&mut self, frames: FrameLookup, geometry: &Geometry) -> Option<()> {
        let slab = self.empty.first()?;
        let first = frames.find(slab)?;
        self.empty.remove(frames, slab, first);
        let order = first.slab_order();
        // The last goes first, so that objects are taken from the slab's start on.
        for part in (0..1 << order).rev() {
            if geometry.starts(order, part) != 0
                && let Some(frame) = frames.find(slab + part)
            {
                self.partial.push(frames, slab + part, frame);
                frame.set_listed(true);
            }
        }
        Some(())
    }

    /// Moves up to `wanted` objects from the slabs into `magazine`, which has room for them.
    pub(super) fn take(
        &mut self,
        frames: FrameLookup,
        geometry: &Geometry,
        magazine: Magazine<'_>,
        wanted: usize,
    ) {
        let mut left = wanted;
        while left > 0 {
            let Some((pfn, frame)) = self.first_partial(frames, geometry) else {
                break;
            };
            let order = frame.slab_order();
            let starts = geometry.starts(order, part_of(pfn, order));
            let mut free = starts & !frame.objects_out();
            let last_slot = layout::phys_to_virt(pfn.phys()) + (PAGE_SIZE - SLOT);
            while free != 0 && left > 0 {
                // From the last object down, so that the first is on top of the magazine.
                let above = free.leading_zeros();
                free &= !(TOP_SLOT >> above);
                let object = last_slot.get().wrapping_sub(above as usize * SLOT);
                // SAFETY: the magazine has room for `wanted` objects.
                unsafe { magazine.push(core::ptr::with_exposed_provenance_mut(object)) };
                left -= 1;
            }
            frame.set_objects_out(starts & !free);
            if free == 0 {
                self.partial.remove(frames, pfn, frame);
                frame.set_listed(false);
            }
        }
        self.objects_out += (wanted - left) as u32;
    }

    /// Takes one object.
    pub(super) fn take_one(
        &mut self,
        frames: FrameLookup,
        geometry: &Geometry,
    ) -> Option<NonNull<u8>> {
        let (pfn, frame) = self.first_partial(frames, geometry)?;
        let order = frame.slab_order();
        let starts = geometry.starts(order, part_of(pfn, order));
        let free = starts & !frame.objects_out();
        let slot = free.trailing_zeros();
        let object = layout::phys_to_virt(pfn.phys()) + slot as usize * SLOT;
        let free = free & !(1 << slot);
        frame.set_objects_out(starts & !free);
        if free == 0 {
            self.partial.remove(frames, pfn, frame);
            frame.set_listed(false);
        }
        self.objects_out += 1;
        NonNull::new(object.as_ptr())
    }

    /// A frame with an object to take.
    #[inline]
    fn first_partial(
        &mut self,
        frames: FrameLookup,
        geometry: &Geometry,
    ) -> Option<(Pfn, &'static Frame)> {
        if self.partial.len == 0 {
            self.open_empty(frames, geometry)?;
        }
        let pfn = self.partial.first()?;
        Some((pfn, frames.find(pfn)?))
    }

    /// Puts up to `count` objects that `next` gives, all of this cache, back into their slabs.
    pub(super) fn give(
        &mut self,
        frames: FrameLookup,
        geometry: &Geometry,
        count: usize,
        mut next: impl FnMut() -> Option<NonNull<u8>>,
    ) {
        let mut given = 0;
        while given < count {
            let Some(object) = next() else { break };
            given += 1;
            let pa = layout::distance_into_direct_map(VirtAddr::from_ptr(object.as_ptr()));
            let Some((frame, slot)) = frames.find_slot(pa) else {
                continue;
            };
            let out = frame.objects_out() & !1_u64.wrapping_shl(slot);
            frame.set_objects_out(out);
            if out == 0 || !frame.is_listed() {
                self.list(frames, geometry, PhysAddr::new(pa as u64).pfn(), frame);
            }
        }
        self.objects_out = self.objects_out.wrapping_sub(given as u32);
    }

    /// Puts a frame to which an object came back on the list where it belongs.
    #[inline(never)]
    fn list(&mut self, frames: FrameLookup, geometry: &Geometry, pfn: Pfn, frame: &Frame) {
        let order = frame.slab_order();
        if !frame.is_listed() {
            self.partial.push(frames, pfn, frame);
            frame.set_listed(true);
        }
        if frame.objects_out() == 0 {
            self.close_if_empty(frames, geometry, slab_of(pfn, order), order);
        }
    }

    /// Moves a slab from the partial list, by frames, to the empty list if all of it is free.
    fn close_if_empty(&mut self, frames: FrameLookup, geometry: &Geometry, slab: Pfn, order: u32) {
        let parts = || (0..1 << order).filter_map(|part| Some((part, frames.find(slab + part)?)));
        if order > 0 && parts().any(|(_, frame)| frame.objects_out() != 0) {
            return;
        }
        for (part, frame) in parts() {
            if geometry.starts(order, part) != 0 {
                self.partial.remove(frames, slab + part, frame);
                frame.set_listed(false);
            }
        }
        if let Some(first) = frames.find(slab) {
            self.empty.push(frames, slab, first);
        }
    }
}

/// The bit of a frame's last slot.
const TOP_SLOT: u64 = 1 << (u64::BITS - 1);

/// Whether an object of a slab starts at `pa`, in use or not.
pub(super) fn is_start(geometry: &Geometry, pa: PhysAddr, frame: &Frame) -> bool {
    let order = frame.slab_order();
    let offset = pa.page_offset();
    let starts = geometry.starts(order, part_of(pa.pfn(), order));
    offset.is_multiple_of(SLOT) && starts >> (offset / SLOT) & 1 == 1
}

const _: () = assert!(SLOT << u64::BITS.ilog2() == 1 << PAGE_SHIFT);
