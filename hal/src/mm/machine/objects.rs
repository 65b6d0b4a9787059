//! The machine's `kmalloc` objects.

use super::{KMALLOC, PACKED, pages};
use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::mm::*;
use core::ptr::NonNull;

/// Allocates memory of the machine: [`Kmalloc::kmalloc`].
///
/// # Errors
///
/// As there.
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
pub fn kmalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kmalloc(size, gfp)
}

/// Allocates zeroed memory of the machine: [`Kmalloc::kzalloc`].
///
/// # Errors
///
/// As there.
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
pub fn kzalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kzalloc(size, gfp)
}

/// Allocates memory of the machine that no device may meet: [`PackedKmalloc::kmalloc`], or
/// [`kmalloc`] if it is larger or to be charged to an owner.
///
/// # Errors
///
/// As there, and [`AllocError::NotReady`] before [`init`].
pub fn kmalloc_packed(size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    if size == 0 || size > MAX_PACKED_SIZE || gfp.contains(Gfp::ACCOUNT) {
        return kmalloc(size, gfp);
    }
    PACKED.kmalloc(pages().ok_or(AllocError::NotReady)?, size, gfp)
}

/// Whether the `len` bytes at `pa` lie in one page of a slab whose objects fill cache lines: the quick
/// half of [`unlendable_at`], which finds nothing wrong with such memory. `len` is not 0.
#[inline(always)]
pub(crate) fn is_line_object(pa: PhysAddr, len: usize) -> bool {
    #[cfg(target_os = "none")]
    let frame = crate::sync::PerCpu::current()
        .magazines()
        .frames()
        .find(pa.pfn());
    #[cfg(not(target_os = "none"))]
    let frame = pages().and_then(|pages| pages.frames().lookup().find(pa.pfn()));
    let is_in_page = pa.page_offset().wrapping_add(len.wrapping_sub(1)) < PAGE_SIZE;
    is_in_page && frame.is_some_and(slab::has_whole_lines)
}

/// The first page of the `len` bytes at `pa` that must not be lent to a device, and why; `None`
/// before [`init`], when nobody can tell. `len` is not 0, and the range does not wrap. May be called
/// in any context.
pub fn unlendable_at(pa: PhysAddr, len: usize) -> Option<(PhysAddr, Unlendable)> {
    let frames = pages()?.frames();
    lend::unlendable(frames, pa, len).map(|(pfn, why)| (pfn.phys().max(pa), why))
}

/// Where the `len` bytes at `pa`, more than none, first are part of a free object, to the unit of
/// slab memory, and the name of its slab cache; `None` if they nowhere are. The range does not wrap.
/// The debug build only.
#[cfg(feature = "slab-debug")]
pub fn freed_object_in(pa: PhysAddr, len: usize) -> Option<(PhysAddr, &'static str)> {
    slab::freed_object_in(pages()?.frames().lookup(), pa, len)
}

/// Checks all objects of all slab caches; how many are not as they should be, see [`SlabReport`].
/// Nobody allocates or frees meanwhile. The debug build only.
#[cfg(feature = "slab-debug")]
#[track_caller]
pub fn validate_slabs() -> usize {
    let Some(pages) = pages() else { return 0 };
    let mut wrong = KMALLOC.validate();
    for cache in named_caches() {
        wrong += cache.validate(pages);
    }
    wrong
}

/// Frees memory of the machine: [`Kmalloc::kfree`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
pub unsafe fn kfree(object: *mut u8) -> Result<(), ObjectError> {
    // SAFETY: handed on to the caller.
    unsafe { KMALLOC.kfree(object) }
}

/// Bytes usable at an object of the machine: [`Kmalloc::ksize`].
///
/// # Errors
///
/// As there.
pub fn ksize(object: *const u8) -> Result<usize, ObjectError> {
    KMALLOC.ksize(object)
}

/// Allocates an array of the machine: [`Kmalloc::kmalloc_array`].
///
/// # Errors
///
/// As there.
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
pub fn kmalloc_array(count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kmalloc_array(count, size, gfp)
}

/// Allocates a zeroed array of the machine: [`Kmalloc::kcalloc`].
///
/// # Errors
///
/// As there.
#[inline(always)]
#[cfg_attr(feature = "slab-debug", track_caller)]
pub fn kcalloc(count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
    KMALLOC.kcalloc(count, size, gfp)
}

/// Resizes an object of the machine: [`Kmalloc::krealloc`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[cfg_attr(feature = "slab-debug", track_caller)]
pub unsafe fn krealloc(
    object: *mut u8,
    size: usize,
    gfp: Gfp,
) -> Result<NonNull<u8>, ReallocError> {
    // SAFETY: handed on to the caller.
    unsafe { KMALLOC.krealloc(object, size, gfp) }
}

/// Resizes an array of the machine: [`Kmalloc::krealloc_array`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[cfg_attr(feature = "slab-debug", track_caller)]
pub unsafe fn krealloc_array(
    object: *mut u8,
    count: usize,
    size: usize,
    gfp: Gfp,
) -> Result<NonNull<u8>, ReallocError> {
    // SAFETY: handed on to the caller.
    unsafe { KMALLOC.krealloc_array(object, count, size, gfp) }
}

/// Zeroes and frees memory of the machine: [`Kmalloc::kfree_sensitive`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[cfg_attr(feature = "slab-debug", track_caller)]
pub unsafe fn kfree_sensitive(object: *mut u8) -> Result<(), ObjectError> {
    // SAFETY: handed on to the caller.
    unsafe { KMALLOC.kfree_sensitive(object) }
}
