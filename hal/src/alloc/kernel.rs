//! The machine's allocators as types.

use super::{AllocError, Allocator, Flags};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::{self, VmallocError};
use core::alloc::Layout;
use core::ptr::NonNull;

/// Physically contiguous memory of up to 4 MiB, in whole cache lines: [`mm::kmalloc`].
#[derive(Debug)]
pub struct Kmalloc;

/// Whole pages, contiguous in virtual addresses only: [`mm::vmalloc()`]. Its flags should be
/// [`Flags::KERNEL`] with or without zone and zero bits; in an interrupt handler and under a lock
/// every allocation is refused.
#[derive(Debug)]
pub struct Vmalloc;

/// [`Kmalloc`]'s memory where it can be had, else [`Vmalloc`]'s. Linux: `kvmalloc`. Flags that may
/// not block never fall back.
#[derive(Debug)]
pub struct KVmalloc;

/// What a call of [`Allocator::realloc`] comes to.
enum Request {
    Nothing,
    Alloc,
    Resize(NonNull<u8>),
    Free(NonNull<u8>),
}

impl Request {
    #[inline(always)]
    fn new(ptr: Option<NonNull<u8>>, layout: Layout, old_layout: Layout) -> Self {
        match (ptr.filter(|_| old_layout.size() != 0), layout.size()) {
            (None, 0) => Self::Nothing,
            (None, _) => Self::Alloc,
            (Some(old), 0) => Self::Free(old),
            (Some(old), _) => Self::Resize(old),
        }
    }
}

/// The size to ask `kmalloc` for to get memory for `layout`: a multiple of its alignment, because
/// objects are aligned to the largest power of two that divides their size, up to a page.
#[inline(always)]
fn kmalloc_size(layout: Layout) -> Result<usize, AllocError> {
    check_alignment(layout)?;
    Ok(layout.pad_to_align().size())
}

#[inline(always)]
fn check_alignment(layout: Layout) -> Result<(), AllocError> {
    if layout.align() > PAGE_SIZE {
        return Err(AllocError::Alignment {
            align: layout.align(),
            most: PAGE_SIZE,
        });
    }
    Ok(())
}

// SAFETY: an object is the caller's until it is freed, has the bytes asked for and is aligned as
// `kmalloc_size` says; `krealloc` keeps all its content.
unsafe impl Allocator for Kmalloc {
    const MAX_ALIGN: usize = PAGE_SIZE;

    #[inline(always)]
    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
    ) -> Result<NonNull<u8>, AllocError> {
        match Request::new(ptr, layout, old_layout) {
            Request::Nothing => Ok(layout.dangling_ptr()),
            Request::Alloc => Ok(mm::kmalloc(kmalloc_size(layout)?, flags)?),
            Request::Resize(old) => {
                let size = kmalloc_size(layout)?;
                // SAFETY: the caller's object, from `kmalloc`.
                Ok(unsafe { mm::krealloc(old.as_ptr(), size, flags) }?)
            }
            Request::Free(old) => {
                // SAFETY: as above, and the caller gives it up.
                let freed = unsafe { mm::kfree(old.as_ptr()) };
                debug_assert_eq!(freed, Ok(()));
                Ok(layout.dangling_ptr())
            }
        }
    }
}

/// An area's address as a pointer; none is null.
fn pointer(area: VirtAddr) -> Result<NonNull<u8>, AllocError> {
    Ok(NonNull::new(area.as_ptr()).ok_or(VmallocError::NotAnArea(area))?)
}

// SAFETY: an area is the caller's until it is freed, has the bytes asked for and begins on a page.
unsafe impl Allocator for Vmalloc {
    const MAX_ALIGN: usize = PAGE_SIZE;

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
    ) -> Result<NonNull<u8>, AllocError> {
        check_alignment(layout)?;
        match Request::new(ptr, layout, old_layout) {
            Request::Nothing => Ok(layout.dangling_ptr()),
            Request::Alloc => pointer(mm::vmalloc_with(layout.size(), flags)?),
            Request::Resize(old) => {
                let old = VirtAddr::from_ptr(old.as_ptr());
                // SAFETY: the caller's area.
                let area = unsafe { mm::vrealloc(Some(old), layout.size(), flags) }?;
                pointer(area.ok_or(VmallocError::ZeroSize)?)
            }
            Request::Free(old) => {
                // SAFETY: as above, and the caller gives it up.
                let freed = unsafe { mm::vfree(VirtAddr::from_ptr(old.as_ptr())) };
                debug_assert_eq!(freed, Ok(()));
                Ok(layout.dangling_ptr())
            }
        }
    }
}

// SAFETY: as for the two it chooses from.
unsafe impl Allocator for KVmalloc {
    const MAX_ALIGN: usize = PAGE_SIZE;

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
    ) -> Result<NonNull<u8>, AllocError> {
        let size = kmalloc_size(layout)?;
        match Request::new(ptr, layout, old_layout) {
            Request::Nothing => Ok(layout.dangling_ptr()),
            Request::Alloc => Ok(mm::kvmalloc(size, flags)?),
            // SAFETY: the caller's memory.
            Request::Resize(old) => Ok(unsafe { mm::kvrealloc(old.as_ptr(), size, flags) }?),
            Request::Free(old) => {
                // SAFETY: as above, and the caller gives it up.
                let freed = unsafe { mm::kvfree(old.as_ptr()) };
                debug_assert_eq!(freed, Ok(()));
                Ok(layout.dangling_ptr())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{CLASSES, MAX_CLASS_SIZE, class_align, class_of};

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic only")]
    fn every_padded_layout_is_aligned_by_its_class() {
        let mut seen = [false; CLASSES];
        for align in (0..=PAGE_SIZE.ilog2()).map(|shift| 1 << shift) {
            for size in 1..=MAX_CLASS_SIZE {
                let layout = Layout::from_size_align(size, align).unwrap();
                let padded = kmalloc_size(layout).unwrap();
                assert!(padded >= size);
                if padded <= MAX_CLASS_SIZE {
                    let class = class_of(padded);
                    assert!(class_align(class) >= align, "{size} aligned to {align}");
                    seen[class] = true;
                }
            }
        }
        assert_eq!(seen, [true; CLASSES]);
    }

    #[test]
    fn alignment_above_a_page_is_refused_by_name() {
        let layout = Layout::from_size_align(64, 2 * PAGE_SIZE).unwrap();
        let refused = Err(AllocError::Alignment {
            align: 2 * PAGE_SIZE,
            most: PAGE_SIZE,
        });
        assert_eq!(Kmalloc::alloc(layout, Flags::KERNEL), refused);
        assert_eq!(Vmalloc::alloc(layout, Flags::KERNEL), refused);
        assert_eq!(KVmalloc::alloc(layout, Flags::KERNEL), refused);
    }

    #[test]
    fn nothing_is_allocated_for_no_bytes() {
        let layout = Layout::from_size_align(0, 4096).unwrap();
        let none = Kmalloc::alloc(layout, Flags::KERNEL).unwrap();
        assert_eq!(none, layout.dangling_ptr());
        // SAFETY: it stands for no memory.
        unsafe { Kmalloc::free(none, layout) };
        assert_eq!(Vmalloc::alloc(layout, Flags::KERNEL), Ok(none));
        assert_eq!(KVmalloc::alloc(layout, Flags::KERNEL), Ok(none));
    }
}
