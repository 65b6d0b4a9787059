//! One translation table entry (Arm ARM D8.3, VMSAv8-64, 4 KiB granule).
//!
//! ```text
//! 63    59 58  55 54  53  52 51  50 49 48 47          12 11 10  9 8  7 6  5  4  2  1  0
//! |  -    | soft |UXN|PXN|C |DBM|GP| -   | output addr  |nG|AF| SH | AP |NS|Attr | T | V|
//! ```
//!
//! The contiguous hint, `nG`, `NS`, dirty tracking and the hierarchical bits of table entries
//! are always 0; `AF` is always 1, so that no access ever takes an access flag fault.

use super::mair::MemoryType;
use super::table::Level;
use crate::addr::PhysAddr;
use crate::arch::par::Shareability;

const VALID: u64 = 1 << 0;
/// At levels 1 and 2 a set bit makes a table, at level 3 it makes a page; clear is a block.
const TABLE_OR_PAGE: u64 = 1 << 1;
const ATTR_INDEX_SHIFT: u32 = 2;
const ATTR_INDEX_MASK: u64 = 0b111;
/// `AP[2]`: read-only. `AP[1]`, access from EL0, is always 0 (Arm ARM D8.4.1.2).
const AP_READ_ONLY: u64 = 1 << 7;
const SH_SHIFT: u32 = 8;
const SH_MASK: u64 = 0b11;
const ACCESS_FLAG: u64 = 1 << 10;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const PERMISSIONS: u64 = AP_READ_ONLY | PXN | UXN;
/// Bits 58:55 are ignored by the hardware and left to software.
const SOFTWARE_SHIFT: u32 = 55;
const SOFTWARE_MASK: u64 = 0b1111;
/// Bits 47:12. Blocks have the bits below their size clear.
const OUTPUT_ADDRESS: u64 = 0x0000_FFFF_FFFF_F000;

/// What the kernel may do with a mapping; EL0 may do nothing.
///
/// Writable and executable cannot be expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Fetch instructions and read.
    ReadExecute,
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

impl Access {
    const fn bits(self) -> u64 {
        match self {
            Self::ReadExecute => AP_READ_ONLY | UXN,
            Self::ReadOnly => AP_READ_ONLY | UXN | PXN,
            Self::ReadWrite => UXN | PXN,
        }
    }
}

impl core::fmt::Display for Access {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::ReadExecute => "R-X",
            Self::ReadOnly => "R--",
            Self::ReadWrite => "RW-",
        })
    }
}

/// How a range of frames is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Cached, gathered, reordered or none of it.
    pub memory_type: MemoryType,
    /// Permissions.
    pub access: Access,
}

impl Attributes {
    /// `memory_type` with `access`.
    pub const fn new(memory_type: MemoryType, access: Access) -> Self {
        Self {
            memory_type,
            access,
        }
    }
}

/// The shareability a mapping of `memory_type` states.
///
/// Cached memory is shared with the other cores. For Device and for Normal inner and outer
/// non-cacheable memory the field has no effect, the memory is always outer shareable (Arm ARM
/// D8.6.2): the entry says so, as `PAR_EL1` will.
const fn shareability(memory_type: MemoryType) -> Shareability {
    if memory_type.is_cacheable() {
        Shareability::Inner
    } else {
        Shareability::Outer
    }
}

const fn shareability_bits(shareability: Shareability) -> u64 {
    let field = match shareability {
        Shareability::Non => 0b00,
        Shareability::Outer => 0b10,
        Shareability::Inner => 0b11,
    };
    field << SH_SHIFT
}

/// One 64-bit entry of a translation table.
///
/// What the bits mean depends on the level of the table the entry lies in, so the questions that
/// need it take a [`Level`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Descriptor(u64);

impl Descriptor {
    /// The entry that maps nothing.
    pub const EMPTY: Self = Self(0);

    /// Wraps the raw value of an entry.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw value.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// An entry that points to the next table, at `table`, a multiple of 4 KiB.
    pub const fn table(table: PhysAddr) -> Self {
        Self((table.get() & OUTPUT_ADDRESS) | TABLE_OR_PAGE | VALID)
    }

    /// An entry of a table of `level` that maps `pa`, a multiple of the level's leaf size: a page
    /// at level 3, a block above.
    pub const fn leaf(level: Level, pa: PhysAddr, attributes: Attributes) -> Self {
        let kind = match level {
            Level::L3 => TABLE_OR_PAGE,
            Level::L1 | Level::L2 => 0,
        };
        Self(
            (pa.get() & OUTPUT_ADDRESS)
                | attributes.access.bits()
                | ACCESS_FLAG
                | shareability_bits(shareability(attributes.memory_type))
                | (attributes.memory_type as u64) << ATTR_INDEX_SHIFT
                | kind
                | VALID,
        )
    }

    /// The same leaf with other permissions.
    #[must_use]
    pub const fn with_access(self, access: Access) -> Self {
        Self(self.0 & !PERMISSIONS | access.bits())
    }

    /// The same leaf with `note`, at most 15, in the bits the hardware leaves to software.
    #[must_use]
    pub const fn with_note(self, note: u8) -> Self {
        debug_assert!(note as u64 <= SOFTWARE_MASK);
        Self(self.0 & !(SOFTWARE_MASK << SOFTWARE_SHIFT) | (note as u64) << SOFTWARE_SHIFT)
    }

    /// The leaf without a note for the `size` bytes that follow in physical addresses, a multiple
    /// of the leaf's size; they do not leave the physical address space.
    #[must_use]
    pub const fn following(self, size: usize) -> Self {
        Self(self.0.wrapping_add(size as u64))
    }

    /// What [`with_note`](Self::with_note) put there, else 0.
    pub const fn note(self) -> u8 {
        (self.0 >> SOFTWARE_SHIFT & SOFTWARE_MASK) as u8
    }

    /// The same leaf made invalid: the hardware ignores all of it, software can still read what
    /// it mapped.
    #[must_use]
    pub const fn retired(self) -> Self {
        Self(self.0 & !VALID)
    }

    /// Whether the entry holds nothing at all. A [`retired`](Self::retired) leaf does not count.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the hardware uses the entry.
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// The next table, if that is what the entry points to.
    pub const fn next_table(self, level: Level) -> Option<PhysAddr> {
        match level {
            Level::L1 | Level::L2 if self.0 & (TABLE_OR_PAGE | VALID) == TABLE_OR_PAGE | VALID => {
                Some(self.output_address())
            }
            _ => None,
        }
    }

    /// Whether the hardware translates through the entry itself: a page at level 3, a block
    /// above. A valid level 3 entry with bit 1 clear is reserved and faults.
    pub const fn is_leaf(self, level: Level) -> bool {
        let is_page = self.0 & TABLE_OR_PAGE != 0;
        self.is_valid() && is_page == matches!(level, Level::L3)
    }

    /// The address the entry points to or maps.
    pub const fn output_address(self) -> PhysAddr {
        PhysAddr::new(self.0 & OUTPUT_ADDRESS)
    }

    /// The memory type of a leaf, or `None` if `MAIR_EL1` gives its index no meaning.
    pub const fn memory_type(self) -> Option<MemoryType> {
        MemoryType::from_index((self.0 >> ATTR_INDEX_SHIFT & ATTR_INDEX_MASK) as u8)
    }

    /// The shareability field of a leaf, or `None` for the reserved value.
    pub const fn shareability(self) -> Option<Shareability> {
        match self.0 >> SH_SHIFT & SH_MASK {
            0b00 => Some(Shareability::Non),
            0b10 => Some(Shareability::Outer),
            0b11 => Some(Shareability::Inner),
            _ => None,
        }
    }

    /// Whether a leaf may be written at any exception level.
    pub const fn is_writable(self) -> bool {
        self.0 & AP_READ_ONLY == 0
    }

    /// Whether instructions may be fetched from a leaf at any exception level.
    pub const fn is_executable(self) -> bool {
        self.0 & (PXN | UXN) != PXN | UXN
    }

    /// The permissions of a leaf, or `None` if this kernel would never give it these.
    pub const fn access(self) -> Option<Access> {
        const READ_EXECUTE: u64 = Access::ReadExecute.bits();
        const READ_ONLY: u64 = Access::ReadOnly.bits();
        const READ_WRITE: u64 = Access::ReadWrite.bits();
        match self.0 & PERMISSIONS {
            READ_EXECUTE => Some(Access::ReadExecute),
            READ_ONLY => Some(Access::ReadOnly),
            READ_WRITE => Some(Access::ReadWrite),
            _ => None,
        }
    }

    /// Type and permissions of a leaf, if they are ones this kernel uses.
    pub const fn attributes(self) -> Option<Attributes> {
        match (self.memory_type(), self.access()) {
            (Some(memory_type), Some(access)) => Some(Attributes::new(memory_type, access)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PA: PhysAddr = PhysAddr::new(0x4020_1000);
    const BLOCK: PhysAddr = PhysAddr::new(0xFF_C000_0000);

    fn page(memory_type: MemoryType, access: Access) -> u64 {
        Descriptor::leaf(Level::L3, PA, Attributes::new(memory_type, access)).raw()
    }

    /// Put together by hand from the field tables of Arm ARM D8.3.1.
    #[test]
    fn encodes_the_layouts_of_the_manual() {
        use {Access::*, MemoryType::*};
        assert_eq!(page(NormalWriteBack, ReadWrite), 0x0060_0000_4020_1703);
        assert_eq!(page(NormalWriteBack, ReadOnly), 0x0060_0000_4020_1783);
        assert_eq!(page(NormalWriteBack, ReadExecute), 0x0040_0000_4020_1783);
        assert_eq!(page(NormalNonCacheable, ReadWrite), 0x0060_0000_4020_1607);
        assert_eq!(page(DeviceNgnre, ReadWrite), 0x0060_0000_4020_160B);
        assert_eq!(page(DeviceNgnrne, ReadWrite), 0x0060_0000_4020_160F);
        let attributes = Attributes::new(NormalWriteBack, ReadWrite);
        for level in [Level::L1, Level::L2] {
            assert_eq!(
                Descriptor::leaf(level, BLOCK, attributes).raw(),
                0x0060_00FF_C000_0701
            );
        }
        assert_eq!(Descriptor::table(PA).raw(), 0x4020_1003);
    }

    #[test]
    fn the_level_decides_between_table_page_and_block() {
        let bits_11 = Descriptor::from_raw(0x4020_1003);
        assert_eq!(bits_11.next_table(Level::L1), Some(PA));
        assert_eq!(bits_11.next_table(Level::L2), Some(PA));
        assert_eq!(bits_11.next_table(Level::L3), None);
        assert!(bits_11.is_leaf(Level::L3) && !bits_11.is_leaf(Level::L2));
        let bits_01 = Descriptor::from_raw(0x4020_0001);
        assert!(bits_01.is_leaf(Level::L1) && bits_01.is_leaf(Level::L2));
        assert!(!bits_01.is_leaf(Level::L3), "reserved: it faults");
        for invalid in [0, 2, 0x4020_1002] {
            let invalid = Descriptor::from_raw(invalid);
            for level in [Level::L1, Level::L2, Level::L3] {
                assert!(!invalid.is_leaf(level) && invalid.next_table(level).is_none());
            }
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for memory_type in MemoryType::ALL {
            for access in [Access::ReadExecute, Access::ReadOnly, Access::ReadWrite] {
                let attributes = Attributes::new(memory_type, access);
                let leaf = Descriptor::leaf(Level::L2, BLOCK, attributes);
                assert_eq!(leaf.attributes(), Some(attributes));
                assert_eq!(leaf.output_address(), BLOCK);
                assert!(!(leaf.is_writable() && leaf.is_executable()));
                let noted = leaf.with_note(10);
                assert_eq!(noted.note(), 10);
                assert_eq!(noted.with_note(0), leaf);
                assert_eq!(noted.retired().output_address(), BLOCK);
                assert!(!noted.retired().is_valid() && !noted.retired().is_empty());
            }
        }
    }

    #[test]
    fn foreign_entries_are_read_as_what_they_are() {
        // AP = 00, UXN = PXN = 0: writable and executable, what an audit must see.
        let bad = Descriptor::from_raw(0x4020_1703);
        assert!(bad.is_writable() && bad.is_executable());
        assert_eq!(bad.access(), None);
        // AttrIndx 5 is not in MAIR_EL1; SH = 01 is reserved.
        let bad = Descriptor::from_raw(0x0060_0000_4020_1517);
        assert_eq!((bad.memory_type(), bad.shareability()), (None, None));
    }

    #[test]
    fn permission_change_keeps_everything_else() {
        let rw = Descriptor::from_raw(page(MemoryType::NormalNonCacheable, Access::ReadWrite));
        assert_eq!(
            rw.with_access(Access::ReadOnly).raw(),
            0x0060_0000_4020_1687
        );
    }
}
