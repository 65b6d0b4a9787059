//! Registers of a CPU: what QEMU calls them, and which ones nothing can be said without.

use std::fmt;

/// A register of the CPU that executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// `Xn`.
    X(u8),
    /// `PSTATE`, as `SPSR_ELx` holds it: with `CurrentEL`.
    Cpsr,
    /// `SCTLR_ELn`.
    Sctlr(u8),
    /// `TCR_ELn`.
    Tcr(u8),
    /// `TTBR0_ELn`.
    Ttbr0(u8),
    /// `TTBR1_ELn`.
    Ttbr1(u8),
    /// `MAIR_ELn`.
    Mair(u8),
    /// `HCR_EL2`.
    Hcr,
    /// `CTR_EL0`.
    Ctr,
}

/// The registers of the CPU that executes.
pub trait Registers {
    /// Reads one; `None` if it is not to be had.
    fn read(&mut self, register: Register) -> Option<u64>;
}

impl Register {
    /// As many numbers as [`number`](Self::number) gives.
    pub const COUNT: usize = 49;

    /// A number of its own, below [`COUNT`](Self::COUNT).
    pub const fn number(self) -> usize {
        let (first, level) = match self {
            Self::X(number) => return (number % 31) as usize,
            Self::Cpsr => return 31,
            Self::Hcr => return 32,
            Self::Ctr => return 33,
            Self::Sctlr(level) => (33, level),
            Self::Tcr(level) => (36, level),
            Self::Ttbr0(level) => (39, level),
            Self::Ttbr1(level) => (42, level),
            Self::Mair(level) => (45, level),
        };
        first + level as usize
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let general = (0..31).map(Self::X);
        let levels = (1..=3).flat_map(Self::of_level);
        let others = [Self::Cpsr, Self::Hcr, Self::Ctr];
        general.chain(levels).chain(others)
    }

    /// Those that decide the translations of an exception level.
    const fn of_level(level: u8) -> [Self; 5] {
        [
            Self::Sctlr(level),
            Self::Tcr(level),
            Self::Ttbr0(level),
            Self::Mair(level),
            Self::Ttbr1(level),
        ]
    }

    /// What QEMU may call it: for those of EL1 it leaves the level out where AArch32 has the same.
    pub fn names(self) -> Vec<String> {
        let name = self.to_string();
        let short = match self {
            Self::Cpsr => return vec!["cpsr".to_owned()],
            Self::X(_) => return vec![name.to_lowercase()],
            Self::Hcr | Self::Ctr => true,
            Self::Sctlr(level)
            | Self::Tcr(level)
            | Self::Ttbr0(level)
            | Self::Ttbr1(level)
            | Self::Mair(level) => level == 1,
        };
        let stem = name.split('_').next().filter(|_| short).map(str::to_owned);
        std::iter::once(name).chain(stem).collect()
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X(number) => write!(f, "X{number}"),
            Self::Cpsr => f.write_str("CurrentEL (cpsr)"),
            Self::Sctlr(level) => write!(f, "SCTLR_EL{level}"),
            Self::Tcr(level) => write!(f, "TCR_EL{level}"),
            Self::Ttbr0(level) => write!(f, "TTBR0_EL{level}"),
            Self::Ttbr1(level) => write!(f, "TTBR1_EL{level}"),
            Self::Mair(level) => write!(f, "MAIR_EL{level}"),
            Self::Hcr => f.write_str("HCR_EL2"),
            Self::Ctr => f.write_str("CTR_EL0"),
        }
    }
}

/// What is missing of the registers that a CPU has to have, by whether QEMU gives it out. A level above
/// EL1 that the CPU has, it has whole; `TTBR1_EL2` and `TTBR1_EL3` are of later cores or of none.
pub fn missing(has: impl Fn(Register) -> bool) -> Vec<Register> {
    let always = Register::all().filter(|register| match register {
        Register::X(_) | Register::Cpsr | Register::Ctr => true,
        Register::Hcr => has(Register::Sctlr(2)),
        Register::Ttbr1(level) => *level == 1,
        Register::Sctlr(level)
        | Register::Tcr(level)
        | Register::Ttbr0(level)
        | Register::Mair(level) => *level == 1 || has(Register::Sctlr(*level)),
    });
    always.filter(|&register| !has(register)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_of_one_register_each() {
        let numbers: BTreeSet<_> = Register::all().map(Register::number).collect();
        assert_eq!(numbers.len(), Register::all().count());
        assert!(numbers.iter().all(|&number| number < Register::COUNT));
    }

    #[test]
    fn names_as_qemu_has_them() {
        assert_eq!(Register::X(30).names(), ["x30"]);
        assert_eq!(Register::Cpsr.names(), ["cpsr"]);
        assert_eq!(Register::Sctlr(1).names(), ["SCTLR_EL1", "SCTLR"]);
        assert_eq!(Register::Sctlr(2).names(), ["SCTLR_EL2"]);
        assert_eq!(Register::Ttbr0(1).names(), ["TTBR0_EL1", "TTBR0"]);
        assert_eq!(Register::Ctr.names(), ["CTR_EL0", "CTR"]);
    }

    #[test]
    fn without_one_of_el1_nothing_is_started() {
        let is_of_el1 = |register| match register {
            Register::Hcr => false,
            Register::Sctlr(level)
            | Register::Tcr(level)
            | Register::Ttbr0(level)
            | Register::Ttbr1(level)
            | Register::Mair(level) => level == 1,
            _ => true,
        };
        assert_eq!(missing(is_of_el1), []);
        for gone in [
            Register::Cpsr,
            Register::Sctlr(1),
            Register::Tcr(1),
            Register::Ttbr0(1),
            Register::Ttbr1(1),
            Register::Mair(1),
            Register::Ctr,
        ] {
            let found = missing(|register| is_of_el1(register) && register != gone);
            assert_eq!(found, [gone]);
        }
    }

    #[test]
    fn a_higher_level_is_there_whole_or_not_at_all() {
        let is_later = |register| matches!(register, Register::Ttbr1(2 | 3));
        assert_eq!(missing(|register| !is_later(register)), []);
        for gone in [Register::Hcr, Register::Mair(2), Register::Tcr(3)] {
            let found = missing(|register| !is_later(register) && register != gone);
            assert_eq!(found, [gone]);
        }
        // QEMU shows a `MAIR_EL3` where there is no EL3.
        let missing = missing(|register| {
            !is_later(register)
                && !matches!(
                    register,
                    Register::Sctlr(3) | Register::Tcr(3) | Register::Ttbr0(3)
                )
        });
        assert_eq!(missing, []);
    }
}
