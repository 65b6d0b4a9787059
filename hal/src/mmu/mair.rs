//! Memory types and the `MAIR_EL1` value that gives them meaning.

use core::fmt;

/// How the CPU treats a mapping: cached, gathered, reordered or none of it.
///
/// The discriminant is the `AttrIndx` of a descriptor (Arm ARM D8.5.2) and selects the byte of
/// [`MAIR_EL1`] with the same index. The type belongs to the frame: two live mappings of one frame
/// always have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MemoryType {
    /// Normal, inner and outer write-back, read and write allocate. The only cached type.
    NormalWriteBack = 0,
    /// Normal non-cacheable: unaligned access, `DC ZVA` and write gathering are legal, exclusive
    /// accesses are not.
    NormalNonCacheable = 1,
    /// Device, no gathering, no reordering, early write acknowledgement.
    DeviceNgnre = 2,
    /// Device, no gathering, no reordering, no early write acknowledgement.
    DeviceNgnrne = 3,
}

impl MemoryType {
    /// Every memory type, by attribute index.
    pub const ALL: [Self; 4] = [
        Self::NormalWriteBack,
        Self::NormalNonCacheable,
        Self::DeviceNgnre,
        Self::DeviceNgnrne,
    ];

    /// The attribute byte as `MAIR_EL1` and `PAR_EL1.ATTR` encode it (Arm ARM D24.2.109).
    pub const fn attr(self) -> u8 {
        match self {
            Self::NormalWriteBack => 0xFF,
            Self::NormalNonCacheable => 0x44,
            Self::DeviceNgnre => 0x04,
            Self::DeviceNgnrne => 0x00,
        }
    }

    /// The memory type with attribute byte `attr`, if it is one of ours.
    pub fn from_attr(attr: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.attr() == attr)
    }

    /// The memory type with attribute index `index`, if `MAIR_EL1` defines it.
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::NormalWriteBack),
            1 => Some(Self::NormalNonCacheable),
            2 => Some(Self::DeviceNgnre),
            3 => Some(Self::DeviceNgnrne),
            _ => None,
        }
    }

    /// Whether accesses may be held in a cache.
    pub const fn is_cacheable(self) -> bool {
        matches!(self, Self::NormalWriteBack)
    }

    /// Whether the type is one of the Device types: unaligned accesses fault.
    pub const fn is_device(self) -> bool {
        matches!(self, Self::DeviceNgnre | Self::DeviceNgnrne)
    }
}

impl fmt::Display for MemoryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NormalWriteBack => "Normal-WB",
            Self::NormalNonCacheable => "Normal-NC",
            Self::DeviceNgnre => "Device-nGnRE",
            Self::DeviceNgnrne => "Device-nGnRnE",
        })
    }
}

/// The value of `MAIR_EL1`: one attribute byte per [`MemoryType`].
pub const MAIR_EL1: u64 = {
    let mut mair = 0;
    let mut index = 0;
    while index < MemoryType::ALL.len() {
        mair |= (MemoryType::ALL[index].attr() as u64) << (8 * MemoryType::ALL[index] as u64);
        index += 1;
    }
    mair
};

// The boot assembly loads the same literal; some of aarch64-cpu 11.2's MAIR constants are wrong.
const _: () = assert!(MAIR_EL1 == 0x0004_44FF);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_attr_and_type_agree() {
        for ty in MemoryType::ALL {
            assert_eq!(MemoryType::from_index(ty as u8), Some(ty));
            assert_eq!(MemoryType::from_attr(ty.attr()), Some(ty));
            assert_eq!((MAIR_EL1 >> (8 * ty as u32)) as u8, ty.attr());
        }
        assert_eq!(MemoryType::from_attr(0xBB), None);
        assert_eq!(MemoryType::from_index(4), None);
    }
}
