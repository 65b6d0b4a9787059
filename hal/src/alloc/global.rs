//! The machine's memory as Rust's global allocator.

use super::Flags;
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::{self, is_vmalloc_addr};
use crate::sync::{Context, PerCpu};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// Serves the collections of Rust's `alloc` crate as `kvmalloc` does: with [`Flags::KERNEL`] in a
/// task, with [`Flags::ATOMIC`] (and then never from the vmalloc window) in any other context.
///
/// Freeing suits any context and any core. Alignment above a page is served by blocks of pages, up
/// to 4 MiB. Without memory the collections call `handle_alloc_error`, which panics, unless they
/// are asked with `try_reserve`; code that must not panic uses [`KBox`](super::KBox) and
/// [`KVec`](super::KVec).
///
/// A binary names it once:
///
/// ```no_run
/// use hal::alloc::GlobalKernelAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: GlobalKernelAllocator = GlobalKernelAllocator;
/// ```
#[derive(Debug)]
pub struct GlobalKernelAllocator;

/// What the executing core may do for memory.
fn flags_here() -> Flags {
    match PerCpu::current().context() {
        Context::Task => Flags::KERNEL,
        _ => Flags::ATOMIC,
    }
}

fn alloc(layout: Layout, flags: Flags) -> *mut u8 {
    let memory = if layout.align() <= PAGE_SIZE {
        mm::kvmalloc(layout.pad_to_align().size(), flags).ok()
    } else {
        // Of a power of two bytes: aligned to as many.
        let size = layout
            .size()
            .max(layout.align())
            .checked_next_power_of_two();
        size.and_then(|size| mm::kmalloc(size, flags).ok())
    };
    memory.map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// Bytes that may be used at `memory`, which has `layout`.
fn usable(memory: *mut u8, layout: Layout) -> usize {
    if is_vmalloc_addr(VirtAddr::from_ptr(memory)) {
        layout.size().next_multiple_of(PAGE_SIZE)
    } else {
        mm::ksize(memory).unwrap_or(layout.size())
    }
}

// SAFETY: memory is the caller's until it is freed, has the bytes asked for and the alignment: up
// to a page by the padding (see `Kmalloc`) or the area, above by the size. Nothing here unwinds.
unsafe impl GlobalAlloc for GlobalKernelAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        alloc(layout, flags_here())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        alloc(layout, flags_here() | Flags::ZERO)
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: the caller gives up what `alloc` or `realloc` returned.
        let freed = unsafe { mm::kvfree(memory) };
        debug_assert_eq!(freed, Ok(()));
    }

    /// In place as far as the memory reaches, like `krealloc`; it never shrinks.
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if new_size <= usable(memory, layout) {
            return memory;
        }
        // SAFETY: the caller's promise: not 0, and no overflow when rounded up.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let new = alloc(new_layout, flags_here());
        if !new.is_null() {
            // SAFETY: two pieces of memory of at least the old size; the old one is given up.
            unsafe {
                new.copy_from_nonoverlapping(memory, layout.size());
                self.dealloc(memory, layout);
            }
        }
        new
    }
}
