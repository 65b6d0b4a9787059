//! Whether the RAM that the plugin reads is the one that the CPUs store to.

use crate::checker::Touch;
use crate::device::Memory;

/// Stores that were looked for in RAM.
#[derive(Debug, Default)]
pub(super) struct Proof {
    found: u32,
    missed: u32,
}

/// As many are enough.
const TRIES: u32 = 64;

impl Proof {
    pub(super) fn wants_more(&self) -> bool {
        self.found + self.missed < TRIES
    }

    /// Looks for `value`, which was just stored. Zeros would be found in any empty file.
    pub(super) fn try_with(&mut self, touch: &Touch, value: u128, memory: &dyn Memory) {
        let stored = &value.to_le_bytes()[..usize::from(touch.size).min(16)];
        let mut there = [0; 16];
        let there = &mut there[..stored.len()];
        if stored.iter().any(|&byte| byte != 0) && memory.read(touch.pa, there) {
            let count = if there == stored {
                &mut self.found
            } else {
                &mut self.missed
            };
            *count += 1;
        }
    }

    /// A device may have overwritten what was stored, now and then.
    pub(super) fn fails(&self) -> bool {
        self.missed > self.found
    }
}
