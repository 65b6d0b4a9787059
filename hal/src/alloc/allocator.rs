//! What a container asks of the memory below it.

use super::{AllocError, Flags};
use core::alloc::Layout;
use core::ptr::NonNull;

/// A source of memory, named by a type and not by a value: [`realloc`](Self::realloc) is all of
/// it, the rest follows.
///
/// A layout of size 0 stands for no memory: its pointer is [`Layout::dangling_ptr`], and nothing
/// is allocated or freed.
///
/// # Safety
///
/// What [`realloc`](Self::realloc) promises holds. Memory stays valid until it is passed back to
/// the same type, on whichever core.
pub unsafe trait Allocator: 'static {
    /// The largest alignment the memory can have, in bytes. Containers of more strictly aligned
    /// types do not compile.
    const MAX_ALIGN: usize;

    /// Allocates memory for `layout`.
    ///
    /// The content is unspecified unless `flags` has [`Flags::ZERO`].
    ///
    /// # Errors
    ///
    /// As [`realloc`](Self::realloc).
    #[inline(always)]
    fn alloc(layout: Layout, flags: Flags) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: there is no memory to be resized.
        unsafe { Self::realloc(None, layout, Layout::new::<()>(), flags) }
    }

    /// Makes memory for `layout` of the memory at `ptr`, which has `old_layout`: grows, shrinks,
    /// allocates (`ptr` is `None`) or frees (`layout` has size 0), and says where it is.
    ///
    /// The memory has at least `layout.size()` bytes aligned to `layout.align()`, that nobody else
    /// uses. The content is kept up to the smaller of the two sizes; with [`Flags::ZERO`] on every
    /// call for the memory, what is beyond `old_layout.size()` is zero. Freeing does not fail.
    ///
    /// # Errors
    ///
    /// [`AllocError`]: there is no memory that `flags` admit, or `layout` is aligned to more than
    /// [`MAX_ALIGN`](Self::MAX_ALIGN). The old memory is as it was, and the caller's.
    ///
    /// # Safety
    ///
    /// If `ptr` is `Some`, it came from this allocator, where it was asked for with `old_layout`,
    /// and the caller no longer uses it unless it is returned. `layout` has the alignment of
    /// `old_layout`, or `ptr` is `None`, or `layout` has size 0.
    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
    ) -> Result<NonNull<u8>, AllocError>;

    /// Frees the memory at `ptr`, which has `layout`. Any context, any core.
    ///
    /// # Safety
    ///
    /// `ptr` came from this allocator, where it was asked for with `layout`, and nobody uses it.
    #[inline(always)]
    unsafe fn free(ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: handed on to the caller.
        let freed =
            unsafe { Self::realloc(Some(ptr), Layout::new::<()>(), layout, Flags::empty()) };
        debug_assert!(freed.is_ok(), "{freed:?}");
    }
}
