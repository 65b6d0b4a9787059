//! TLB maintenance, always broadcast to the inner-shareable domain (Arm ARM D8.16).
//!
//! The operand of the by-address forms is `VA[55:12]` in bits 43:0. The barriers around an
//! invalidation belong to the caller: `DSB ISHST` before, `DSB ISH` and `ISB` after.

use crate::addr::{PAGE_SHIFT, VirtAddr};
use core::arch::asm;

const OPERAND_MASK: u64 = (1 << 44) - 1;

/// `TLBI VAALE1IS`: drops last-level entries for the page of `va`, any ASID, on all cores.
#[inline]
pub fn invalidate_last_level(va: VirtAddr) {
    let operand = (va.get() as u64 >> PAGE_SHIFT) & OPERAND_MASK;
    // SAFETY: dropping TLB entries never changes what a valid translation table maps.
    unsafe { asm!("tlbi vaale1is, {}", in(reg) operand, options(nostack, preserves_flags)) };
}

/// `TLBI VAAE1IS`: drops entries of every level for the page of `va`, any ASID, on all cores.
#[inline]
pub fn invalidate_all_levels(va: VirtAddr) {
    let operand = (va.get() as u64 >> PAGE_SHIFT) & OPERAND_MASK;
    // SAFETY: as above.
    unsafe { asm!("tlbi vaae1is, {}", in(reg) operand, options(nostack, preserves_flags)) };
}

/// `TLBI VMALLE1IS`: drops every EL1 entry on all cores.
#[inline]
pub fn invalidate_all() {
    // SAFETY: as above.
    unsafe { asm!("tlbi vmalle1is", options(nostack, preserves_flags)) };
}
