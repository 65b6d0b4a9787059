//! An allocator for tests: host memory, every call judged, failures on demand.

use super::{AllocError, Allocator, Flags};
use crate::mm;
use core::alloc::Layout;
use core::ptr::NonNull;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What unwritten memory holds.
pub(super) const GARBAGE: u8 = 0xA5;

#[derive(Default)]
struct State {
    /// What is allocated, by address.
    live: BTreeMap<usize, Layout>,
    /// Allocations that succeed before one fails.
    until_failure: Option<usize>,
    refusals: usize,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Host memory of this thread. Memory moves whenever its size changes, a layout that is not the
/// one asked for fails the test, and the allocation after `n` more fails on [`Host::fail_after`].
#[derive(Debug)]
pub(crate) struct Host;

impl Host {
    /// The error of a failure on demand.
    pub(super) const REFUSED: AllocError = AllocError::Kmalloc(mm::AllocError::NoMemory {
        order: 0,
        gfp: Flags::KERNEL,
    });

    /// Lets `n` more allocations succeed and the next one fail.
    pub(super) fn fail_after(n: usize) {
        STATE.with_borrow_mut(|state| state.until_failure = Some(n));
    }

    /// Allocations refused so far.
    pub(super) fn refusals() -> usize {
        STATE.with_borrow(|state| state.refusals)
    }

    /// Pieces of memory in use.
    pub(super) fn live() -> usize {
        STATE.with_borrow(|state| state.live.len())
    }

    fn take(layout: Layout) -> Result<NonNull<u8>, AllocError> {
        STATE.with_borrow_mut(|state| {
            match &mut state.until_failure {
                Some(0) => {
                    state.until_failure = None;
                    state.refusals += 1;
                    return Err(Self::REFUSED);
                }
                Some(n) => *n -= 1,
                None => {}
            }
            // SAFETY: the layout's size is not zero.
            let memory = NonNull::new(unsafe { std::alloc::alloc(layout) }).unwrap();
            // SAFETY: just allocated.
            unsafe { memory.write_bytes(GARBAGE, layout.size()) };
            state.live.insert(memory.as_ptr().addr(), layout);
            Ok(memory)
        })
    }

    fn give(memory: NonNull<u8>, layout: Layout) {
        let found = STATE.with_borrow_mut(|state| state.live.remove(&memory.as_ptr().addr()));
        assert_eq!(found, Some(layout), "freed with another layout, or twice");
        // SAFETY: as found, allocated with this layout and not freed yet.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    }
}

// SAFETY: host memory is the caller's until it is given back.
unsafe impl Allocator for Host {
    const MAX_ALIGN: usize = 4096;

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        _: Flags,
    ) -> Result<NonNull<u8>, AllocError> {
        let new = if layout.size() == 0 {
            layout.dangling_ptr()
        } else {
            Self::take(layout)?
        };
        if let Some(old) = ptr.filter(|_| old_layout.size() != 0) {
            let kept = layout.size().min(old_layout.size());
            // SAFETY: two pieces of memory of at least that size.
            unsafe { new.copy_from_nonoverlapping(old, kept) };
            Self::give(old, old_layout);
        }
        Ok(new)
    }
}
