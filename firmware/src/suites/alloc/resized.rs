//! Arrays, objects that are resized, and secrets.

use crate::memory::{Object, no_array, nothing_resized};
use crate::report::{Outcome, Stop};
use crate::suites::probe;
use crate::{check, check_ok};
use hal::addr::VirtAddr;
use hal::mm::{
    AllocError, Gfp, MAX_SIZE, ReallocError, ZERO_SIZE_PTR, array_size, array3_size,
    kmalloc_size_roundup, struct_size,
};

pub(super) fn overflow() -> Outcome {
    const MAX: usize = usize::MAX;
    for (count, size) in [(MAX, 2), (2, MAX), (1 << 32, 1 << 32), (MAX, MAX)] {
        for refused in no_array(count, size) {
            let named = match refused {
                Some(AllocError::Overflow {
                    count: n, size: s, ..
                }) => (n, s) == (count, size),
                _ => false,
            };
            check!(named, "{count} times {size}: {refused:?}");
        }
    }
    for saturated in [
        array_size(1 << 32, 1 << 32),
        array3_size(1 << 32, 1 << 31, 2),
        struct_size::<u64, u64>(MAX),
    ] {
        check!(saturated == MAX, "{saturated:#x}");
        let refused = Object::alloc(saturated, Gfp::KERNEL).map(drop);
        check!(
            matches!(refused, Err(AllocError::SizeTooLarge { size: MAX, .. })),
            "{refused:?}"
        );
    }
    Ok(())
}

/// The first byte that is not zero.
fn first_set(object: &mut Object) -> Option<usize> {
    object.bytes().iter().position(|byte| *byte != 0)
}

pub(super) fn zeroed() -> Outcome {
    for (count, size) in [(1, 1), (3, 100), (100, 80), (9, 4096)] {
        let mut dirty = check_ok!(Object::alloc(count * size, Gfp::KERNEL));
        dirty.bytes().fill(0xA5);
        check_ok!(dirty.free());
        let mut array = check_ok!(Object::array(count, size, Gfp::KERNEL | Gfp::ZERO));
        let set = first_set(&mut array);
        check!(
            set.is_none(),
            "{count} times {size}: byte {set:?} is not zero"
        );
        let last = array.usable() - 1;
        array.bytes()[last] = 1;
        check!(
            first_set(&mut array) == Some(last),
            "a dirty byte was not found"
        );
    }
    Ok(())
}

/// What is wrong with the move from an object at `from` with `usable` bytes to `to`, for `size`.
fn broken_rule(from: VirtAddr, usable: usize, size: usize, to: VirtAddr) -> Option<&'static str> {
    match (size <= usable, from == to) {
        (true, false) => Some("moved although it fits"),
        (false, true) => Some("stayed although it does not fit"),
        _ => None,
    }
}

pub(super) fn table() -> Outcome {
    let nothing = nothing_resized();
    check!(nothing == Ok(ZERO_SIZE_PTR), "{nothing:?}");
    let mut object = check_ok!(Object::resized_nothing(100, Gfp::KERNEL));
    check!(
        object.usable() == kmalloc_size_roundup(100),
        "{}",
        object.usable()
    );
    object.fill(0);
    for (round, size) in [100, 128, 1, 129, 512, 300, 8192, 8193, 20_000, 64]
        .into_iter()
        .enumerate()
    {
        let (from, usable, kept) = (object.va(), object.usable(), object.len().min(size));
        check_ok!(object.resize(size, Gfp::KERNEL));
        let broken = broken_rule(from, usable, size, object.va());
        check!(broken.is_none(), "{usable} to {size}: {broken:?}");
        check!(
            object.usable() >= usable,
            "{usable} shrank to {}",
            object.usable()
        );
        let lost = object[..kept]
            .iter()
            .position(|byte| usize::from(*byte) != round);
        check!(lost.is_none(), "{usable} to {size}: byte {lost:?} was lost");
        object.fill(round as u8 + 1);
    }
    let va = object.va();
    let refused = object.resize(MAX_SIZE + 1, Gfp::KERNEL);
    check!(
        matches!(
            refused,
            Err(ReallocError::Alloc(AllocError::SizeTooLarge { .. }))
        ),
        "{refused:?}"
    );
    let kept = object.va() == va && object.iter().all(|byte| *byte == 10);
    check!(kept, "a refused krealloc changed the object");
    let freed = check_ok!(object.resize_to_nothing());
    check!(freed == ZERO_SIZE_PTR, "{freed:p}");
    Ok(())
}

pub(super) fn table_planted() -> Outcome {
    let va = VirtAddr::new(0x1000);
    check!(
        broken_rule(va, 64, 64, va).is_none(),
        "a right move is called wrong"
    );
    check!(
        broken_rule(va, 64, 64, va + 64).is_some(),
        "a needless move passes"
    );
    check!(
        broken_rule(va, 64, 65, va).is_some(),
        "an object too small passes"
    );
    Ok(())
}

const SECRET: u8 = 0xC3;

/// A byte of the secret among `len` bytes at `va`, which nobody owns now.
fn secret_at(va: VirtAddr, len: usize) -> Option<usize> {
    (0..len).find(|&at| probe::read_u8(va + at) == Ok(u64::from(SECRET)))
}

pub(super) fn sensitive() -> Outcome {
    for size in [1, 100, 8192, 9000] {
        let mut object = check_ok!(Object::alloc(size, Gfp::KERNEL));
        let (va, usable) = (object.va(), object.usable());
        object.bytes().fill(SECRET);
        check_ok!(object.free_sensitive());
        let found = secret_at(va, usable);
        check!(found.is_none(), "{size} bytes: byte {found:?} is left");
    }
    Ok(())
}

pub(super) fn sensitive_planted() -> Outcome {
    if cfg!(feature = "slab-debug") {
        return Err(Stop::Skipped("free objects are poisoned"));
    }
    let mut object = check_ok!(Object::alloc(100, Gfp::KERNEL));
    let (va, usable) = (object.va(), object.usable());
    object.bytes().fill(SECRET);
    check_ok!(object.free());
    check!(
        secret_at(va, usable).is_some(),
        "what kfree leaves is not found"
    );
    Ok(())
}
