//! What a call costs, and what it may cost when memory is short.

use super::super::pressure::{BLOCKING, Cache, UNAIDED, squeeze, take_all};
use crate::failslab::genuine;
use crate::machine::machine;
use crate::memory::Area;
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::layout::VMALLOC;
use hal::mm::{self, Gfp, VmallocError, VmallocUsage, ZoneKind};
use hal::sync::PerCpu;

/// Areas whose cost is measured at once.
const AREAS: usize = 16;

/// What [`AREAS`] areas cost.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    /// Frames, those of tables and records included.
    frames: usize,
    /// Records of areas.
    records: usize,
    /// Bytes from the start of one area to that of the next, at least.
    stride: usize,
}

fn usage() -> Result<VmallocUsage, Stop> {
    mm::vmalloc_usage().ok_or(Stop::Failed)
}

/// Free pages, those that this core has at hand included.
fn free_pages() -> usize {
    let zones = ZoneKind::ALL
        .iter()
        .filter_map(|kind| Some(mm::pages()?.zone(*kind)));
    zones.map(|zone| (zone.free + zone.at_hand) as usize).sum()
}

/// Areas of `size` bytes.
fn take(size: usize) -> Result<heapless::Vec<Area, AREAS>, Stop> {
    let mut areas = heapless::Vec::new();
    while !areas.is_full() {
        // There is room.
        let _ = areas.push(check_ok!(Area::alloc(size)));
    }
    Ok(areas)
}

/// What areas of `size` bytes cost when such areas have been there before.
fn cost_of(size: usize) -> Result<Cost, Stop> {
    drop(take(size)?);
    mm::vm_unmap_aliases();
    let (free, used) = (free_pages(), usage()?);
    let areas = take(size)?;
    let frames = free - free_pages();
    let records = usage()?.areas - used.areas;
    let mut starts: heapless::Vec<usize, AREAS> =
        areas.iter().map(|area| area.va().get()).collect();
    starts.sort_unstable();
    let strides = starts.windows(2).map(|pair| pair[1] - pair[0]);
    let cost = Cost {
        frames,
        records,
        stride: strides.min().unwrap_or(0),
    };
    diagnostic(format_args!("{AREAS} areas of {size} bytes: {cost:?}"));
    Ok(cost)
}

/// Each area has its pages, a page of addresses that is not mapped, and a record.
fn with_pages(pages: usize) -> Cost {
    Cost {
        frames: AREAS * pages,
        records: AREAS,
        stride: (pages + 1) * PAGE_SIZE,
    }
}

pub(super) fn one_byte() -> Outcome {
    let cost = cost_of(1)?;
    check!(cost == with_pages(1), "{cost:?}");
    Ok(())
}

pub(super) fn one_byte_planted() -> Outcome {
    let cost = cost_of(PAGE_SIZE + 1)?;
    check!(cost == with_pages(2), "{cost:?}");
    Ok(())
}

/// Leaves of the whole window, and flushes of the TLBs so far.
fn leaves_and_flushes() -> Result<(usize, u64), Stop> {
    let end = VirtAddr::new(VMALLOC.base.get() + VMALLOC.size);
    let leaves = machine().tables.lock().leaves(VMALLOC.base, end).count();
    let flushes = mm::purge_info().ok_or(Stop::Failed)?.flushes;
    Ok((leaves, flushes))
}

pub(super) fn descriptors() -> Outcome {
    const PAGES: usize = 5;
    // The first free of all flushes.
    check_ok!(check_ok!(Area::alloc(PAGE_SIZE)).free());
    mm::vm_unmap_aliases();
    let (none, before) = leaves_and_flushes()?;
    let area = check_ok!(Area::alloc(PAGES * PAGE_SIZE));
    let (some, during) = leaves_and_flushes()?;
    check_ok!(area.free());
    let (left, after) = leaves_and_flushes()?;
    mm::vm_unmap_aliases();
    let (_, at_last) = leaves_and_flushes()?;
    diagnostic(format_args!(
        "{PAGES} pages: {} descriptors written, {} flushes with the free, {} later",
        some - none,
        after - before,
        at_last - after
    ));
    check!(some == none + PAGES, "{} descriptors", some - none);
    check!(left == none, "{} descriptors are left", left - none);
    check!(before == during && during == after, "a call flushed");
    check!(at_last == after + 1, "{} flushes later", at_last - after);
    Ok(())
}

static CACHE: Cache = Cache::new("vmalloc test cache", Gfp::empty());

/// Asks for an area with [`UNAIDED`] and `extra` while only a cache has memory, which gives it up
/// when it is asked once more than `reluctance` times. The times it was asked.
fn alloc_when_short(
    extra: Gfp,
    reluctance: usize,
) -> Result<(Result<(), VmallocError>, usize), Stop> {
    const PAGES: usize = 64;
    const SIZE: usize = 4 * PAGE_SIZE;
    // So that there are tables and a record: no flag makes the tables' allocation wait.
    check_ok!(check_ok!(Area::alloc(SIZE)).free());
    let _cache = CACHE.register(PAGES, reluctance)?;
    for _ in 0..PAGES {
        CACHE.take(Gfp::KERNEL)?;
    }
    let mut ballast = squeeze()?;
    CACHE.close();
    // Nor does the half of the reserve that a request has which must not fail.
    take_all(&mut ballast, BLOCKING | Gfp::HIGH)?;
    CACHE.open(PerCpu::current().index());
    let area = genuine(|| Area::alloc_with(SIZE, UNAIDED | extra))?;
    let scans = CACHE.scans();
    drop(ballast);
    let result = area.map(drop);
    diagnostic(format_args!(
        "{}: {scans} scans, {result:?}",
        UNAIDED | extra
    ));
    Ok((result, scans))
}

pub(super) fn nofail() -> Outcome {
    const RELUCTANCE: usize = 5;
    let (result, scans) = alloc_when_short(Gfp::NOFAIL, RELUCTANCE)?;
    check_ok!(result);
    check!(scans > RELUCTANCE, "served after {scans} scans");
    Ok(())
}

pub(super) fn nofail_planted() -> Outcome {
    let (result, _) = alloc_when_short(Gfp::empty(), usize::MAX)?;
    let named = matches!(result, Err(VmallocError::OutOfMemory { .. }));
    check!(named, "{result:?}");
    Ok(())
}
