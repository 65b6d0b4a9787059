//! The machine's clock, where drivers can keep a reference to it.

use crate::machine::machine;
use hal::arch::cpu;
use hal::dma::Clock;
use hal::drivers::timer::Timer;
use hal::sync::Once;

static CLOCK: Once<Timer> = Once::new();

/// The clock `timer`, for good; the first call wins.
pub fn install(timer: Timer) -> &'static dyn Clock {
    CLOCK.call_once(|| timer)
}

/// Sleeps a little, so that who waits for an engine does not keep it from working.
pub(crate) fn pause(ns: u64) {
    let clock: &dyn Clock = &machine().timer;
    let irq = cpu::irq_save();
    clock.sleep_until(clock.now_ns() + ns);
    cpu::irq_restore(irq);
}
