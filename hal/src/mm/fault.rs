//! Fault injection: the nth allocation from now fails as if memory had run out.
//!
//! Pages, slab objects and vmalloc areas are counted by one counter. Slab objects that a core has at
//! hand when something is armed are handed out uncounted: shrink the caches on every core before.
//! While something is armed no core takes objects in hand; while nothing is, slab objects pay
//! nothing and pages one relaxed load.

use super::Gfp;
use core::sync::atomic::{AtomicU32, Ordering};

/// What is to fail, and how many allocations have been seen.
#[derive(Debug)]
struct Injection {
    /// Which allocation fails, counted from 1; 0 while nothing is armed.
    nth: AtomicU32,
    seen: AtomicU32,
    /// [`Paused`] guards that exist.
    pauses: AtomicU32,
}

impl Injection {
    const fn new() -> Self {
        Self {
            nth: AtomicU32::new(0),
            seen: AtomicU32::new(0),
            pauses: AtomicU32::new(0),
        }
    }
}

#[cfg(target_os = "none")]
#[inline(always)]
fn injection<R>(f: impl FnOnce(&Injection) -> R) -> R {
    static INJECTION: Injection = Injection::new();
    f(&INJECTION)
}

/// On the host each thread is a machine of its own.
#[cfg(not(target_os = "none"))]
fn injection<R>(f: impl FnOnce(&Injection) -> R) -> R {
    thread_local! {
        static INJECTION: Injection = const { Injection::new() };
    }
    INJECTION.with(f)
}

/// Makes the `nth` allocation from now fail, counted from 1; 0 disarms. Any context.
#[doc(alias = "failslab")]
pub fn fail_nth(nth: u32) {
    injection(|injection| {
        injection.seen.store(0, Ordering::Relaxed);
        injection.nth.store(nth, Ordering::Relaxed);
    });
    tell_page_lists();
}

/// Lets every allocation succeed again. Any context.
pub fn disarm() {
    injection(|injection| injection.nth.store(0, Ordering::Relaxed));
    tell_page_lists();
}

/// Closes the lists from which pages are taken without a look here, or opens them. What is armed is
/// stored already, and the zones' locks order that before their next look.
fn tell_page_lists() {
    if let Some(pages) = super::pages() {
        pages.update_at_hand();
    }
}

/// As long as it exists, allocations neither fail nor count.
#[derive(Debug)]
#[must_use = "the pause ends when the guard is dropped"]
pub struct Paused(());

impl Drop for Paused {
    fn drop(&mut self) {
        injection(|injection| injection.pauses.fetch_sub(1, Ordering::Relaxed));
    }
}

/// Leaves out the allocations of all cores until the guard is dropped: those a test makes only to
/// have less memory left. Any context.
pub fn pause() -> Paused {
    injection(|injection| injection.pauses.fetch_add(1, Ordering::Relaxed));
    Paused(())
}

/// Whether the allocation that [`fail_nth`] chose has failed since.
pub fn has_fired() -> bool {
    injection(|injection| {
        let nth = injection.nth.load(Ordering::Relaxed);
        nth != 0 && injection.seen.load(Ordering::Relaxed) >= nth
    })
}

/// Whether an allocation is to fail: then the fast paths are left.
#[inline(always)]
pub fn is_armed() -> bool {
    injection(|injection| injection.nth.load(Ordering::Relaxed) != 0)
}

/// Counts an allocation with `gfp` while something is armed, and says whether it is the one that
/// fails. Those with [`Gfp::NOFAIL`] are not counted.
#[inline(always)]
pub fn should_fail(gfp: Gfp) -> bool {
    is_armed() && is_the_one(gfp)
}

#[cold]
fn is_the_one(gfp: Gfp) -> bool {
    !gfp.contains(Gfp::NOFAIL)
        && injection(|injection| {
            if injection.pauses.load(Ordering::Relaxed) != 0 {
                return false;
            }
            let before = injection.seen.fetch_add(1, Ordering::Relaxed);
            before + 1 == injection.nth.load(Ordering::Relaxed)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_fails_once_and_nofail_is_not_counted() {
        assert!(!is_armed() && !should_fail(Gfp::KERNEL));
        fail_nth(2);
        assert!(!should_fail(Gfp::KERNEL | Gfp::NOFAIL));
        assert!(!should_fail(Gfp::KERNEL));
        let pauses = (pause(), pause());
        assert!(!should_fail(Gfp::KERNEL));
        drop(pauses.0);
        assert!(!should_fail(Gfp::KERNEL));
        drop(pauses.1);
        assert!(!has_fired());
        assert!(should_fail(Gfp::KERNEL));
        assert!(has_fired());
        assert!(!should_fail(Gfp::KERNEL));
        disarm();
        assert!(!is_armed() && !has_fired());
    }
}
