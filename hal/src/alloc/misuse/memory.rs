//! Bytes that hold no value, or come from nowhere.

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
