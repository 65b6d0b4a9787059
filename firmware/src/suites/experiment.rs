//! The experiment: each hazard of DMA provoked with each kind of memory, and what was seen of it.
//!
//! Nothing here says from the start what a cell shows. `data` is claimed only where bytes could have
//! been wrong on this machine: they are, or those of the hazard's wrong way are in the same run.
//! `structural` comes from `PAR_EL1`, the tables, refusals, and the maintenance of that very call.

mod aliased;
mod barriers;
mod beyond;
mod blocks;
mod caches;
mod cost;
mod judge;
mod method;
mod owned;
mod provoked;
mod scattered;

use crate::check;
use crate::experiment::{Cell, Direction, Evidence, Hazard, Method, Observed, Sheet};
use crate::machine::machine;
use crate::provocation::{Kind, Provoked, Wrong};
use crate::report::{self, Outcome, Stop, Suite};
use core::fmt;
use hal::addr::VirtAddr;
use hal::arch::translate;
use hal::dma::DmaEngine;
use hal::mm::{self, fault};
use hal::mmu::MemoryType;
use hal::sync::IrqLock;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "experiment",
    tests: tests! {
        machine: caches::print,
        h1_dirty_lines: || provoked::run(Hazard::DirtyLine),
        h1_dirty_lines_planted: || provoked::planted(Hazard::DirtyLine),
        h2_stale_lines: || provoked::run(Hazard::StaleLine),
        h2_stale_lines_planted: || provoked::planted(Hazard::StaleLine),
        h3_evictions: || provoked::run(Hazard::Eviction),
        h3_evictions_planted: || provoked::planted(Hazard::Eviction),
        h4_shared_lines: || provoked::run(Hazard::SharedLine),
        h4_shared_lines_planted: || provoked::planted(Hazard::SharedLine),
        h5_prefetches: || provoked::run(Hazard::Prefetch),
        h5_prefetches_planted: || provoked::planted(Hazard::Prefetch),
        never_ran_planted: provoked::never_ran_planted,
        h6_aliases: aliased::run,
        h6_aliases_planted: aliased::planted,
        h7_barriers: barriers::run,
        h8_scattered_pages: scattered::run,
        h8_scattered_pages_planted: scattered::planted,
        h9_masks: beyond::run,
        h9_masks_planted: beyond::planted,
        h10_touched_memory: owned::touched,
        h10_freed_memory: owned::freed,
        h10_freed_memory_planted: owned::planted,
        table: table,
        cost: cost::print,
    },
};

/// What the run has seen so far.
static SHEET: IrqLock<Sheet> = IrqLock::new(Sheet::new());

/// The engine that everything is done with: the machine's first.
fn engine() -> Result<&'static dyn DmaEngine, Stop> {
    let first = machine().engines.first().copied();
    first.ok_or(Stop::Skipped("no DMA engine"))
}

/// Whether something is provoked to be judged, or to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Cell,
    Planted,
}

/// One try of a cell.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    hazard: Hazard,
    method: Method,
    direction: Direction,
    role: Role,
}

impl Attempt {
    /// Says what is about to be done wrong.
    fn announce(self, wrong: Wrong<'_>) -> Provoked {
        let (number, method) = (self.hazard.number(), self.method.name());
        let direction = self.direction;
        let cell = format_args!("hazard=H{number} method={method} direction={direction}");
        match self.role {
            Role::Cell => Provoked::begin(cell, wrong),
            Role::Planted => Provoked::begin_planted(cell, wrong),
        }
    }

    /// As [`announce`](Self::announce), if memory is handed over bare: a map does it right.
    fn announce_if_raw(self, kind: Kind, place: &str) -> Option<Provoked> {
        let wrong = Wrong {
            kinds: &[kind],
            place,
        };
        self.method.is_raw().then(|| self.announce(wrong))
    }
}

/// Whether the engine works on the destination as soon as it is started. QEMU's edu is told twice: it
/// fetches all it is to copy first.
fn writes_at_once(engine: &dyn DmaEngine) -> bool {
    engine.device().name() != "edu"
}

/// Whether caches may hold the page at `va`.
fn is_cached(va: VirtAddr) -> bool {
    translate::read_el1(va).memory_type() == Some(MemoryType::NormalWriteBack)
}

/// Text of a cell; what is too long is cut.
fn evidence(text: fmt::Arguments<'_>) -> Evidence {
    let mut evidence = Evidence::new();
    let _ = fmt::write(&mut evidence, text);
    evidence
}

/// Writes and notes a cell. A safe way that is none is a failure, a cell of which nothing can be seen
/// is skipped.
fn put(cell: Cell) -> Outcome {
    report::diagnostic(format_args!("{cell}"));
    let (contradicts, observed) = (cell.contradicts(), cell.observed);
    let (method, expected) = (cell.method.name(), cell.expected.name());
    SHEET.lock().put(cell);
    check!(!contradicts, "{method} must be {expected}");
    match observed {
        Observed::Seen(..) => Ok(()),
        Observed::NotObservable => NOTHING_SEEN,
    }
}

/// What two cells come to: a failure if either is, skipped if both are.
fn together(one: Outcome, other: Outcome) -> Outcome {
    let weight = |outcome| match outcome {
        Err(Stop::Skipped(_)) => 0,
        Ok(()) => 1,
        Err(Stop::Injected) => 2,
        Err(Stop::Failed) => 3,
    };
    if weight(other) > weight(one) {
        other
    } else {
        one
    }
}

/// What `one` comes to with all methods. A method that fails does not keep the others from being
/// tried; an allocation that was made to fail is what the run is for.
fn each_method(mut one: impl FnMut(Method) -> Outcome) -> Outcome {
    let mut all = NOTHING_SEEN;
    for method in Method::ALL {
        all = together(all, one(method));
        if all == Err(Stop::Injected) {
            break;
        }
    }
    all
}

/// How a hazard ends of which nothing can be seen on this machine.
const NOTHING_SEEN: Outcome = Err(Stop::Skipped("not observable on this machine"));

/// The matrix. Whoever runs a part of it does not ask for the table, so a hole in it is a failure.
fn table() -> Outcome {
    // A copy: the console is slow, and interrupts are masked while the lock is held.
    let sheet = SHEET.lock().clone();
    let [data, structural, not_observable] = sheet.counts();
    if data + structural + not_observable == 0 {
        return Err(Stop::Skipped("no cell was run"));
    }
    for hazard in Hazard::ALL {
        report::diagnostic(format_args!("H{} {}", hazard.number(), hazard.title()));
    }
    sheet.print(report::diagnostic);
    let has_area = mm::default_cma().is_some();
    let missing = sheet.missing(|method| method != Method::Cma || has_area);
    report::diagnostic(format_args!(
        "experiment data={data} structural={structural} not-observable={not_observable} \
         missing={missing}"
    ));
    if missing != 0 && fault::is_armed() {
        // The tests before ended with the last allocation that was made to fail.
        return Err(Stop::Skipped("cells ended for want of memory"));
    }
    check!(missing == 0, "{missing} cells are missing");
    Ok(())
}
