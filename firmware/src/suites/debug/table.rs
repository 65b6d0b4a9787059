//! What is recorded: mappings that stay, and more than there is room for.

use super::super::pages::leaks;
use super::super::phantom::{ELSEWHERE, WIDE};
use super::{LEN, Twin, Wanted, said, verify};
use crate::dma_debug::{reported, retract};
use crate::ledger::{Item, Place};
use crate::raw_dma::Lent;
use crate::report::Outcome;
use crate::{check, check_ok};
use hal::dma::debug::{self, Check, Checker, Kind};
use hal::dma::direction::DirectionKind::{FromDevice, ToDevice};
use hal::mm::{AllocError, Gfp};

pub(super) fn leak(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let other = check_ok!(Lent::new(&ELSEWHERE, LEN));
    let of_other = other.map_checked(Kind::Single, 0..LEN, ToDevice);
    let mut left = 0;
    let (addr, mapped) = here!(lent.map_checked(Kind::Page, 64..128, FromDevice));
    if twin == Twin::Right {
        lent.unmap(Kind::Page, addr, 64, FromDevice);
    }
    let (found, at) = here!(reported(|| left = WIDE.release()));
    if twin == Twin::Planted {
        // A report ends nothing.
        lent.unmap(Kind::Page, addr, 64, FromDevice);
    }
    other.unmap(Kind::Single, of_other, LEN, ToDevice);
    check!(left == twin.pick(0, 1), "{left} left");
    let call = |at| said(Kind::Page, addr, 64, FromDevice, at);
    let wanted: Wanted = (Check::Leak, "wide", call(at), Some(call(mapped)));
    verify(&found, twin.pick(&[], &[wanted]))
}

/// A table for two mappings, or three, in the place of the machine's.
pub(super) fn entries(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let small = check_ok!(Checker::new(twin.pick(3, 2), Gfp::KERNEL));
    let machines = debug::exchange(Some(small));
    let maps = [0, 64, 128].map(|start| (start, lent.addr(start)));
    let (map, at) = here!(|start| lent.map_checked(Kind::Single, start..start + 64, ToDevice));
    let found = reported(|| {
        for (start, _) in maps {
            // What is not recorded is mapped all the same, and nobody is blamed for unmapping it.
            let _ = map(start);
        }
        for (_, addr) in maps {
            lent.unmap(Kind::Single, addr, 64, ToDevice);
        }
    });
    let small = debug::exchange(machines);
    let call = said(Kind::Single, maps[2].1, 64, ToDevice, at);
    let wanted: Wanted = (Check::OutOfEntries, "wide", call, None);
    verify(&found, twin.pick(&[], &[wanted]))?;
    let is_as_it_must_be = small.is_some_and(|small| {
        let is_complete = twin == Twin::Right;
        small.live() == 0 && small.peak() == small.capacity() && small.is_complete() == is_complete
    });
    check!(is_as_it_must_be, "the table does not say what it lacked");
    Ok(())
}

/// A mapping that stays: the ledger names it.
pub(super) fn mapping_left(_: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    leaks::is_found(
        (Place::Count(Item::Mappings), 1),
        || Ok::<_, AllocError>(lent.map_checked(Kind::Single, 0..LEN, ToDevice)),
        |addr| {
            lent.unmap(Kind::Single, addr, LEN, ToDevice);
            Ok(())
        },
    )
}

/// A mistake that no test keeps to itself: the ledger counts it.
pub(super) fn report_unplanted(_: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    leaks::is_found(
        (Place::Count(Item::Reports), 1),
        || {
            lent.unmap(Kind::Single, lent.addr(0), LEN, ToDevice);
            Ok::<_, AllocError>(())
        },
        |()| {
            let written = retract(Check::FreeUnallocated);
            check!(written, "nothing was written of it");
            Ok(())
        },
    )
}
