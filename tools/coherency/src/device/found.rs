//! What a model finds when it follows a job through memory.

use super::{Does, Event, JobId, Span};
use crate::kind::Kind;
use std::ops::Range;

/// Spans of a job. What a job has beyond is not checked: nobody's job has as many.
const MAX_SPANS: usize = 1 << 16;
/// Wrong addresses of a job.
const MAX_WRONG: usize = 16;

/// Spans and wrong addresses.
#[derive(Debug, Default)]
pub(super) struct Found {
    spans: Vec<Span>,
    /// The last span of each role and direction.
    latest: Vec<usize>,
    wrong: Vec<Event>,
    left_out: u64,
}

impl Found {
    /// Adds memory that the device works on, joined with what it touches and is alike.
    pub(super) fn span(&mut self, pa: Range<u64>, does: Does, role: &'static str) {
        if pa.is_empty() {
            return;
        }
        let spans = &mut self.spans;
        let is_alike =
            |&&mut index: &&mut usize| spans[index].does == does && spans[index].role == role;
        let latest = self.latest.iter_mut().find(is_alike);
        if let Some(&mut index) = latest
            && let span = &mut spans[index].pa
            && span.start <= pa.end
            && pa.start <= span.end
        {
            *span = span.start.min(pa.start)..span.end.max(pa.end);
        } else if spans.len() < MAX_SPANS {
            match latest {
                Some(index) => *index = spans.len(),
                None => self.latest.push(spans.len()),
            }
            spans.push(Span { pa, does, role });
        } else {
            self.left_out += 1;
        }
    }

    /// The job goes on, and is not followed further.
    pub(super) fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// Adds an address that the device must not be given.
    pub(super) fn wrong(&mut self, kind: Kind, address: u64, role: &'static str) {
        let wrong = Event::Wrong {
            kind,
            address,
            role,
        };
        if self.wrong.len() < MAX_WRONG && !self.wrong.contains(&wrong) {
            self.wrong.push(wrong);
        }
    }

    /// Tells of it all as the beginning of a job.
    pub(super) fn start(self, job: JobId, events: &mut Vec<Event>) {
        self.tell(|spans| Some(Event::Started { job, spans }), events);
    }

    /// Tells of it all as more of a job.
    pub(super) fn extend(self, job: JobId, events: &mut Vec<Event>) {
        let extended =
            |spans: Vec<_>| (!spans.is_empty()).then_some(Event::Extended { job, spans });
        self.tell(extended, events);
    }

    /// Tells of it all as what the device has read and does not keep.
    pub(super) fn read(self, events: &mut Vec<Event>) {
        self.tell(|spans| Some(Event::Read { spans }), events);
    }

    fn tell(self, what: impl FnOnce(Vec<Span>) -> Option<Event>, events: &mut Vec<Event>) {
        events.extend(what(self.spans));
        events.extend(self.wrong);
        if self.left_out != 0 {
            events.push(Event::LeftOut {
                count: self.left_out,
            });
        }
    }
}

/// Numbers for jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs(u32);

impl Jobs {
    /// A number that no job has.
    pub(super) fn next(&mut self) -> JobId {
        self.0 = self.0.wrapping_add(1);
        JobId(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(found: Found) -> Vec<Span> {
        let mut events = Vec::new();
        found.start(JobId(1), &mut events);
        match events.swap_remove(0) {
            Event::Started { spans, .. } => spans,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spans_that_touch_and_are_alike_become_one() {
        let mut found = Found::default();
        for block in 0..3 {
            let at = |base: u64| base + block * 0x20..base + block * 0x20 + 0x20;
            found.span(at(0x1000), Does::Reads, "control block");
            found.span(at(0x2000), Does::Reads, "source");
            found.span(at(0x3000), Does::Writes, "destination");
            found.span(at(0x4000 + block), Does::Writes, "other");
        }
        found.span(0x5000..0x5000, Does::Reads, "source");
        found.span(0x2100..0x2110, Does::Reads, "source");
        found.span(0x2000..0x2010, Does::Reads, "source");
        found.wrong(Kind::WrongBusAlias, 1, "source");
        found.wrong(Kind::WrongBusAlias, 1, "source");
        assert_eq!(found.wrong.len(), 1);
        let spans = spans(found);
        assert_eq!(spans.len(), 3 + 3 + 2, "the last kinds leave gaps");
        assert_eq!(spans[0].pa, 0x1000..0x1060);
        assert_eq!(spans[2].pa, 0x3000..0x3060);
    }

    #[test]
    fn there_is_a_bound() {
        let mut found = Found::default();
        for at in 0..2 * MAX_SPANS as u64 {
            found.span(at * 2..at * 2 + 1, Does::Reads, "source");
            found.wrong(Kind::WrongBusAlias, at, "source");
        }
        assert_eq!(found.wrong.len(), MAX_WRONG);
        assert_eq!(found.left_out, MAX_SPANS as u64);
        assert_eq!(spans(found).len(), MAX_SPANS);
    }
}
