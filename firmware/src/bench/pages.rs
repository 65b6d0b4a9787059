//! Pages, and what keeping track of them takes.

use super::meter::Meter;
use super::objects::random_order;
use super::shape::{Calls, Mean, Measured, REPETITIONS, Sample, failed, pairs};
use crate::machine::machine;
use crate::memory::Pages;
use crate::memory::array::Array;
use crate::report::{diagnostic, failed as stop};
use hal::addr::PAGE_SIZE;
use hal::arch::pmu::opaque;
use hal::memory_map::ReservedKind;
use hal::mm::Gfp;

/// Pairs in a repetition.
const PAIRS: u32 = 5_000;

/// Blocks that are freed in random order.
const CROWD: usize = 8192;

/// One block allocated and freed again.
pub(super) fn pair(meter: &Meter, order: usize) -> Measured {
    let pair = move || Pages::alloc(Gfp::KERNEL, opaque(order) as u32).map(drop);
    pairs(meter, PAIRS, pair, || ())
}

/// Single calls of both kinds: blocks are allocated from lists that start empty, then freed in
/// random order, again and again.
pub(super) fn worst(meter: &Meter, order: usize) -> Measured {
    let places = random_order(CROWD)?;
    let mut blocks = Array::<Option<Pages>>::new(CROWD).map_err(failed)?;
    let mut allocs = Calls::new(meter);
    let mut frees = Calls::new(meter);
    for _ in 0..REPETITIONS {
        for block in blocks.iter_mut() {
            // With IRQs masked nothing may block.
            let pages = allocs.time(|| Pages::alloc(Gfp::ATOMIC, opaque(order) as u32));
            *block = Some(pages.map_err(failed)?);
        }
        for &place in places.iter() {
            if let Some(pages) = blocks.get_mut(usize::from(place)).and_then(Option::take) {
                frees.time(|| drop(pages));
            }
        }
    }
    let (alloc, free) = (allocs.sample(), frees.sample());
    diagnostic(format_args!(
        "pages_worst order={order} alloc={} alloc_max={} free={} free_max={}",
        alloc.mean,
        alloc.max.unwrap_or(0),
        free.mean,
        free.max.unwrap_or(0)
    ));
    allocs.join(&frees);
    Ok(allocs.sample())
}

/// Memory set aside for frame descriptors and pageblock flags, in percent of RAM.
pub(super) fn metadata(_meter: &Meter, _size: usize) -> Measured {
    let map = &machine().map;
    let frames = map.reserved().iter();
    let descriptors = frames
        .filter(|reserved| reserved.kind == ReservedKind::FrameDescriptors)
        .map(|reserved| reserved.range.size())
        .sum::<u64>();
    let ram = map.ram_size();
    if descriptors == 0 || ram == 0 {
        return stop(format_args!("nothing is set aside for the frames"));
    }
    let tables = machine().tables.lock().memory_mut().tables_in_use();
    diagnostic(format_args!(
        "metadata ram={ram} descriptors={descriptors} page_tables={}",
        tables * PAGE_SIZE
    ));
    Ok(Sample {
        mean: Mean::of(100 * descriptors, ram),
        max: None,
        size: Some(ram),
    })
}
