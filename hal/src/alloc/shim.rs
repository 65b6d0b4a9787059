//! REPLACE: stands in for `mm::{kvmalloc, kvrealloc, kvfree, vrealloc}` until `mm` has them.

use super::{AllocError, Flags};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::{self, VmallocError, is_vmalloc_addr};
use core::ptr::NonNull;

fn area(va: VirtAddr) -> Result<NonNull<u8>, AllocError> {
    Ok(NonNull::new(va.as_ptr()).ok_or(VmallocError::NotAnArea(va))?)
}

pub(super) fn vmalloc(size: usize, flags: Flags) -> Result<NonNull<u8>, AllocError> {
    area(mm::vmalloc_with(size, flags)?)
}

/// # Safety
///
/// `area` is `vmalloc` memory of the caller's, who no longer uses it.
pub(super) unsafe fn vfree(area: NonNull<u8>) {
    // SAFETY: handed on to the caller.
    let freed = unsafe { mm::vfree(VirtAddr::from_ptr(area.as_ptr())) };
    debug_assert_eq!(freed, Ok(()));
}

/// # Safety
///
/// `area` is `vmalloc` memory of the caller's, of `old_size` bytes, who no longer uses it unless
/// it is returned.
pub(super) unsafe fn vrealloc(
    area: NonNull<u8>,
    old_size: usize,
    size: usize,
    flags: Flags,
) -> Result<NonNull<u8>, AllocError> {
    if size <= old_size.next_multiple_of(PAGE_SIZE) {
        if flags.contains(Flags::ZERO) && size > old_size {
            // SAFETY: the pages of the area are the caller's.
            unsafe { area.add(old_size).write_bytes(0, size - old_size) };
        }
        return Ok(area);
    }
    let new = vmalloc(size, flags)?;
    // SAFETY: two areas of at least `old_size` bytes; the caller gives the old one up.
    unsafe {
        new.copy_from_nonoverlapping(area, old_size);
        vfree(area);
    }
    Ok(new)
}

pub(super) fn kvmalloc(size: usize, flags: Flags) -> Result<NonNull<u8>, AllocError> {
    if size <= PAGE_SIZE || !flags.contains(Flags::KERNEL) {
        return Ok(mm::kmalloc(size, flags)?);
    }
    match mm::kmalloc(size, flags | Flags::NOWARN | Flags::NORETRY) {
        Ok(object) => Ok(object),
        Err(_) => vmalloc(size, flags),
    }
}

/// # Safety
///
/// `memory` is the caller's, from [`kvmalloc`], who no longer uses it.
pub(super) unsafe fn kvfree(memory: NonNull<u8>) {
    if is_vmalloc_addr(VirtAddr::from_ptr(memory.as_ptr())) {
        // SAFETY: handed on to the caller.
        unsafe { vfree(memory) };
    } else {
        // SAFETY: handed on to the caller.
        let freed = unsafe { mm::kfree(memory.as_ptr()) };
        debug_assert_eq!(freed, Ok(()));
    }
}

/// # Safety
///
/// As for [`vrealloc`], with memory from [`kvmalloc`].
pub(super) unsafe fn kvrealloc(
    memory: NonNull<u8>,
    old_size: usize,
    size: usize,
    flags: Flags,
) -> Result<NonNull<u8>, AllocError> {
    if is_vmalloc_addr(VirtAddr::from_ptr(memory.as_ptr())) {
        // SAFETY: handed on to the caller.
        return unsafe { vrealloc(memory, old_size, size, flags) };
    }
    if size <= mm::ksize(memory.as_ptr())? {
        // SAFETY: handed on to the caller; the object stays where it is.
        return Ok(unsafe { mm::krealloc(memory.as_ptr(), size, flags) }?);
    }
    let new = kvmalloc(size, flags)?;
    // SAFETY: two pieces of at least `old_size` bytes; the caller gives the old one up.
    unsafe {
        new.copy_from_nonoverlapping(memory, old_size);
        kvfree(memory);
    }
    Ok(new)
}
