//! The library's own drivers and maps, without exactly one operation.
//!
//! Which one is left out is a number in the order in which a run issues them; a seed fails if there
//! was no such operation. Not here are operations that another makes good: a map's own `DSB` is one,
//! since every driver issues one more before its doorbell, and each of the two passes of maintenance
//! around a change of type.

use super::port::ELSEWHERE;
use super::seed::Seed;
use crate::handed::Fault;
use crate::machine::machine;
use crate::memory::{Pages, reachable};
use crate::provocation::Kind;
use crate::report::{Outcome, Stop};
use crate::{check, check_ok};
use core::hint::black_box;
use hal::arch::omit::{Operation, omit};
use hal::arch::{barrier, cache};
use hal::dma::engine::copy;
use hal::dma::maintenance::line_size;
use hal::dma::sg::ScatterEntry;
use hal::dma::streaming::map_slice;
use hal::dma::{Coherent, Device, DmaEngine, FromDevice, ScatterList, ToDevice};
use hal::drivers::mailbox::property::FirmwareRevision;
use hal::drivers::mailbox::{MailboxError, Via};

/// Bytes that are copied.
const LEN: usize = 512;

/// An operation, and its number among those of its kind.
type Omitted = Option<(Operation, u32)>;

const fn without(operation: Operation, number: u32) -> Omitted {
    Some((operation, number))
}

/// What is left out of a copy by an engine, on each board's own.
macro_rules! copies {
    ($engine:literal, $device:literal, $doorbell:literal) => {
        &[
            Seed {
                name: concat!($device, ".map_without_clean"),
                kinds: &[Kind::ReadsDirty],
                device: $device,
                place: $doorbell,
                run: |seed| on_engine(seed, $engine, without(Operation::Clean, 3), send),
            },
            Seed {
                name: concat!($device, ".map_from_device_without_clean"),
                kinds: &[Kind::WritesDirty],
                device: $device,
                place: $doorbell,
                run: |seed| on_engine(seed, $engine, without(Operation::Clean, 3), receive),
            },
            Seed {
                name: concat!($device, ".unmap_without_invalidate"),
                kinds: &[Kind::Stale],
                device: $device,
                place: "drivers::look",
                run: |seed| on_engine(seed, $engine, without(Operation::Invalidate, 3), receive),
            },
            Seed {
                name: concat!($device, ".list_without_clean"),
                kinds: &[Kind::ReadsDirty],
                device: $device,
                place: $doorbell,
                run: |seed| on_engine(seed, $engine, without(Operation::Clean, 5), send_list),
            },
            Seed {
                name: concat!($device, ".bounce_without_clean"),
                kinds: &[Kind::WritesDirty],
                device: $device,
                place: $doorbell,
                run: |seed| on_engine(seed, $engine, without(Operation::Clean, 2), receive_bounced),
            },
            Seed {
                name: concat!($device, ".bounce_without_invalidate"),
                kinds: &[Kind::Stale],
                device: $device,
                place: "memcpy",
                run: |seed| {
                    let what = without(Operation::Invalidate, 2);
                    on_engine(seed, $engine, what, receive_bounced)
                },
            },
            Seed {
                name: concat!($device, ".sync_for_cpu_without_invalidate"),
                kinds: &[Kind::Stale],
                device: $device,
                place: "drivers::look",
                run: |seed| {
                    let what = without(Operation::Invalidate, 1);
                    on_engine(seed, $engine, what, receive_synced)
                },
            },
            Seed {
                name: concat!($device, ".sync_for_device_without_clean"),
                kinds: &[Kind::ReadsDirty],
                device: $device,
                place: $doorbell,
                run: |seed| {
                    // After those of the map.
                    let what = without(Operation::Clean, 8 + 3);
                    on_engine(seed, $engine, what, send_synced)
                },
            },
            Seed {
                name: concat!($device, ".submit_without_barrier"),
                kinds: &[Kind::Barrier],
                device: $device,
                place: $doorbell,
                run: |seed| on_engine(seed, $engine, without(Operation::Dsb, 0), send_uncached),
            },
            right(concat!($device, ".right_copies"), $device, |seed| {
                on_engine(seed, $engine, None, everything)
            }),
        ]
    };
}

/// A run in which nothing is left out.
const fn right(name: &'static str, device: &'static str, run: fn(&Seed) -> Outcome) -> Seed {
    Seed {
        name,
        kinds: &[],
        device,
        place: "-",
        run,
    }
}

pub(super) const EDU: &[Seed] = copies!("edu", "edu", "edu::Inner::start_step");
pub(super) const BCM2711: &[Seed] = copies!("dma", "bcm2835-dma", "LegacyRegisters::start");

pub(super) const FW_CFG: &[Seed] = &[
    Seed {
        name: "fw_cfg.read_without_clean",
        kinds: &[Kind::WritesDirty],
        device: "fw_cfg",
        place: "fw_cfg::Inner::run",
        run: |seed| on_fw_cfg(seed, without(Operation::Clean, 3)),
    },
    Seed {
        name: "fw_cfg.read_without_invalidate",
        kinds: &[Kind::Stale],
        device: "fw_cfg",
        place: "drivers::look",
        run: |seed| on_fw_cfg(seed, without(Operation::Invalidate, 3)),
    },
    Seed {
        name: "fw_cfg.run_without_barrier",
        kinds: &[Kind::Barrier],
        device: "fw_cfg",
        place: "fw_cfg::Inner::run",
        // The first is the map's.
        run: |seed| on_fw_cfg(seed, without(Operation::Dsb, 1)),
    },
    right("fw_cfg.right_read", "fw_cfg", |seed| on_fw_cfg(seed, None)),
];

pub(super) const MAILBOX: &[Seed] = &[
    Seed {
        name: "bcm2835-mbox.request_without_clean",
        kinds: &[Kind::ReadsDirty, Kind::WritesDirty],
        device: "bcm2835-mbox",
        place: "mailbox::Port::exchange",
        run: |seed| on_mailbox(seed, Via::Streaming, without(Operation::Clean, 0)),
    },
    Seed {
        name: "bcm2835-mbox.request_without_invalidate",
        kinds: &[Kind::Stale],
        device: "bcm2835-mbox",
        place: "message::read,property::words",
        run: |seed| on_mailbox(seed, Via::Streaming, without(Operation::Invalidate, 0)),
    },
    Seed {
        name: "bcm2835-mbox.request_without_barrier",
        kinds: &[Kind::Barrier],
        device: "bcm2835-mbox",
        place: "mailbox::Port::exchange",
        run: |seed| on_mailbox(seed, Via::Coherent, without(Operation::Dsb, 0)),
    },
    right("bcm2835-mbox.right_requests", "bcm2835-mbox", |seed| {
        on_mailbox(seed, Via::Streaming, None)
    }),
];

/// Calls `trip` without an operation, which there must have been.
fn go(seed: &Seed, omitted: Omitted, trip: impl FnOnce() -> Result<(), Fault>) -> Result<(), Stop> {
    seed.announce();
    let Some((what, number)) = omitted else {
        check_ok!(trip());
        return Ok(());
    };
    let (ended, was_omitted) = omit(what, number, trip);
    check_ok!(ended);
    check!(was_omitted, "there was no {what:?} number {number}");
    Ok(())
}

/// Nothing of `memory` is in a cache afterwards.
fn settle(memory: &Pages) {
    let frames = memory.frames();
    for at in (0..frames.size() as usize).step_by(line_size()) {
        cache::clean_invalidate_line(memory.va() + at);
    }
    barrier::dsb_sy();
}

/// What an engine copies between.
struct Sides<'a> {
    engine: &'a dyn DmaEngine,
    /// Cacheable.
    memory: &'a mut [u8],
    /// Uncached.
    here: Coherent,
    there: Coherent,
}

type Trip = fn(&mut Sides<'_>) -> Result<(), Fault>;

/// Runs `trip` with the first engine whose name starts with `name`.
fn on_engine(seed: &Seed, name: &str, omitted: Omitted, trip: Trip) -> Outcome {
    let mut engines = machine().engines.iter();
    let engine = engines.find(|engine| engine.device().name().starts_with(name));
    let engine = *engine.ok_or(ELSEWHERE)?;
    let device = engine.device();
    let mut memory = memory_for(device)?;
    let pool = machine().pool;
    let (here, there) = (
        check_ok!(pool.alloc(device, LEN)),
        check_ok!(pool.alloc(device, LEN)),
    );
    let mut sides = Sides {
        engine,
        memory: memory.bytes(),
        here,
        there,
    };
    let outcome = go(seed, omitted, || trip(&mut sides));
    settle(&memory);
    outcome
}

/// Cacheable memory of which no cache has anything.
fn memory_for(device: &Device) -> Result<Pages, Stop> {
    let memory = check_ok!(Pages::alloc(reachable(device), 1));
    settle(&memory);
    Ok(memory)
}

/// Loads every byte.
#[inline(never)]
fn look(bytes: &[u8]) {
    for byte in bytes {
        // SAFETY: a reference leads to it.
        black_box(unsafe { core::ptr::from_ref(byte).read_volatile() });
    }
}

fn send(sides: &mut Sides<'_>) -> Result<(), Fault> {
    let bytes = &mut sides.memory[..LEN];
    bytes.fill(1);
    let mapping = map_slice::<ToDevice>(sides.engine.device(), bytes)?;
    copy(sides.engine, &mapping, &mut sides.there.part_mut(0, LEN)?)?;
    mapping.unmap();
    Ok(())
}

fn send_list(sides: &mut Sides<'_>) -> Result<(), Fault> {
    let bytes = &mut sides.memory[..LEN];
    bytes.fill(2);
    let mut room = [ScatterEntry::default(); 2];
    let list = ScatterList::new(&mut room, bytes)?;
    let mapping = list.map::<ToDevice>(sides.engine.device())?;
    copy(sides.engine, &mapping, &mut sides.there.part_mut(0, LEN)?)?;
    mapping.unmap();
    Ok(())
}

fn send_synced(sides: &mut Sides<'_>) -> Result<(), Fault> {
    let bytes = &mut sides.memory[..LEN];
    bytes.fill(3);
    let mapping = map_slice::<ToDevice>(sides.engine.device(), bytes)?;
    let mut owned = mapping.sync_for_cpu();
    owned.fill(4);
    let mapping = owned.sync_for_device();
    copy(sides.engine, &mapping, &mut sides.there.part_mut(0, LEN)?)?;
    mapping.unmap();
    Ok(())
}

fn send_uncached(sides: &mut Sides<'_>) -> Result<(), Fault> {
    sides.here.as_mut_slice().fill(5);
    let source = sides.here.part(0, LEN)?;
    copy(sides.engine, &source, &mut sides.there.part_mut(0, LEN)?)?;
    Ok(())
}

fn receive(sides: &mut Sides<'_>) -> Result<(), Fault> {
    receive_at(sides, 0)
}

/// Into a buffer that shares its first and its last line.
fn receive_bounced(sides: &mut Sides<'_>) -> Result<(), Fault> {
    receive_at(sides, line_size() / 2)
}

fn receive_at(sides: &mut Sides<'_>, at: usize) -> Result<(), Fault> {
    sides.memory.fill(6);
    let bytes = &mut sides.memory[at..at + LEN];
    let mut mapping = map_slice::<FromDevice>(sides.engine.device(), bytes)?;
    copy(sides.engine, &sides.here.part(0, LEN)?, &mut mapping)?;
    mapping.unmap();
    look(&sides.memory[at..at + LEN]);
    Ok(())
}

fn receive_synced(sides: &mut Sides<'_>) -> Result<(), Fault> {
    let bytes = &mut sides.memory[..LEN];
    bytes.fill(7);
    let mut mapping = map_slice::<FromDevice>(sides.engine.device(), bytes)?;
    copy(sides.engine, &sides.here.part(0, LEN)?, &mut mapping)?;
    let owned = mapping.sync_for_cpu();
    look(&owned);
    drop(owned);
    Ok(())
}

/// All of them, one after the other.
fn everything(sides: &mut Sides<'_>) -> Result<(), Fault> {
    let trips: [Trip; 7] = [
        send,
        send_list,
        send_synced,
        send_uncached,
        receive,
        receive_bounced,
        receive_synced,
    ];
    trips.into_iter().try_for_each(|trip| trip(sides))
}

/// The file that the runner adds (`tools/runner/src/machine/file.rs`).
const FILE: &str = "opt/dmaproof/pattern";

/// Reads some of a file without an operation.
fn on_fw_cfg(seed: &Seed, omitted: Omitted) -> Outcome {
    let fw_cfg = machine().fw_cfg.ok_or(ELSEWHERE)?;
    let file = check_ok!(fw_cfg.find(FILE));
    let mut memory = memory_for(fw_cfg.device())?;
    let bytes = &mut memory.bytes()[..LEN];
    let mut ended = Ok(());
    let outcome = go(seed, omitted, || {
        bytes.fill(8);
        ended = fw_cfg.read(&file, 0, bytes);
        look(bytes);
        Ok(())
    });
    settle(&memory);
    check_ok!(ended);
    outcome
}

/// Asks the firmware something without an operation.
fn on_mailbox(seed: &Seed, via: Via, omitted: Omitted) -> Outcome {
    let mailbox = machine().mailbox.ok_or(ELSEWHERE)?;
    let ask =
        |via| -> Result<(), MailboxError> { mailbox.request(via, &FirmwareRevision).map(drop) };
    let mut ended = Ok(());
    let outcome = go(seed, omitted, || {
        ended = ask(via);
        if omitted.is_none() {
            ended = ended.and(ask(Via::Coherent));
        }
        Ok(())
    });
    // A request of the same size puts the buffer right again.
    let again = ask(Via::Streaming);
    check_ok!(ended.and(again));
    outcome
}
