//! Many objects at a time, straight from the slabs and back into them.

use super::Cache;
use super::magazine::{Holder, Magazine, Open};
use super::mark::mark_used;
use super::slabs::MAX_VISITS;
use crate::mm::misuse::note_object_flags;
use crate::mm::page::{PageAllocator, check_context};
use crate::mm::{AllocError, Gfp, fault};
use core::ptr::NonNull;

impl Cache<'_> {
    /// Fills `objects` from the start with new objects of a cache that charges nobody for them: how
    /// many, and what ended it before the last.
    pub(super) fn alloc_bulk(
        &self,
        pages: &PageAllocator,
        gfp: Gfp,
        objects: &mut [Option<NonNull<u8>>],
    ) -> (usize, Option<AllocError>) {
        if let Err(error) = check_context(gfp) {
            return (0, Some(error));
        }
        note_object_flags(gfp);
        if fault::should_fail(gfp) {
            return (0, Some(AllocError::NoMemory { order: 0, gfp }));
        }
        let mut filled = 0;
        while let Some(rest) = objects.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let taken = self.take_bulk(pages, rest);
            filled += taken;
            if taken == 0
                && let Err(error) = self.add_slab(pages, gfp)
            {
                return (filled, Some(error));
            }
        }
        if gfp.contains(Gfp::ZERO) {
            for object in objects.iter().flatten() {
                self.geometry.zero_if(*object, gfp);
            }
        }
        (filled, None)
    }

    /// Takes what is at hand, or else what a few slabs have, into the first of `places`. How many
    /// objects there were.
    fn take_bulk(&self, pages: &PageAllocator, places: &mut [Option<NonNull<u8>>]) -> usize {
        let mut at_hand = self.at_hand.and_then(Holder::open).map(Magazine::open);
        let mut taken = 0;
        for place in places.iter_mut() {
            let Some(object) = at_hand.as_mut().and_then(Open::pop) else {
                break;
            };
            mark_used(object);
            *place = Some(object);
            taken += 1;
        }
        if taken != 0 {
            return taken;
        }
        let wanted = places.len();
        let mut left = places;
        let marks = self.constructor.is_none();
        let frames = pages.frames().lookup();
        self.slabs
            .lock()
            .take(frames, self.geometry, wanted, |row| {
                let (filled, rest) = core::mem::take(&mut left).split_at_mut(row.len());
                for (place, object) in filled.iter_mut().zip(row.objects()) {
                    if marks {
                        mark_used(object);
                    }
                    *place = Some(object);
                }
                left = rest;
            })
    }

    /// Frees the first of `objects`, up to one that is not an object of the cache in use, and leaves
    /// `None` in their places. How many there were. The cache charges nobody for them.
    ///
    /// # Safety
    ///
    /// Objects of the cache in use belong to the caller, who no longer uses them.
    pub(super) unsafe fn free_bulk(
        &self,
        pages: &PageAllocator,
        objects: &mut [Option<NonNull<u8>>],
    ) -> usize {
        let frames = pages.frames().lookup();
        let marks = self.constructor.is_none();
        let mut freed = 0;
        loop {
            let before = freed;
            let mut slabs = self.slabs.lock();
            for _ in 0..MAX_VISITS {
                let rest = objects.get_mut(freed..).unwrap_or_default();
                // SAFETY: handed on to the caller.
                freed += unsafe { slabs.give_row(frames, self.tag, marks, rest) };
            }
            let releases = slabs.empty_count() > self.kept_empty();
            drop(slabs);
            if releases {
                self.release_empty(pages, self.kept_empty(), MAX_VISITS);
            }
            if freed == before {
                return freed;
            }
        }
    }
}
