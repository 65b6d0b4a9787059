//! Scatter-gather: several buffers at once, merged and cut as the device wants them.

use super::phantom::{LIMITED, Narrowed, WIDE};
use crate::machine::machine;
use crate::memory::hoard::{LOWEST_ZONE, SLACK, fragment};
use crate::memory::{Area, Object, reachable};
use crate::pattern::{self, POISON};
use crate::report::{self, Outcome, Stop, Suite};
use crate::{check, check_ok};
use hal::addr::PAGE_SIZE;
use hal::dma::engine::copy;
use hal::dma::sg::ScatterEntry;
use hal::dma::{
    Device, DmaEngine, DmaError, DmaSegment, FromDevice, ScatterList, SegmentLimits, ToDevice,
    bounce,
};
use hal::mm::Gfp;
use heapless::Vec;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "sg",
    tests: tests! {
        several_buffers_are_gathered_into_one: gathered,
        several_buffers_are_gathered_into_one_planted: gathered_planted,
        a_list_is_handed_to_and_fro: synced,
        segments_keep_the_device_s_limits: limited,
        segments_keep_the_device_s_limits_planted: limited_planted,
        scattered_memory_out_of_reach_is_bounced_page_by_page: bounced,
        lists_without_room_are_refused_and_nothing_is_lent: refused,
    },
};

const PAGES: usize = 8;
const LEN: usize = PAGES * PAGE_SIZE;

/// An engine, and its device's name for reports.
fn engine() -> Result<&'static dyn DmaEngine, Stop> {
    let engine = machine().engines.first();
    engine.copied().ok_or(Stop::Skipped("no DMA engine"))
}

/// Gathers two objects and an area into coherent memory, but for the last `left_out`.
fn gather(left_out: usize) -> Result<Result<usize, pattern::Mismatch>, Stop> {
    let engine = engine()?;
    let (device, seed) = (engine.device(), machine().seed);
    let mut first = check_ok!(Object::zeroed(PAGE_SIZE, reachable(device)));
    let mut second = check_ok!(Object::zeroed(192, reachable(device)));
    let mut area = check_ok!(Area::alloc_with(2 * PAGE_SIZE, LOWEST_ZONE));
    let buffers: [&mut [u8]; 3] = [&mut first, &mut second, &mut area];
    let total = buffers.iter().map(|buffer| buffer.len()).sum();
    let mut all = check_ok!(machine().pool.alloc(device, total));
    let mut at = 0;
    let mut room = [ScatterEntry::default(); PAGES];
    let mut list = ScatterList::empty(&mut room);
    let kept = buffers.len() - left_out;
    for buffer in buffers.into_iter().take(kept) {
        for byte in buffer.iter_mut() {
            *byte = pattern::byte(seed, at);
            at += 1;
        }
        check_ok!(list.push(buffer));
    }
    all.as_mut_slice().fill(POISON);
    let (len, runs) = (list.total_len(), list.entries().len());
    let mapping = check_ok!(list.map::<ToDevice>(device));
    let segments = mapping.segments().count();
    check!(segments <= runs, "{segments} segments of {runs} runs");
    check_ok!(copy(engine, &mapping, &mut check_ok!(all.part_mut(0, len))));
    mapping.unmap();
    Ok(pattern::verify(&all.as_slice()[..total], 0, total, seed).map(|()| segments))
}

fn gathered() -> Outcome {
    let segments = check_ok!(gather(0)?);
    report::diagnostic(format_args!("segments={segments} observed=data"));
    Ok(())
}

/// A list that lacks its last buffer.
fn gathered_planted() -> Outcome {
    check!(gather(1)?.is_err(), "a missing buffer was not found");
    Ok(())
}

fn synced() -> Outcome {
    let engine = engine()?;
    let (device, seed) = (engine.device(), machine().seed);
    let mut area = check_ok!(Area::alloc_with(LEN, LOWEST_ZONE));
    area.fill(POISON);
    let mut pooled = check_ok!(machine().pool.alloc(device, LEN));
    pattern::fill(pooled.as_mut_slice(), seed);
    let mut room = [ScatterEntry::default(); PAGES];
    let list = check_ok!(ScatterList::new(&mut room, &mut area));
    let mut mapping = check_ok!(list.map::<FromDevice>(device));
    check_ok!(copy(engine, &check_ok!(pooled.part(0, LEN)), &mut mapping));
    let mut cpu = mapping.sync_for_cpu();
    let mut at = 0;
    let mut runs = 0;
    while let Some(run) = cpu.run_mut(runs) {
        let wrong = run
            .iter()
            .zip(at..)
            .find(|&(&byte, at)| byte != pattern::byte(seed, at));
        check!(wrong.is_none(), "run {runs}: {wrong:?}");
        at += run.len();
        runs += 1;
        run.fill(POISON);
    }
    check!(at == LEN, "{at} bytes in {runs} runs");
    let mut mapping = cpu.sync_for_device();
    check_ok!(copy(engine, &check_ok!(pooled.part(0, LEN)), &mut mapping));
    mapping.unmap();
    check_ok!(pattern::verify(&area, 0, LEN, seed));
    Ok(())
}

/// What is wrong with `segments` for a device with `limits` as `len` bytes in all.
fn flaw(segments: &[DmaSegment], limits: SegmentLimits, len: usize) -> Option<&'static str> {
    for segment in segments {
        if segment.len > limits.max_len() {
            return Some("a segment too long");
        }
        let last = segment.addr.get() + segment.len as u64 - 1;
        if limits.boundary() != 0
            && segment.addr.get() / limits.boundary() != last / limits.boundary()
        {
            return Some("a segment across the boundary");
        }
    }
    let total: usize = segments.iter().map(|segment| segment.len).sum();
    (total != len).then_some("bytes missing or surplus")
}

/// The segments that `device` is given for `bytes`.
fn segments(device: &Device, bytes: &mut [u8]) -> Result<Vec<DmaSegment, { 2 * PAGES }>, DmaError> {
    let mut room = [ScatterEntry::default(); 2 * PAGES];
    let list = ScatterList::new(&mut room, bytes)?;
    let mapping = list.map::<ToDevice>(device)?;
    Ok(mapping.segments().collect())
}

/// Fragmented memory gives a segment a page; what is contiguous is cut where the limits are.
fn limited() -> Outcome {
    let hoard = fragment(PAGES + SLACK)?;
    let mut area = check_ok!(Area::alloc_with(LEN, LOWEST_ZONE));
    drop(hoard);
    let single = check_ok!(segments(&LIMITED, &mut area));
    let mut object = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let cut = check_ok!(segments(&LIMITED, &mut object));
    let whole = check_ok!(segments(&WIDE, &mut object));
    let limits = LIMITED.limits();
    for segments in [&single, &cut] {
        let found = flaw(segments, limits, LEN);
        check!(found.is_none(), "{found:?}: {segments:?}");
    }
    check!(single.len() == PAGES, "the zone was not fragmented");
    check!(whole.len() == 1, "{whole:?}");
    report::diagnostic(format_args!(
        "max={:#x} boundary={:#x}: {} pages in {} segments, fragmented in {}",
        limits.max_len(),
        limits.boundary(),
        PAGES,
        cut.len(),
        single.len()
    ));
    Ok(())
}

/// The segments of a device without limits.
fn limited_planted() -> Outcome {
    let mut object = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let whole = check_ok!(segments(&WIDE, &mut object));
    check!(
        flaw(&whole, LIMITED.limits(), LEN).is_some(),
        "a segment beyond the limits was not found"
    );
    check!(
        flaw(&whole, SegmentLimits::NONE, LEN + 1).is_some(),
        "a missing byte was not found"
    );
    Ok(())
}

fn bounced() -> Outcome {
    let Some(engine) = Narrowed::get() else {
        return Err(Stop::Skipped("no engine that reaches the bounce pool"));
    };
    let seed = machine().seed;
    let mut source = check_ok!(Area::alloc(LEN));
    let mut seen = check_ok!(Area::alloc(LEN));
    pattern::fill(&mut source, seed);
    seen.fill(POISON);
    let mut rooms = [[ScatterEntry::default(); PAGES]; 2];
    let [from, to] = &mut rooms;
    let from =
        check_ok!(check_ok!(ScatterList::new(from, &mut source)).map::<ToDevice>(engine.device()));
    let mut to =
        check_ok!(check_ok!(ScatterList::new(to, &mut seen)).map::<FromDevice>(engine.device()));
    check_ok!(copy(&engine, &from, &mut to));
    to.unmap();
    from.unmap();
    check_ok!(pattern::verify(&seen, 0, LEN, seed));
    Ok(())
}

fn refused() -> Outcome {
    let used = || bounce::pool().map_or(0, |pool| pool.stats().used);
    let before = used();
    let hoard = fragment(PAGES + SLACK)?;
    let mut area = check_ok!(Area::alloc_with(LEN, LOWEST_ZONE));
    drop(hoard);
    let mut room = [ScatterEntry::default(); PAGES - 1];
    let refused = ScatterList::new(&mut room, &mut area).map(drop);
    check!(
        refused
            == Err(DmaError::TooManySegments {
                capacity: PAGES - 1
            }),
        "{refused:?}"
    );
    // The pieces of a run that is longer than the device takes.
    let mut object = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let mut room = [ScatterEntry::default(); 1];
    let list = check_ok!(ScatterList::new(&mut room, &mut object));
    let refused = list.map::<ToDevice>(&LIMITED).map(drop);
    check!(
        refused == Err(DmaError::TooManySegments { capacity: 1 }),
        "{refused:?}"
    );
    check!(used() == before, "slots are missing");
    Ok(())
}
