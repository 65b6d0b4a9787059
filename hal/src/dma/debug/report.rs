//! What is said of a wrong call.

use super::super::direction::DirectionKind;
use super::super::{DmaError, DmaSegment};
use super::Check;
use crate::addr::{DmaAddr, VirtAddr};
use core::fmt;
use core::panic::Location;

/// A place in the source.
pub type Site = &'static Location<'static>;

/// The kinds of mapping, each with functions of its own.
///
/// Linux has told `Single` and `Page` apart until 4.20; its documentation still asks for the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `dma_map_single`.
    Single,
    /// `dma_map_page`.
    Page,
    /// A segment of `dma_map_sg`.
    Sg,
    /// `dma_map_resource`.
    Resource,
    /// `dma_alloc_coherent`.
    Coherent,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single",
            Self::Page => "page",
            Self::Sg => "sg",
            Self::Resource => "resource",
            Self::Coherent => "coherent",
        })
    }
}

/// Which entry of a scattered buffer a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SgPlace {
    /// From 0.
    pub index: usize,
    /// Entries in the list that the call was given.
    pub count: usize,
}

/// A device, whether or not it lives as long as the record of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dma) struct Lender {
    /// Tells devices of one name apart.
    pub(super) id: usize,
    pub(super) name: &'static str,
}

/// What a call said of one run of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What the function is for.
    pub kind: Kind,
    /// Where the CPU finds the memory; 0 where the call does not say.
    pub cpu: VirtAddr,
    /// The address the device was given, or is to have been.
    pub addr: DmaAddr,
    /// Bytes.
    pub len: usize,
    /// Who writes and who reads.
    pub direction: DirectionKind,
    /// In a scattered buffer.
    pub sg: Option<SgPlace>,
    /// Where the call is.
    pub site: Site,
}

impl Call {
    /// A call at the caller's place in the source, of a buffer that is not scattered.
    #[track_caller]
    pub(in crate::dma) fn new(
        kind: Kind,
        cpu: VirtAddr,
        segment: DmaSegment,
        direction: DirectionKind,
    ) -> Self {
        Self::at(Location::caller(), kind, cpu, segment, direction)
    }

    /// A call at `site`.
    pub(super) fn at(
        site: Site,
        kind: Kind,
        cpu: VirtAddr,
        DmaSegment { addr, len }: DmaSegment,
        direction: DirectionKind,
    ) -> Self {
        Self {
            kind,
            cpu,
            addr,
            len,
            direction,
            sg: None,
            site,
        }
    }
}

/// A wrong call.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// What is wrong.
    pub check: Check,
    /// The name of the device.
    pub device: &'static str,
    /// The call. Of a leak, where the device was released.
    pub call: Call,
    /// The mapping it is about, if there is one: as it was mapped, and where.
    pub mapped: Option<Call>,
    /// Where that mapping was ended, if it was before the call.
    pub unmapped: Option<Site>,
    /// Why a map was refused.
    pub refusal: Option<DmaError>,
    /// How many of the kind there have been, with this one.
    pub nth: u32,
}

/// One line: what is wrong, with which memory, where; what it was mapped as, and where, and
/// where it was unmapped.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check,
            device,
            call,
            ..
        } = self;
        write!(f, "dma-debug: {device} {check}: {call}")?;
        if let Some(mapped) = &self.mapped {
            write!(f, "; mapped: {mapped}")?;
        }
        if let Some(site) = self.unmapped {
            write!(f, "; unmapped at {}:{}", site.file(), site.line())?;
        }
        match &self.refusal {
            Some(refusal) => write!(f, "; {refusal}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            addr,
            len,
            direction,
            site,
            ..
        } = self;
        write!(f, "{kind} {len:#x} bytes at device address {addr}")?;
        if self.cpu != VirtAddr::default() {
            write!(f, " (CPU {})", self.cpu)?;
        }
        if let Some(SgPlace { index, count }) = self.sg {
            write!(f, ", entry {index} of {count}")?;
        }
        write!(f, ", {direction}, {}:{}", site.file(), site.line())
    }
}
