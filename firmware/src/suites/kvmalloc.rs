//! `kvmalloc`: contiguous if that is easy, else by pages.

use super::mapping;
use crate::failslab::genuine;
use crate::memory::hoard::{LOWEST_ZONE, SLACK, fragment};
use crate::memory::{self, Area, Kv, Object};
use crate::report::{Outcome, Suite, Test, diagnostic, fell_back};
use crate::{check, check_ok};
use hal::addr::PAGE_SIZE;
use hal::mm::{self, Gfp, KVMALLOC_MAX_SIZE, KvmallocError, ObjectError, VmallocError};

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "kvmalloc",
    tests: &[
        test("easy_requests_are_contiguous", contiguous),
        test("a_fragmented_zone_makes_it_fall_back", falls_back),
        test(
            "a_fragmented_zone_makes_it_fall_back_planted",
            falls_back_planted,
        ),
        test("flags_that_may_not_do_everything_never_fall_back", limits),
        test("kvfree_takes_memory_of_all_three", frees),
        test("kvrealloc_keeps_the_content", resize),
        test("sizes_that_cannot_be_are_refused", bad_sizes),
    ],
};

const fn test(name: &'static str, run: fn() -> Outcome) -> Test {
    Test { name, run }
}

const SIZE: usize = 64 << 10;

fn contiguous() -> Outcome {
    for size in [1, PAGE_SIZE, SIZE] {
        let mut memory = check_ok!(Kv::alloc(size, Gfp::KERNEL));
        let off = mapping::off_the_direct_map(memory.va().align_down(PAGE_SIZE), size);
        if let Some(va) = off {
            // What could not be had in one piece comes in pages.
            return fell_back(format_args!("{size} bytes: {va} is not in the direct map"));
        }
        memory.fill(1);
    }
    Ok(())
}

/// Whether memory is in the vmalloc window, and in how many pieces it is.
fn pieces(memory: &Kv) -> Result<(bool, usize), hal::addr::VirtAddr> {
    let breaks = mapping::physical_breaks(memory.va(), memory.len())?;
    Ok((mm::is_vmalloc_addr(memory.va()), breaks + 1))
}

fn falls_back() -> Outcome {
    let hoard = fragment(SIZE / PAGE_SIZE + SLACK)?;
    let mut memory = check_ok!(Kv::alloc(SIZE, LOWEST_ZONE));
    let found = check_ok!(pieces(&memory));
    memory.fill(0xA5);
    drop((memory, hoard));
    diagnostic(format_args!("{SIZE} bytes in {} pieces", found.1));
    check!(
        found == (true, SIZE / PAGE_SIZE),
        "in the vmalloc window: {}, pieces: {}",
        found.0,
        found.1
    );
    Ok(())
}

fn falls_back_planted() -> Outcome {
    let memory = check_ok!(Kv::alloc(SIZE, Gfp::KERNEL));
    let found = check_ok!(pieces(&memory));
    if found != (false, 1) {
        return fell_back(format_args!("contiguous memory is judged {found:?}"));
    }
    Ok(())
}

fn limits() -> Outcome {
    let hoard = fragment(SIZE / PAGE_SIZE + SLACK)?;
    let dma = Gfp::DMA;
    let refused = genuine(|| {
        [Gfp::ATOMIC, Gfp::NOWAIT, Gfp::NOIO].map(|gfp| Kv::alloc(SIZE, gfp | dma).map(drop))
    })?;
    let small = genuine(|| Kv::alloc(PAGE_SIZE, LOWEST_ZONE))?;
    let direct = small
        .as_ref()
        .map(|memory| !mm::is_vmalloc_addr(memory.va()));
    let direct = direct.ok();
    drop((small, hoard));
    for refused in refused {
        check!(
            matches!(refused, Err(KvmallocError::Kmalloc(_))),
            "{refused:?}"
        );
    }
    // Between red zones a page does not fit in a page.
    let beside = cfg!(feature = "slab-debug");
    check!(direct == Some(true) || beside, "a page: {direct:?}");
    Ok(())
}

fn frees() -> Outcome {
    check_ok!(memory::kvfree_object(check_ok!(Object::alloc(
        64,
        Gfp::KERNEL
    ))));
    check_ok!(memory::kvfree_object(check_ok!(Object::alloc(
        SIZE,
        Gfp::KERNEL
    ))));
    check_ok!(memory::kvfree_area(check_ok!(Area::alloc(SIZE))));
    let memory = check_ok!(Kv::alloc(SIZE, Gfp::KERNEL));
    let in_pages = mm::is_vmalloc_addr(memory.va());
    let (first, twice) = memory.free_twice();
    check_ok!(first);
    let named = match twice {
        Err(KvmallocError::Object(ObjectError::DoubleFree(_))) => !in_pages,
        Err(KvmallocError::Vmalloc(VmallocError::NotAnArea(_))) => in_pages,
        _ => false,
    };
    check!(named, "{twice:?}");
    Ok(())
}

fn resize() -> Outcome {
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    let mut memory = check_ok!(Kv::alloc(100, gfp));
    memory.fill(0x5A);
    for size in [3 * PAGE_SIZE, 5 << 20, 6 << 20] {
        check_ok!(memory.resize(size, gfp));
        let kept = memory[..100].iter().all(|byte| *byte == 0x5A);
        let rest = memory[100..].iter().all(|byte| *byte == 0);
        check!(
            kept && rest,
            "{size}: content kept {kept}, rest zero {rest}"
        );
    }
    check!(
        mm::is_vmalloc_addr(memory.va()),
        "more than kmalloc's largest size is at {}",
        memory.va()
    );
    Ok(())
}

fn bad_sizes() -> Outcome {
    let gfp = Gfp::KERNEL;
    for size in [KVMALLOC_MAX_SIZE + 1, usize::MAX] {
        let refused = Kv::alloc(size, gfp).map(drop);
        let named = KvmallocError::TooLarge { size, gfp };
        check!(refused == Err(named), "{refused:?}");
    }
    let overflow = mm::kvmalloc_array(usize::MAX, 2, gfp);
    check!(
        matches!(overflow, Err(KvmallocError::Overflow { .. })),
        "{overflow:?}"
    );
    Ok(())
}
