//! What the bytes of a wrong copy tell of how it went wrong, in words an engineer acts on.
//!
//! Caches lose and keep whole lines, translations whole pages, devices whole transfers: the shape of
//! what is wrong names its cause. A shape that fits no cause is not given one.

mod flaw;
mod shape;

pub use flaw::{Diagnosis, Flaw};

use crate::pattern::Expected;
use hal::addr::VirtAddr;
use hal::dma::direction::DirectionKind;
use hal::mmu::MemoryType;

/// A copy, and what is known of how it was made.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What is there now: the copy, and what lies on both sides of it.
    pub bytes: &'a [u8],
    /// Where in `bytes` the copy is.
    pub at: usize,
    /// Bytes of the copy.
    pub len: usize,
    /// Where the CPU has the first byte of the memory that changed hands. Of memory that a device
    /// read, `bytes` is what arrived.
    pub va: VirtAddr,
    /// How the CPU has that memory mapped.
    pub memory: MemoryType,
    /// Whether the device reads that memory or writes it.
    pub direction: DirectionKind,
    /// Bytes in a cache line.
    pub line: usize,
    /// Whether the device reported the end of the transfer.
    pub has_ended: bool,
    /// The bytes of the copy as a device reads them, if one was asked.
    pub in_ram: Option<&'a [u8]>,
}

impl Scene<'_> {
    /// What is wrong with the copy; `None` if nothing is.
    pub fn diagnose(&self, expected: &impl Expected) -> Option<Diagnosis> {
        let copy = shape::flaw(self, expected);
        let (flaw, first, count) = match shape::beside(self, expected) {
            Some((flaw, first)) => (flaw, first, 1),
            None => copy?,
        };
        Some(Diagnosis {
            flaw,
            // A neighbour that was lost does not say why the copy is wrong.
            of_copy: copy
                .filter(|_| !(0..self.len as isize).contains(&first))
                .map(|(flaw, ..)| flaw),
            first,
            count,
            len: self.len,
            line: self.line_of(first),
            memory: self.memory,
            direction: self.direction,
        })
    }

    /// Whether the CPU's caches hold lines of the memory.
    fn is_cached(&self) -> bool {
        self.memory == MemoryType::NormalWriteBack
    }

    /// The line that holds the byte at `offset` from the copy's first.
    fn line_of(&self, offset: isize) -> VirtAddr {
        VirtAddr::new(self.va.get().wrapping_add_signed(offset) & !(self.line - 1))
    }
}

#[cfg(test)]
mod tests;
