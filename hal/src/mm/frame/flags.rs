//! The flag byte of a pageblock: its migrate type and zone, or why it has no descriptors.

use crate::mm::{MigrateType, ZoneKind};
use crate::mmu::MemoryType;

/// Flag of a pageblock: it has no descriptors of its own.
pub(super) const UNTOUCHED: u8 = 1 << 7;
/// Flag of a pageblock: set aside at boot, it never has descriptors.
pub(super) const SET_ASIDE: u8 = 1 << 5;
/// Flag of a pageblock: a frame of it has been claimed for another memory type than write-back at
/// some time, so that each frame has to be asked.
pub(super) const CLAIMED: u8 = 1 << 6;
/// The memory type of a pageblock that was set aside, within its flags.
const TYPE_MASK: u8 = 0x3;
/// The pageblock's migrate type, within its flags: two bits at the bottom, and one apart that the
/// ordinary types do not have. What lies between is the zone's number. So the flags of a pageblock
/// whose blocks may be kept at hand are the number of a [`Group`], and those of any other are more.
const MIGRATE_LOW: u8 = 0x3;
const MIGRATE_HIGH: u8 = 1 << 4;
pub(super) const MIGRATE_MASK: u8 = MIGRATE_LOW | MIGRATE_HIGH;
const MIGRATE_HIGH_SHIFT: u32 = 2;
pub(super) const ZONE_SHIFT: u32 = 2;

/// The flags for a migrate type.
pub(super) const fn migrate_bits(migrate: MigrateType) -> u8 {
    let number = migrate as u8;
    number & MIGRATE_LOW | (number & !MIGRATE_LOW) << MIGRATE_HIGH_SHIFT
}

/// The migrate type in the flags of a pageblock.
pub(super) const fn migrate_of(flags: u8) -> MigrateType {
    MigrateType::from_index(flags & MIGRATE_LOW | (flags & MIGRATE_HIGH) >> MIGRATE_HIGH_SHIFT)
}

/// A zone and a migrate type whose blocks a core may keep at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) struct Group(pub(super) u8);

impl Group {
    /// One more than the highest number.
    pub(in crate::mm) const COUNT: usize = ZoneKind::COUNT << ZONE_SHIFT;

    /// The number of the group of the first migrate type of `zone`.
    pub(in crate::mm) const fn first_of(zone: ZoneKind) -> u8 {
        (zone as u8) << ZONE_SHIFT
    }

    /// The group's number, below [`COUNT`](Self::COUNT).
    #[inline(always)]
    pub(in crate::mm) fn number(self) -> usize {
        usize::from(self.0)
    }
}

const _: () = assert!(Group::COUNT <= MIGRATE_HIGH as usize);

/// The memory type in the flags of a pageblock that was set aside.
pub(super) fn set_aside_type(flags: u8) -> MemoryType {
    MemoryType::from_index(flags & TYPE_MASK).unwrap_or(MemoryType::NormalWriteBack)
}
