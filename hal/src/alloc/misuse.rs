//! What the types of this module forbid: each misuse does not compile, beside a twin without the
//! misuse that does, so that the former fails for its own reason.

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

/// A box is made without flags.
///
/// ```compile_fail,E0061
/// use hal::alloc::{AllocError, KBox};
///
/// fn make() -> Result<KBox<u32>, AllocError> {
///     KBox::new(1)
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
///
/// fn make() -> Result<KBox<u32>, AllocError> {
///     KBox::new(1, GFP_KERNEL)
/// }
/// ```
mod no_flags {}

/// A vector grows without flags.
///
/// ```compile_fail,E0061
/// use hal::alloc::{AllocError, KVec};
///
/// fn grow(vec: &mut KVec<u32>) -> Result<(), AllocError> {
///     vec.push(1)
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KVec, flags::GFP_ATOMIC};
///
/// fn grow(vec: &mut KVec<u32>) -> Result<(), AllocError> {
///     vec.push(1, GFP_ATOMIC)
/// }
/// ```
mod push_without_flags {}

/// A number serves as flags.
///
/// ```compile_fail,E0308
/// use hal::alloc::{AllocError, KBox};
///
/// fn make() -> Result<KBox<u32>, AllocError> {
///     KBox::new(1, 0xcc0)
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, Flags, KBox};
///
/// fn make() -> Result<KBox<u32>, AllocError> {
///     KBox::new(1, Flags::from_bits_retain(0xcc0))
/// }
/// ```
mod flags_are_no_number {}

/// An allocation counts as made before anybody looked.
///
/// ```compile_fail,E0614
/// use hal::alloc::{KBox, flags::GFP_KERNEL};
///
/// fn make() -> u32 {
///     let boxed = KBox::new(1u32, GFP_KERNEL);
///     *boxed
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
///
/// fn make() -> Result<u32, AllocError> {
///     let boxed = KBox::new(1u32, GFP_KERNEL)?;
///     Ok(*boxed)
/// }
/// ```
mod unchecked_allocation {}

/// A refused push goes unnoticed, where the lint that notices is an error.
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// use hal::alloc::{KVec, flags::GFP_KERNEL};
///
/// fn grow(vec: &mut KVec<u32>) {
///     vec.push(1, GFP_KERNEL);
/// }
/// ```
///
/// ```no_run
/// #![deny(unused_must_use)]
/// use hal::alloc::{AllocError, KVec, flags::GFP_KERNEL};
///
/// fn grow(vec: &mut KVec<u32>) -> Result<(), AllocError> {
///     vec.push(1, GFP_KERNEL)
/// }
/// ```
mod ignored_failure {}

/// Memory of one allocator is given to another.
///
/// ```compile_fail,E0308
/// use hal::alloc::{KBox, VBox};
///
/// fn adopt(boxed: VBox<u32>) -> KBox<u32> {
///     boxed
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KBox, VBox, flags::GFP_KERNEL};
///
/// fn adopt(boxed: VBox<u32>) -> Result<KBox<u32>, AllocError> {
///     KBox::new(VBox::into_inner(boxed), GFP_KERNEL)
/// }
/// ```
mod mixed_allocators {}

/// A vmalloc vector is passed where physically contiguous memory is asked for.
///
/// ```compile_fail,E0308
/// use hal::alloc::{KVec, VVec};
///
/// fn send(_contiguous: &KVec<u8>) {}
///
/// fn both(vec: &VVec<u8>) {
///     send(vec);
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KVec;
///
/// fn send(_contiguous: &KVec<u8>) {}
///
/// fn both(vec: &KVec<u8>) {
///     send(vec);
/// }
/// ```
mod mixed_vectors {}

/// Any pointer becomes a box.
///
/// ```compile_fail,E0133
/// use hal::alloc::KBox;
///
/// fn adopt(raw: *mut u32) -> KBox<u32> {
///     KBox::from_raw(raw)
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KBox;
///
/// /// # Safety
/// ///
/// /// As for `KBox::from_raw`.
/// unsafe fn adopt(raw: *mut u32) -> KBox<u32> {
///     // SAFETY: handed on to the caller.
///     unsafe { KBox::from_raw(raw) }
/// }
/// ```
mod from_raw_is_unsafe {}

/// Memory counts as a value before one was written.
///
/// ```compile_fail,E0308
/// use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
///
/// fn make() -> Result<KBox<u32>, AllocError> {
///     KBox::<u32>::new_uninit(GFP_KERNEL)
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
///
/// fn make() -> Result<KBox<u32>, AllocError> {
///     Ok(KBox::<u32>::new_uninit(GFP_KERNEL)?.write(7))
/// }
/// ```
mod uninitialised {}

/// The promise that a value was written is made by accident.
///
/// ```compile_fail,E0133
/// use hal::alloc::KBox;
/// use core::mem::MaybeUninit;
///
/// fn claim(memory: KBox<MaybeUninit<u32>>) -> KBox<u32> {
///     memory.assume_init()
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KBox;
/// use core::mem::MaybeUninit;
///
/// /// # Safety
/// ///
/// /// The value was written.
/// unsafe fn claim(memory: KBox<MaybeUninit<u32>>) -> KBox<u32> {
///     // SAFETY: handed on to the caller.
///     unsafe { memory.assume_init() }
/// }
/// ```
mod assume_init_is_unsafe {}

/// What belongs to one core is sent to another in a box.
///
/// ```compile_fail,E0277
/// use hal::alloc::KBox;
/// use std::rc::Rc;
///
/// fn send<T: Send>(_: T) {}
///
/// fn give(boxed: KBox<Rc<u32>>) {
///     send(boxed);
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KBox;
/// use std::sync::Arc;
///
/// fn send<T: Send>(_: T) {}
///
/// fn give(boxed: KBox<Arc<u32>>) {
///     send(boxed);
/// }
/// ```
mod send {}

/// What belongs to one core is sent to another in a vector, or in its iterator.
///
/// ```compile_fail,E0277
/// use hal::alloc::VVec;
///
/// fn send<T: Send>(_: T) {}
///
/// fn give(vec: VVec<*mut u32>) {
///     send(vec.into_iter());
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::VVec;
///
/// fn send<T: Send>(_: T) {}
///
/// fn give(vec: VVec<usize>) {
///     send(vec.into_iter());
/// }
/// ```
mod send_vector {}

/// What one core may use at a time is shared in a box.
///
/// ```compile_fail,E0277
/// use core::cell::Cell;
/// use hal::alloc::KBox;
///
/// fn share<T: Sync>(_: &T) {}
///
/// fn lend(boxed: &KBox<Cell<u32>>) {
///     share(boxed);
/// }
/// ```
///
/// ```no_run
/// use core::sync::atomic::AtomicU32;
/// use hal::alloc::KBox;
///
/// fn share<T: Sync>(_: &T) {}
///
/// fn lend(boxed: &KBox<AtomicU32>) {
///     share(boxed);
/// }
/// ```
mod share {}

/// A vector outlives what its elements borrow.
///
/// ```compile_fail,E0597
/// use hal::alloc::{AllocError, KVec, flags::GFP_KERNEL};
///
/// fn keep(vec: &mut KVec<&'static u32>) -> Result<(), AllocError> {
///     let local = 5;
///     vec.push(&local, GFP_KERNEL)
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KVec, flags::GFP_KERNEL};
///
/// fn keep(vec: &mut KVec<&'static u32>) -> Result<(), AllocError> {
///     static LASTING: u32 = 5;
///     vec.push(&LASTING, GFP_KERNEL)
/// }
/// ```
mod borrowed_element {}

/// A slice of a vector outlives the vector.
///
/// ```compile_fail,E0597
/// use hal::alloc::{AllocError, KVec, flags::GFP_KERNEL};
///
/// fn slice() -> Result<u32, AllocError> {
///     let slice;
///     {
///         let vec = KVec::from_elem(1u32, 4, GFP_KERNEL)?;
///         slice = vec.as_slice();
///     }
///     Ok(slice[0])
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KVec, flags::GFP_KERNEL};
///
/// fn slice() -> Result<u32, AllocError> {
///     let slice;
///     let vec = KVec::from_elem(1u32, 4, GFP_KERNEL)?;
///     {
///         slice = vec.as_slice();
///     }
///     Ok(slice[0])
/// }
/// ```
mod borrowed_slice {}

/// A vector grows, and may move, while an element is borrowed.
///
/// ```compile_fail,E0502
/// use hal::alloc::{AllocError, KVec, flags::GFP_KERNEL};
///
/// fn first(vec: &mut KVec<u32>) -> Result<u32, AllocError> {
///     let first = &vec[0];
///     vec.push(1, GFP_KERNEL)?;
///     Ok(*first)
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KVec, flags::GFP_KERNEL};
///
/// fn first(vec: &mut KVec<u32>) -> Result<u32, AllocError> {
///     let first = vec[0];
///     vec.push(1, GFP_KERNEL)?;
///     Ok(first)
/// }
/// ```
mod moving_under_a_borrow {}

/// A vector is emptied while it is walked.
///
/// ```compile_fail,E0502
/// use hal::alloc::KVec;
///
/// fn walk(vec: &mut KVec<u32>) {
///     for value in vec.iter() {
///         if *value == 0 {
///             vec.clear();
///         }
///     }
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KVec;
///
/// fn walk(vec: &mut KVec<u32>) {
///     if vec.iter().any(|value| *value == 0) {
///         vec.clear();
///     }
/// }
/// ```
mod clearing_under_an_iterator {}

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

/// A leaked value outlives what it borrows.
///
/// ```compile_fail,E0515
/// use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
///
/// fn leak() -> Result<&'static mut &'static u32, AllocError> {
///     let local = 5;
///     Ok(KBox::leak(KBox::new(&local, GFP_KERNEL)?))
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
///
/// fn leak() -> Result<&'static mut u32, AllocError> {
///     let local = 5;
///     Ok(KBox::leak(KBox::new(local, GFP_KERNEL)?))
/// }
/// ```
mod leaked_borrow {}

/// A type is aligned to more than the allocator's memory can be.
///
/// ```compile_fail,E0080
/// use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
///
/// #[repr(align(8192))]
/// struct Wide(u8);
///
/// fn make() -> Result<KBox<Wide>, AllocError> {
///     KBox::new(Wide(1), GFP_KERNEL)
/// }
/// make().unwrap();
/// ```
///
/// ```no_run
/// use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
///
/// #[repr(align(4096))]
/// struct Wide(u8);
///
/// fn make() -> Result<KBox<Wide>, AllocError> {
///     KBox::new(Wide(1), GFP_KERNEL)
/// }
/// make().unwrap();
/// ```
mod over_aligned {}

/// The elements of a vector are aligned to more than its memory can be.
///
/// ```compile_fail,E0080
/// use hal::alloc::VVec;
///
/// #[repr(align(8192))]
/// struct Wide(u8);
///
/// let _ = VVec::<Wide>::new();
/// ```
///
/// ```no_run
/// use hal::alloc::VVec;
///
/// #[repr(align(4096))]
/// struct Wide(u8);
///
/// let _ = VVec::<Wide>::new();
/// ```
mod over_aligned_elements {}

/// Somebody's own allocator promises nothing.
///
/// ```compile_fail,E0200
/// use core::{alloc::Layout, ptr::NonNull};
/// use hal::alloc::{AllocError, Allocator, Flags};
///
/// struct Own;
///
/// impl Allocator for Own {
///     const MAX_ALIGN: usize = 1;
///
///     unsafe fn realloc(
///         _: Option<NonNull<u8>>,
///         layout: Layout,
///         _: Layout,
///         _: Flags,
///     ) -> Result<NonNull<u8>, AllocError> {
///         Ok(layout.dangling_ptr())
///     }
/// }
/// ```
///
/// ```no_run
/// use core::{alloc::Layout, ptr::NonNull};
/// use hal::alloc::{AllocError, Allocator, Flags};
///
/// struct Own;
///
/// // SAFETY: it never gives memory.
/// unsafe impl Allocator for Own {
///     const MAX_ALIGN: usize = 1;
///
///     unsafe fn realloc(
///         _: Option<NonNull<u8>>,
///         layout: Layout,
///         _: Layout,
///         _: Flags,
///     ) -> Result<NonNull<u8>, AllocError> {
///         match layout.size() {
///             0 => Ok(layout.dangling_ptr()),
///             size => Err(AllocError::CapacityOverflow { count: 1, size }),
///         }
///     }
/// }
/// ```
mod allocator_is_unsafe_to_write {}

/// Any pointer becomes a vector.
///
/// ```compile_fail,E0133
/// use hal::alloc::KVec;
///
/// fn adopt(start: *mut u32) -> KVec<u32> {
///     KVec::from_raw_parts(start, 1, 1)
/// }
/// ```
///
/// ```no_run
/// use hal::alloc::KVec;
///
/// /// # Safety
/// ///
/// /// As for `KVec::from_raw_parts`.
/// unsafe fn adopt(start: *mut u32) -> KVec<u32> {
///     // SAFETY: handed on to the caller.
///     unsafe { KVec::from_raw_parts(start, 1, 1) }
/// }
/// ```
mod raw_parts_are_unsafe {}
