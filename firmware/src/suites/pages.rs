//! Pages: alignment, splitting and merging, exact sizes, refusals, exhaustion, several cores.

pub(super) mod leaks;

use super::limits::Limits;
use super::mapping;
use crate::failslab::lightly;
use crate::ledger::Ledger;
use crate::machine::machine;
use crate::memory::hoard::{Hoard, capacity, top_zone};
use crate::memory::{self, ExactPages, Object, Pages};
use crate::random::Random;
use crate::report::{Outcome, Stop, Suite, Test, diagnostic};
use crate::{check, check_ok, check_served};
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use hal::mm::{self, AllocError, FrameError, FrameKind, FreeError, Gfp, MAX_ORDER};
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
        test("bad_frees_are_refused_by_name", bad_frees),
        test("a_page_at_hand_is_not_freed_twice", freed_twice_at_hand),
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

fn bad_frees() -> Outcome {
    let before = check_ok!(Ledger::take());
    let refusals: [(&str, FreeError); 6] = {
        let block = check_ok!(Pages::alloc(Gfp::KERNEL, 3));
        let coherent = machine().pool.frames().start.pfn();
        let image = machine().image.frames().start.pfn();
        let end = machine().map.ram().iter().map(|ram| ram.end).max();
        let beyond = end.unwrap_or(PhysAddr::new(0)).pfn();
        let object = check_ok!(Object::alloc(64, Gfp::KERNEL));
        let (first, second) = check_ok!(Pages::alloc(Gfp::KERNEL, 0)).free_twice();
        check_ok!(first);
        let all = [
            ("double free", Some(second)),
            ("wrong order", Some(block.free_with_order(2))),
            ("page in a block", Some(block.free_tail(1))),
            ("pool page", memory::free_foreign(coherent)),
            ("image page", memory::free_foreign(image)),
            ("no RAM", memory::free_foreign(beyond)),
        ];
        let slab = object.free_as_page();
        check!(
            matches!(
                slab,
                Err(FreeError::WrongKind {
                    kind: FrameKind::Slab,
                    ..
                })
            ),
            "an object freed as a page: {slab:?}"
        );
        let mut errors = heapless::Vec::<(&str, FreeError), 6>::new();
        for (what, result) in all {
            let Some(Err(error)) = result else {
                check!(false, "{what} was not refused: {result:?}");
                return Ok(());
            };
            diagnostic(format_args!("{what}: {error}"));
            let _ = errors.push((what, error));
        }
        match errors.into_array() {
            Ok(array) => array,
            Err(_) => return Err(Stop::Failed),
        }
    };
    let [double, order, tail, pool, image, beyond] = refusals.map(|(_, error)| error);
    // A freed page that merged with its buddy is the inside of a larger block.
    let merged = matches!(
        double,
        FreeError::WrongKind {
            kind: FrameKind::Tail,
            ..
        }
    );
    check!(
        merged || matches!(double, FreeError::DoubleFree(_)),
        "{double}"
    );
    check!(
        matches!(
            order,
            FreeError::WrongOrder {
                has: 3,
                given: 2,
                ..
            }
        ),
        "{order}"
    );
    check!(
        matches!(
            tail,
            FreeError::WrongKind {
                kind: FrameKind::Tail,
                ..
            }
        ),
        "{tail}"
    );
    check!(
        matches!(pool, FreeError::Frame(FrameError::SetAside { .. })),
        "{pool}"
    );
    check!(matches!(image, FreeError::Frame(_)), "{image}");
    check!(matches!(beyond, FreeError::Frame(_)), "{beyond}");
    let changed = before.difference(&check_ok!(Ledger::take()));
    check!(
        changed.is_none(),
        "a refused free changed something: {changed:?}"
    );
    Ok(())
}

fn freed_twice_at_hand() -> Outcome {
    let before = check_ok!(Ledger::take());
    for order in 0..=MAX_ORDER {
        let block = check_ok!(Pages::alloc(Gfp::KERNEL, order));
        let (first, second) = block.free_twice();
        check_ok!(first);
        let named = match second {
            Err(FreeError::DoubleFree(_)) => true,
            // Merged with its buddy.
            Err(FreeError::WrongKind { kind, .. }) => kind == FrameKind::Tail,
            _ => false,
        };
        check!(named, "order {order} freed twice: {second:?}");
    }
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
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
