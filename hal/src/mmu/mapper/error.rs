//! Why a change is refused, and what is checked before one is begun.

use super::super::descriptor::{Attributes, Descriptor};
use super::super::table::Level;
use super::{FIRST, LIMIT};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use crate::layout;

/// Why a change to the tables was refused. Nothing that was mapped has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// An address or size is not a multiple of the page size.
    #[error("{0:#x} is not a multiple of the page size")]
    Misaligned(u64),
    /// The range holds no page.
    #[error("the range at {0} is empty")]
    Empty(VirtAddr),
    /// The range leaves the addresses this tree translates.
    #[error("{size:#x} bytes at {va} leave the kernel's address space")]
    OutsideWindow {
        /// First address.
        va: VirtAddr,
        /// Bytes.
        size: usize,
    },
    /// The physical range leaves the addresses the tables are set up for.
    #[error("physical range {0} leaves the 40-bit physical address space")]
    OutsidePhysical(PhysRange),
    /// The page is mapped already, to the very same frame and in the same way.
    #[error("{va} is already mapped to {pa}")]
    AlreadyMapped {
        /// The page.
        va: VirtAddr,
        /// Its frame.
        pa: PhysAddr,
    },
    /// The page is mapped to something else, or was and has not been reaped: the old translation
    /// must be removed and flushed first.
    #[error("{va} still translates to {pa}: break before make")]
    BreakBeforeMake {
        /// The page.
        va: VirtAddr,
        /// What it translates to.
        pa: PhysAddr,
    },
    /// Nothing is mapped at the address.
    #[error("{0} is not mapped")]
    NotMapped(VirtAddr),
    /// The range ends inside a block, and a live block is never split.
    #[error("{va} lies inside a block of {size:#x} bytes")]
    SplitsBlock {
        /// Where the range enters or leaves the block.
        va: VirtAddr,
        /// The block's size.
        size: usize,
    },
    /// The frames behind the range do not follow one another or differ in attributes.
    #[error("{0} does not continue the physical run before it")]
    NotOneRun(VirtAddr),
    /// No memory for another table.
    #[error("no memory for a translation table for {0}")]
    OutOfTables(VirtAddr),
}

/// Why `va` cannot be mapped to `pa` while `live` is there.
pub(super) fn refusal(
    va: VirtAddr,
    pa: PhysAddr,
    attributes: Attributes,
    level: Level,
    live: Descriptor,
) -> MapError {
    let offset = va.get() & (level.size() - 1);
    let live_pa = live.output_address() + offset;
    if live.is_valid() && live_pa == pa && live.attributes() == Some(attributes) {
        MapError::AlreadyMapped { va, pa }
    } else {
        MapError::BreakBeforeMake { va, pa: live_pa }
    }
}

pub(in crate::mmu) fn check_virtual(va: VirtAddr, size: usize) -> Result<(), MapError> {
    for value in [va.get(), size] {
        if value % PAGE_SIZE != 0 {
            return Err(MapError::Misaligned(value as u64));
        }
    }
    if size == 0 {
        return Err(MapError::Empty(va));
    }
    match va.checked_add(size) {
        Some(end) if va >= FIRST && end <= LIMIT => Ok(()),
        _ => Err(MapError::OutsideWindow { va, size }),
    }
}

pub(in crate::mmu) fn check_physical(range: PhysRange) -> Result<(), MapError> {
    for value in [range.start.get(), range.size()] {
        if value % PAGE_SIZE as u64 != 0 {
            return Err(MapError::Misaligned(value));
        }
    }
    if range.end.get() > 1 << layout::PA_BITS {
        return Err(MapError::OutsidePhysical(range));
    }
    Ok(())
}
