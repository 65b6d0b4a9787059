//! GFP flags: what each lets a request do, measured.

mod contexts;

use super::limits::Limits;
use super::pressure::{
    BLOCKING, Cache, UNAIDED, allocator, from_zone, reclaim_info, squeeze, take_all,
};
use crate::failslab::genuine;
use crate::ledger::Ledger;
use crate::memory::Pages;
use crate::memory::hoard::top_zone;
use crate::report::{Outcome, Stop, Suite, diagnostic, stop_for_error};
use crate::{check, check_ok};
use core::fmt::Write;
use hal::addr::PAGE_SIZE;
use hal::mm::{self, AllocError, Gfp, GfpError, MAX_ORDER, Misuse, Owner};
use hal::sync::PerCpu;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "gfp",
    tests: tests![
        g1_kernel_reclaims_and_is_served: kernel_reclaims,
        g2_g3_g9_floors_are_as_tabled: floors,
        g2_atomic_wakes_background_reclaim_only: atomic,
        g4_noio_and_nofs_choose_the_shrinkers: shrinkers_by_right,
        g4_scopes_choose_the_shrinkers: shrinkers_by_scope,
        g5_an_owner_has_at_most_its_limit: owner_limit,
        g6_masks_decode: decode,
        g8_transhuge_light_is_one_try: transhuge_light,
        g10_nofail_waits_for_memory: nofail_waits,
        g10_misuse_of_nofail_is_counted: nofail_misuse,
        g10_nofail_that_may_not_block_fails: nofail_atomic,
        g11_noretry_takes_one_pass: noretry,
        g12_retry_mayfail_is_bounded: retry_mayfail,
        g13_nowarn_silences_the_report: nowarn,
        g14_removed_flags_are_ignored_and_named: removed_flag,
        g15_highmem_has_no_effect: highmem,
        contradictions_are_named: contradictions,
        k21_blocking_is_refused_by_context: contexts::blocking,
        k21_requests_that_do_not_block_are_served_everywhere: contexts::atomic,
        p4_orders_above_the_largest_are_counted: order_too_large,
    ],
};

static PLAIN: Cache = Cache::new("test cache", Gfp::empty());
static NEEDS_IO: Cache = Cache::new("test cache with I/O", Gfp::IO);
static NEEDS_FS: Cache = Cache::new("test cache with files", Gfp::FS);

fn kernel_reclaims() -> Outcome {
    const PAGES: usize = 256;
    let _cache = PLAIN.register(PAGES, 0)?;
    for _ in 0..PAGES {
        PLAIN.take(Gfp::KERNEL)?;
    }
    let ballast = squeeze()?;
    let before = reclaim_info()?;
    let served = Pages::alloc(UNAIDED, 0).map(drop);
    let passes = reclaim_info()?.direct_passes - before.direct_passes;
    let (scans, held) = (PLAIN.scans(), PLAIN.held());
    drop(ballast);
    diagnostic(format_args!(
        "reclaim passes={passes} scans={scans} given={}",
        PAGES - held
    ));
    check_ok!(served);
    check!(passes == 1, "{passes} passes");
    check!(
        scans > 0 && held < PAGES,
        "the cache still holds {held} pages"
    );
    Ok(())
}

fn floors() -> Outcome {
    let before = check_ok!(Ledger::take());
    {
        let mut ballast = super::pressure::ballast()?;
        let top = top_zone();
        let limits = Limits::of(top);
        for (name, gfp) in [
            ("NOWAIT", Gfp::NOWAIT),
            ("KERNEL", Gfp::KERNEL),
            ("KERNEL|HIGH", Gfp::KERNEL | Gfp::HIGH),
            ("ATOMIC", Gfp::ATOMIC),
            ("KERNEL|MEMALLOC", Gfp::KERNEL | Gfp::MEMALLOC),
        ] {
            let floor = limits.floor(gfp);
            take_all(&mut ballast, gfp)?;
            let zone = allocator()?.zone(top);
            // What contiguous memory areas lend is for movable requests.
            let free = zone.free - zone.free_cma;
            diagnostic(format_args!(
                "{name}: refused with {free} pages of zone {top} free, min is {}",
                limits.marks.min
            ));
            check!(free == floor, "{name} stopped at {free} pages, not {floor}");
        }
    }
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

fn atomic() -> Outcome {
    let _cache = PLAIN.register(1, 0)?;
    PLAIN.take(Gfp::KERNEL)?;
    let mut ballast = squeeze()?;
    let before = reclaim_info()?;
    let refused = ballast.fill(Gfp::ATOMIC | Gfp::NOWARN, 0);
    let after = reclaim_info()?;
    drop(ballast);
    let passes = after.direct_passes - before.direct_passes;
    let wakes = after.wakes - before.wakes;
    diagnostic(format_args!(
        "reclaim calls={} wakes={wakes}",
        PLAIN.scans()
    ));
    check!(refused.is_some(), "an atomic request was always served");
    check!(
        passes == 0 && PLAIN.scans() == 0,
        "an atomic request reclaimed"
    );
    check!(wakes > 0, "background reclaim was not woken");
    Ok(())
}

/// Which of the three caches requests with `gfp` ask, which must be refused: none of the caches gives
/// its page up, and nobody else has any.
fn asked(gfp: Gfp) -> Result<[bool; 3], Stop> {
    // A request passes by a cache that background reclaim, on another core, is just asking.
    const REQUESTS: usize = 3;
    let caches = [&PLAIN, &NEEDS_IO, &NEEDS_FS];
    let before = caches.map(Cache::scans);
    for _ in 0..REQUESTS {
        let served = genuine(|| Pages::alloc(gfp | Gfp::NOWARN, 0).map(drop))?;
        check!(
            served.is_err(),
            "{gfp} was served although nothing was freed"
        );
    }
    let after = caches.map(Cache::scans);
    let asked = core::array::from_fn(|cache| after[cache] > before[cache]);
    diagnostic(format_args!("{gfp}: plain, I/O, files asked: {asked:?}"));
    Ok(asked)
}

/// Runs `f` with the three caches, each with one page it never gives up, and no memory left.
fn with_three_caches(f: impl FnOnce() -> Outcome) -> Outcome {
    let _caches = [
        PLAIN.register(1, usize::MAX)?,
        NEEDS_IO.register(1, usize::MAX)?,
        NEEDS_FS.register(1, usize::MAX)?,
    ];
    for cache in [&PLAIN, &NEEDS_IO, &NEEDS_FS] {
        cache.take(Gfp::KERNEL)?;
    }
    let _ballast = squeeze()?;
    f()
}

fn shrinkers_by_right() -> Outcome {
    with_three_caches(|| {
        for (gfp, expected) in [
            (Gfp::KERNEL, [true, true, true]),
            (Gfp::NOFS, [true, true, false]),
            (Gfp::NOIO, [true, false, false]),
        ] {
            let asked = asked(gfp)?;
            check!(asked == expected, "{gfp}: {asked:?}, not {expected:?}");
        }
        Ok(())
    })
}

fn shrinkers_by_scope() -> Outcome {
    with_three_caches(|| {
        let nofs = mm::memalloc_nofs();
        let asked_in_nofs = asked(Gfp::KERNEL)?;
        let noio = mm::memalloc_noio();
        // The first scope ends first: the second still holds.
        drop(nofs);
        let asked_in_noio = asked(Gfp::KERNEL)?;
        drop(noio);
        let asked_outside = asked(Gfp::KERNEL)?;
        check!(
            asked_in_nofs == [true, true, false],
            "nofs: {asked_in_nofs:?}"
        );
        check!(
            asked_in_noio == [true, false, false],
            "noio: {asked_in_noio:?}"
        );
        check!(asked_outside == [true; 3], "outside: {asked_outside:?}");
        Ok(())
    })
}

fn owner_limit() -> Outcome {
    const LIMIT: usize = 8 * PAGE_SIZE;
    static OWNER: Owner = Owner::new("gfp suite", LIMIT);
    let scope = check_ok!(mm::charge_to(&OWNER));
    let first = check_ok!(Pages::alloc(Gfp::KERNEL_ACCOUNT, 2));
    let second = check_ok!(Pages::alloc(Gfp::KERNEL_ACCOUNT, 1));
    let uncharged = check_ok!(Pages::alloc(Gfp::KERNEL, 3));
    let refused = Pages::alloc(Gfp::KERNEL_ACCOUNT, 2).map(drop);
    drop(scope);
    let unowned = check_ok!(Pages::alloc(Gfp::KERNEL_ACCOUNT, 2));
    let used = OWNER.used();
    drop((first, second, uncharged, unowned));
    let left = OWNER.used();
    check!(used == 6 * PAGE_SIZE, "{used} bytes charged");
    let Err(error) = refused else {
        check!(false, "more than the limit was served");
        return Ok(());
    };
    diagnostic(format_args!("{error}"));
    let named = matches!(
        error,
        AllocError::OverLimit {
            owner: "gfp suite",
            limit: LIMIT,
            ..
        }
    );
    check!(left == 0, "{left} bytes stay charged");
    match error {
        AllocError::NoMemory { .. } => return Err(stop_for_error(&error)),
        error => check!(named, "{error}"),
    }
    Ok(())
}

fn decode() -> Outcome {
    for (gfp, expected) in [
        (Gfp::KERNEL, "0xcc0(GFP_KERNEL)"),
        (Gfp::ATOMIC, "0x820(GFP_ATOMIC)"),
        (Gfp::USER, "0x100cc0(GFP_USER)"),
        (Gfp::HIGHUSER, "0x100cc2(GFP_HIGHUSER)"),
        (Gfp::HIGHUSER_MOVABLE, "0x100cca(GFP_HIGHUSER_MOVABLE)"),
        (Gfp::TRANSHUGE, "0x1c24ca(GFP_TRANSHUGE)"),
        (Gfp::KERNEL | Gfp::ZERO, "0xdc0(GFP_KERNEL|__GFP_ZERO)"),
    ] {
        let mut text = heapless::String::<64>::new();
        let fits = write!(text, "{gfp}").is_ok();
        check!(fits && text == expected, "{text} is not {expected}");
    }
    Ok(())
}

fn transhuge_light() -> Outcome {
    const HUGE: u32 = 9;
    let block = check_ok!(Pages::alloc(Gfp::TRANSHUGE_LIGHT, HUGE));
    drop(block);
    let _cache = PLAIN.register(1, 0)?;
    PLAIN.take(Gfp::KERNEL)?;
    let mut ballast = squeeze()?;
    // The request is movable, so what contiguous memory areas lend would serve it.
    take_all(&mut ballast, Gfp::NOWAIT | Gfp::MOVABLE)?;
    let before = reclaim_info()?;
    let refused = genuine(|| Pages::alloc(Gfp::TRANSHUGE_LIGHT, HUGE).map(drop))?;
    let after = reclaim_info()?;
    drop(ballast);
    check!(refused.is_err(), "served without memory");
    let quiet = after.direct_passes == before.direct_passes
        && after.wakes == before.wakes
        && after.reports == before.reports
        && PLAIN.scans() == 0;
    check!(quiet, "{before:?} became {after:?}");
    diagnostic(format_args!("order={HUGE} reclaim=0 wakes=0 reports=0"));
    Ok(())
}

fn nofail_waits() -> Outcome {
    const RELUCTANCE: usize = 5;
    const PAGES: usize = 64;
    let _cache = PLAIN.register(PAGES, RELUCTANCE)?;
    for _ in 0..PAGES {
        PLAIN.take(Gfp::KERNEL)?;
    }
    let mut ballast = squeeze()?;
    // The half of the reserve that such a request has must not help either.
    PLAIN.close();
    take_all(&mut ballast, BLOCKING | Gfp::HIGH)?;
    PLAIN.open(PerCpu::current().index());
    let served = Pages::alloc(BLOCKING | Gfp::NOFAIL, 0).map(drop);
    let scans = PLAIN.scans();
    drop(ballast);
    check_ok!(served);
    check!(scans > RELUCTANCE, "served after {scans} scans");
    diagnostic(format_args!(
        "served after {RELUCTANCE} passes that freed nothing"
    ));
    Ok(())
}

fn nofail_misuse() -> Outcome {
    let before = Misuse::NofailOrder(2).count();
    check_ok!(Pages::alloc(BLOCKING | Gfp::NOFAIL, 1).map(drop));
    check_ok!(Pages::alloc(BLOCKING | Gfp::NOFAIL, 2).map(drop));
    let large = Misuse::NofailOrder(2).count() - before;
    check!(large == 1, "order 2 counted {large} times");
    let gfp = Gfp::ATOMIC | Gfp::NOFAIL | Gfp::NOWARN;
    let kind = Misuse::Flags(GfpError::NofailNonblocking(gfp));
    let before = kind.count();
    check_ok!(Pages::alloc(gfp, 0).map(drop));
    let atomic = kind.count() - before;
    check!(atomic == 1, "not blocking counted {atomic} times");
    Ok(())
}

fn nofail_atomic() -> Outcome {
    let gfp = Gfp::ATOMIC.difference(Gfp::KSWAPD_RECLAIM) | Gfp::NOFAIL | Gfp::NOWARN;
    let kind = Misuse::Flags(GfpError::NofailNonblocking(gfp));
    let mut ballast = squeeze()?;
    // Page by page: larger ones would reserve pageblocks for requests like them.
    let refusal = ballast.fill(Gfp::ATOMIC | Gfp::NOWARN, 0);
    check!(refusal.is_some(), "no room to note the ballast");
    let before = kind.count();
    let refused = genuine(|| Pages::alloc(gfp, 0).map(drop))?;
    let counted = kind.count() - before;
    drop(ballast);
    check!(
        matches!(refused, Err(AllocError::NoMemory { .. })),
        "{refused:?}"
    );
    check!(counted == 1, "counted {counted} times");
    diagnostic(format_args!("{kind}"));
    Ok(())
}

/// A blocking request with `extra` that cannot be served however much single pages are given up:
/// how many passes of reclaim it takes, with `pages` in the cache.
fn passes_to_fail(extra: Gfp, order: u32, pages: usize) -> Result<u32, Stop> {
    let _cache = PLAIN.register(pages, 0)?;
    for _ in 0..pages {
        PLAIN.take(Gfp::KERNEL)?;
    }
    let ballast = squeeze()?;
    let before = reclaim_info()?.direct_passes;
    let refused = genuine(|| Pages::alloc(UNAIDED | extra, order).map(drop))?;
    let passes = reclaim_info()?.direct_passes - before;
    drop(ballast);
    check!(refused.is_err(), "order {order} was served");
    diagnostic(format_args!("order={order} {extra}: passes={passes}"));
    Ok(passes)
}

/// Pages in the cache, given up a batch at a time: less than a block of the largest order.
const SOME: usize = 512;

fn noretry() -> Outcome {
    let passes = passes_to_fail(Gfp::NORETRY, MAX_ORDER, SOME)?;
    check!(passes == 1, "{passes} passes with NORETRY");
    let passes = passes_to_fail(Gfp::empty(), MAX_ORDER, SOME)?;
    check!(passes == 1, "{passes} passes for a costly order");
    Ok(())
}

fn retry_mayfail() -> Outcome {
    const MOST: u32 = 16;
    let passes = passes_to_fail(Gfp::RETRY_MAYFAIL, MAX_ORDER, SOME)?;
    check!(passes > 1 && passes <= MOST, "{passes} passes");
    Ok(())
}

fn nowarn() -> Outcome {
    /// What another core may give back in the background meanwhile.
    const STRAYS: usize = 64;
    let ballast = squeeze()?;
    let mut strays = heapless::Vec::<Pages, STRAYS>::new();
    let (before, silent) = loop {
        let before = reclaim_info()?;
        match genuine(|| Pages::alloc(Gfp::NOFS | Gfp::NOWARN, 0))? {
            Ok(page) if !strays.is_full() => {
                // There is room.
                let _ = strays.push(page);
            }
            result => break (before, result.map(drop)),
        }
    };
    let between = reclaim_info()?;
    let loud = genuine(|| Pages::alloc(Gfp::NOFS, 0).map(drop))?;
    let after = reclaim_info()?;
    drop((ballast, strays));
    check!(silent.is_err() && loud.is_err(), "served without memory");
    let (silent, loud) = (
        between.reports - before.reports,
        after.reports - between.reports,
    );
    diagnostic(format_args!("reports with NOWARN={silent} without={loud}"));
    check!((silent, loud) == (0, 1), "{silent} and {loud} reports");
    Ok(())
}

fn removed_flag() -> Outcome {
    // `__GFP_COLD` left Linux in 4.15; no flag here has this bit.
    const COLD: u32 = 1 << 27;
    let gfp = Gfp::KERNEL | Gfp::NOWARN | Gfp::from_bits_retain(COLD);
    let kind = Misuse::Flags(GfpError::UnknownBits { bits: COLD, gfp });
    let before = kind.count();
    check_ok!(Pages::alloc(gfp, 0).map(drop));
    check!(kind.count() == before + 1, "the bit was not noticed");
    diagnostic(format_args!("{kind}"));
    Ok(())
}

fn highmem() -> Outcome {
    let plain = Pages::alloc(Gfp::KERNEL, 0).map(|page| page.pfn());
    let high = Pages::alloc(Gfp::KERNEL | Gfp::HIGHMEM, 0).map(|page| page.pfn());
    let zones = allocator()?;
    let zone = |page| zones.zone_of(page);
    let (plain, high) = (check_ok!(plain), check_ok!(high));
    check!(
        zone(plain) == zone(high),
        "{plain} and {high} are in different zones"
    );
    Ok(())
}

fn contradictions() -> Outcome {
    let two_zones = from_zone(hal::mm::ZoneKind::Dma) | Gfp::DMA32;
    let two_types = Gfp::NOWAIT | Gfp::MOVABLE | Gfp::RECLAIMABLE;
    for (gfp, error) in [
        (two_zones, GfpError::TwoZones(two_zones)),
        (two_types, GfpError::TwoMigrateTypes(two_types)),
    ] {
        let before = Misuse::Flags(error).count();
        check_ok!(Pages::alloc(gfp, 0).map(drop));
        let counted = Misuse::Flags(error).count() - before;
        check!(counted == 1, "{error}: counted {counted} times");
        diagnostic(format_args!("{error}"));
    }
    Ok(())
}

fn order_too_large() -> Outcome {
    let order = MAX_ORDER + 1;
    let before = Misuse::OrderTooLarge(order).count();
    let refused = Pages::alloc(Gfp::KERNEL | Gfp::NOWARN, order).map(drop);
    check!(
        matches!(refused, Err(AllocError::OrderTooLarge { order: 11, .. })),
        "{refused:?}"
    );
    let counted = Misuse::OrderTooLarge(order).count() - before;
    check!(counted == 1, "counted {counted} times");
    Ok(())
}
