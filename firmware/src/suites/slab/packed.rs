//! Packed objects: small, several to a cache line, and never for a device that does not snoop.

use crate::memory::named::{Named, Small, cache};
use crate::report::{Outcome, Stop, diagnostic};
use crate::suites::phantom::{SNOOPING, WIDE};
use crate::{check, check_ok};

use hal::dma::sg::{ScatterEntry, ScatterList};
use hal::dma::streaming::map_shared;
use hal::dma::{Device, DmaError, ToDevice};
use hal::mm::{
    self, AllocError, DMA_ALIGN, Gfp, KmemCache, MAX_PACKED_SIZE, ObjectError, Owner, PACKED_ALIGN,
    SlabFlags,
};

/// Bytes of an object of [`PACKED`]: no divisor of a line.
const SIZE: usize = 24;

static PACKED: KmemCache = cache("test-packed", SIZE, 8, SlabFlags::PACKED);
static OTHER: KmemCache = cache("test-packed-too", SIZE, 8, SlabFlags::PACKED);

pub(super) fn charged() -> Outcome {
    static OWNER: Owner = Owner::new("packed objects", 1 << 20);
    let scope = check_ok!(mm::charge_to(&OWNER));
    let refused = Named::alloc(&PACKED, Gfp::KERNEL_ACCOUNT).map(drop);
    let mut small = check_ok!(Small::alloc(SIZE, Gfp::KERNEL_ACCOUNT));
    drop(scope);
    let (used, usable) = (OWNER.used(), small.object().usable());
    drop(small);
    check!(
        matches!(refused, Err(AllocError::NotAccounted { .. })),
        "{refused:?}"
    );
    check!(
        (used, usable) == (DMA_ALIGN, DMA_ALIGN),
        "{used} bytes charged for {usable}"
    );
    check!(OWNER.used() == 0, "a charge is left");
    Ok(())
}

pub(super) fn shared_lines() -> Outcome {
    const COUNT: usize = 32;
    for size in (PACKED_ALIGN..=MAX_PACKED_SIZE).step_by(PACKED_ALIGN) {
        let mut held = heapless::Vec::<Small, COUNT>::new();
        for number in 0..COUNT {
            let mut small = check_ok!(Small::alloc(size, Gfp::KERNEL | Gfp::ZERO));
            let object = small.object();
            let usable = object.usable();
            check!(usable == size, "{usable} of {size} bytes usable");
            let zeroed = object.bytes().iter().all(|byte| *byte == 0);
            check!(zeroed, "an object of {size} bytes is not zeroed");
            object.bytes().fill(number as u8);
            // There is room for as many.
            let _ = held.push(small);
        }
        let line_of = |small: &mut Small| small.object().va().get() / DMA_ALIGN;
        let mut lines: heapless::Vec<usize, COUNT> = held.iter_mut().map(line_of).collect();
        lines.sort_unstable();
        let shared = lines.windows(2).filter(|pair| pair[0] == pair[1]).count();
        check!(
            shared > 0,
            "objects of {size} bytes have lines of their own"
        );
        for (number, small) in held.iter_mut().enumerate() {
            let intact = small.object().bytes().iter().all(|b| *b == number as u8);
            check!(intact, "object {number} of {size} bytes has changed");
        }
        for small in held {
            check_ok!(small.into_object().free());
        }
    }
    let mut large = check_ok!(Small::alloc(MAX_PACKED_SIZE + 1, Gfp::KERNEL));
    let usable = large.object().usable();
    check!(usable == DMA_ALIGN, "{usable} bytes: not a plain object");
    Ok(())
}

pub(super) fn wrong_frees() -> Outcome {
    let object = check_ok!(Named::alloc(&PACKED, Gfp::KERNEL));
    check!(object.usable() == SIZE, "{} bytes", object.usable());
    let (first, twice) = check_ok!(Named::alloc(&PACKED, Gfp::KERNEL)).free_twice();
    check_ok!(first);
    let small = check_ok!(Small::alloc(SIZE, Gfp::KERNEL));
    let (freed, small_twice) = small.into_object().free_twice();
    check_ok!(freed);
    for double in [twice, small_twice] {
        check!(
            matches!(double, Err(ObjectError::DoubleFree(_))),
            "{double:?}"
        );
    }
    for offset in [1, 8] {
        let inside = object.free_interior(offset);
        check!(
            matches!(inside, Err(ObjectError::NotAtObject(_))),
            "{inside:?}"
        );
    }
    drop(check_ok!(Named::alloc(&OTHER, Gfp::KERNEL)));
    let wrong = object.free_into(&OTHER);
    let named =
        matches!(wrong, Err(ObjectError::WrongCache { cache, .. }) if cache == PACKED.name());
    check!(named, "{wrong:?}");
    check_ok!(object.kfree());
    Ok(())
}

/// What mapping `buffer` says.
fn judge(device: &Device, buffer: &[u8]) -> Result<(), DmaError> {
    map_shared(device, buffer).map(drop)
}

pub(super) fn refused_for_dma() -> Outcome {
    SNOOPING.set_coherent(true);
    let mut object = check_ok!(Named::alloc(&PACKED, Gfp::KERNEL));
    let addr = object.va();
    let refused = judge(&WIDE, object.bytes());
    let cache = PACKED.name();
    check!(
        refused == Err(DmaError::Packed { addr, cache }),
        "{refused:?}"
    );
    diagnostic(format_args!("{}", DmaError::Packed { addr, cache }));
    let mut room = [ScatterEntry::default(); 1];
    let list = check_ok!(ScatterList::new(&mut room, object.bytes()));
    let refused = list.map::<ToDevice>(&WIDE).map(drop);
    check!(
        matches!(refused, Err(DmaError::Packed { .. })),
        "{refused:?}"
    );
    let mut small = check_ok!(Small::alloc(SIZE, Gfp::KERNEL));
    let refused = judge(&WIDE, small.object());
    check!(
        matches!(refused, Err(DmaError::Packed { .. })),
        "{refused:?}"
    );
    let mapped = judge(&SNOOPING, object.bytes());
    check!(mapped.is_ok(), "for a device that snoops: {mapped:?}");
    Ok(())
}

pub(super) fn refused_for_dma_planted() -> Outcome {
    let mut plain = check_ok!(Small::alloc(MAX_PACKED_SIZE + 1, Gfp::KERNEL));
    let mapped = judge(&WIDE, plain.object());
    if mapped.is_err() {
        diagnostic(format_args!("an object with lines of its own: {mapped:?}"));
        return Err(Stop::Failed);
    }
    Ok(())
}
