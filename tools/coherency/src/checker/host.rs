//! What QEMU itself does to memory in the place of a debugger: semihosting.

use super::Checker;
use crate::lines::{self, BYPASSED, DROPPED, LINE, STALE};
use std::ops::Range;

impl Checker {
    /// QEMU may have written `range`. On silicon a debugger does, through the core: nothing that was known
    /// of these bytes can be held against anybody.
    pub fn host_wrote(&mut self, range: &Range<u64>) {
        if let Some(shadow) = &mut self.shadow {
            shadow.forget(range);
        }
        for bytes in lines::parts(range.clone(), LINE) {
            let start = bytes.start / LINE * LINE;
            let Some(index) = self.lines.find(start) else {
                return;
            };
            let flags = self.lines.page(index).flags[lines::line_of(start)];
            let mask = lines::mask(&bytes);
            if flags & STALE != 0 {
                self.cleaned(start, self.device_bytes(start) & !mask, true);
            }
            if flags & BYPASSED != 0 {
                self.cover(start, mask);
            }
            if flags & DROPPED != 0 {
                self.replace_dropped(start, mask);
            }
        }
    }
}
