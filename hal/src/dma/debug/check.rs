//! What can be wrong with a call.

use core::fmt;

/// A kind of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Unmapped or freed although it is not mapped: never was, or not any more.
    FreeUnallocated,
    /// The result of a failed map, given to another call.
    ErrorUsed,
    /// Unmapped or freed with another size than it was mapped with.
    FreeSize,
    /// Unmapped, freed or synchronised by a function of another kind of mapping.
    WrongFunction,
    /// Coherent memory freed with another CPU address than it was given out at.
    FreeCpuAddress,
    /// A scattered buffer unmapped or synchronised with another number of entries.
    SgCount,
    /// Unmapped in another direction.
    FreeDirection,
    /// Used or unmapped without a look at whether the map failed.
    ErrorUnchecked,
    /// Memory of a stack.
    MapStack,
    /// Memory of the firmware's text or read-only data.
    MapReadOnly,
    /// Memory of the vmalloc window.
    MapVmalloc,
    /// Memory of any other kind that a device cannot be given, or a range that is none.
    MapInvalid,
    /// Synchronised although it is not mapped.
    SyncUnallocated,
    /// Synchronised beyond what was mapped.
    SyncOutside,
    /// Synchronised in another direction than it was mapped in.
    SyncDirection,
    /// Memory the device only reads, synchronised for the CPU as if it had been written.
    SyncReadOnlyForCpu,
    /// Memory the device only writes, synchronised for the device as if it were to be read.
    SyncWriteOnlyForDevice,
    /// A segment longer than the device takes.
    SgTooLong,
    /// A segment across a boundary the device does not cross.
    SgBoundary,
    /// Two mappings share a cache line, and a device that does not snoop writes one. Linux: EEXIST.
    Overlap,
    /// As [`Overlap`](Self::Overlap) between devices that snoop: harmless, worth knowing.
    OverlapSnooped,
    /// A device was released with memory mapped.
    Leak,
    /// A mapping that could not be recorded: from now on mistakes may be missed.
    OutOfEntries,
}

impl Check {
    /// Every kind there is.
    pub const ALL: [Self; 23] = [
        Self::FreeUnallocated,
        Self::ErrorUsed,
        Self::FreeSize,
        Self::WrongFunction,
        Self::FreeCpuAddress,
        Self::SgCount,
        Self::FreeDirection,
        Self::ErrorUnchecked,
        Self::MapStack,
        Self::MapReadOnly,
        Self::MapVmalloc,
        Self::MapInvalid,
        Self::SyncUnallocated,
        Self::SyncOutside,
        Self::SyncDirection,
        Self::SyncReadOnlyForCpu,
        Self::SyncWriteOnlyForDevice,
        Self::SgTooLong,
        Self::SgBoundary,
        Self::Overlap,
        Self::OverlapSnooped,
        Self::Leak,
        Self::OutOfEntries,
    ];

    /// Whether it is no mistake, but worth knowing.
    pub const fn is_info(self) -> bool {
        matches!(self, Self::OverlapSnooped)
    }
}

/// What is wrong and what to change, in a few words. `docs/dma-debug.md` has more.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FreeUnallocated => "frees memory that is not mapped",
            Self::ErrorUsed => "uses the address of a failed map",
            Self::FreeSize => "frees with another size than it was mapped with",
            Self::WrongFunction => "uses a function for another kind of mapping",
            Self::FreeCpuAddress => "frees with another CPU address than it was given out at",
            Self::SgCount => "passes another number of sg entries than was mapped",
            Self::FreeDirection => "frees in another direction than it was mapped in",
            Self::ErrorUnchecked => "did not check the map with dma_mapping_error",
            Self::MapStack => "maps memory of a stack",
            Self::MapReadOnly => "maps text or read-only data",
            Self::MapVmalloc => "maps vmalloc memory, which is not contiguous for a device",
            Self::MapInvalid => "maps memory that no device can be given",
            Self::SyncUnallocated => "synchronises memory that is not mapped",
            Self::SyncOutside => "synchronises beyond the mapping",
            Self::SyncDirection => "synchronises in another direction than it was mapped in",
            Self::SyncReadOnlyForCpu => "synchronises for the CPU what the device only reads",
            Self::SyncWriteOnlyForDevice => "synchronises for the device what it only writes",
            Self::SgTooLong => "maps a segment longer than the device takes",
            Self::SgBoundary => "maps a segment across a boundary of the device",
            Self::Overlap => "maps a cache line that is mapped, and a device writes it",
            Self::OverlapSnooped => "maps a cache line that is mapped, for devices that snoop",
            Self::Leak => "is released with memory mapped",
            Self::OutOfEntries => "maps more than can be recorded: checks are incomplete",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_in_the_order_of_the_list() {
        assert!(
            Check::ALL
                .iter()
                .map(|&check| check as usize)
                .eq(0..Check::ALL.len())
        );
    }
}
