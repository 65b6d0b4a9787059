//! Memory with two types, and lines dropped that nobody wrote back: no device is needed.

use super::ground::Ground;
use super::port::Second;
use super::seed::{Seed, seeds};
use crate::check_ok;
use crate::machine::machine;
use crate::report::{Outcome, Stop};
use core::hint::black_box;
use hal::addr::{PAGE_SIZE, PhysRange};
use hal::arch::barrier;
use hal::mmu::{Access, Attributes, MemoryType};

pub(super) const SEEDS: &[Seed] = seeds! { "none", on,
    dirty_line_read_uncached as dirty_line_read_uncached: [Mismatched],
    cached_line_written_uncached as cached_line_written_uncached: [Mismatched],
    right_change_of_type as right_change_of_type: [],
    dirty_line_invalidated as dirty_line_invalidated: [Neighbour],
    right_drop_of_lines as right_drop_of_lines: [],
};

/// Runs a seed on a page that is mapped uncached as well. Nobody else has it, and none of it is in a
/// cache before and afterwards.
fn on(seed: &Seed, run: fn(&Ground, &Second)) -> Outcome {
    let first = machine().engines.first();
    let device = first.ok_or(Stop::Skipped("no DMA engine"))?.device();
    let ground = check_ok!(Ground::new(device));
    let frames = PhysRange::new(ground.pa(), ground.pa() + PAGE_SIZE);
    let uncached = Attributes::new(MemoryType::NormalNonCacheable, Access::ReadWrite);
    // SAFETY: the page is the ground's, which nobody else has and which is accessed by volatile accesses
    // only. What a run leaves in a cache is dropped when the ground is settled, before the mapping ends.
    let second = check_ok!(unsafe { Second::map(frames, uncached) });
    seed.announce();
    run(&ground, &second);
    ground.settle();
    drop(second);
    Ok(())
}

/// A page of DMA memory that is in the direct map still (Little Kernel).
#[inline(never)]
fn dirty_line_read_uncached(ground: &Ground, second: &Second) {
    ground.store_word(0, 1);
    ground.dsb();
    // SAFETY: `second` maps the ground's page, whose first word is plain and accessed by volatile accesses
    // only.
    black_box(unsafe { second.va().as_ptr::<u32>().read_volatile() });
}

/// The other way round: the cache goes on with what it has.
#[inline(never)]
fn cached_line_written_uncached(ground: &Ground, second: &Second) {
    ground.load(ground.part());
    // SAFETY: as above.
    unsafe { second.va().as_ptr::<u32>().write_volatile(1) };
    barrier::dsb_sy();
    ground.load(ground.part());
}

/// Nothing of it is in a cache when the other mapping is used.
#[inline(never)]
fn right_change_of_type(ground: &Ground, second: &Second) {
    ground.store(ground.part());
    ground.clean_invalidate(ground.part());
    ground.dsb();
    // SAFETY: as above.
    unsafe { second.va().as_ptr::<u32>().write_volatile(1) };
    barrier::dsb_sy();
}

/// An invalidate in the place of a clean, of bytes that are wanted.
#[inline(never)]
fn dirty_line_invalidated(ground: &Ground, _: &Second) {
    ground.store(ground.part());
    ground.dsb();
    ground.invalidate(ground.part());
    ground.dsb();
    ground.load(ground.part());
}

/// Cleaned first.
#[inline(never)]
fn right_drop_of_lines(ground: &Ground, _: &Second) {
    ground.store(ground.part());
    ground.clean(ground.part());
    ground.dsb();
    ground.invalidate(ground.part());
    ground.dsb();
    ground.load(ground.part());
}
