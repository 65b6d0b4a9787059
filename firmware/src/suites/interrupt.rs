//! What runs in the timer's interrupt for the length of a test.

use crate::check;
use crate::check_ok;
use crate::machine::machine;
use crate::report::Stop;
use hal::arch::counter;
use hal::drivers::gic::Line;
use hal::drivers::irq::IrqHandler;
use hal::drivers::timer::{DeadlineInterrupt, VIRTUAL_TIMER};
use hal::sync::IrqLock;

/// Lets `handler` have the timer's interrupts while `test` runs, disarmed before and, on this core,
/// after.
pub(super) fn with_timer_handler<T>(
    handler: &'static dyn IrqHandler,
    test: impl FnOnce() -> T,
) -> Result<T, Stop> {
    let interrupts = machine().interrupts;
    counter::disarm();
    interrupts.unregister(VIRTUAL_TIMER);
    check_ok!(interrupts.register(VIRTUAL_TIMER, handler));
    let outcome = test();
    counter::disarm();
    interrupts.unregister(VIRTUAL_TIMER);
    check_ok!(interrupts.register(VIRTUAL_TIMER, &DeadlineInterrupt));
    Ok(outcome)
}

/// Calls a function once in the timer's interrupt.
#[derive(Debug)]
pub(super) struct InInterrupt<T> {
    function: fn() -> T,
    outcome: IrqLock<Option<T>>,
}

impl<T: Send> InInterrupt<T> {
    /// A handler that calls `function`.
    pub(super) const fn new(function: fn() -> T) -> Self {
        Self {
            function,
            outcome: IrqLock::new(None),
        }
    }

    /// Waits for a timer interrupt; what the function returned in it.
    pub(super) fn run(&'static self) -> Result<T, Stop> {
        const DELAY_NS: u64 = 20_000;
        const PATIENCE_NS: u64 = 1_000_000_000;
        let timer = &machine().timer;
        *self.outcome.lock() = None;
        let outcome = with_timer_handler(self, || {
            counter::arm(timer.deadline_after(DELAY_NS));
            let start = timer.now_ns();
            loop {
                // Before the look: a handler may take longer than this has patience.
                let is_late = timer.now_ns() - start > PATIENCE_NS;
                let outcome = self.outcome.lock().take();
                if outcome.is_some() || is_late {
                    return outcome;
                }
                core::hint::spin_loop();
            }
        })?;
        check!(outcome.is_some(), "no interrupt came");
        outcome.ok_or(Stop::Failed)
    }
}

impl<T: Send> IrqHandler for InInterrupt<T> {
    fn handle(&self, _line: Line) {
        counter::disarm();
        let outcome = (self.function)();
        *self.outcome.lock() = Some(outcome);
    }
}
