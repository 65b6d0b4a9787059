//! Sizes that are no objects, and frees of what is none.

use super::super::probe;
use crate::ledger::Ledger;
use crate::machine::machine;
use crate::memory::{self, Area, Object, Pages};
use crate::report::{Outcome, diagnostic};
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::mm::{self, AllocError, FrameKind, Gfp, MAX_SIZE, Misuse, ObjectError, ZERO_SIZE_PTR};

pub(super) fn zero_size() -> Outcome {
    let zero = check_ok!(mm::kmalloc(0, Gfp::KERNEL));
    check!(zero == ZERO_SIZE_PTR, "kmalloc(0) is {zero:?}");
    let usable = check_ok!(mm::ksize(zero.as_ptr()));
    check!(usable == 0, "{usable} bytes usable at ZERO_SIZE_PTR");
    let address = VirtAddr::from_ptr(zero.as_ptr());
    let read = probe::read_u8(address);
    check!(
        read.is_err_and(|fault| fault.far == address),
        "reading ZERO_SIZE_PTR: {read:?}"
    );
    for va in [VirtAddr::new(0), VirtAddr::from_ptr(ZERO_SIZE_PTR.as_ptr())] {
        let freed = memory::free_no_object(va);
        check!(freed == Some(Ok(())), "kfree({va}): {freed:?}");
    }
    Ok(())
}

pub(super) fn too_large() -> Outcome {
    let refused = Object::alloc(MAX_SIZE + 1, Gfp::KERNEL).map(drop);
    check!(
        matches!(refused, Err(AllocError::SizeTooLarge { .. })),
        "{refused:?}"
    );
    let refused = Object::alloc(usize::MAX, Gfp::KERNEL).map(drop);
    check!(
        matches!(refused, Err(AllocError::SizeTooLarge { .. })),
        "{refused:?}"
    );
    Ok(())
}

pub(super) fn bad_frees() -> Outcome {
    let before = check_ok!(Ledger::take());
    {
        let object = check_ok!(Object::alloc(256, Gfp::KERNEL));
        let large = check_ok!(Object::alloc(64 << 10, Gfp::KERNEL));
        let area = check_ok!(Area::alloc(PAGE_SIZE));
        let pages = check_ok!(Pages::alloc(Gfp::KERNEL, 1));
        let kind = Misuse::WrongFree(VirtAddr::new(0));
        // In a slab, at hand, merged with what is free beside it, and too large to be.
        for size in [256, 16 << 10, 64 << 10, MAX_SIZE] {
            let earlier = kind.count();
            let (first, twice) = check_ok!(Object::alloc(size, Gfp::KERNEL)).free_twice();
            let counted = kind.count() - earlier;
            check_ok!(first);
            check!(
                matches!(twice, Err(ObjectError::DoubleFree(_))),
                "{size} bytes freed twice: {twice:?}"
            );
            check!(counted == 1, "a double free was counted {counted} times");
        }
        let image = VirtAddr::from_ptr(&raw const SUITE_NAME);
        let pool = machine().pool;
        let in_pool = memory::free_pool_frame(pool.frames().start.pfn());
        let (small, whole) = (object.free_interior(64), large.free_interior(PAGE_SIZE));
        type Case = (
            &'static str,
            Option<Result<(), ObjectError>>,
            fn(&ObjectError) -> bool,
        );
        let not_direct: fn(&ObjectError) -> bool =
            |error| matches!(error, ObjectError::NotDirectMap(_));
        let cases: [Case; 7] = [
            (
                "vmalloc address",
                memory::free_no_object(area.va()),
                |error| matches!(error, ObjectError::VmallocAddress(_)),
            ),
            ("interior of a small object", Some(small), |error| {
                matches!(error, ObjectError::NotAtObject(_))
            }),
            ("interior of a large object", Some(whole), |error| {
                let tail = FrameKind::Tail;
                matches!(error, ObjectError::NotAnObject { kind, .. } if *kind == tail)
            }),
            (
                "pool address",
                memory::free_no_object(pool.cpu_base()),
                not_direct,
            ),
            ("pool frame's place in the direct map", in_pool, |error| {
                matches!(error, ObjectError::NotAllocated { .. })
            }),
            ("image address", memory::free_no_object(image), not_direct),
            ("block of pages", Some(pages.free_as_object()), |error| {
                let pages = FrameKind::Allocated;
                matches!(error, ObjectError::NotAnObject { kind, .. } if *kind == pages)
            }),
        ];
        for (what, result, is_named) in &cases {
            let Some(Err(error)) = result else {
                check!(false, "{what} was not refused: {result:?}");
                return Ok(());
            };
            diagnostic(format_args!("{what}: {error}"));
            check!(is_named(error), "{what} has the wrong name: {error:?}");
        }
    }
    let changed = before.difference(&check_ok!(Ledger::take()));
    check!(
        changed.is_none(),
        "a refused free changed something: {changed:?}"
    );
    #[cfg(feature = "slab-debug")]
    {
        let wrong = mm::validate_slabs();
        check!(wrong == 0, "{wrong} objects are damaged");
    }
    Ok(())
}

/// Something in the image.
static SUITE_NAME: [u8; 7] = *b"kmalloc";
