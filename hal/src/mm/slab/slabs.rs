//! The slabs of a cache, and which of their objects are out.
//!
//! A slab is a block of pages filled with objects from its first byte on. The descriptor of each
//! of its frames has a bit for every object that starts in the frame and is out: with a caller or
//! in a magazine. Nothing is kept in free objects but their mark, and making a slab writes to its
//! descriptors only: its objects are marked before the first of them gets into a magazine, where the
//! bit no longer tells that they are free.
//!
//! A slab of which an object can be taken is on the partial list, unless all of it is free: then it
//! is on the empty list. Its first frame has the links.

use super::geometry::{Geometry, SLOT};
use super::mark::{is_marked_free, mark_free};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::layout;
use crate::mm::frame::{Frame, FrameKind, FrameLookup};
use core::num::NonZero;
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
pub(super) const MAX_VISITS: usize = 8;

/// Most objects that [`Slabs::give`] puts back in one call, which bounds its cost.
pub(super) const MAX_GIVEN: usize = 36;

/// As how many of them seeing to the list of a slab counts: it costs about as much.
const LIST_COST: usize = 5;

/// All slabs of a cache. All zero is none.
#[derive(Debug)]
pub(in crate::mm) struct Slabs {
    partial: SlabList,
    empty: SlabList,
    slabs: u32,
    objects_out: u32,
    /// The number of the first frame of the slab whose free objects are to be marked, plus one.
    unmarked: Option<NonZero<u32>>,
}

impl Slabs {
    pub(in crate::mm) const fn new() -> Self {
        Self {
            partial: SlabList { first: 0, len: 0 },
            empty: SlabList { first: 0, len: 0 },
            slabs: 0,
            objects_out: 0,
            unmarked: None,
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

    /// Leaves it to the next call that fills a magazine to mark the objects of `slab`, just added:
    /// that one costs less. Those of a slab added before are marked.
    #[inline(always)]
    pub(super) fn mark_later(&mut self, frames: FrameLookup, geometry: &Geometry, slab: Pfn) {
        self.mark(frames, geometry);
        self.unmarked = after(slab);
    }

    /// Marks the free objects of the slab for which that was left: now all free objects are.
    #[inline(always)]
    pub(super) fn mark(&mut self, frames: FrameLookup, geometry: &Geometry) {
        if let Some(next) = self.unmarked {
            self.unmarked = None;
            mark_slab(frames, geometry, Pfn::new(next.get() - 1));
        }
    }

    /// Takes an empty slab out of the cache: the block is of kind allocated again and belongs to
    /// the caller.
    pub(super) fn remove_empty(&mut self, frames: FrameLookup) -> Option<(Pfn, u32)> {
        let slab = self.empty.first()?;
        let first = frames.find(slab)?;
        self.empty.remove(frames, slab, first);
        self.slabs -= 1;
        if self.unmarked == after(slab) {
            self.unmarked = None;
        }
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
        mut put: impl FnMut(Row),
    ) -> usize {
        let mut left = wanted;
        let in_rows = geometry.size as usize <= LARGEST_IN_ROWS;
        for _ in 0..MAX_VISITS {
            if left == 0 {
                break;
            }
            let Some((slab, first, parts)) = self.open(frames) else {
                break;
            };
            let mut remains = false;
            let mut page = layout::phys_to_virt(slab.phys()).get();
            for (frame, starts) in parts.iter().zip(geometry.starts_of(first.slab_order())) {
                let mut free = starts & !frame.objects_out();
                if free != 0 {
                    if left == 0 {
                        remains = true;
                        break;
                    }
                    if in_rows && free == starts {
                        let row;
                        (row, free) = Row::last_of(page, free, left, geometry);
                        left = left.wrapping_sub(row.len);
                        put(row);
                    } else {
                        while free != 0 && left > 0 {
                            let slot = LAST_SLOT.wrapping_sub(free.leading_zeros() as usize);
                            free &= !(1 << slot);
                            left = left.wrapping_sub(1);
                            put(Row::of_one(page.wrapping_add(slot * SLOT)));
                        }
                    }
                    frame.set_objects_out(starts & !free);
                    remains = free != 0;
                }
                page = page.wrapping_add(PAGE_SIZE);
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
        let parts = frames.find_slab(slab)?;
        let first = parts.first()?;
        if partial.is_none() {
            self.empty.remove(frames, slab, first);
        }
        Some((slab, first, parts))
    }

    /// Puts up to `count` objects that `next` gives, all of this cache and marked as free, back into
    /// their slabs, [`MAX_GIVEN`] at most; fewer where many slabs change lists.
    pub(super) fn give(
        &mut self,
        frames: FrameLookup,
        count: usize,
        mut next: impl FnMut() -> Option<NonNull<u8>>,
    ) {
        let (mut given, mut listings) = (0_usize, 0);
        let mut left = count.min(MAX_GIVEN);
        // The slab whose list is still to be seen to: once for objects that follow each other.
        let mut touched = None;
        while left > 0 {
            let Some(object) = next() else { break };
            left = left.wrapping_sub(1);
            given = given.wrapping_add(1);
            let pa = layout::distance_into_direct_map(VirtAddr::from_ptr(object.as_ptr()));
            let Some((frame, slot)) = frames.find_slot(pa) else {
                continue;
            };
            let out = frame.objects_out() & !1_u64.wrapping_shl(slot);
            frame.set_objects_out(out);
            if out == 0 || !frame.is_listed() {
                let order = frame.slab_order();
                let slab = slab_of(PhysAddr::new(pa as u64).pfn(), order);
                if touched == Some((slab, order)) {
                    continue;
                }
                if let Some((before, order)) = touched.replace((slab, order)) {
                    self.list(frames, before, order);
                }
                listings += 1;
                left = left.min(MAX_GIVEN.saturating_sub(given + listings * LIST_COST));
            }
        }
        if let Some((slab, order)) = touched {
            self.list(frames, slab, order);
        }
        self.objects_out = self.objects_out.wrapping_sub(given as u32);
    }

    /// Puts the first of `objects` and those behind it in the same frame back into their slab, up to
    /// the first that is not an object in use of the cache with `tag`, and leaves `None` in their
    /// places. How many there were. With `marks` free objects are marked, and known by it.
    ///
    /// # Safety
    ///
    /// Objects in use of that cache belong to the caller, who no longer uses them.
    pub(super) unsafe fn give_row(
        &mut self,
        frames: FrameLookup,
        tag: u8,
        marks: bool,
        objects: &mut [Option<NonNull<u8>>],
    ) -> usize {
        let Some(Some(first)) = objects.first() else {
            return 0;
        };
        let first = VirtAddr::from_ptr(first.as_ptr());
        let pa = layout::distance_into_direct_map(first);
        let Some((frame, _)) = frames.find_slot(pa).filter(|(frame, _)| frame.tag() == tag) else {
            return 0;
        };
        let page = first.align_down(PAGE_SIZE).get();
        let mut out = frame.objects_out();
        let given = objects.iter_mut().position(|place| {
            let Some(object) = *place else { return true };
            // An address in the midst of a slot becomes a huge number, as one before the page does.
            let offset = object.addr().get().wrapping_sub(page);
            let slot = offset.rotate_right(SLOT.ilog2());
            if slot >= SLOTS || out >> slot & 1 == 0 || marks && is_marked_free(object) {
                return true;
            }
            if marks {
                mark_free(object);
            }
            out &= !(1 << slot);
            *place = None;
            false
        });
        let given = given.unwrap_or(objects.len());
        if given != 0 {
            frame.set_objects_out(out);
            if out == 0 || !frame.is_listed() {
                let (pfn, order) = (PhysAddr::new(pa as u64).pfn(), frame.slab_order());
                self.list(frames, slab_of(pfn, order), order);
            }
            self.objects_out = self.objects_out.wrapping_sub(given as u32);
        }
        given
    }

    /// Puts the slab of `order` at `slab`, to which objects came back, on the list where it belongs.
    #[inline(never)]
    fn list(&mut self, frames: FrameLookup, slab: Pfn, order: u32) {
        let Some(parts) = frames.find_block(slab, order) else {
            return;
        };
        let Some(first) = parts.first() else { return };
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

/// The number of the frame after the first of `slab`, which is never 0: frames have 26 bits.
#[inline(always)]
fn after(slab: Pfn) -> Option<NonZero<u32>> {
    NonZero::new(slab.get().wrapping_add(1))
}

/// Marks all free objects of `slab`.
#[cold]
#[inline(never)]
fn mark_slab(frames: FrameLookup, geometry: &Geometry, slab: Pfn) {
    let Some(parts) = frames.find_slab(slab) else {
        return;
    };
    let order = parts.first().map_or(0, Frame::slab_order);
    let mut page = layout::phys_to_virt(slab.phys()).get();
    for (frame, starts) in parts.iter().zip(geometry.starts_of(order)) {
        let mut free = starts & !frame.objects_out();
        while free != 0 {
            let slot = free.trailing_zeros() as usize;
            free &= free - 1;
            Row::of_one(page.wrapping_add(slot * SLOT))
                .objects()
                .for_each(mark_free);
        }
        page = page.wrapping_add(PAGE_SIZE);
    }
}

/// Notes in all frames of a slab whether it is on the partial list.
fn set_listed(parts: &[Frame], listed: bool) {
    for frame in parts {
        frame.set_listed(listed);
    }
}

/// Largest objects that are taken in rows: with fewer of them in a frame that costs more than it
/// saves.
const LARGEST_IN_ROWS: usize = PAGE_SIZE / 4;

/// Objects of a frame that lie side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Address of the last one.
    last: usize,
    /// Bytes from one to the next.
    size: usize,
    /// How many; at least one.
    len: usize,
}

impl Row {
    /// The object at `address` alone.
    #[inline(always)]
    fn of_one(address: usize) -> Self {
        let (last, size, len) = (address, 0, 1);
        Self { last, size, len }
    }

    /// The last objects of the frame mapped at `page`, `most` at most and at least one, and at which
    /// slots objects are free without them. All are free: objects start at the slots in `free`.
    #[inline(always)]
    fn last_of(page: usize, free: u64, most: usize, geometry: &Geometry) -> (Self, u64) {
        let size = geometry.size as usize;
        let last_slot = LAST_SLOT.wrapping_sub(free.leading_zeros() as usize);
        let before = last_slot.wrapping_sub(free.trailing_zeros() as usize) * SLOT / size;
        let len = most.min(before.wrapping_add(1));
        let lowest = (last_slot * SLOT).wrapping_sub(len.wrapping_sub(1) * size) / SLOT;
        let last = page.wrapping_add(last_slot * SLOT);
        (Self { last, size, len }, free & !(u64::MAX << lowest))
    }

    /// How many objects.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The objects from the last to the first.
    #[inline(always)]
    pub(super) fn objects(self) -> impl Iterator<Item = NonNull<u8>> {
        let mut next = self.last;
        (0..self.len).map(move |_| {
            let object = VirtAddr::new(next).as_ptr();
            next = next.wrapping_sub(self.size);
            // SAFETY: an address of the direct map is not null.
            unsafe { NonNull::new_unchecked(object) }
        })
    }
}

/// Slots of a frame.
const SLOTS: usize = PAGE_SIZE / SLOT;

/// Number of the last one.
const LAST_SLOT: usize = SLOTS - 1;

/// Whether an object of a slab starts at `pa`, in use or not.
pub(super) fn is_start(geometry: &Geometry, pa: PhysAddr, frame: &Frame) -> bool {
    let order = frame.slab_order();
    let offset = pa.page_offset();
    let starts = geometry.starts(order, part_of(pa.pfn(), order));
    offset.is_multiple_of(SLOT) && starts >> (offset / SLOT) & 1 == 1
}

const _: () = assert!(SLOTS == u64::BITS as usize);
