//! What work waits and which cores sleep: nobody may go to sleep past work that waits.
//!
//! Whoever adds work sets its bit and then looks for a sleeper; whoever goes to sleep says so and
//! then looks for work. A sequentially consistent fence stands between the two steps of each, so at
//! least one of them sees the other. The package `hal-loom` explores the interleavings of this
//! file.

use super::atomic::{AtomicU32, Ordering, fence};

/// Bits of work, and the cores that wait for some.
#[derive(Debug)]
pub(super) struct Pending {
    work: AtomicU32,
    idle: AtomicU32,
}

impl Pending {
    /// No work, no sleeper: both words are zero.
    pub(super) const fn new(work: AtomicU32, idle: AtomicU32) -> Self {
        Self { work, idle }
    }

    /// Adds the work with the one bit `bit`. The number of a core to wake for it, if one sleeps: also
    /// when the work waits already, because the core that was woken for it may have found something
    /// else to do first.
    #[must_use = "the core sleeps on"]
    pub(super) fn add(&self, bit: u32) -> Option<u32> {
        self.work.fetch_or(bit, Ordering::Release);
        fence(Ordering::SeqCst);
        let idle = self.idle.load(Ordering::Relaxed);
        (idle != 0).then(|| idle.trailing_zeros())
    }

    /// Whether any work of `bits` waits.
    pub(super) fn any(&self, bits: u32) -> bool {
        self.work.load(Ordering::Relaxed) & bits != 0
    }

    /// Takes the work with the one bit `bit`; `false` if it does not wait. The caller sees what
    /// was written before it was added.
    pub(super) fn take(&self, bit: u32) -> bool {
        self.work.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Says that `core` is about to sleep. It must look for work after this.
    pub(super) fn sleeps(&self, core: usize) {
        self.idle.fetch_or(1 << core, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether a core sleeps that would wake for work.
    pub(super) fn has_sleeper(&self) -> bool {
        self.idle.load(Ordering::Relaxed) != 0
    }

    /// Says that `core` is awake.
    pub(super) fn wakes(&self, core: usize) {
        self.idle.fetch_and(!(1 << core), Ordering::Relaxed);
    }
}
