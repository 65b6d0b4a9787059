//! Reads of the system registers that describe the executing core and its translation regime.
//!
//! One function per register. Reading has no side effect, so all may be called in any context; the
//! value is that of the core the call runs on. Only for reports and checks: the boot code sets
//! these registers before the first Rust runs, and nothing changes them after.

use super::{barrier, cache_size, cpu};
use aarch64_cpu::registers::{
    CCSIDR_EL1, CLIDR_EL1, CSSELR_EL1, CurrentEL, ID_AA64MMFR0_EL1, ID_AA64MMFR2_EL1, MAIR_EL1,
    MIDR_EL1, Readable, SCTLR_EL1, SPSel, TCR_EL1, TTBR0_EL1, TTBR1_EL1, VBAR_EL1, Writeable,
};
use core::arch::asm;

/// `CurrentEL.EL`: the exception level, 0 to 3.
pub fn current_el() -> u8 {
    CurrentEL.read(CurrentEL::EL) as u8
}

/// `SPSel.SP`: whether `SP` is the stack pointer of the exception level and not `SP_EL0`.
pub fn uses_own_stack_pointer() -> bool {
    SPSel.is_set(SPSel::SP)
}

/// `SCTLR_EL1`: MMU, caches, alignment checks, execute-never for writable memory.
pub fn sctlr_el1() -> u64 {
    SCTLR_EL1.get()
}

/// `MAIR_EL1`: what each attribute index of a descriptor means.
pub fn mair_el1() -> u64 {
    MAIR_EL1.get()
}

/// `TCR_EL1`: address sizes, granules and attributes of both translation table walks.
pub fn tcr_el1() -> u64 {
    TCR_EL1.get()
}

/// `TTBR0_EL1`: the root table of the lower half.
pub fn ttbr0_el1() -> u64 {
    TTBR0_EL1.get()
}

/// `TTBR1_EL1`: the root table of the upper half.
pub fn ttbr1_el1() -> u64 {
    TTBR1_EL1.get()
}

/// `VBAR_EL1`: where the exception vectors are.
pub fn vbar_el1() -> u64 {
    VBAR_EL1.get()
}

/// `MIDR_EL1`: implementer, part and revision of the core.
pub fn midr_el1() -> u64 {
    MIDR_EL1.get()
}

/// `ID_AA64MMFR0_EL1.PARange`: how wide physical addresses are, coded as in `TCR_EL1.IPS`.
pub fn pa_range() -> u8 {
    ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange) as u8
}

/// Arm's Cortex-A53, A57, A72 and A73: bits 31:24 and 15:4 of `MIDR_EL1`.
const PARTS_WITH_CPUECTLR: [u64; 4] = [0xD03, 0xD07, 0xD08, 0xD09];
const IMPLEMENTER_ARM: u64 = 0x41;

/// `CPUECTLR_EL1` (`S3_1_C15_C2_1`), or `None` on a core that is not known to have it. Bit 6 is
/// SMPEN: the core takes part in coherency (Cortex-A72 TRM 4.3.70).
pub fn cpuectlr_el1() -> Option<u64> {
    let midr = midr_el1();
    if midr >> 24 != IMPLEMENTER_ARM || !PARTS_WITH_CPUECTLR.contains(&(midr >> 4 & 0xFFF)) {
        return None;
    }
    let cpuectlr;
    // SAFETY: the register exists on the parts just checked, and reading it at EL1 neither traps
    // nor has a side effect.
    unsafe {
        asm!("mrs {}, S3_1_C15_C2_1", out(reg) cpuectlr, options(nomem, nostack, preserves_flags));
    }
    Some(cpuectlr)
}

/// Bytes in the largest cache of this core that holds data, 0 if there is none: of all levels, the
/// caches of `CLIDR_EL1` as `CCSIDR_EL1` describes them.
pub fn largest_data_cache() -> usize {
    let clidr = CLIDR_EL1.get();
    let is_wide = ID_AA64MMFR2_EL1.read(ID_AA64MMFR2_EL1::CCIDX) != 0;
    let levels = (1..=cache_size::LEVELS).filter(|&level| cache_size::has_data_cache(clidr, level));
    let sizes = levels.map(|level| {
        // An interrupt handler may not select another cache in between.
        let irq = cpu::irq_save();
        // The level counts from 0, above the bit that would select the instruction cache.
        CSSELR_EL1.set(u64::from(level - 1) << 1);
        barrier::isb();
        let ccsidr = CCSIDR_EL1.get();
        cpu::irq_restore(irq);
        cache_size::bytes(ccsidr, is_wide)
    });
    sizes.max().unwrap_or(0)
}
