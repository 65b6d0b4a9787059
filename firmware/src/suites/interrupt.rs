//! A function run in an interrupt handler.

use crate::check;
use crate::check_ok;
use crate::machine::machine;
use crate::report::Stop;
use core::sync::atomic::{AtomicU8, Ordering};
use hal::arch::counter;
use hal::drivers::gic::Line;
use hal::drivers::irq::IrqHandler;
use hal::drivers::timer::{DeadlineInterrupt, VIRTUAL_TIMER};

/// What has become of the function.
mod outcome {
    pub(super) const PENDING: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
}

/// Calls a function once in the timer's interrupt.
#[derive(Debug)]
pub(super) struct InInterrupt {
    function: fn() -> bool,
    outcome: AtomicU8,
}

impl InInterrupt {
    /// A handler that calls `function`.
    pub(super) const fn new(function: fn() -> bool) -> Self {
        Self {
            function,
            outcome: AtomicU8::new(outcome::PENDING),
        }
    }

    /// Waits for a timer interrupt; what the function returned in it.
    pub(super) fn run(&'static self) -> Result<bool, Stop> {
        const DELAY_NS: u64 = 20_000;
        const PATIENCE_NS: u64 = 100_000_000;
        let machine = machine();
        self.outcome.store(outcome::PENDING, Ordering::Relaxed);
        counter::disarm();
        machine.interrupts.unregister(VIRTUAL_TIMER);
        check_ok!(machine.interrupts.register(VIRTUAL_TIMER, self));
        counter::arm(machine.timer.deadline_after(DELAY_NS));
        let start = machine.timer.now_ns();
        while self.outcome.load(Ordering::Acquire) == outcome::PENDING
            && machine.timer.now_ns() - start < PATIENCE_NS
        {
            core::hint::spin_loop();
        }
        counter::disarm();
        machine.interrupts.unregister(VIRTUAL_TIMER);
        check_ok!(
            machine
                .interrupts
                .register(VIRTUAL_TIMER, &DeadlineInterrupt)
        );
        let outcome = self.outcome.load(Ordering::Acquire);
        check!(outcome != outcome::PENDING, "no interrupt came");
        Ok(outcome == outcome::TRUE)
    }
}

impl IrqHandler for InInterrupt {
    fn handle(&self, _line: Line) {
        counter::disarm();
        let outcome = if (self.function)() {
            outcome::TRUE
        } else {
            outcome::FALSE
        };
        self.outcome.store(outcome, Ordering::Release);
    }
}
