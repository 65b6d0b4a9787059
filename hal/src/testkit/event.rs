//! What the code under test did, as far as it can be left out.

use crate::arch::trace::Op;
use std::fmt;
use std::panic::Location;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// `DC CVAC`.
    Clean,
    /// `DC IVAC`.
    Invalidate,
    /// `DC CIVAC`.
    CleanInvalidate,
    /// `DSB SY`.
    DsbSy,
    /// `DSB ISH`.
    DsbIsh,
    /// `DSB ISHST`.
    DsbIshst,
    /// `DMB OSHST`.
    DmbOshst,
    /// `DMB OSHLD`.
    DmbOshld,
    /// `ISB`.
    Isb,
    /// `TLBI` of any kind.
    Tlbi,
    /// A valid entry of a table becomes invalid.
    Break,
}

impl EventKind {
    /// The kind of `op`, if it is an instruction.
    pub(super) fn of(op: Op) -> Option<Self> {
        Some(match op {
            Op::Copy { .. } => return None,
            Op::DsbSy => Self::DsbSy,
            Op::DsbIsh => Self::DsbIsh,
            Op::DsbIshst => Self::DsbIshst,
            Op::DmbOshst => Self::DmbOshst,
            Op::DmbOshld => Self::DmbOshld,
            Op::Isb => Self::Isb,
            Op::Clean(_) => Self::Clean,
            Op::CleanInvalidate(_) => Self::CleanInvalidate,
            Op::Invalidate(_) => Self::Invalidate,
            Op::TlbLastLevel(_) | Op::TlbAllLevels(_) | Op::TlbAll => Self::Tlbi,
        })
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clean => "DC CVAC",
            Self::Invalidate => "DC IVAC",
            Self::CleanInvalidate => "DC CIVAC",
            Self::DsbSy => "DSB SY",
            Self::DsbIsh => "DSB ISH",
            Self::DsbIshst => "DSB ISHST",
            Self::DmbOshst => "DMB OSHST",
            Self::DmbOshld => "DMB OSHLD",
            Self::Isb => "ISB",
            Self::Tlbi => "TLBI",
            Self::Break => "break",
        })
    }
}

/// An operation of the code under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// What it was.
    pub kind: EventKind,
    /// The line of code that issued it.
    pub site: &'static Location<'static>,
}

impl Event {
    /// Where it was issued, as a report has it. Where the operation's function was passed on as a
    /// value, nobody knows.
    pub fn place(&self) -> String {
        match self.site.file().contains("core/src/ops/") {
            true => "a function passed on as a value".into(),
            false => self.site.to_string(),
        }
    }
}
