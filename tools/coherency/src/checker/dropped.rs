//! Bytes that an invalidate has dropped while only the cache had them.
//!
//! A buffer that a device is about to write may be invalidated although it is dirty: what it held is not
//! wanted. So the invalidate alone proves nothing. It is reported, where it was made, when somebody misses
//! the bytes: a CPU that loads them, a device that reads them, or one that writes only other bytes of
//! their line; or when the run ends and no device has been given them. It never is if all of them are
//! stored anew, or given to a device that writes them.
//!
//! An invalidate of a whole cache is about no buffer: it is reported only if somebody reads the bytes.

use super::{Checker, Problem, Who};
use crate::device::{Does, Span};
use crate::kind::Kind;
use crate::lines::{DROPPED, LINE, line_of};
use crate::report::Finding;
use std::collections::HashMap;

/// All that were dropped and are not settled.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    lines: HashMap<u64, Loss>,
    /// The invalidates, each as it will be reported of the first byte that is missed.
    causes: Vec<Finding>,
}

/// Of one line.
#[derive(Debug)]
struct Loss {
    bytes: u64,
    /// Index of the invalidate.
    cause: usize,
    extent: Extent,
}

/// What an invalidate was of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The line, by its address.
    Line,
    /// A cache, by set and way.
    All,
}

/// Among so many of the latest an invalidate is looked for that is one of them again.
const LATEST: usize = 64;

impl Checker {
    /// `who` has dropped `bytes` of the line at `start`, which is `problem` if they are missed.
    pub(super) fn drop_bytes(
        &mut self,
        who: Who,
        start: u64,
        bytes: u64,
        extent: Extent,
        problem: Problem,
    ) {
        let finding = self.finding(who, problem);
        let is_alike = |cause: &Finding| {
            let of = |finding: &Finding| (finding.scope, finding.pc, finding.cpu);
            of(cause) == of(&finding)
                && cause.device == finding.device
                && cause.console == finding.console
        };
        let Dropped { lines, causes } = &mut self.dropped;
        if lines.is_empty() {
            causes.clear();
        }
        let latest = causes.len().saturating_sub(LATEST);
        let known = causes[latest..].iter().position(is_alike);
        let cause = known.map_or(causes.len(), |known| latest + known);
        if known.is_none() {
            causes.push(finding);
        }
        let loss = lines.entry(start / LINE);
        let loss = loss.or_insert(Loss {
            bytes: 0,
            cause,
            extent,
        });
        loss.bytes |= bytes;
        (loss.cause, loss.extent) = (cause, extent);
        self.set_dropped(start, true);
    }

    /// A CPU has stored `bytes` of the line at `start`.
    pub(super) fn replace_dropped(&mut self, start: u64, bytes: u64) {
        if let Some(loss) = self.dropped.lines.get_mut(&(start / LINE)) {
            loss.bytes &= !bytes;
            if loss.bytes == 0 {
                self.dropped.lines.remove(&(start / LINE));
                self.set_dropped(start, false);
            }
        }
    }

    /// Somebody looks for `bytes` of the line at `start`.
    pub(super) fn miss_dropped(&mut self, start: u64, bytes: u64) {
        let known = self.dropped.lines.get(&(start / LINE));
        if known.is_some_and(|loss| loss.bytes & bytes != 0)
            && let Some(loss) = self.dropped.lines.remove(&(start / LINE))
        {
            self.set_dropped(start, false);
            self.report_loss(start, &loss);
        }
    }

    /// A device was given `spans`.
    pub(super) fn lend_dropped(&mut self, spans: &[Span]) {
        if self.dropped.lines.is_empty() {
            return;
        }
        for does in [Does::Writes, Does::Reads] {
            for (start, mask) in self.dropped_in(spans, does) {
                match does {
                    Does::Writes => self.replace_dropped(start, mask),
                    Does::Reads => self.miss_dropped(start, mask),
                }
            }
        }
        // What is left of a line that a device writes is not the device's.
        for (start, _) in self.dropped_in(spans, Does::Writes) {
            let known = self.dropped.lines.get(&(start / LINE));
            if known.is_some_and(|loss| loss.extent == Extent::Line) {
                self.miss_dropped(start, !0);
            }
        }
    }

    /// The run ends: what was dropped was no buffer.
    pub(super) fn report_dropped(&mut self) {
        let mut lines: Vec<_> = self.dropped.lines.drain().collect();
        lines.sort_unstable_by_key(|&(line, _)| line);
        for (line, loss) in lines {
            if loss.extent == Extent::Line {
                self.report_loss(line * LINE, &loss);
            }
        }
    }

    fn report_loss(&mut self, start: u64, loss: &Loss) {
        let mut finding = self.dropped.causes[loss.cause].clone();
        finding.kind = Kind::InvalidateDestroysNeighbour;
        finding.pa = start + u64::from(loss.bytes.trailing_zeros());
        self.add(finding);
    }

    /// Lines of `spans` with dropped bytes, and their bytes that are the spans'.
    fn dropped_in(&mut self, spans: &[Span], does: Does) -> Vec<(u64, u64)> {
        let mut lines = Vec::new();
        for span in spans.iter().filter(|span| span.does == does) {
            self.lines.each(&span.pa, |page, line, mask| {
                if page.flags[line] & DROPPED != 0 {
                    lines.push((page.pa + line as u64 * LINE, mask));
                }
            });
        }
        lines
    }

    fn set_dropped(&mut self, start: u64, is_dropped: bool) {
        if let Some(index) = self.lines.find(start) {
            let flags = &mut self.lines.page(index).flags[line_of(start)];
            *flags = *flags & !DROPPED | if is_dropped { DROPPED } else { 0 };
        }
    }
}
