//! H10: the CPU touches or frees what the device owns. The types do not let it; what happens if it
//! is done all the same, and what is on record of who owns what.

use super::caches::observable;
use super::{
    Attempt, NOTHING_SEEN, Role, each_method, engine, evidence, is_cached, method, put, together,
    writes_at_once,
};
use crate::diagnosis::Diagnosis;
use crate::experiment::{Cell, Direction, Finding, Hazard, Method, Observed};
use crate::handed::{Fault, Handed, Meanwhile, Window, ended, scene, write_back};
use crate::machine::machine;
use crate::memory::Object;
use crate::pattern::{self, CANARY, Expected, Over, POISON};
use crate::provocation::{DOORBELL, Kind, Provoked, Wrong};
use crate::report::{self, Outcome, Stop};
use crate::{check, check_ok};
use core::ops::Range;
use hal::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use hal::arch::translate;
use hal::dma::debug::{self, Call};
use hal::dma::direction::DirectionKind;
use hal::dma::{Device, DmaEngine};
use hal::mm::Gfp;

const LEN: usize = PAGE_SIZE;

/// What the CPU stores to while the device owns it: parts of lines.
const TOUCHED: Range<usize> = 100..300;

/// The bytes that the device was to read or write, and those that the CPU stored meanwhile.
struct Versions {
    handed_over: u64,
    meanwhile: u64,
}

impl Expected for Versions {
    fn beside(&self, _: usize) -> u8 {
        CANARY
    }

    fn old(&self, index: usize) -> u8 {
        pattern::byte(self.meanwhile, index)
    }

    fn copied(&self, index: usize) -> u8 {
        pattern::byte(self.handed_over, index)
    }
}

/// What was seen of memory that was touched.
struct Sight {
    diagnosis: Option<Diagnosis>,
    /// Whether a cache may have kept the CPU's stores from memory, or memory's bytes from the CPU.
    is_cached: bool,
}

/// The CPU stores to parts of lines that the device reads or writes.
pub(super) fn touched() -> Outcome {
    let engine = engine()?;
    let caches = check_ok!(observable(engine));
    each_method(|method| {
        let mut seen = NOTHING_SEEN;
        for direction in [Direction::ToDevice, Direction::FromDevice] {
            let look = |memory: &mut dyn Handed| touch(engine, method, memory, direction);
            let found = check_ok!(method::with(method, engine.device(), LEN, look));
            if let Some(sight) = found {
                seen = together(seen, note(method, direction, &sight, caches));
            }
        }
        seen
    })
}

fn note(method: Method, direction: Direction, sight: &Sight, caches: bool) -> Outcome {
    if let Some(diagnosis) = &sight.diagnosis {
        report::diagnostic(format_args!("H10 {}: {diagnosis}", method.name()));
    }
    let (bytes, at) = (TOUCHED.len(), TOUCHED.start);
    let when = match direction {
        Direction::ToDevice => "before the engine read them",
        _ => "after the engine wrote them",
    };
    let found = sight.diagnosis.map_or(Finding::Right, |it| it.flaw.into());
    put(Cell {
        hazard: Hazard::TouchedWhileOwned,
        method,
        direction,
        expected: Finding::Torn,
        observed: Observed::data(found),
        evidence: evidence(format_args!("{bytes} bytes at {at} stored {when}")),
    })?;
    // Without a cache between, nothing about it is luck.
    let is_certain = !(caches && sight.is_cached);
    let name = method.name();
    check!(
        found == Finding::Torn || !is_certain,
        "{name} {direction}: two versions are not seen as such"
    );
    Ok(())
}

/// Has the engine copy, stores to the memory before, meanwhile and after, and compares.
fn touch(
    engine: &dyn DmaEngine,
    method: Method,
    memory: &mut dyn Handed,
    direction: Direction,
) -> Result<Sight, Fault> {
    let seed = machine().seed;
    let versions = Versions {
        handed_over: seed,
        meanwhile: !seed,
    };
    let in_time = Over { seed, old: POISON };
    let store = |window: &Window<'_>| window.store(TOUCHED, |index| versions.old(index));
    let meanwhile = Meanwhile::Accessed(&store);
    let va = memory.va();
    let mut there = machine().pool.alloc(engine.device(), LEN)?;
    let diagnosis = match direction {
        Direction::ToDevice => {
            there.as_mut_slice().fill(POISON);
            pattern::fill(&mut memory.bytes()[..LEN], seed);
            let mut to = there.part_mut(0, LEN)?;
            let provoked = announced(engine, method, direction, va);
            let sent = memory.send(engine, 0..LEN, &mut to, meanwhile);
            drop(provoked);
            let arrived = scene(&there.as_slice()[..LEN], 0, va, DirectionKind::ToDevice);
            ended(sent, arrived, &in_time)?;
            arrived.diagnose(&versions)
        }
        _ => {
            memory.bytes()[..LEN].fill(POISON);
            pattern::fill(&mut there.as_mut_slice()[..LEN], seed);
            let source = there.part(0, LEN)?;
            let provoked = announced(engine, method, direction, va);
            let received = memory.receive(engine, 0..LEN, &source, meanwhile);
            drop(provoked);
            let read = scene(&memory.bytes()[..LEN], 0, va, DirectionKind::FromDevice);
            ended(received, read, &in_time)?;
            read.diagnose(&versions)
        }
    };
    // Nothing of it is to be met by the memory's next owner.
    if method.is_raw() {
        write_back(va, LEN);
    }
    Ok(Sight {
        diagnosis,
        is_cached: is_cached(va),
    })
}

/// Says what is wrong with having the engine work on the memory at `va` while the CPU stores to it: the
/// stores themselves, and what they leave in the cache before the doorbell.
fn announced(
    engine: &dyn DmaEngine,
    method: Method,
    direction: Direction,
    va: VirtAddr,
) -> Option<Provoked> {
    const STORES: &str = "fault_probe_write_u8";
    /// [`DOORBELL`] and [`STORES`].
    const BOTH: &str = "edu::Inner::start_step,LegacyRegisters::start,fault_probe_write_u8";

    let is_read = direction == Direction::ToDevice;
    let dirty = match is_read {
        true => Kind::ReadsDirty,
        false => Kind::WritesDirty,
    };
    let attempt = Attempt {
        hazard: Hazard::TouchedWhileOwned,
        method,
        direction,
        role: Role::Cell,
    };
    let (kinds, place) = match (is_read || writes_at_once(engine), is_cached(va)) {
        (true, true) => (&[Kind::Touched, dirty][..], BOTH),
        (true, false) => (&[Kind::Touched][..], STORES),
        (false, true) => (&[dirty][..], DOORBELL),
        (false, false) => return None,
    };
    Some(attempt.announce(Wrong { kinds, place }))
}

/// The record of `device` having the page at `va`, if there is one.
fn record_of(device: &Device, va: VirtAddr) -> Option<Call> {
    let addr = bus_addr(device, va)?;
    let mut found = None;
    debug::for_each_live(|name, call| {
        let offset = addr.get().checked_sub(call.addr.get());
        let covers = offset.is_some_and(|offset| offset + LEN as u64 <= call.len as u64);
        if name == device.name() && covers {
            found = Some(*call);
        }
    });
    found
}

/// Where `device` sees the page at `va`.
fn bus_addr(device: &Device, va: VirtAddr) -> Option<DmaAddr> {
    let page = translate::read_el1(va).page()?;
    device.dma_addr(page, LEN).ok()
}

/// What a record of memory, or its lack, says of whether freeing it too early can be noticed.
fn guarded_by(record: Option<&Call>) -> Finding {
    match record {
        Some(_) => Finding::Right,
        None => Finding::Unguarded,
    }
}

/// Memory that a device owns is on record until it is given back, so that the ledger names it if it
/// is not. The types see to it that nobody frees it before. An address handed over bare is on no
/// record, and its memory may be freed at any time.
pub(super) fn freed() -> Outcome {
    let engine = engine()?;
    each_method(|method| {
        let look = |memory: &mut dyn Handed| own(method, engine, memory);
        let found = check_ok!(method::maintained(method, engine.device(), LEN, look));
        let Some((va, bus, record)) = found else {
            return NOTHING_SEEN;
        };
        let found = guarded_by(record.as_ref());
        let expected = match method.is_raw() {
            true => Finding::Unguarded,
            false => Finding::Right,
        };
        put(Cell {
            hazard: Hazard::TouchedWhileOwned,
            method,
            direction: Direction::Both,
            expected,
            observed: match debug::is_on() {
                true => Observed::structural(found),
                false => Observed::NotObservable,
            },
            evidence: match (record, debug::is_on()) {
                (_, false) => evidence(format_args!("DMA calls are not checked")),
                (
                    Some(Call {
                        kind, len, addr, ..
                    }),
                    _,
                ) => evidence(format_args!(
                    "on record: {kind}, {len:#x} bytes at bus address {addr}"
                )),
                (None, _) => evidence(format_args!("bus address {bus} is on no record")),
            },
        })?;
        let name = method.name();
        check!(found == expected, "{name} is {}", found.name());
        let left = record_of(engine.device(), va);
        check!(left.is_none(), "{name}: still on record when given back");
        Ok(())
    })
}

/// Where memory is that the engine owns, for the CPU and for the device, and the record of that. An
/// address that is taken down bare is told to no engine here: whatever it did, it is on no record.
fn own(
    method: Method,
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
) -> Result<(VirtAddr, DmaAddr, Option<Call>), Fault> {
    let (va, device) = (memory.va(), engine.device());
    let bus = bus_addr(device, va).unwrap_or_default();
    if method.is_raw() {
        return Ok((va, bus, record_of(device, va)));
    }
    let record = core::cell::Cell::new(None);
    let look = |_: &Window<'_>| record.set(record_of(device, va));
    let there = machine().pool.alloc(device, LEN)?;
    memory.receive(
        engine,
        0..LEN,
        &there.part(0, LEN)?,
        Meanwhile::Accessed(&look),
    )?;
    Ok((va, bus, record.get()))
}

/// Memory that is lent to nobody is on no record, and that is found.
pub(super) fn planted() -> Outcome {
    if !debug::is_on() {
        return Err(Stop::Skipped("DMA calls are not checked"));
    }
    let engine = engine()?;
    let memory = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let found = guarded_by(record_of(engine.device(), memory.va()).as_ref());
    check!(
        found == Finding::Unguarded,
        "memory lent to nobody is on record"
    );
    Ok(())
}
