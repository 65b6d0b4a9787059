//! A box: one value on the heap, owned.

use super::{AllocError, Allocator, Flags, KVmalloc, Kmalloc, Vmalloc};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::NonNull;

/// An owned value in memory from the allocator `A`; dropping it drops the value and frees the
/// memory.
///
/// A value of size 0 takes no memory. A type aligned to more than [`Allocator::MAX_ALIGN`] does
/// not compile.
///
/// # Invariants
///
/// The pointer is to a valid `T`, in memory that `A` gave for the layout of that `T` and that
/// nobody else uses.
#[repr(transparent)]
pub struct Box<T: ?Sized, A: Allocator> {
    ptr: NonNull<T>,
    owns: PhantomData<(A, T)>,
}

/// A box in physically contiguous memory.
///
/// ```no_run
/// use hal::alloc::{KBox, flags::GFP_KERNEL};
///
/// let mut count = KBox::new(1u64, GFP_KERNEL)?;
/// *count += 1;
/// assert_eq!(*count, 2);
/// # Ok::<(), hal::alloc::AllocError>(())
/// ```
pub type KBox<T> = Box<T, Kmalloc>;
/// A box in the vmalloc window: for one large value. It may be dropped in any context.
pub type VBox<T> = Box<T, Vmalloc>;
/// A box wherever there is room.
pub type KVBox<T> = Box<T, KVmalloc>;

// SAFETY: a box owns its value, and memory may be freed on any core.
unsafe impl<T: ?Sized + Send, A: Allocator> Send for Box<T, A> {}
// SAFETY: a shared box gives out shared references to its value only.
unsafe impl<T: ?Sized + Sync, A: Allocator> Sync for Box<T, A> {}

impl<T, A: Allocator> Box<T, A> {
    /// Moves `value` to new memory. May be called where `flags` allow it.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; `value` is dropped.
    #[inline(always)]
    pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self::new_uninit(flags)?.write(value))
    }

    /// New memory for a value, which does not go over the stack. With [`Flags::ZERO`] all its
    /// bytes are zero.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    #[inline(always)]
    pub fn new_uninit(flags: Flags) -> Result<Box<MaybeUninit<T>, A>, AllocError> {
        const {
            assert!(
                align_of::<T>() <= A::MAX_ALIGN,
                "the allocator's memory is not aligned like this type"
            );
        }
        let ptr = A::alloc(Layout::new::<T>(), flags)?.cast();
        // INVARIANT: new memory for the layout of `T`; any bytes are a valid `MaybeUninit`.
        Ok(Box {
            ptr,
            owns: PhantomData,
        })
    }

    /// As [`new`](Self::new), of a value that never moves again.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    #[inline(always)]
    pub fn pin(value: T, flags: Flags) -> Result<Pin<Self>, AllocError> {
        Ok(Self::into_pin(Self::new(value, flags)?))
    }

    /// A value that is made where it stays: `init` gets the memory, and its error frees it.
    ///
    /// # Errors
    ///
    /// That of `init`, or [`AllocError`].
    ///
    /// # Safety
    ///
    /// When `init` returns `Ok`, a valid `T` is where its argument points; when it returns `Err`,
    /// nothing there needs to be dropped. It keeps the pointer only as long as a pinned `T` allows.
    pub unsafe fn try_pin_init<E: From<AllocError>>(
        init: impl FnOnce(NonNull<T>) -> Result<(), E>,
        flags: Flags,
    ) -> Result<Pin<Self>, E> {
        let memory = Self::new_uninit(flags)?;
        init(memory.ptr.cast())?;
        // SAFETY: `init` has made the value.
        Ok(Self::into_pin(unsafe { memory.assume_init() }))
    }

    /// Moves the value out and frees the memory.
    #[inline]
    pub fn into_inner(this: Self) -> T {
        let memory = Self::forget_contents(this);
        // SAFETY: the memory holds the value, and is freed without dropping it.
        unsafe { memory.assume_init_read() }
    }

    /// Drops the value and keeps the memory, for [`Box::write`].
    #[inline]
    pub fn drop_contents(this: Self) -> Box<MaybeUninit<T>, A> {
        // On a panic of the destructor the memory leaks.
        let this = ManuallyDrop::new(this);
        // SAFETY: the value is valid, and nobody uses it afterwards.
        unsafe { this.ptr.drop_in_place() };
        // INVARIANT: the same memory; any bytes are a valid `MaybeUninit`.
        Box {
            ptr: this.ptr.cast(),
            owns: PhantomData,
        }
    }

    /// The memory, with the value in it left to whoever has a copy.
    fn forget_contents(this: Self) -> Box<MaybeUninit<T>, A> {
        // INVARIANT: the same memory; any bytes are a valid `MaybeUninit`.
        Box {
            ptr: ManuallyDrop::new(this).ptr.cast(),
            owns: PhantomData,
        }
    }
}

impl<T, A: Allocator> Box<MaybeUninit<T>, A> {
    /// Moves `value` in.
    #[inline(always)]
    pub fn write(mut self, value: T) -> Box<T, A> {
        (*self).write(value);
        // SAFETY: just written.
        unsafe { self.assume_init() }
    }

    /// The box of the value, which has been written.
    ///
    /// # Safety
    ///
    /// The memory holds a valid `T`.
    #[inline(always)]
    pub unsafe fn assume_init(self) -> Box<T, A> {
        // INVARIANT: the memory is for the layout of `T`, and by the caller's promise holds one.
        Box {
            ptr: ManuallyDrop::new(self).ptr.cast(),
            owns: PhantomData,
        }
    }
}

impl<T: ?Sized, A: Allocator> Box<T, A> {
    /// The value's address; whoever has it is the owner, until [`from_raw`](Self::from_raw).
    #[must_use = "the value leaks unless it is given to from_raw"]
    #[inline]
    pub fn into_raw(this: Self) -> *mut T {
        ManuallyDrop::new(this).ptr.as_ptr()
    }

    /// The box of the value at `raw`.
    ///
    /// # Safety
    ///
    /// `raw` came from [`into_raw`](Self::into_raw) of a box with the same allocator (it may have
    /// been cast to a trait object or a type of the same layout in between), a valid `T` is there,
    /// and nobody else uses it.
    #[inline]
    pub unsafe fn from_raw(raw: *mut T) -> Self {
        // INVARIANT: by the caller's promise.
        Self {
            // SAFETY: the pointer of a box is not null.
            ptr: unsafe { NonNull::new_unchecked(raw) },
            owns: PhantomData,
        }
    }

    /// The value, never to be dropped or freed.
    #[inline]
    pub fn leak<'a>(this: Self) -> &'a mut T
    where
        T: 'a,
    {
        // SAFETY: the value is valid and nobody else's, and nobody will free it.
        unsafe { &mut *Self::into_raw(this) }
    }

    /// The box of a value that never moves again.
    #[inline]
    pub fn into_pin(this: Self) -> Pin<Self> {
        // SAFETY: the value moves out of a box only by way of a box that is not pinned, and its
        // memory is freed only after it was dropped.
        unsafe { Pin::new_unchecked(this) }
    }
}

impl<T: ?Sized, A: Allocator> Drop for Box<T, A> {
    #[inline(always)]
    fn drop(&mut self) {
        let layout = Layout::for_value::<T>(self);
        // SAFETY: the value is valid and dropped once; then nobody uses its memory, which `A` gave
        // for that layout.
        unsafe {
            self.ptr.drop_in_place();
            A::free(self.ptr.cast(), layout);
        }
    }
}

impl<T: ?Sized, A: Allocator> Deref for Box<T, A> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the value is valid and the box's, which is borrowed.
        unsafe { self.ptr.as_ref() }
    }
}

impl<T: ?Sized, A: Allocator> DerefMut for Box<T, A> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { self.ptr.as_mut() }
    }
}

impl<T: ?Sized, A: Allocator> From<Box<T, A>> for Pin<Box<T, A>> {
    fn from(this: Box<T, A>) -> Self {
        Box::into_pin(this)
    }
}

impl<T: ?Sized + fmt::Debug, A: Allocator> fmt::Debug for Box<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display, A: Allocator> fmt::Display for Box<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests;
