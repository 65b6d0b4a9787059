//! Zones: who is served from where, what is kept for whom, and what lies beside what.

use super::limits::{self, Limits};
use crate::ledger::Ledger;
use crate::memory::Pages;
use crate::memory::hoard::{Hoard, capacity, top_zone};
use crate::report::{Outcome, Stop, Suite, diagnostic};
use crate::{check, check_ok};
use core::sync::atomic::{AtomicU32, Ordering};
use hal::addr::PhysAddr;
use hal::mm::{self, FreeError, Gfp, MAX_ORDER, PAGEBLOCK_ORDER, ZoneInfo, ZoneKind, fault};
use hal::smp;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "zones",
    tests: tests! {
        flags_choose_the_zone: flags_choose_the_zone,
        a_full_zone_falls_back_to_the_one_below: fallback,
        requests_stop_where_the_formula_says: formula,
        requests_stop_where_the_formula_says_planted: formula_planted,
        a_lower_zone_keeps_its_lowmem_reserve: lowmem_reserve,
        pages_lie_beside_their_kind: grouping,
        pages_lie_beside_their_kind_planted: grouping_planted,
        large_atomic_requests_build_a_bounded_reserve: highatomic,
        pages_at_hand_come_back_to_the_same_blocks: drained,
        pages_at_hand_come_back_to_the_same_blocks_planted: drained_planted,
    },
};

fn flags_choose_the_zone() -> Outcome {
    const SAMPLES: usize = 32;
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    let populated = |kind: &ZoneKind| allocator.zone(*kind).managed > 0;
    for (gfp, asked) in [
        (Gfp::KERNEL | Gfp::DMA, ZoneKind::Dma),
        (Gfp::KERNEL | Gfp::DMA32, ZoneKind::Dma32),
        (Gfp::KERNEL, ZoneKind::Normal),
    ] {
        let below = ZoneKind::ALL.iter().filter(|kind| **kind <= asked);
        let above = ZoneKind::ALL.iter().filter(|kind| **kind > asked);
        // A board without memory below a limit has no master limited to it.
        let expected = below.rev().find(|kind| populated(kind));
        let Some(&expected) = expected.or_else(|| above.into_iter().find(|kind| populated(kind)))
        else {
            return Err(Stop::Failed);
        };
        let mut highest = PhysAddr::new(0);
        for _ in 0..SAMPLES {
            let page = check_ok!(Pages::alloc(gfp, 0));
            let zone = allocator.zone_of(page.pfn());
            check!(
                zone == expected,
                "{gfp:?} gave {} of zone {zone}",
                page.pfn()
            );
            highest = highest.max(page.pfn().phys());
        }
        let empty = if populated(&asked) { "" } else { " (empty)" };
        diagnostic(format_args!(
            "asked for {asked}{empty}: zone {expected}, highest {highest}"
        ));
    }
    Ok(())
}

fn fallback() -> Outcome {
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    let top = top_zone();
    let lower = ZoneKind::ALL.iter().filter(|kind| **kind < top);
    if lower.map(|kind| allocator.zone(*kind).managed).sum::<u32>() == 0 {
        return Err(Stop::Skipped("all memory is in one zone"));
    }
    let mut hoard = check_ok!(Hoard::new(capacity(0)));
    loop {
        let block = check_ok!(Pages::alloc(Gfp::KERNEL, MAX_ORDER));
        let zone = allocator.zone_of(block.pfn());
        if zone < top {
            let left = allocator.zone(top).free;
            diagnostic(format_args!(
                "zone {top} left {left} pages free, then zone {zone} served"
            ));
            break;
        }
        check!(hoard.push(block).is_ok(), "no room to note it");
    }
    let zone = allocator.zone(top);
    let large = zone.blocks[MAX_ORDER as usize];
    // Lower zones are tried before any mark below low is.
    let spare = zone.free.saturating_sub(Limits::of(top).marks.low) >= 1 << MAX_ORDER;
    check!(
        large == 0 || !spare,
        "zone {top} still had {large} blocks to give"
    );
    Ok(())
}

/// Takes all that `gfp` gets, largest blocks first.
fn exhaust(hoard: &mut Hoard, gfp: Gfp) -> Outcome {
    for order in (0..=MAX_ORDER).rev() {
        let refusal = hoard.fill(gfp, order);
        check!(refusal.is_some(), "no room to note it");
    }
    Ok(())
}

/// Room for all free memory, down to the last page above the lowest floor.
fn hoard_for_all() -> Result<Hoard, Stop> {
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    let marks = ZoneKind::ALL.map(|kind| allocator.zone(kind).watermarks.high as usize);
    Ok(check_ok!(Hoard::new(capacity(marks.iter().sum()))))
}

/// The pages that count for a request with `gfp` in `zone`, and those it has to leave by `limits`, if
/// they differ although the zone gives no more.
fn off_the_formula(
    zone: &ZoneInfo,
    limits: &Limits,
    gfp: Gfp,
    highest: ZoneKind,
) -> Option<(u32, u32)> {
    let highatomic = match gfp.contains(Gfp::HIGH) {
        true => 0,
        false => zone.free_highatomic,
    };
    let usable = zone.free - zone.free_cma - highatomic;
    let kept = limits.floor(gfp) + limits.lowmem_reserve[highest as usize];
    (usable != kept).then_some((usable, kept))
}

fn formula() -> Outcome {
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    for kind in ZoneKind::ALL {
        let (limits, zone) = (Limits::of(kind), allocator.zone(kind));
        check!(
            limits.are_kept(&zone),
            "zone {kind}: {limits:?} by the formula, {zone:?}"
        );
    }
    let before = check_ok!(Ledger::take());
    {
        let mut hoard = hoard_for_all()?;
        let top = top_zone();
        // Each has rights to more of the reserve than the one before.
        for gfp in [
            Gfp::KERNEL,
            Gfp::NOWAIT,
            Gfp::KERNEL | Gfp::HIGH,
            Gfp::ATOMIC,
        ] {
            exhaust(&mut hoard, gfp | Gfp::NOWARN)?;
            for kind in ZoneKind::ALL {
                let zone = allocator.zone(kind);
                if zone.managed == 0 {
                    continue;
                }
                let limits = Limits::of(kind);
                let off = off_the_formula(&zone, &limits, gfp, top);
                check!(off.is_none(), "{gfp:?} in zone {kind}: {off:?}");
                let reserve = limits.lowmem_reserve[top as usize];
                diagnostic(format_args!(
                    "{gfp:?}: zone {kind} left with {} pages, {reserve} of them lowmem reserve",
                    zone.free
                ));
            }
        }
    }
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

fn formula_planted() -> Outcome {
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    let top = top_zone();
    let mut zone = allocator.zone(top);
    // A machine of twice the size: the zone's share is another.
    let mut twice = limits::managed();
    twice[ZoneKind::Normal as usize] += twice.iter().sum::<u32>();
    let wrong = Limits::new(top, twice);
    check!(!wrong.are_kept(&zone), "a wrong total passes: {wrong:?}");
    let limits = Limits::of(top);
    (zone.free_cma, zone.free_highatomic) = (0, 0);
    zone.free = limits.floor(Gfp::KERNEL) + limits.lowmem_reserve[top as usize];
    let off = |zone: &ZoneInfo, limits| off_the_formula(zone, limits, Gfp::KERNEL, top);
    check!(
        off(&zone, &limits).is_none(),
        "the floor itself is not the formula's"
    );
    check!(
        off(&zone, &wrong).is_some(),
        "{} pages pass for the floor of a larger machine",
        zone.free
    );
    for free in [zone.free - 1, zone.free + 1] {
        let found = off(&ZoneInfo { free, ..zone }, &limits);
        check!(found.is_some(), "{free} pages pass for the floor");
    }
    Ok(())
}

fn lowmem_reserve() -> Outcome {
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    let top = top_zone();
    let reserve = |kind: ZoneKind| Limits::of(kind).lowmem_reserve[top as usize];
    let keeps = |kind: &ZoneKind| allocator.zone(*kind).managed != 0 && reserve(*kind) != 0;
    let Some(lowest) = ZoneKind::ALL.into_iter().find(keeps) else {
        return Err(Stop::Skipped("all memory is in one zone"));
    };
    let limited = match lowest {
        ZoneKind::Dma => Gfp::KERNEL | Gfp::DMA,
        _ => Gfp::KERNEL | Gfp::DMA32,
    };
    let mut hoard = hoard_for_all()?;
    exhaust(&mut hoard, Gfp::KERNEL | Gfp::NOWARN)?;
    let kept = reserve(lowest);
    let mut served = 0;
    let _paused = fault::pause();
    while let Ok(page) = Pages::alloc(limited | Gfp::NOWARN, 0) {
        let zone = allocator.zone_of(page.pfn());
        check!(zone == lowest, "{} of zone {zone}", page.pfn());
        check!(hoard.push(page).is_ok(), "no room to note it");
        served += 1;
    }
    diagnostic(format_args!(
        "zone {lowest} kept {kept} pages from unrestricted requests"
    ));
    check!(
        served == kept,
        "{served} pages were left for limited requests, not {kept}"
    );
    Ok(())
}

/// Pages of each sort that are looked at: several pageblocks of them.
const SAMPLES: usize = 2048;

/// The numbers of some pageblocks.
type Pageblocks = heapless::Vec<u32, 64>;

/// Of how many of `blocks` `others` has some too.
fn shared(blocks: &Pageblocks, others: &Pageblocks) -> usize {
    blocks.iter().filter(|block| others.contains(block)).count()
}

/// The pageblocks in which pages of two sorts lie, allocated in turns.
fn sample(sorts: [Gfp; 2]) -> Result<[Pageblocks; 2], Stop> {
    let mut hoard = check_ok!(Hoard::new(2 * SAMPLES));
    let mut blocks = [Pageblocks::new(), Pageblocks::new()];
    for _ in 0..SAMPLES {
        for (blocks, gfp) in blocks.iter_mut().zip(sorts) {
            let page = check_ok!(Pages::alloc(gfp, 0));
            let block = page.pfn().get() >> PAGEBLOCK_ORDER;
            if !blocks.contains(&block) {
                check!(blocks.push(block).is_ok(), "pages all over the memory");
            }
            check!(hoard.push(page).is_ok(), "no room to note it");
        }
    }
    Ok(blocks)
}

fn grouping() -> Outcome {
    let sorts = [
        Gfp::KERNEL,
        Gfp::KERNEL | Gfp::RECLAIMABLE,
        Gfp::HIGHUSER_MOVABLE,
    ];
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        check_ok!(Ledger::take());
        let [blocks, others] = sample([sorts[a], sorts[b]])?;
        let shared = shared(&blocks, &others);
        diagnostic(format_args!(
            "{shared} of {} pageblocks have pages of two sorts",
            blocks.len()
        ));
        // A pageblock that changed hands while some of it was free or in use is mixed for a while.
        check!(
            2 * shared < blocks.len(),
            "pages for {:?} lie beside pages for {:?}",
            sorts[a],
            sorts[b]
        );
    }
    Ok(())
}

fn grouping_planted() -> Outcome {
    let [blocks, others] = sample([Gfp::KERNEL; 2])?;
    check!(
        2 * shared(&blocks, &others) >= blocks.len(),
        "pages of one sort are taken for two"
    );
    Ok(())
}

fn highatomic() -> Outcome {
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    let top = top_zone();
    let managed = allocator.zone(top).managed;
    // One page in a hundred, in whole pageblocks, and none if that is less than one.
    let most = match managed / 100 {
        share if share >> PAGEBLOCK_ORDER == 0 => 0,
        share => share.next_multiple_of(1 << PAGEBLOCK_ORDER),
    };
    let before = check_ok!(Ledger::take());
    {
        let mut hoard = hoard_for_all()?;
        exhaust(&mut hoard, Gfp::KERNEL | Gfp::NOWARN)?;
        check!(
            allocator.zone(top).free_highatomic == 0,
            "a reserve without need"
        );
        let mut reserve = 0;
        let _paused = fault::pause();
        while let Ok(block) = Pages::alloc(Gfp::ATOMIC | Gfp::NOWARN, 1) {
            reserve = reserve.max(allocator.zone(top).free_highatomic);
            check!(hoard.push(block).is_ok(), "no room to note it");
        }
        diagnostic(format_args!(
            "zone {top}: at most {reserve} free pages in the reserve, which may have {most}"
        ));
        check!(reserve <= most, "{reserve} pages in the reserve");
        check!(
            reserve != 0 || most == 0,
            "no atomic request made its pageblock join the reserve"
        );
    }
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

/// Has every core put pages back of all the orders it keeps at hand; returns the pages at hand.
fn fill_lists() -> Result<u32, Stop> {
    const HELD: usize = 8;
    const LARGEST: u32 = 3;
    let at_hand = AtomicU32::new(0);
    let failed = AtomicU32::new(0);
    check_ok!(smp::run_on_all(|_| {
        for order in 0..=LARGEST {
            let held: heapless::Vec<_, HELD> = (0..HELD)
                .filter_map(|_| Pages::alloc(Gfp::KERNEL, order).ok())
                .collect();
            let freed: Result<(), FreeError> = held.into_iter().try_for_each(Pages::free);
            failed.fetch_add(u32::from(freed.is_err()), Ordering::Relaxed);
        }
        let zones = mm::pages().map(|p| ZoneKind::ALL.map(|kind| p.zone(kind).at_hand));
        at_hand.fetch_add(zones.unwrap_or_default().iter().sum(), Ordering::Relaxed);
    }));
    let failed = failed.into_inner();
    check!(failed == 0, "frees failed on {failed} cores");
    Ok(at_hand.into_inner())
}

fn drained() -> Outcome {
    let before = check_ok!(Ledger::take());
    let at_hand = fill_lists()?;
    diagnostic(format_args!(
        "{at_hand} pages at hand on {} cores",
        smp::online().count()
    ));
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

fn drained_planted() -> Outcome {
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    check_ok!(Ledger::take());
    let before = ZoneKind::ALL.map(|kind| allocator.zone(kind).blocks);
    let at_hand = fill_lists()?;
    if at_hand == 0 {
        return Err(Stop::Skipped("the zones are too small for pages at hand"));
    }
    let after = ZoneKind::ALL.map(|kind| allocator.zone(kind).blocks);
    check!(
        before != after,
        "{at_hand} pages at hand are not missing from the zones"
    );
    Ok(())
}
