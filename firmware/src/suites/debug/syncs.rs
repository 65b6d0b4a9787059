//! Handing mapped memory to and fro.

use super::super::phantom::WIDE;
use super::{LEN, Twin, Wanted, ended_at, said, verify};
use crate::dma_debug::reported;
use crate::raw_dma::Lent;
use crate::report::Outcome;
use crate::{check, check_ok};
use hal::addr::DmaAddr;
use hal::dma::debug::{Check, Kind};
use hal::dma::direction::DirectionKind::{self, Bidirectional, FromDevice, ToDevice};

/// Memory synchronised after its unmap, or before.
pub(super) fn unallocated(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let (addr, mapped) = here!(lent.map_checked(Kind::Single, 0..64, FromDevice));
    let (unmap, ended) = here!(|| lent.unmap(Kind::Single, addr, 64, FromDevice));
    let (sync, at) = here!(|| lent.sync_for_cpu(addr, 64, FromDevice));
    let found = reported(|| match twin {
        Twin::Right => {
            sync();
            unmap();
        }
        Twin::Planted => {
            unmap();
            sync();
        }
    });
    let call = |at| said(Kind::Single, addr, 64, FromDevice, at);
    let wanted: Wanted = (Check::SyncUnallocated, "wide", call(at), Some(call(mapped)));
    verify(&found, twin.pick(&[], &[wanted]))?;
    ended_at(&found, ended)
}

pub(super) fn outside(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    // Cleaned, so that nothing is lost with the line that is taken too much.
    let whole = lent.map_checked(Kind::Single, 0..LEN, ToDevice);
    lent.unmap(Kind::Single, whole, LEN, ToDevice);
    let end = twin.pick(128, 192);
    let (addr, mapped) = here!(lent.map_checked(Kind::Single, 0..128, FromDevice));
    let (found, at) = here!(reported(|| lent.sync_range(addr, 64..end, FromDevice)));
    lent.unmap(Kind::Single, addr, 128, FromDevice);
    let call = said(Kind::Single, addr + 64, end - 64, FromDevice, at);
    let whole = said(Kind::Single, addr, 128, FromDevice, mapped);
    let wanted: Wanted = (Check::SyncOutside, "wide", call, Some(whole));
    verify(&found, twin.pick(&[], &[wanted]))
}

/// Which way memory is handed.
#[derive(Clone, Copy)]
enum To {
    Cpu,
    Device,
}

fn hand_over(lent: &Lent, addr: DmaAddr, passed: DirectionKind, to: To) -> super::At {
    match to {
        To::Cpu => here!(lent.sync_for_cpu(addr, LEN, passed)).1,
        To::Device => here!(lent.sync_for_device(addr, LEN, passed)).1,
    }
}

/// Memory mapped in one direction and synchronised in another, or in the same.
fn directions(
    twin: Twin,
    (mapped, passed, to): (DirectionKind, DirectionKind, To),
    check: Check,
) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let passed = twin.pick(mapped, passed);
    let (addr, mapped_at) = here!(lent.map_checked(Kind::Single, 0..LEN, mapped));
    let mut at = mapped_at;
    let found = reported(|| at = hand_over(&lent, addr, passed, to));
    lent.unmap(Kind::Single, addr, LEN, mapped);
    let call = said(Kind::Single, addr, LEN, passed, at);
    let whole = said(Kind::Single, addr, LEN, mapped, mapped_at);
    verify(
        &found,
        twin.pick(&[], &[(check, "wide", call, Some(whole))]),
    )
}

pub(super) fn direction(twin: Twin) -> Outcome {
    let check = Check::SyncDirection;
    directions(twin, (FromDevice, Bidirectional, To::Cpu), check)?;
    directions(twin, (FromDevice, ToDevice, To::Cpu), check)?;
    directions(twin, (ToDevice, Bidirectional, To::Device), check)
}

pub(super) fn read_only(twin: Twin) -> Outcome {
    let check = Check::SyncReadOnlyForCpu;
    directions(twin, (ToDevice, FromDevice, To::Cpu), check)
}

pub(super) fn write_only(twin: Twin) -> Outcome {
    let check = Check::SyncWriteOnlyForDevice;
    directions(twin, (FromDevice, ToDevice, To::Device), check)
}

pub(super) fn sg_count(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let mut list = lent.list([0..64, 128..192]);
    let (count, mapped) = here!(list.map(FromDevice));
    check!(count == 2, "{count} segments");
    let first = list.addr(0);
    let (found, at) = here!(reported(|| list.sync(0..twin.pick(2, 1), FromDevice)));
    list.unmap(0..2, FromDevice);
    let call = |at| said(Kind::Sg, first, 64, FromDevice, at);
    let wanted: Wanted = (Check::SgCount, "wide", call(at), Some(call(mapped)));
    verify(&found, twin.pick(&[], &[wanted]))
}
