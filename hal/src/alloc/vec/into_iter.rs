//! A vector taken apart, element by element.

use super::Vec;
use crate::alloc::Allocator;
use core::fmt;
use core::ops::Range;
use core::ptr;

/// The elements of a vector, by value. Those not taken are dropped with it, in order.
///
/// # Invariants
///
/// The elements in `range` are valid, and it ends within the vector's capacity. The vector counts
/// none.
pub struct IntoIter<T, A: Allocator> {
    memory: Vec<T, A>,
    range: Range<usize>,
}

impl<T, A: Allocator> IntoIter<T, A> {
    /// The elements not taken yet.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: by the invariant they are valid, and the iterator's.
        unsafe {
            let start = self.memory.ptr.add(self.range.start);
            core::slice::from_raw_parts(start.as_ptr(), self.range.len())
        }
    }
}

impl<T, A: Allocator> Iterator for IntoIter<T, A> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        let index = self.range.next()?;
        // SAFETY: the element was valid, and has left the range.
        Some(unsafe { self.memory.ptr.add(index).read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

impl<T, A: Allocator> DoubleEndedIterator for IntoIter<T, A> {
    #[inline]
    fn next_back(&mut self) -> Option<T> {
        let index = self.range.next_back()?;
        // SAFETY: the element was valid, and has left the range.
        Some(unsafe { self.memory.ptr.add(index).read() })
    }
}

impl<T, A: Allocator> ExactSizeIterator for IntoIter<T, A> {}
impl<T, A: Allocator> core::iter::FusedIterator for IntoIter<T, A> {}

impl<T, A: Allocator> Drop for IntoIter<T, A> {
    fn drop(&mut self) {
        // SAFETY: the elements are valid, dropped once, and the vector drops none when it frees
        // the memory.
        unsafe {
            let start = self.memory.ptr.add(self.range.start).as_ptr();
            ptr::slice_from_raw_parts_mut(start, self.range.len()).drop_in_place();
        }
    }
}

impl<T, A: Allocator> IntoIterator for Vec<T, A> {
    type Item = T;
    type IntoIter = IntoIter<T, A>;

    #[inline]
    fn into_iter(mut self) -> IntoIter<T, A> {
        let range = 0..core::mem::take(&mut self.len);
        IntoIter {
            memory: self,
            range,
        }
    }
}

impl<'a, T, A: Allocator> IntoIterator for &'a Vec<T, A> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T, A: Allocator> IntoIterator for &'a mut Vec<T, A> {
    type Item = &'a mut T;
    type IntoIter = core::slice::IterMut<'a, T>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<T: fmt::Debug, A: Allocator> fmt::Debug for IntoIter<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IntoIter").field(&self.as_slice()).finish()
    }
}
