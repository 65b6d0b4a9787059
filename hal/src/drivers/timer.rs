//! Time: a monotonic clock, delays, and waits that end.
//!
//! All of it is the generic timer of the executing core. The frequency is what `CNTFRQ_EL0` says
//! (54 MHz on a BCM2711, 62.5 MHz under QEMU), never a constant.

use super::gic::Line;
use super::irq::IrqHandler;
use crate::arch::{barrier, counter, cpu};
use crate::dma::Clock;
use core::num::NonZeroU32;
use embedded_hal::delay::DelayNs;
use thiserror::Error;

/// The interrupt of the EL1 virtual timer: PPI 11 in Arm's Base System Architecture, and on every
/// board with a GIC this library runs on.
pub const VIRTUAL_TIMER: Line = match Line::ppi(11) {
    Some(line) => line,
    None => unreachable!(),
};

const NS_PER_S: u64 = 1_000_000_000;

/// Why there is no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TimerError {
    /// The firmware that ran first left `CNTFRQ_EL0` zero.
    #[error("CNTFRQ_EL0 is zero: the firmware did not say how fast the counter runs")]
    NoFrequency,
}

/// The clock of this machine. Every core's counter shows the same time, so the value may be
/// copied anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    hz: NonZeroU32,
}

impl Timer {
    /// Reads how fast the counter runs.
    ///
    /// # Errors
    ///
    /// [`TimerError::NoFrequency`] if nobody said.
    pub fn new() -> Result<Self, TimerError> {
        NonZeroU32::new(counter::frequency())
            .map(|hz| Self { hz })
            .ok_or(TimerError::NoFrequency)
    }

    /// Ticks per second.
    pub fn frequency(&self) -> u32 {
        self.hz.get()
    }

    /// The counter, in ticks.
    pub fn now(&self) -> u64 {
        counter::now()
    }

    /// Nanoseconds since the counter started; `u64::MAX` after 584 years.
    pub fn now_ns(&self) -> u64 {
        self.ticks_to_ns(counter::now())
    }

    /// `ticks` in nanoseconds, rounded down; `u64::MAX` if they do not fit.
    pub fn ticks_to_ns(&self, ticks: u64) -> u64 {
        let hz = u64::from(self.hz.get());
        // The remainder is below 2^32 and 10^9 below 2^30, so the product fits.
        (ticks / hz)
            .saturating_mul(NS_PER_S)
            .saturating_add(ticks % hz * NS_PER_S / hz)
    }

    /// `ns` nanoseconds in ticks, rounded up, so that a delay is never too short; `u64::MAX` if
    /// they do not fit.
    pub fn ns_to_ticks(&self, ns: u64) -> u64 {
        let hz = u64::from(self.hz.get());
        (ns / NS_PER_S)
            .saturating_mul(hz)
            .saturating_add((ns % NS_PER_S * hz).div_ceil(NS_PER_S))
    }

    /// The counter value at least `ns` nanoseconds from now.
    ///
    /// One tick is added, because the current one is partly over.
    pub fn deadline_after(&self, ns: u64) -> u64 {
        counter::now()
            .saturating_add(self.ns_to_ticks(ns))
            .saturating_add(1)
    }

    /// Sleeps until `done` returns `true` or `timeout_ns` nanoseconds have passed, and says which:
    /// `true` for `done`.
    ///
    /// The core waits in `WFI` and looks at `done` after each interrupt, with IRQs masked, so an
    /// interrupt that comes between the look and the `WFI` is not slept through. `done` must be
    /// made true by an interrupt handler of this core, or the wait lasts until the timeout.
    ///
    /// Call with IRQs unmasked, from a task, and with [`VIRTUAL_TIMER`] enabled on this core and
    /// [`DeadlineInterrupt`] registered for it. The core has one deadline, so waits do not nest.
    pub fn wait_until(&self, timeout_ns: u64, mut done: impl FnMut() -> bool) -> bool {
        debug_assert!(!cpu::irqs_masked(), "no handler could run");
        let deadline = self.deadline_after(timeout_ns);
        counter::arm(deadline);
        let in_time = loop {
            let irq = cpu::irq_save();
            let outcome = if done() {
                Some(true)
            } else if counter::now() >= deadline {
                Some(false)
            } else {
                cpu::wait_for_interrupt();
                None
            };
            cpu::irq_restore(irq);
            // What is pending is taken here, not at some later time (Arm ARM D1.3.6).
            barrier::isb();
            if let Some(in_time) = outcome {
                break in_time;
            }
        };
        counter::disarm();
        in_time
    }

    /// Polls `done` until it returns `true` or `timeout_ns` nanoseconds have passed, and says
    /// which: `true` for `done`. May be called in any context.
    pub fn poll_until(&self, timeout_ns: u64, mut done: impl FnMut() -> bool) -> bool {
        let deadline = self.deadline_after(timeout_ns);
        loop {
            // In this order, so that a poller who was away past the deadline looks once more.
            let expired = counter::now() >= deadline;
            if done() {
                return true;
            }
            if expired {
                return false;
            }
            core::hint::spin_loop();
        }
    }
}

/// Waiting for a DMA engine: [`VIRTUAL_TIMER`] is enabled on the waiting core, and
/// [`DeadlineInterrupt`] registered for it.
impl Clock for Timer {
    fn now_ns(&self) -> u64 {
        Self::now_ns(self)
    }

    fn sleep_until(&self, deadline_ns: u64) {
        counter::arm(self.ns_to_ticks(deadline_ns));
        cpu::wait_for_interrupt();
        counter::disarm();
    }
}

/// Busy delays: the core spins, whatever the state of its interrupts.
impl DelayNs for Timer {
    fn delay_ns(&mut self, ns: u32) {
        self.poll_until(ns.into(), || false);
    }
}

/// The handler of [`VIRTUAL_TIMER`] that [`Timer::wait_until`] relies on: withdraws the interrupt,
/// whose only purpose was to end a `WFI`.
#[derive(Debug)]
pub struct DeadlineInterrupt;

impl IrqHandler for DeadlineInterrupt {
    fn handle(&self, _line: Line) {
        counter::disarm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timer(hz: u32) -> Timer {
        Timer {
            hz: NonZeroU32::new(hz).unwrap(),
        }
    }

    #[test]
    fn conversions_at_the_known_frequencies() {
        assert_eq!(timer(54_000_000).ticks_to_ns(54_000_000), 1_000_000_000);
        assert_eq!(timer(54_000_000).ticks_to_ns(1), 18);
        assert_eq!(timer(54_000_000).ns_to_ticks(1), 1);
        assert_eq!(timer(54_000_000).ns_to_ticks(1_000), 54);
        assert_eq!(timer(62_500_000).ticks_to_ns(1), 16);
        assert_eq!(timer(62_500_000).ns_to_ticks(17), 2);
        assert_eq!(timer(1).ticks_to_ns(u64::MAX), u64::MAX);
        assert_eq!(timer(u32::MAX).ns_to_ticks(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn conversions_agree_with_128_bits(hz in 1u32.., value: u64) {
            let exact = u128::from(value) * 1_000_000_000 / u128::from(hz);
            prop_assert_eq!(timer(hz).ticks_to_ns(value), exact.try_into().unwrap_or(u64::MAX));
            let exact = (u128::from(value) * u128::from(hz)).div_ceil(1_000_000_000);
            prop_assert_eq!(timer(hz).ns_to_ticks(value), exact.try_into().unwrap_or(u64::MAX));
        }
    }

    #[test]
    fn waits_end_either_way() {
        let timer = Timer::new().unwrap();
        let mut looks = 0;
        assert!(timer.wait_until(u64::MAX, || {
            assert!(cpu::irqs_masked());
            assert!(counter::armed().is_some());
            looks += 1;
            looks == 3
        }));
        assert!(!cpu::irqs_masked());
        let start = timer.now_ns();
        assert!(!timer.wait_until(1_000_000, || false));
        assert!(!timer.poll_until(1_000_000, || false));
        assert!(timer.now_ns() - start >= 2_000_000);
        assert_eq!(counter::armed(), None);
    }

    #[test]
    fn a_delay_is_not_short() {
        let mut timer = Timer::new().unwrap();
        let start = timer.now_ns();
        timer.delay_us(500);
        assert!(timer.now_ns() - start >= 500_000);
    }
}
