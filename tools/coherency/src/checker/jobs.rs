//! What devices do.

use super::maintenance::LENT;
use super::{Checker, Problem, Who};
use crate::device::{Access, Device, Does, Event, JobId, Span};
use crate::kind::Kind;
use crate::lines::{CODE_STALE, DIRTY, LENT_TO_READ, LENT_TO_WRITE, LINE, Lines, STALE};
use std::ops::Range;

/// A device, and what it has asked for.
pub(super) struct Model {
    pub(super) device: Box<dyn Device>,
    windows: Vec<Range<u64>>,
    pub(super) watched: Vec<Range<u64>>,
}

/// A job that the CPU has not seen the end of.
pub(super) struct Job {
    pub(super) model: usize,
    id: JobId,
    pub(super) spans: Vec<Span>,
}

/// Memory that a device wrote.
pub(super) struct Written {
    pub(super) model: usize,
    pub(super) pa: Range<u64>,
    pub(super) role: &'static str,
}

/// How many writes are remembered for reports.
const MAX_WRITTEN: usize = 4096;

impl Model {
    pub(super) fn new(device: Box<dyn Device>) -> Self {
        let (windows, watched) = (device.windows(), device.watched());
        Self {
            device,
            windows,
            watched,
        }
    }

    /// Whether it is to be told of an access to `range`.
    pub(super) fn watches(&self, range: &Range<u64>) -> bool {
        let mut all = self.windows.iter().chain(&self.watched);
        all.any(|own| own.start < range.end && range.start < own.end)
    }
}

impl Checker {
    /// Tells a device of an access to its registers or to watched memory.
    pub(super) fn device_access(&mut self, who: Who, model: usize, access: &Access) {
        let mut events = Vec::new();
        self.models[model]
            .device
            .access(access, &*self.memory, &mut events);
        for event in events {
            match event {
                Event::Started { job, spans } => {
                    self.completed(model, job);
                    let name = self.models[model].device.name().to_owned();
                    *self.jobs_done.entry(name).or_default() += 1;
                    self.started(who, model, job, spans);
                }
                Event::Extended { job, spans } => self.started(who, model, job, spans),
                Event::Completed { job } => self.completed(model, job),
                Event::Read { spans } => {
                    self.check(who, model, spans);
                }
                Event::LeftOut { count } => self.lost += count,
                Event::Wrong {
                    kind,
                    address,
                    role,
                } => self.wrong(who, model, kind, address, role),
                Event::Moved => {
                    let model = &mut self.models[model];
                    model.windows = model.device.windows();
                    model.watched = model.device.watched();
                    self.has_moved = true;
                }
            }
        }
    }

    fn wrong(&mut self, who: Who, model: usize, kind: Kind, address: u64, role: &'static str) {
        let missing = match kind {
            Kind::WrongBusAlias => "the bus address of the memory in place of this one",
            _ => "a check of the address against what the device reaches",
        };
        let problem = Problem {
            kind,
            pa: address,
            device: Some((model, role)),
            mapping: None,
            missing,
        };
        self.report(who, problem);
    }

    /// What the device is to find, against what is there. Returns what of it is RAM.
    fn check(&mut self, who: Who, model: usize, spans: Vec<Span>) -> Vec<Span> {
        let (spans, others): (Vec<_>, Vec<_>) = spans
            .into_iter()
            .filter(|span| !span.pa.is_empty())
            .partition(|span| self.lines.is_ram(&span.pa));
        for span in others {
            let holds = |own: &Range<u64>| own.start <= span.pa.start && span.pa.end <= own.end;
            if span.does == Does::Writes || !self.readable.iter().any(holds) {
                self.wrong(who, model, Kind::DmaOutsideMemory, span.pa.start, span.role);
            }
        }
        for span in &spans {
            self.check_order(who, model, span);
            if !self.is_coherent {
                self.check_dirty(who, model, span);
            }
        }
        self.lend_dropped(&spans);
        spans
    }

    /// A doorbell: `spans` are the device's from here on.
    pub(super) fn started(&mut self, who: Who, model: usize, id: JobId, spans: Vec<Span>) {
        let spans = self.check(who, model, spans);
        for span in &spans {
            lend(&mut self.lines, span);
            if span.does == Does::Writes {
                self.write(span);
                self.remember(model, span);
            }
        }
        match (self.jobs.iter_mut()).find(|job| job.model == model && job.id == id) {
            Some(job) => job.spans.extend(spans),
            None => self.jobs.push(Job { model, id, spans }),
        }
    }

    /// Whether what the device is to find is on its way still.
    fn check_order(&mut self, who: Who, model: usize, span: &Span) {
        // What other CPUs have under way is of buffers of theirs, which may have a part of a line.
        let lines = span.pa.start / LINE * LINE..span.pa.end.next_multiple_of(LINE);
        let pending = self.pending(who.cpu);
        // A doorbell that is a store-release is behind the stores before it, not behind maintenance.
        let is_release = pending.released_at == Some(who.pc);
        let stored = pending.stored.meets(&span.pa).filter(|_| !is_release);
        let maintained = pending.maintained.meets(&lines);
        let (pa, missing) = match (maintained.filter(|_| !self.is_coherent), stored) {
            (Some(pa), _) => (pa, "DSB between cache maintenance and doorbell"),
            (None, Some(pa)) => (pa, "DMB OSHST or DSB between the stores and the doorbell"),
            (None, None) => return,
        };
        let problem = Problem {
            kind: Kind::DoorbellWithoutBarrier,
            pa,
            device: Some((model, span.role)),
            mapping: None,
            missing,
        };
        self.report(who, problem);
    }

    fn check_dirty(&mut self, who: Who, model: usize, span: &Span) {
        let mut first = None;
        self.lines.each(&span.pa, |page, line, mask| {
            let concerned = match span.does {
                Does::Reads => mask,
                // A dirty byte beside the span takes the whole line back to memory.
                Does::Writes => !0,
            };
            let dirty = page.dirty[line] & concerned;
            if page.flags[line] & DIRTY != 0 && dirty != 0 && first.is_none() {
                first = Some(page.pa + line as u64 * LINE + u64::from(dirty.trailing_zeros()));
            }
        });
        let Some(pa) = first else { return };
        let (kind, missing) = match span.does {
            Does::Reads => (
                Kind::DeviceReadsDirtyLine,
                "DC CVAC by VA before the doorbell",
            ),
            Does::Writes => (
                Kind::DeviceWritesDirtyLine,
                "DC CVAC or DC CIVAC by VA before the doorbell",
            ),
        };
        let problem = Problem {
            kind,
            pa,
            device: Some((model, span.role)),
            mapping: None,
            missing,
        };
        self.report(who, problem);
    }

    /// The end of a job, as the CPU learns of it. What the cache fetched until now may be old.
    pub(super) fn completed(&mut self, model: usize, id: JobId) {
        let Some(index) = (self.jobs.iter()).position(|job| job.model == model && job.id == id)
        else {
            return;
        };
        let job = self.jobs.swap_remove(index);
        for span in &job.spans {
            self.lines
                .each(&span.pa, |page, line, _| page.flags[line] &= !LENT);
            if span.does == Does::Writes {
                self.write(span);
            }
        }
        for other in &self.jobs {
            let line = |pa: u64| pa / LINE;
            let meets = |a: &Span, b: &Span| {
                line(a.pa.start) <= line(b.pa.end - 1) && line(b.pa.start) <= line(a.pa.end - 1)
            };
            for span in &other.spans {
                if job.spans.iter().any(|ended| meets(ended, span)) {
                    lend(&mut self.lines, span);
                }
            }
        }
    }

    /// The device may have written all of `span`.
    fn write(&mut self, span: &Span) {
        let is_coherent = self.is_coherent;
        let learned = self.learned;
        let partial = &mut self.partial;
        self.lines.each(&span.pa, |page, line, mask| {
            page.flags[line] |= CODE_STALE;
            let key = (page.pa + line as u64 * LINE) / LINE;
            // A line that was fetched with the word that tells of the end is as new as that.
            if is_coherent || !page.may_hide(line) || learned == Some(key) {
                return;
            }
            let was_stale = page.flags[line] & STALE != 0;
            page.flags[line] |= STALE;
            if mask == !0 {
                partial.remove(&key);
            } else if !was_stale {
                partial.insert(key, mask);
            } else if let Some(known) = partial.get_mut(&key) {
                *known |= mask;
            }
        });
        if is_coherent && let Some(shadow) = &mut self.shadow {
            shadow.forget(&span.pa);
        }
    }

    fn remember(&mut self, model: usize, span: &Span) {
        if self.written.len() == MAX_WRITTEN {
            self.written.pop_front();
        }
        self.written.push_back(Written {
            model,
            pa: span.pa.clone(),
            role: span.role,
        });
    }
}

fn lend(lines: &mut Lines, span: &Span) {
    let flag = match span.does {
        Does::Reads => LENT_TO_READ,
        Does::Writes => LENT_TO_WRITE,
    };
    lines.each(&span.pa, |page, line, _| page.flags[line] |= flag);
}
