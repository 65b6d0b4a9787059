//! Free memory that is set aside, and the requests that are worth bringing it together for.
//!
//! Each test sets a little memory aside in one place and takes all the rest, so that a request finds
//! it there or nowhere. Its twin makes a request that does not look there and must be refused.

use super::super::pressure::{BLOCKING, PATIENCE_NS, UNAIDED, allocator, squeeze};
use crate::failslab::genuine;
use crate::machine::machine;
use crate::memory::hoard::top_zone;
use crate::memory::{Area, Object, Pages};
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hal::addr::PAGE_SIZE;
use hal::mm::{self, AllocError, Gfp, MAX_ORDER};
use hal::smp;
use hal::sync::PerCpu;

/// Asks for a page; again if the request asks the other cores, because an emulated one may take
/// longer to answer than it is given.
fn ask(gfp: Gfp) -> Result<(), AllocError> {
    let start = machine().timer.now_ns();
    loop {
        let served = Pages::alloc(gfp, 0).map(drop);
        let asks = gfp.may_block() && !gfp.contains(Gfp::NORETRY);
        if served.is_ok() || !asks || machine().timer.now_ns() - start > PATIENCE_NS {
            return served;
        }
    }
}

/// Whether a request with `gfp` for a page is served while the only page that no watermark keeps is
/// on the list of another core.
fn is_served_from_another_core(gfp: Gfp) -> Result<bool, Stop> {
    let me = PerCpu::current().index();
    let Some(other) = smp::online().find(|core| *core != me) else {
        return Err(Stop::Skipped("one core"));
    };
    let page = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let _ballast = squeeze()?;
    let pages = allocator()?;
    let at_hand = check_ok!(smp::run_on(other, || {
        drop(page);
        pages.zone(top_zone()).at_hand
    }));
    if at_hand == 0 {
        return Err(Stop::Skipped("the zone is too small for pages at hand"));
    }
    let served = genuine(|| ask(gfp))?;
    diagnostic(format_args!(
        "{gfp}, {at_hand} pages at hand on core {other}: {served:?}"
    ));
    Ok(served.is_ok())
}

pub(super) fn other_core() -> Outcome {
    let served = is_served_from_another_core(BLOCKING)?;
    check!(served, "a page on another core's list was not found");
    Ok(())
}

pub(super) fn other_core_planted() -> Outcome {
    let served = is_served_from_another_core(Gfp::NOWAIT)?;
    check!(!served, "the page was not out of reach");
    Ok(())
}

/// Whether a request with `gfp` for a page is served while the only memory that no watermark keeps
/// is a slab whose objects another core has at hand.
fn is_served_from_another_cores_slab(gfp: Gfp) -> Result<bool, Stop> {
    const SIZE: usize = 4096;
    let me = PerCpu::current().index();
    let Some(other) = smp::online().find(|core| *core != me) else {
        return Err(Stop::Skipped("one core"));
    };
    let objects_out = || {
        mm::kmalloc_caches()
            .caches()
            .map(|cache| cache.objects_out)
            .sum::<u32>()
    };
    check_ok!(smp::run_on_all(|_| mm::kmalloc_caches().shrink()));
    let before = objects_out();
    let object = smp::run_on(other, || Object::alloc(SIZE, Gfp::KERNEL));
    let object = check_ok!(check_ok!(object));
    let _ballast = squeeze()?;
    check_ok!(check_ok!(smp::run_on(other, || object.free())));
    let at_hand = objects_out() - before;
    if at_hand == 0 {
        return Err(Stop::Skipped("objects go straight to their slabs"));
    }
    let served = genuine(|| ask(gfp))?;
    diagnostic(format_args!(
        "{gfp}, {at_hand} objects at hand on core {other}: {served:?}"
    ));
    Ok(served.is_ok())
}

pub(super) fn other_cores_object() -> Outcome {
    let served = is_served_from_another_cores_slab(UNAIDED)?;
    check!(served, "another core's object kept its slab");
    Ok(())
}

pub(super) fn other_cores_object_planted() -> Outcome {
    let served = is_served_from_another_cores_slab(UNAIDED | Gfp::NORETRY)?;
    check!(!served, "the slab was not out of reach");
    Ok(())
}

/// Every other core runs a task that ends when this one has got its answer.
pub(super) fn busy_core() -> Outcome {
    let me = PerCpu::current().index();
    if smp::online().count() == 1 {
        return Err(Stop::Skipped("one core"));
    }
    let _ballast = squeeze()?;
    let served = AtomicBool::new(true);
    let answered = AtomicBool::new(false);
    let late = AtomicU32::new(0);
    check_ok!(smp::run_on_all(|core| {
        if core == me {
            let block = Pages::alloc(BLOCKING, MAX_ORDER);
            served.store(block.is_ok(), Ordering::Relaxed);
            answered.store(true, Ordering::Release);
        } else {
            let answered = || answered.load(Ordering::Acquire);
            let in_time = machine().timer.poll_until(PATIENCE_NS, answered);
            late.fetch_add(u32::from(!in_time), Ordering::Relaxed);
        }
    }));
    let late = late.into_inner();
    check!(late == 0, "the request waited for {late} busy cores");
    check!(!served.into_inner(), "the request had no need to ask");
    Ok(())
}

/// Whether a request with `gfp` for a page is served while only the reserve for atomic requests has
/// pages that no watermark keeps.
fn is_served_from_the_reserve(gfp: Gfp) -> Result<bool, Stop> {
    // One pageblock too many in the reserve would be enough for the request.
    allocator()?.unreserve_highatomic(true);
    let page = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let _ballast = squeeze()?;
    // An atomic request of two pages has its pageblock join the reserve.
    drop(check_ok!(Pages::alloc(Gfp::ATOMIC, 1)));
    let reserve = allocator()?.zone(top_zone()).free_highatomic;
    if reserve == 0 {
        return Err(Stop::Skipped("the zone is too small for a reserve"));
    }
    drop(page);
    // At hand it would be served whatever the zone keeps.
    allocator()?.drain();
    let served = genuine(|| Pages::alloc(gfp, 0).map(drop))?;
    let left = allocator()?.zone(top_zone()).free_highatomic;
    diagnostic(format_args!(
        "{gfp}, {reserve} pages in the reserve, then {left}: {served:?}"
    ));
    Ok(served.is_ok())
}

pub(super) fn reserve() -> Outcome {
    let served = is_served_from_the_reserve(BLOCKING)?;
    check!(served, "the reserve for atomic requests was not used");
    Ok(())
}

pub(super) fn reserve_planted() -> Outcome {
    let served = is_served_from_the_reserve(BLOCKING | Gfp::NORETRY)?;
    check!(!served, "the reserve was not out of reach");
    Ok(())
}

/// Pages that the purge has given up so far.
fn purged() -> Result<usize, Stop> {
    let mut shrinkers = allocator()?.shrinkers();
    let purge = shrinkers.find(|shrinker| shrinker.name == "vmalloc purge");
    check!(purge.is_some(), "the purge is no source of reclaim");
    Ok(purge.map_or(0, |purge| purge.freed))
}

/// Pages that wait for the purge in [`from_the_purge`].
const WAITING: usize = 64;

/// What a request for a page came to.
#[derive(Debug, PartialEq, Eq)]
struct Purge {
    served: bool,
    /// Pages that the purge gave up for it.
    given: usize,
    /// Pages that still wait for the purge.
    left: usize,
}

/// Asks for a page with `gfp` while the only memory that no watermark keeps waits for the purge.
fn from_the_purge(gfp: Gfp) -> Result<Purge, Stop> {
    // The first free of all flushes at once, and says how much may wait from then on.
    check_ok!(check_ok!(Area::alloc(PAGE_SIZE)).free());
    let area = check_ok!(Area::alloc(WAITING * PAGE_SIZE));
    let _ballast = squeeze()?;
    let before = purged()?;
    check_ok!(area.free());
    let served = genuine(|| Pages::alloc(gfp, 0).map(drop))?;
    let purge = Purge {
        served: served.is_ok(),
        given: purged()? - before,
        left: mm::pages_put_off(),
    };
    diagnostic(format_args!("{gfp}: {purge:?}"));
    Ok(purge)
}

pub(super) fn purge() -> Outcome {
    let purge = from_the_purge(UNAIDED)?;
    let expected = Purge {
        served: true,
        given: WAITING,
        left: 0,
    };
    check!(purge == expected, "{purge:?}");
    Ok(())
}

pub(super) fn purge_planted() -> Outcome {
    let purge = from_the_purge(UNAIDED.difference(Gfp::DIRECT_RECLAIM))?;
    let expected = Purge {
        served: false,
        given: 0,
        left: WAITING,
    };
    check!(purge == expected, "{purge:?}");
    Ok(())
}
