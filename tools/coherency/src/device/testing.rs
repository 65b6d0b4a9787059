//! Memory and accesses for tests of models.

use super::{Access, Device, Does, Event, JobId, Memory, Span};
use std::cell::RefCell;
use std::ops::Range;

/// RAM from some address on.
pub(super) struct Ram {
    base: u64,
    bytes: RefCell<Vec<u8>>,
}

impl Ram {
    /// RAM that is zero.
    pub(super) fn new(pa: Range<u64>) -> Self {
        let bytes = vec![0; (pa.end - pa.start) as usize];
        Self {
            base: pa.start,
            bytes: RefCell::new(bytes),
        }
    }

    pub(super) fn put(&self, pa: u64, bytes: &[u8]) {
        let at = (pa - self.base) as usize;
        self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn put_words(&self, pa: u64, words: &[u32]) {
        for (at, word) in (pa..).step_by(4).zip(words) {
            self.put(at, &word.to_le_bytes());
        }
    }
}

impl Memory for Ram {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> bool {
        let ram = self.bytes.borrow();
        let found = pa.checked_sub(self.base).and_then(|at| {
            let at = usize::try_from(at).ok()?;
            ram.get(at..at.checked_add(bytes.len())?)
        });
        if let Some(found) = found {
            bytes.copy_from_slice(found);
        }
        found.is_some()
    }
}

/// A CPU before a device.
pub(super) struct Bench<D> {
    pub(super) device: D,
    pub(super) ram: Ram,
    pub(super) base: u64,
}

impl<D: Device> Bench<D> {
    pub(super) fn access(&mut self, pa: u64, size: u8, is_store: bool, value: u64) -> Vec<Event> {
        let access = Access {
            cpu: 0,
            pa,
            size,
            is_store,
            value,
        };
        let mut events = Vec::new();
        self.device.access(&access, &self.ram, &mut events);
        events
    }

    pub(super) fn store(&mut self, offset: u64, value: u32) -> Vec<Event> {
        self.access(self.base + offset, 4, true, value.into())
    }

    pub(super) fn load(&mut self, offset: u64, value: u32) -> Vec<Event> {
        self.access(self.base + offset, 4, false, value.into())
    }
}

/// The job and the spans of the only start in `events`.
pub(super) fn started(events: &[Event]) -> (JobId, Vec<Span>) {
    let mut found = events.iter().filter_map(|event| match event {
        Event::Started { job, spans } => Some((*job, spans.clone())),
        _ => None,
    });
    let only = found.next().unwrap();
    assert!(found.next().is_none(), "{events:?}");
    only
}

pub(super) fn reads(pa: Range<u64>, role: &'static str) -> Span {
    let does = Does::Reads;
    Span { pa, does, role }
}

pub(super) fn writes(pa: Range<u64>, role: &'static str) -> Span {
    let does = Does::Writes;
    Span { pa, does, role }
}
