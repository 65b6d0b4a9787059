//! References into memory that moves or goes.

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
