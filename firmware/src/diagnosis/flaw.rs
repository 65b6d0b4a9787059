//! The causes, and what to do about each.

use core::fmt;
use hal::addr::VirtAddr;
use hal::dma::direction::DirectionKind;
use hal::mmu::MemoryType;

/// How a copy went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Whole cache lines hold what they held before.
    StaleLine {
        /// How many.
        lines: usize,
    },
    /// A byte of somebody else, in a line that the copy has a part of.
    LostNeighbour,
    /// The device did nothing.
    NeverRan,
    /// The device worked somewhere else.
    WrongBusAddress {
        /// By how many bytes the copy is off, if it is the right one in the wrong place.
        shift: Option<isize>,
    },
    /// Whole pages are somebody else's.
    ForeignPage {
        /// How many.
        pages: usize,
    },
    /// Two versions of the bytes, mixed more finely than a cache line, or a copy that ended early.
    Torn,
    /// None of these.
    Unexplained,
}

impl Flaw {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StaleLine { .. } => "stale line",
            Self::LostNeighbour => "lost neighbour",
            Self::NeverRan => "never ran",
            Self::WrongBusAddress { .. } => "wrong bus address",
            Self::ForeignPage { .. } => "foreign page",
            Self::Torn => "torn",
            Self::Unexplained => "unexplained",
        }
    }

    /// The operation that is missing.
    const fn missing(self, direction: DirectionKind) -> &'static str {
        match (self, direction) {
            (Self::StaleLine { .. }, DirectionKind::ToDevice) => {
                "the clean (DC CVAC, DSB) between the last store and the doorbell"
            }
            (Self::StaleLine { .. }, _) => {
                "the invalidate (DC IVAC, DSB) between the end of the transfer and the first load"
            }
            (Self::LostNeighbour, _) => "a cache line for the buffer alone",
            (Self::NeverRan, _) => "the doorbell, or the wait for the end",
            (Self::WrongBusAddress { .. }, _) => "the bus's own address, within the device's mask",
            (Self::ForeignPage { .. }, _) => "a segment for each physical run",
            (Self::Torn, _) => "one owner at a time",
            (Self::Unexplained, _) => "nothing that these bytes name",
        }
    }

    /// What to change.
    const fn remedy(self, direction: DirectionKind) -> &'static str {
        match (self, direction) {
            (Self::StaleLine { .. }, DirectionKind::ToDevice) => {
                "map the buffer after the last store, or use coherent memory"
            }
            (Self::StaleLine { .. }, _) => {
                "unmap or synchronise for the CPU before the first load, or use coherent memory"
            }
            (Self::LostNeighbour, _) => {
                "start and end the buffer on a line, or let the streaming map bounce it"
            }
            (Self::NeverRan, _) => {
                "look at the engine's status, and at what the doorbell was given"
            }
            (Self::WrongBusAddress { .. }, _) => {
                "give the device the address that the map returned"
            }
            (Self::ForeignPage { .. }, _) => "map a scatter list of the pages",
            (Self::Torn, _) => "store nothing between map and unmap, and read after the end only",
            (Self::Unexplained, _) => "compare with a second run of the same seed",
        }
    }
}

/// What is wrong with a copy, where, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The cause. Of a byte beside the copy, if one is wrong.
    pub flaw: Flaw,
    /// Then what is wrong with the copy itself, if anything.
    pub of_copy: Option<Flaw>,
    /// The first wrong byte, from the copy's first; one before it is negative.
    pub first: isize,
    /// Wrong bytes.
    pub count: usize,
    /// Bytes of the copy.
    pub len: usize,
    /// The cache line of the first wrong byte.
    pub line: VirtAddr,
    /// How the CPU has the memory mapped.
    pub memory: MemoryType,
    /// Whether the device read or wrote it.
    pub direction: DirectionKind,
}

impl Diagnosis {
    /// The neighbour that was lost, if one was: how far before the copy (negative) or behind it.
    pub const fn neighbour(&self) -> Option<isize> {
        match self.flaw {
            Flaw::LostNeighbour if self.first < 0 => Some(self.first),
            Flaw::LostNeighbour => Some(self.first - self.len as isize + 1),
            _ => None,
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.flaw.name())?;
        match (self.flaw, self.neighbour()) {
            (_, Some(distance)) if distance < 0 => {
                write!(f, "{} bytes before the copy", distance.unsigned_abs())?;
            }
            (_, Some(distance)) => write!(f, "{distance} bytes after the copy")?,
            (Flaw::StaleLine { lines }, _) => write!(f, "lines={lines}")?,
            (Flaw::ForeignPage { pages }, _) => write!(f, "pages={pages}")?,
            (Flaw::WrongBusAddress { shift: Some(by) }, _) => write!(f, "shifted by {by} bytes")?,
            _ => write!(f, "{} of {} bytes", self.count, self.len)?,
        }
        write!(
            f,
            ", the first at {} in line {}, {}; missing: {}; {}",
            self.first,
            self.line,
            self.memory,
            self.flaw.missing(self.direction),
            self.flaw.remedy(self.direction)
        )?;
        match self.of_copy {
            Some(flaw) => write!(f, "; in the copy: {}", flaw.name()),
            None => Ok(()),
        }
    }
}
