//! What the debug build of the slab caches must find: each fault is planted.

use super::phantom::WIDE;
use crate::memory::Object;
use crate::memory::named::{Named, cache};
use crate::memory::stray::Stray;
use crate::report::{Outcome, Stop, Suite, diagnostic};
use crate::{check, check_ok};
use hal::addr::VirtAddr;
use hal::dma::DmaError;
use hal::dma::streaming::map_shared;
use hal::mm::{self, Gfp, KmemCache, SlabFault, SlabFlags, SlabReport, take_slab_report};

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "slab_debug",
    tests: tests! {
        all_objects_are_as_they_should_be: all_well,
        redzone_overwritten_is_reported_planted: redzones,
        writing_beyond_the_request_is_reported_planted: beyond_request,
        poison_overwritten_is_reported_planted: poison,
        object_already_free_is_reported_planted: already_free,
        frees_into_another_cache_name_the_owner_planted: wrong_cache,
        mapping_a_free_object_for_dma_is_refused_planted: freed_for_dma,
    },
};

static OWN: KmemCache = cache("test-debugged", SIZE, 8, SlabFlags::empty());
static OTHER: KmemCache = cache("test-debugged-too", SIZE, 8, SlabFlags::empty());

/// Bytes of an object: whole lines, so that the red zone follows at once.
const SIZE: usize = 128;

fn all_well() -> Outcome {
    let held = [
        check_ok!(Object::alloc(100, Gfp::KERNEL)),
        check_ok!(Object::alloc(4096, Gfp::KERNEL)),
    ];
    let wrong = mm::validate_slabs();
    check!(wrong == 0, "{wrong} objects: {:?}", take_slab_report());
    drop(held);
    let wrong = mm::validate_slabs();
    check!(wrong == 0, "{wrong} objects: {:?}", take_slab_report());
    Ok(())
}

/// The last report, which must be of `fault`, with who allocated the object.
fn reported(fault: SlabFault) -> Result<SlabReport, Stop> {
    let report = take_slab_report();
    let Some(report) = report.filter(|report| report.fault == fault) else {
        diagnostic(format_args!("{report:?} instead of {fault}"));
        return Err(Stop::Failed);
    };
    let Some(allocated) = report.allocated else {
        diagnostic(format_args!("{fault}, and nobody allocated the object"));
        return Err(Stop::Failed);
    };
    let file = allocated.location.file();
    check!(file == file!(), "allocated in {file}");
    Ok(report)
}

fn at(va: VirtAddr, offset: isize) -> VirtAddr {
    VirtAddr::new(va.get().wrapping_add_signed(offset))
}

fn redzones() -> Outcome {
    for offset in [-1, -16, SIZE as isize, SIZE as isize + 15] {
        let object = check_ok!(Named::alloc(&OWN, Gfp::KERNEL));
        Stray::store(at(object.va(), offset)).keep();
        check_ok!(object.free());
        let report = reported(SlabFault::Redzone)?;
        check!(report.cache == OWN.name(), "{}", report.cache);
    }
    let wrong = mm::validate_slabs();
    check!(wrong == 0, "{wrong} red zones were not put right");
    Ok(())
}

fn beyond_request() -> Outcome {
    const ASKED: usize = 100;
    for offset in [ASKED, SIZE - 1] {
        let object = check_ok!(Object::alloc(ASKED, Gfp::KERNEL));
        Stray::store(object.va() + offset).keep();
        check_ok!(object.free());
        reported(SlabFault::Redzone)?;
    }
    // Who asks how much there is may use it.
    let mut object = check_ok!(Object::alloc(ASKED, Gfp::KERNEL));
    object.bytes().fill(0);
    check_ok!(object.free());
    let report = take_slab_report();
    check!(report.is_none(), "{report:?}");
    Ok(())
}

fn poison() -> Outcome {
    let object = check_ok!(Named::alloc(&OWN, Gfp::KERNEL));
    // Keeps the slab.
    let neighbour = check_ok!(Named::alloc(&OWN, Gfp::KERNEL));
    let va = object.va();
    check_ok!(object.free());
    let stray = Stray::store(va + SIZE / 2);
    let wrong = mm::validate_slabs();
    check!(wrong == 1, "{wrong} objects found wrong");
    let report = reported(SlabFault::Poison)?;
    check!(report.freed.is_some(), "nobody freed the object");
    check!(
        report.byte.is_some_and(|(byte, ..)| byte == va + SIZE / 2),
        "{:?}",
        report.byte
    );
    drop(stray);
    let wrong = mm::validate_slabs();
    check!(wrong == 0, "{wrong} objects found wrong without a cause");
    drop(neighbour);
    Ok(())
}

fn already_free() -> Outcome {
    let object = check_ok!(Named::alloc(&OWN, Gfp::KERNEL));
    let neighbour = check_ok!(Named::alloc(&OWN, Gfp::KERNEL));
    let (first, twice) = object.free_twice();
    check_ok!(first);
    check!(twice.is_err(), "freed twice");
    let report = reported(SlabFault::AlreadyFree)?;
    check!(report.freed.is_some(), "nobody freed the object");
    let inside = neighbour.free_interior(64);
    check!(inside.is_err(), "freed from inside");
    reported(SlabFault::NotAnObject)?;
    Ok(())
}

fn wrong_cache() -> Outcome {
    let object = check_ok!(Named::alloc(&OWN, Gfp::KERNEL));
    drop(check_ok!(Named::alloc(&OTHER, Gfp::KERNEL)));
    check!(
        object.free_into(&OTHER).is_err(),
        "freed into another cache"
    );
    let report = reported(SlabFault::WrongCache)?;
    check!(report.cache == OWN.name(), "{}", report.cache);
    Ok(())
}

fn freed_for_dma() -> Outcome {
    let mut object = check_ok!(Named::alloc(&OWN, Gfp::KERNEL));
    let neighbour = check_ok!(Named::alloc(&OWN, Gfp::KERNEL));
    check_ok!(map_shared(&WIDE, object.bytes()).map(drop));
    let stale = check_ok!(object.free_and_map(&WIDE));
    check!(
        matches!(stale, Err(DmaError::Freed { cache, .. }) if cache == OWN.name()),
        "{stale:?}"
    );
    drop(neighbour);
    Ok(())
}
