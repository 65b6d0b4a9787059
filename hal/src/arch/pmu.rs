//! The performance monitor of the executing core: instructions and cycles (Arm ARM, "The
//! Performance Monitors Extension" and the descriptions of the `PM*_EL0` registers).
//!
//! Every register here is the core's own, so a measurement starts, runs and ends on one core: the
//! counters cannot be sent to another. What is measured is the difference of two reads; nothing
//! interrupts when a counter wraps. The boot code lets EL1 have all counters (`MDCR_EL2.HPMN`).

use aarch64_cpu::registers::{ID_AA64DFR0_EL1, Readable};
use core::arch::asm;
use core::marker::PhantomData;

/// Event `INST_RETIRED`: instructions architecturally executed.
const INST_RETIRED: u64 = 0x08;

/// `ID_AA64DFR0_EL1.PMUVer`, bits 11:8: 0 is no monitor, 0xF one of another architecture.
const PMUVER_SHIFT: u32 = 8;
const PMUVER_MASK: u64 = 0xF;
const PMUVER_OTHER: u64 = 0xF;

/// `PMCR_EL0.N`, bits 15:11: event counters there are for EL1.
const PMCR_N_SHIFT: u32 = 11;
const PMCR_N_MASK: u64 = 0x1F;
/// `PMCR_EL0.E`: the counters run.
const PMCR_E: u64 = 1 << 0;
/// `PMCR_EL0.D`: every 64th cycle counts.
const PMCR_D: u64 = 1 << 3;
/// `PMCR_EL0.LC`: the cycle counter has 64 bits.
const PMCR_LC: u64 = 1 << 6;

/// `PMCNTENSET_EL0`: event counter 0 and the cycle counter.
const COUNTER_0: u64 = 1 << 0;
const CYCLE_COUNTER: u64 = 1 << 31;

macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: the register exists where there is a monitor, and reading it has no side effect.
        unsafe {
            asm!(concat!("mrs {}, ", $register), out(reg) value,
                options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

macro_rules! write {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the register exists where there is a monitor, and decides only what is counted.
        unsafe {
            asm!(concat!("msr ", $register, ", {}"), in(reg) value,
                options(nomem, nostack, preserves_flags));
        }
    }};
}

/// Whether the core has a monitor whose registers EL1 may use.
fn is_present() -> bool {
    let version = ID_AA64DFR0_EL1.get() >> PMUVER_SHIFT & PMUVER_MASK;
    version != 0 && version != PMUVER_OTHER
}

/// A counter of instructions: event counter 0 of the core it was started on.
#[derive(Debug)]
pub struct InstructionCounter(PhantomData<*const ()>);

impl InstructionCounter {
    /// Starts the counter of this core, for everything that runs at EL1 and EL0. `None` where the
    /// core has none for EL1 or does not count instructions with it: an emulator that translates
    /// does so only when asked (QEMU: `-icount`).
    pub fn start() -> Option<Self> {
        if !is_present()
            || read!("pmcr_el0") >> PMCR_N_SHIFT & PMCR_N_MASK == 0
            || read!("pmceid0_el0") & 1 << INST_RETIRED == 0
        {
            return None;
        }
        write!("pmevtyper0_el0", INST_RETIRED);
        write!("pmcntenset_el0", COUNTER_0);
        write!("pmcr_el0", read!("pmcr_el0") | PMCR_E);
        super::barrier::isb();
        Some(Self(PhantomData))
    }

    /// Instructions executed so far, modulo 2^32: `PMEVCNTR0_EL0`.
    ///
    /// Every instruction before the call counts and none after it does.
    #[inline(always)]
    pub fn read(&self) -> u32 {
        let count: u64;
        // SAFETY: reading has no side effect. Not `nomem`, so that no access of the measured code
        // moves across; the barriers keep the core from executing any of it across.
        unsafe {
            asm!("isb", "mrs {}, pmevcntr0_el0", "isb", out(reg) count,
                options(nostack, preserves_flags));
        }
        count as u32
    }
}

/// The counter of cycles of the core it was started on.
#[derive(Debug)]
pub struct CycleCounter(PhantomData<*const ()>);

impl CycleCounter {
    /// Starts the counter of this core, for everything that runs at EL1 and EL0. `None` where there
    /// is none for EL1.
    pub fn start() -> Option<Self> {
        if !is_present() {
            return None;
        }
        write!("pmccfiltr_el0", 0);
        write!("pmcntenset_el0", CYCLE_COUNTER);
        write!("pmcr_el0", read!("pmcr_el0") & !PMCR_D | PMCR_LC | PMCR_E);
        super::barrier::isb();
        Some(Self(PhantomData))
    }

    /// Cycles passed so far: `PMCCNTR_EL0`. Ordered like [`InstructionCounter::read`].
    #[inline(always)]
    pub fn read(&self) -> u64 {
        let count;
        // SAFETY: as for instructions.
        unsafe {
            asm!("isb", "mrs {}, pmccntr_el0", "isb", out(reg) count,
                options(nostack, preserves_flags));
        }
        count
    }
}

/// Executes a loop of exactly two instructions `rounds` times; `rounds` is not 0. What a counter
/// of instructions shows for it says whether the counter can be believed.
#[inline(always)]
pub fn count_down(rounds: u64) {
    debug_assert_ne!(rounds, 0);
    // SAFETY: counts a register down.
    unsafe {
        asm!("2: subs {0}, {0}, #1", "b.ne 2b", inout(reg) rounds => _,
            options(nomem, nostack));
    }
}

/// As [`count_down`], with ten `NOP` more in each round.
#[inline(always)]
pub fn count_down_over_nops(rounds: u64) {
    debug_assert_ne!(rounds, 0);
    // SAFETY: as above.
    unsafe {
        asm!("2: .rept 10", "nop", ".endr", "subs {0}, {0}, #1", "b.ne 2b",
            inout(reg) rounds => _, options(nomem, nostack));
    }
}

/// Makes the compiler forget what it knows of `value`, at no instruction: a measured loop then
/// computes from it anew in every round, as a caller with a new value would.
#[inline(always)]
pub fn opaque(value: usize) -> usize {
    let mut value = value;
    // SAFETY: the block is empty.
    unsafe {
        asm!("/* {} */", inout(reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}
