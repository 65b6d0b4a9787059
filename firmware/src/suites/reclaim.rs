//! Reclaim: watermarks, background and direct reclaim, reports of failures.

mod gather;

use super::pressure::{
    ANYWHERE, Cache, UNAIDED, allocator, ballast, from_zone, populated, reclaim_info, settle,
    squeeze, take_all,
};
use crate::failslab::genuine;
use crate::machine::machine;
use crate::memory::hoard::top_zone;
use crate::memory::named::{Named, Small, cache};
use crate::memory::{Area, Object, Pages};
use crate::report::{Outcome, Stop, Suite, diagnostic};
use crate::{check, check_ok};
use core::fmt::Write;
use hal::addr::PAGE_SIZE;
use hal::deferred;
use hal::mm::{
    self, Cause, FailureReport, Gfp, KmemCache, MAX_ORDER, Owner, ShrinkerError, SlabFlags,
    ZoneInfo, ZoneKind,
};

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "reclaim",
    tests: tests![
        p9_background_reclaim_runs_between_low_and_high: background,
        direct_reclaim_gains_a_cluster_of_pages: direct,
        a_task_that_frees_memory_may_use_all_of_it: noreclaim,
        a_page_on_another_cores_list_is_found: gather::other_core,
        a_page_on_another_cores_list_is_found_planted: gather::other_core_planted,
        an_object_another_core_has_at_hand_does_not_keep_its_slab: gather::other_cores_object,
        an_object_another_core_has_at_hand_does_not_keep_its_slab_planted: gather::other_cores_object_planted,
        a_core_that_waits_for_this_one_is_not_waited_for: gather::busy_core,
        the_reserve_for_atomic_requests_is_the_last_resort: gather::reserve,
        the_reserve_for_atomic_requests_is_the_last_resort_planted: gather::reserve_planted,
        memory_that_waits_for_the_purge_is_found: gather::purge,
        memory_that_waits_for_the_purge_is_found_planted: gather::purge_planted,
        shrinkers_register_once: registration,
        p10_vmalloc_memory_is_not_reclaimed: vmalloc_stays,
        a_failure_report_shows_zones_orders_and_shrinkers: report,
        a_failure_report_shows_zones_orders_and_shrinkers_planted: report_planted,
        a_failure_report_shows_slabs_owners_and_areas: report_holders,
    ],
};

static CACHE: Cache = Cache::new("test cache", Gfp::empty());

/// Pages that reclaim may free beyond its goal.
const SLACK: u32 = 64;

fn zone(kind: ZoneKind) -> Result<ZoneInfo, Stop> {
    Ok(allocator()?.zone(kind))
}

/// By how much the zone that is best off is above its high watermark, for a request that admits all
/// zones.
fn excess() -> Result<u32, Stop> {
    let allocator = allocator()?;
    let highest = top_zone() as usize;
    let excess = populated().map(|kind| {
        let zone = allocator.zone(kind);
        let kept = zone.watermarks.high + zone.lowmem_reserve[highest];
        zone.spare().saturating_sub(kept)
    });
    Ok(excess.max().unwrap_or(0))
}

/// Pages for the cache: twice what lies between the min and high watermarks, from each zone in
/// turn, so that giving them up helps all.
fn fill_cache() -> Result<usize, Stop> {
    let mut held = 0;
    let rounds = populated().try_fold(0, |most, kind| {
        let marks = zone(kind)?.watermarks;
        Ok(2 * (marks.high - marks.min).max(most) + SLACK)
    })?;
    for _ in 0..rounds {
        for kind in populated() {
            CACHE.take(from_zone(kind))?;
            held += 1;
        }
    }
    Ok(held)
}

/// Room for what [`fill_cache`] takes.
fn cache_capacity() -> Result<usize, Stop> {
    populated().try_fold(0, |sum, kind| {
        let high = zone(kind)?.watermarks.high;
        Ok(sum + ZoneKind::COUNT * (4 * high + SLACK) as usize)
    })
}

fn background() -> Outcome {
    const PATIENCE_NS: u64 = 500_000_000;
    let _cache = CACHE.register(cache_capacity()?, 0)?;
    CACHE.close();
    let held = fill_cache()?;
    let top = top_zone();
    let marks = zone(top)?.watermarks;
    // Large blocks until one would take a zone below low, then smaller ones: in the end the single
    // page that no zone can spare above low.
    let mut ballast = ballast()?;
    let mut order = MAX_ORDER;
    let before = loop {
        let before = reclaim_info()?;
        let free = zone(top)?.spare();
        let block = Pages::alloc(Gfp::NOWAIT, order);
        let woken = reclaim_info()?.wakes != before.wakes;
        if woken && order > 0 {
            order -= 1;
            // The block may be one that was served below low: it must be free again.
            drop(block);
            allocator()?.drain();
            continue;
        }
        let block = check_ok!(block);
        check!(ballast.push(block).is_ok(), "no room to note it");
        if woken {
            check!(
                free == marks.low,
                "woken at {free} pages, low is {}",
                marks.low
            );
            break before;
        }
    };
    // To the bottom, where only background reclaim can help requests that do not block.
    take_all(&mut ballast, Gfp::NOWAIT)?;
    let lowest = zone(top)?.spare();
    CACHE.open(ANYWHERE);
    let start = machine().timer.now_ns();
    while excess()? == 0 && machine().timer.now_ns() - start < PATIENCE_NS {
        // Whether this one is served depends on how soon another core reclaims. While the cache was
        // closed that was of no use so often that only some requests still have it tried.
        genuine(|| drop(Pages::alloc(Gfp::NOWAIT, 0)))?;
        // With one core nobody else does it.
        deferred::run_pending();
    }
    let excess = excess()?;
    let stopped = zone(top)?.spare();
    CACHE.close();
    let (left, runs) = (
        CACHE.held(),
        reclaim_info()?.background_runs - before.background_runs,
    );
    drop(ballast);
    diagnostic(format_args!(
        "zone {top}: min={} low={} high={}, woken at {}, down to {lowest}, stopped at {stopped}",
        marks.min, marks.low, marks.high, marks.low
    ));
    diagnostic(format_args!("runs={runs} given={} of {held}", held - left));
    check!(excess > 0, "no zone came above high");
    check!(excess <= SLACK, "a zone is {excess} pages above high");
    check!(left > 0, "the cache was emptied");
    check!(runs > 0, "background reclaim did not run");
    Ok(())
}

fn direct() -> Outcome {
    const PAGES: usize = 512;
    const CLUSTER: usize = 32;
    let _cache = CACHE.register(PAGES, 0)?;
    for _ in 0..PAGES {
        CACHE.take(Gfp::KERNEL)?;
    }
    let ballast = squeeze()?;
    let before = reclaim_info()?;
    let served = Pages::alloc(UNAIDED, 0).map(drop);
    let after = reclaim_info()?;
    let given = PAGES - CACHE.held();
    drop(ballast);
    check_ok!(served);
    let passes = after.direct_passes - before.direct_passes;
    diagnostic(format_args!("passes={passes} given={given}"));
    check!(passes == 1, "{passes} passes");
    check!((CLUSTER..PAGES).contains(&given), "{given} pages given up");
    Ok(())
}

fn noreclaim() -> Outcome {
    let _cache = CACHE.register(1, 0)?;
    CACHE.take(Gfp::KERNEL)?;
    let mut ballast = squeeze()?;
    let scope = mm::memalloc_noreclaim();
    let request = Gfp::KERNEL | Gfp::NOMEMALLOC | Gfp::NOWARN;
    let refused = genuine(|| Pages::alloc(request, 0).map(drop))?;
    let full = take_all(&mut ballast, Gfp::KERNEL);
    drop(scope);
    let info = zone(top_zone())?;
    let free = info.free - info.free_cma;
    let scans = CACHE.scans();
    drop(ballast);
    full?;
    check!(refused.is_err(), "NOMEMALLOC used the reserve");
    check!(free == 0, "{free} pages were kept");
    check!(scans == 0, "reclaim ran {scans} times");
    Ok(())
}

fn registration() -> Outcome {
    let before = allocator()?.shrinkers().count();
    let registered = CACHE.register(1, 0)?;
    let twice = allocator()?.register_shrinker(&CACHE);
    check!(
        matches!(twice, Err(ShrinkerError::Registered(_))),
        "{twice:?}"
    );
    let count = allocator()?.shrinkers().count();
    check!(
        count == before + 1,
        "{count} shrinkers, not one more than {before}"
    );
    drop(registered);
    let gone = allocator()?.unregister_shrinker(&CACHE);
    check!(
        matches!(gone, Err(ShrinkerError::NotRegistered(_))),
        "{gone:?}"
    );
    Ok(())
}

fn vmalloc_stays() -> Outcome {
    const PAGES: usize = 16;
    let mut area = check_ok!(Area::alloc(PAGES * PAGE_SIZE));
    area.fill(0x5C);
    let va = area.va();
    let first = check_ok!(mm::vmalloc_to_page(va));
    let mut ballast = squeeze()?;
    let _ = ballast.fill(Gfp::KERNEL | Gfp::NOWARN, 0);
    let still = mm::vmalloc_to_page(va);
    let intact = area.iter().all(|byte| *byte == 0x5C);
    drop(ballast);
    check!(still == Ok(first), "{va} moved from {first} to {still:?}");
    check!(intact, "the content has changed");
    Ok(())
}

/// A report of a request for 8 pages, as text.
type Text = heapless::String<8192>;

fn report_text() -> Result<Text, Stop> {
    let mut text = Text::new();
    let report = FailureReport::new(allocator()?, Gfp::KERNEL, 3, Cause::Failure);
    check!(write!(text, "{report}").is_ok(), "the report is too long");
    Ok(text)
}

/// The number after `key` in `line`.
fn value(line: &str, key: &str) -> Option<usize> {
    let (_, rest) = line.split_once(key)?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// What is wrong with a report, read as an engineer would.
fn report_fault(text: &str) -> Option<&'static str> {
    const KB: usize = PAGE_SIZE / 1024;
    let allocator = mm::pages()?;
    let first = text.lines().next().unwrap_or("");
    if !first.starts_with("page allocation failure: order:3, mode:0xcc0(GFP_KERNEL), a task") {
        return Some("the first line does not name the request");
    }
    for kind in populated() {
        let info = allocator.zone(kind);
        let mut prefix = heapless::String::<16>::new();
        let _ = write!(prefix, "{kind} ");
        let Some(line) = text.lines().find(|line| line.starts_with(prefix.as_str())) else {
            return Some("a zone is missing");
        };
        let figures = [
            (" free:", info.free),
            (" min:", info.watermarks.min),
            (" low:", info.watermarks.low),
            (" high:", info.watermarks.high),
            (" managed:", info.managed),
        ];
        let reserves = [
            (" free_highatomic:", info.free_highatomic),
            (" free_cma:", info.free_cma),
            (" local_pcp:", info.at_hand),
        ];
        let mut more = text.lines().skip_while(|other| *other != line).skip(1);
        let second = more.next().unwrap_or("");
        let right = |line: &str, figures: &[(&str, u32)]| {
            let mut figures = figures.iter();
            figures.all(|(key, pages)| value(line, key) == Some(*pages as usize * KB))
        };
        if !right(line, &figures) || !right(second, &reserves) {
            return Some("a figure of a zone is wrong");
        }
        let [dma, dma32, normal] = info.lowmem_reserve;
        let mut kept = heapless::String::<64>::new();
        let _ = write!(kept, "{kind} lowmem_reserve[]: {dma} {dma32} {normal}");
        if more.next() != Some(kept.as_str()) {
            return Some("what is kept for lower zones is wrong");
        }
        prefix.clear();
        let _ = write!(prefix, "{kind}: ");
        let Some(orders) = text
            .lines()
            .find_map(|line| line.strip_prefix(prefix.as_str()))
        else {
            return Some("the orders of a zone are missing");
        };
        let mut sum = 0;
        for (order, word) in orders
            .split(" = ")
            .next()
            .unwrap_or("")
            .split(' ')
            .enumerate()
        {
            let blocks = word
                .split('*')
                .next()
                .and_then(|count| count.parse::<usize>().ok());
            sum += blocks.unwrap_or(0) * (KB << order);
        }
        if sum != info.free as usize * KB {
            return Some("the orders do not add up to the free memory");
        }
    }
    if !text.contains("\nshrinker kmalloc slabs calls:") {
        return Some("a shrinker is missing");
    }
    (!text.contains("\nreclaim woken:")).then_some("the reclaim line is missing")
}

fn report() -> Outcome {
    // What is free now is so when the report is read.
    settle()?;
    let text = report_text()?;
    for line in text.lines().take(3) {
        diagnostic(format_args!("{line}"));
    }
    let fault = report_fault(&text);
    check!(fault.is_none(), "{fault:?}");
    Ok(())
}

fn report_planted() -> Outcome {
    let text = report_text()?;
    let page = check_ok!(Pages::alloc(Gfp::KERNEL, 9));
    let fault = report_fault(&text);
    drop(page);
    check!(fault.is_some(), "a stale report passes");
    Ok(())
}

fn report_holders() -> Outcome {
    const LIMIT: usize = 1 << 20;
    const PAGES: usize = 3;
    static OWNER: Owner = Owner::new("reclaim suite", LIMIT);
    static SLABS: KmemCache = cache("test-report", 200, 8, SlabFlags::empty());
    let scope = check_ok!(mm::charge_to(&OWNER));
    let object = check_ok!(Named::alloc(&SLABS, Gfp::KERNEL));
    let small = check_ok!(Small::alloc(24, Gfp::KERNEL));
    let charged = check_ok!(Object::alloc(500, Gfp::KERNEL_ACCOUNT));
    let area = check_ok!(Area::alloc(PAGES * PAGE_SIZE));
    drop(scope);
    let text = report_text()?;
    let line = |start: &str| text.lines().find(|line| line.starts_with(start));
    for (start, key, least) in [
        ("slab test-report ", " objects:", 1),
        ("slab kmalloc-packed-24 ", " objects:", 1),
        ("slab kmalloc-cg-512 ", " objects:", 1),
        ("vmalloc areas:", " used:", PAGES * PAGE_SIZE / 1024),
    ] {
        let figure = line(start).and_then(|line| value(line, key));
        check!(
            figure.is_some_and(|figure| figure >= least),
            "{start}{key}{figure:?}"
        );
    }
    let owner = line("owner reclaim suite ").and_then(|line| value(line, " limit:"));
    check!(owner == Some(LIMIT / 1024), "the owner's limit: {owner:?}");
    for cma in mm::cma_areas() {
        let mut start = heapless::String::<64>::new();
        let _ = write!(start, "cma {} total:", cma.area().name);
        check!(line(start.as_str()).is_some(), "no line {start}");
    }
    drop((object, small, charged, area));
    check!(!SLABS.shrink(allocator()?), "the cache is not empty");
    let text = report_text()?;
    check!(
        !text.contains("slab test-report "),
        "a cache without memory is listed"
    );
    Ok(())
}
