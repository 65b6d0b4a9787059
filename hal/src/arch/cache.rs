//! Cache maintenance by virtual address (Arm ARM D7.5.9).
//!
//! Every function works on whole lines of the size `CTR_EL0` reports and leaves the final barrier
//! to the caller, so that a batch pays for one. The range must be mapped: on hardware an operation
//! on an unmapped address faults (QEMU ignores it).

use crate::addr::VirtAddr;
#[cfg(feature = "seeds")]
use crate::arch::omit;
use core::arch::asm;

/// `CTR_EL0`: line sizes and the cache writeback granule (Arm ARM D24.2.34).
#[inline]
pub fn ctr_el0() -> u64 {
    let ctr;
    // SAFETY: CTR_EL0 is readable at every exception level and the read has no side effect.
    unsafe {
        asm!("mrs {}, ctr_el0", out(reg) ctr, options(pure, nomem, nostack, preserves_flags));
    };
    ctr
}

macro_rules! by_line {
    ($(#[$doc:meta])* $name:ident, $op:literal $(, $operation:ident)?) => {
        $(#[$doc])*
        #[inline]
        pub fn $name(va: VirtAddr) {
            $(
                #[cfg(feature = "seeds")]
                if omit::drops(omit::Operation::$operation) {
                    return;
                }
            )?
            // The asm block is not `nomem`: the compiler must treat the line's bytes as read and
            // written, or it could move an access to the buffer across the operation.
            // SAFETY: maintenance by address never changes what this core itself reads from a line
            // it owns; that the line is mapped and owned is the contract of the calling module.
            unsafe { asm!(concat!($op, ", {}"), in(reg) va.get(), options(nostack, preserves_flags)) };
        }
    };
}

by_line!(
    /// `DC CVAC`: writes the line holding `va` back to the point of coherency, keeping it valid.
    clean_line, "dc cvac", Clean
);
by_line!(
    /// `DC CIVAC`: writes the line holding `va` back to the point of coherency and drops it.
    clean_invalidate_line, "dc civac"
);

/// `DC IVAC`: drops the line holding `va` without writing it back.
///
/// # Safety
///
/// Every byte of the line belongs to the caller and may lose what was stored to it since the last
/// clean: the line must not hold a neighbour's data.
#[inline]
pub unsafe fn invalidate_line(va: VirtAddr) {
    #[cfg(feature = "seeds")]
    if omit::drops(omit::Operation::Invalidate) {
        return;
    }
    // SAFETY: the caller owns the whole line and gives up its dirty bytes.
    unsafe { asm!("dc ivac, {}", in(reg) va.get(), options(nostack, preserves_flags)) };
}

/// `DCZID_EL0`: block size of [`zero_block`], and whether it is prohibited (Arm ARM D24.2.45).
#[inline]
pub fn dczid_el0() -> u64 {
    let dczid;
    // SAFETY: DCZID_EL0 is readable at every exception level and the read has no side effect.
    unsafe {
        asm!("mrs {}, dczid_el0", out(reg) dczid, options(pure, nomem, nostack, preserves_flags));
    };
    dczid
}

/// `DC ZVA`: zeroes the naturally aligned block of [`dczid_el0`]'s size that holds `va`.
///
/// # Safety
///
/// The whole block is Normal memory owned by the caller. On Device memory it faults.
#[inline]
pub unsafe fn zero_block(va: VirtAddr) {
    // SAFETY: the caller owns the block.
    unsafe { asm!("dc zva, {}", in(reg) va.get(), options(nostack, preserves_flags)) };
}
