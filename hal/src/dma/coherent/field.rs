//! Fields of plain data, by offset.

use core::marker::PhantomData;

/// A field of type `F` of a `T`. Made by [`field!`](crate::dma_field).
///
/// Names bytes that lie in a `T` and are aligned for an `F`. Of plain data, where every byte may
/// hold any value, no more is needed to read and write them.
pub struct Field<T, F> {
    offset: usize,
    types: PhantomData<fn(T) -> F>,
}

impl<T, F> Clone for Field<T, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, F> Copy for Field<T, F> {}

impl<T, F> core::fmt::Debug for Field<T, F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "field at {:#x}", self.offset)
    }
}

impl<T, F> Field<T, F> {
    /// The field at `offset`, whose type `access` tells.
    ///
    /// # Panics
    ///
    /// If it leaves the `T` or is not aligned. In a constant that is a compile error.
    pub const fn new(offset: usize, _access: fn(&T) -> &F) -> Self {
        assert!(offset.checked_add(size_of::<F>()).is_some());
        assert!(offset + size_of::<F>() <= size_of::<T>());
        assert!(offset.is_multiple_of(align_of::<F>()) && align_of::<T>() >= align_of::<F>());
        Self {
            offset,
            types: PhantomData,
        }
    }

    /// Where it starts, in bytes.
    pub const fn offset(self) -> usize {
        self.offset
    }
}

/// The [`Field`] of a type by its name, checked when compiled.
///
/// ```
/// # use hal::dma::coherent::Field;
/// #[repr(C)]
/// struct Descriptor {
///     addr: u64,
///     status: u32,
/// }
/// const STATUS: Field<Descriptor, u32> = hal::dma_field!(Descriptor, status);
/// assert_eq!(STATUS.offset(), 8);
/// ```
#[macro_export]
macro_rules! dma_field {
    ($type:ty, $field:ident) => {
        const {
            $crate::dma::coherent::Field::<$type, _>::new(
                ::core::mem::offset_of!($type, $field),
                |object| &object.$field,
            )
        }
    };
}
