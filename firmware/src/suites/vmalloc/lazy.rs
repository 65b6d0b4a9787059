//! What `vfree` puts off.

use super::super::busy::while_others_are_busy;
use super::super::interrupt::InInterrupt;
use super::is_gone;
use crate::memory::{Area, vfree_by_address};
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::addr::{PAGE_SIZE, Pfn, VirtAddr};
use hal::mm::{self, PurgeInfo, VmallocError};
use hal::smp;

fn purge_info() -> Result<PurgeInfo, Stop> {
    mm::purge_info().ok_or(Stop::Failed)
}

pub(super) fn limits() -> Outcome {
    const PAGES: usize = 16;
    // So that nothing waits, and the limit is that of the cores that are up.
    check_ok!(check_ok!(Area::alloc(PAGE_SIZE)).free());
    mm::vm_unmap_aliases();
    let start = purge_info()?;
    check!(
        start.areas == 0 && start.bytes == 0,
        "{start:?} after a purge"
    );
    let expected = linux_limit()?;
    check!(
        start.limit == expected,
        "{:#x} bytes may wait, not {expected:#x}",
        start.limit
    );
    let mut most = start;
    let mut frees = 0;
    // The limit on areas is an implementation's choice, that on addresses is Linux's.
    while purge_info()?.flushes == start.flushes {
        check_ok!(check_ok!(Area::alloc(PAGES * PAGE_SIZE)).free());
        frees += 1;
        let now = purge_info()?;
        check!(now.bytes <= start.limit, "{now:?} waits");
        if now.areas > most.areas {
            most = now;
        }
    }
    diagnostic(format_args!(
        "{frees} frees before a flush, at most {} areas and {:#x} bytes waited, the limit is {:#x}",
        most.areas, most.bytes, start.limit
    ));
    check!(frees > 1, "every free flushes");
    let after = purge_info()?;
    check!(after.areas == 0, "{after:?} right after a flush");
    Ok(())
}

/// What may wait: Linux's 32 MiB for each binary digit of the number of cores, of which this
/// machine allows no more than a 16th of its memory.
fn linux_limit() -> Result<usize, Stop> {
    let cores = smp::online().count();
    let digits = (usize::BITS - cores.leading_zeros()) as usize;
    let frames = mm::pages().ok_or(Stop::Failed)?.managed_pages() as usize;
    Ok((digits * (32 << 20)).min(frames / 16 * PAGE_SIZE))
}

/// Large areas reach the limit on bytes before that on areas.
pub(super) fn bytes() -> Outcome {
    const SIZE: usize = 4 << 20;
    check_ok!(check_ok!(Area::alloc(PAGE_SIZE)).free());
    mm::vm_unmap_aliases();
    let start = purge_info()?;
    let fitting = linux_limit()? / SIZE;
    for freed in 1..=fitting {
        check_ok!(check_ok!(Area::alloc(SIZE)).free());
        let now = purge_info()?;
        check!(now.flushes == start.flushes, "free {freed} flushed");
        check!(now.bytes == freed * SIZE, "{now:?} after {freed} frees");
    }
    check_ok!(check_ok!(Area::alloc(SIZE)).free());
    let after = purge_info()?;
    check!(after.flushes == start.flushes + 1, "{after:?} waits");
    check!(after.bytes == 0, "{after:?} right after a flush");
    diagnostic(format_args!("{fitting} areas of {SIZE:#x} bytes waited"));
    Ok(())
}

/// The area [`FREE_IN_INTERRUPT`] frees.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// What came of a free in an interrupt.
struct Deferral {
    first: Result<(), VmallocError>,
    /// The frame behind the area, after the free.
    frame: Result<Pfn, VmallocError>,
    /// Areas that wait for a task to take them down, after the free.
    deferred: usize,
    twice: Result<(), VmallocError>,
}

static FREE_IN_INTERRUPT: InInterrupt<Deferral> = InInterrupt::new(|| {
    let address = ADDRESS.load(Ordering::Relaxed);
    Deferral {
        first: vfree_by_address(address),
        frame: mm::vmalloc_to_page(VirtAddr::new(address)),
        deferred: mm::purge_info().map_or(0, |info| info.deferred),
        twice: vfree_by_address(address),
    }
});

/// Frees the area at [`ADDRESS`] in an interrupt of this core while the others are kept busy, so that
/// none of them takes it down meanwhile.
fn free_in_interrupt() -> Result<Deferral, Stop> {
    while_others_are_busy(|| FREE_IN_INTERRUPT.run())?
}

pub(super) fn in_interrupt() -> Outcome {
    let area = check_ok!(Area::alloc(3 * PAGE_SIZE));
    let va = area.va();
    let frame = mm::vmalloc_to_page(va);
    let before = purge_info()?.deferred;
    ADDRESS.store(area.into_address(), Ordering::Relaxed);
    let deferral = free_in_interrupt()?;
    check_ok!(deferral.first);
    check!(
        deferral.frame == frame,
        "unmapped in the interrupt: {:?}",
        deferral.frame
    );
    check!(
        deferral.deferred == before + 1,
        "{} areas wait, {before} before",
        deferral.deferred
    );
    check!(
        deferral.twice == Err(VmallocError::NotAnArea(va)),
        "the second free: {:?}",
        deferral.twice
    );
    mm::vm_unmap_aliases();
    let left = purge_info()?.deferred;
    check!(left == 0, "{left} areas still wait");
    for va in [va, va + 2 * PAGE_SIZE] {
        check!(is_gone(va), "{va} still answers");
    }
    Ok(())
}
