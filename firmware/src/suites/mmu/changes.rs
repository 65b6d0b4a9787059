//! Changing the tables while every core uses them.

use super::super::plant::{self, Plant};
use super::super::probe;
use crate::machine::machine;
use crate::memory::Pages;
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, PhysRange, VirtAddr};
use hal::arch::exception::FaultInfo;
use hal::arch::translate;
use hal::layout::phys_to_virt;
use hal::mm::{AllocError, Gfp};
use hal::mmu::{Access, Attributes, Level, MapError, MemoryType};
use hal::smp;

const READ_ONLY: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadOnly);

/// The order whose run is one block.
const BLOCK_ORDER: u32 = (Level::L2.size() / PAGE_SIZE).ilog2();

/// Frames of a test's own, given back when dropped. They stay in the direct map.
#[derive(Debug)]
pub(super) struct Frames {
    pages: Pages,
}

impl Frames {
    /// `2^order` frames that follow one another.
    pub(super) fn alloc(order: u32) -> Result<Self, AllocError> {
        Pages::alloc(Gfp::KERNEL, order).map(|pages| Self { pages })
    }

    /// What a level 2 block maps.
    pub(super) fn alloc_block() -> Result<Self, AllocError> {
        Self::alloc(BLOCK_ORDER)
    }

    /// Where they are.
    pub(super) fn range(&self) -> PhysRange {
        self.pages.frames()
    }

    /// What reading the first one gives.
    fn first_word(&self) -> Result<u64, FaultInfo> {
        probe::read_u64(phys_to_virt(self.range().start))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // Lines a planted mapping of another type may have left do not go back to the allocator.
        plant::drop_lines(
            phys_to_virt(self.range().start),
            self.range().size() as usize,
        );
    }
}

pub(super) fn break_before_make() -> Outcome {
    let frames = check_ok!(Frames::alloc(1));
    let range = frames.range();
    let middle = range.start + PAGE_SIZE;
    let first = PhysRange::new(range.start, middle);
    let second = PhysRange::new(middle, range.end);
    let map = |frames, attributes| Plant::new(plant::SCRATCH, frames, attributes, Level::L3);
    let live = check_ok!(map(first, READ_ONLY));

    let (va, pa) = (plant::SCRATCH, range.start);
    let same = map(first, READ_ONLY).map(drop);
    check!(
        same == Err(MapError::AlreadyMapped { va, pa }),
        "the same again: {same:?}"
    );
    let uncached = Attributes::new(MemoryType::NormalNonCacheable, Access::ReadOnly);
    for (what, outcome) in [
        ("another frame", map(second, READ_ONLY).map(drop)),
        ("another type", map(first, uncached).map(drop)),
    ] {
        check!(
            outcome == Err(MapError::BreakBeforeMake { va, pa }),
            "{what} over a live page: {outcome:?}"
        );
        let page = translate::read_el1(va).page();
        check!(
            page == Some(pa),
            "after {what} was refused, {va} is {page:?}"
        );
    }
    check_ok!(live.remove());
    // Broken first, it can be made.
    let other = check_ok!(map(second, READ_ONLY));
    let page = translate::read_el1(va).page();
    check!(page == Some(middle), "{va} is {page:?}, not {middle}");
    check_ok!(other.remove());
    Ok(())
}

pub(super) fn live_block() -> Outcome {
    let frames = check_ok!(Frames::alloc_block());
    let block = check_ok!(Plant::new(
        plant::SCRATCH,
        frames.range(),
        READ_ONLY,
        Level::L2
    ));
    let level = machine()
        .tables
        .lock()
        .leaf(plant::SCRATCH)
        .map(|leaf| leaf.level);
    check!(level == Some(Level::L2), "the block is mapped as {level:?}");
    let size = Level::L2.size();
    for offset in [0, PAGE_SIZE, size - PAGE_SIZE] {
        let outcome = block.remove_part(offset, PAGE_SIZE);
        check!(
            matches!(outcome, Err(MapError::SplitsBlock { size: found, .. }) if found == size),
            "removing a page at {offset:#x} of a block: {outcome:?}"
        );
    }
    let page = PhysRange::new(frames.range().start, frames.range().start + PAGE_SIZE);
    let over = Plant::new(plant::SCRATCH + PAGE_SIZE, page, READ_ONLY, Level::L3).map(drop);
    check!(
        matches!(over, Err(MapError::BreakBeforeMake { .. })),
        "mapping a page over a block: {over:?}"
    );
    let last = plant::SCRATCH + (size - PAGE_SIZE);
    let par = translate::read_el1(last).page();
    check!(par.is_some(), "the refusals left {last} unmapped");
    check_ok!(block.remove());
    check!(
        translate::read_el1(plant::SCRATCH).fault_status().is_some(),
        "the block is still there"
    );
    Ok(())
}

/// The type `PAR_EL1` gives the suite's own page, if it is not `expected`.
fn other_type(expected: MemoryType) -> Option<Option<MemoryType>> {
    let found = translate::read_el1(plant::own_page()).memory_type();
    (found != Some(expected)).then_some(found)
}

pub(super) fn round_trip() -> Outcome {
    let mut seed = machine().seed;
    plant::fill_own_page(seed);
    for memory_type in [MemoryType::NormalNonCacheable, MemoryType::NormalWriteBack] {
        check_ok!(plant::retype_own_page(memory_type));
        let other = other_type(memory_type);
        check!(other.is_none(), "PAR_EL1 says {other:?}, not {memory_type}");
        let lost = plant::own_page_mismatch(seed);
        check!(
            lost.is_none(),
            "as {memory_type}, word {lost:?} is not what was stored"
        );
        seed = !seed;
        plant::fill_own_page(seed);
        diagnostic(format_args!("{memory_type} by PAR_EL1, content kept"));
    }
    let lost = plant::own_page_mismatch(seed);
    check!(lost.is_none(), "word {lost:?} is not what was stored");
    for core in smp::online() {
        let other = check_ok!(smp::run_on(core, || other_type(
            MemoryType::NormalWriteBack
        )));
        check!(other.is_none(), "core {core} sees {other:?}");
    }
    Ok(())
}

pub(super) fn round_trip_planted() -> Outcome {
    let seed = machine().seed;
    plant::fill_own_page(seed);
    check!(
        other_type(MemoryType::NormalNonCacheable) == Some(Some(MemoryType::NormalWriteBack)),
        "a page that was not changed is taken for a changed one"
    );
    check!(
        plant::own_page_mismatch(seed ^ 1).is_some(),
        "lost content is not noticed"
    );
    Ok(())
}

/// The first core that can still read `va`.
fn first_reader(va: VirtAddr) -> Result<Option<(usize, u64)>, smp::SmpError> {
    for core in smp::online() {
        if let Ok(value) = smp::run_on(core, || probe::read_u64(va))? {
            return Ok(Some((core, value)));
        }
    }
    Ok(None)
}

/// Maps a page, reads it on every core so that each has the translation, then asks who can read
/// it after `end`.
fn readers_after(
    end: impl FnOnce(Plant) -> Result<Option<Plant>, MapError>,
) -> Result<Option<(usize, u64)>, Stop> {
    let frames = check_ok!(Frames::alloc(0));
    let expected = check_ok!(frames.first_word().map_err(probe::in_words));
    let plant = check_ok!(Plant::new(
        plant::SCRATCH,
        frames.range(),
        READ_ONLY,
        Level::L3
    ));
    for core in smp::online() {
        let value = check_ok!(smp::run_on(core, || probe::read_u64(plant::SCRATCH)));
        let value = check_ok!(value.map_err(probe::in_words));
        check!(
            value == expected,
            "core {core} reads {value:#x}, not {expected:#x}"
        );
    }
    let left = check_ok!(end(plant));
    let reader = check_ok!(first_reader(plant::SCRATCH));
    if let Some(plant) = left {
        check_ok!(plant.remove());
    }
    Ok(reader)
}

pub(super) fn broadcast() -> Outcome {
    if smp::online().count() == 1 {
        return Err(Stop::Skipped("one core has nobody to tell"));
    }
    // From every core to every core.
    for core in smp::online() {
        let reader = readers_after(|plant| {
            match smp::run_on(core, move || plant.remove()) {
                Ok(outcome) => outcome.map(|()| None),
                // The plant is gone with the closure, and so is its mapping.
                Err(_) => Ok(None),
            }
        })?;
        check!(
            reader.is_none(),
            "unmapped by core {core}, (core, value) reads on: {reader:x?}"
        );
    }
    Ok(())
}

pub(super) fn broadcast_planted() -> Outcome {
    if smp::online().count() == 1 {
        return Err(Stop::Skipped("one core has nobody to tell"));
    }
    let reader = readers_after(|plant| Ok(Some(plant)))?;
    check!(
        reader.is_some(),
        "nothing was unmapped, yet nobody can read it"
    );
    Ok(())
}
