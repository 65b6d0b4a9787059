//! Work put off: what a caller may not or need not do itself.
//!
//! Each kind of work is one bit and one function. Scheduling sets the bit and may be done in any
//! context; the function runs later, once for any number of schedulings, as a task on whichever
//! core finds the bit first: an idle one, or one that is about to block.

use crate::smp;
use crate::sync::{Context, Once, PerCpu};
use core::sync::atomic::{AtomicU32, Ordering};

/// The kinds of work there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Work {
    /// Background reclaim: shrinkers run until every zone is above its high watermark.
    Reclaim = 0,
    /// `vmalloc` areas freed by interrupt handlers, and the lazy purge.
    Vfree = 1,
    /// The coherent pool takes in memory for the next atomic request.
    PoolRefill = 2,
}

impl Work {
    const ALL: [Self; 3] = [Self::Reclaim, Self::Vfree, Self::PoolRefill];

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

static PENDING: AtomicU32 = AtomicU32::new(0);
static HANDLERS: [Once<fn()>; Work::ALL.len()] = [const { Once::new() }; Work::ALL.len()];

/// Says what does `work`; the first call wins. Without one, scheduling it has no effect until
/// there is.
pub fn set_handler(work: Work, handler: fn()) {
    HANDLERS[work as usize].call_once(|| handler);
}

/// Asks for `work` and wakes an idle core to do it. May be called in any context.
pub fn schedule(work: Work) {
    if PENDING.fetch_or(work.bit(), Ordering::SeqCst) & work.bit() == 0 {
        smp::wake_idle();
    }
}

/// Whether work waits that something can do.
pub fn is_runnable() -> bool {
    let pending = PENDING.load(Ordering::SeqCst);
    pending != 0
        && Work::ALL
            .iter()
            .any(|work| pending & work.bit() != 0 && HANDLERS[*work as usize].is_completed())
}

/// Does the work that waits. Does nothing but in a task.
pub fn run_pending() {
    if !is_runnable() || PerCpu::current().context() != Context::Task {
        return;
    }
    for work in Work::ALL {
        if let Some(handler) = HANDLERS[work as usize].get()
            && PENDING.fetch_and(!work.bit(), Ordering::AcqRel) & work.bit() != 0
        {
            handler();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::IrqLock;

    static RUNS: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn work_runs_once_as_a_task() {
        schedule(Work::PoolRefill);
        run_pending();
        assert_eq!(PENDING.load(Ordering::Relaxed), Work::PoolRefill.bit());
        assert!(!is_runnable(), "nothing can do it yet");
        set_handler(Work::PoolRefill, || {
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
    }
}
