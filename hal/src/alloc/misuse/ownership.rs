//! Who frees, and only once.

/// A box that was given away is used.
///
/// ```compile_fail,E0382
/// use hal::alloc::KBox;
///
/// fn consume(_: KBox<u32>) {}
///
/// fn both(boxed: KBox<u32>) -> u32 {
///     consume(boxed);
///     *boxed
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KBox;
///
/// fn consume(_: KBox<u32>) {}
///
/// fn both(boxed: KBox<u32>) -> u32 {
///     let value = *boxed;
///     consume(boxed);
///     value
/// }
/// ```
mod use_after_move {}

/// A reference outlives the box it points into.
///
/// ```compile_fail,E0505
/// use hal::alloc::KBox;
///
/// fn dangle(boxed: KBox<u32>) -> u32 {
///     let value = &*boxed;
///     drop(boxed);
///     *value
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KBox;
///
/// fn dangle(boxed: KBox<u32>) -> u32 {
///     let value = &*boxed;
///     let copy = *value;
///     drop(boxed);
///     copy
/// }
/// ```
mod use_after_free {}

/// A box is dropped twice.
///
/// ```compile_fail,E0382
/// use hal::alloc::KBox;
///
/// fn twice(boxed: KBox<u32>) {
///     drop(boxed);
///     drop(boxed);
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KBox;
///
/// fn once(boxed: KBox<u32>) {
///     drop(boxed);
/// }
/// ```
mod double_free {}

/// A box is used after its pointer was taken from it.
///
/// ```compile_fail,E0382
/// use hal::alloc::KBox;
///
/// fn both(boxed: KBox<u32>) -> (*mut u32, KBox<u32>) {
///     (KBox::into_raw(boxed), boxed)
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KBox;
///
/// fn one(boxed: KBox<u32>) -> *mut u32 {
///     KBox::into_raw(boxed)
/// }
/// ```
mod raw_and_box {}

/// A box is treated as `Copy`.
///
/// ```compile_fail,E0204
/// use hal::alloc::KBox;
///
/// #[derive(Clone, Copy)]
/// struct Handle(KBox<u32>);
/// ```
///
/// ```no_run
/// use hal::alloc::KBox;
///
/// struct Handle(KBox<u32>);
/// ```
mod copy {}

/// A box is copied without flags and without an error to look at.
///
/// ```compile_fail,E0308
/// use hal::alloc::KBox;
///
/// fn copy(boxed: &KBox<u32>) -> KBox<u32> {
///     boxed.clone()
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
///
/// fn copy(boxed: &KBox<u32>) -> Result<KBox<u32>, AllocError> {
///     KBox::new(**boxed, GFP_KERNEL)
/// }
/// ```
mod clone {}

/// An element is moved out and left in the vector.
///
/// ```compile_fail,E0508
/// use hal::alloc::KVec;
/// use hal::alloc::KBox;
///
/// fn take(vec: &mut KVec<KBox<u32>>) -> KBox<u32> {
///     vec[0]
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{KBox, KVec, RemoveError};
///
/// fn take(vec: &mut KVec<KBox<u32>>) -> Result<KBox<u32>, RemoveError> {
///     vec.remove(0)
/// }
/// ```
mod element_moved_out {}

/// A pinned value that must not move is moved out.
///
/// ```compile_fail,E0596
/// use core::marker::PhantomPinned;
/// use core::pin::Pin;
/// use hal::alloc::KBox;
///
/// fn replace(mut pinned: Pin<KBox<PhantomPinned>>) -> PhantomPinned {
///     core::mem::replace(&mut *pinned, PhantomPinned)
/// }
/// ```
///
/// ```no_run
/// use core::pin::Pin;
/// use hal::alloc::KBox;
///
/// fn replace(mut pinned: Pin<KBox<u32>>) -> u32 {
///     core::mem::replace(&mut *pinned, 5)
/// }
/// ```
mod pinned_value_moved {}
