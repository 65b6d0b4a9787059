//! The slabs of a cache, and the objects in them.
//!
//! A slab is a block of pages filled with objects from its first byte on. What is known of it lies
//! in the descriptor of its first frame: how many objects were ever carved off, how many of those
//! are out, and the first free one. Free objects are linked by number through their first word.
//! A slab is on the partial list while it has objects both in and out, on the empty list while it
//! has none out, and on no list while all are out.

use super::geometry::Geometry;
use super::magazine::Magazine;
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::layout;
use crate::mm::frame::{Frame, FrameKind, FrameTable};
use core::ptr::NonNull;

/// State of a slab's objects, as packed into its first descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SlabState {
    /// First free object: its number plus one, 0 for none.
    free: u32,
    /// Objects out of the slab: with callers or in magazines.
    out: u32,
    /// Objects ever taken: those above were never used and are in no list.
    carved: u32,
}

/// Width of a count of objects in the packed state.
const COUNT_BITS: u32 = 10;
const COUNT_MASK: u32 = (1 << COUNT_BITS) - 1;

impl SlabState {
    #[inline]
    fn load(frame: &Frame) -> Self {
        let data = frame.data();
        Self {
            free: data & COUNT_MASK,
            out: data >> COUNT_BITS & COUNT_MASK,
            carved: data >> (2 * COUNT_BITS) & COUNT_MASK,
        }
    }

    #[inline]
    fn store(self, frame: &Frame) {
        frame.set_data(self.free | self.out << COUNT_BITS | self.carved << (2 * COUNT_BITS));
    }
}

/// Whether object number `index` of the slab that starts at `head` was ever handed out.
#[inline(always)]
pub(super) fn was_carved(head: &Frame, index: u32) -> bool {
    index < SlabState::load(head).carved
}

/// How far `pa` lies from the start of its slab, which is aligned to its size.
#[inline(always)]
pub(super) fn offset_in_slab(pa: PhysAddr, order: u32) -> usize {
    pa.get() as usize & ((PAGE_SIZE << order) - 1)
}

/// A list of slabs, linked through their first descriptors. All zero is an empty one.
#[derive(Debug)]
struct SlabList {
    /// Frame number of the first slab plus one, 0 for none.
    head: u32,
}

impl SlabList {
    #[inline]
    fn first(&self) -> Option<Pfn> {
        self.head.checked_sub(1).map(Pfn::new)
    }

    fn push(&mut self, frames: FrameTable, slab: Pfn) {
        let Some(frame) = frames.get_ready(slab) else {
            return;
        };
        let link = slab.get() + 1;
        let next = core::mem::replace(&mut self.head, link);
        frame.set_next(next);
        frame.set_prev(0);
        if let Some(next) = at_link(frames, next) {
            next.set_prev(link);
        }
    }

    fn remove(&mut self, frames: FrameTable, frame: &Frame) {
        let (next, prev) = (frame.next(), frame.prev());
        if let Some(next) = at_link(frames, next) {
            next.set_prev(prev);
        }
        match at_link(frames, prev) {
            Some(prev) => prev.set_next(next),
            None => self.head = next,
        }
    }
}

fn at_link(frames: FrameTable, link: u32) -> Option<&'static Frame> {
    frames.get_ready(Pfn::new(link.checked_sub(1)?))
}

/// All slabs of a cache. All zero is none.
#[derive(Debug)]
pub(super) struct Slabs {
    partial: SlabList,
    empty: SlabList,
    empty_count: u32,
    slabs: u32,
    objects_out: u32,
}

impl Slabs {
    pub(super) const fn new() -> Self {
        Self {
            partial: SlabList { head: 0 },
            empty: SlabList { head: 0 },
            empty_count: 0,
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
        self.empty_count
    }

    /// Objects with callers or in magazines.
    pub(super) fn objects_out(&self) -> u32 {
        self.objects_out
    }

    /// Makes the block at `slab` a slab of the cache with number `cache`. Touches no object.
    ///
    /// The block has `2^order` pages, at most a slab's, and belongs to the caller.
    pub(super) fn add(&mut self, frames: FrameTable, slab: Pfn, order: u32, cache: u8) {
        for part in 0..1 << order {
            if let Some(frame) = frames.get_ready(slab + part) {
                frame.set_slab(order, cache);
                SlabState::default().store(frame);
            }
        }
        self.empty.push(frames, slab);
        self.empty_count += 1;
        self.slabs += 1;
    }

    /// Takes an empty slab out of the cache: the block is of kind allocated again and belongs to
    /// the caller.
    pub(super) fn remove_empty(&mut self, frames: FrameTable) -> Option<(Pfn, u32)> {
        let slab = self.empty.first()?;
        let head = frames.get_ready(slab)?;
        self.empty.remove(frames, head);
        self.empty_count -= 1;
        self.slabs -= 1;
        let order = head.slab_order();
        for part in 1..1 << order {
            if let Some(frame) = frames.get_ready(slab + part) {
                frame.set_kind(FrameKind::Tail);
            }
        }
        head.set_head(FrameKind::Allocated, order);
        Some((slab, order))
    }

    /// Moves up to `wanted` objects from the slabs into `magazine`, which has room for them.
    pub(super) fn take(
        &mut self,
        frames: FrameTable,
        geometry: &Geometry,
        magazine: &mut Magazine,
        wanted: usize,
    ) {
        let mut left = wanted;
        while left > 0 {
            let (slab, was_empty) = match (self.partial.first(), self.empty.first()) {
                (Some(slab), _) => (slab, false),
                (None, Some(slab)) => (slab, true),
                (None, None) => return,
            };
            let Some(head) = frames.get_ready(slab) else {
                return;
            };
            if was_empty {
                self.empty.remove(frames, head);
                self.empty_count -= 1;
                self.partial.push(frames, slab);
            }
            let mut state = SlabState::load(head);
            let objects = geometry.objects(head.slab_order());
            let base = layout::phys_to_virt(slab.phys());
            while left > 0 && state.out < objects {
                let index = match state.free.checked_sub(1) {
                    Some(index) => {
                        let object = base + index as usize * geometry.size as usize;
                        // SAFETY: the object is free and in the list, so `give` wrote its link and
                        // nobody has used it since.
                        state.free = unsafe { object.as_ptr::<u32>().read() };
                        index
                    }
                    None => {
                        state.carved += 1;
                        state.carved - 1
                    }
                };
                let object = base + index as usize * geometry.size as usize;
                if let Some(object) = NonNull::new(object.as_ptr::<u8>()) {
                    magazine.push(object, usize::MAX);
                }
                state.out += 1;
                self.objects_out += 1;
                left -= 1;
            }
            if state.out == objects {
                self.partial.remove(frames, head);
            }
            state.store(head);
        }
    }

    /// Puts `object`, which `take` gave out of a slab of this cache, back into its slab.
    pub(super) fn give(&mut self, frames: FrameTable, geometry: &Geometry, object: NonNull<u8>) {
        let va = VirtAddr::from_ptr(object.as_ptr());
        let Some(pa) = layout::virt_to_phys(va) else {
            return;
        };
        let Some(frame) = frames.get_ready(pa.pfn()) else {
            return;
        };
        let order = frame.slab_order();
        let offset = offset_in_slab(pa, order);
        let slab = Pfn::new(pa.pfn().get() & !((1 << order) - 1));
        let head = frames.slab_head(frame);
        let Some(index) = geometry.index_of(offset) else {
            return;
        };
        let mut state = SlabState::load(head);
        let was_full = state.out == geometry.objects(head.slab_order());
        // SAFETY: the object came out of this slab and its last user is done with it; it is large
        // enough for the link and aligned to a multiple of 8.
        unsafe { va.as_ptr::<u32>().write(state.free) };
        state.free = index + 1;
        state.out -= 1;
        self.objects_out -= 1;
        state.store(head);
        match (was_full, state.out == 0) {
            (false, false) => {}
            (true, false) => self.partial.push(frames, slab),
            (was_full, true) => {
                if !was_full {
                    self.partial.remove(frames, head);
                }
                self.empty.push(frames, slab);
                self.empty_count += 1;
            }
        }
    }
}
