//! What an allocation is told, and what it may answer.

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
