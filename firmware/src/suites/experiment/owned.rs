//! H10: the CPU touches or frees what the device owns. The types do not let it; what happens if it
//! is done all the same, and what is on record of who owns what.

use super::{NOTHING_SEEN, Role, announced, engine, evidence, method, put, together};
use crate::dma_debug;
use crate::experiment::{Cell, Direction, Finding, Hazard, Method, Observed};
use crate::handed::{Fault, Handed, Window, scene};
use crate::machine::machine;
use crate::pattern::{self, CANARY, Expected};
use crate::report::{self, Outcome, Stop};
use crate::{check, check_ok};
use core::ops::Range;
use hal::addr::PAGE_SIZE;
use hal::dma::debug;
use hal::dma::direction::DirectionKind;

const LEN: usize = PAGE_SIZE;

/// What the CPU stores to while the device owns it: parts of lines.
const TOUCHED: Range<usize> = 100..300;

/// The bytes that were handed over, and those that were stored too late.
struct Versions {
    handed_over: u64,
    too_late: u64,
}

impl Expected for Versions {
    fn beside(&self, _: usize) -> u8 {
        CANARY
    }

    fn old(&self, index: usize) -> u8 {
        pattern::byte(self.too_late, index)
    }

    fn copied(&self, index: usize) -> u8 {
        pattern::byte(self.handed_over, index)
    }
}

/// The device reads while the CPU stores: whole, torn, or neither, as chance and caches will.
pub(super) fn touched() -> Outcome {
    let engine = engine()?;
    let seed = machine().seed;
    let versions = Versions {
        handed_over: seed,
        too_late: !seed,
    };
    let mut seen = NOTHING_SEEN;
    for method in Method::ALL {
        let touch = |window: &Window<'_>| window.store(TOUCHED, |index| versions.old(index));
        let look = |memory: &mut dyn Handed| -> Result<_, Fault> {
            let mut there = machine().pool.alloc(engine.device(), LEN)?;
            let va = memory.va();
            pattern::fill(&mut memory.bytes()[..LEN], seed);
            let mut to = there.part_mut(0, LEN)?;
            let hazard = Hazard::TouchedWhileOwned;
            let provoked = announced(hazard, method, Direction::ToDevice, Role::Cell);
            memory.send(engine, 0..LEN, &mut to, Some(&touch))?;
            drop(provoked);
            let arrived = &there.as_slice()[..LEN];
            Ok(scene(arrived, 0, va, DirectionKind::ToDevice).diagnose(&versions))
        };
        // Maintained rightly: what goes wrong here, no maintenance can help.
        let found = check_ok!(method::maintained(method, engine.device(), LEN, look));
        let Some(diagnosis) = found else { continue };
        if let Some(diagnosis) = &diagnosis {
            report::diagnostic(format_args!("H10 {}: {diagnosis}", method.name()));
        }
        let (bytes, at) = (TOUCHED.len(), TOUCHED.start);
        let outcome = put(Cell {
            hazard: Hazard::TouchedWhileOwned,
            method,
            direction: Direction::ToDevice,
            expected: Finding::Torn,
            observed: Observed::data(diagnosis.map_or(Finding::Right, |found| found.flaw.into())),
            evidence: evidence(format_args!("{bytes} bytes at {at} stored too late")),
        });
        seen = together(seen, outcome);
    }
    seen
}

/// Whether a mapping was put on record: `before` it was made, and `during` its life.
fn on_record(before: usize, during: usize) -> Finding {
    match during > before {
        true => Finding::Right,
        false => Finding::Unguarded,
    }
}

/// Memory that a device owns is on record until it is given back, so that the ledger names it if it
/// is not. The types see to it that nobody frees it before.
pub(super) fn freed() -> Outcome {
    let engine = engine()?;
    let mut seen = NOTHING_SEEN;
    for method in Method::ALL {
        let before = dma_debug::live();
        let during = core::cell::Cell::new(0);
        let count = |_: &Window<'_>| during.set(dma_debug::live());
        let look = |memory: &mut dyn Handed| -> Result<_, Fault> {
            let there = machine().pool.alloc(engine.device(), LEN)?;
            let others = before + 1;
            memory.receive(engine, 0..LEN, &there.part(0, LEN)?, Some(&count))?;
            Ok(others)
        };
        let Some(others) = check_ok!(method::maintained(method, engine.device(), LEN, look)) else {
            continue;
        };
        let observed = match debug::is_on() && !method.is_raw() {
            true => Observed::structural(on_record(others, during.get())),
            false => Observed::NotObservable,
        };
        let outcome = put(Cell {
            hazard: Hazard::TouchedWhileOwned,
            method,
            direction: Direction::FromDevice,
            expected: Finding::Right,
            observed,
            evidence: match method.is_raw() {
                true => evidence(format_args!("an address handed over bare is on no record")),
                false => evidence(format_args!(
                    "{} on record meanwhile, {others} without it",
                    during.get()
                )),
            },
        });
        seen = together(seen, outcome);
    }
    seen
}

/// Memory that is lent to nobody is on no record, and that is found.
pub(super) fn planted() -> Outcome {
    if !debug::is_on() {
        return Err(Stop::Skipped("DMA calls are not checked"));
    }
    let before = dma_debug::live();
    let _memory = check_ok!(crate::memory::Object::zeroed(LEN, hal::mm::Gfp::KERNEL));
    let found = on_record(before, dma_debug::live());
    check!(
        found == Finding::Unguarded,
        "memory lent to nobody is on record"
    );
    Ok(())
}
