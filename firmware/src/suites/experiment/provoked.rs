//! The hazards of caches, H1 to H5: provoked line by line, then looked at.

use super::caches::{evict, observable};
use super::judge::Sight;
use super::method;
use super::{NOTHING_SEEN, Role, announced, engine, put, together};
use crate::diagnosis::{Diagnosis, Scene};
use crate::experiment::{Cell, Direction, Finding, Hazard, Method};
use crate::handed::{Bare, Fault, Handed, Meanwhile, Upkeep, Window, scene, write_back};
use crate::machine::machine;
use crate::pattern::{self, CANARY, LaidOut, POISON};
use crate::report::{self, Outcome, Stop};
use crate::{check, check_ok};
use core::hint::black_box;
use core::ops::Range;
use hal::addr::PAGE_SIZE;
use hal::arch::translate;
use hal::dma::direction::DirectionKind;
use hal::dma::maintenance::line_size;
use hal::dma::{Coherent, DmaEngine};

/// Bytes of a buffer.
const LEN: usize = PAGE_SIZE;

/// Tries at most of a wrong way where caches can be seen: a line may be evicted in time, by luck.
const TRIES: usize = 8;

/// Provokes `hazard` with every method.
pub(super) fn run(hazard: Hazard) -> Outcome {
    let engine = engine()?;
    let caches = check_ok!(observable(engine));
    let mut shown = false;
    let mut seen = NOTHING_SEEN;
    for method in Method::ALL {
        let Some(sight) = check_ok!(look(hazard, method, engine, caches, Role::Cell)) else {
            continue;
        };
        if let Some(diagnosis) = &sight.diagnosis {
            let (number, name) = (hazard.number(), method.name());
            report::diagnostic(format_args!("H{number} {name}: {diagnosis}"));
        }
        let (expected, observed) = if method.is_raw() && !sight.is_coherent {
            shown |= sight.diagnosis.is_some();
            (Finding::Stale, sight.of_wrong_way(caches))
        } else {
            (Finding::Right, sight.of_right_way(shown))
        };
        let outcome = put(Cell {
            hazard,
            method,
            direction: sight.direction,
            expected,
            observed,
            evidence: sight.evidence(),
        });
        seen = together(seen, outcome);
    }
    seen
}

/// The wrong ways break the rules, and the rules say so, whatever the bytes do.
pub(super) fn planted(hazard: Hazard) -> Outcome {
    let engine = engine()?;
    if engine.device().is_coherent() {
        return Err(Stop::Skipped("for a device that snoops no way is wrong"));
    }
    for method in Method::ALL.into_iter().filter(|method| method.is_raw()) {
        let sight = check_ok!(look(hazard, method, engine, false, Role::Planted));
        let broken = sight.and_then(|sight| sight.rules());
        check!(
            matches!(broken, Some(Err(_))),
            "{} handed over without maintenance passes",
            method.name()
        );
    }
    Ok(())
}

/// What came of `hazard` with `method`; of a wrong way the first try that went wrong.
fn look(
    hazard: Hazard,
    method: Method,
    engine: &dyn DmaEngine,
    caches: bool,
    role: Role,
) -> Result<Option<Sight>, Fault> {
    let tries = if caches && method.is_raw() { TRIES } else { 1 };
    let mut sight = None;
    for _ in 0..tries {
        let part = part(hazard, method);
        let once = |memory: &mut dyn Handed| {
            let _provoked = announced(hazard, method, hazard.directions()[0], role);
            let sight = provoke(hazard, engine, memory, part.clone());
            // Nothing of it is to be met by the memory's next owner.
            if method.is_raw() {
                write_back(memory.va(), LEN);
            }
            sight
        };
        sight = method::with(method, engine.device(), LEN, once)?;
        if sight.as_ref().is_none_or(|sight| sight.diagnosis.is_some()) {
            break;
        }
    }
    Ok(sight)
}

/// The bytes that change hands: all, or some that share their first and their last line. Of a pool a
/// block changes hands whole.
fn part(hazard: Hazard, method: Method) -> Range<usize> {
    let half = line_size() / 2;
    match hazard {
        Hazard::SharedLine if method != Method::Pool => half..half + 4 * line_size(),
        _ => 0..LEN,
    }
}

/// Provokes `hazard` in `memory`, has the engine copy, and compares.
fn provoke(
    hazard: Hazard,
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    part: Range<usize>,
) -> Result<Sight, Fault> {
    let device = engine.device();
    let mut there = machine().pool.alloc(device, LEN)?;
    // Poison in memory and in no cache.
    memory.bytes().fill(CANARY);
    memory.bytes()[part.clone()].fill(POISON);
    write_back(memory.va(), LEN);
    let (direction, upkeep) = match hazard {
        Hazard::DirtyLine => (Direction::ToDevice, send_dirty(engine, memory, &mut there)?),
        _ => {
            let upkeep = receive(hazard, engine, memory, part.clone(), &mut there)?;
            (Direction::FromDevice, upkeep)
        }
    };
    let va = memory.va() + part.start;
    let diagnosis = match hazard {
        // What arrived, and what memory holds after the eviction: both for want of a clean.
        Hazard::DirtyLine | Hazard::Eviction => {
            let bytes = &there.as_slice()[..part.len()];
            scene(bytes, 0, va, DirectionKind::ToDevice).diagnose(&LaidOut(machine().seed))
        }
        _ => received(engine, memory, part.clone(), &mut there)?,
    };
    Ok(Sight {
        diagnosis,
        upkeep,
        va,
        par: translate::read_el1(va),
        len: part.len(),
        direction,
        is_coherent: device.is_coherent(),
        is_direct: Sight::is_direct(device, va, part.len(), &upkeep),
    })
}

/// What is wrong with the bytes that the engine wrote, if anything. Then memory is looked at too.
fn received(
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    part: Range<usize>,
    there: &mut Coherent,
) -> Result<Option<Diagnosis>, Fault> {
    let (at, len, va) = (part.start, part.len(), memory.va() + part.start);
    let (direction, expected) = (DirectionKind::FromDevice, LaidOut(machine().seed));
    let bytes = &memory.bytes()[..part.end + part.start];
    if scene(bytes, at, va, direction)
        .diagnose(&expected)
        .is_none()
    {
        return Ok(None);
    }
    in_ram(engine, memory, part.clone(), there)?;
    let bytes = &memory.bytes()[..part.end + part.start];
    let scene = Scene {
        in_ram: Some(&there.as_slice()[..len]),
        ..scene(bytes, at, va, direction)
    };
    Ok(scene.diagnose(&expected))
}

/// H1: stores that stay in the cache, then a device that reads.
fn send_dirty(
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    there: &mut Coherent,
) -> Result<Upkeep, Fault> {
    there.as_mut_slice().fill(CANARY);
    pattern::fill(&mut memory.bytes()[..LEN], machine().seed);
    Ok(memory.send(engine, 0..LEN, &mut there.part_mut(0, LEN)?, None)?)
}

/// H2 to H5: lines in the cache, and a device that writes behind them.
fn receive(
    hazard: Hazard,
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    part: Range<usize>,
    there: &mut Coherent,
) -> Result<Upkeep, Fault> {
    pattern::fill(&mut there.as_mut_slice()[..part.len()], machine().seed);
    match hazard {
        Hazard::StaleLine => memory.bytes().iter().step_by(line_size()).for_each(|byte| {
            black_box(*byte);
        }),
        Hazard::Eviction => memory.bytes()[part.clone()].fill(POISON),
        Hazard::SharedLine => {
            memory.bytes()[..part.start].fill(CANARY);
            memory.bytes()[part.end..].fill(CANARY);
        }
        _ => {}
    }
    let fetch = |window: &Window<'_>| window.load_lines(line_size());
    let meanwhile: Meanwhile<'_> = match hazard {
        Hazard::Prefetch => Some(&fetch),
        _ => None,
    };
    let source = there.part(0, part.len())?;
    let upkeep = memory.receive(engine, part.clone(), &source, meanwhile)?;
    match hazard {
        Hazard::Eviction => {
            evict()?;
            in_ram(engine, memory, part, there)?;
        }
        Hazard::SharedLine => evict()?,
        _ => {}
    }
    Ok(upkeep)
}

/// Has the engine copy what memory holds, whatever the caches do, to `there`.
fn in_ram(
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    part: Range<usize>,
    there: &mut Coherent,
) -> Result<(), Fault> {
    let len = part.len();
    there.as_mut_slice().fill(POISON);
    Bare(memory).send(engine, part, &mut there.part_mut(0, len)?, None)?;
    Ok(())
}
