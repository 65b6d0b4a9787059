//! Cache maintenance and barriers.

use super::dropped::Extent;
use super::pending::Sweep;
use super::{Checker, Problem, Who};
use crate::decode::{Barrier, LineOp, SetWayOp};
use crate::kind::Kind;
use crate::lines::{
    BYPASSED, CACHED, CODE_STALE, DIRTY, LENT_TO_READ, LENT_TO_WRITE, LINE, NOT_UNIFIED, STALE,
    line_of,
};
use crate::walk::Mapping;

use super::access::{Touch, WRITTEN_BACK};

/// Fewer operations by set and way than this are of no cache that is: 16 KiB of 64-byte lines.
const MIN_SWEEP: u32 = 256;

/// Bits of a line that say that it is in a cache.
const IN_CACHE: u16 = CACHED | DIRTY | STALE | BYPASSED | NOT_UNIFIED;

impl Checker {
    /// Takes notice of an operation on the line at `pa`, whose address has `mapping`.
    pub fn maintain(&mut self, who: Who, op: LineOp, pa: u64, mapping: Mapping) {
        let start = pa / LINE * LINE;
        let Some(index) = self.lines.find(start) else {
            return;
        };
        let line = line_of(start);
        let page = self.lines.page(index);
        let flags = page.flags[line];
        let dirty = page.dirty[line];
        match op {
            LineOp::Zero => {
                self.zero(who, start, mapping);
                return;
            }
            LineOp::CleanToUnification => page.flags[line] &= !NOT_UNIFIED,
            LineOp::InvalidateCode => {
                if flags & NOT_UNIFIED == 0 || self.cores.sees_stores {
                    page.flags[line] &= !CODE_STALE;
                }
            }
            LineOp::Clean => {
                page.flags[line] &= !(DIRTY | NOT_UNIFIED);
                page.dirty[line] = 0;
            }
            LineOp::CleanInvalidate | LineOp::Invalidate => {
                page.flags[line] &= !IN_CACHE;
                page.dirty[line] = 0;
            }
        }
        if matches!(op, LineOp::CleanToUnification | LineOp::InvalidateCode) {
            return;
        }
        let device_bytes = if flags & STALE != 0 && dirty != 0 {
            self.device_bytes(start)
        } else {
            0
        };
        if op == LineOp::Clean {
            self.cleaned(
                start,
                device_bytes & !dirty,
                flags & STALE != 0 && dirty != 0,
            );
        } else {
            self.dropped(start, flags);
        }
        let hidden = self.bypassed.get(&(start / LINE)).copied().unwrap_or(0);
        if op != LineOp::Clean || dirty != 0 {
            // The cache has dropped its bytes, or written them over those in memory.
            self.cover(start, !0);
        }
        self.pending(who.cpu).maintained.add(start..start + LINE);
        if self.touched.remove(&(start / LINE)) {
            // The store that is to blame was reported.
            return;
        }
        let is_devices = flags & (STALE | LENT) != 0;
        let writer = is_devices
            .then(|| self.writer(&(start..start + LINE)))
            .flatten();
        let report = |kind, device, missing| Problem {
            kind,
            pa: start + u64::from(dirty.trailing_zeros()),
            device,
            mapping: Some(mapping),
            missing,
        };
        if op == LineOp::Invalidate {
            let lost = dirty & !device_bytes;
            if lost != 0 {
                let problem = report(
                    Kind::InvalidateDestroysNeighbour,
                    writer,
                    "lines of its own for the buffer, or DC CVAC before the transfer",
                );
                self.drop_bytes(who, start, lost, Extent::Line, problem);
            }
        } else if hidden != 0 && dirty != 0 {
            let problem = report(Kind::MismatchedAttributes, None, WRITTEN_BACK);
            self.report(who, problem);
        } else if device_bytes & !dirty != 0 && !self.is_coherent {
            // The line covers bytes of the device with older ones.
            let problem = report(
                Kind::DeviceWritesDirtyLine,
                writer,
                "lines of its own for the buffer, or DC IVAC before the store",
            );
            self.report(who, problem);
        }
    }

    /// Takes notice of an operation by set and way. Which line it is about cannot be known; a loop
    /// over a whole cache acts on all of them, with the `DSB` after it.
    pub fn maintain_set_way(&mut self, who: Who, op: SetWayOp) {
        let sweep = &mut self.pending(who.cpu).sweep;
        sweep.operations += 1;
        sweep.cleans |= op != SetWayOp::Invalidate;
        if op != SetWayOp::Clean {
            sweep.invalidated_at = Some(who.pc);
        }
    }

    /// Takes notice of `IC IALLU` or `IC IALLUIS`.
    pub fn invalidate_all_code(&mut self) {
        let sees_stores = self.cores.sees_stores;
        for page in self.lines.pages() {
            for flags in &mut page.flags {
                if *flags & NOT_UNIFIED == 0 || sees_stores {
                    *flags &= !CODE_STALE;
                }
            }
        }
    }

    /// A store-release is about to be executed.
    pub fn store_release(&mut self, who: Who) {
        self.pending(who.cpu).released_at = Some(who.pc);
    }

    /// Takes notice of a barrier.
    pub fn barrier(&mut self, who: Who, barrier: Barrier) {
        let pending = self.pending(who.cpu);
        // A DSB waits for the stores to reach memory, in whatever domain; a DMB orders them for the
        // observers of its domain only, and a device is not in the inner one.
        if barrier.stores && (barrier.outer || barrier.is_dsb && barrier.inner) {
            pending.stored.clear();
        }
        if barrier.is_dsb && barrier.everything && barrier.inner {
            pending.maintained.clear();
            let sweep = std::mem::take(&mut pending.sweep);
            if sweep.operations >= MIN_SWEEP {
                self.swept(who.cpu, sweep);
            }
        }
    }

    fn swept(&mut self, cpu: u32, sweep: Sweep) {
        if let Some(pc) = sweep.invalidated_at
            && !sweep.cleans
        {
            self.drop_all(Who { cpu, pc });
        }
        self.touched.clear();
        let invalidates = sweep.invalidated_at.is_some();
        for page in self.lines.pages() {
            page.dirty.fill(0);
            for flags in &mut page.flags {
                *flags &= if invalidates {
                    !IN_CACHE
                } else {
                    !(DIRTY | NOT_UNIFIED)
                };
            }
        }
        if invalidates {
            self.partial.clear();
            self.bypassed.clear();
            if let Some(shadow) = &mut self.shadow {
                shadow.clear();
            }
        }
    }

    /// All dirty lines were invalidated by `who`, if they are in a cache of its: those of other CPUs are
    /// not within reach of what is done by set and way, and which lines these are is not known. So
    /// nothing is taken for dropped if another CPU has done anything yet.
    fn drop_all(&mut self, who: Who) {
        let mut others = self.pending.iter().enumerate();
        if others.any(|(cpu, other)| cpu != who.cpu as usize && other.has_acted) {
            return;
        }
        let mut dirty = Vec::new();
        for page in self.lines.pages() {
            for (line, &bytes) in page.dirty.iter().enumerate() {
                if bytes != 0 {
                    let start = page.pa + line as u64 * LINE;
                    dirty.push((start, bytes, page.flags[line]));
                }
            }
        }
        for (start, bytes, flags) in dirty {
            let is_stale = flags & STALE != 0;
            let devices = is_stale.then(|| self.device_bytes(start));
            let lost = bytes & !devices.unwrap_or(0);
            if lost == 0 || self.touched.contains(&(start / LINE)) {
                continue;
            }
            let is_devices = flags & (STALE | LENT) != 0;
            let writer = is_devices
                .then(|| self.writer(&(start..start + LINE)))
                .flatten();
            let problem = Problem {
                kind: Kind::InvalidateDestroysNeighbour,
                pa: start + u64::from(lost.trailing_zeros()),
                device: writer,
                mapping: None,
                missing: "DC CISW in place of DC ISW, or DC CVAC by VA of what is needed before",
            };
            self.drop_bytes(who, start, lost, Extent::All, problem);
        }
    }

    /// The line at `start` was written to memory. Of a device's bytes those that the CPU had stored to
    /// are the same everywhere now; `left` are still old in the cache.
    pub(super) fn cleaned(&mut self, start: u64, left: u64, was_stale: bool) {
        if !was_stale {
            return;
        }
        if left != 0 {
            self.partial.insert(start / LINE, left);
            return;
        }
        self.partial.remove(&(start / LINE));
        if let Some(index) = self.lines.find(start) {
            self.lines.page(index).flags[line_of(start)] &= !STALE;
        }
    }

    /// The line at `start`, of which `flags` held, is in no cache any more.
    fn dropped(&mut self, start: u64, flags: u16) {
        if flags & STALE != 0 {
            self.partial.remove(&(start / LINE));
        }
        if let Some(shadow) = &mut self.shadow {
            shadow.forget_line(start);
        }
    }

    /// `DC ZVA` is a store of a whole block (`DCZID_EL0`): a line, on every core of QEMU's whose lines
    /// have as many bytes as [`LINE`].
    fn zero(&mut self, who: Who, start: u64, mapping: Mapping) {
        const STEP: u8 = 16;
        for pa in (start..start + LINE).step_by(usize::from(STEP)) {
            let touch = Touch {
                pa,
                size: STEP,
                mapping,
                is_store: true,
                value: Some(0),
                is_told: false,
            };
            self.access(who, &touch);
        }
    }
}

/// Bits that only the devices' jobs set and clear.
pub(super) const LENT: u16 = LENT_TO_READ | LENT_TO_WRITE;
