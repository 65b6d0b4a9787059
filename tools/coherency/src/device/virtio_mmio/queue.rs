//! A queue with split rings (Virtual I/O Device 1.2, 2.7).
//!
//! A buffer - a chain of descriptors - is a job from the notification until the CPU has loaded an index
//! of the used ring that counts it. The available ring is read at the notification only: the CPU goes
//! on to write it.

use crate::device::found::{Found, Jobs};
use crate::device::{Access, Does, Event, JobId, Memory};
use crate::kind::Kind;
use std::collections::BTreeMap;
use std::ops::Range;

/// Descriptors of the largest queue.
const MAX_SIZE: u32 = 1 << 15;
/// Descriptors that are followed in all at one notification.
const MAX_FOLLOWED: u32 = 1 << 16;

/// Bytes of a descriptor: address, length, flags, index of the next.
const DESCRIPTOR: u64 = 16;
/// There is a next one.
const FLAG_NEXT: u16 = 1;
/// The device writes the buffer; otherwise it reads.
const FLAG_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
const FLAG_INDIRECT: u16 = 4;

/// Bytes before the elements of the available and of the used ring: flags and index.
const HEADER: u64 = 4;
/// Where the index is in them.
const INDEX: u64 = 2;
/// Bytes of an element of the available ring: the first descriptor.
const AVAILABLE: u64 = 2;
/// Bytes of an element of the used ring: the first descriptor, and bytes written.
const USED: u64 = 8;
/// Bytes after the elements of either: at which index to tell.
const EVENT: u64 = 2;

/// The alignment of a legacy used ring that the driver has not set.
const LEGACY_ALIGN: u32 = 4096;

const TABLE_ROLE: &str = "descriptor table";
const INDIRECT_ROLE: &str = "indirect table";
const AVAILABLE_ROLE: &str = "available ring";
const USED_ROLE: &str = "used ring";

/// Where the parts of a queue are. None of them wraps around.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rings {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    has_events: bool,
}

impl Rings {
    /// Parts at addresses of their own. The error is what to tell of them, if anything: a size that is
    /// none is ignored by the device.
    pub(super) fn new(
        size: u32,
        descriptors: u64,
        available: u64,
        used: u64,
        has_events: bool,
    ) -> Result<Self, Option<Event>> {
        if size == 0 || size > MAX_SIZE {
            return Err(None);
        }
        let count = u64::from(size);
        for (start, len, role) in [
            (descriptors, count * DESCRIPTOR, TABLE_ROLE),
            (
                available,
                HEADER + count * AVAILABLE + EVENT,
                AVAILABLE_ROLE,
            ),
            (used, HEADER + count * USED + EVENT, USED_ROLE),
        ] {
            if start.checked_add(len).is_none() {
                return Err(Some(outside(start, role)));
            }
        }
        Ok(Self {
            // CAST: at most MAX_SIZE.
            size: size as u16,
            descriptors,
            available,
            used,
            has_events,
        })
    }

    /// Parts one after the other from `start` on, the used ring aligned (2.7.2).
    pub(super) fn legacy(
        start: u64,
        size: u32,
        align: Option<u32>,
        has_events: bool,
    ) -> Result<Self, Option<Event>> {
        let count = u64::from(size);
        let align = align.unwrap_or(LEGACY_ALIGN).max(1);
        let place = || {
            let available = start.checked_add(count * DESCRIPTOR)?;
            let end = available.checked_add(HEADER + count * AVAILABLE + EVENT)?;
            Some((available, end.checked_next_multiple_of(align.into())?))
        };
        let Some((available, used)) = place() else {
            return Err(Some(outside(start, TABLE_ROLE)));
        };
        Self::new(size, start, available, used, has_events)
    }

    fn slot(&self, index: u16) -> u64 {
        u64::from(index % self.size)
    }

    fn end_of_available(&self) -> u64 {
        self.available + HEADER + u64::from(self.size) * AVAILABLE
    }

    fn end_of_used(&self) -> u64 {
        self.used + HEADER + u64::from(self.size) * USED
    }
}

/// A queue in use.
#[derive(Debug)]
pub(super) struct Queue {
    rings: Rings,
    /// The index of the available ring up to which buffers are known.
    available: u16,
    /// The index of the used ring that the CPU has seen.
    used: u16,
    /// The buffers that the device has, by their first descriptors.
    lent: BTreeMap<u32, JobId>,
}

impl Queue {
    pub(super) fn new(rings: Rings) -> Self {
        Self {
            rings,
            available: 0,
            used: 0,
            lent: BTreeMap::new(),
        }
    }

    /// The used ring, with what follows it.
    pub(super) fn used_ring(&self) -> Range<u64> {
        self.rings.used..self.rings.end_of_used() + EVENT
    }

    /// The device has been told to look for new buffers.
    pub(super) fn notify(&mut self, jobs: &mut Jobs, memory: &dyn Memory, events: &mut Vec<Event>) {
        let rings = self.rings;
        let mut look = Found::default();
        let Some(index) = half(memory, rings.available + INDEX) else {
            events.push(outside(rings.available, AVAILABLE_ROLE));
            return;
        };
        let new = index.wrapping_sub(self.available);
        // More than there is room for: QEMU gives such a queue up.
        let new = if new > rings.size { 0 } else { new };
        let indices: Vec<_> = (0..new).map(|at| self.available.wrapping_add(at)).collect();
        self.available = index;
        if indices.is_empty() {
            return;
        }
        let header = rings.available..rings.available + HEADER;
        look.span(header, Does::Reads, AVAILABLE_ROLE);
        let mut heads = Vec::new();
        for index in indices {
            let element = rings.available + HEADER + rings.slot(index) * AVAILABLE;
            look.span(element..element + AVAILABLE, Does::Reads, AVAILABLE_ROLE);
            heads.extend(half(memory, element));
        }
        if rings.has_events {
            let event = rings.end_of_available();
            look.span(event..event + EVENT, Does::Reads, AVAILABLE_ROLE);
        }
        look.read(events);

        let mut budget = MAX_FOLLOWED;
        for head in heads {
            self.lend(head, jobs, memory, &mut budget, events);
        }
    }

    /// Follows the chain of a buffer and starts its job.
    fn lend(
        &mut self,
        head: u16,
        jobs: &mut Jobs,
        memory: &dyn Memory,
        budget: &mut u32,
        events: &mut Vec<Event>,
    ) {
        let rings = self.rings;
        // A buffer that is handed over twice has come back, or the CPU must think so.
        self.give_back(head.into(), events);
        let mut found = Found::default();
        let table = Table {
            start: rings.descriptors,
            count: rings.size,
            role: TABLE_ROLE,
        };
        table.follow(head, budget, memory, &mut found);
        let header = rings.used..rings.used + HEADER;
        found.span(header, Does::Writes, USED_ROLE);
        // Where its end will be told if buffers are used in the order in which they came.
        // CAST: fewer than there are descriptors.
        let ahead = self.lent.len() as u16;
        let element = rings.used + HEADER + rings.slot(self.used.wrapping_add(ahead)) * USED;
        found.span(element..element + USED, Does::Writes, USED_ROLE);
        if rings.has_events {
            let event = rings.end_of_used();
            found.span(event..event + EVENT, Does::Writes, USED_ROLE);
        }
        let job = jobs.next();
        found.start(job, events);
        self.lent.insert(head.into(), job);
    }

    /// The CPU has loaded `access`; if that was the index of the used ring, it has seen what is used.
    pub(super) fn look(
        &mut self,
        access: &Access,
        jobs: &mut Jobs,
        memory: &dyn Memory,
        events: &mut Vec<Event>,
    ) {
        let rings = self.rings;
        let bytes = access.value.to_le_bytes();
        let index = (rings.used + INDEX).checked_sub(access.pa).and_then(|at| {
            let loaded = &bytes[..usize::from(access.size).min(bytes.len())];
            loaded.get(usize::try_from(at).ok()?..)?.first_chunk()
        });
        let Some(&index) = index.filter(|_| !access.is_store) else {
            return;
        };
        let index = u16::from_le_bytes(index);
        let new = index.wrapping_sub(self.used);
        if new > rings.size {
            return;
        }
        let first = std::mem::replace(&mut self.used, index);
        for index in (0..new).map(|at| first.wrapping_add(at)) {
            let element = rings.used + HEADER + rings.slot(index) * USED;
            let mut head = [0; 4];
            if !memory.read(element, &mut head) {
                continue;
            }
            let head = u32::from_le_bytes(head);
            // Where notifications are suppressed the device finds buffers by itself.
            if !self.lent.contains_key(&head) {
                self.notify(jobs, memory, events);
            }
            self.give_back(head, events);
        }
    }

    /// Ends the job of every buffer: the device has forgotten them.
    pub(super) fn forget(&mut self, events: &mut Vec<Event>) {
        let forgotten = std::mem::take(&mut self.lent);
        events.extend(forgotten.into_values().map(|job| Event::Completed { job }));
    }

    fn give_back(&mut self, head: u32, events: &mut Vec<Event>) {
        let ended = self.lent.remove(&head);
        events.extend(ended.map(|job| Event::Completed { job }));
    }
}

/// A table of descriptors.
#[derive(Clone, Copy)]
struct Table {
    start: u64,
    count: u16,
    role: &'static str,
}

impl Table {
    /// Follows the chain from descriptor `first` on.
    fn follow(self, first: u16, budget: &mut u32, memory: &dyn Memory, found: &mut Found) {
        let mut index = first;
        // A chain has each descriptor once.
        for _ in 0..self.count {
            if index >= self.count {
                return;
            }
            if *budget == 0 {
                found.leave_out();
                return;
            }
            *budget -= 1;
            let at = self.start + u64::from(index) * DESCRIPTOR;
            let mut bytes = [0; DESCRIPTOR as usize];
            if !memory.read(at, &mut bytes) {
                found.wrong(Kind::DmaOutsideMemory, at, self.role);
                return;
            }
            found.span(at..at + DESCRIPTOR, Does::Reads, self.role);
            let words = u128::from_le_bytes(bytes);
            // CAST: address, length, flags and next in turn.
            let (address, len) = (words as u64, (words >> 64) as u32);
            let (flags, next) = ((words >> 96) as u16, (words >> 112) as u16);
            let (does, role) = match flags & FLAG_WRITE {
                0 => (Does::Reads, "source"),
                _ => (Does::Writes, "destination"),
            };
            let Some(end) = address.checked_add(len.into()) else {
                found.wrong(Kind::DmaOutsideMemory, address, role);
                return;
            };
            if flags & FLAG_INDIRECT == 0 {
                found.span(address..end, does, role);
            } else if self.role == TABLE_ROLE {
                // A table in a table is not allowed.
                let count = u64::from(len) / DESCRIPTOR;
                let table = Self {
                    start: address,
                    count: u16::try_from(count).unwrap_or(u16::MAX),
                    role: INDIRECT_ROLE,
                };
                table.follow(0, budget, memory, found);
            }
            if flags & FLAG_NEXT == 0 {
                return;
            }
            index = next;
        }
    }
}

fn half(memory: &dyn Memory, pa: u64) -> Option<u16> {
    let mut bytes = [0; 2];
    memory
        .read(pa, &mut bytes)
        .then(|| u16::from_le_bytes(bytes))
}

fn outside(address: u64, role: &'static str) -> Event {
    Event::Wrong {
        kind: Kind::DmaOutsideMemory,
        address,
        role,
    }
}
