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
        while left > 0 {
            let Some((slab, first)) = self.open(frames) else {
                break;
            };
            let order = first.slab_order();
            let Some(parts) = frames.find_block(slab, order) else {
                break;
            };
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
            if !remains {
                self.partial.remove(frames, slab, first);
                first.set_listed(false);
            }
        }
        let taken = wanted - left;
        self.objects_out += taken as u32;
        taken
    }

    /// A slab on the partial list, where an empty one is put if there is no other.
    #[inline]
    fn open(&mut self, frames: FrameLookup) -> Option<(Pfn, &'static Frame)> {
        if let Some(slab) = self.partial.first() {
            return Some((slab, frames.find(slab)?));
        }
        let slab = self.empty.first()?;
        let first = frames.find(slab)?;
        self.empty.remove(frames, slab, first);
        self.partial.push(frames, slab, first);
        first.set_listed(true);
        Some((slab, first))
    }

    /// Puts up to `count` objects that `next` gives, all of this cache, back into their slabs.
    ///
    /// Where a slab belongs is decided after the last of several objects in a row that are of it.
    pub(super) fn give(
        &mut self,
        frames: FrameLookup,
        count: usize,
        mut next: impl FnMut() -> Option<NonNull<u8>>,
    ) {
        let mut given = 0;
        let mut run: Option<Run> = None;
        while given < count {
            let Some(object) = next() else { break };
            given += 1;
            let pa = layout::distance_into_direct_map(VirtAddr::from_ptr(object.as_ptr()));
            let Some((frame, slot)) = frames.find_slot(pa) else {
                continue;
            };
            let out = frame.objects_out() & !1_u64.wrapping_shl(slot);
            frame.set_objects_out(out);
            let order = frame.slab_order();
            let slab = slab_of(PhysAddr::new(pa as u64).pfn(), order);
            match &mut run {
                Some(run) if run.slab == slab => run.may_be_empty |= out == 0,
                _ => {
                    let new = Run {
                        slab,
                        order,
                        may_be_empty: out == 0,
                    };
                    if let Some(ended) = run.replace(new) {
                        self.list(frames, &ended);
                    }
                }
            }
        }
        if let Some(ended) = run {
            self.list(frames, &ended);
        }
        self.objects_out = self.objects_out.wrapping_sub(given as u32);
    }

    /// Puts a slab to which objects came back on the list where it belongs.
    fn list(&mut self, frames: FrameLookup, run: &Run) {
        let Some(parts) = frames.find_block(run.slab, run.order) else {
            return;
        };
        let Some(first) = parts.first() else { return };
        let is_empty = run.may_be_empty && parts.iter().all(|frame| frame.objects_out() == 0);
        match (first.is_listed(), is_empty) {
            (true, false) => {}
            (false, false) => {
                self.partial.push(frames, run.slab, first);
                first.set_listed(true);
            }
            (listed, true) => {
                if listed {
                    self.partial.remove(frames, run.slab, first);
                    first.set_listed(false);
                }
                self.empty.push(frames, run.slab, first);
            }
        }
    }
}

/// Objects of one slab that came back to it one after the other.
struct Run {
    slab: Pfn,
    order: u32,
    /// Whether a frame of the slab has no object out.
    may_be_empty: bool,
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
