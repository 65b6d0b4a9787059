//! A vector: a growing array on the heap, owned.

mod elements;
mod into_iter;

pub use elements::{PushError, RemoveError};
pub use into_iter::IntoIter;

use super::{AllocError, Allocator, Box, Flags, KVmalloc, Kmalloc, Vmalloc};
use crate::mm::{DMA_ALIGN, size_add, size_mul};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

/// A growing array in memory from the allocator `A`.
///
/// What may allocate takes flags and returns a `Result`; after an error the vector is as it was.
/// Elements of size 0 take no memory. A type aligned to more than [`Allocator::MAX_ALIGN`] does
/// not compile.
///
/// # Invariants
///
/// - `capacity * size_of::<T>()` is at most `isize::MAX`. If it is 0, `ptr` is dangling, else `ptr`
///   is to memory that `A` gave for an array of `capacity` elements and nobody else uses. For
///   elements of size 0 `capacity` is 0.
/// - `len` is at most [`capacity()`](Self::capacity), and the first `len` elements are valid.
pub struct Vec<T, A: Allocator> {
    ptr: NonNull<T>,
    capacity: usize,
    len: usize,
    owns: PhantomData<(A, T)>,
}

/// A vector in physically contiguous memory, of up to 4 MiB.
///
/// ```no_run
/// use hal::alloc::{KVec, flags::GFP_KERNEL};
///
/// let mut words = KVec::new();
/// words.push(1u32, GFP_KERNEL)?;
/// words.extend_from_slice(&[2, 3], GFP_KERNEL)?;
/// assert_eq!(&words[..], [1, 2, 3]);
/// # Ok::<(), hal::alloc::AllocError>(())
/// ```
pub type KVec<T> = Vec<T, Kmalloc>;
/// A vector in the vmalloc window: for large ones. It may be dropped in any context.
pub type VVec<T> = Vec<T, Vmalloc>;
/// A vector wherever there is room.
pub type KVVec<T> = Vec<T, KVmalloc>;

// SAFETY: a vector owns its elements, and memory may be freed on any core.
unsafe impl<T: Send, A: Allocator> Send for Vec<T, A> {}
// SAFETY: a shared vector gives out shared references to its elements only.
unsafe impl<T: Sync, A: Allocator> Sync for Vec<T, A> {}

impl<T, A: Allocator> Vec<T, A> {
    /// Elements the first memory has room for: those of the smallest `kmalloc` object.
    const MIN_CAPACITY: usize = match size_of::<T>() {
        0 => 0,
        size if size < DMA_ALIGN => DMA_ALIGN / size,
        _ => 1,
    };

    /// A vector without elements, and without memory.
    #[inline]
    pub const fn new() -> Self {
        const {
            assert!(
                align_of::<T>() <= A::MAX_ALIGN,
                "the allocator's memory is not aligned like this type"
            );
        }
        // INVARIANT: no memory, no elements.
        Self {
            ptr: NonNull::dangling(),
            capacity: 0,
            len: 0,
            owns: PhantomData,
        }
    }

    /// A vector without elements, with room for `capacity`.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    pub fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut this = Self::new();
        if size_of::<T>() != 0 {
            this.set_capacity(capacity, flags)?;
        }
        Ok(this)
    }

    /// Elements there is room for; no limit for elements of size 0.
    #[inline(always)]
    pub const fn capacity(&self) -> usize {
        if size_of::<T>() == 0 {
            usize::MAX
        } else {
            self.capacity
        }
    }

    /// Makes room for `additional` more elements, and for as many again as there are, so that a
    /// growing vector copies each element a bounded number of times.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    #[inline]
    pub fn reserve(&mut self, additional: usize, flags: Flags) -> Result<(), AllocError> {
        if additional <= self.capacity() - self.len {
            return Ok(());
        }
        self.grow(additional, flags)
    }

    #[cold]
    fn grow(&mut self, additional: usize, flags: Flags) -> Result<(), AllocError> {
        let needed = size_add(self.len, additional);
        if size_of::<T>() == 0 {
            return Err(AllocError::CapacityOverflow {
                count: needed,
                size: 0,
            });
        }
        let capacity = size_mul(self.capacity, 2).max(Self::MIN_CAPACITY);
        self.set_capacity(capacity.max(needed), flags)
    }

    /// Gives memory back: keeps room for the elements there are and at least `capacity`.
    ///
    /// The memory shrinks only as far as the allocator lets it; `kmalloc` keeps objects whole.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    pub fn shrink_to(&mut self, capacity: usize, flags: Flags) -> Result<(), AllocError> {
        let capacity = capacity.max(self.len);
        if capacity < self.capacity {
            self.set_capacity(capacity, flags)?;
        }
        Ok(())
    }

    /// Moves the elements to memory for `capacity`, at least as many as there are. The elements do
    /// not have size 0.
    fn set_capacity(&mut self, capacity: usize, flags: Flags) -> Result<(), AllocError> {
        debug_assert!(capacity >= self.len && size_of::<T>() != 0);
        let layout = Layout::array::<T>(capacity).map_err(|_| AllocError::CapacityOverflow {
            count: capacity,
            size: size_of::<T>(),
        })?;
        // SAFETY: by the invariants the memory is `A`'s for the old layout or there is none, and
        // the alignment is the same. The pointer is replaced by the one returned.
        let memory = unsafe { A::realloc(Some(self.ptr.cast()), layout, self.layout(), flags) }?;
        // INVARIANT: memory for `capacity` elements, with those there were.
        self.ptr = memory.cast();
        self.capacity = capacity;
        Ok(())
    }

    /// The layout of the memory.
    #[inline(always)]
    fn layout(&self) -> Layout {
        // SAFETY: by the invariants the size is at most `isize::MAX`, and a multiple of the
        // alignment as all sizes of arrays are.
        unsafe {
            Layout::from_size_align_unchecked(self.capacity * size_of::<T>(), align_of::<T>())
        }
    }

    /// The elements as a box, in memory of just their size.
    ///
    /// # Errors
    ///
    /// [`AllocError`], with `flags` that do not suit; the elements are dropped.
    pub fn into_boxed_slice(mut self, flags: Flags) -> Result<Box<[T], A>, AllocError> {
        self.shrink_to(0, flags)?;
        let (start, len, _) = self.into_raw_parts();
        // SAFETY: `len` valid elements in `A`'s memory for as many, or no memory if the size of
        // all is 0.
        Ok(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(start, len)) })
    }

    /// The first element's address, the length and the capacity; whoever has them is the owner,
    /// until [`from_raw_parts`](Self::from_raw_parts).
    #[must_use = "the elements leak unless they are given to from_raw_parts"]
    pub fn into_raw_parts(self) -> (*mut T, usize, usize) {
        let this = ManuallyDrop::new(self);
        (this.ptr.as_ptr(), this.len, this.capacity())
    }

    /// The vector of `len` elements at `start`, with room for `capacity`.
    ///
    /// # Safety
    ///
    /// The values came from [`into_raw_parts`](Self::into_raw_parts) of a vector with the same
    /// allocator, and are used once. `len` may differ, as long as it is at most `capacity` and as
    /// many elements are valid.
    pub unsafe fn from_raw_parts(start: *mut T, len: usize, capacity: usize) -> Self {
        let mut this = Self::new();
        // INVARIANT: by the caller's promise.
        // SAFETY: the pointer of a vector is not null.
        this.ptr = unsafe { NonNull::new_unchecked(start) };
        this.capacity = if size_of::<T>() == 0 { 0 } else { capacity };
        this.len = len;
        this
    }

    /// The room behind the elements.
    pub fn spare_capacity_mut(&mut self) -> &mut [MaybeUninit<T>] {
        let spare = self.capacity() - self.len;
        // SAFETY: the memory has room for `capacity` elements, and those after `len` are the
        // vector's, of any content.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.add(self.len).cast().as_ptr(), spare) }
    }

    /// Counts the next `additional` elements in.
    ///
    /// # Safety
    ///
    /// They were written through [`spare_capacity_mut`](Self::spare_capacity_mut).
    #[inline(always)]
    pub unsafe fn inc_len(&mut self, additional: usize) {
        debug_assert!(additional <= self.capacity() - self.len);
        // INVARIANT: by the caller's promise.
        self.len += additional;
    }
}

impl<T, A: Allocator> Drop for Vec<T, A> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the elements are valid and dropped once; then nobody uses the memory, which is
        // `A`'s for that layout or none.
        unsafe {
            ptr::from_mut(self.as_mut_slice()).drop_in_place();
            A::free(self.ptr.cast(), self.layout());
        }
    }
}

impl<T, A: Allocator> Default for Vec<T, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, A: Allocator> Deref for Vec<T, A> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T, A: Allocator> DerefMut for Vec<T, A> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        self.as_mut_slice()
    }
}

impl<T: fmt::Debug, A: Allocator> fmt::Debug for Vec<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

#[cfg(test)]
mod tests;
