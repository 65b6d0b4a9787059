//! Exceptions in words: what happened, where, and in which window of the address space.
//!
//! The vectors store an [`ExceptionFrame`] and hand it to Rust; everything here is decoding and
//! printing, so it is the same code on the host. Addresses are printed as numbers and resolved to
//! symbols by whoever holds the ELF file.

pub mod backtrace;
mod frame;
mod report;
mod syndrome;

pub use backtrace::Backtrace;
pub use frame::ExceptionFrame;
pub use report::FaultReport;
pub use syndrome::{Access, Cause, DataAbort, FaultStatus, InstructionAbort, Syndrome};

use crate::addr::VirtAddr;

/// What a faulting access left in the syndrome registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultInfo {
    /// `ESR_EL1`.
    pub esr: Syndrome,
    /// `FAR_EL1`.
    pub far: VirtAddr,
}
