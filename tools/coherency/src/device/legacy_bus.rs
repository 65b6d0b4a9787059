//! The bus of the VideoCore's 32-bit masters (BCM2711 ARM Peripherals, 1.2.4).

use crate::kind::Kind;
use std::ops::Range;

/// Bytes that a master sees of RAM at a time.
pub(super) const GIB: u64 = 1 << 30;

/// Peripherals.
const REGISTERS: Range<u64> = 0x7C00_0000..0x8000_0000;

/// What is at an address of the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// RAM, past the VideoCore's cache.
    Memory(Range<u64>),
    /// Registers of peripherals.
    Registers,
    /// RAM, through the VideoCore's cache: what it holds may be old.
    Alias(Range<u64>),
    /// Nothing that is documented.
    Nothing,
}

impl Place {
    /// The memory at the place, right or wrong.
    pub(super) fn memory(&self) -> Option<&Range<u64>> {
        match self {
            Self::Memory(pa) | Self::Alias(pa) => Some(pa),
            Self::Registers | Self::Nothing => None,
        }
    }

    /// What is wrong with giving it to a master.
    pub(super) fn wrong(&self) -> Option<Kind> {
        match self {
            Self::Memory(_) | Self::Registers => None,
            Self::Alias(_) => Some(Kind::WrongBusAlias),
            Self::Nothing => Some(Kind::DmaOutsideMemory),
        }
    }
}

/// What `len` bytes at `address` are to a master whose uncached window shows GiB number `page` of
/// RAM.
///
/// The windows at 0x0000_0000 and 0x8000_0000 go through the VideoCore's cache. The one at
/// 0x4000_0000 did so on older chips; here an address in it is one of the Arm's, of RAM past the first
/// GiB, which no 32-bit master reaches so.
pub(super) fn place(address: u32, len: u64, page: u8) -> Place {
    let start = u64::from(address);
    let within = start % GIB;
    if within + len > GIB {
        return Place::Nothing;
    }
    let at = |page: u64| page * GIB + within..page * GIB + within + len;
    match start / GIB {
        3 => Place::Memory(at(page.into())),
        0 | 2 => Place::Alias(at(0)),
        _ if REGISTERS.contains(&start) => Place::Registers,
        _ => Place::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_window_is_right() {
        assert_eq!(
            place(0xC000_1000, 0x10, 0),
            Place::Memory(0x1000..0x1010),
            "uncached"
        );
        assert_eq!(
            place(0xC000_1000, 0x10, 3),
            Place::Memory(0xC000_1000..0xC000_1010),
            "moved"
        );
        for alias in [0x0000_1000, 0x8000_1000] {
            assert_eq!(place(alias, 0x10, 3), Place::Alias(0x1000..0x1010));
        }
        assert_eq!(place(0x4000_1000, 0x10, 0), Place::Nothing);
        assert_eq!(place(0x7E20_1000, 4, 0), Place::Registers);
    }

    #[test]
    fn a_window_ends() {
        assert!(place(0xFFFF_FFF0, 0x10, 0).wrong().is_none());
        assert_eq!(
            place(0xFFFF_FFF0, 0x11, 0).wrong(),
            Some(Kind::DmaOutsideMemory)
        );
        assert_eq!(place(0x3FFF_FFF0, 0x11, 0), Place::Nothing);
    }
}
