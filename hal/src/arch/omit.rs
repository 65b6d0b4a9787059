//! One operation left out on purpose, so that a tool that watches from outside can be seen to miss it.
//!
//! Only with the feature `seeds`, which no image that is flashed has.

use super::cpu;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What can be left out: operations on which alone something hangs. Every `DC CIVAC` of the library has
/// another beside it that makes it good (a change of type maintains by the old and by the new mapping), and
/// every driver issues a `DSB` before its doorbell, which does what a `DMB` before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// `DC CVAC`.
    Clean = 1,
    /// `DC IVAC`.
    Invalidate,
    /// `DSB SY`, which completes maintenance and stores for a device.
    Dsb,
}

/// No operation.
const NONE: u32 = 0;

/// What is left out, [`NONE`] or an [`Operation`].
static WHAT: AtomicU32 = AtomicU32::new(NONE);
/// By which core.
static WHOSE: AtomicU64 = AtomicU64::new(0);
/// How many such operations are still to come before it.
static BEFORE: AtomicU32 = AtomicU32::new(0);

/// Calls `f` without the `number`th operation, from 0, of that kind that this core issues meanwhile.
/// Returns what `f` returns, and whether there was such an operation.
///
/// Not nested, and by one core at a time. What handlers of interrupts issue on this core counts too.
pub fn omit<R>(what: Operation, number: u32, f: impl FnOnce() -> R) -> (R, bool) {
    WHOSE.store(cpu::affinity(), Ordering::Relaxed);
    BEFORE.store(number, Ordering::Relaxed);
    WHAT.store(what as u32, Ordering::Release);
    let result = f();
    let is_left = WHAT.swap(NONE, Ordering::Relaxed) != NONE;
    (result, !is_left)
}

/// Whether this operation is the one to be left out.
#[inline]
pub(super) fn drops(what: Operation) -> bool {
    WHAT.load(Ordering::Acquire) == what as u32 && is_next()
}

/// Counts an operation of the kind down.
#[cold]
fn is_next() -> bool {
    if WHOSE.load(Ordering::Relaxed) != cpu::affinity() {
        return false;
    }
    match BEFORE.load(Ordering::Relaxed) {
        0 => {
            WHAT.store(NONE, Ordering::Relaxed);
            true
        }
        before => {
            BEFORE.store(before - 1, Ordering::Relaxed);
            false
        }
    }
}
