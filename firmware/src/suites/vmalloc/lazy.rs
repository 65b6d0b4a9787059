//! What `vfree` puts off.

use super::is_gone;
use crate::machine::machine;
use crate::memory::{Area, vfree_by_address};
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::arch::counter;
use hal::drivers::gic::Line;
use hal::drivers::irq::IrqHandler;
use hal::drivers::timer::{DeadlineInterrupt, VIRTUAL_TIMER};
use hal::mm::{self, PurgeInfo};

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

/// Frees an area in the timer's interrupt, twice.
struct FreeInInterrupt {
    address: AtomicUsize,
    done: AtomicBool,
    right: AtomicBool,
}

static IN_INTERRUPT: FreeInInterrupt = FreeInInterrupt {
    address: AtomicUsize::new(0),
    done: AtomicBool::new(false),
    right: AtomicBool::new(false),
};

impl IrqHandler for FreeInInterrupt {
    fn handle(&self, _line: Line) {
        counter::disarm();
        let address = self.address.load(Ordering::Relaxed);
        let first = vfree_by_address(address);
        let twice = vfree_by_address(address);
        let refused_by_name = twice == Err(mm::VmallocError::NotAnArea(VirtAddr::new(address)));
        self.right
            .store(first == Ok(()) && refused_by_name, Ordering::Relaxed);
        self.done.store(true, Ordering::Release);
    }
}

pub(super) fn in_interrupt() -> Outcome {
    const DELAY_NS: u64 = 20_000;
    const PATIENCE: Duration = Duration::from_millis(100);
    let area = check_ok!(Area::alloc(3 * PAGE_SIZE));
    let va = area.va();
    IN_INTERRUPT
        .address
        .store(area.into_address(), Ordering::Relaxed);
    IN_INTERRUPT.done.store(false, Ordering::Relaxed);
    let interrupts = machine().interrupts;
    counter::disarm();
    interrupts.unregister(VIRTUAL_TIMER);
    check_ok!(interrupts.register(VIRTUAL_TIMER, &IN_INTERRUPT));
    counter::arm(machine().timer.deadline_after(DELAY_NS));
    let start = machine().timer.now_ns();
    while !IN_INTERRUPT.done.load(Ordering::Acquire)
        && u128::from(machine().timer.now_ns() - start) < PATIENCE.as_nanos()
    {
        core::hint::spin_loop();
    }
    counter::disarm();
    interrupts.unregister(VIRTUAL_TIMER);
    check_ok!(interrupts.register(VIRTUAL_TIMER, &DeadlineInterrupt));
    check!(
        IN_INTERRUPT.done.load(Ordering::Acquire),
        "no interrupt came"
    );
    check!(
        IN_INTERRUPT.right.load(Ordering::Relaxed),
        "the first free was refused or the second was not"
    );
    mm::vm_unmap_aliases();
    for va in [va, va + 2 * PAGE_SIZE] {
        check!(is_gone(va), "{va} still answers");
    }
    Ok(())
}
