//! H8: pages that are one run for the CPU and not for the device. Seen by bytes on every machine.

use super::super::mapping::physical_breaks;
use super::{NOTHING_SEEN, each_method, engine, evidence, method, put, together};
use crate::diagnosis::{Diagnosis, Flaw};
use crate::experiment::{Cell, Direction, Finding, Hazard, Method, Observed};
use crate::handed::{Bare, Fault, Handed, Meanwhile, Upkeep, ended, scene, write_back};
use crate::machine::machine;
use crate::memory::hoard::{SLACK, fragment};
use crate::memory::{Shuffled, reachable};
use crate::pattern::{self, LaidOut, POISON};
use crate::report::{self, Outcome};
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::dma::DmaEngine;
use hal::dma::direction::DirectionKind;

/// Bytes of a buffer: several pages.
const LEN: usize = Shuffled::LEN;

/// What was seen of one buffer.
struct Sight {
    diagnosis: Option<Diagnosis>,
    upkeep: Upkeep,
    /// Physical runs, by `PAR_EL1`.
    runs: usize,
}

const WAYS: [Direction; 2] = [Direction::ToDevice, Direction::FromDevice];

pub(super) fn run() -> Outcome {
    let engine = engine()?;
    // The wrong way first: the others' bytes prove something if its bytes are wrong.
    let mut shown = [false; WAYS.len()];
    let mut shuffled = check_ok!(Shuffled::alloc(reachable(engine.device())));
    let mut wrong = NOTHING_SEEN;
    for (index, direction) in WAYS.into_iter().enumerate() {
        let sight = check_ok!(look_bare(engine, &mut Bare(&mut shuffled), direction));
        shown[index] = sight.diagnosis.is_some();
        wrong = together(
            wrong,
            note(Method::VmallocRaw, direction, &sight, shown[index]),
        );
    }
    drop(shuffled);
    each_method(|method| {
        if method == Method::VmallocRaw {
            return wrong;
        }
        // Without a fragmented zone the pages are what they are; their runs are in the evidence.
        let hoard = match method {
            Method::VmallocSg => fragment(LEN / PAGE_SIZE + SLACK).ok(),
            _ => None,
        };
        let mut seen = NOTHING_SEEN;
        for (direction, shown) in WAYS.into_iter().zip(shown) {
            let once = |memory: &mut dyn Handed| match method.is_raw() {
                true => look_bare(engine, memory, direction),
                false => look(engine, memory, direction, |_| {}),
            };
            let sight = check_ok!(method::with(method, engine.device(), LEN, once));
            if let Some(sight) = sight {
                seen = together(seen, note(method, direction, &sight, shown));
            }
        }
        drop(hoard);
        seen
    })
}

/// The wrong way is wrong, by bytes, and named.
pub(super) fn planted() -> Outcome {
    let engine = engine()?;
    let mut shuffled = check_ok!(Shuffled::alloc(reachable(engine.device())));
    for direction in WAYS {
        let sight = check_ok!(look_bare(engine, &mut Bare(&mut shuffled), direction));
        check!(
            sight.diagnosis.map(|found| found.flaw) == Some(Flaw::ForeignPage { pages: 2 }),
            "two exchanged pages are {:?}",
            sight.diagnosis
        );
        check!(
            sight.runs > 1 && sight.upkeep.segments == 1,
            "not one segment for many runs"
        );
    }
    Ok(())
}

fn note(method: Method, direction: Direction, sight: &Sight, shown: bool) -> Outcome {
    if let Some(diagnosis) = &sight.diagnosis {
        report::diagnostic(format_args!("H8 {}: {diagnosis}", method.name()));
    }
    let is_one_piece = method == Method::VmallocRaw;
    let observed = match (sight.diagnosis, sight.upkeep.segments == sight.runs) {
        (Some(diagnosis), _) => Observed::data(diagnosis.flaw.into()),
        (None, false) => Observed::structural(Finding::Unguarded),
        // No page was apart from the others, so nothing was provoked.
        (None, true) if method == Method::VmallocSg && sight.runs == 1 => Observed::NotObservable,
        (None, true) if shown => Observed::data(Finding::Right),
        (None, true) => Observed::structural(Finding::Right),
    };
    put(Cell {
        hazard: Hazard::Scattered,
        method,
        direction,
        expected: if is_one_piece {
            Finding::Foreign
        } else {
            Finding::Right
        },
        observed,
        evidence: evidence(format_args!(
            "pages={} runs={} segments={}",
            LEN / PAGE_SIZE,
            sight.runs,
            sight.upkeep.segments
        )),
    })
}

/// As [`look`], at memory that nobody maintains. Its lines are written back and dropped by hand before
/// and after, for this is about places and not about caches.
fn look_bare(
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    direction: Direction,
) -> Result<Sight, Fault> {
    look(engine, memory, direction, |va| write_back(va, LEN))
}

/// Has the engine copy, and compares; `settle` is called with where the CPU has the memory before it
/// changes hands and afterwards.
fn look(
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    direction: Direction,
    settle: impl Fn(VirtAddr),
) -> Result<Sight, Fault> {
    let seed = machine().seed;
    let mut there = machine().pool.alloc(engine.device(), LEN)?;
    let va = memory.va();
    let runs = physical_breaks(va, LEN).map_or(0, |breaks| breaks + 1);
    let expected = LaidOut(seed);
    let upkeep = match direction {
        Direction::ToDevice => {
            there.as_mut_slice().fill(POISON);
            pattern::fill(memory.bytes(), seed);
            settle(va);
            let sent = memory.send(
                engine,
                0..LEN,
                &mut there.part_mut(0, LEN)?,
                Meanwhile::Nothing,
            );
            let arrived = scene(&there.as_slice()[..LEN], 0, va, DirectionKind::ToDevice);
            ended(sent, arrived, &expected)?
        }
        _ => {
            pattern::fill(&mut there.as_mut_slice()[..LEN], seed);
            memory.bytes().fill(POISON);
            settle(va);
            let received = memory.receive(engine, 0..LEN, &there.part(0, LEN)?, Meanwhile::Nothing);
            settle(va);
            let read = scene(&memory.bytes()[..LEN], 0, va, DirectionKind::FromDevice);
            ended(received, read, &expected)?
        }
    };
    let (bytes, direction) = match direction {
        Direction::ToDevice => (&there.as_slice()[..LEN], DirectionKind::ToDevice),
        _ => (&memory.bytes()[..LEN], DirectionKind::FromDevice),
    };
    Ok(Sight {
        diagnosis: scene(bytes, 0, va, direction).diagnose(&expected),
        upkeep,
        runs,
    })
}
