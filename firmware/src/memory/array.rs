//! Arrays too large for a stack.

use super::Area;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use hal::addr::PAGE_SIZE;
use hal::mm::VmallocError;

/// An array in vmalloc memory.
#[derive(Debug)]
pub(crate) struct Array<T> {
    area: Area,
    len: usize,
    items: PhantomData<T>,
}

impl<T: Default> Array<T> {
    /// `len` default values.
    pub(crate) fn new(len: usize) -> Result<Self, VmallocError> {
        const { assert!(align_of::<T>() <= PAGE_SIZE) };
        let area = Area::alloc(len.saturating_mul(size_of::<T>()))?;
        for index in 0..len {
            // SAFETY: the area holds `len` values and starts on a page.
            unsafe { area.va().as_ptr::<T>().add(index).write(T::default()) };
        }
        Ok(Self {
            area,
            len,
            items: PhantomData,
        })
    }
}

impl<T> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` wrote the `len` values, which belong to `self`.
        unsafe { core::slice::from_raw_parts(self.area.va().as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Array<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.area.va().as_ptr(), self.len) }
    }
}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        // SAFETY: the values are dropped once, here; the area goes after them.
        unsafe { core::ptr::drop_in_place(&raw mut **self) };
    }
}
