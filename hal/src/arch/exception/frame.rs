//! The registers an exception saves.

use super::{FaultInfo, Syndrome};
use crate::addr::VirtAddr;
use core::fmt;
use core::mem::{offset_of, size_of};

/// What the exception vectors store on the stack before they call Rust, and load again before
/// `ERET`.
///
/// | offset | content |
/// |---|---|
/// | 0 | `x0` to `x30`, 8 bytes each |
/// | 248 | `SP` of the interrupted code |
/// | 256 | `ELR_EL1` |
/// | 264 | `SPSR_EL1` |
/// | 272 | `ESR_EL1` |
/// | 280 | `FAR_EL1` |
///
/// Every pair of neighbours can be stored with one `STP`. The vectors load `x0` to `x30`, `elr`
/// and `spsr` again; changes to the other fields have no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct ExceptionFrame {
    /// General-purpose registers; `x[29]` is the frame pointer, `x[30]` the link register.
    pub x: [u64; 31],
    /// The interrupted code's stack pointer.
    pub sp: u64,
    /// `ELR_EL1`: where the exception was taken and where `ERET` continues.
    pub elr: u64,
    /// `SPSR_EL1`: the interrupted `PSTATE`.
    pub spsr: u64,
    /// `ESR_EL1`; meaningless for IRQs.
    pub esr: u64,
    /// `FAR_EL1`; meaningful for aborts and PC alignment only.
    pub far: u64,
}

// The vector assembly stores to these offsets.
const _: () = {
    assert!(offset_of!(ExceptionFrame, x) == 0);
    assert!(offset_of!(ExceptionFrame, sp) == 248);
    assert!(offset_of!(ExceptionFrame, elr) == 256);
    assert!(offset_of!(ExceptionFrame, spsr) == 264);
    assert!(offset_of!(ExceptionFrame, esr) == 272);
    assert!(offset_of!(ExceptionFrame, far) == 280);
    assert!(size_of::<ExceptionFrame>() == 288);
};

/// Index of the frame pointer in [`ExceptionFrame::x`] (AAPCS64 6.1.1).
const FRAME_POINTER: usize = 29;

impl ExceptionFrame {
    /// The syndrome registers.
    pub fn fault_info(&self) -> FaultInfo {
        FaultInfo {
            esr: Syndrome::new(self.esr),
            far: VirtAddr::new(self.far as usize),
        }
    }

    /// The frame pointer of the interrupted code, where a [`Backtrace`](super::Backtrace) starts.
    pub fn frame_pointer(&self) -> VirtAddr {
        VirtAddr::new(self.x[FRAME_POINTER] as usize)
    }
}

/// All registers, four to a line.
impl fmt::Display for ExceptionFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.x.iter().enumerate() {
            let end = if index % 4 == 3 { '\n' } else { ' ' };
            write!(f, "x{index:<2} {value:016x}{end}")?;
        }
        writeln!(f, "sp  {:016x}", self.sp)?;
        write!(
            f,
            "elr {:016x} spsr {:016x} esr {:016x} far {:016x}",
            self.elr, self.spsr, self.esr, self.far
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dump_shows_every_register_once() {
        let frame = ExceptionFrame {
            x: core::array::from_fn(|index| 0x1000 + index as u64),
            sp: 0x2000,
            elr: 0x2001,
            spsr: 0x2002,
            esr: 0x2003,
            far: 0x2004,
        };
        let dump = frame.to_string();
        assert_eq!(dump.lines().count(), 9);
        for value in (0x1000..0x101F).chain(0x2000..0x2005) {
            assert_eq!(dump.matches(&format!("{value:016x}")).count(), 1);
        }
        assert!(dump.starts_with("x0  0000000000001000 x1  0000000000001001 "));
        assert!(dump.contains("x30 000000000000101e sp  0000000000002000\nelr "));
        assert_eq!(frame.frame_pointer(), VirtAddr::new(0x101D));
    }
}
