//! Mapping.

use super::super::bounce;
use super::super::phantom::{CHOOSY, SNOOPING, WIDE};
use super::{LEN, Twin, Wanted, said, verify};
use crate::boot::image;
use crate::dma_debug::reported;
use crate::handed::Taken;
use crate::memory::Area;
use crate::raw_dma::{Lent, map_outside};
use crate::report::Outcome;
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::dma::debug::{Check, Kind};
use hal::dma::direction::DirectionKind::{FromDevice, ToDevice};
use hal::dma::raw::DMA_MAPPING_ERROR;
use hal::layout::IOREMAP;

/// Bytes of memory with a multiple of 64 KiB inside: `kmalloc` aligns powers of two to their size.
const LARGE: usize = 128 << 10;
const BOUNDARY: usize = 64 << 10;

/// Memory that is mapped, or what lies at `va` instead, which is refused and reported as `check`.
fn area(twin: Twin, va: VirtAddr, check: Check) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    if twin == Twin::Right {
        let found = reported(|| {
            let addr = lent.map_checked(Kind::Single, 0..LEN, ToDevice);
            lent.unmap(Kind::Single, addr, LEN, ToDevice);
        });
        return verify(&found, &[]);
    }
    let mut addr = None;
    let (found, at) = here!(reported(|| addr = map_outside(&WIDE, va, LEN)));
    check!(addr == Some(DMA_MAPPING_ERROR), "mapped at {addr:?}");
    let call = said(Kind::Single, DMA_MAPPING_ERROR, LEN, ToDevice, at);
    verify(&found, &[(check, "wide", call, None)])?;
    let says = found
        .first()
        .is_some_and(|report| report.call.cpu == va && report.refusal.is_some());
    check!(says, "neither the CPU's address nor the refusal is named");
    Ok(())
}

pub(super) fn stack(twin: Twin) -> Outcome {
    let on_stack = [0_u8; LEN];
    area(
        twin,
        VirtAddr::from_ptr(&raw const on_stack),
        Check::MapStack,
    )
}

pub(super) fn read_only(twin: Twin) -> Outcome {
    static CONSTANT: [u8; LEN] = [0x11; LEN];
    let constant = VirtAddr::from_ptr(&raw const CONSTANT);
    area(twin, constant, Check::MapReadOnly)?;
    area(twin, image::text().start, Check::MapReadOnly)
}

pub(super) fn vmalloc(twin: Twin) -> Outcome {
    let memory = check_ok!(Area::alloc(PAGE_SIZE));
    area(twin, memory.va(), Check::MapVmalloc)
}

pub(super) fn invalid(twin: Twin) -> Outcome {
    static mut VARIABLE: [u8; LEN] = [0; LEN];
    area(twin, IOREMAP.base, Check::MapInvalid)?;
    area(
        twin,
        VirtAddr::from_ptr(&raw const VARIABLE),
        Check::MapInvalid,
    )?;
    area(twin, VirtAddr::new(PAGE_SIZE), Check::MapInvalid)
}

pub(super) fn sg_too_long(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&CHOOSY, LARGE));
    let len = PAGE_SIZE + twin.pick(0, 64);
    segment(twin, &lent, (0, len), Check::SgTooLong)
}

pub(super) fn sg_boundary(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&CHOOSY, LARGE));
    let start = BOUNDARY - twin.pick(128, 64);
    segment(twin, &lent, (start, 128), Check::SgBoundary)
}

/// A list of a good segment and the `len` bytes at `start`.
fn segment(twin: Twin, lent: &Lent, (start, len): (usize, usize), check: Check) -> Outcome {
    let mut list = lent.list([2 * PAGE_SIZE..3 * PAGE_SIZE, start..start + len]);
    let mut count = 0;
    let (found, at) = here!(reported(|| count = list.map(ToDevice)));
    check!(count == 2, "{count} segments");
    let call = said(Kind::Sg, list.addr(1), len, ToDevice, at);
    list.unmap(0..2, ToDevice);
    verify(&found, twin.pick(&[], &[(check, "choosy", call, None)]))
}

pub(super) fn overlap(twin: Twin) -> Outcome {
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let start = twin.pick(64, 32);
    // Whole lines, so that neither is bounced.
    let (written, mapped) = here!(lent.map_checked(Kind::Single, 0..64, FromDevice));
    let mut read = DMA_MAPPING_ERROR;
    let (map, at) = here!(|| lent.map_checked(Kind::Page, start..128, ToDevice));
    let found = reported(|| read = map());
    lent.unmap(Kind::Page, read, 128 - start, ToDevice);
    lent.unmap(Kind::Single, written, 64, FromDevice);
    let call = said(Kind::Page, read, 128 - start, ToDevice, at);
    let other = said(Kind::Single, written, 64, FromDevice, mapped);
    let wanted: Wanted = (Check::Overlap, "wide", call, Some(other));
    verify(&found, twin.pick(&[], &[wanted]))
}

/// Buffers that are bounced have no line in common with anybody, and may have bytes.
pub(super) fn bounced(twin: Twin) -> Outcome {
    bounce::pool()?;
    let lent = check_ok!(Lent::new(&WIDE, LEN));
    let start = twin.pick(33, 32);
    let (one, mapped) = here!(lent.map_checked(Kind::Single, 1..33, FromDevice));
    let mut two = DMA_MAPPING_ERROR;
    let (map, at) = here!(|| lent.map_checked(Kind::Single, start..start + 20, FromDevice));
    let found = reported(|| two = map());
    lent.unmap(Kind::Single, two, 20, FromDevice);
    lent.unmap(Kind::Single, one, 32, FromDevice);
    check!(one != lent.addr(1), "the buffer was not bounced");
    let call = said(Kind::Single, two, 20, FromDevice, at);
    let other = said(Kind::Single, one, 32, FromDevice, mapped);
    let wanted: Wanted = (Check::Overlap, "wide", call, Some(other));
    verify(&found, twin.pick(&[], &[wanted]))
}

/// Bytes of one line written for a device that snoops: worth knowing, and no mistake.
pub(super) fn snooped(twin: Twin) -> Outcome {
    let _coherent = Taken::as_coherent(&SNOOPING, true);
    let lent = check_ok!(Lent::new(&SNOOPING, LEN));
    let start = twin.pick(64, 32);
    let (one, mapped) = here!(lent.map_checked(Kind::Single, 0..32, FromDevice));
    let mut two = DMA_MAPPING_ERROR;
    let (map, at) = here!(|| lent.map_checked(Kind::Single, start..start + 32, FromDevice));
    let found = reported(|| two = map());
    lent.unmap(Kind::Single, two, 32, FromDevice);
    lent.unmap(Kind::Single, one, 32, FromDevice);
    let call = |addr, at| said(Kind::Single, addr, 32, FromDevice, at);
    let other = Some(call(one, mapped));
    let wanted: Wanted = (Check::OverlapSnooped, "snooping", call(two, at), other);
    verify(&found, twin.pick(&[], &[wanted]))?;
    check!(Check::OverlapSnooped.is_info(), "counted as a mistake");
    Ok(())
}
