//! Unmapping.

use super::super::phantom::WIDE;
use super::{LEN, Twin, Wanted, ended_at, reports, said, verify};
use crate::dma_debug::reported;
use crate::memory::Object;
use crate::raw_dma::{Lent, LentCoherent};
use crate::report::Outcome;
use crate::{check, check_ok};
use hal::addr::PAGE_SIZE;
use hal::dma::debug::{Check, Kind};
use hal::dma::direction::DirectionKind::{Bidirectional, FromDevice, ToDevice};
use hal::dma::raw::DMA_MAPPING_ERROR;
use hal::dma::streaming::map_slice;
use hal::mm::Gfp;

/// Maps of the typed API, unmapped in each way there is.
pub(super) fn typed(_: Twin) -> Outcome {
    use hal::dma::Bidirectional;

    let mut memory = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let mut refusals = 0;
    let found = reported(|| {
        for step in 0..3 {
            match map_slice::<Bidirectional>(&WIDE, &mut memory) {
                Ok(mapping) if step == 0 => mapping.unmap(),
                Ok(mapping) if step == 1 => drop(mapping),
                Ok(mapping) => drop(mapping.sync_for_cpu().sync_for_device()),
                Err(_) => refusals += 1,
            }
        }
    });
    check!(refusals == 0, "{refusals} maps refused");
    verify(&found, &[])
}

pub(super) fn unallocated(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let (addr, mapped) = here!(lent.map_checked(Kind::Single, 0..LEN, ToDevice));
    // An address inside the mapping is no mapping; the one around it is shown.
    let wrong = addr + 64;
    let (start, len) = twin.pick((addr, LEN), (wrong, LEN - 64));
    let (unmap, at) = here!(|| lent.unmap(Kind::Single, start, len, ToDevice));
    let found = reported(unmap);
    let call = said(Kind::Single, wrong, LEN - 64, ToDevice, at);
    let around = said(Kind::Single, addr, LEN, ToDevice, mapped);
    let wanted: Wanted = (Check::FreeUnallocated, "wide", call, Some(around));
    let outcome = verify(&found, twin.pick(&[], &[wanted]));
    if twin == Twin::Planted {
        lent.unmap(Kind::Single, addr, LEN, ToDevice);
    }
    outcome
}

pub(super) fn twice(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let (addr, mapped) = here!(lent.map_checked(Kind::Page, 0..LEN, FromDevice));
    let (unmap, at) = here!(|| lent.unmap(Kind::Page, addr, LEN, FromDevice));
    let call = |at| said(Kind::Page, addr, LEN, FromDevice, at);
    let found = reported(|| {
        unmap();
        if twin == Twin::Planted {
            unmap();
        }
    });
    let wanted: Wanted = (Check::FreeUnallocated, "wide", call(at), Some(call(mapped)));
    verify(&found, twin.pick(&[], &[wanted]))?;
    ended_at(&found, at)
}

pub(super) fn error(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    // More than there is.
    let failed = lent.map(Kind::Single, 0..2 * LEN, ToDevice);
    check!(lent.failed(failed), "mapped at {failed}");
    let addr = lent.map_checked(Kind::Single, 0..LEN, ToDevice);
    let (unmap, at) = here!(|addr| lent.unmap(Kind::Single, addr, LEN, ToDevice));
    let call = said(Kind::Single, DMA_MAPPING_ERROR, LEN, ToDevice, at);
    reports(twin, (Check::ErrorUsed, "wide", call, None), || {
        unmap(addr);
        if twin == Twin::Planted {
            unmap(failed);
        }
    })
}

pub(super) fn unchecked(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let (addr, mapped) = here!(lent.map(Kind::Single, 0..LEN, ToDevice));
    if twin == Twin::Right {
        check!(!lent.failed(addr), "not mapped");
    }
    let (found, at) = here!(reported(|| lent.unmap(Kind::Single, addr, LEN, ToDevice)));
    let call = |at| said(Kind::Single, addr, LEN, ToDevice, at);
    let wanted: Wanted = (Check::ErrorUnchecked, "wide", call(at), Some(call(mapped)));
    verify(&found, twin.pick(&[], &[wanted]))
}

pub(super) fn size(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let len = twin.pick(LEN, LEN / 2);
    let (addr, mapped) = here!(lent.map_checked(Kind::Single, 0..LEN, FromDevice));
    let (found, at) = here!(reported(|| lent.unmap(Kind::Single, addr, len, FromDevice)));
    let call = |len, at| said(Kind::Single, addr, len, FromDevice, at);
    let mapped = Some(call(LEN, mapped));
    let wanted: Wanted = (Check::FreeSize, "wide", call(len, at), mapped);
    verify(&found, twin.pick(&[], &[wanted]))
}

pub(super) fn function(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    for wrong in [Kind::Single, Kind::Resource] {
        let kind = twin.pick(Kind::Page, wrong);
        let (addr, mapped) = here!(lent.map_checked(Kind::Page, 0..LEN, ToDevice));
        let (found, at) = here!(reported(|| lent.unmap(kind, addr, LEN, ToDevice)));
        let call = |kind, at| said(kind, addr, LEN, ToDevice, at);
        let mapped = Some(call(Kind::Page, mapped));
        let wanted: Wanted = (Check::WrongFunction, "wide", call(kind, at), mapped);
        verify(&found, twin.pick(&[], &[wanted]))?;
    }
    list_for_single(&lent, twin)
}

/// A list unmapped as a single buffer, and the reverse.
fn list_for_single(lent: &Lent, twin: Twin) -> Outcome {
    const ENTRY: usize = 64;
    let entry = 0..ENTRY;
    let mut list = lent.list([entry]);
    let (count, mapped) = here!(list.map(ToDevice));
    check!(count == 1, "{count} segments");
    let addr = list.addr(0);
    let call = |kind, at| said(kind, addr, ENTRY, ToDevice, at);
    let (unmap, at) = here!(|| lent.unmap(Kind::Single, addr, ENTRY, ToDevice));
    let found = reported(|| match twin {
        Twin::Right => list.unmap(0..1, ToDevice),
        Twin::Planted => unmap(),
    });
    let mapped = Some(call(Kind::Sg, mapped));
    let wanted: Wanted = (Check::WrongFunction, "wide", call(Kind::Single, at), mapped);
    verify(&found, twin.pick(&[], &[wanted]))?;
    // The entry still has the address, at which a single buffer is mapped now.
    let (again, mapped) = here!(lent.map_checked(Kind::Single, 0..ENTRY, ToDevice));
    check!(again == addr, "mapped at {again}, not {addr}");
    let (mut unmap, at) = here!(|| list.unmap(0..1, ToDevice));
    let found = reported(|| match twin {
        Twin::Right => lent.unmap(Kind::Single, addr, ENTRY, ToDevice),
        Twin::Planted => unmap(),
    });
    let mapped = Some(call(Kind::Single, mapped));
    let wanted: Wanted = (Check::WrongFunction, "wide", call(Kind::Sg, at), mapped);
    verify(&found, twin.pick(&[], &[wanted]))
}

pub(super) fn direction(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let wrong = twin.pick(FromDevice, ToDevice);
    let (addr, mapped) = here!(lent.map_checked(Kind::Single, 0..LEN, FromDevice));
    let (found, at) = here!(reported(|| lent.unmap(Kind::Single, addr, LEN, wrong)));
    let call = |direction, at| said(Kind::Single, addr, LEN, direction, at);
    let mapped = Some(call(FromDevice, mapped));
    let wanted: Wanted = (Check::FreeDirection, "wide", call(wrong, at), mapped);
    verify(&found, twin.pick(&[], &[wanted]))
}

pub(super) fn sg_count(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let mut list = lent.list([0..64, 64..192, 192..256]);
    let (count, mapped) = here!(list.map(ToDevice));
    check!(count == 3, "{count} segments");
    let (first, last) = (list.addr(0), list.addr(2));
    let (mut found, at) = here!(reported(|| list.unmap(0..twin.pick(3, 2), ToDevice)));
    let call = |addr, at| said(Kind::Sg, addr, 64, ToDevice, at);
    let wanted: Wanted = (
        Check::SgCount,
        "wide",
        call(first, at),
        Some(call(first, mapped)),
    );
    verify(&found, twin.pick(&[], &[wanted]))?;
    if twin == Twin::Right {
        return Ok(());
    }
    // What was left out is still mapped, and a list of one is not what was mapped either.
    let at;
    (found, at) = here!(reported(|| list.unmap(2..3, ToDevice)));
    let wanted: Wanted = (
        Check::SgCount,
        "wide",
        call(last, at),
        Some(call(last, mapped)),
    );
    verify(&found, &[wanted])
}

/// Coherent memory is freed once, by the size and both addresses it was given out with.
pub(super) fn coherent(twin: Twin) -> Outcome {
    for (check, size, offset) in [
        (Check::FreeCpuAddress, LEN, 64),
        (Check::FreeSize, LEN / 2, 0),
    ] {
        let (size, offset) = twin.pick((LEN, 0), (size, offset));
        let (memory, given) = here!(LentCoherent::alloc(&WIDE, LEN));
        let memory = check_ok!(memory);
        let call = |len, at| said(Kind::Coherent, memory.addr(), len, Bidirectional, at);
        // The right size stands for whole pages.
        let len = if size == LEN { PAGE_SIZE } else { size };
        let (found, at) = here!(reported(|| memory.free(size, offset)));
        let mapped = Some(call(PAGE_SIZE, given));
        let wanted: Wanted = (check, "wide", call(len, at), mapped);
        verify(&found, twin.pick(&[], &[wanted]))?;
        if twin == Twin::Planted {
            let (found, at) = here!(reported(|| memory.free(LEN, 0)));
            let wanted: Wanted = (Check::FreeUnallocated, "wide", call(LEN, at), mapped);
            verify(&found, &[wanted])?;
        }
    }
    Ok(())
}
