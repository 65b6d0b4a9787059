//! Address translation by instruction: what the MMU itself says of an address.

use super::barrier;
use super::par::Par;
use crate::addr::VirtAddr;
use aarch64_cpu::registers::{PAR_EL1, Readable};
use core::arch::asm;

/// `AT S1E1R`: translates `va` as a read at EL1 and returns `PAR_EL1`.
///
/// Interrupts are masked for the duration, because a handler may translate too. May be called in
/// any context. Permissions and block size are not in `PAR_EL1`; they come from a table walk.
pub fn read_el1(va: VirtAddr) -> Par {
    let irq = super::cpu::irq_save();
    // SAFETY: AT only writes PAR_EL1; a translation that faults is reported there, not taken.
    unsafe { asm!("at s1e1r, {}", in(reg) va.get(), options(nostack, preserves_flags)) };
    barrier::isb();
    let par = PAR_EL1.get();
    super::cpu::irq_restore(irq);
    Par::new(par)
}
