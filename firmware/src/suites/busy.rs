//! Cores that are kept from work that was put off.

use crate::check_ok;
use crate::report::Stop;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hal::arch::cpu;
use hal::smp;
use hal::sync::{IrqLock, PerCpu};

/// Runs `test` on this core, while every other one runs a task that does nothing: none of them is
/// idle, so none does what is put off meanwhile. They wait for events, so that a machine that runs one
/// core at a time goes on to the next.
pub(super) fn while_others_are_busy<T: Send>(test: impl FnOnce() -> T + Send) -> Result<T, Stop> {
    let me = PerCpu::current().index();
    let others = smp::online().count() - 1;
    let (busy, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (test, outcome) = (IrqLock::new(Some(test)), IrqLock::new(None));
    check_ok!(smp::run_on_all(|core| {
        if core != me {
            busy.fetch_add(1, Ordering::AcqRel);
            while !done.load(Ordering::Acquire) {
                cpu::wait_for_event();
            }
            return;
        }
        // Before that one of them may be doing what was put off earlier.
        while busy.load(Ordering::Acquire) < others {
            cpu::wait_for_event();
        }
        let test = test.lock().take();
        let result = test.map(|test| test());
        *outcome.lock() = result;
        done.store(true, Ordering::Release);
    }));
    let outcome = outcome.lock().take();
    outcome.ok_or(Stop::Failed)
}
