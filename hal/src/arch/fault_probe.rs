//! Accesses that report a fault instead of ending the program.
//!
//! A probe is one load or store in a code range of its own. When it faults, the exception
//! handler calls [`resume`], which puts the syndrome into the registers the probe returns and
//! continues after it, so the caller gets the syndrome as a value. No memory is involved.
//!
//! Probes are for task context: handlers run on the exception stack, where any fault is fatal.
//!
//! Only synchronous faults can be caught: translation, permission, alignment, and an external
//! abort the core reports synchronously. A store to Device memory may fail later, as an SError.

use super::exception::{ExceptionFrame, FaultInfo, Syndrome};
use crate::addr::VirtAddr;
use core::arch::global_asm;

/// What a probe leaves in `x0` and `x1` (AAPCS64 6.9: a 16-byte structure is returned in both).
#[repr(C)]
struct Outcome {
    /// The value loaded, or `FAR_EL1` of the fault.
    x0: u64,
    /// Zero, or `ESR_EL1` of the fault, which is never zero: an abort's exception class is not.
    x1: u64,
}

impl Outcome {
    fn into_result(self) -> Result<u64, FaultInfo> {
        match self.x1 {
            0 => Ok(self.x0),
            esr => Err(FaultInfo {
                esr: Syndrome::new(esr),
                far: VirtAddr::new(self.x0 as usize),
            }),
        }
    }
}

// Each probe: address in x0, value to store in x1; result as in `Outcome`. Nothing else between
// the outer labels can fault, so the range alone tells a probe's fault from any other.
global_asm!(
    ".pushsection .text.fault_probe, \"ax\"",
    ".balign 4",
    ".global fault_probe_begin, fault_probe_end, fault_probe_fixup",
    ".global fault_probe_read_u8, fault_probe_read_u32, fault_probe_read_u64",
    ".global fault_probe_write_u8, fault_probe_write_u32, fault_probe_write_u64",
    // So that tools know them for functions.
    ".type fault_probe_read_u8, @function",
    ".type fault_probe_read_u32, @function",
    ".type fault_probe_read_u64, @function",
    ".type fault_probe_write_u8, @function",
    ".type fault_probe_write_u32, @function",
    ".type fault_probe_write_u64, @function",
    "fault_probe_begin:",
    "fault_probe_read_u8:",
    "ldrb w0, [x0]",
    "mov x1, xzr",
    "ret",
    "fault_probe_read_u32:",
    "ldr w0, [x0]",
    "mov x1, xzr",
    "ret",
    "fault_probe_read_u64:",
    "ldr x0, [x0]",
    "mov x1, xzr",
    "ret",
    "fault_probe_write_u8:",
    "strb w1, [x0]",
    "mov x1, xzr",
    "ret",
    "fault_probe_write_u32:",
    "str w1, [x0]",
    "mov x1, xzr",
    "ret",
    "fault_probe_write_u64:",
    "str x1, [x0]",
    "mov x1, xzr",
    "ret",
    "fault_probe_end:",
    "fault_probe_fixup:",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    // Labels, not objects: only their addresses are used. They may have the same address, so they
    // are functions and not zero-sized statics.
    fn fault_probe_begin();
    fn fault_probe_end();
    fn fault_probe_fixup();

    fn fault_probe_read_u8(va: VirtAddr) -> Outcome;
    fn fault_probe_read_u32(va: VirtAddr) -> Outcome;
    fn fault_probe_read_u64(va: VirtAddr) -> Outcome;
    fn fault_probe_write_u8(va: VirtAddr, value: u64) -> Outcome;
    fn fault_probe_write_u32(va: VirtAddr, value: u64) -> Outcome;
    fn fault_probe_write_u64(va: VirtAddr, value: u64) -> Outcome;
}

macro_rules! probes {
    (read: $($name:ident, $symbol:ident, $size:literal;)*) => {$(
        #[doc = concat!("Loads ", $size, " from `va`, or says why that is impossible.")]
        ///
        /// `va` need not be mapped nor aligned. Task context only.
        ///
        /// # Errors
        ///
        /// The syndrome of the fault the load took.
        ///
        /// # Safety
        ///
        /// If the load succeeds it is an ordinary load: `va` must not be a device register that
        /// changes when read, unless the caller means it to.
        pub unsafe fn $name(va: VirtAddr) -> Result<u64, FaultInfo> {
            // SAFETY: the probe loads from `va`, as the caller asks, and follows AAPCS64.
            unsafe { $symbol(va) }.into_result()
        }
    )*};
    (write: $($name:ident, $symbol:ident, $size:literal;)*) => {$(
        #[doc = concat!("Stores the low ", $size, " of `value` to `va`, or says why that is impossible.")]
        ///
        /// `va` need not be mapped nor aligned. Task context only.
        ///
        /// # Errors
        ///
        /// The syndrome of the fault the store took.
        ///
        /// # Safety
        ///
        /// If the store succeeds it is an ordinary store: no Rust object may live at `va`.
        pub unsafe fn $name(va: VirtAddr, value: u64) -> Result<(), FaultInfo> {
            // SAFETY: the probe stores to `va`, as the caller asks, and follows AAPCS64.
            unsafe { $symbol(va, value) }.into_result().map(|_| ())
        }
    )*};
}

probes!(read:
    probe_read_u8, fault_probe_read_u8, "one byte";
    probe_read_u32, fault_probe_read_u32, "four bytes";
    probe_read_u64, fault_probe_read_u64, "eight bytes";
);
probes!(write:
    probe_write_u8, fault_probe_write_u8, "byte";
    probe_write_u32, fault_probe_write_u32, "four bytes";
    probe_write_u64, fault_probe_write_u64, "eight bytes";
);

/// Where to continue after a fault at `elr`, if a probe's instruction is there.
pub fn fixup(elr: VirtAddr) -> Option<VirtAddr> {
    let address = |label: unsafe extern "C" fn()| VirtAddr::new(label as usize);
    let probes = address(fault_probe_begin)..address(fault_probe_end);
    probes.contains(&elr).then(|| address(fault_probe_fixup))
}

/// Lets a faulting probe report: makes `frame` return the syndrome to the probe's caller.
///
/// The handler of synchronous exceptions calls this first and returns from the exception if it is
/// `true`. `false` means that the fault is not a probe's; `frame` is unchanged then.
pub fn resume(frame: &mut ExceptionFrame) -> bool {
    let Some(target) = fixup(VirtAddr::new(frame.elr as usize)) else {
        return false;
    };
    frame.x[0] = frame.far;
    frame.x[1] = frame.esr;
    frame.elr = target.get() as u64;
    true
}
