//! What other cores may have.

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
