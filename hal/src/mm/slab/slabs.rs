//! The slabs of a cache, and which of their objects are out.
//!
//! A slab is a block of pages filled with objects from its first byte on. The descriptor of each
//! of its frames has a bit for every object that starts in the frame and is out: with a caller or
//! in a magazine. Nothing is kept in free objects but their mark, and making a slab writes to its
//! descriptors only.
//!
//! A slab of which an object can be taken is on the partial list, unless all of it is free: then it
//! is on the empty list. Its first frame has the links.

use super::geometry::{Geometry, SLOT};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::layout;
use crate::mm::frame::{Frame, FrameKind, FrameLookup};
use core::ptr::NonNull;

/// A list of slabs, linked through the descriptors of their first frames in a ring. All zero is an
/// empty one.
#[derive(Debug)]
struct SlabList {
    first: u32,
    len: u32,
}

impl SlabList {
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
pub(super) fn part_of(pfn: Pfn, order: u32) -> u32 {
    pfn.get() & ((1 << order) - 1)
}

/// Most slabs that one call takes objects from, which bounds its cost where few are free in each.
const MAX_VISITS: usize = 8;

/// All slabs of a cache. All zero is none.
#[derive(Debug)]
pub(in crate::mm) struct Slabs {
    partial: SlabList,
    empty: SlabList,
    slabs: u32,
    objects_out: u32,
}

impl Slabs {
    pub(in crate::mm) const fn new() -> Self {
        Self {
            partial: SlabList { first: 0, len: 0 },
            empty: SlabList { first: 0, len: 0 },
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
        let Some(parts) = frames.find_block(slab, order) else {
            return;
        };
        for frame in parts {
            frame.set_slab(tag, order);
        }
        if let Some(first) = parts.first() {
            self.empty.push(frames, slab, first);
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
        for frame in frames.find_block(slab, order)? {
            frame.clear_slab();
        }
        first.set_head(FrameKind::Allocated, order);
        Some((slab, order))
    }

    /// Takes up to `wanted` objects out of the slabs and passes them to `put`, those of a frame from
    /// the last to the first. How many there were.
    pub(super) fn take(
        &mut self,
        frames: FrameLookup,
        geometry: &Geometry,
        wanted: usize,
        mut put: impl FnMut(VirtAddr),
    ) -> usize {
        let mut left = wanted;
        for _ in 0..MAX_VISITS {
            if left == 0 {
                break;
            }
            let Some((slab, first, parts)) = self.open(frames) else {
                break;
            };
            let order = first.slab_order();
            let mut remains = false;
            let mut page = layout::phys_to_virt(slab.phys());
            for (frame, starts) in parts.iter().zip(geometry.starts_of(order)) {
                let mut free = starts & !frame.objects_out();
                if free != 0 {
                    if left == 0 {
                        remains = true;
                        break;
                    }
                    let last_slot = page + (PAGE_SIZE - SLOT);
                    while free != 0 && left > 0 {
                        let above = free.leading_zeros();
                        free &= !(TOP_SLOT >> above);
                        put(VirtAddr::new(
                            last_slot.get().wrapping_sub(above as usize * SLOT),
                        ));
                        left -= 1;
                    }
                    frame.set_objects_out(starts & !free);
                    remains = free != 0;
                }
                page = page + PAGE_SIZE;
            }
            match (first.is_listed(), remains) {
                (true, false) => {
                    self.partial.remove(frames, slab, first);
                    set_listed(parts, false);
                }
                (false, true) => {
                    self.partial.push(frames, slab, first);
                    set_listed(parts, true);
                }
                _ => {}
            }
        }
        let taken = wanted - left;
        self.objects_out += taken as u32;
        taken
    }

    /// A slab of the partial list, which stays there, or else one taken off the empty list.
    #[inline]
    fn open(&mut self, frames: FrameLookup) -> Option<(Pfn, &'static Frame, &'static [Frame])> {
        let partial = self.partial.first();
        let slab = partial.or_else(|| self.empty.first())?;
        let first = frames.find(slab)?;
        if partial.is_none() {
            self.empty.remove(frames, slab, first);
        }
        Some((slab, first, frames.find_block(slab, first.slab_order())?))
    }

    /// Puts up to `count` objects that `next` gives, all of this cache, back into their slabs.
    pub(super) fn give(
        &mut self,
        frames: FrameLookup,
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
                self.list(frames, PhysAddr::new(pa as u64).pfn(), frame.slab_order());
            }
        }
        self.objects_out = self.objects_out.wrapping_sub(given as u32);
    }

    /// Puts the slab that `pfn` is part of, to which an object came back, on the list where it
    /// belongs.
    #[inline(never)]
    fn list(&mut self, frames: FrameLookup, pfn: Pfn, order: u32) {
        let Some(parts) = frames.find_block(pfn, order) else {
            return;
        };
        let Some(first) = parts.first() else { return };
        let slab = slab_of(pfn, order);
        let listed = first.is_listed();
        if parts.iter().all(|frame| frame.objects_out() == 0) {
            if listed {
                self.partial.remove(frames, slab, first);
                set_listed(parts, false);
            }
            self.empty.push(frames, slab, first);
        } else if !listed {
            self.partial.push(frames, slab, first);
            set_listed(parts, true);
        }
    }
}

/// Notes in all frames of a slab whether it is on the partial list.
fn set_listed(parts: &[Frame], listed: bool) {
    for frame in parts {
        frame.set_listed(listed);
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
