//! Reading the flattened device tree the machine was booted with.
//!
//! The blob comes from outside - a boot loader, an emulator, a file on an SD card - so nothing in
//! it is believed before it is checked. Reading it ends in one of three ways:
//!
//! * [`DtbError`]: the blob cannot be read, or what it says about memory cannot be trusted. The
//!   caller uses what its board has built in.
//! * a [`Description`] with [`problems`](Description::problems): one property each that was left
//!   out because it makes no sense.
//! * a clean [`Description`].
//!
//! No byte outside the slice is read, nothing is allocated and no input panics.
//!
//! Source: Devicetree Specification v0.4, chapters 2, 3 and 5; the Linux bindings for the nodes
//! named in [`Description`].

mod description;
mod header;
mod level;
mod node;
mod structure;

pub use description::{
    BcmDma, CmaNode, CmaPlace, Cpu, Description, EnableMethod, InterruptController, MAX_CMA_NODES,
    MAX_PROBLEMS, MAX_RAM_RANGES, MAX_RESERVED_RANGES, PciHost, PciWindow, PsciConduit,
    ReservedRange, Timer,
};
pub use header::{HEADER_SIZE, MAX_BLOB_SIZE, blob_size};

use crate::addr::PhysRange;
use core::ops::ControlFlow;
use dtoolkit::fdt::Fdt;
use level::Level;
use thiserror::Error;

/// How deeply nodes may be nested. Real trees stay below 8; the bound keeps the walk's stack small.
pub const MAX_DEPTH: usize = 16;

/// Why a blob as a whole cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DtbError<'a> {
    /// The slice ends before the blob does.
    #[error("{have} bytes of device tree where {need} are needed")]
    Truncated {
        /// Bytes in the slice.
        have: usize,
        /// Bytes the header, or the header's `totalsize`, asks for.
        need: usize,
    },
    /// The first word is not the device tree magic.
    #[error("magic {0:#010x} is not that of a device tree")]
    Magic(u32),
    /// Version 17 of the format is not among those the blob is compatible with.
    #[error("device tree versions {oldest} to {version} do not include 17")]
    Version {
        /// The blob's `version`.
        version: u32,
        /// The blob's `last_comp_version`.
        oldest: u32,
    },
    /// `totalsize` is below the header's size or above [`MAX_BLOB_SIZE`].
    #[error("device tree size {0:#x} is out of bounds")]
    Size(u32),
    /// A block of the blob does not lie inside it.
    #[error("{name} block at {offset:#x}, {size:#x} bytes, is outside the device tree")]
    Block {
        /// Which block.
        name: &'static str,
        /// The block's offset.
        offset: u32,
        /// The block's size, or the least it must have.
        size: u32,
    },
    /// A token is unknown, out of place or leads out of its block.
    #[error("device tree is broken at {offset:#x}")]
    Structure {
        /// Where the token is, in bytes from the start of the blob.
        offset: usize,
    },
    /// The list of memory reservations has no end.
    #[error("memory reservations at {offset:#x} have no end")]
    Reservations {
        /// Where the list starts, in bytes from the start of the blob.
        offset: usize,
    },
    /// Nodes are nested more deeply than [`MAX_DEPTH`].
    #[error("nodes of the device tree are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// A property that says where memory is makes no sense.
    #[error("{0}")]
    Memory(Problem<'a>),
}

/// A property that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("node \"{node}\": {property} {fault}")]
pub struct Problem<'a> {
    /// The node's name with its unit address.
    pub node: &'a str,
    /// The property's name.
    pub property: &'static str,
    /// What is wrong with it.
    pub fault: Fault<'a>,
}

/// What is wrong with a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault<'a> {
    /// The property is needed and absent.
    #[error("is missing")]
    Missing,
    /// The length fits no whole number of entries.
    #[error("has a length of {0} bytes, which fits no whole number of entries")]
    Length(usize),
    /// A cell count is one this reader cannot hold in 64 bits, or zero where an entry needs one.
    #[error("has entries of {0} cells")]
    Cells(u32),
    /// The text is not UTF-8 or its end is missing.
    #[error("is not a terminated string")]
    Text,
    /// The text is none of those known here.
    #[error("\"{0}\" is not known")]
    Unknown(&'a str),
    /// A range wraps around the address space.
    #[error("range at {base:#x}, {size:#x} bytes, wraps around")]
    Wraps {
        /// First address.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// A range ends where it starts, or before.
    #[error("range {start:#x}..{end:#x} is empty")]
    Backwards {
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
    },
    /// A value is greater than it can be.
    #[error("value {value:#x} is above {limit:#x}")]
    Exceeds {
        /// The value.
        value: u64,
        /// The greatest it may be.
        limit: u64,
    },
    /// A value that must be a multiple of eight is not.
    #[error("value {0:#x} is not 8-byte aligned")]
    Unaligned(u64),
    /// Two nodes claim the same value.
    #[error("value {0:#x} appears twice")]
    Duplicate(u64),
    /// No bus above the node passes the address on.
    #[error("address {0:#x} is in no range of the buses above")]
    Untranslatable(u64),
    /// There are more entries than this reader keeps.
    #[error("has more than {0} entries")]
    TooMany(usize),
}

/// A device tree blob whose structure has been checked.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTree<'a> {
    fdt: Fdt<'a>,
}

impl<'a> DeviceTree<'a> {
    /// Checks the header and the structure of `blob`, which may be longer than the tree.
    ///
    /// # Errors
    ///
    /// Every variant of [`DtbError`] but `Memory`.
    pub fn new(blob: &'a [u8]) -> Result<Self, DtbError<'static>> {
        let (blob, header) = header::checked_blob(blob)?;
        structure::check(blob, &header)?;
        Ok(Self {
            fdt: Fdt::new_unchecked(blob),
        })
    }

    /// Bytes of the blob, as its header states.
    pub fn size(&self) -> usize {
        self.fdt.data().len()
    }

    /// Reads everything a boot needs to know.
    ///
    /// # Errors
    ///
    /// [`DtbError::Memory`] if a memory node or a memory reservation makes no sense.
    pub fn describe(&self) -> Result<Description<'a>, DtbError<'a>> {
        let mut description = Description::default();
        for entry in self.fdt.memory_reservations() {
            let (base, size) = (entry.address(), entry.size());
            node::memory_reservation(&mut description, base, size).map_err(DtbError::Memory)?;
        }
        match self.walk(&mut |level| match node::read(&mut description, level) {
            Ok(()) => ControlFlow::Continue(()),
            Err(problem) => ControlFlow::Break(problem),
        }) {
            ControlFlow::Break(problem) => Err(DtbError::Memory(problem)),
            ControlFlow::Continue(()) => Ok(description),
        }
    }

    /// Whether the first enabled node compatible with `compatible` snoops the CPUs' caches, or
    /// `None` if there is no such node.
    ///
    /// The nearest of the node and its parents that says `dma-coherent` or `dma-noncoherent`
    /// decides; if none does, the device does not snoop.
    pub fn dma_coherent(&self, compatible: &str) -> Option<bool> {
        match self.walk(&mut |level| {
            if level.compatible().lists(&[compatible]) && level.is_enabled() {
                ControlFlow::Break(level.is_dma_coherent())
            } else {
                ControlFlow::Continue(())
            }
        }) {
            ControlFlow::Break(coherent) => Some(coherent),
            ControlFlow::Continue(()) => None,
        }
    }

    /// The registers of the first enabled node compatible with `compatible`, as the CPU addresses
    /// them: the first entry of `reg`, translated through the buses above.
    pub fn registers(&self, compatible: &str) -> Option<PhysRange> {
        match self.walk(&mut |level| {
            if level.compatible().lists(&[compatible]) && level.is_enabled() {
                ControlFlow::Break(level.registers::<1>().ok().map(|[first]| first))
            } else {
                ControlFlow::Continue(())
            }
        }) {
            ControlFlow::Break(registers) => registers,
            ControlFlow::Continue(()) => None,
        }
    }

    /// Visits every node, parents before children, until `visit` breaks.
    fn walk<B>(&self, visit: &mut dyn FnMut(&Level<'_, 'a>) -> ControlFlow<B>) -> ControlFlow<B> {
        Level::root(self.fdt.root()).walk(visit)
    }
}

#[cfg(test)]
mod tests;
