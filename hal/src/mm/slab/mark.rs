//! The mark in a free object, by which a second free is found.

use super::SLOT;
use crate::addr::{Pfn, VirtAddr};
use crate::layout;
use crate::mm::frame::Frame;
use core::ptr::NonNull;

/// What the second word of an object in use is set to when the object is handed out.
const NO_MARK: usize = 0;

/// Mixed into an object's address to make its mark, so that no list of its user's looks like one. A
/// value that an instruction can hold.
const MIX: usize = 0x5555_5555_5555_5555;

/// What the second word of the free `object` holds.
///
/// No caller computes it, but callers copy bytes they never wrote, and with them marks that objects
/// of an earlier slab of the frame have left. A mark is of one address, so a copy elsewhere is none.
#[inline(always)]
pub(in crate::mm) fn free_mark(object: NonNull<u8>) -> usize {
    object.addr().get() ^ MIX
}

#[inline(always)]
fn mark_of(object: NonNull<u8>) -> *mut usize {
    // SAFETY: objects are at least two words long.
    unsafe { object.cast::<usize>().add(1).as_ptr() }
}

/// The second word of `object`, which is an object of a slab, or at least memory of one.
#[inline(always)]
fn mark_at(object: NonNull<u8>) -> usize {
    // SAFETY: the memory is mapped, and aligned to 8. Volatile, because the caller may never have
    // written the word, and the comparison must be with what memory holds.
    unsafe { mark_of(object).read_volatile() }
}

/// Whether the object at `object` is free, as far as its mark tells.
#[inline(always)]
pub(super) fn is_marked_free(object: NonNull<u8>) -> bool {
    mark_at(object) == free_mark(object)
}

/// Marks `object` as free. It belongs to nobody but the caller.
#[inline(always)]
pub(super) fn mark_free(object: NonNull<u8>) {
    // SAFETY: the object is mapped and aligned to 8, and nobody uses it.
    unsafe { mark_of(object).write(free_mark(object)) };
}

/// Takes the mark from `object`, which belongs to nobody but the caller.
#[inline(always)]
pub(super) fn mark_used(object: NonNull<u8>) {
    // SAFETY: as in `mark_free`.
    unsafe { mark_of(object).write(NO_MARK) };
}

/// Calls `f` with the address of each object of a frame of a slab that is out of it and not free.
pub(super) fn in_use(pfn: Pfn, frame: &Frame, f: &mut impl FnMut(VirtAddr)) {
    let mut out = frame.objects_out();
    while out != 0 {
        let slot = out.trailing_zeros() as usize;
        out &= out - 1;
        let va = layout::phys_to_virt(pfn.phys()) + slot * SLOT;
        if !NonNull::new(va.as_ptr()).is_some_and(is_marked_free) {
            f(va);
        }
    }
}
