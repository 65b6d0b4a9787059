//! The paths that take or leave an object at hand, and nothing else.

use super::Magazines;
use super::mark::{is_marked_free, mark_free, mark_used};
use crate::addr::VirtAddr;
use crate::layout;
use core::ptr::NonNull;

/// Takes an object of the cache with `tag` from this core's magazine.
#[inline(always)]
pub(in crate::mm) fn alloc_fast(core: &Magazines, tag: u8) -> Option<NonNull<u8>> {
    let object = core.pop(tag)?;
    mark_used(object);
    Some(object)
}

/// Frees the object at `va` into this core's magazine of its cache, if `admits` its tag. `None` when
/// that takes more, or is a mistake; nothing has changed then.
///
/// # Safety
///
/// If an object in use starts at `va`, it belongs to the caller, who no longer uses it.
#[inline(always)]
pub(in crate::mm) unsafe fn free_fast(
    core: &Magazines,
    va: VirtAddr,
    admits: impl FnOnce(u8) -> bool,
) -> Option<()> {
    let (frame, slot) = core
        .frames()
        .find_slot(layout::distance_into_direct_map(va))?;
    if frame.objects_out().wrapping_shr(slot) & 1 == 0 {
        return None;
    }
    // A frame of another kind gets no further: no cache has its kind as a tag.
    let tag = frame.tag();
    if !admits(tag) {
        return None;
    }
    let room = core.room(tag)?;
    // SAFETY: an address of the direct map is not null.
    let object = unsafe { NonNull::new_unchecked(va.as_ptr::<u8>()) };
    if is_marked_free(object) {
        return None;
    }
    mark_free(object);
    room.fill(object);
    Some(())
}
