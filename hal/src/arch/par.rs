//! Decoding of `PAR_EL1`, the result of an address translation instruction (Arm ARM D24.2.135).

use crate::addr::PhysAddr;
use crate::mmu::MemoryType;
use core::fmt;

/// A value of `PAR_EL1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Par(u64);

/// Shareability as `PAR_EL1.SH` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shareability {
    /// Not shareable.
    Non,
    /// Outer shareable: also what every Device and Normal non-cacheable mapping reports.
    Outer,
    /// Inner shareable.
    Inner,
}

impl Par {
    const F: u64 = 1;
    const PA_MASK: u64 = 0x000F_FFFF_FFFF_F000;

    /// Wraps a raw register value.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw register value.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The fault status code, if the translation failed: level and kind as in `ESR_EL1.DFSC`.
    pub const fn fault_status(self) -> Option<u8> {
        if self.0 & Self::F == 0 {
            None
        } else {
            Some((self.0 >> 1) as u8 & 0x3F)
        }
    }

    /// The page the address translates to, if it does.
    pub const fn page(self) -> Option<PhysAddr> {
        if self.0 & Self::F == 0 {
            Some(PhysAddr::new(self.0 & Self::PA_MASK))
        } else {
            None
        }
    }

    /// The memory attribute byte, in `MAIR_EL1` encoding, if the address translates.
    pub const fn attr(self) -> Option<u8> {
        if self.0 & Self::F == 0 {
            Some((self.0 >> 56) as u8)
        } else {
            None
        }
    }

    /// The memory type, if the address translates and the type is one of ours.
    pub fn memory_type(self) -> Option<MemoryType> {
        self.attr().and_then(MemoryType::from_attr)
    }

    /// The shareability, if the address translates.
    pub const fn shareability(self) -> Option<Shareability> {
        if self.0 & Self::F != 0 {
            return None;
        }
        match (self.0 >> 7) & 3 {
            0 => Some(Shareability::Non),
            2 => Some(Shareability::Outer),
            3 => Some(Shareability::Inner),
            _ => None,
        }
    }
}

impl fmt::Display for Par {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.fault_status(), self.memory_type(), self.attr()) {
            (Some(status), ..) => write!(f, "fault {status:#04x}"),
            (None, Some(ty), _) => write!(f, "{ty}"),
            (None, None, attr) => write!(f, "attr {:#04x}", attr.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_qemu_and_the_arm_arm_give() {
        let nc = Par::new(0x4400_0000_4800_0B00 | 2 << 7);
        assert_eq!(nc.memory_type(), Some(MemoryType::NormalNonCacheable));
        assert_eq!(nc.page(), Some(PhysAddr::new(0x4800_0000)));
        assert_eq!(nc.shareability(), Some(Shareability::Outer));
        let unmapped = Par::new(0x80B);
        assert_eq!(unmapped.fault_status(), Some(0x05));
        assert_eq!(unmapped.page(), None);
    }
}
