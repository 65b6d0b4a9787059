//! Pages: alignment, splitting and merging, exact sizes, refusals, exhaustion, several cores.

pub(super) mod leaks;
mod refused;

use super::limits::Limits;
use super::mapping;
use crate::failslab::lightly;
use crate::ledger::Ledger;
use crate::machine::machine;
use crate::memory::hoard::{Hoard, capacity, top_zone};
use crate::memory::{ExactPages, Pages, Remapped};
use crate::random::Random;
use crate::report::{Outcome, Stop, Suite, Test, diagnostic};
use crate::{check, check_ok, check_served};
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use hal::mm::{self, AllocError, Gfp, MAX_ORDER, Protection};
use hal::smp;
use hal::sync::PerCpu;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "pages",
    tests: &[
        test("blocks_are_aligned_to_their_size_and_in_ram", aligned),
        test(
            "blocks_are_aligned_to_their_size_and_in_ram_planted",
            aligned_planted,
        ),
        test("split_and_merge_restore_the_histogram", split_and_merge),
        test("a_leaked_page_is_found_planted", leaks::page),
        test("a_leaked_object_is_found_planted", leaks::object),
        test("a_leaked_area_is_found_planted", leaks::area),
        test("leaked_registers_are_found_planted", leaks::registers),
        test("a_leaked_claim_is_found_planted", leaks::claim),
        test("a_leaked_table_is_found_planted", leaks::table),
        test("a_leaked_shrinker_is_found_planted", leaks::shrinker),
        test("a_leaked_charge_is_found_planted", leaks::charge),
        test("orders_above_the_largest_are_refused", order_too_large),
        test("zeroed_pages_are_zero", zeroed),
        test("zeroed_pages_are_zero_planted", zeroed_planted),
        test("bad_frees_are_refused_by_name", refused::bad_frees),
        test(
            "a_page_at_hand_is_not_freed_twice",
            refused::freed_twice_at_hand,
        ),
        test("wrong_frees_leave_the_lists_sound", refused::sound),
        test("pages_write_no_page_table", no_table_writes),
        test("pages_write_no_page_table_planted", no_table_writes_planted),
        test("exact_sizes_take_no_more_pages_than_they_need", exact),
        test(
            "exact_sizes_take_no_more_pages_than_they_need_planted",
            exact_planted,
        ),
        test("exhaustion_stops_at_the_watermark_and_passes", exhaustion),
        test("cores_allocate_at_once_without_sharing_a_block", all_cores),
        test(
            "cores_allocate_at_once_without_sharing_a_block_planted",
            all_cores_planted,
        ),
        test("a_block_is_freed_on_another_core", other_core),
    ],
};

const fn test(name: &'static str, run: fn() -> Outcome) -> Test {
    Test { name, run }
}

/// What is wrong with where a block lies.
fn misplaced(pfn: Pfn, order: u32) -> Option<&'static str> {
    let Some(block) = PhysRange::from_size(pfn.phys(), (PAGE_SIZE as u64) << order) else {
        return Some("beyond the address space");
    };
    if !pfn.is_order_aligned(order) {
        return Some("not aligned to its size");
    }
    if !machine()
        .map
        .ram()
        .iter()
        .any(|ram| ram.contains_range(&block))
    {
        return Some("not in RAM");
    }
    let reserved = machine().map.reserved();
    if reserved
        .iter()
        .any(|reserved| reserved.range.overlaps(&block))
    {
        return Some("in memory that is reserved");
    }
    None
}

fn aligned() -> Outcome {
    for order in 0..=MAX_ORDER {
        let block = check_ok!(Pages::alloc(Gfp::KERNEL, order));
        let fault = misplaced(block.pfn(), order);
        check!(
            fault.is_none(),
            "order {order} at {}: {fault:?}",
            block.pfn()
        );
        let len = PAGE_SIZE << order;
        let off = mapping::off_the_direct_map(block.va(), len);
        check!(
            off.is_none(),
            "order {order}: {off:?} is not in the direct map"
        );
    }
    Ok(())
}

fn aligned_planted() -> Outcome {
    let block = check_ok!(Pages::alloc(Gfp::KERNEL, 2));
    check!(
        misplaced(block.pfn() + 1, 2).is_some(),
        "alignment is not judged"
    );
    check!(
        misplaced(machine().image.frames().start.pfn(), 0).is_some(),
        "the image passes"
    );
    let ram = machine().map.ram().iter().map(|ram| ram.end).max();
    let end = ram.unwrap_or(PhysAddr::new(0));
    check!(misplaced(end.pfn(), 0).is_some(), "{end} passes as RAM");
    Ok(())
}

fn split_and_merge() -> Outcome {
    const ORDER: u32 = 5;
    let before = check_ok!(Ledger::take());
    let mut hoard = check_ok!(Hoard::new(1 << ORDER));
    for _ in 0..1 << ORDER {
        let page = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
        check!(hoard.push(page).is_ok(), "no room to note it");
    }
    let between = check_ok!(Ledger::take());
    // The even pages first, so that every odd one finds its buddy free.
    hoard.release(|pfn| pfn.is_order_aligned(1));
    hoard.release(|_| true);
    drop(hoard);
    let after = check_ok!(Ledger::take());
    check!(
        before.difference(&between).is_some(),
        "{} pages are not missing",
        1 << ORDER
    );
    if let Some(difference) = before.difference(&after) {
        check!(false, "{difference}");
    }
    Ok(())
}

fn order_too_large() -> Outcome {
    let order = MAX_ORDER + 1;
    let refused = Pages::alloc(Gfp::KERNEL, order);
    let Err(error) = refused else {
        check!(false, "order {order} was served");
        return Ok(());
    };
    check!(
        matches!(error, AllocError::OrderTooLarge { order: 11, .. }),
        "{error}"
    );
    diagnostic(format_args!("{error}"));
    Ok(())
}

fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte != 0)
}

fn zeroed() -> Outcome {
    const COUNT: usize = 64;
    const DIRT: u8 = 0xA5;
    let mut dirty = heapless::Vec::<Pfn, COUNT>::new();
    {
        let mut pages = heapless::Vec::<Pages, COUNT>::new();
        for _ in 0..COUNT {
            let mut page = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
            page.bytes().fill(DIRT);
            let _ = dirty.push(page.pfn());
            let _ = pages.push(page);
        }
    }
    let mut reused = 0;
    let mut pages = heapless::Vec::<Pages, COUNT>::new();
    for _ in 0..COUNT {
        let mut page = check_ok!(Pages::alloc(Gfp::KERNEL | Gfp::ZERO, 0));
        let found = first_nonzero(page.bytes());
        check!(found.is_none(), "{} is dirty at {found:?}", page.pfn());
        reused += usize::from(dirty.contains(&page.pfn()));
        let _ = pages.push(page);
    }
    diagnostic(format_args!(
        "{reused} of {COUNT} zeroed pages had been dirty"
    ));
    check!(
        reused > 0,
        "no dirtied page came back, so nothing was shown"
    );
    Ok(())
}

fn zeroed_planted() -> Outcome {
    let mut page = check_ok!(Pages::alloc(Gfp::KERNEL | Gfp::ZERO, 0));
    let last = PAGE_SIZE - 1;
    page.bytes()[last] = 1;
    check!(
        first_nonzero(page.bytes()) == Some(last),
        "a dirty byte was not found"
    );
    Ok(())
}

fn no_table_writes() -> Outcome {
    let before = mapping::fingerprint();
    for order in (0..=MAX_ORDER).cycle().take(lightly(1000)) {
        let block = check_ok!(Pages::alloc(Gfp::KERNEL, order));
        let off = mapping::off_the_direct_map(block.va(), PAGE_SIZE << order);
        check!(off.is_none(), "{off:?} is not at the direct map's offset");
    }
    let after = mapping::fingerprint();
    check!(before == after, "{before:x?}, {after:x?}");
    Ok(())
}

fn no_table_writes_planted() -> Outcome {
    let block = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let before = mapping::fingerprint();
    let mapped = check_ok!(Remapped::backwards(&block, Protection::ReadWrite));
    let after = mapping::fingerprint();
    check_ok!(mapped.unmap());
    check!(before != after, "a page mapped once more was not found");
    Ok(())
}

/// Pages that are missing in `later`.
fn missing(before: &Ledger, later: &Ledger) -> usize {
    before.free_pages().saturating_sub(later.free_pages())
}

fn exact() -> Outcome {
    let before = check_ok!(Ledger::take());
    for pages in [1, 3, 5, 129, 1024] {
        let mut exact = check_ok!(ExactPages::alloc(pages * PAGE_SIZE - 1, Gfp::KERNEL));
        exact.bytes().fill(0x5A);
        let taken = missing(&before, &check_ok!(Ledger::take()));
        check!(taken == pages, "{pages} pages take {taken}");
        check_ok!(exact.free());
        let difference = before.difference(&check_ok!(Ledger::take()));
        check!(difference.is_none(), "{pages} pages: {difference:?}");
    }
    Ok(())
}

fn exact_planted() -> Outcome {
    let before = check_ok!(Ledger::take());
    let block = check_ok!(Pages::alloc(Gfp::KERNEL, 3));
    let taken = missing(&before, &check_ok!(Ledger::take()));
    check!(taken == 8, "a whole block was taken for {taken} pages");
    check_ok!(block.free());
    Ok(())
}

fn exhaustion() -> Outcome {
    let before = check_ok!(Ledger::take());
    {
        let allocator = mm::pages().ok_or(Stop::Failed)?;
        let top = top_zone();
        let limits = Limits::of(top);
        let singles = limits.marks.high as usize;
        let mut hoard = check_ok!(Hoard::new(capacity(singles)));
        for gfp in [Gfp::KERNEL | Gfp::NOWARN, Gfp::ATOMIC | Gfp::NOWARN] {
            let mut refusal = None;
            for order in (0..=MAX_ORDER).rev() {
                refusal = hoard.fill(gfp, order);
                check!(refusal.is_some(), "no room to note it");
            }
            let named = matches!(refusal, Some(AllocError::NoMemory { order: 0, .. }));
            check!(named, "{refusal:?}");
            // What a contiguous area lends to movable pages does not count.
            let zone = allocator.zone(top);
            let (free, floor) = (zone.free - zone.free_cma, limits.floor(gfp));
            diagnostic(format_args!(
                "{gfp:?}: refused with {free} pages of zone {top} free"
            ));
            check!(
                free == floor,
                "{gfp:?} stopped at {free} pages, the floor is {floor}"
            );
        }
    }
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

/// Marks a block as `tag`'s, in its first and last word.
fn sign(block: &mut Pages, tag: u64) {
    let bytes = block.bytes();
    let len = bytes.len();
    let tag = tag.to_le_bytes();
    bytes[..tag.len()].copy_from_slice(&tag);
    bytes[len - tag.len()..].copy_from_slice(&tag);
}

/// Whether somebody else wrote into a block that `tag` signed.
fn trespassed(block: &mut Pages, tag: u64) -> bool {
    let tag = tag.to_le_bytes();
    let bytes = block.bytes();
    !(bytes.starts_with(&tag) && bytes.ends_with(&tag))
}

fn all_cores() -> Outcome {
    const ROUNDS: usize = 400;
    const HELD: usize = 12;
    const LARGEST: usize = 4;
    let before = check_ok!(Ledger::take());
    let (served, refused, shared) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    check_ok!(smp::run_on_all(|core| {
        let mut random = Random::new(machine().seed, core as u64 + 1);
        let mut held = [const { None::<(Pages, u64)> }; HELD];
        for round in 0..lightly(ROUNDS) {
            let slot = random.below(HELD);
            if let Some((mut block, tag)) = held[slot].take() {
                shared.fetch_add(usize::from(trespassed(&mut block, tag)), Ordering::Relaxed);
            }
            let tag = (core * ROUNDS + round) as u64;
            match Pages::alloc(Gfp::KERNEL, random.below(LARGEST) as u32) {
                Ok(mut block) => {
                    sign(&mut block, tag);
                    held[slot] = Some((block, tag));
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }));
    let (served, refused, shared) = (
        served.into_inner(),
        refused.into_inner(),
        shared.into_inner(),
    );
    diagnostic(format_args!(
        "{served} blocks on {} cores",
        smp::online().count()
    ));
    check!(shared == 0, "{shared} blocks had two owners");
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    check_served!(refused);
    Ok(())
}

fn all_cores_planted() -> Outcome {
    let mut block = check_ok!(Pages::alloc(Gfp::KERNEL, 1));
    sign(&mut block, 7);
    check!(!trespassed(&mut block, 7), "the signature does not hold");
    let last = block.bytes().len() - 1;
    block.bytes()[last] ^= 1;
    check!(trespassed(&mut block, 7), "a foreign store was not found");
    Ok(())
}

fn other_core() -> Outcome {
    let me = PerCpu::current().index();
    let Some(other) = smp::online().find(|core| *core != me) else {
        return Err(Stop::Skipped("one core"));
    };
    for order in [0, 3, MAX_ORDER] {
        let block = check_ok!(Pages::alloc(Gfp::KERNEL, order));
        check_ok!(check_ok!(smp::run_on(other, || block.free())));
        let block = check_ok!(check_ok!(smp::run_on(other, || Pages::alloc(
            Gfp::KERNEL,
            order
        ))));
        check_ok!(block.free());
    }
    Ok(())
}
