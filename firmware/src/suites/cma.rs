//! Contiguous memory areas: place and mapping, lending, moving out, refusals, types.

mod lodged;

use super::mapping;
use crate::failslab::genuine;
use crate::machine::machine;
use crate::memory::Pages;
use crate::memory::contiguous::{Contiguous, release_foreign};
use crate::memory::hoard::Hoard;
use crate::report::{Outcome, Stop, Suite, Test, diagnostic, failed_operation};
use crate::suites::interrupt::InInterrupt;
use crate::{check, check_ok};
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::addr::{PAGE_SIZE, Pfn};
use hal::arch::{cpu, translate};
use hal::layout::phys_to_virt;
use hal::mm::{self, AREA_ALIGN, CmaError, FrameKind, FreeError, Gfp, MAX_ORDER, MovablePage};
use hal::mmu::{Level, MemoryType};
use hal::smp;
use hal::sync::{Context, IrqLock};
use lodged::*;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "cma",
    tests: &[
        test("the_area_is_reachable_and_mapped_by_pages", placed),
        test(
            "the_area_is_reachable_and_mapped_by_pages_planted",
            placed_planted,
        ),
        test("unmovable_requests_never_get_lent_memory", lending),
        test(
            "unmovable_requests_never_get_lent_memory_planted",
            lending_planted,
        ),
        test("movable_pages_move_out_with_their_content", moves_out),
        test(
            "movable_pages_move_out_with_their_content_planted",
            moves_out_planted,
        ),
        test("a_pinned_page_is_gone_around_or_named", pinned),
        test(
            "a_pinned_page_is_gone_around_or_named_planted",
            pinned_planted,
        ),
        test("allocations_are_contiguous_and_aligned", aligned),
        test("exhaustion_is_named_and_passes", exhaustion),
        test("bad_releases_are_refused_by_name", bad_releases),
        test("only_a_task_may_allocate", contexts),
        test("a_page_changes_its_memory_type_and_back", retyped),
        test("cores_allocate_at_once_and_share_nothing", all_cores),
    ],
};

const fn test(name: &'static str, run: fn() -> Outcome) -> Test {
    Test { name, run }
}

/// The first page of `first..end` that is not mapped by a leaf of its own.
fn in_a_block(first: Pfn, end: Pfn) -> Option<(Pfn, Option<Level>)> {
    let tables = machine().tables.lock();
    (first.get()..end.get()).map(Pfn::new).find_map(|pfn| {
        let leaf = tables.leaf(phys_to_virt(pfn.phys()));
        let level = leaf.map(|leaf| leaf.level);
        (level != Some(Level::L3)).then_some((pfn, level))
    })
}

fn placed() -> Outcome {
    let cma = area()?;
    let frames = cma.area().frames;
    for end in [frames.start, frames.end] {
        check!(
            end.is_aligned(AREA_ALIGN as usize),
            "the area ends at {end}"
        );
    }
    let limits = machine().board.zone_limits();
    let ram_below = machine().map.ram().iter().any(|ram| ram.start < limits.dma);
    let limit = if ram_below { limits.dma } else { limits.dma32 };
    check!(frames.end <= limit, "{frames} is beyond {limit}");
    let block = in_a_block(frames.start.pfn(), frames.end.pfn());
    check!(block.is_none(), "(frame, level) is {block:?}");
    let va = phys_to_virt(frames.start);
    let other = mapping::other_type(va, frames.size() as usize, MemoryType::NormalWriteBack);
    check!(other.is_none(), "{other:?} is not write-back memory");
    diagnostic(format_args!("structural: {cma}"));
    Ok(())
}

fn placed_planted() -> Outcome {
    area()?;
    let block = check_ok!(Pages::alloc(Gfp::KERNEL, MAX_ORDER));
    let found = in_a_block(block.pfn(), block.pfn() + 1);
    check!(found.is_some(), "ordinary memory passes as mapped by pages");
    Ok(())
}

/// Samples of each kind of unmovable request.
const SAMPLES: usize = 32;

fn lending() -> Outcome {
    let cma = area()?;
    let hoard = hoard(cma)?;
    let zone = gfp_for(zone_of(cma)).intersection(Gfp::DMA | Gfp::DMA32);
    let kinds = [
        Gfp::ATOMIC,
        Gfp::NOWAIT,
        Gfp::KERNEL | Gfp::RECLAIMABLE,
        Gfp::KERNEL | Gfp::MEMALLOC,
    ];
    let mut samples = check_ok!(Hoard::new(kinds.len() * SAMPLES));
    let mut lent = None;
    for gfp in kinds {
        let gfp = gfp | zone | Gfp::NOWARN | Gfp::NORETRY;
        for _ in 0..SAMPLES {
            let Ok(page) = genuine(|| Pages::alloc(gfp, 0))? else {
                break;
            };
            lent = lent.or(cma.contains(page.pfn()).then_some((page.pfn(), gfp)));
            check!(samples.push(page).is_ok(), "no room to note a page");
        }
    }
    let free = mm::pages().map_or(0, |pages| pages.zone(zone_of(cma)).free);
    let (taken, hoarded) = (samples.len(), hoard.len());
    drop((samples, hoard));
    check!(lent.is_none(), "(frame, flags) {lent:?} is lent memory");
    check!(taken > SAMPLES, "only {taken} samples");
    diagnostic(format_args!(
        "{taken} samples with {hoarded} blocks held, {free} pages free, {} of them lent",
        cma.count()
    ));
    Ok(())
}

fn lending_planted() -> Outcome {
    let cma = area()?;
    let hoard = hoard(cma)?;
    let gfp = gfp_for(zone_of(cma)) | Gfp::MOVABLE;
    let mut samples = check_ok!(Hoard::new(SAMPLES));
    for _ in 0..SAMPLES {
        let page = check_ok!(Pages::alloc(gfp, 0));
        check!(samples.push(page).is_ok(), "no room to note a page");
    }
    let mut inside = 0;
    while let Some(page) = samples.pop() {
        inside += usize::from(cma.contains(page.pfn()));
    }
    drop(hoard);
    check!(inside > 0, "no movable page is found in the area");
    Ok(())
}

fn moves_out() -> Outcome {
    let cma = area()?;
    let mut lodged = Lodged::new(cma)?;
    let before = cma.stats();
    let memory = check_ok!(Contiguous::alloc(cma, lodged.count, 0));
    let moved = cma.stats().migrated - before.migrated;
    let breaks = mapping::physical_breaks(memory.va(), memory.len());
    check!(breaks == Ok(0), "{breaks:?} breaks");
    let frames = memory.frames();
    let inside = |page: &mut MovablePage| frames.contains(page.pfn().phys());
    let left = lodged.crowd.pages().iter_mut().map(inside);
    let left = left.filter(|inside| *inside).count();
    check!(left == 0, "{left} pages are still there");
    let changed = lodged.first_changed();
    check!(changed.is_none(), "page {changed:?} has another content");
    check!(
        moved == lodged.inside,
        "{moved} pages were moved of {} that were there",
        lodged.inside
    );
    diagnostic(format_args!(
        "{frames}: {moved} pages moved, contiguous, checksums as before"
    ));
    check_ok!(memory.release());
    Ok(())
}

fn moves_out_planted() -> Outcome {
    let cma = area()?;
    let mut lodged = Lodged::new(cma)?;
    let last = lodged.crowd.pages().len() - 1;
    if let Some(page) = lodged.crowd.pages().last_mut() {
        page.pin()[PAGE_SIZE - 1] ^= 1;
    }
    let changed = lodged.first_changed();
    check!(
        changed == Some(last),
        "a changed bit in page {last} shows in {changed:?}"
    );
    Ok(())
}

/// What an allocation of the whole area says while a page in it is pinned, and of half of it.
fn pinned() -> Outcome {
    let cma = area()?;
    let mut lodged = Lodged::new(cma)?;
    let count = lodged.count;
    let half = count / 2;
    let position = lodged
        .crowd
        .pages()
        .iter()
        .position(|page| cma.contains(page.pfn()));
    let page = position.and_then(|position| lodged.crowd.pages().get_mut(position));
    let Some(page) = page else {
        return Err(Stop::Failed);
    };
    let pin = page.pin();
    let pfn = pin.pfn();
    let before = cma.stats();
    let refusal = Contiguous::alloc(cma, count, 0).map(drop);
    if let Err(error @ CmaError::NoTarget(_)) = refusal {
        return failed_operation(&error);
    }
    check!(
        refusal == Err(CmaError::Busy(pfn)),
        "with {pfn} pinned: {refusal:?}"
    );
    let around = check_ok!(Contiguous::alloc(cma, half, half.ilog2()));
    check!(
        !around.frames().contains(pfn.phys()),
        "{} was taken with {pfn} pinned",
        around.frames()
    );
    check!(pin.pfn() == pfn, "the pinned page has moved");
    diagnostic(format_args!(
        "{pfn} pinned: {count} pages refused, {half} found at {}, {} stretches given up",
        around.pfn(),
        cma.stats().busy - before.busy
    ));
    drop(pin);
    check_ok!(around.release());
    let changed = lodged.first_changed();
    check!(changed.is_none(), "page {changed:?} has another content");
    Ok(())
}

fn pinned_planted() -> Outcome {
    let cma = area()?;
    let lodged = Lodged::new(cma)?;
    let all = Contiguous::alloc(cma, lodged.count, 0).map(drop);
    check_ok!(all);
    Ok(())
}

fn aligned() -> Outcome {
    let cma = area()?;
    let first = check_ok!(Contiguous::alloc(cma, 1, 0));
    for order in [0, 1, 4, 8, 9] {
        for count in [1, 3, 300] {
            let memory = check_ok!(Contiguous::alloc(cma, count, order));
            let pfn = memory.pfn();
            check!(pfn.is_order_aligned(order), "{count} pages at {pfn}");
            check!(
                !memory.frames().contains(first.pfn().phys()),
                "{pfn} is allocated twice"
            );
            let breaks = mapping::physical_breaks(memory.va(), memory.len());
            check!(breaks == Ok(0), "{count} pages at {pfn}: {breaks:?} breaks");
        }
    }
    Ok(())
}

fn exhaustion() -> Outcome {
    let cma = area()?;
    let area = cma.count();
    for count in [0, area + 1] {
        let refusal = Contiguous::alloc(cma, count, 0).map(drop);
        check!(
            refusal == Err(CmaError::Count { count, area }),
            "{count} pages: {refusal:?}"
        );
    }
    let all = check_ok!(Contiguous::alloc(cma, area, 0));
    let (count, align_order) = (1, 0);
    let refusal = Contiguous::alloc(cma, count, align_order).map(drop);
    check!(
        refusal == Err(CmaError::Full { count, align_order }),
        "from a full area: {refusal:?}"
    );
    check_ok!(all.release());
    let again = check_ok!(Contiguous::alloc(cma, area, 0));
    check!(again.pfn() == cma.base(), "all of it is at {}", again.pfn());
    Ok(())
}

fn bad_releases() -> Outcome {
    let cma = area()?;
    let memory = check_ok!(Contiguous::alloc(cma, 10, 0));
    let pfn = memory.pfn();
    let inside = memory.release_part(1, 9);
    check!(
        inside == Err(CmaError::NotFirst(pfn + 1)),
        "inside: {inside:?}"
    );
    let partial = memory.release_part(0, 9);
    let named = CmaError::Partial {
        pfn,
        has: 10,
        given: 9,
    };
    check!(partial == Err(named), "a part: {partial:?}");
    let foreign = machine().image.frames().start.pfn();
    let outcome = release_foreign(cma, foreign);
    check!(
        outcome == Some(Err(CmaError::Foreign(foreign))),
        "a frame of the image: {outcome:?}"
    );
    let kind = FrameKind::CmaAllocated;
    let freed = memory.free_as_page();
    check!(
        freed == Err(FreeError::WrongKind { pfn, kind }),
        "as a page: {freed:?}"
    );
    check_ok!(memory.retype(3, MemoryType::NormalNonCacheable));
    let typed = memory.release_retyped();
    let named = CmaError::MemoryType {
        pfn: pfn + 3,
        memory_type: MemoryType::NormalNonCacheable,
    };
    check!(typed == Err(named), "a page of another type: {typed:?}");
    check_ok!(memory.retype(3, MemoryType::NormalWriteBack));
    let (first, second) = memory.release_twice();
    check_ok!(first);
    check!(
        second == Err(CmaError::DoubleRelease(pfn)),
        "released twice: {second:?}"
    );
    Ok(())
}

fn contexts() -> Outcome {
    fn attempt() -> Option<Result<(), CmaError>> {
        let cma = area().ok()?;
        Some(Contiguous::alloc(cma, 1, 0).map(drop))
    }
    static IN_INTERRUPT: InInterrupt<Option<Result<(), CmaError>>> = InInterrupt::new(attempt);
    let cma = area()?;
    let lock = IrqLock::new(());
    let guard = lock.lock();
    let with_lock = attempt();
    drop(guard);
    let irq = cpu::irq_save();
    let masked = attempt();
    cpu::irq_restore(irq);
    for (context, refusal) in [
        (Context::LockHeld, with_lock),
        (Context::IrqsMasked, masked),
        (Context::Interrupt, IN_INTERRUPT.run()?),
    ] {
        check!(
            refusal == Some(Err(CmaError::Context(context))),
            "in {context}: {refusal:?}"
        );
    }
    check_ok!(check_ok!(Contiguous::alloc(cma, 1, 0)).release());
    Ok(())
}

fn retyped() -> Outcome {
    let cma = area()?;
    let memory = check_ok!(Contiguous::alloc(cma, 3, 0));
    let types =
        || [0, 1, 2].map(|page| translate::read_el1(memory.va() + page * PAGE_SIZE).memory_type());
    const CACHED: Option<MemoryType> = Some(MemoryType::NormalWriteBack);
    const UNCACHED: Option<MemoryType> = Some(MemoryType::NormalNonCacheable);
    check!(types() == [CACHED; 3], "at first: {:?}", types());
    check_ok!(memory.retype(1, MemoryType::NormalNonCacheable));
    let now = types();
    let par = translate::read_el1(memory.va() + PAGE_SIZE);
    check!(now == [CACHED, UNCACHED, CACHED], "changed: {now:?}");
    check_ok!(memory.retype(1, MemoryType::NormalWriteBack));
    check!(types() == [CACHED; 3], "at last: {:?}", types());
    diagnostic(format_args!(
        "structural: PAR_EL1 attribute {:#04x} for one page, its neighbours write-back",
        par.attr().unwrap_or_default()
    ));
    check_ok!(memory.release());
    Ok(())
}

fn all_cores() -> Outcome {
    const ROUNDS: usize = 8;
    const PAGES: u32 = 16;
    let cma = area()?;
    if smp::online().count() == 1 {
        return Err(Stop::Skipped("one core cannot do two things at once"));
    }
    let failed = AtomicUsize::new(0);
    check_ok!(smp::run_on_all(|core| {
        for round in 0..ROUNDS {
            let Ok(memory) = Contiguous::alloc(cma, PAGES, 0) else {
                failed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            // Two owners of one page would find each other's mark.
            let mark = (core * ROUNDS + round) as u8;
            if !memory.is_mine(mark) || memory.release().is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let failed = failed.into_inner();
    check!(failed == 0, "{failed} allocations failed or were shared");
    Ok(())
}
