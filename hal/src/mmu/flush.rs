//! Translations that tables no longer hold but TLBs may.
//!
//! A range goes from [`Stale`] to [`Flushed`] by one call that invalidates it on every core.
//! Whoever frees the frames behind the range, or hands out its addresses again, asks for a
//! [`Flushed`], so the order cannot be got wrong.

use super::table::Level;
use crate::addr::VirtAddr;
use crate::arch::{barrier, tlb};

/// Invalidations by address above which everything is dropped instead: one full table's worth,
/// past which refilling the TLBs costs less than the broadcasts.
pub const MAX_BY_ADDRESS: usize = super::table::ENTRIES;

/// A range whose leaves were made invalid or given other permissions, still in TLBs.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "TLBs still hold the range until `flush`"]
pub struct Stale {
    pub(super) va: VirtAddr,
    pub(super) size: usize,
    /// Level of the smallest leaf in the range: one invalidation per leaf is enough.
    pub(super) stride: Level,
}

impl Stale {
    /// Drops the range from the TLBs of all cores; on return no core uses the old translations.
    ///
    /// Also completes the table writes before it. May be called in any context.
    pub fn flush(self) -> Flushed {
        let Self { va, size, stride } = self;
        barrier::dsb_ishst();
        if size / stride.size() > MAX_BY_ADDRESS {
            tlb::invalidate_all();
        } else {
            for offset in (0..size).step_by(stride.size()) {
                tlb::invalidate_last_level(va + offset);
            }
        }
        barrier::dsb_ish();
        barrier::isb();
        Flushed { va, size }
    }
}

/// A range no TLB holds any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Flushed {
    pub(super) va: VirtAddr,
    pub(super) size: usize,
}

impl Flushed {
    /// First address of the range.
    pub const fn va(&self) -> VirtAddr {
        self.va
    }

    /// Bytes in the range.
    pub const fn size(&self) -> usize {
        self.size
    }
}
