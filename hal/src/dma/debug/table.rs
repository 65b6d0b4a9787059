//! The live mappings, found by the device's address and by the memory they hold, and what is left of
//! those that ended.

use super::Site;
use super::ranges::Ranges;
use super::report::{Call, Lender};
use crate::addr::DmaAddr;
use crate::alloc::{AllocError, Allocator, Flags, Vec, Vmalloc};
use core::ops::Range;

/// What is recorded of a mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) lender: Lender,
    pub(super) call: Call,
    /// Where the caller's bytes are, by physical address.
    pub(super) memory: Option<Memory>,
    /// Whether its lines are cleaned and invalidated, because the device does not snoop.
    pub(super) maintained: bool,
    /// Whether the driver has looked at whether the map failed.
    pub(super) checked: bool,
}

/// Memory that caches may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// First and last byte.
    pub(super) bytes: (u64, u64),
    /// First and last byte of the cache lines that these lie in.
    pub(super) lines: (u64, u64),
    /// Whether the device is given a copy.
    pub(super) is_copied: bool,
}

impl Memory {
    /// Whether a device that writes one of the two can be in the way of the other: by its lines, or
    /// where one is copied, which the CPU does, by its bytes.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        let copied = self.is_copied || other.is_copied;
        !copied || (self.bytes.0 <= other.bytes.1 && other.bytes.0 <= self.bytes.1)
    }
}

/// What is kept of a mapping that ended, until its slot is used again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    lender: Lender,
    pub(super) call: Call,
    /// Where it was unmapped.
    pub(super) unmapped: Site,
}

#[derive(Debug)]
enum Slot {
    Free {
        last: Ended,
        /// The free one that is used after this.
        next: Option<u32>,
    },
    Used(Record),
}

/// The free slots in the order in which they became free, which is that of their use.
#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u32,
    last: u32,
}

/// The live mappings of a machine, at most a fixed number.
///
/// All memory is allocated when it is made.
pub(super) struct Table<A: Allocator = Vmalloc> {
    slots: Vec<Slot, A>,
    capacity: usize,
    free: Option<Queue>,
    by_addr: Ranges<A>,
    by_line: Ranges<A>,
    live: usize,
    peak: usize,
}

impl<A: Allocator> Table<A> {
    pub(super) fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            slots: Vec::with_capacity(capacity, flags)?,
            capacity: capacity.min(u32::MAX as usize),
            free: None,
            by_addr: Ranges::with_capacity(capacity, flags)?,
            by_line: Ranges::with_capacity(capacity, flags)?,
            live: 0,
            peak: 0,
        })
    }

    /// How many mappings can be recorded at a time.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Mappings there are.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// The most mappings there were at a time.
    pub(super) fn peak(&self) -> usize {
        self.peak
    }

    /// The slots that were ever used.
    pub(super) fn slots(&self) -> Range<u32> {
        0..self.slots.len() as u32
    }

    /// The mappings that hold the device's address `addr`.
    pub(super) fn at(&self, addr: DmaAddr) -> impl Iterator<Item = (u32, Record)> {
        let slots = self.by_addr.overlapping((addr.get(), addr.get()));
        slots.filter_map(|slot| Some((slot, *self.record(slot)?)))
    }

    /// The mappings that have one of `lines`, given by its first and last byte.
    pub(super) fn in_lines(&self, lines: (u64, u64)) -> impl Iterator<Item = &Record> {
        let slots = self.by_line.overlapping(lines);
        slots.filter_map(|slot| self.record(slot))
    }

    /// The mapping that an unmap at the same address means: of several, the one most like it.
    pub(super) fn mapped_at(&self, lender: Lender, call: &Call) -> Option<(u32, Record)> {
        self.at(call.addr)
            .filter(|(_, record)| record.lender == lender && record.call.addr == call.addr)
            .max_by_key(|(_, record)| {
                let mapped = &record.call;
                let agreements = [
                    mapped.kind == call.kind,
                    mapped.len == call.len,
                    mapped.direction == call.direction,
                    agrees_on_sg(call, mapped),
                    record.checked,
                ];
                agreements.into_iter().filter(|&agrees| agrees).count()
            })
    }

    /// The mapping that a sync means, which need not start where it does: of several, one that
    /// holds all of it in the same direction.
    pub(super) fn mapping_around(&self, lender: Lender, call: &Call) -> Option<(u32, Record)> {
        self.at(call.addr)
            .filter(|(_, record)| record.lender == lender)
            .max_by_key(|(_, record)| {
                let holds_all = range(call).1 <= range(&record.call).1;
                (holds_all, record.call.direction == call.direction)
            })
    }

    pub(super) fn record(&self, slot: u32) -> Option<&Record> {
        match self.slots.get(slot as usize)? {
            Slot::Used(record) => Some(record),
            Slot::Free { .. } => None,
        }
    }

    pub(super) fn set_checked(&mut self, slot: u32) {
        if let Some(Slot::Used(record)) = self.slots.get_mut(slot as usize) {
            record.checked = true;
        }
    }

    /// The mapping that a call means which comes after its end: of several, the one that ended last.
    /// Looks at all that ended.
    pub(super) fn ended_around(&self, lender: Lender, call: &Call) -> Option<Ended> {
        let first = self.free.map(|free| free.first);
        let slots = core::iter::successors(first, |&slot| match self.slots.get(slot as usize)? {
            Slot::Free { next, .. } => *next,
            Slot::Used(_) => None,
        });
        let ended = slots.filter_map(|slot| match self.slots.get(slot as usize)? {
            Slot::Free { last, .. } => Some(*last),
            Slot::Used(_) => None,
        });
        ended
            .filter(|ended| {
                let (first, last) = range(&ended.call);
                ended.lender == lender && (first..=last).contains(&call.addr.get())
            })
            .last()
    }

    /// Whether there was room. Slots that were never used come first, so that what ended is known for
    /// long.
    pub(super) fn insert(&mut self, record: Record) -> bool {
        let slot = if self.slots.len() < self.capacity {
            // As there is room, nothing is refused, here or below.
            let _ = self.slots.push_within_capacity(Slot::Used(record));
            (self.slots.len() - 1) as u32
        } else if let Some(Queue { first, last }) = self.free {
            let place = &mut self.slots[first as usize];
            if let Slot::Free { next, .. } = *place {
                self.free = next.map(|first| Queue { first, last });
            }
            *place = Slot::Used(record);
            first
        } else {
            return false;
        };
        self.by_addr.insert(range(&record.call), slot);
        if let Some(memory) = record.memory {
            self.by_line.insert(memory.lines, slot);
        }
        self.live += 1;
        self.peak = self.peak.max(self.live);
        true
    }

    /// Ends the mapping of a slot, at `unmapped`.
    pub(super) fn remove(&mut self, slot: u32, record: &Record, unmapped: Site) {
        self.by_addr.remove(slot);
        if record.memory.is_some() {
            self.by_line.remove(slot);
        }
        let last = Ended {
            lender: record.lender,
            call: record.call,
            unmapped,
        };
        self.slots[slot as usize] = Slot::Free { last, next: None };
        let first = self.free.map_or(slot, |free| {
            if let Slot::Free { next, .. } = &mut self.slots[free.last as usize] {
                *next = Some(slot);
            }
            free.first
        });
        self.free = Some(Queue { first, last: slot });
        self.live -= 1;
    }
}

/// The first and the last address of a call's bytes.
pub(super) fn range(call: &Call) -> (u64, u64) {
    let first = call.addr.get();
    (
        first,
        first.saturating_add(call.len.saturating_sub(1) as u64),
    )
}

/// Whether two calls for scattered buffers were given lists of the same length. A list is blamed
/// once, at its first entry.
pub(super) fn agrees_on_sg(call: &Call, mapped: &Call) -> bool {
    match (call.sg, mapped.sg) {
        (Some(call), Some(mapped)) => call.index != 0 || call.count == mapped.count,
        _ => true,
    }
}
