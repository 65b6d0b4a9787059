//! What one method did under one hazard, and how that is known.

use super::{Hazard, Method};
use crate::diagnosis::Flaw;
use core::fmt;

/// Who writes and who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The CPU writes, the device reads.
    ToDevice,
    /// The device writes, the CPU reads.
    FromDevice,
    /// It does not matter.
    Both,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ToDevice => "to-device",
            Self::FromDevice => "from-device",
            Self::Both => "both",
        })
    }
}

/// What comes of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Every byte is what and where it must be, or the rule that keeps it so is kept.
    Right,
    /// Old bytes in whole lines.
    Stale,
    /// A neighbour's bytes are gone.
    Lost,
    /// Somebody else's pages.
    Foreign,
    /// The device worked elsewhere, or not at all.
    Elsewhere,
    /// Two versions, mixed.
    Torn,
    /// Wrong in a way that names no cause.
    Wrong,
    /// Refused by name, before the device heard of it.
    Refused,
    /// The rule that keeps it right is broken, whatever the bytes.
    Unguarded,
}

impl Finding {
    /// Its name in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Stale => "stale",
            Self::Lost => "lost",
            Self::Foreign => "foreign-page",
            Self::Elsewhere => "elsewhere",
            Self::Torn => "torn",
            Self::Wrong => "wrong",
            Self::Refused => "refused",
            Self::Unguarded => "unguarded",
        }
    }

    /// At most four characters, for a table.
    const fn short(self) -> &'static str {
        match self {
            Self::Right => "ok",
            Self::Stale => "old",
            Self::Lost => "lost",
            Self::Foreign => "page",
            Self::Elsewhere => "else",
            Self::Torn => "torn",
            Self::Wrong => "bad",
            Self::Refused => "no",
            Self::Unguarded => "open",
        }
    }

    /// Whether a method may come to it: nothing wrong reaches anybody.
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Right | Self::Refused)
    }
}

impl From<Flaw> for Finding {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::StaleLine { .. } => Self::Stale,
            Flaw::LostNeighbour => Self::Lost,
            Flaw::NeverRan | Flaw::WrongBusAddress { .. } => Self::Elsewhere,
            Flaw::ForeignPage { .. } => Self::Foreign,
            Flaw::Torn => Self::Torn,
            Flaw::Unexplained => Self::Wrong,
        }
    }
}

/// How something is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Bytes were compared that could have been wrong here: a twin's were, or these are.
    Data,
    /// Attributes, addresses, refusals or the operations of that very call were looked at.
    Structural,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// This, known in that way.
    Seen(Finding, How),
    /// This machine shows no difference between right and wrong.
    NotObservable,
}

impl Observed {
    /// A finding from compared bytes.
    pub const fn data(finding: Finding) -> Self {
        Self::Seen(finding, How::Data)
    }

    /// A finding from anything else.
    pub const fn structural(finding: Finding) -> Self {
        Self::Seen(finding, How::Structural)
    }
}

/// Why, in a few words. What does not fit is cut.
pub type Evidence = heapless::String<120>;

/// One cell of the matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What was provoked.
    pub hazard: Hazard,
    /// With which memory, handed over how.
    pub method: Method,
    /// In which direction.
    pub direction: Direction,
    /// What must happen on a machine with caches.
    pub expected: Finding,
    /// What happened.
    pub observed: Observed,
    /// What that was concluded from.
    pub evidence: Evidence,
}

impl Cell {
    /// Whether something is wrong that must not be: a safe way that was seen to be none. A wrong way
    /// that comes out right was lucky.
    pub fn contradicts(&self) -> bool {
        match self.observed {
            Observed::Seen(finding, _) => self.expected.is_safe() && finding != self.expected,
            Observed::NotObservable => false,
        }
    }

    /// Whether the cell is in the same place of the matrix as `other`.
    pub fn is_same_place(&self, other: &Self) -> bool {
        let place = |cell: &Self| (cell.hazard, cell.method, cell.direction);
        place(self) == place(other)
    }

    /// At most six characters, for a table.
    pub(super) fn short(&self) -> heapless::String<8> {
        let mut text = heapless::String::new();
        // Four characters, a stroke and one more fit.
        let _ = match self.observed {
            Observed::Seen(finding, how) => {
                let how = match how {
                    How::Data => 'd',
                    How::Structural => 's',
                };
                fmt::write(&mut text, format_args!("{}/{how}", finding.short()))
            }
            Observed::NotObservable => fmt::write(&mut text, format_args!("?")),
        };
        text
    }
}

/// The line that scripts read.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (observed, how) = match self.observed {
            Observed::Seen(finding, How::Data) => (finding.name(), "data"),
            Observed::Seen(finding, How::Structural) => (finding.name(), "structural"),
            Observed::NotObservable => ("unknown", "not-observable"),
        };
        write!(
            f,
            "experiment hazard=H{} method={} direction={} expected={} observed={observed} how={how} \
             evidence=\"{}\"",
            self.hazard.number(),
            self.method.name(),
            self.direction,
            self.expected.name(),
            self.evidence
        )
    }
}
