//! Stores to entries of translation tables, which the table walkers of all cores read.
//!
//! Each is a single-copy atomic 64-bit access (Arm ARM B2.2.1). The barriers are the caller's.

use core::sync::atomic::{AtomicU64, Ordering};

/// Stores an entry.
#[inline(always)]
pub fn store(entry: &AtomicU64, raw: u64) {
    entry.store(raw, Ordering::Relaxed);
}

/// Stores an entry after everything this core stored before: a walker that sees it sees that too.
#[inline(always)]
pub fn link(entry: &AtomicU64, raw: u64) {
    entry.store(raw, Ordering::Release);
}
