//! A stretch of memory, twice: as the core sees it and as masters see it.

use super::adversary::Adversary;
use crate::addr::{PhysAddr, PhysRange};
use crate::layout;

/// Bytes in a line of the cache, those of the [host's](crate::arch::cache::ctr_el0) core.
pub(super) const LINE: usize = 64;

/// What masters see of a stretch. What the core sees is the pretended RAM itself, which the code
/// under test loads and stores.
///
/// # Invariants
///
/// `range` is pretended RAM, whole lines, that lives as long as the program; whoever lends it to the
/// machine lets it change as a device would.
#[derive(Debug)]
pub(super) struct Ram {
    range: PhysRange,
    bytes: Vec<u8>,
}

impl Ram {
    /// The stretch `range`, of which masters see what the core sees.
    ///
    /// # Safety
    ///
    /// `range` keeps the invariants of the type.
    pub(super) unsafe fn new(range: PhysRange) -> Self {
        let mut this = Self {
            range,
            bytes: vec![0; range.size() as usize],
        };
        this.agree();
        this
    }

    pub(super) fn range(&self) -> PhysRange {
        self.range
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Fills the stretch with garbage that everybody sees.
    pub(super) fn garble(&mut self, adversary: &mut Adversary) {
        for at in (0..self.len()).step_by(LINE) {
            let garbage: [u8; LINE] = adversary.garbage();
            self.store(at, &garbage);
            self.show(at, &garbage);
        }
    }

    /// Makes masters see all that the core sees.
    fn agree(&mut self) {
        for at in (0..self.len()).step_by(LINE) {
            let line: [u8; LINE] = self.seen(at);
            self.store(at, &line);
        }
    }

    /// What the core sees at byte `at`; the bytes lie in the stretch.
    pub(super) fn seen<const N: usize>(&self, at: usize) -> [u8; N] {
        assert!(at + N <= self.len());
        let va = layout::phys_to_virt(self.range.start + at);
        // SAFETY: the bytes lie in pretended RAM, by the invariant; any bytes are an array.
        unsafe { va.as_ptr::<[u8; N]>().read_volatile() }
    }

    /// Whether the core sees just `bytes` in the whole stretch.
    pub(super) fn shows(&self, bytes: &[u8]) -> bool {
        let va = layout::phys_to_virt(self.range.start);
        // SAFETY: the stretch is pretended RAM, by the invariant, and nobody writes it during the
        // call: the machine is of one thread.
        let seen = unsafe { std::slice::from_raw_parts(va.as_ptr::<u8>(), self.len()) };
        seen == bytes
    }

    /// Makes the core see `bytes` at byte `at`; they lie in the stretch.
    pub(super) fn show(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len());
        let va = layout::phys_to_virt(self.range.start + at);
        // SAFETY: as above, and the memory may change as a device would change it.
        unsafe {
            va.as_ptr::<u8>()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// What masters see of `len` bytes at byte `at`, which lie in the stretch.
    pub(super) fn load(&self, at: usize, len: usize) -> &[u8] {
        &self.bytes[at..at + len]
    }

    /// Makes masters see `bytes` at byte `at`; they lie in the stretch.
    pub(super) fn store(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes the core see what masters see of `len` bytes at byte `at`.
    pub(super) fn reveal(&self, at: usize, len: usize) {
        self.show(at, self.load(at, len));
    }

    /// Where in the stretch `pa` lies.
    pub(super) fn offset(&self, pa: PhysAddr) -> Option<usize> {
        let is_inside = self.range.contains(pa);
        is_inside.then(|| (pa.get() - self.range.start.get()) as usize)
    }
}
