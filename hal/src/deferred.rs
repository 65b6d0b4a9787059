//! Work put off: what a caller may not or need not do itself.
//!
//! Each kind of work is one bit and one function. Scheduling sets the bit and may be done in any
//! context; the function runs later, once for any number of schedulings, as a task on whichever
//! core finds the bit first: an idle one, or one that is about to block.

mod pending;

use crate::smp;
use crate::sync::{Context, Once, PerCpu};
use core::sync::atomic::{self, AtomicU32};
use pending::Pending;

/// The kinds of work there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Work {
    /// Background reclaim: shrinkers run until a zone is above its high watermark.
    Reclaim = 0,
    /// `vmalloc` areas freed by interrupt handlers, and the lazy purge.
    Vfree = 1,
    /// The coherent pool takes in memory for the next atomic request.
    PoolRefill = 2,
    /// Coherent memory freed where blocking is not allowed becomes cacheable again.
    CoherentFree = 3,
}

impl Work {
    const ALL: [Self; 4] = [
        Self::Reclaim,
        Self::Vfree,
        Self::PoolRefill,
        Self::CoherentFree,
    ];

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

static PENDING: Pending = Pending::new(AtomicU32::new(0), AtomicU32::new(0));
static HANDLERS: [Once<fn()>; Work::ALL.len()] = [const { Once::new() }; Work::ALL.len()];

/// Says what does `work`; the first call wins. Work that was scheduled before waits for it.
pub fn set_handler(work: Work, handler: fn()) {
    HANDLERS[work as usize].call_once(|| handler);
}

/// Asks for `work` and wakes an idle core to do it. May be called in any context.
pub fn schedule(work: Work) {
    if let Some(core) = PENDING.add(work.bit()) {
        smp::wake(core as usize);
    }
}

/// Whether work waits that something can do.
pub fn is_runnable() -> bool {
    Work::ALL
        .iter()
        .any(|work| PENDING.any(work.bit()) && HANDLERS[*work as usize].is_completed())
}

/// Whether any work waits.
#[inline(always)]
pub(crate) fn is_pending() -> bool {
    PENDING.any(u32::MAX)
}

/// Whether a core is idle, and will do work that is scheduled.
pub(crate) fn is_any_core_idle() -> bool {
    PENDING.has_sleeper()
}

/// Does the work that waits, outside the scopes of the core's task. Does nothing but in a task, and
/// nothing in one that wants to be [alone](crate::mm::scope).
#[inline(always)]
pub fn run_pending() {
    if is_pending() {
        run_what_waits();
    }
}

#[cold]
#[inline(never)]
fn run_what_waits() {
    let this = PerCpu::current();
    if !is_runnable() || this.context() != Context::Task {
        return;
    }
    this.scopes().outside(|| {
        for work in Work::ALL {
            if let Some(handler) = HANDLERS[work as usize].get()
                && PENDING.take(work.bit())
            {
                handler();
            }
        }
    });
}

/// Sleeps by means of `sleep`, which is given the condition to stay awake, in a way that
/// [`schedule`] sees.
pub(crate) fn sleep_with(sleep: impl FnOnce(fn() -> bool)) {
    let me = PerCpu::current().index();
    PENDING.sleeps(me);
    sleep(is_runnable);
    PENDING.wakes(me);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::Gfp;
    use crate::mm::scope::{memalloc_noreclaim, rights};
    use crate::sync::IrqLock;
    use core::sync::atomic::Ordering;

    #[test]
    fn work_that_waits_wakes_whoever_sleeps_when_it_is_added_again() {
        let pending = Pending::new(AtomicU32::new(0), AtomicU32::new(0));
        pending.sleeps(1);
        assert_eq!(pending.add(4), Some(1));
        // The core is awake and busy with something else, and another one has gone to sleep.
        pending.wakes(1);
        pending.sleeps(5);
        assert_eq!(pending.add(4), Some(5));
        assert!(pending.take(4) && !pending.take(4));
    }

    static RUNS: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn work_runs_once_as_a_task() {
        schedule(Work::PoolRefill);
        run_pending();
        assert!(PENDING.any(Work::PoolRefill.bit()));
        assert!(!is_runnable(), "nothing can do it yet");
        let scope = memalloc_noreclaim();
        set_handler(Work::PoolRefill, || {
            assert_eq!(rights(Gfp::KERNEL), Gfp::KERNEL, "in the scopes of a task");
            RUNS.fetch_add(1, Ordering::Relaxed);
        });
        schedule(Work::PoolRefill);
        let lock = IrqLock::new(());
        let held = lock.lock();
        run_pending();
        assert_eq!(RUNS.load(Ordering::Relaxed), 0);
        drop(held);
        run_pending();
        run_pending();
        assert_eq!(RUNS.load(Ordering::Relaxed), 1);
        drop(scope);
    }
}
