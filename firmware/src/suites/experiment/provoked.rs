//! The hazards of caches, H1 to H5: provoked line by line, then looked at.

use super::super::phantom::Narrowed;
use super::caches::{evict, observable};
use super::judge::{Broken, Sight};
use super::method;
use super::{
    Attempt, NOTHING_SEEN, Role, blocks, each_method, engine, is_cached, put, writes_at_once,
};
use crate::diagnosis::{Diagnosis, Flaw, Scene};
use crate::experiment::{Cell, Finding, Hazard, Method};
use crate::handed::{
    Bare, Fault, Handed, Meanwhile, Upkeep, Window, ended, invalidate_by_hand, scene, write_back,
};
use crate::machine::machine;
use crate::pattern::{self, CANARY, LaidOut, Over, POISON};
use crate::provocation::{DOORBELL, Kind, Provoked, Wrong};
use crate::report::{self, Outcome, Stop};
use crate::{check, check_ok};
use core::hint::black_box;
use core::ops::Range;
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::arch::translate;
use hal::dma::direction::DirectionKind;
use hal::dma::maintenance::line_size;
use hal::dma::{Coherent, DmaEngine};

/// Bytes of a buffer.
const LEN: usize = PAGE_SIZE;

/// Where the CPU compares what the engine wrote.
const COMPARISON: &str = "Tally::of,shape::flaw";

/// Tries at most of a wrong way where caches can be seen: a line may be evicted in time, by luck.
const TRIES: usize = 8;

/// Provokes `hazard` with every method.
pub(super) fn run(hazard: Hazard) -> Outcome {
    let engine = engine()?;
    let caches = check_ok!(observable(engine));
    let mut shown = false;
    let all = each_method(|method| {
        let Some(sight) = check_ok!(look(hazard, method, engine, caches, Role::Cell)) else {
            return NOTHING_SEEN;
        };
        if let Some(diagnosis) = &sight.diagnosis {
            let (number, name) = (hazard.number(), method.name());
            report::diagnostic(format_args!("H{number} {name}: {diagnosis}"));
        }
        let (expected, observed) = if method.is_raw() && !sight.is_coherent {
            shown |= sight.diagnosis.is_some();
            let expected = match sight.by_hand {
                true => Finding::Lost,
                false => Finding::Stale,
            };
            (expected, sight.of_wrong_way(caches))
        } else {
            (Finding::Right, sight.of_right_way(shown))
        };
        put(Cell {
            hazard,
            method,
            direction: sight.direction,
            expected,
            observed,
            evidence: sight.evidence(),
        })
    });
    // Each wrong way alone may be lucky. That all are, in all their tries, says that nothing was
    // provoked, and that the right ways prove nothing.
    let must_show = caches && !engine.device().is_coherent() && all == Ok(());
    check!(shown || !must_show, "no wrong way went wrong");
    all
}

/// The wrong ways break the hazard's own rule, and that is said, whatever the bytes do.
pub(super) fn planted(hazard: Hazard) -> Outcome {
    let engine = engine()?;
    if engine.device().is_coherent() {
        return Err(Stop::Skipped("for a device that snoops no way is wrong"));
    }
    for method in Method::ALL.into_iter().filter(|method| method.is_raw()) {
        let sight = check_ok!(look(hazard, method, engine, false, Role::Planted));
        let kept = sight.and_then(|sight| sight.rules());
        check!(
            kept == Some(Err(Broken::for_want_of(hazard))),
            "{} handed over without maintenance: {kept:?}",
            method.name()
        );
    }
    if hazard == Hazard::SharedLine {
        let attempt = attempt(hazard, Method::KmallocRaw, Role::Planted);
        let lost = |memory: &mut dyn Handed| {
            let found = without_neighbours(attempt, engine, memory, part(hazard));
            write_back(memory.va(), LEN);
            found
        };
        let found = check_ok!(method::with(attempt.method, engine.device(), LEN, lost)).flatten();
        let found = found.map(|found| found.flaw);
        check!(
            found == Some(Flaw::LostNeighbour),
            "lost neighbours are {found:?}"
        );
    }
    Ok(())
}

/// An engine that is given no time: what it did not copy is named as such, in both directions.
pub(super) fn never_ran_planted() -> Outcome {
    let hasty = Narrowed::hasty().ok_or(Stop::Skipped("no DMA engine"))?;
    for hazard in [Hazard::DirtyLine, Hazard::StaleLine] {
        match look(hazard, Method::Coherent, &hasty, false, Role::Planted) {
            Ok(_) => return Err(Stop::Skipped("the engine is done at once")),
            Err(Fault::Unended { diagnosis, .. }) => {
                report::diagnostic(format_args!("{diagnosis}"));
                check!(
                    diagnosis.flaw == Flaw::NeverRan,
                    "a copy that never ran is another flaw"
                );
            }
            Err(fault) => {
                check_ok!(Err(fault));
            }
        }
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
    if (hazard, method) == (Hazard::SharedLine, Method::Pool) {
        return blocks::look(engine);
    }
    let attempt = attempt(hazard, method, role);
    let tries = if caches && method.is_raw() { TRIES } else { 1 };
    let mut sight = None;
    for _ in 0..tries {
        let part = part(hazard);
        let once = |memory: &mut dyn Handed| {
            let sight = provoke(attempt, engine, memory, part.clone());
            settle(attempt, memory);
            sight
        };
        sight = method::with(method, engine.device(), LEN, once)?;
        if sight.as_ref().is_none_or(|sight| sight.diagnosis.is_some()) {
            break;
        }
    }
    Ok(sight)
}

fn attempt(hazard: Hazard, method: Method, role: Role) -> Attempt {
    Attempt {
        hazard,
        method,
        direction: hazard.directions()[0],
        role,
    }
}

/// Writes the lines of memory that was handed over bare back and drops them: nothing of it is to be met
/// by the memory's next owner. A shared line that was left alone goes over what the device wrote.
fn settle(attempt: Attempt, memory: &dyn Handed) {
    if !attempt.method.is_raw() {
        return;
    }
    let _provoked = match attempt.hazard {
        Hazard::SharedLine if !is_invalidated_by_hand(attempt) => {
            attempt.announce_if_raw(Kind::WritesDirty, "handed::write_back")
        }
        _ => None,
    };
    write_back(memory.va(), LEN);
}

/// The bytes that change hands: all, or some that share their first and their last line.
fn part(hazard: Hazard) -> Range<usize> {
    let half = line_size() / 2;
    match hazard {
        Hazard::SharedLine => half..half + 4 * line_size(),
        _ => 0..LEN,
    }
}

/// Whether the wrong way of `method` is to invalidate a shared line: the neighbour is lost. The
/// other wrong way is to do nothing, and the neighbour's line is evicted over what the device wrote.
fn is_invalidated_by_hand(attempt: Attempt) -> bool {
    attempt.hazard == Hazard::SharedLine && attempt.method == Method::KmallocRaw
}

/// Provokes the hazard in `memory`, has the engine copy, and compares.
fn provoke(
    attempt: Attempt,
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    part: Range<usize>,
) -> Result<Sight, Fault> {
    let device = engine.device();
    let mut there = machine().pool.alloc(device, LEN)?;
    lay_out(memory);
    let Attempt {
        hazard, direction, ..
    } = attempt;
    let by_hand = is_invalidated_by_hand(attempt);
    let upkeep = match hazard {
        Hazard::DirtyLine => send_dirty(attempt, engine, memory, &mut there)?,
        _ => receive(attempt, engine, memory, part.clone(), &mut there)?,
    };
    let va = memory.va() + part.start;
    let diagnosis = match hazard {
        // What arrived, and what memory holds after the eviction: both for want of a clean.
        Hazard::DirtyLine | Hazard::Eviction => {
            let bytes = &there.as_slice()[..part.len()];
            scene(bytes, 0, va, DirectionKind::ToDevice).diagnose(&LaidOut(machine().seed))
        }
        _ => received(attempt, engine, memory, part.clone(), &mut there)?,
    };
    Ok(Sight {
        hazard,
        diagnosis,
        upkeep,
        va,
        par: translate::read_el1(va),
        len: part.len(),
        direction,
        by_hand,
        is_coherent: device.is_coherent(),
        is_direct: Sight::is_direct(device, va, part.len(), &upkeep),
    })
}

/// Poison in memory and in no cache: what a neighbour's bytes are if its stores are lost, too.
fn lay_out(memory: &mut dyn Handed) {
    memory.bytes().fill(POISON);
    write_back(memory.va(), LEN);
}

/// What is seen of a whole copy whose neighbours' stores were lost.
fn without_neighbours(
    attempt: Attempt,
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    part: Range<usize>,
) -> Result<Option<Diagnosis>, Fault> {
    let mut there = machine().pool.alloc(engine.device(), LEN)?;
    lay_out(memory);
    pattern::fill(&mut memory.bytes()[part.clone()], machine().seed);
    received(attempt, engine, memory, part, &mut there)
}

/// What is wrong with the bytes that the engine wrote, if anything. Then memory is looked at too.
fn received(
    attempt: Attempt,
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    part: Range<usize>,
    there: &mut Coherent,
) -> Result<Option<Diagnosis>, Fault> {
    let (at, len, va) = (part.start, part.len(), memory.va() + part.start);
    let (direction, expected) = (DirectionKind::FromDevice, LaidOut(machine().seed));
    let bytes = &memory.bytes()[..part.end + part.start];
    let provoked = (!is_invalidated_by_hand(attempt))
        .then(|| attempt.announce_if_raw(Kind::Stale, COMPARISON));
    let diagnosis = scene(bytes, at, va, direction).diagnose(&expected);
    drop(provoked);
    if diagnosis.is_none() {
        return Ok(None);
    }
    in_ram(attempt, engine, memory, part.clone(), there)?;
    let bytes = &memory.bytes()[..part.end + part.start];
    let scene = Scene {
        in_ram: Some(&there.as_slice()[..len]),
        ..scene(bytes, at, va, direction)
    };
    Ok(scene.diagnose(&expected))
}

/// H1: stores that stay in the cache, then a device that reads.
fn send_dirty(
    attempt: Attempt,
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    there: &mut Coherent,
) -> Result<Upkeep, Fault> {
    there.as_mut_slice().fill(CANARY);
    pattern::fill(&mut memory.bytes()[..LEN], machine().seed);
    let va = memory.va();
    let mut to = there.part_mut(0, LEN)?;
    let provoked = attempt.announce_if_raw(Kind::ReadsDirty, DOORBELL);
    let sent = memory.send(engine, 0..LEN, &mut to, Meanwhile::Nothing);
    drop(provoked);
    let arrived = scene(&there.as_slice()[..LEN], 0, va, DirectionKind::ToDevice);
    let expected = Over {
        seed: machine().seed,
        old: CANARY,
    };
    ended(sent, arrived, &expected)
}

/// H2 to H5: lines in the cache, and a device that writes behind them.
fn receive(
    attempt: Attempt,
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    part: Range<usize>,
    there: &mut Coherent,
) -> Result<Upkeep, Fault> {
    pattern::fill(&mut there.as_mut_slice()[..part.len()], machine().seed);
    let hazard = attempt.hazard;
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
    let meanwhile = match hazard {
        Hazard::Prefetch => Meanwhile::Accessed(&fetch),
        _ => Meanwhile::Nothing,
    };
    let source = there.part(0, part.len())?;
    let provoked = announced(attempt, engine, memory.va());
    let received = memory.receive(engine, part.clone(), &source, meanwhile);
    drop(provoked);
    let va = memory.va() + part.start;
    let bytes = &memory.bytes()[part.clone()];
    let read = scene(bytes, 0, va, DirectionKind::FromDevice);
    let upkeep = ended(received, read, &LaidOut(machine().seed))?;
    match hazard {
        Hazard::Eviction => {
            evict()?;
            in_ram(attempt, engine, memory, part, there)?;
        }
        Hazard::SharedLine if is_invalidated_by_hand(attempt) => {
            let _provoked = attempt.announce_if_raw(Kind::Neighbour, "window::invalidate_by_hand");
            invalidate_by_hand(memory.bytes(), part);
        }
        Hazard::SharedLine => evict()?,
        _ => {}
    }
    Ok(upkeep)
}

/// Says what is wrong with having the engine write the memory at `va`, if anything is.
fn announced(attempt: Attempt, engine: &dyn DmaEngine, va: VirtAddr) -> Option<Provoked> {
    match attempt.hazard {
        Hazard::Eviction | Hazard::SharedLine => {
            attempt.announce_if_raw(Kind::WritesDirty, DOORBELL)
        }
        Hazard::Prefetch => {
            // The lines are loaded while the engine writes, and before they are taken back.
            let kinds = match (writes_at_once(engine), is_cached(va)) {
                (true, true) => &[Kind::Touched, Kind::Stale][..],
                (true, false) => &[Kind::Touched],
                (false, true) => &[Kind::Stale],
                (false, false) => return None,
            };
            let place = "fault_probe_read_u8";
            Some(attempt.announce(Wrong { kinds, place }))
        }
        _ => None,
    }
}

/// Has the engine copy what memory holds, whatever the caches do, to `there`.
fn in_ram(
    attempt: Attempt,
    engine: &dyn DmaEngine,
    memory: &mut dyn Handed,
    part: Range<usize>,
    there: &mut Coherent,
) -> Result<(), Fault> {
    let len = part.len();
    there.as_mut_slice().fill(POISON);
    let mut to = there.part_mut(0, len)?;
    let _provoked = attempt.announce_if_raw(Kind::ReadsDirty, DOORBELL);
    Bare(memory).send(engine, part, &mut to, Meanwhile::Nothing)?;
    Ok(())
}
