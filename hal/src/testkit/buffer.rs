//! Memory of the machine, to be lent to its masters.

use crate::addr::{PhysAddr, VirtAddr};
use crate::layout;

/// Memory that belongs to its holder; whole lines, with nobody else's bytes in them.
#[derive(Debug)]
pub struct Buffer {
    va: VirtAddr,
    len: usize,
}

impl Buffer {
    /// The `len` bytes at `va`.
    ///
    /// # Safety
    ///
    /// They are initialised memory for the rest of the program, and belong to the buffer and the
    /// machine whose it is.
    pub(super) const unsafe fn new(va: VirtAddr, len: usize) -> Self {
        Self { va, len }
    }

    /// The bytes, as the core sees them. To be asked for anew after each operation and transfer:
    /// the machine changes what is seen, as hardware does.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the bytes are this buffer's, borrowed exclusively. The machine accesses them in
        // the calls of `arch` only, when the code under test has lent them to a device or leaves
        // them alone, and the pointer's provenance is exposed as the machine's is.
        unsafe { std::slice::from_raw_parts_mut(self.va.as_ptr(), self.len) }
    }

    /// Where the bytes are.
    pub fn va(&self) -> VirtAddr {
        self.va
    }

    /// Where the bytes are physically.
    ///
    /// # Panics
    ///
    /// Never: a buffer lies in the pretended RAM.
    pub fn pa(&self) -> PhysAddr {
        match layout::virt_to_phys(self.va) {
            Some(pa) => pa,
            None => unreachable!("a buffer outside of pretended RAM"),
        }
    }

    /// Stores `byte` to all bytes that a seed and an address decide on: other bytes for another
    /// seed, and no two neighbours the same.
    pub fn fill(&mut self, seed: u64) {
        let bytes = self.bytes().iter_mut().enumerate();
        bytes.for_each(|(at, byte)| *byte = pattern(seed, at));
    }

    /// Whether every byte is what [`fill`](Self::fill) stored.
    pub fn is_filled(&mut self, seed: u64) -> bool {
        let mut bytes = self.bytes().iter().enumerate();
        bytes.all(|(at, byte)| *byte == pattern(seed, at))
    }
}

/// Byte number `at` of the pattern of `seed`; those of a seed and of the next one differ
/// everywhere.
pub(super) fn pattern(seed: u64, at: usize) -> u8 {
    (seed as u8).wrapping_mul(31).wrapping_add((at % 251) as u8)
}
