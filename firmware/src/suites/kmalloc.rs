//! `kmalloc`: sizes, alignment, contiguity, refusals, several cores, interrupts.

mod classes;
mod concurrent;
mod refused;

use super::mapping;
use crate::failslab::lightly;
use crate::ledger::Ledger;
use crate::machine::machine;
use crate::memory::hoard::{LOWEST_ZONE, fragment};
use crate::memory::{Area, Object};
use crate::random::Random;
use crate::report::{Outcome, Stop, Suite, Test, diagnostic};
use crate::{check, check_ok, check_served};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::layout;
use hal::mm::{
    self, AllocError, CLASSES, DMA_ALIGN, Gfp, MAX_CLASS_SIZE, MAX_SIZE, Owner, ZoneKind, class_of,
    class_size,
};
use hal::smp;
use hal::sync::PerCpu;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "kmalloc",
    tests: &[
        test("every_size_has_its_class_alignment_and_ksize", sizes),
        test(
            "every_size_has_its_class_alignment_and_ksize_planted",
            sizes_planted,
        ),
        test(
            "classes_are_the_same_at_compile_time_and_run_time",
            classes::agree,
        ),
        test(
            "classes_are_the_same_at_compile_time_and_run_time_planted",
            classes::agree_planted,
        ),
        test("slack_of_each_class_is_below_a_quarter", classes::slack),
        test(
            "waste_is_at_most_9_percent_in_classes_and_15_in_pages",
            classes::waste,
        ),
        test("kmalloc_pages_are_physically_contiguous", contiguous),
        test(
            "kmalloc_pages_are_physically_contiguous_planted",
            contiguous_planted,
        ),
        test(
            "kmalloc_memory_is_at_the_direct_map_offset",
            constant_offset,
        ),
        test(
            "kmalloc_memory_is_at_the_direct_map_offset_planted",
            constant_offset_planted,
        ),
        test("kmalloc_writes_no_page_table", no_table_writes),
        test(
            "kmalloc_writes_no_page_table_planted",
            no_table_writes_planted,
        ),
        test("kzalloc_zeroes_all_usable_bytes", zeroed),
        test("nothing_is_allocated_for_zero_bytes", refused::zero_size),
        test("too_large_is_refused", refused::too_large),
        test("k6_a_large_object_takes_its_pages_and_no_more", backing),
        test("bad_frees_are_refused_by_name", refused::bad_frees),
        test("gfp_dma_memory_is_in_the_dma_zone", dma_zone),
        test(
            "each_object_is_charged_to_its_owner_until_it_is_freed",
            charged,
        ),
        test(
            "cores_allocate_and_free_each_others_objects",
            concurrent::all_cores,
        ),
        test(
            "an_interrupt_allocates_while_the_allocator_is_interrupted",
            concurrent::interrupt,
        ),
    ],
};

/// Objects of many classes are charged by their class size, up to the limit, until they are freed,
/// on this core or another one.
fn charged() -> Outcome {
    const LIMIT: usize = 64 << 10;
    static OWNER: Owner = Owner::new("kmalloc suite", LIMIT);
    let me = PerCpu::current().index();
    let other = smp::online().find(|core| *core != me);
    let mut objects = [const { None }; CLASSES];
    let mut expected = 0;
    let scope = check_ok!(mm::charge_to(&OWNER));
    for (class, object) in objects.iter_mut().enumerate() {
        if expected + class_size(class) > LIMIT {
            break;
        }
        *object = Some(check_ok!(Object::alloc(
            class_size(class),
            Gfp::KERNEL_ACCOUNT
        )));
        expected += class_size(class);
    }
    let uncharged = check_ok!(Object::alloc(MAX_CLASS_SIZE, Gfp::KERNEL));
    let used = OWNER.used();
    check!(used == expected, "{used} bytes charged, not {expected}");
    let refused = Object::alloc(MAX_SIZE, Gfp::KERNEL_ACCOUNT).map(drop);
    // Another refusal than the owner's is one made on purpose.
    let by_memory = matches!(refused, Err(AllocError::NoMemory { .. }));
    check_served!(usize::from(by_memory));
    check!(
        matches!(refused, Err(AllocError::OverLimit { limit: LIMIT, .. })),
        "{refused:?}"
    );
    drop((scope, uncharged));
    for (at, object) in objects.into_iter().enumerate() {
        let Some(object) = object else { continue };
        match other {
            Some(other) if at % 2 == 1 => {
                check_ok!(check_ok!(smp::run_on(other, || object.free())));
            }
            _ => check_ok!(object.free()),
        }
    }
    let left = OWNER.used();
    check!(left == 0, "{left} bytes stay charged");
    Ok(())
}

const fn test(name: &'static str, run: fn() -> Outcome) -> Test {
    Test { name, run }
}

/// The alignment promised for `size` bytes: at least a cache line's, the size of a power of two,
/// otherwise the largest power of two that divides the class.
fn promised_alignment(size: usize) -> usize {
    if size.is_power_of_two() {
        return size.max(DMA_ALIGN);
    }
    let rounded = if size <= MAX_CLASS_SIZE {
        class_size(class_of(size))
    } else {
        size.next_power_of_two()
    };
    // Blocks of pages promise a page where the class's own divisor is larger.
    (1usize << rounded.trailing_zeros()).clamp(DMA_ALIGN, PAGE_SIZE)
}

/// What is wrong with an object of `size` bytes at `va` with `usable` bytes.
fn broken_promise(va: VirtAddr, size: usize, usable: usize) -> Option<&'static str> {
    if usable < size {
        return Some("too small");
    }
    if !usable.is_multiple_of(DMA_ALIGN) {
        return Some("not whole cache lines");
    }
    if size <= MAX_CLASS_SIZE && usable != class_size(class_of(size)) {
        return Some("not the size of its class");
    }
    if size > MAX_CLASS_SIZE && usable != size.next_power_of_two() {
        return Some("not the size of its block");
    }
    (!va.is_aligned(promised_alignment(size))).then_some("not aligned as promised")
}

fn judge_size(size: usize) -> Outcome {
    let mut object = check_ok!(Object::alloc(size, Gfp::KERNEL));
    let usable = object.usable();
    let broken = broken_promise(object.va(), size, usable);
    check!(
        broken.is_none(),
        "{size} bytes at {}, {usable} usable: {broken:?}",
        object.va()
    );
    object.bytes().fill(0x5A);
    check_ok!(object.free());
    Ok(())
}

fn sizes() -> Outcome {
    const SAMPLES: usize = 256;
    let mut count = 0;
    for class in 0..CLASSES {
        let edge = class_size(class);
        for size in [edge - 1, edge, edge + 1] {
            judge_size(size)?;
            count += 1;
        }
    }
    let mut random = Random::new(machine().seed, 11);
    for _ in 0..SAMPLES {
        judge_size(1 + random.below(MAX_CLASS_SIZE))?;
    }
    let mut power = 1;
    while power <= MAX_SIZE {
        judge_size(power)?;
        power *= 2;
        count += 1;
    }
    diagnostic(format_args!(
        "{count} edges and powers of two, {SAMPLES} seeded sizes"
    ));
    Ok(())
}

fn sizes_planted() -> Outcome {
    let object = check_ok!(Object::alloc(256, Gfp::KERNEL));
    let (va, usable) = (object.va(), object.usable());
    check!(
        broken_promise(va, 256, usable).is_none(),
        "a good object is called broken"
    );
    check!(
        broken_promise(va + DMA_ALIGN, 256, usable).is_some(),
        "alignment is not judged"
    );
    check!(
        broken_promise(va, 257, usable).is_some(),
        "a small object passes"
    );
    check!(
        broken_promise(va, 256, usable + DMA_ALIGN).is_some(),
        "the class is not judged"
    );
    Ok(())
}

/// Sizes of objects that span pages.
const SPANNING: [usize; 6] = [4 << 10, 8 << 10, 12 << 10, 64 << 10, 1 << 20, 4 << 20];

fn contiguous() -> Outcome {
    let mut pages = 0;
    for size in SPANNING {
        let object = check_ok!(Object::alloc(size, Gfp::KERNEL));
        let usable = object.usable();
        let breaks = mapping::physical_breaks(object.va(), usable);
        check!(
            breaks == Ok(0),
            "{size} bytes at {}: {breaks:?} breaks",
            object.va()
        );
        pages += usable / PAGE_SIZE;
    }
    diagnostic(format_args!(
        "structural: AT S1E1R of {pages} pages, 0 breaks"
    ));
    Ok(())
}

fn contiguous_planted() -> Outcome {
    const PAGES: usize = 16;
    let scattered = fragment(2 * PAGES)?;
    let area = check_ok!(Area::alloc_with(PAGES * PAGE_SIZE, LOWEST_ZONE));
    let breaks = mapping::physical_breaks(area.va(), area.len());
    drop((area, scattered));
    diagnostic(format_args!("{PAGES} scattered pages: {breaks:?} breaks"));
    check!(
        breaks.is_ok_and(|breaks| breaks > 0),
        "scattered pages pass as contiguous"
    );
    Ok(())
}

fn constant_offset() -> Outcome {
    for size in [1, 64, 100, 8192].into_iter().chain(SPANNING) {
        let object = check_ok!(Object::alloc(size, Gfp::KERNEL));
        let page = object.va().align_down(PAGE_SIZE);
        let len = object.usable() + object.va().page_offset();
        let off = mapping::off_the_direct_map(page, len);
        check!(
            off.is_none(),
            "{size} bytes: {off:?} is not at the direct map's offset"
        );
    }
    let base = layout::DIRECT_MAP.base;
    diagnostic(format_args!("structural: VA - PA = {base} for all"));
    Ok(())
}

fn constant_offset_planted() -> Outcome {
    let area = check_ok!(Area::alloc(PAGE_SIZE));
    let found = mapping::off_the_direct_map(area.va(), area.len());
    check!(found == Some(area.va()), "a vmalloc address passes");
    Ok(())
}

fn no_table_writes() -> Outcome {
    const COUNT: usize = 1000;
    let before = mapping::fingerprint();
    let mut random = Random::new(machine().seed, 13);
    let mut held = [const { None::<Object> }; 64];
    for _ in 0..lightly(COUNT) {
        let size = 1 + random.below(2 * MAX_CLASS_SIZE);
        let object = check_ok!(Object::alloc(size, Gfp::KERNEL));
        let slot = random.below(held.len());
        held[slot] = Some(object);
    }
    let during = mapping::fingerprint();
    drop(held);
    let after = mapping::fingerprint();
    check!(
        before == during && before == after,
        "{before:x?}, {during:x?}, {after:x?}"
    );
    diagnostic(format_args!(
        "structural: {COUNT} allocations left all leaves and {} tables as they were",
        before.1
    ));
    Ok(())
}

fn no_table_writes_planted() -> Outcome {
    let before = mapping::fingerprint();
    let area = check_ok!(Area::alloc(PAGE_SIZE));
    let during = mapping::fingerprint();
    check_ok!(area.free());
    check!(before != during, "a new mapping was not found");
    Ok(())
}

fn zeroed() -> Outcome {
    for size in [1, 64, 100, 1000, 5000, 8192, 20_000] {
        let mut dirty = check_ok!(Object::alloc(size, Gfp::KERNEL));
        dirty.bytes().fill(0xA5);
        let was = dirty.va();
        check_ok!(dirty.free());
        let mut object = check_ok!(Object::alloc(size, Gfp::KERNEL | Gfp::ZERO));
        if size <= MAX_CLASS_SIZE {
            check!(
                object.va() == was,
                "{size} bytes: the dirtied object did not come back"
            );
        }
        let found = object.bytes().iter().position(|byte| *byte != 0);
        check!(found.is_none(), "{size} bytes: byte {found:?} is not zero");
        // The plant: the last usable byte.
        let last = object.usable() - 1;
        object.bytes()[last] = 1;
        let found = object.bytes().iter().position(|byte| *byte != 0);
        check!(
            found == Some(last),
            "{size} bytes: a dirty byte was not found"
        );
    }
    Ok(())
}

/// Free pages of all zones after the cores gave back what they keep.
fn free_pages() -> Result<usize, Stop> {
    check_ok!(Ledger::take());
    mm::pages()
        .map(|pages| pages.free_pages_total() as usize)
        .ok_or(Stop::Failed)
}

fn backing() -> Outcome {
    for size in [MAX_CLASS_SIZE + 1, 16 << 10, (64 << 10) + 1, 1 << 20] {
        let before = free_pages()?;
        let object = check_ok!(Object::alloc(size, Gfp::KERNEL));
        let taken = before - free_pages()?;
        check_ok!(object.free());
        let expected = size.next_power_of_two() / PAGE_SIZE;
        check!(
            taken == expected,
            "{size} bytes took {taken} pages, not {expected}"
        );
        let left = before - free_pages()?;
        check!(left == 0, "{left} pages did not come back");
    }
    Ok(())
}

fn dma_zone() -> Outcome {
    let Some(allocator) = mm::pages() else {
        return Err(Stop::Failed);
    };
    if allocator.zone(ZoneKind::Dma).managed == 0 {
        return Err(Stop::Skipped("no memory below this board's DMA limit"));
    }
    let limit = machine().board.zone_limits().dma;
    let mut highest = 0;
    for size in (0..CLASSES).map(class_size).chain([64 << 10]) {
        let object = check_ok!(Object::alloc(size, Gfp::KERNEL | Gfp::DMA));
        let pa = layout::virt_to_phys(object.va()).unwrap_or(limit);
        let end = pa + object.usable();
        check!(
            end <= limit,
            "{size} bytes at {pa}, the zone ends at {limit}"
        );
        highest = highest.max(end.get());
    }
    diagnostic(format_args!(
        "{CLASSES} DMA caches: memory up to {highest:#x}, the zone ends at {limit}"
    ));
    Ok(())
}
