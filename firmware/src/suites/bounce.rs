//! Bounce buffers: what devices cannot be given as it is reaches them through slots.

mod high;

use super::phantom::{NARROW, Narrowed, STRICT, WIDE};
use super::refusal::{is_usable, refusal};
use super::streaming::counted;
use crate::handed::Taken;
use crate::machine::machine;
use crate::memory::{Area, Object};
use crate::pattern::{self, CANARY, POISON};
use crate::report::{self, Outcome, Stop, Suite};
use crate::{check, check_ok};
use hal::addr::PAGE_SIZE;
use hal::dma::bounce::{self, BouncePool, BounceStats, MAX_BOUNCE, SLOT_SIZE};
use hal::dma::engine::copy;
use hal::dma::maintenance::{line_size, writeback_granule};
use hal::dma::streaming::{map_shared, map_slice};
use hal::dma::{
    Bidirectional, Device, Direction, DmaEngine, DmaError, FromDevice, SharedMapping, ToDevice,
};
use hal::mm::Gfp;
use heapless::Vec;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "bounce",
    tests: tests! {
        the_pool_is_where_every_engine_reaches_it: reached,
        memory_out_of_reach_arrives_through_slots: arrives,
        memory_out_of_reach_arrives_through_slots_planted: arrives_planted,
        odd_buffers_keep_their_neighbours: neighbours,
        odd_buffers_keep_their_neighbours_planted: neighbours_planted,
        copies_are_made_as_tabled: tabled,
        copies_are_made_as_tabled_planted: tabled_planted,
        what_slots_cannot_help_is_refused: refused,
        an_exhausted_pool_is_named_and_serves_again: exhausted,
        memory_above_4_gib_arrives_with_32_address_bits: high::arrives,
        memory_above_4_gib_arrives_with_32_address_bits_planted: high::planted,
    },
};

/// The pool, for tests that need one.
pub(super) fn pool() -> Result<&'static BouncePool, Stop> {
    bounce::pool().ok_or(Stop::Skipped("no bounce pool: swiotlb=0"))
}

fn narrowed() -> Result<Narrowed, Stop> {
    pool()?;
    Narrowed::get().ok_or(Stop::Skipped("no engine that reaches the bounce pool"))
}

fn reached() -> Outcome {
    let pool = pool()?;
    let (frames, stats) = (pool.frames(), pool.stats());
    let size = frames.size() as usize;
    check!(
        stats.slots * SLOT_SIZE == size && size >= MAX_BOUNCE,
        "{stats:?} in {frames}"
    );
    for engine in &machine().engines {
        let device = engine.device();
        check_ok!(device.dma_addr(frames.start, size));
        report::diagnostic(format_args!(
            "engine={} pool={frames} slots={} max mapping={:#x}",
            device.name(),
            stats.slots,
            device.max_mapping_size()
        ));
    }
    Ok(())
}

/// The engine behind the narrowed one was not started since it had served `interrupts`, and copies.
fn usable(interrupts: u64) -> Outcome {
    match machine().engines.first() {
        Some(&engine) => is_usable(engine, interrupts),
        None => Ok(()),
    }
}

/// Copies `source` with the engine into `destination`, both out of its reach, unless `forgotten`.
fn round_trip(
    engine: &dyn DmaEngine,
    source: &[u8],
    destination: &mut [u8],
    forgotten: bool,
) -> Result<(), DmaError> {
    let device = engine.device();
    let from = map_shared(device, source)?;
    let mut to = map_slice::<FromDevice>(device, destination)?;
    if !forgotten {
        copy(engine, &from, &mut to)?;
    }
    to.unmap();
    from.unmap();
    Ok(())
}

fn arrives() -> Outcome {
    let (engine, pool) = (narrowed()?, pool()?);
    let before = pool.stats();
    let mut bytes = 0;
    for len in [4, 64, SLOT_SIZE, SLOT_SIZE + 4, 5 * PAGE_SIZE] {
        let mut source = check_ok!(Object::zeroed(len, Gfp::KERNEL));
        let mut seen = check_ok!(Object::zeroed(len, Gfp::KERNEL));
        pattern::fill(&mut source, machine().seed);
        seen.fill(POISON);
        check_ok!(round_trip(&engine, &source, &mut seen, false));
        check_ok!(pattern::verify(&seen, 0, len, machine().seed));
        bytes += len as u64;
    }
    let after = pool.stats();
    check!(
        after.bytes_in - before.bytes_in == 2 * bytes
            && after.bytes_out - before.bytes_out == bytes,
        "{bytes} bytes both ways: {before:?}, then {after:?}"
    );
    report::diagnostic(format_args!(
        "bytes={bytes} high water={} slots observed=data",
        after.high_water
    ));
    Ok(())
}

/// A copy that never ran: the slots hold what was there.
fn arrives_planted() -> Outcome {
    let engine = narrowed()?;
    let mut source = check_ok!(Object::zeroed(PAGE_SIZE, Gfp::KERNEL));
    let mut seen = check_ok!(Object::zeroed(PAGE_SIZE, Gfp::KERNEL));
    pattern::fill(&mut source, machine().seed);
    seen.fill(POISON);
    check_ok!(round_trip(&engine, &source, &mut seen, true));
    check!(
        pattern::verify(&seen, 0, PAGE_SIZE, machine().seed).is_err(),
        "a copy that never ran passed for one"
    );
    Ok(())
}

/// What came of memory lent to a device that writes and is not coherent, between neighbours that store
/// up to the map and again until the unmap.
#[derive(Debug, PartialEq, Eq)]
struct Lent {
    is_bounced: bool,
    /// Lines cleaned, invalidated, and both, by the unmap: with a line of theirs among the last two,
    /// a cache loses or overwrites what the neighbours stored.
    unmap: [u64; 3],
    /// Whether neighbours and buffer hold what was stored last.
    is_whole: bool,
}

/// Lends the `len` bytes at `at` of `memory`, which nobody writes.
fn lend(memory: &mut [u8], at: usize, len: usize) -> Result<Lent, DmaError> {
    let (before, rest) = memory.split_at_mut(at);
    let (bytes, after) = rest.split_at_mut(len);
    let neighbours = [before, after];
    let mut stored = neighbours.map(|bytes| {
        bytes.fill(POISON);
        bytes
    });
    bytes.fill(CANARY);
    let mapping = map_slice::<FromDevice>(&WIDE, bytes)?;
    let is_bounced = mapping.is_bounced();
    stored.iter_mut().for_each(|bytes| bytes.fill(!POISON));
    let ((), unmap) = counted(|| mapping.unmap());
    let holds = |bytes: &[u8], value| bytes.iter().all(|&byte| byte == value);
    Ok(Lent {
        is_bounced,
        unmap,
        is_whole: stored.iter().all(|bytes| holds(bytes, !POISON)) && holds(bytes, CANARY),
    })
}

/// The first of these shapes, as offset and length, that is not bounced though it shares a line, or is
/// though it does not, or whose unmap touches more than its own lines or its slots'.
fn wrongly_lent() -> Result<Option<(usize, usize, Lent)>, Stop> {
    let line = writeback_granule();
    let mut memory = check_ok!(Object::zeroed(2 * PAGE_SIZE, Gfp::KERNEL));
    for (at, len) in [
        (0, line),
        (line, PAGE_SIZE),
        (1, line),
        (0, line - 1),
        (line - 1, 2),
        (line, line + 1),
    ] {
        let wanted = Lent {
            is_bounced: !at.is_multiple_of(line) || !len.is_multiple_of(line),
            unmap: [0, len.div_ceil(line_size()) as u64, 0],
            is_whole: true,
        };
        let found = check_ok!(lend(&mut memory, at, len));
        if found != wanted {
            return Ok(Some((at, len, found)));
        }
    }
    Ok(None)
}

fn neighbours() -> Outcome {
    pool()?;
    let _maintained = Taken::as_coherent(&WIDE, false);
    let wrong = wrongly_lent()?;
    check!(wrong.is_none(), "{wrong:?}");
    Ok(())
}

/// A device wrongly taken as coherent shares lines, and that must be found.
fn neighbours_planted() -> Outcome {
    pool()?;
    let _forgotten = Taken::as_coherent(&WIDE, true);
    check!(
        wrongly_lent()?.is_some(),
        "a line shared with a device was not found"
    );
    Ok(())
}

/// Bytes copied in and out: by the map, the sync for the CPU, the sync for the device, the unmap.
type Copies = [(u64, u64); 4];

fn copies<D: Direction>(
    pool: &BouncePool,
    device: &Device,
    bytes: &mut [u8],
) -> Result<Copies, DmaError> {
    let moved = |since: BounceStats| {
        let now = pool.stats();
        (
            now.bytes_in - since.bytes_in,
            now.bytes_out - since.bytes_out,
        )
    };
    let start = pool.stats();
    let mapping = map_slice::<D>(device, bytes)?;
    let map = moved(start);
    let start = pool.stats();
    let cpu = mapping.sync_for_cpu();
    let for_cpu = moved(start);
    let start = pool.stats();
    let mapping = cpu.sync_for_device();
    let for_device = moved(start);
    let start = pool.stats();
    mapping.unmap();
    Ok([map, for_cpu, for_device, moved(start)])
}

const TABLED: usize = 300;

/// What [`copies`] must be, by direction.
fn table() -> [Copies; 3] {
    let len = TABLED as u64;
    let (into, out, none) = ((len, 0), (0, len), (0, 0));
    [
        [into, none, into, none],
        [into, out, into, out],
        [into, out, into, out],
    ]
}

fn made(device: &Device) -> Result<[Copies; 3], Stop> {
    let pool = pool()?;
    let mut memory = check_ok!(Object::zeroed(TABLED, Gfp::KERNEL));
    Ok([
        check_ok!(copies::<ToDevice>(pool, device, &mut memory)),
        check_ok!(copies::<FromDevice>(pool, device, &mut memory)),
        check_ok!(copies::<Bidirectional>(pool, device, &mut memory)),
    ])
}

fn tabled() -> Outcome {
    let (found, wanted) = (made(narrowed()?.device())?, table());
    check!(found == wanted, "{found:?} instead of {wanted:?}");
    Ok(())
}

/// A buffer that is not bounced at all.
fn tabled_planted() -> Outcome {
    let _unmaintained = Taken::as_coherent(&WIDE, true);
    check!(made(&WIDE)? != table(), "missing copies were not found");
    Ok(())
}

fn refused() -> Outcome {
    let engine = narrowed()?;
    let before = engine.interrupts();
    let long = MAX_BOUNCE + PAGE_SIZE;
    let mut large = check_ok!(Object::zeroed(long, Gfp::KERNEL));
    let out_of_reach = |error: &DmaError| matches!(error, DmaError::OutOfReach { .. });
    let mapped = map_slice::<ToDevice>(engine.device(), &mut large).map(drop);
    check_ok!(refusal(
        "more than slots for one mapping",
        mapped,
        out_of_reach
    ));
    let mapped = map_slice::<ToDevice>(&NARROW, &mut large[..64]).map(drop);
    check_ok!(refusal("a pool out of reach", mapped, out_of_reach));
    let _maintained = Taken::as_coherent(&STRICT, false);
    let mapped = map_slice::<FromDevice>(&STRICT, &mut large[1..64]).map(drop);
    check_ok!(refusal("an odd buffer without bouncing", mapped, |error| {
        matches!(error, DmaError::PartialLine { .. })
    }));
    let area = check_ok!(Area::alloc(PAGE_SIZE));
    let mapped = crate::submission::map_refused(engine.device(), area.va(), 64);
    check_ok!(refusal("vmalloc, bounced or not", mapped, |error| {
        matches!(error, DmaError::NotMappable { .. })
    }));
    drop(area);
    usable(before)
}

fn exhausted() -> Outcome {
    /// One more than the largest pool holds.
    const MOST: usize = bounce::MAX_POOL / MAX_BOUNCE + 1;

    let (engine, pool) = (narrowed()?, pool()?);
    let device = engine.device();
    let (interrupts, before) = (engine.interrupts(), pool.stats());
    let bytes = check_ok!(Object::zeroed(MAX_BOUNCE, Gfp::KERNEL));
    let mut mappings = Vec::<SharedMapping<'_>, MOST>::new();
    let refused = loop {
        match map_shared(device, &bytes) {
            Ok(mapping) => check!(mappings.push(mapping).is_ok(), "a pool without an end"),
            Err(error) => break error,
        }
    };
    check!(
        matches!(
            refused,
            DmaError::BounceExhausted {
                len: MAX_BOUNCE,
                ..
            }
        ),
        "{refused}"
    );
    report::diagnostic(format_args!("{} mappings, then {refused}", mappings.len()));
    check!(
        pool.stats().exhausted == before.exhausted + 1,
        "not counted"
    );
    mappings.clear();
    check!(pool.stats().used == before.used, "slots are missing");
    check_ok!(map_shared(device, &bytes)).unmap();
    usable(interrupts)
}
