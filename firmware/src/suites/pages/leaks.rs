//! One leak of each kind: the ledger must name it, and agree again when it is gone.

use super::super::plant;
use crate::ledger::{Item, Ledger, Place};
use crate::machine::machine;
use crate::memory::{Object, Pages, Registers, Remapped};
use crate::oom::OutOfMemory;
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use core::fmt::Display;
use hal::addr::{PAGE_SIZE, PhysRange};
use hal::mm::{self, Gfp, IoKind, Owner, Protection, Shrinker};

/// Has `leak` leak something, which the ledger must find to be `growth` more of `wanted`. What it
/// returns is dropped or freed by `mend`.
pub(in crate::suites) fn is_found<T, E: Display + OutOfMemory>(
    wanted: (Place, isize),
    leak: impl FnOnce() -> Result<T, E>,
    mend: impl FnOnce(T) -> Outcome,
) -> Outcome {
    let before = check_ok!(Ledger::take());
    let leaked = check_ok!(leak());
    let difference = before.difference(&check_ok!(Ledger::take()));
    mend(leaked)?;
    let Some(difference) = difference else {
        check!(false, "{wanted:?} was not found");
        return Ok(());
    };
    diagnostic(format_args!("found: {difference}"));
    let found = difference.growth();
    check!(found == wanted, "{found:?} found, {wanted:?} leaked");
    let left = before.difference(&check_ok!(Ledger::take()));
    check!(left.is_none(), "the plant is gone, but {left:?}");
    Ok(())
}

/// Undoes a leak by its owner.
fn dropped<T>(leaked: T) -> Outcome {
    drop(leaked);
    Ok(())
}

pub(super) fn page() -> Outcome {
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    let probe = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let zone = allocator.zone_of(probe.pfn());
    check_ok!(probe.free());
    is_found(
        (Place::Zone(zone), -1),
        || Pages::alloc(Gfp::KERNEL, 0),
        |page| {
            check_ok!(page.free());
            Ok(())
        },
    )
}

/// An object of a slab that is held anyway, so that no page is missing.
pub(super) fn object() -> Outcome {
    const SIZE: usize = 64;
    let _slab = check_ok!(Object::alloc(SIZE, Gfp::KERNEL));
    is_found(
        (Place::Count(Item::Objects), 1),
        || Object::alloc(SIZE, Gfp::KERNEL),
        |object| {
            check_ok!(object.free());
            Ok(())
        },
    )
}

/// An area that owns no page.
pub(super) fn area() -> Outcome {
    let block = check_ok!(Pages::alloc(Gfp::KERNEL, 1));
    is_found(
        (Place::Count(Item::Areas), 1),
        || Remapped::backwards(&block, Protection::ReadOnly),
        |mapped| {
            check_ok!(mapped.unmap());
            Ok(())
        },
    )
}

/// A page of registers that nobody claims; they are not accessed.
fn registers_of_nobody() -> PhysRange {
    const BEHIND_THE_CONSOLE: usize = 0x1_0000;
    let start = machine().board.uart().base + BEHIND_THE_CONSOLE;
    PhysRange::new(start, start + PAGE_SIZE)
}

pub(super) fn registers() -> Outcome {
    is_found(
        (Place::Count(Item::Areas), 1),
        || Registers::map(registers_of_nobody(), IoKind::Posted),
        dropped,
    )
}

pub(super) fn claim() -> Outcome {
    is_found(
        (Place::Count(Item::Claims), 1),
        || mm::request_mem_region(registers_of_nobody(), "planted"),
        dropped,
    )
}

pub(super) fn table() -> Outcome {
    is_found(
        (Place::Count(Item::LooseTables), 1),
        || plant::LooseTable::take().ok_or("no table"),
        dropped,
    )
}

/// A shrinker that has nothing.
struct Idle;

static IDLE: Idle = Idle;

impl Shrinker for Idle {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn count(&self) -> usize {
        0
    }

    fn scan(&self, _wanted: usize, _gfp: Gfp) -> usize {
        0
    }
}

pub(super) fn shrinker() -> Outcome {
    let allocator = mm::pages().ok_or(Stop::Failed)?;
    is_found(
        (Place::Count(Item::Shrinkers), 1),
        || allocator.register_shrinker(&IDLE),
        |()| {
            check_ok!(allocator.unregister_shrinker(&IDLE));
            Ok(())
        },
    )
}

pub(super) fn charge() -> Outcome {
    static OWNER: Owner = Owner::new("planted", PAGE_SIZE);
    drop(check_ok!(mm::charge_to(&OWNER)));
    is_found(
        (Place::Count(Item::Charged), PAGE_SIZE as isize),
        || OWNER.charge(PAGE_SIZE, Gfp::KERNEL),
        |()| {
            OWNER.uncharge(PAGE_SIZE);
            Ok(())
        },
    )
}
