//! What no frame may be, judged over all its mappings by a walk of all tables.

use super::super::plant::{self, Plant};
use super::changes::Frames;
use crate::boot::image;
use crate::machine::machine;
use crate::report::{Outcome, diagnostic, failed};
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, PhysRange};
use hal::layout::{DIRECT_MAP, IMAGE, phys_to_virt};
use hal::mmu::mapper::{FIRST, LIMIT};
use hal::mmu::{Access, Attributes, Leaf, Level, MemoryType};

const CACHED: MemoryType = MemoryType::NormalWriteBack;

pub(super) fn write_xor_execute() -> Outcome {
    let found = machine().tables.lock().find_writable_and_executable();
    check!(found.is_none(), "writable and executable: {found:x?}");
    diagnostic(format_args!(
        "structural: walk of all tables, per physical page"
    ));
    Ok(())
}

pub(super) fn write_xor_execute_planted() -> Outcome {
    // The header: nobody executes it, and nobody writes through the plant.
    let start = machine().image.frames().start;
    let frames = PhysRange::new(start, start + PAGE_SIZE);
    let attributes = Attributes::new(CACHED, Access::ReadWrite);
    let plant = check_ok!(Plant::new(plant::SCRATCH, frames, attributes, Level::L3));
    let found = machine().tables.lock().find_writable_and_executable();
    check_ok!(plant.remove());
    match found {
        Some((writable, executable)) => {
            check!(
                writable.va == plant::SCRATCH && executable.frames().overlaps(&frames),
                "found {} and {} instead of the plant",
                writable.va,
                executable.va
            );
        }
        None => return failed(format_args!("a writable mapping of the text is not found")),
    }
    write_xor_execute()
}

pub(super) fn one_type() -> Outcome {
    let found = machine().tables.lock().find_mismatched_types();
    check!(found.is_none(), "one frame, two types: {found:x?}");
    diagnostic(format_args!(
        "structural: walk of all tables, per physical page"
    ));
    Ok(())
}

pub(super) fn one_type_planted() -> Outcome {
    let frames = check_ok!(Frames::alloc(0));
    for memory_type in [MemoryType::NormalNonCacheable, MemoryType::DeviceNgnrne] {
        let attributes = Attributes::new(memory_type, Access::ReadOnly);
        let plant = check_ok!(Plant::new(
            plant::SCRATCH,
            frames.range(),
            attributes,
            Level::L3
        ));
        let found = machine().tables.lock().find_mismatched_types();
        check_ok!(plant.remove());
        match found {
            Some((first, second)) => check!(
                first.frames().contains_range(&frames.range()) && second.va == plant::SCRATCH,
                "found {} and {} instead of the plant",
                first.va,
                second.va
            ),
            None => {
                return failed(format_args!(
                    "a second mapping as {memory_type} is not found"
                ));
            }
        }
    }
    one_type()
}

/// A mapping of one of `frames` in the direct map.
fn in_direct_map(frames: PhysRange) -> Option<Leaf> {
    machine()
        .tables
        .lock()
        .find_mapping_of(frames, DIRECT_MAP.base, DIRECT_MAP.end())
}

pub(super) fn pool_absent() -> Outcome {
    let frames = machine().pool.frames();
    let found = in_direct_map(frames);
    check!(found.is_none(), "{found:x?} maps a frame of the pool");
    diagnostic(format_args!(
        "structural: walk of all tables for the {} frames of {frames}",
        frames.size() / PAGE_SIZE as u64
    ));
    Ok(())
}

pub(super) fn pool_absent_planted() -> Outcome {
    let pool = machine().pool;
    let frames = pool.frames();
    for offset in [
        0,
        frames.size() as usize / 2,
        frames.size() as usize - PAGE_SIZE,
    ] {
        let page = frames.start + offset;
        let one = PhysRange::new(page, page + PAGE_SIZE);
        // As the direct map would have it, but for the permission to write.
        let attributes = Attributes::new(CACHED, Access::ReadOnly);
        let plant = check_ok!(Plant::new(phys_to_virt(page), one, attributes, Level::L3));
        let found = in_direct_map(frames);
        check_ok!(plant.remove());
        // What speculation may have read through the plant must not hide what a device writes.
        plant::drop_lines(pool.cpu_base() + offset, PAGE_SIZE);
        check!(
            found.is_some_and(|leaf| leaf.pa == page),
            "{page} in the direct map is not found: {found:x?}"
        );
    }
    pool_absent()
}

/// A mapping of a frame of the image that is not the image window's.
fn foreign_mapping() -> Option<Leaf> {
    let frames = machine().image.frames();
    let tables = machine().tables.lock();
    tables
        .find_mapping_of(frames, FIRST, IMAGE.base)
        .or_else(|| tables.find_mapping_of(frames, IMAGE.end(), LIMIT))
}

pub(super) fn image_absent() -> Outcome {
    let found = foreign_mapping();
    check!(found.is_none(), "{found:x?} maps a frame of the image");
    for stack in crate::boot::stacks() {
        let below = stack.start.get() - PAGE_SIZE;
        let frame = machine().image.phys(hal::addr::VirtAddr::new(below));
        let guard = PhysRange::new(frame, frame + PAGE_SIZE);
        let found = machine().tables.lock().find_mapping_of(guard, FIRST, LIMIT);
        check!(found.is_none(), "{found:x?} maps the guard frame {guard}");
    }
    diagnostic(format_args!(
        "structural: walk of all tables for {} and the guard pages in it",
        machine().image.frames()
    ));
    Ok(())
}

pub(super) fn image_absent_planted() -> Outcome {
    let rodata = machine().image.phys(image::rodata().start);
    let frames = PhysRange::new(rodata, rodata + PAGE_SIZE);
    let attributes = Attributes::new(CACHED, Access::ReadOnly);
    for va in [phys_to_virt(rodata), plant::SCRATCH] {
        let plant = check_ok!(Plant::new(va, frames, attributes, Level::L3));
        let found = foreign_mapping();
        check_ok!(plant.remove());
        check!(
            found.is_some_and(|leaf| leaf.va == va),
            "the image mapped at {va} is not found: {found:x?}"
        );
    }
    image_absent()
}
