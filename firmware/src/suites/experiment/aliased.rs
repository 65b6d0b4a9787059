//! H6: the same frame as memory of two types. Seen in the tables; its effect only on silicon.

use super::{NOTHING_SEEN, each_method, engine, evidence, method, put};
use crate::check_ok;
use crate::experiment::{Cell, Direction, Finding, Hazard, Observed};
use crate::handed::{Fault, Handed};
use crate::machine::machine;
use crate::report::Outcome;
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use hal::arch::translate;
use hal::mmu::mapper::{FIRST, LIMIT};
use hal::mmu::{Leaf, MemoryType};

const LEN: usize = PAGE_SIZE;

/// Every mapping of a frame, as a walk of all tables finds them.
#[derive(Clone, Copy, Debug, Default)]
struct Mappings {
    /// How many.
    count: usize,
    /// The type of the first.
    memory: Option<MemoryType>,
    /// One of another type.
    other: Option<Leaf>,
}

fn mappings_of(page: PhysAddr) -> Mappings {
    let frame = PhysRange::new(page, page + PAGE_SIZE);
    let tables = machine().tables.lock();
    let mut found = Mappings::default();
    for leaf in tables.runs(FIRST, LIMIT) {
        if !leaf.frames().overlaps(&frame) {
            continue;
        }
        found.count += 1;
        let memory = leaf.memory_type();
        match found.memory {
            None => found.memory = memory,
            first if first != memory => found.other = Some(leaf),
            _ => {}
        }
    }
    found
}

pub(super) fn run() -> Outcome {
    let engine = engine()?;
    each_method(|method| {
        let look = |memory: &mut dyn Handed| -> Result<_, Fault> {
            let page = translate::read_el1(memory.va()).page();
            Ok(page.map(mappings_of))
        };
        let Some(found) = check_ok!(method::with(method, engine.device(), LEN, look)) else {
            return NOTHING_SEEN;
        };
        let found = found.unwrap_or_default();
        let finding = match (found.count, found.other) {
            (0, _) | (_, Some(_)) => Finding::Unguarded,
            _ => Finding::Right,
        };
        put(Cell {
            hazard: Hazard::MismatchedAlias,
            method,
            direction: Direction::Both,
            expected: Finding::Right,
            observed: Observed::structural(finding),
            evidence: match (found.memory, found.other) {
                (Some(memory), None) => {
                    evidence(format_args!("mappings={} all={memory}", found.count))
                }
                (_, Some(leaf)) => evidence(format_args!("another type at {}", leaf.va)),
                (None, None) => evidence(format_args!("mapped nowhere")),
            },
        })
    })
}

/// A page of the contiguous memory area, in quarantine: nobody else has it, and its lines are dropped
/// before it is given back. What the CPU stores through one mapping, it looks for through the other.
#[cfg(feature = "mismatched-alias")]
pub(super) fn planted() -> Outcome {
    use super::super::plant::{Plant, SCRATCH};
    use super::super::probe;
    use super::caches::observable;
    use crate::check;
    use crate::handed::write_back;
    use crate::memory::contiguous::Contiguous;
    use crate::provocation::{Kind, Provoked, Wrong};
    use crate::report::{self, Stop};
    use hal::arch::barrier;
    use hal::mm;
    use hal::mmu::{Access, Attributes, Level};

    /// What memory holds before, and what stays in the cache.
    const OLD: u8 = 0x55;
    const NEW: u8 = 0xAA;

    let engine = engine()?;
    let cma = mm::default_cma().ok_or(Stop::Skipped("no contiguous memory area"))?;
    let mut page = check_ok!(Contiguous::alloc(cma, 1, 0));
    page.fill(OLD);
    write_back(page.va(), LEN);
    let attributes = Attributes::new(MemoryType::NormalNonCacheable, Access::ReadOnly);
    let frames = page.frames();
    let plant = check_ok!(Plant::new(SCRATCH, frames, attributes, Level::L3));
    let found = mappings_of(frames.start);
    page.fill(NEW);
    barrier::dsb_sy();
    let wrong = Wrong {
        kinds: &[Kind::Mismatched],
        place: "fault_probe_read_u8",
    };
    let provoked = Provoked::begin_planted(
        format_args!("hazard=H6 method=cma-map direction=both"),
        wrong,
    );
    let through_alias = probe::read_u8(SCRATCH);
    drop(provoked);
    let removed = plant.remove();
    write_back(page.va(), LEN);
    check_ok!(removed);
    let through_alias = check_ok!(through_alias.map_err(probe::in_words)) as u8;
    check!(
        found.other.is_some(),
        "a second mapping of another type is not found"
    );
    check!(
        [OLD, NEW].contains(&through_alias),
        "{through_alias:#x} through the other mapping was never stored"
    );
    let seen = match (through_alias == OLD, check_ok!(observable(engine))) {
        (true, _) => "stale, by compared bytes",
        // The line may have been evicted in time.
        (false, true) => "the new bytes, by luck",
        (false, false) => "not observable here; another machine may read the old bytes",
    };
    report::diagnostic(format_args!(
        "stored {NEW:#x} over {OLD:#x} through one mapping, read {through_alias:#x} through the \
         other: {seen}"
    ));
    run_again_without(frames.start)
}

/// Without the feature no frame ever has two types.
#[cfg(not(feature = "mismatched-alias"))]
pub(super) fn planted() -> Outcome {
    Err(crate::report::Stop::Skipped(
        "built without mismatched-alias",
    ))
}

/// The plant left nothing behind.
#[cfg(feature = "mismatched-alias")]
fn run_again_without(page: PhysAddr) -> Outcome {
    let found = mappings_of(page);
    crate::check!(
        found.other.is_none() && found.count == 1,
        "the second mapping is still there"
    );
    Ok(())
}
