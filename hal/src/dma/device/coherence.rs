//! Whether a device snoops the CPU's caches, and whom that is asked of.

use super::Device;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What a device is taken as, and what its maps without a note of their own were made under.
#[derive(Debug)]
pub(super) struct Coherence {
    is_coherent: AtomicBool,
    /// Live maps of C-shaped calls, above one bit for what the device was taken as when the first of
    /// them was made.
    noted: AtomicUsize,
}

/// One map in [`Coherence::noted`].
const MAP: usize = 2;

impl Coherence {
    pub(super) const fn new() -> Self {
        Self {
            is_coherent: AtomicBool::new(false),
            noted: AtomicUsize::new(0),
        }
    }

    fn change_noted(&self, f: impl Fn(usize) -> usize) {
        let order = Ordering::Relaxed;
        // The closure always has an answer.
        let _ = self
            .noted
            .fetch_update(order, order, |noted| Some(f(noted)));
    }
}

impl Device {
    /// Whether the device snoops the CPU's caches, so that maps need no maintenance.
    #[doc(alias = "dev_is_dma_coherent")]
    #[inline]
    pub fn is_coherent(&self) -> bool {
        self.coherence.is_coherent.load(Ordering::Relaxed)
    }

    /// Decides whether the device is taken as coherent: the command line decides, then the device
    /// tree, then the board. To be called while nobody maps for the device.
    ///
    /// Neither mistake is harmless. Taken as coherent, a device that does not snoop reads what was in
    /// memory before the CPU stored, and what it writes is hidden by old lines. Taken as not
    /// coherent, a device that snoops may lose what it wrote: where its writes are allocated in a
    /// cache (an accelerator port, a system cache before the point of coherency), they are lines that
    /// invalidation drops. That does no harm only to a device whose writes all go to memory.
    ///
    /// A map remembers what it was made under. Of the maps of [`raw`](crate::dma::raw), whose
    /// callers keep nothing but an address, the device remembers it: they go by what it was taken as
    /// when the first of them was made, until none is left.
    pub fn set_coherent(&self, coherent: bool) {
        self.coherence
            .is_coherent
            .store(coherent, Ordering::Relaxed);
    }

    /// Whether maps without a note of their own are of a device that snoops.
    pub(in crate::dma) fn is_noted_coherent(&self) -> bool {
        match self.coherence.noted.load(Ordering::Relaxed) {
            0 | 1 => self.is_coherent(),
            noted => noted % MAP == 1,
        }
    }

    /// Begins such a map, and says whether it is of a device that snoops.
    pub(in crate::dma) fn note_map(&self) -> bool {
        let is_coherent = usize::from(self.is_coherent());
        self.coherence.change_noted(|noted| match noted / MAP {
            0 => MAP + is_coherent,
            _ => noted + MAP,
        });
        self.is_noted_coherent()
    }

    /// Ends such a map. Nothing happens without one: who keeps nothing but an address may end one
    /// twice.
    pub(in crate::dma) fn note_unmap(&self) {
        let change = |noted: usize| noted.checked_sub(MAP).unwrap_or(noted);
        self.coherence.change_noted(change);
    }
}

#[cfg(test)]
mod tests {
    use crate::dma::device::tests::wide;

    #[test]
    fn maps_without_a_note_keep_what_the_first_was_made_under() {
        let device = wide("device");
        assert!(!device.is_noted_coherent());
        assert!(!device.note_map());
        device.set_coherent(true);
        assert!(!device.note_map(), "one is live that is maintained");
        device.note_unmap();
        assert!(!device.is_noted_coherent());
        device.note_unmap();
        assert!(device.is_noted_coherent());
        assert!(device.note_map());
        device.set_coherent(false);
        assert!(device.is_noted_coherent());
        for _ in 0..3 {
            device.note_unmap();
            assert!(!device.is_noted_coherent());
        }
    }
}
