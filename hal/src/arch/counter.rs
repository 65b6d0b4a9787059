//! The generic timer's virtual counter and its compare value (Arm ARM D12.2).
//!
//! The virtual timer, not the physical one: an EL1 guest of KVM owns it in every case, while
//! `CNTP_*` may trap or be emulated; and without a hypervisor the two are the same, because the
//! code that leaves EL2 zeroes `CNTVOFF_EL2`.

use super::barrier;
use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTKCTL_EL1, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, Readable, Writeable,
};

/// `CNTFRQ_EL0`: ticks per second, as the firmware that ran first declared it.
#[inline]
pub fn frequency() -> u32 {
    CNTFRQ_EL0.get() as u32
}

/// `CNTVCT_EL0`: ticks since the counter started. Not read before earlier instructions complete.
#[inline]
pub fn now() -> u64 {
    // Without the barrier the read may be speculated (Arm ARM D12.2.2).
    barrier::isb();
    CNTVCT_EL0.get()
}

/// Raises this core's virtual timer interrupt once the counter reaches `deadline`, in ticks.
/// It stays raised until [`disarm`] or a later deadline.
#[inline]
pub fn arm(deadline: u64) {
    CNTV_CVAL_EL0.set(deadline);
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR);
    barrier::isb();
}

/// Stops this core's virtual timer and withdraws its interrupt.
#[inline]
pub fn disarm() {
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
    barrier::isb();
}

/// The deadline of this core's virtual timer, if it is armed.
#[inline]
pub fn armed() -> Option<u64> {
    CNTV_CTL_EL0
        .is_set(CNTV_CTL_EL0::ENABLE)
        .then(|| CNTV_CVAL_EL0.get())
}

/// `CNTKCTL_EL1.EVNTEN`: the event stream is on.
const EVNTEN: u64 = 1 << 2;
/// `CNTKCTL_EL1.EVNTI`, bits 7:4: an event each time this counter bit goes from 0 to 1. Bit 12 is
/// an event every 8192 ticks, about 0.15 ms at 54 MHz.
const EVNTI: u64 = 12 << 4;

/// Lets the counter wake this core out of `WFE` every so often, so that a wait for an event that
/// never comes ends (Arm ARM D12.2.3).
#[inline]
pub fn enable_event_stream() {
    CNTKCTL_EL1.set(EVNTEN | EVNTI);
    barrier::isb();
}
