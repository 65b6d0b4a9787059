//! `vmalloc`: contiguous for the CPU only, guarded, gone after the free.

mod costs;
mod lazy;
mod remap;

use super::pressure::reclaim_info;
use super::{mapping, probe};
use crate::failslab::genuine;
use crate::ledger::Ledger;
use crate::machine::machine;
use crate::memory::hoard::{Hoard, LOWEST_ZONE, SLACK, capacity, fragment};
use crate::memory::{self, Area, Object};
use crate::report::{Outcome, Suite, Test, diagnostic};
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::arch::cpu;
use hal::arch::exception::{Cause, FaultInfo, FaultReport, FaultStatus};
use hal::arch::translate;
use hal::layout::VMALLOC;
use hal::mm::{self, Gfp, MAX_ORDER, Misuse, VmallocError};
use hal::mmu::Level;
use hal::sync::{Context, IrqLock};

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "vmalloc",
    tests: &[
        test("areas_are_virtually_contiguous", virtually_contiguous),
        test("scattered_frames_make_one_area", scattered),
        test("scattered_frames_make_one_area_planted", scattered_planted),
        test("the_page_after_an_area_is_a_guard", guard),
        test("the_page_after_an_area_is_a_guard_planted", guard_planted),
        test("a_freed_area_faults", freed),
        test("a_freed_area_faults_planted", freed_planted),
        test("tlbs_are_flushed_for_many_frees_at_once", lazy::limits),
        test("tlbs_are_flushed_when_too_many_bytes_wait", lazy::bytes),
        test("a_free_in_an_interrupt_is_done_later", lazy::in_interrupt),
        test("vmap_maps_pages_in_the_order_given", remap::order),
        test(
            "vmap_gives_each_protection_its_attributes",
            remap::attributes,
        ),
        test("vmap_of_the_pool_is_not_cacheable", remap::not_cacheable),
        test("vmap_refuses_frames_of_another_type", remap::types),
        test("vrealloc_keeps_the_content", remap::resize),
        test("vmallocinfo_lists_every_area", remap::info),
        test("flags_that_cannot_be_honoured_are_refused", bad_flags),
        test("vzalloc_zeroes_whole_pages", zeroed),
        test("vmalloc_to_page_agrees_with_the_mmu", to_page),
        test("large_areas_use_blocks", blocks),
        test(
            "large_areas_use_pages_where_there_are_no_blocks",
            blocks_fall_back,
        ),
        test("bad_frees_are_refused_by_name", bad_frees),
        test("sizes_that_cannot_be_are_refused", bad_sizes),
        test("exhaustion_is_named_and_passes", exhaustion),
        test("atomic_context_is_refused_by_name", atomic),
        test("a_byte_costs_a_page_a_guard_and_a_record", costs::one_byte),
        test(
            "a_byte_costs_a_page_a_guard_and_a_record_planted",
            costs::one_byte_planted,
        ),
        test(
            "a_call_writes_a_descriptor_a_page_and_flushes_later",
            costs::descriptors,
        ),
        test("nofail_waits_for_memory", costs::nofail),
        test("nofail_waits_for_memory_planted", costs::nofail_planted),
    ],
};

const fn test(name: &'static str, run: fn() -> Outcome) -> Test {
    Test { name, run }
}

/// Writes each page's number into the page through one slice, then reads them back.
fn first_wrong_page(area: &mut Area) -> Option<usize> {
    for (number, page) in area.chunks_mut(PAGE_SIZE).enumerate() {
        page[..size_of::<usize>()].copy_from_slice(&number.to_le_bytes());
    }
    let pages = area.chunks(PAGE_SIZE).enumerate();
    pages
        .map(|(number, page)| (number, page.starts_with(&number.to_le_bytes())))
        .find_map(|(number, right)| (!right).then_some(number))
}

fn virtually_contiguous() -> Outcome {
    for size in [1, PAGE_SIZE, PAGE_SIZE + 1, 64 << 10, (1 << 20) + 5] {
        let mut area = check_ok!(Area::alloc(size));
        check!(
            VMALLOC.contains(area.va()),
            "{} is outside the window",
            area.va()
        );
        check!(area.va().is_aligned(PAGE_SIZE), "{} is no page", area.va());
        let wrong = first_wrong_page(&mut area);
        check!(
            wrong.is_none(),
            "{size} bytes: page {wrong:?} reads as another"
        );
    }
    Ok(())
}

const SCATTERED_PAGES: usize = 64;

fn scattered() -> Outcome {
    let hoard = fragment(SCATTERED_PAGES + SLACK)?;
    let passes = reclaim_info()?.direct_passes;
    let mut area = check_ok!(Area::alloc_with(SCATTERED_PAGES * PAGE_SIZE, LOWEST_ZONE));
    let passes = reclaim_info()?.direct_passes - passes;
    let breaks = check_ok!(mapping::physical_breaks(area.va(), area.len()));
    let wrong = first_wrong_page(&mut area);
    diagnostic(format_args!(
        "{SCATTERED_PAGES} pages, {breaks} physical breaks, {} blocks held",
        hoard.len()
    ));
    drop((area, hoard));
    check!(wrong.is_none(), "page {wrong:?} reads as another");
    // Every other frame was taken, so that no two of the area's can be neighbours.
    let all = SCATTERED_PAGES - 1;
    check!(
        breaks == all,
        "{breaks} breaks, {all} expected on a zone of single pages"
    );
    check!(
        passes == 0,
        "{passes} passes of reclaim for runs that nobody needs"
    );
    Ok(())
}

fn scattered_planted() -> Outcome {
    let object = check_ok!(Object::alloc(SCATTERED_PAGES * PAGE_SIZE, Gfp::KERNEL));
    let breaks = check_ok!(mapping::physical_breaks(object.va(), object.usable()));
    check!(breaks == 0, "{breaks} breaks counted in contiguous memory");
    Ok(())
}

/// What reading at `va`, after an area of `size` bytes, ran into, if it was an unmapped page at exactly
/// `va`.
fn guard_at(va: VirtAddr, size: usize) -> Option<FaultInfo> {
    let fault = probe::read_u8(va).err()?;
    let Cause::DataAbort(abort) = fault.esr.cause() else {
        return None;
    };
    // A block's neighbour may have no table of its own: then the walk ends a level above.
    let unmapped = match abort.status {
        FaultStatus::Translation { level: 3 } => true,
        FaultStatus::Translation { level: 2 } => size >= Level::L2.size(),
        _ => false,
    };
    (unmapped && fault.far == va).then_some(fault)
}

fn guard() -> Outcome {
    for size in [1, 3 * PAGE_SIZE, Level::L2.size()] {
        let area = check_ok!(Area::alloc(size));
        let last = area.end().get() - 1;
        let inside = probe::read_u8(VirtAddr::new(last));
        check!(inside.is_ok(), "the last byte of {size}: {inside:?}");
        let Some(fault) = guard_at(area.end(), size) else {
            let found = probe::read_u8(area.end());
            check!(false, "no guard page at {}: {found:?}", area.end());
            return Ok(());
        };
        let report = FaultReport {
            info: fault,
            translation: Some(translate::read_el1(fault.far)),
        };
        let mut words = heapless::String::<160>::new();
        check!(
            core::fmt::write(&mut words, format_args!("{report}")).is_ok(),
            "too long"
        );
        diagnostic(format_args!("{words}"));
        // Next to a block nothing tells the guard page from others that are not mapped.
        let named = words.contains("guard page") || size >= Level::L2.size();
        check!(words.contains("vmalloc window") && named, "{words}");
    }
    Ok(())
}

fn guard_planted() -> Outcome {
    let area = check_ok!(Area::alloc(2 * PAGE_SIZE));
    for va in [area.va(), area.va() + PAGE_SIZE] {
        let claimed = guard_at(va, Level::L2.size());
        check!(
            claimed.is_none(),
            "{va} is inside the area and called a guard: {claimed:?}"
        );
    }
    Ok(())
}

fn freed() -> Outcome {
    let area = check_ok!(Area::alloc(2 * PAGE_SIZE));
    let (va, end) = (area.va(), area.end());
    check!(probe::read_u8(va).is_ok(), "{va} does not answer");
    check_ok!(area.free());
    mm::vm_unmap_aliases();
    for va in [va, va + PAGE_SIZE, VirtAddr::new(end.get() - 1)] {
        check!(is_gone(va), "{va} still answers after vfree and purge");
    }
    Ok(())
}

/// Whether a read of `va` faults at exactly `va`.
fn is_gone(va: VirtAddr) -> bool {
    probe::read_u8(va).is_err_and(|fault| fault.far == va)
}

fn freed_planted() -> Outcome {
    let area = check_ok!(Area::alloc(PAGE_SIZE));
    check!(
        !is_gone(area.va()),
        "{} lives and is called gone",
        area.va()
    );
    Ok(())
}

fn bad_flags() -> Outcome {
    for gfp in [Gfp::ATOMIC, Gfp::NOWAIT] {
        let refused = Area::alloc_with(PAGE_SIZE, gfp).map(drop);
        check!(
            refused == Err(VmallocError::NonBlocking(gfp)),
            "{refused:?}"
        );
    }
    for flag in [Gfp::NORETRY, Gfp::RETRY_MAYFAIL, Gfp::MOVABLE] {
        let gfp = Gfp::KERNEL | flag;
        let refused = Area::alloc_with(PAGE_SIZE, gfp).map(drop);
        let named = VmallocError::Flags { refused: flag, gfp };
        check!(refused == Err(named), "{refused:?}");
    }
    for gfp in [Gfp::NOFS, Gfp::NOIO, Gfp::KERNEL | Gfp::NOFAIL] {
        check_ok!(check_ok!(Area::alloc_with(PAGE_SIZE, gfp)).free());
    }
    Ok(())
}

fn zeroed() -> Outcome {
    const SIZE: usize = 5 * PAGE_SIZE + 1;
    let mut dirty = check_ok!(Area::alloc(SIZE));
    dirty.fill(0xA5);
    check_ok!(dirty.free());
    let mut area = check_ok!(Area::zeroed(SIZE));
    let found = area.iter().position(|byte| *byte != 0);
    check!(found.is_none(), "byte {found:?} is not zero");
    let last = area.len() - 1;
    area[last] = 1;
    let found = area.iter().position(|byte| *byte != 0);
    check!(found == Some(last), "a dirty byte was not found");
    Ok(())
}

fn to_page() -> Outcome {
    for size in [3 * PAGE_SIZE, (2 << 20) + PAGE_SIZE] {
        let area = check_ok!(Area::alloc(size));
        for offset in (0..area.len()).step_by(PAGE_SIZE) {
            let va = area.va() + offset;
            let pfn = check_ok!(mm::vmalloc_to_page(va));
            let at = translate::read_el1(va).page();
            check!(
                at == Some(pfn.phys()),
                "{va}: {pfn} by the tables, {at:?} by the MMU"
            );
        }
        let beyond = mm::vmalloc_to_page(area.end());
        check!(
            matches!(beyond, Err(VmallocError::NotMapped(_))),
            "{beyond:?}"
        );
    }
    let object = check_ok!(Object::alloc(PAGE_SIZE, Gfp::KERNEL));
    let refused = mm::vmalloc_to_page(object.va());
    check!(
        matches!(refused, Err(VmallocError::NotMapped(_))),
        "{refused:?}"
    );
    Ok(())
}

/// Leaves of an area, by size: blocks and pages.
fn leaves(area: &Area) -> (usize, usize) {
    let tables = machine().tables.lock();
    let leaves = tables.leaves(area.va(), area.end());
    leaves.fold((0, 0), |(blocks, pages), leaf| match leaf.level {
        Level::L3 => (blocks, pages + 1),
        _ => (blocks + 1, pages),
    })
}

fn blocks() -> Outcome {
    let size = 2 * Level::L2.size();
    let area = check_ok!(Area::alloc(size));
    let whole = leaves(&area);
    diagnostic(format_args!(
        "{size:#x} bytes: {} blocks and {} pages",
        whole.0, whole.1
    ));
    check!(whole == (2, 0), "{whole:?} blocks and pages");
    drop(area);
    let small = check_ok!(Area::alloc(Level::L2.size() / 2));
    let (blocks, pages) = leaves(&small);
    check!(
        (blocks, pages) == (0, small.len() / PAGE_SIZE),
        "{blocks} blocks, {pages} pages"
    );
    Ok(())
}

/// On a zone of single pages there is no backing for a block.
fn blocks_fall_back() -> Outcome {
    let wanted = Level::L2.size() / PAGE_SIZE;
    let hoard = fragment(wanted + SLACK)?;
    let area = check_ok!(Area::alloc_with(Level::L2.size(), LOWEST_ZONE));
    let (blocks, pages) = leaves(&area);
    drop((area, hoard));
    check!(
        (blocks, pages) == (0, wanted),
        "{blocks} blocks, {pages} pages"
    );
    Ok(())
}

fn bad_frees() -> Outcome {
    let before = check_ok!(Ledger::take());
    {
        let counted = || Misuse::WrongFree(VirtAddr::new(0)).count();
        let earlier = counted();
        let area = check_ok!(Area::alloc(2 * PAGE_SIZE));
        let object = check_ok!(Object::alloc(64, Gfp::KERNEL));
        let (first, twice) = check_ok!(Area::alloc(PAGE_SIZE)).free_twice();
        check_ok!(first);
        for (what, result) in [
            ("double free", Some(twice)),
            ("interior", Some(area.free_interior(PAGE_SIZE))),
            ("kmalloc address", memory::free_no_area(object.va())),
            (
                "pool address",
                memory::free_no_area(machine().pool.cpu_base()),
            ),
        ] {
            let named = matches!(result, Some(Err(VmallocError::NotAnArea(_))));
            check!(named, "{what}: {result:?}");
        }
        let counted = counted() - earlier;
        check!(counted == 4, "{counted} of 4 wrong frees were counted");
    }
    let changed = before.difference(&check_ok!(Ledger::take()));
    check!(
        changed.is_none(),
        "a refused free changed something: {changed:?}"
    );
    Ok(())
}

fn bad_sizes() -> Outcome {
    let before = Misuse::ZeroSize.count();
    for _ in 0..2 {
        let zero = Area::alloc(0).map(drop);
        check!(zero == Err(VmallocError::ZeroSize), "{zero:?}");
    }
    let counted = Misuse::ZeroSize.count() - before;
    check!(counted == 2, "counted {counted} times");
    let managed = mm::pages().map_or(0, |pages| pages.managed_pages()) as usize;
    for size in [(managed + 1) * PAGE_SIZE, usize::MAX] {
        let refused = Area::alloc(size).map(drop);
        check!(
            matches!(refused, Err(VmallocError::TooLarge { .. })),
            "{refused:?}"
        );
    }
    Ok(())
}

fn exhaustion() -> Outcome {
    let before = check_ok!(Ledger::take());
    {
        // Little is left, so that the area's own pages run out soon.
        let mut hoard = check_ok!(Hoard::new(capacity(0)));
        check!(
            hoard.fill(Gfp::KERNEL | Gfp::NOWARN, MAX_ORDER).is_some(),
            "no room to note it"
        );
        let free = mm::pages().map_or(0, |pages| pages.free_pages_total()) as usize;
        let refused = genuine(|| Area::alloc((free + 1) * PAGE_SIZE).map(drop))?;
        let Err(error) = refused else {
            check!(false, "more than the free memory was given out");
            return Ok(());
        };
        diagnostic(format_args!("{error}"));
        check!(matches!(error, VmallocError::OutOfMemory { .. }), "{error}");
    }
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

fn atomic() -> Outcome {
    let lock = IrqLock::new(());
    let held = lock.lock();
    let under_lock = Area::alloc(PAGE_SIZE).map(drop);
    drop(held);
    let irq = cpu::irq_save();
    let masked = Area::alloc(PAGE_SIZE).map(drop);
    cpu::irq_restore(irq);
    for (refused, context) in [
        (under_lock, Context::LockHeld),
        (masked, Context::IrqsMasked),
    ] {
        let named = VmallocError::Context(context);
        check!(refused == Err(named), "{refused:?}");
        diagnostic(format_args!("{named}"));
    }
    Ok(())
}
