//! The executing core: identity, interrupt masking, waiting.

use super::barrier;
use aarch64_cpu::registers::{ID_AA64PFR0_EL1, MPIDR_EL1, Readable};
use core::arch::asm;

/// The saved `DAIF` bits of [`irq_save`].
#[derive(Clone, Copy, Debug)]
#[must_use = "interrupts stay masked until the state is restored"]
pub struct IrqState(u64);

impl IrqState {
    /// No interrupt is masked.
    pub const UNMASKED: Self = Self(0);
}

/// `DAIF.I`: IRQs are masked.
const DAIF_I: u64 = 1 << 7;

/// Masks IRQs on this core and returns the previous state.
#[inline(always)]
pub fn irq_save() -> IrqState {
    let daif;
    // SAFETY: masking IRQs affects only when handlers run. Not `nomem`, so that no access of the
    // critical section moves above it.
    unsafe {
        asm!("mrs {}, daif", "msr daifset, #2", out(reg) daif, options(nostack, preserves_flags));
    };
    IrqState(daif)
}

/// Puts back the state [`irq_save`] returned. Pairs nest.
#[inline(always)]
pub fn irq_restore(state: IrqState) {
    // SAFETY: restores a DAIF value read from this core. Not `nomem`, as above.
    unsafe { asm!("msr daif, {}", in(reg) state.0, options(nostack, preserves_flags)) };
}

/// Unmasks IRQs on this core.
#[inline(always)]
pub fn irq_enable() {
    // SAFETY: handlers are installed before the first call; see the boot order.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
}

/// Unmasks SErrors, asynchronous external aborts among them, on this core.
#[inline(always)]
pub fn serror_enable() {
    // SAFETY: as for `irq_enable`.
    unsafe {
        asm!("msr daifclr, #4", options(nostack, preserves_flags));
    }
}

/// Whether IRQs are masked on this core.
#[inline(always)]
pub fn irqs_masked() -> bool {
    let daif: u64;
    // SAFETY: reading DAIF has no side effect.
    unsafe { asm!("mrs {}, daif", out(reg) daif, options(nomem, nostack, preserves_flags)) };
    daif & DAIF_I != 0
}

/// `WFI`: sleeps until an interrupt is pending, masked or not.
#[inline(always)]
pub fn wait_for_interrupt() {
    aarch64_cpu::asm::wfi();
}

/// `WFE`: sleeps until an event (another core's `SEV`, a spin lock's release) or an interrupt.
#[inline(always)]
pub fn wait_for_event() {
    aarch64_cpu::asm::wfe();
}

/// `SEV`: wakes every core waiting in `WFE`, which then sees every earlier store of this one.
#[inline(always)]
pub fn send_event() {
    // An event travels outside the memory system: it may overtake the store it announces.
    barrier::dsb_ishst();
    aarch64_cpu::asm::sev();
}

/// The affinity fields of `MPIDR_EL1` (Aff3, Aff2, Aff1, Aff0), which name the core in the device
/// tree and to PSCI.
#[inline]
pub fn affinity() -> u64 {
    MPIDR_EL1.get() & AFFINITY_MASK
}

/// The bits of `MPIDR_EL1` that hold affinity fields.
pub const AFFINITY_MASK: u64 = 0xFF_00FF_FFFF;

/// Whether the core has the system register interface of a GICv3 or later.
pub fn has_gic_system_registers() -> bool {
    /// `ID_AA64PFR0_EL1.GIC`, bits 27:24 (aarch64-cpu does not name the field).
    const GIC: u64 = 0xF << 24;
    ID_AA64PFR0_EL1.get() & GIC != 0
}
