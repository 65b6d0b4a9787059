//! The checks, apart from the machine they run on: a table of live mappings and what is wrong with
//! a call that it knows nothing of, or something else.

use super::ranges::Ranges;
use super::report::{Call, Kind, Lender, Report};
use super::{Check, Site};
use crate::addr::{DmaAddr, PhysAddr};
use crate::alloc::{AllocError, Allocator, Flags, Vec, Vmalloc};
use crate::dma::direction::DirectionKind;
use crate::dma::raw::DMA_MAPPING_ERROR;
use crate::dma::{DmaError, SegmentLimits};
use core::fmt;
use core::ops::Range;

/// The most that can be wrong with one call: an unmap's size, function, CPU address or number of
/// entries, direction, and a map that was not checked.
const MAX_REPORTS: usize = 6;

/// What is wrong with one call.
pub(super) type Reports = heapless::Vec<Report, MAX_REPORTS>;

/// What is recorded of a mapping.
#[derive(Clone, Copy, Debug)]
struct Record {
    lender: Lender,
    call: Call,
    /// Where the caller's bytes are, by physical address.
    memory: Option<Memory>,
    /// Whether its lines are cleaned and invalidated, because the device does not snoop.
    maintained: bool,
    /// Whether the driver has looked at whether the map failed.
    checked: bool,
}

/// Memory that caches may hold.
#[derive(Clone, Copy, Debug)]
struct Memory {
    /// First and last byte.
    bytes: (u64, u64),
    /// First and last byte of the cache lines that these lie in.
    lines: (u64, u64),
    /// Whether the device is given a copy.
    is_copied: bool,
}

impl Memory {
    /// Whether a device that writes one of the two can be in the way of the other: by its lines, or
    /// where one is copied, which the CPU does, by its bytes.
    fn is_shared_with(&self, other: &Self) -> bool {
        let copied = self.is_copied || other.is_copied;
        !copied || (self.bytes.0 <= other.bytes.1 && other.bytes.0 <= self.bytes.1)
    }
}

#[derive(Debug)]
enum Slot {
    /// The next free one.
    Free(Option<u32>),
    Used(Record),
}

/// What a map did, beyond what its call says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lent {
    /// The caller's memory, if caches may hold it.
    pub(super) memory: Option<PhysAddr>,
    /// Whether the device accesses a copy instead.
    pub(super) is_copied: bool,
    /// Bytes that caches write back together.
    pub(super) granule: usize,
    pub(super) maintained: bool,
    /// Whether the function cannot fail unnoticed.
    pub(super) checked: bool,
    pub(super) limits: SegmentLimits,
}

impl Lent {
    /// What is recorded of `len` bytes there.
    fn memory(&self, len: usize) -> Option<Memory> {
        let first = self.memory?.get();
        let last = first.checked_add(len as u64)?.checked_sub(1)?;
        let within = self.granule as u64 - 1;
        Some(Memory {
            bytes: (first, last),
            lines: (first & !within, last | within),
            is_copied: self.is_copied,
        })
    }
}

/// Who is made to see the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dma) enum Sync {
    ForCpu,
    ForDevice,
}

/// The live mappings of a machine, at most a fixed number, and the count of mistakes.
///
/// All memory is allocated when it is made, so a check may be made in any context. What a check costs
/// does not depend on how many mappings there are elsewhere.
pub struct Checker<A: Allocator = Vmalloc> {
    slots: Vec<Slot, A>,
    capacity: usize,
    free: Option<u32>,
    by_addr: Ranges<A>,
    by_line: Ranges<A>,
    live: usize,
    peak: usize,
    counts: [u32; Check::ALL.len()],
}

impl<A: Allocator> fmt::Debug for Checker<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("live", &self.live)
            .field("peak", &self.peak)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// The first and the last address of a call's bytes.
fn range(call: &Call) -> (u64, u64) {
    let first = call.addr.get();
    (
        first,
        first.saturating_add(call.len.saturating_sub(1) as u64),
    )
}

impl<A: Allocator> Checker<A> {
    /// A table for `capacity` live mappings, about 200 bytes each. Task context.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    pub fn new(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            slots: Vec::with_capacity(capacity, flags)?,
            capacity: capacity.min(u32::MAX as usize),
            free: None,
            by_addr: Ranges::with_capacity(capacity, flags)?,
            by_line: Ranges::with_capacity(capacity, flags)?,
            live: 0,
            peak: 0,
            counts: [0; Check::ALL.len()],
        })
    }

    /// How many mappings can be recorded at a time.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Mappings there are.
    pub fn live(&self) -> usize {
        self.live
    }

    /// The most mappings there were at a time.
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// How often `check` failed.
    pub fn count(&self, check: Check) -> u32 {
        self.counts[check as usize]
    }

    /// Whether every mapping was recorded. Once one was not, memory that is not in the table may be
    /// mapped, and nobody is blamed for unmapping it.
    pub fn is_complete(&self) -> bool {
        self.count(Check::OutOfEntries) == 0
    }

    /// A call that mapped memory.
    pub(super) fn map(&mut self, lender: Lender, call: Call, lent: &Lent) -> Reports {
        let mut found = Reports::new();
        let (first, last) = range(&call);
        // A typed list knows no entries: it is cut for the device after it was lent.
        if call.sg.is_some() {
            if call.len > lent.limits.max_len() {
                self.note(&mut found, Check::SgTooLong, lender, call, None);
            }
            let boundary = lent.limits.boundary();
            if boundary != 0 && (first ^ last) & !(boundary - 1) != 0 {
                self.note(&mut found, Check::SgBoundary, lender, call, None);
            }
        }
        let memory = lent.memory(call.len);
        if let Some((check, other)) = self.sharer(&call, memory, lent.maintained) {
            self.note(&mut found, check, lender, call, Some(other));
        }
        let record = Record {
            lender,
            call,
            memory,
            maintained: lent.maintained,
            checked: lent.checked,
        };
        if !self.insert(record) {
            self.note(&mut found, Check::OutOfEntries, lender, call, None);
        }
        found
    }

    /// The mapping that has a line in common with a new one, or where one of the two is a copy a byte,
    /// if one of them is written by its device: the first that makes the worst of it. Of a copy
    /// nothing is snooped: the last unmap wins.
    fn sharer(
        &self,
        call: &Call,
        memory: Option<Memory>,
        maintained: bool,
    ) -> Option<(Check, Call)> {
        let writes = call.direction.device_writes();
        let memory = memory?;
        let others = self.by_line.overlapping(memory.lines);
        let others = others.filter_map(|slot| {
            let record = self.record(slot)?;
            Some((record, record.memory?))
        });
        let conflicts = others.filter(|(other, of_other)| {
            (writes || other.call.direction.device_writes()) && memory.is_shared_with(of_other)
        });
        let mut snooped = None;
        for (other, of_other) in conflicts {
            let is_copied = memory.is_copied || of_other.is_copied;
            if maintained || other.maintained || is_copied {
                return Some((Check::Overlap, other.call));
            }
            snooped.get_or_insert((Check::OverlapSnooped, other.call));
        }
        snooped
    }

    /// A call that is to map memory and is refused for `refusal`, a mistake of the kind `check`.
    pub(super) fn refuse(
        &mut self,
        check: Check,
        lender: Lender,
        call: Call,
        refusal: DmaError,
    ) -> Reports {
        let mut found = Reports::new();
        self.note(&mut found, check, lender, call, None);
        if let Some(report) = found.last_mut() {
            report.refusal = Some(refusal);
        }
        found
    }

    /// A call that is about to unmap or free.
    pub(super) fn unmap(&mut self, lender: Lender, call: Call) -> Reports {
        let mut found = Reports::new();
        if let Some((slot, record)) = self.compare(&mut found, lender, call) {
            self.remove(slot, &record);
        }
        found
    }

    /// A call that is about to free what ends its record by itself.
    pub(super) fn free(&mut self, lender: Lender, call: Call) -> Reports {
        let mut found = Reports::new();
        // The record stays.
        let _ = self.compare(&mut found, lender, call);
        found
    }

    /// The mapping that an unmap or free means, and what is wrong with it.
    fn compare(
        &mut self,
        found: &mut Reports,
        lender: Lender,
        call: Call,
    ) -> Option<(u32, Record)> {
        let Some((slot, record)) = self.mapped_at(lender, &call) else {
            self.note_unknown(found, Check::FreeUnallocated, lender, call);
            return None;
        };
        let mapped = record.call;
        let mut expect = |holds: bool, check| {
            if !holds {
                self.note(found, check, lender, call, Some(mapped));
            }
        };
        expect(call.kind == mapped.kind, Check::WrongFunction);
        expect(call.len == mapped.len, Check::FreeSize);
        if call.kind == mapped.kind {
            expect(agrees_on_sg(&call, &mapped), Check::SgCount);
            let is_coherent = call.kind == Kind::Coherent;
            expect(
                !is_coherent || call.cpu == mapped.cpu,
                Check::FreeCpuAddress,
            );
            expect(
                is_coherent || call.direction == mapped.direction,
                Check::FreeDirection,
            );
        }
        expect(record.checked, Check::ErrorUnchecked);
        Some((slot, record))
    }

    /// A call that is about to hand mapped memory to `to`.
    pub(super) fn sync(&mut self, lender: Lender, call: Call, to: Sync) -> Reports {
        let mut found = Reports::new();
        let Some((slot, record)) = self.mapping_around(lender, &call) else {
            self.note_unknown(&mut found, Check::SyncUnallocated, lender, call);
            return found;
        };
        let mapped = record.call;
        let mut expect = |holds: bool, check| {
            if !holds {
                self.note(&mut found, check, lender, call, Some(mapped));
            }
        };
        let is_streaming = !matches!(mapped.kind, Kind::Coherent | Kind::Resource);
        expect(is_streaming, Check::WrongFunction);
        expect(range(&call).1 <= range(&mapped).1, Check::SyncOutside);
        if is_streaming {
            expect(agrees_on_sg(&call, &mapped), Check::SgCount);
            if let Some(check) = wrong_direction(call.direction, mapped.direction, to) {
                expect(false, check);
            }
        }
        expect(record.checked, Check::ErrorUnchecked);
        self.set_checked(slot);
        found
    }

    /// The driver looks at whether the map that returned `addr` failed: the first one that it has
    /// not looked at.
    pub(super) fn look(&mut self, lender: Lender, addr: DmaAddr) {
        let at = self.by_addr.overlapping((addr.get(), addr.get()));
        let unchecked = at.filter(|&slot| {
            self.record(slot).is_some_and(|record| {
                record.lender == lender && record.call.addr == addr && !record.checked
            })
        });
        if let Some(slot) = unchecked.last() {
            self.set_checked(slot);
        }
    }

    /// What is wrong if the device of `lender` is released at `site` with what slot number `slot` has:
    /// a mapping of it is leaked.
    pub(super) fn leak(&mut self, lender: Lender, slot: u32, site: Site) -> Reports {
        let mut found = Reports::new();
        let record = self.record(slot);
        if let Some(mapped) = record.filter(|record| record.lender == lender) {
            let mapped = mapped.call;
            let call = Call { site, ..mapped };
            self.note(&mut found, Check::Leak, lender, call, Some(mapped));
        }
        found
    }

    /// The live mapping in slot number `slot`, with the name of its device.
    pub(super) fn mapping(&self, slot: u32) -> Option<(&'static str, Call)> {
        let record = self.record(slot)?;
        Some((record.lender.name, record.call))
    }

    /// The slots that were ever used.
    pub(super) fn slots(&self) -> Range<u32> {
        0..self.slots.len() as u32
    }

    /// The mapping that an unmap at the same address means: of several, the one most like it.
    fn mapped_at(&self, lender: Lender, call: &Call) -> Option<(u32, Record)> {
        let at = self.by_addr.overlapping((call.addr.get(), call.addr.get()));
        let known = at.filter_map(|slot| Some((slot, *self.record(slot)?)));
        known
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
    fn mapping_around(&self, lender: Lender, call: &Call) -> Option<(u32, Record)> {
        let at = self.by_addr.overlapping((call.addr.get(), call.addr.get()));
        let known = at.filter_map(|slot| Some((slot, *self.record(slot)?)));
        known
            .filter(|(_, record)| record.lender == lender)
            .max_by_key(|(_, record)| {
                let holds_all = range(call).1 <= range(&record.call).1;
                (holds_all, record.call.direction == call.direction)
            })
    }

    /// A call about memory that is not mapped where it says, with the mapping around it, if any.
    fn note_unknown(&mut self, found: &mut Reports, check: Check, lender: Lender, call: Call) {
        if call.addr == DMA_MAPPING_ERROR {
            self.note(found, Check::ErrorUsed, lender, call, None);
        } else if self.is_complete() {
            let around = self.mapping_around(lender, &call);
            self.note(
                found,
                check,
                lender,
                call,
                around.map(|(_, record)| record.call),
            );
        }
    }

    fn note(
        &mut self,
        found: &mut Reports,
        check: Check,
        lender: Lender,
        call: Call,
        mapped: Option<Call>,
    ) {
        let count = &mut self.counts[check as usize];
        *count = count.saturating_add(1);
        let report = Report {
            check,
            device: lender.name,
            call,
            mapped,
            refusal: None,
            nth: *count,
        };
        // There is room for all that can be wrong with a call.
        let _ = found.push(report);
    }

    fn record(&self, slot: u32) -> Option<&Record> {
        match self.slots.get(slot as usize)? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    fn set_checked(&mut self, slot: u32) {
        if let Some(Slot::Used(record)) = self.slots.get_mut(slot as usize) {
            record.checked = true;
        }
    }

    /// Whether there was room.
    fn insert(&mut self, record: Record) -> bool {
        let slot = match self.free {
            Some(slot) => {
                let place = &mut self.slots[slot as usize];
                if let Slot::Free(next) = *place {
                    self.free = next;
                }
                *place = Slot::Used(record);
                slot
            }
            None if self.slots.len() < self.capacity => {
                // As there is room, nothing is refused, here or below.
                let _ = self.slots.push_within_capacity(Slot::Used(record));
                (self.slots.len() - 1) as u32
            }
            None => return false,
        };
        self.by_addr.insert(range(&record.call), slot);
        if let Some(memory) = record.memory {
            self.by_line.insert(memory.lines, slot);
        }
        self.live += 1;
        self.peak = self.peak.max(self.live);
        true
    }

    fn remove(&mut self, slot: u32, record: &Record) {
        self.by_addr.remove(slot);
        if record.memory.is_some() {
            self.by_line.remove(slot);
        }
        self.slots[slot as usize] = Slot::Free(self.free);
        self.free = Some(slot);
        self.live -= 1;
    }
}

/// Whether two calls for scattered buffers were given lists of the same length. A list is blamed
/// once, at its first entry.
fn agrees_on_sg(call: &Call, mapped: &Call) -> bool {
    match (call.sg, mapped.sg) {
        (Some(call), Some(mapped)) => call.index != 0 || call.count == mapped.count,
        _ => true,
    }
}

/// What is wrong with handing memory that was mapped in one direction over in another. Memory of
/// both directions may be handed over in either.
fn wrong_direction(call: DirectionKind, mapped: DirectionKind, to: Sync) -> Option<Check> {
    use DirectionKind::{Bidirectional, FromDevice, ToDevice};

    match (mapped, to) {
        _ if call == mapped || mapped == Bidirectional => None,
        (ToDevice, Sync::ForCpu) => Some(Check::SyncReadOnlyForCpu),
        (FromDevice, Sync::ForDevice) => Some(Check::SyncWriteOnlyForDevice),
        _ => Some(Check::SyncDirection),
    }
}
