//! What a vector does with its elements.

use super::Vec;
use crate::alloc::{AllocError, Allocator, Flags};
use core::fmt;
use core::ptr;

/// The vector has no room; the value comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushError<T>(pub T);

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the vector has no room")
    }
}

impl<T: fmt::Debug> core::error::Error for PushError<T> {}

/// There is no such element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("element {index} of {len}")]
pub struct RemoveError {
    /// The element asked for.
    pub index: usize,
    /// Elements there are.
    pub len: usize,
}

impl<T, A: Allocator> Vec<T, A> {
    /// All elements.
    #[inline(always)]
    pub const fn as_slice(&self) -> &[T] {
        // SAFETY: the first `len` elements are valid and the vector's, which is borrowed; with
        // none of them, or of size 0, the pointer is aligned and not null.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// All elements, to be changed.
    #[inline(always)]
    pub const fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as for `as_slice`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }

    /// Appends `value`.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; `value` is dropped.
    #[inline]
    pub fn push(&mut self, value: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(1, flags)?;
        // SAFETY: there is room for one more.
        unsafe { self.push_unchecked(value) };
        Ok(())
    }

    /// Appends `value` if there is room. Allocates nothing, so it suits any context.
    ///
    /// # Errors
    ///
    /// [`PushError`], with `value`.
    #[inline]
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), PushError<T>> {
        if self.len == self.capacity() {
            return Err(PushError(value));
        }
        // SAFETY: there is room, as just checked.
        unsafe { self.push_unchecked(value) };
        Ok(())
    }

    /// # Safety
    ///
    /// `len` is less than the capacity.
    #[inline(always)]
    unsafe fn push_unchecked(&mut self, value: T) {
        // SAFETY: the element after the last is the vector's memory.
        unsafe {
            self.ptr.add(self.len).write(value);
            self.inc_len(1);
        }
    }

    /// Takes the last element out.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the element was valid, and is no longer counted.
        Some(unsafe { self.ptr.add(self.len).read() })
    }

    /// Takes the element at `index` out and moves those behind it up.
    ///
    /// # Errors
    ///
    /// [`RemoveError`].
    pub fn remove(&mut self, index: usize) -> Result<T, RemoveError> {
        let len = self.len;
        if index >= len {
            return Err(RemoveError { index, len });
        }
        // SAFETY: the element is valid. Those behind it take its place, and one less is counted.
        unsafe {
            let hole = self.ptr.add(index);
            let value = hole.read();
            hole.copy_from(hole.add(1), len - index - 1);
            self.len = len - 1;
            Ok(value)
        }
    }

    /// Drops the elements from `len` on, first to last; the memory stays.
    pub fn truncate(&mut self, len: usize) {
        if let Some(rest) = self.as_mut_slice().get_mut(len..) {
            let rest = ptr::from_mut(rest);
            // INVARIANT: the first `len` elements stay valid.
            self.len = len;
            // SAFETY: the elements were valid and are no longer counted.
            unsafe { rest.drop_in_place() };
        }
    }

    /// Drops all elements; the memory stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Keeps the elements of which `keep` says so, in their order, and drops the others.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let mut kept = 0;
        for index in 0..self.len {
            if keep(&mut self.as_mut_slice()[index]) {
                self.as_mut_slice().swap(kept, index);
                kept += 1;
            }
        }
        self.truncate(kept);
    }
}

impl<T: Clone, A: Allocator> Vec<T, A> {
    /// A vector of `count` times `value`.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    pub fn from_elem(value: T, count: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut this = Self::with_capacity(count, flags)?;
        this.extend_with(count, value, flags)?;
        Ok(this)
    }

    /// Appends `count` times `value`.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; nothing is appended.
    pub fn extend_with(&mut self, count: usize, value: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(count, flags)?;
        let Some(copies) = count.checked_sub(1) else {
            return Ok(());
        };
        for _ in 0..copies {
            // SAFETY: there is room for `count`.
            unsafe { self.push_unchecked(value.clone()) };
        }
        // SAFETY: as above.
        unsafe { self.push_unchecked(value) };
        Ok(())
    }

    /// Appends copies of `other`'s elements.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; nothing is appended.
    pub fn extend_from_slice(&mut self, other: &[T], flags: Flags) -> Result<(), AllocError> {
        self.reserve(other.len(), flags)?;
        for value in other {
            // SAFETY: there is room for as many as `other` has.
            unsafe { self.push_unchecked(value.clone()) };
        }
        Ok(())
    }

    /// Drops elements or appends copies of `value` until there are `len`.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; nothing has changed.
    pub fn resize(&mut self, len: usize, value: T, flags: Flags) -> Result<(), AllocError> {
        match len.checked_sub(self.len) {
            Some(more) => self.extend_with(more, value, flags)?,
            None => self.truncate(len),
        }
        Ok(())
    }
}
