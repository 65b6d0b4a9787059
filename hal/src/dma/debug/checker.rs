//! The checks, apart from the machine they run on: what is wrong with a call about a mapping that the
//! table knows nothing of, or something else.

use super::report::{Call, Kind, Lender, Report};
use super::table::{Memory, Record, Table, agrees_on_sg, range};
use super::{Check, Site};
use crate::addr::{DmaAddr, PhysAddr};
use crate::alloc::{AllocError, Allocator, Flags, Vmalloc};
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
/// does not depend on how many mappings there are elsewhere, unless it finds that nothing is mapped:
/// then it looks at all that was.
pub struct Checker<A: Allocator = Vmalloc> {
    table: Table<A>,
    counts: [u32; Check::ALL.len()],
}

impl<A: Allocator> fmt::Debug for Checker<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("live", &self.live())
            .field("peak", &self.peak())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl<A: Allocator> Checker<A> {
    /// A table for `capacity` live mappings, about 200 bytes each. Task context.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    pub fn new(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            table: Table::with_capacity(capacity, flags)?,
            counts: [0; Check::ALL.len()],
        })
    }

    /// How many mappings can be recorded at a time.
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Mappings there are.
    pub fn live(&self) -> usize {
        self.table.live()
    }

    /// The most mappings there were at a time.
    pub fn peak(&self) -> usize {
        self.table.peak()
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
        if !self.table.insert(record) {
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
        let others = self.table.in_lines(memory.lines);
        let others = others.filter_map(|record| Some((record, record.memory?)));
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
            self.table.remove(slot, &record, call.site);
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
        let Some((slot, record)) = self.table.mapped_at(lender, &call) else {
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
        let Some((slot, record)) = self.table.mapping_around(lender, &call) else {
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
        self.table.set_checked(slot);
        found
    }

    /// The driver looks at whether the map that returned `addr` failed: the first one that it has
    /// not looked at.
    pub(super) fn look(&mut self, lender: Lender, addr: DmaAddr) {
        let unchecked = self.table.at(addr).filter(|(_, record)| {
            record.lender == lender && record.call.addr == addr && !record.checked
        });
        if let Some((slot, _)) = unchecked.last() {
            self.table.set_checked(slot);
        }
    }

    /// What is wrong if the device of `lender` is released at `site` with what slot number `slot` has:
    /// a mapping of it is leaked.
    pub(super) fn leak(&mut self, lender: Lender, slot: u32, site: Site) -> Reports {
        let mut found = Reports::new();
        let record = self.table.record(slot);
        if let Some(mapped) = record.filter(|record| record.lender == lender) {
            let mapped = mapped.call;
            let call = Call { site, ..mapped };
            self.note(&mut found, Check::Leak, lender, call, Some(mapped));
        }
        found
    }

    /// The live mapping in slot number `slot`, with the name of its device.
    pub(super) fn mapping(&self, slot: u32) -> Option<(&'static str, Call)> {
        let record = self.table.record(slot)?;
        Some((record.lender.name, record.call))
    }

    /// The slots that were ever used.
    pub(super) fn slots(&self) -> Range<u32> {
        self.table.slots()
    }

    /// A call about memory that is not mapped where it says, with the mapping around it, or the one
    /// that was there last, if any.
    fn note_unknown(&mut self, found: &mut Reports, check: Check, lender: Lender, call: Call) {
        if call.addr == DMA_MAPPING_ERROR {
            self.note(found, Check::ErrorUsed, lender, call, None);
        } else if self.is_complete() {
            let around = self.table.mapping_around(lender, &call);
            let ended = match around {
                Some(_) => None,
                None => self.table.ended_around(lender, &call),
            };
            let mapped = around.map(|(_, record)| record.call);
            let mapped = mapped.or(ended.map(|ended| ended.call));
            self.note(found, check, lender, call, mapped);
            if let Some(report) = found.last_mut() {
                report.unmapped = ended.map(|ended| ended.unmapped);
            }
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
            unmapped: None,
            refusal: None,
            nth: *count,
        };
        // There is room for all that can be wrong with a call.
        let _ = found.push(report);
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
