//! The size classes: what they are, and what they waste.

use crate::ledger::Ledger;
use crate::memory::Object;
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use core::hint::black_box;
use hal::addr::PAGE_SIZE;
use hal::mm::{self, CLASSES, Gfp, MAX_CLASS_SIZE, class_of, class_size};

/// The class of each size, computed when the firmware was built.
static CLASS_OF: [u8; MAX_CLASS_SIZE] = {
    let mut classes = [0; MAX_CLASS_SIZE];
    let mut size = 1;
    while size <= MAX_CLASS_SIZE {
        classes[size - 1] = class_of(size) as u8;
        size += 1;
    }
    classes
};

/// How many sizes have another class now than `built` says.
fn mismatches(built: &[u8]) -> usize {
    let now = |index: usize| class_of(black_box(index + 1));
    let sizes = built.iter().enumerate();
    sizes
        .filter(|(index, class)| now(*index) != usize::from(**class))
        .count()
}

pub(super) fn agree() -> Outcome {
    let wrong = mismatches(&CLASS_OF);
    check!(wrong == 0, "{wrong} sizes have two classes");
    // What no class holds takes pages, whether the compiler knows the size or not.
    for size in [MAX_CLASS_SIZE + 1, black_box(MAX_CLASS_SIZE + 1)] {
        let object = check_ok!(Object::alloc(size, Gfp::KERNEL));
        let usable = object.usable();
        check!(usable == 2 * MAX_CLASS_SIZE, "{usable} bytes for {size}");
    }
    diagnostic(format_args!(
        "{wrong} mismatches in 1..{}",
        MAX_CLASS_SIZE + 1
    ));
    Ok(())
}

pub(super) fn agree_planted() -> Outcome {
    let mut edge = [CLASS_OF[0], CLASS_OF[1]];
    check!(mismatches(&edge) == 0, "the first two sizes");
    edge[1] += 1;
    check!(mismatches(&edge) == 1, "a wrong class passes");
    Ok(())
}

pub(super) fn slack() -> Outcome {
    for class in 0..CLASSES {
        let least = class.checked_sub(1).map_or(0, class_size) + 1;
        let object = check_ok!(Object::alloc(least, Gfp::KERNEL));
        let usable = object.usable();
        let slack = usable - least;
        check!(usable == class_size(class), "{usable} bytes for {least}");
        // The linear classes have the cache line as their unit.
        let bound = (least / 4).max(mm::DMA_ALIGN - 1);
        check!(slack <= bound, "{slack} bytes wasted on {least}");
        diagnostic(format_args!(
            "kmalloc({least}): class {usable}, {slack} bytes wasted"
        ));
    }
    Ok(())
}

/// Per mille by which `used` exceeds `asked`.
fn excess(used: usize, asked: usize) -> usize {
    (used - asked) * 1000 / asked
}

/// Pages that as many objects of `class` take as fill two slabs, and how many those are.
fn pages_of_two_slabs(class: usize) -> Result<(usize, usize), Stop> {
    const MOST: usize = 128;
    let size = class_size(class);
    let info = mm::kmalloc_caches()
        .caches()
        .find(|info| info.name == "kmalloc" && info.object_size == size);
    let count = info.map_or(0, |info| 2 * info.objects_per_slab as usize);
    check!(
        (1..=MOST).contains(&count),
        "{count} objects of {size} bytes in two slabs"
    );
    let before = check_ok!(Ledger::take()).free_pages();
    let mut held = heapless::Vec::<Object, MOST>::new();
    for _ in 0..count {
        // There is room for as many.
        let _ = held.push(check_ok!(Object::alloc(size, Gfp::KERNEL)));
    }
    let pages = before - check_ok!(Ledger::take()).free_pages();
    Ok((pages, count))
}

pub(super) fn waste() -> Outcome {
    /// Most waste that is accepted, in per mille of what is asked for.
    const CLASS_LIMIT: usize = 90;
    const PAGE_LIMIT: usize = 150;
    if cfg!(feature = "slab-debug") {
        return Err(Stop::Skipped("red zones take room beside objects"));
    }
    let asked: usize = (1..=MAX_CLASS_SIZE).sum();
    let (mut in_classes, mut in_pages) = (0, 0);
    for class in 0..CLASSES {
        let least = class.checked_sub(1).map_or(0, class_size) + 1;
        let object = check_ok!(Object::alloc(least, Gfp::KERNEL));
        let (usable, sizes) = (object.usable(), class_size(class) - least + 1);
        drop(object);
        let (pages, count) = pages_of_two_slabs(class)?;
        in_classes += sizes * usable;
        in_pages += sizes * pages * PAGE_SIZE / count;
    }
    let (classes, pages) = (excess(in_classes, asked), excess(in_pages, asked));
    diagnostic(format_args!(
        "waste for 1..{MAX_CLASS_SIZE}: {classes} per mille in classes, {pages} in pages"
    ));
    check!(classes <= CLASS_LIMIT, "{classes} per mille in classes");
    check!(pages <= PAGE_LIMIT, "{pages} per mille in pages");
    Ok(())
}
