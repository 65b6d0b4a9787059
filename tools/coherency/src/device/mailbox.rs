//! The mailbox to a Raspberry Pi's VideoCore firmware: property requests, channel 8.
//!
//! The firmware reads a request from memory and writes its answer over it.

use super::found::{Found, Jobs};
use super::legacy_bus::{GIB, Place, place};
use super::{Access, Device, Does, Event, JobId, Memory, registers};
use crate::kind::Kind;
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of registers: the mailbox to the Arm and that to the VideoCore.
const SIZE: u64 = 0x40;
/// What the first mailbox delivers. The register repeats.
const READ: Range<u64> = 0x00..0x10;
/// What goes into the second.
const WRITE: Range<u64> = 0x20..0x30;

/// The channel, in the low bits of a word beside an address.
const CHANNEL_MASK: u32 = 0xF;
const PROPERTY: u32 = 8;

/// What every request has: its size and a code.
const HEADER: u64 = 8;
/// Bytes of the longest request. A size beyond is none.
const MAX_SIZE: u64 = 1 << 20;
/// Requests without an answer. Two mailboxes hold 8 words each; who gave up on more has forgotten the
/// oldest.
const MAX_REQUESTS: usize = 16;

const REQUEST: &str = "request";

/// The mailbox.
#[derive(Debug)]
pub struct Mailbox {
    base: u64,
    jobs: Jobs,
    /// What was asked and not answered, with the word that asked, oldest first.
    requests: VecDeque<(u32, JobId)>,
}

impl Mailbox {
    /// The mailbox whose registers are at `base`.
    pub fn new(base: u64) -> Self {
        Self {
            base,
            jobs: Jobs::default(),
            requests: VecDeque::new(),
        }
    }

    fn ask(&mut self, word: u32, memory: &dyn Memory, events: &mut Vec<Event>) {
        if self.requests.len() == MAX_REQUESTS {
            self.answer_at(0, events);
        }
        let mut found = Found::default();
        request(word & !CHANNEL_MASK, memory, &mut found);
        let job = self.jobs.next();
        found.start(job, events);
        self.requests.push_back((word, job));
    }

    /// The CPU has read `word`. The firmware may name the buffer through another window.
    fn answer(&mut self, word: u32, events: &mut Vec<Event>) {
        let within = |word: u32| u64::from(word) % GIB;
        let mut requests = self.requests.iter();
        if let Some(index) = requests.position(|&(asked, _)| within(asked) == within(word)) {
            self.answer_at(index, events);
        }
    }

    fn answer_at(&mut self, index: usize, events: &mut Vec<Event>) {
        let answered = self.requests.remove(index);
        events.extend(answered.map(|(_, job)| Event::Completed { job }));
    }
}

/// Looks at the request at `address`.
///
/// The firmware takes the Arm's address of a request in the first GiB as well as the one past its
/// cache: what works on every board is not reported.
fn request(address: u32, memory: &dyn Memory, found: &mut Found) {
    let place_of = |len: u64| match place(address, len, 0) {
        Place::Alias(pa) if u64::from(address) < GIB => Place::Memory(pa),
        place => place,
    };
    let header = place_of(HEADER);
    let mut size = [0; 4];
    let is_ram = header
        .memory()
        .is_some_and(|pa| memory.read(pa.start, &mut size));
    let size = u64::from(u32::from_le_bytes(size));
    let len = match size {
        HEADER..=MAX_SIZE => size,
        _ => HEADER,
    };
    match place_of(len) {
        Place::Memory(pa) if is_ram => {
            found.span(pa.clone(), Does::Reads, REQUEST);
            found.span(pa, Does::Writes, REQUEST);
        }
        place => {
            let kind = place.wrong().unwrap_or(Kind::DmaOutsideMemory);
            found.wrong(kind, address.into(), REQUEST);
        }
    }
}

impl Device for Mailbox {
    fn name(&self) -> &str {
        "bcm2835-mbox"
    }

    fn windows(&self) -> Vec<Range<u64>> {
        registers::window(self.base, SIZE)
    }

    fn watched(&self) -> Vec<Range<u64>> {
        Vec::new()
    }

    fn access(&mut self, access: &Access, memory: &dyn Memory, events: &mut Vec<Event>) {
        for (offset, word) in registers::covered(access, self.base) {
            if word & CHANNEL_MASK != PROPERTY {
                continue;
            }
            if access.is_store && WRITE.contains(&offset) {
                self.ask(word, memory, events);
            } else if !access.is_store && READ.contains(&offset) {
                self.answer(word, events);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, Ram, reads, started, writes};
    use super::*;

    const BASE: u64 = 0xFE00_B880;
    const EMPTY: u32 = 0xF;

    fn bench() -> Bench<Mailbox> {
        let ram = Ram::new(0..0x10_0000);
        ram.put_words(0x1000, &[0x20, 0]);
        Bench {
            device: Mailbox::new(BASE),
            ram,
            base: BASE,
        }
    }

    #[test]
    fn a_request_is_read_and_written_until_the_answer_is_read() {
        for word in [0xC000_1008, 0x0000_1008] {
            let mut bench = bench();
            let events = bench.store(WRITE.start, word);
            assert_eq!(events.len(), 1);
            let (job, spans) = started(&events);
            let expected = [
                reads(0x1000..0x1020, REQUEST),
                writes(0x1000..0x1020, REQUEST),
            ];
            assert_eq!(spans, expected);
            assert_eq!(bench.load(0x18, 0), [], "status");
            assert_eq!(bench.load(READ.start, EMPTY), []);
            assert_eq!(bench.load(READ.start, 0x1003), [], "another channel");
            assert_eq!(bench.load(READ.start, 0x2008), [], "another request");
            let end = [Event::Completed { job }];
            assert_eq!(bench.load(READ.start, 0xC000_1008), end);
            assert_eq!(bench.load(READ.start, 0xC000_1008), []);
        }
    }

    #[test]
    fn other_channels_are_not_followed() {
        let mut bench = bench();
        assert_eq!(bench.store(WRITE.start, 0xC000_1001), []);
        assert_eq!(bench.store(READ.start, 0xC000_1008), []);
        assert_eq!(bench.load(WRITE.start, 0xC000_1008), []);
    }

    #[test]
    fn requests_are_answered_in_any_order() {
        let mut bench = bench();
        let (first, _) = started(&bench.store(WRITE.start, 0xC000_1008));
        let (second, _) = started(&bench.store(WRITE.start, 0xC000_2008));
        let end = |job| [Event::Completed { job }];
        assert_eq!(bench.load(READ.start, 0xC000_2008), end(second));
        assert_eq!(bench.load(READ.start, 0xC000_1008), end(first));
    }

    #[test]
    fn a_size_that_is_none_leaves_the_header() {
        let mut bench = bench();
        for size in [0, 4, 0x7FFF_FFFF, u32::MAX] {
            bench.ram.put_words(0x1000, &[size]);
            let (_, spans) = started(&bench.store(WRITE.start, 0xC000_1008));
            assert_eq!(spans[0], reads(0x1000..0x1008, REQUEST));
        }
    }

    #[test]
    fn wrong_windows_are_told() {
        for (address, kind) in [
            (0x8000_1000, Kind::WrongBusAlias),
            (0x4000_1000, Kind::DmaOutsideMemory),
            (0x7E00_0000, Kind::DmaOutsideMemory),
            (0xC020_0000, Kind::DmaOutsideMemory),
        ] {
            let mut bench = bench();
            let events = bench.store(WRITE.start, address | PROPERTY);
            let (job, spans) = started(&events);
            assert_eq!(spans, []);
            let wrong = Event::Wrong {
                kind,
                address: address.into(),
                role: REQUEST,
            };
            assert_eq!(events[1..], [wrong]);
            let end = [Event::Completed { job }];
            assert_eq!(bench.load(READ.start, address | PROPERTY), end);
        }
    }

    #[test]
    fn unanswered_requests_are_forgotten() {
        let mut bench = bench();
        let (first, _) = started(&bench.store(WRITE.start, 0xC000_1008));
        for _ in 1..MAX_REQUESTS {
            bench.store(WRITE.start, 0xC000_1008);
        }
        let events = bench.store(WRITE.start, 0xC000_1008);
        assert_eq!(events[0], Event::Completed { job: first });
        assert_eq!(bench.device.requests.len(), MAX_REQUESTS);
    }
}
