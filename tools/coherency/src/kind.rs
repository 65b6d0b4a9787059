//! What can be wrong.

use std::fmt;

/// What is wrong at a line of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The device reads a line whose newest bytes are in a cache.
    DeviceReadsDirtyLine,
    /// The device writes a line that a cache will write back over it.
    DeviceWritesDirtyLine,
    /// A CPU loads from a line that may be older than what the device wrote.
    StaleRead,
    /// A CPU accesses memory between doorbell and end.
    TouchedWhileOwned,
    /// The same memory is accessed with different memory types.
    MismatchedAttributes,
    /// A line is invalidated that holds somebody else's newest bytes.
    InvalidateDestroysNeighbour,
    /// Nothing keeps the doorbell behind what the device is to find.
    DoorbellWithoutBarrier,
    /// The device was given an address that it does not reach.
    DmaOutsideMemory,
    /// Instructions are fetched that the instruction cache may not have seen change.
    StaleCode,
    /// The device was given an address through the wrong window of its bus.
    WrongBusAlias,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::DeviceReadsDirtyLine,
        Self::DeviceWritesDirtyLine,
        Self::StaleRead,
        Self::TouchedWhileOwned,
        Self::MismatchedAttributes,
        Self::InvalidateDestroysNeighbour,
        Self::DoorbellWithoutBarrier,
        Self::DmaOutsideMemory,
        Self::StaleCode,
        Self::WrongBusAlias,
    ];

    /// The name, for machines: in reports and in lists of what to suppress.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceReadsDirtyLine => "device-reads-dirty-line",
            Self::DeviceWritesDirtyLine => "device-writes-dirty-line",
            Self::StaleRead => "stale-read",
            Self::TouchedWhileOwned => "touched-while-owned",
            Self::MismatchedAttributes => "mismatched-attributes",
            Self::InvalidateDestroysNeighbour => "invalidate-destroys-neighbour",
            Self::DoorbellWithoutBarrier => "doorbell-without-barrier",
            Self::DmaOutsideMemory => "dma-outside-memory",
            Self::StaleCode => "stale-code",
            Self::WrongBusAlias => "wrong-bus-alias",
        }
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::DeviceReadsDirtyLine => {
                "Clean every line of the buffer (DC CVAC) after the last store to it, then DSB, then \
                 ring the doorbell. Or take the buffer from non-cacheable memory."
            }
            Self::DeviceWritesDirtyLine => {
                "Clean or clean and invalidate every line of the buffer (DC CVAC, DC CIVAC), then \
                 DSB, before the doorbell, although the device only writes it: a dirty line can be \
                 written back at any time."
            }
            Self::StaleRead => {
                "Invalidate every line of the buffer (DC IVAC), then DSB, after the end of the \
                 transfer was seen and before the first load. An invalidate before the transfer does \
                 not help: the CPU may have fetched the line again meanwhile."
            }
            Self::TouchedWhileOwned => {
                "Leave the buffer alone from the doorbell until the device has said that it is done. \
                 Look whether it was freed or reused, and whether an unrelated variable shares its \
                 first or last line."
            }
            Self::MismatchedAttributes => {
                "Map the page with one memory type only. Where the type has to change, remove the \
                 cached mapping, invalidate the TLB, clean and invalidate the lines (DC CIVAC), then \
                 DSB, before the first uncached access."
            }
            Self::InvalidateDestroysNeighbour => {
                "Start buffers that a device writes on a cache line and make them whole lines long, \
                 so that nothing else lies in their lines; or copy through a buffer that does. \
                 Cleaning as well is no repair: it writes old bytes over the device's."
            }
            Self::DoorbellWithoutBarrier => {
                "Put a barrier between the last store to what the device reads and the doorbell: DSB \
                 after cache maintenance, at least DMB OSHST after stores alone. The doorbell being \
                 in Device memory does not order it."
            }
            Self::DmaOutsideMemory => {
                "Compare the whole buffer with what the device reaches before handing it over: its \
                 address bits, its windows of the bus, the end of RAM. Allocate below the limit or \
                 bounce. Check that a bus address was given, not a virtual one, and the length."
            }
            Self::StaleCode => {
                "After writing instructions: clean the lines to the point of unification (DC CVAU), \
                 DSB ISH, invalidate the instruction cache (IC IVAU or IC IALLU), DSB ISH, ISB."
            }
            Self::WrongBusAlias => {
                "Give the device a bus address, not the CPU's: on a Raspberry Pi memory for the \
                 VideoCore's masters is at 0xC0000000 + physical address, and peripherals are at \
                 0x7Ennnnnn. Other windows onto the same memory go through the VideoCore's cache, or \
                 lead elsewhere."
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Kind::ALL.into_iter().map(Kind::name).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(Kind::ALL.is_sorted());
    }

    #[test]
    fn sentences_are_whole() {
        for kind in Kind::ALL {
            assert!(kind.advice().ends_with('.'), "{kind}");
            assert!(!kind.advice().contains("  "), "{kind}");
        }
    }
}
