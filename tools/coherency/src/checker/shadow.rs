//! The bytes that the CPUs know, for devices of which there is no model: a load that finds other bytes
//! shows that somebody wrote behind the cache.

use crate::lines::{LINE, PAGE, parts};
use std::collections::HashMap;
use std::ops::Range;

/// What the CPUs have loaded or stored of each page since they were told to forget it.
#[derive(Debug, Default)]
pub(super) struct Shadow(HashMap<u64, Box<Known>>);

#[derive(Debug)]
struct Known {
    bytes: [u8; PAGE as usize],
    is_known: [bool; PAGE as usize],
}

impl Shadow {
    /// Notes that a cacheable access showed `bytes` at `pa`. Returns the first address at which
    /// something else was known. All are within one page.
    pub(super) fn see(&mut self, pa: u64, bytes: &[u8]) -> Option<u64> {
        let known = self.0.entry(pa / PAGE).or_insert_with(|| {
            Box::new(Known {
                bytes: [0; PAGE as usize],
                is_known: [false; PAGE as usize],
            })
        });
        let mut differs = None;
        for (address, &byte) in (pa..).zip(bytes) {
            let offset = (address % PAGE) as usize;
            if known.is_known[offset] && known.bytes[offset] != byte && differs.is_none() {
                differs = Some(address);
            }
            (known.bytes[offset], known.is_known[offset]) = (byte, true);
        }
        differs
    }

    /// Notes a store of `bytes`.
    pub(super) fn store(&mut self, pa: u64, bytes: &[u8]) {
        let _ = self.see(pa, bytes);
    }

    /// Forgets the bytes of `range`.
    pub(super) fn forget(&mut self, range: &Range<u64>) {
        for part in parts(range.clone(), PAGE) {
            if let Some(known) = self.0.get_mut(&(part.start / PAGE)) {
                let first = (part.start % PAGE) as usize;
                known.is_known[first..first + (part.end - part.start) as usize].fill(false);
            }
        }
    }

    /// Forgets the line of `pa`.
    pub(super) fn forget_line(&mut self, pa: u64) {
        let start = pa / LINE * LINE;
        self.forget(&(start..start + LINE));
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
