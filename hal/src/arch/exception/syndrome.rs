//! Decoding of `ESR_EL1` (Arm ARM D24.2.40).

use core::fmt;

/// A value of `ESR_EL1`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Syndrome(u64);

/// Why an exception was taken: the exception class with the part of the instruction-specific
/// syndrome that matters for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// EC 0x00: the instruction is undefined, or there is no better class for it.
    Undefined,
    /// EC 0x07: a floating-point or SIMD instruction while `CPACR_EL1` traps them.
    FloatingPointTrapped,
    /// EC 0x0E: `PSTATE.IL` was set, as after an exception return with a bad `SPSR_EL1`.
    IllegalState,
    /// EC 0x15: `SVC` with its immediate.
    Svc(u16),
    /// EC 0x16: `HVC` with its immediate.
    Hvc(u16),
    /// EC 0x17: `SMC` with its immediate.
    Smc(u16),
    /// EC 0x18: an `MSR`, `MRS` or system instruction that is trapped.
    SystemRegisterTrapped,
    /// EC 0x20, 0x21: an instruction fetch failed.
    InstructionAbort(InstructionAbort),
    /// EC 0x22: the program counter is not a multiple of 4.
    PcAlignment,
    /// EC 0x24, 0x25: a load, store, or cache maintenance by address failed.
    DataAbort(DataAbort),
    /// EC 0x26: the stack pointer is not a multiple of 16.
    SpAlignment,
    /// EC 0x2F: an SError, that is an asynchronous external abort. The syndrome is
    /// implementation defined on cores without the RAS extension, such as the Cortex-A72.
    SError {
        /// ISS, bits 24:0.
        iss: u32,
    },
    /// EC 0x30 to 0x35: a hardware breakpoint, a software step or a watchpoint.
    HardwareDebug {
        /// The exception class.
        class: u8,
    },
    /// EC 0x3C: `BRK` with its immediate.
    Brk(u16),
    /// Any other class.
    Other {
        /// The exception class.
        class: u8,
        /// ISS, bits 24:0.
        iss: u32,
    },
}

/// The syndrome of an instruction abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionAbort {
    /// IFSC: what failed.
    pub status: FaultStatus,
    /// `!FnV`: whether `FAR_EL1` holds the address of the access.
    pub far_valid: bool,
}

/// The syndrome of a data abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAbort {
    /// DFSC: what failed.
    pub status: FaultStatus,
    /// CM and WnR: what kind of access failed.
    pub access: Access,
    /// `!FnV`: whether `FAR_EL1` holds the address of the access.
    pub far_valid: bool,
}

/// What an access was trying to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// A `DC`, `IC` or `AT` instruction. WnR reads as one for these.
    Maintenance,
    /// An instruction fetch.
    Fetch,
}

/// A fault status code: DFSC, IFSC, and the same coding in `PAR_EL1.FST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultStatus {
    /// An output address of the walk is wider than `TCR_EL1.IPS` allows.
    AddressSize {
        /// Level of the descriptor.
        level: u8,
    },
    /// There is no valid descriptor.
    Translation {
        /// Level of the invalid descriptor.
        level: u8,
    },
    /// The descriptor's access flag is clear.
    AccessFlag {
        /// Level of the descriptor.
        level: u8,
    },
    /// The descriptor forbids the access.
    Permission {
        /// Level of the descriptor.
        level: u8,
    },
    /// The bus answered the access with an error: nothing is there, or it refuses.
    ExternalAbort,
    /// The bus answered a descriptor fetch with an error.
    ExternalAbortOnWalk {
        /// Level of the descriptor.
        level: u8,
    },
    /// Parity or ECC error in the memory system.
    Parity,
    /// Parity or ECC error in a descriptor fetch.
    ParityOnWalk {
        /// Level of the descriptor.
        level: u8,
    },
    /// The access is not aligned as its memory type and instruction demand.
    Alignment,
    /// Two TLB entries match: a mapping was changed without break-before-make.
    TlbConflict,
    /// An exclusive or atomic access to memory that does not support it, as Normal non-cacheable
    /// and Device memory may not (implementation defined).
    UnsupportedExclusive,
    /// A code without a name here.
    Other(u8),
}

impl FaultStatus {
    /// Decodes a six-bit fault status code; higher bits are ignored.
    pub const fn from_code(code: u8) -> Self {
        let code = code & 0x3F;
        let level = code & 0b11;
        match code {
            0b00_0000..=0b00_0011 => Self::AddressSize { level },
            0b00_0100..=0b00_0111 => Self::Translation { level },
            0b00_1000..=0b00_1011 => Self::AccessFlag { level },
            0b00_1100..=0b00_1111 => Self::Permission { level },
            0b01_0000 => Self::ExternalAbort,
            0b01_0100..=0b01_0111 => Self::ExternalAbortOnWalk { level },
            0b01_1000 => Self::Parity,
            0b01_1100..=0b01_1111 => Self::ParityOnWalk { level },
            0b10_0001 => Self::Alignment,
            0b11_0000 => Self::TlbConflict,
            0b11_0101 => Self::UnsupportedExclusive,
            _ => Self::Other(code),
        }
    }
}

impl Syndrome {
    const EC_SHIFT: u32 = 26;
    const EC_MASK: u64 = 0x3F;
    const ISS_MASK: u64 = (1 << 25) - 1;
    /// ISS.IFSC and ISS.DFSC, bits 5:0.
    const STATUS_MASK: u64 = 0x3F;
    /// ISS.WnR: the access was a write.
    const WNR: u64 = 1 << 6;
    /// ISS.CM: the access was cache maintenance or address translation.
    const CM: u64 = 1 << 8;
    /// ISS.FnV: `FAR_EL1` is not valid.
    const FNV: u64 = 1 << 10;

    /// Wraps a raw register value.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw register value.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// EC: the exception class, bits 31:26.
    pub const fn class(self) -> u8 {
        ((self.0 >> Self::EC_SHIFT) & Self::EC_MASK) as u8
    }

    /// ISS: the instruction-specific syndrome, bits 24:0.
    pub const fn iss(self) -> u32 {
        (self.0 & Self::ISS_MASK) as u32
    }

    /// The cause in words.
    pub const fn cause(self) -> Cause {
        let class = self.class();
        let immediate = self.0 as u16;
        match class {
            0x00 => Cause::Undefined,
            0x07 => Cause::FloatingPointTrapped,
            0x0E => Cause::IllegalState,
            0x15 => Cause::Svc(immediate),
            0x16 => Cause::Hvc(immediate),
            0x17 => Cause::Smc(immediate),
            0x18 => Cause::SystemRegisterTrapped,
            0x20 | 0x21 => Cause::InstructionAbort(InstructionAbort {
                status: self.status(),
                far_valid: self.far_valid(),
            }),
            0x22 => Cause::PcAlignment,
            0x24 | 0x25 => Cause::DataAbort(DataAbort {
                status: self.status(),
                access: self.data_access(),
                far_valid: self.far_valid(),
            }),
            0x26 => Cause::SpAlignment,
            0x2F => Cause::SError { iss: self.iss() },
            0x30..=0x35 => Cause::HardwareDebug { class },
            0x3C => Cause::Brk(immediate),
            _ => Cause::Other {
                class,
                iss: self.iss(),
            },
        }
    }

    const fn status(self) -> FaultStatus {
        FaultStatus::from_code((self.0 & Self::STATUS_MASK) as u8)
    }

    const fn far_valid(self) -> bool {
        self.0 & Self::FNV == 0
    }

    const fn data_access(self) -> Access {
        if self.0 & Self::CM != 0 {
            Access::Maintenance
        } else if self.0 & Self::WNR != 0 {
            Access::Write
        } else {
            Access::Read
        }
    }
}

impl fmt::Debug for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Syndrome({:#x})", self.0)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Maintenance => "cache maintenance",
            Self::Fetch => "instruction fetch",
        })
    }
}

impl fmt::Display for FaultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressSize { level } => write!(f, "address size fault (level {level})"),
            Self::Translation { level } => write!(f, "translation fault (level {level})"),
            Self::AccessFlag { level } => write!(f, "access flag fault (level {level})"),
            Self::Permission { level } => write!(f, "permission fault (level {level})"),
            Self::ExternalAbort => f.write_str("synchronous external abort"),
            Self::ExternalAbortOnWalk { level } => {
                write!(f, "external abort on a table walk (level {level})")
            }
            Self::Parity => f.write_str("parity or ECC error"),
            Self::ParityOnWalk { level } => {
                write!(f, "parity or ECC error on a table walk (level {level})")
            }
            Self::Alignment => f.write_str("alignment fault"),
            Self::TlbConflict => f.write_str("TLB conflict"),
            Self::UnsupportedExclusive => f.write_str("unsupported exclusive or atomic access"),
            Self::Other(code) => write!(f, "fault with status {code:#04x}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined => f.write_str("undefined instruction"),
            Self::FloatingPointTrapped => f.write_str("floating-point instruction trapped"),
            Self::IllegalState => f.write_str("illegal execution state"),
            Self::Svc(immediate) => write!(f, "SVC #{immediate:#x}"),
            Self::Hvc(immediate) => write!(f, "HVC #{immediate:#x}"),
            Self::Smc(immediate) => write!(f, "SMC #{immediate:#x}"),
            Self::SystemRegisterTrapped => f.write_str("system register access trapped"),
            Self::InstructionAbort(abort) => abort.status.fmt(f),
            Self::PcAlignment => f.write_str("misaligned program counter"),
            Self::DataAbort(abort) => abort.status.fmt(f),
            Self::SpAlignment => f.write_str("misaligned stack pointer"),
            Self::SError { iss } => {
                write!(f, "SError (asynchronous external abort), syndrome {iss:#x}")
            }
            Self::HardwareDebug { class } => write!(f, "debug exception, class {class:#x}"),
            Self::Brk(immediate) => write!(f, "BRK #{immediate:#x}"),
            Self::Other { class, iss } => {
                write!(f, "exception class {class:#x}, syndrome {iss:#x}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(esr: u64) -> Cause {
        Syndrome::new(esr).cause()
    }

    #[test]
    fn data_aborts() {
        // What QEMU's Cortex-A72 gives for an unaligned load with the MMU off.
        assert_eq!(
            cause(0x9600_0021),
            Cause::DataAbort(DataAbort {
                status: FaultStatus::Alignment,
                access: Access::Read,
                far_valid: true,
            })
        );
        // A store to an unmapped page, level 3.
        assert_eq!(
            cause(0x9600_0047),
            Cause::DataAbort(DataAbort {
                status: FaultStatus::Translation { level: 3 },
                access: Access::Write,
                far_valid: true,
            })
        );
        // A store to a read-only page, from a lower exception level (EC 0x24).
        assert_eq!(
            cause(0x9200_004F),
            Cause::DataAbort(DataAbort {
                status: FaultStatus::Permission { level: 3 },
                access: Access::Write,
                far_valid: true,
            })
        );
        // DC CVAC to an unmapped page, level 2: CM and WnR set.
        assert_eq!(
            cause(0x9600_0146),
            Cause::DataAbort(DataAbort {
                status: FaultStatus::Translation { level: 2 },
                access: Access::Maintenance,
                far_valid: true,
            })
        );
        // External abort with FnV set.
        assert_eq!(
            cause(0x9600_0410),
            Cause::DataAbort(DataAbort {
                status: FaultStatus::ExternalAbort,
                access: Access::Read,
                far_valid: false,
            })
        );
    }

    #[test]
    fn every_listed_status_code() {
        for (code, status) in [
            (0x00, FaultStatus::AddressSize { level: 0 }),
            (0x03, FaultStatus::AddressSize { level: 3 }),
            (0x05, FaultStatus::Translation { level: 1 }),
            (0x09, FaultStatus::AccessFlag { level: 1 }),
            (0x0D, FaultStatus::Permission { level: 1 }),
            (0x10, FaultStatus::ExternalAbort),
            (0x15, FaultStatus::ExternalAbortOnWalk { level: 1 }),
            (0x18, FaultStatus::Parity),
            (0x1E, FaultStatus::ParityOnWalk { level: 2 }),
            (0x21, FaultStatus::Alignment),
            (0x30, FaultStatus::TlbConflict),
            (0x35, FaultStatus::UnsupportedExclusive),
            (0x11, FaultStatus::Other(0x11)),
            (0x3D, FaultStatus::Other(0x3D)),
        ] {
            assert_eq!(FaultStatus::from_code(code), status, "{code:#x}");
        }
    }

    #[test]
    fn other_classes() {
        assert_eq!(cause(0x0200_0000), Cause::Undefined);
        assert_eq!(cause(0x1FE0_0000), Cause::FloatingPointTrapped);
        assert_eq!(cause(0x3A00_0000), Cause::IllegalState);
        assert_eq!(cause(0x5600_0007), Cause::Svc(7));
        assert_eq!(cause(0x5A00_0001), Cause::Hvc(1));
        assert_eq!(cause(0x5E00_0000), Cause::Smc(0));
        assert_eq!(cause(0x6230_0000), Cause::SystemRegisterTrapped);
        assert_eq!(
            cause(0x8600_000F),
            Cause::InstructionAbort(InstructionAbort {
                status: FaultStatus::Permission { level: 3 },
                far_valid: true,
            })
        );
        assert_eq!(cause(0x8A00_0000), Cause::PcAlignment);
        assert_eq!(cause(0x9A00_0000), Cause::SpAlignment);
        assert_eq!(cause(0xBF00_0002), Cause::SError { iss: 0x0100_0002 });
        assert_eq!(cause(0xCA00_0022), Cause::HardwareDebug { class: 0x32 });
        assert_eq!(cause(0xF200_03E8), Cause::Brk(1000));
        assert_eq!(
            cause(0xB200_0000),
            Cause::Other {
                class: 0x2C,
                iss: 0
            }
        );
    }
}
