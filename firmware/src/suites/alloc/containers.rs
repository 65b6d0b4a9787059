//! `KBox`, `VBox`, `KVBox`, `KVec`, `VVec` and `KVVec` on this machine's memory.

use crate::failslab::lightly;
use crate::ledger::Ledger;
use crate::machine::machine;
use crate::memory::hoard::{Hoard, capacity};
use crate::random::{Random, nth};
use crate::report::{Outcome, diagnostic, fell_back};
use crate::suites::mapping::physical_breaks;
use crate::{check, check_ok, check_served};
use core::cell::Cell;
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::alloc::flags::{__GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL};
use hal::alloc::{
    AllocError, Allocator, Box, KBox, KVBox, KVVec, KVec, KVmalloc, Kmalloc, VBox, VVec, Vec,
    Vmalloc,
};
use hal::layout::{DIRECT_MAP, VMALLOC, Window};
use hal::mm::{self, MAX_ORDER, MAX_SIZE, VmallocError};
use hal::smp;
use hal::sync::IrqLock;

/// What is wrong with `bytes` as memory of `window`.
fn misplaced(bytes: &[u8], window: &Window) -> Option<&'static str> {
    let start = VirtAddr::from_ptr(bytes.as_ptr());
    let last = start + (bytes.len() - 1);
    if !window.contains(start) || !window.contains(last) {
        return Some("in another window");
    }
    match physical_breaks(
        start.align_down(PAGE_SIZE),
        start.page_offset() + bytes.len(),
    ) {
        Err(_) => Some("not mapped"),
        Ok(breaks) if breaks > 0 && window == &DIRECT_MAP => Some("not contiguous"),
        Ok(_) => None,
    }
}

/// A vector of `len` bytes.
fn bytes<A: Allocator>(len: usize) -> Result<Vec<u8, A>, AllocError> {
    Vec::from_elem(0x5A, len, GFP_KERNEL)
}

/// More than `kmalloc` gives.
const TOO_LARGE: usize = MAX_SIZE + 1;

pub(super) fn placement() -> Outcome {
    const SIZES: [usize; 4] = [1, PAGE_SIZE, 5 * PAGE_SIZE, 64 << 10];
    for size in SIZES {
        let (k, v) = (
            check_ok!(bytes::<Kmalloc>(size)),
            check_ok!(bytes::<Vmalloc>(size)),
        );
        let kv = check_ok!(bytes::<KVmalloc>(size));
        for (kind, vec, window) in [
            ("KVec", &k[..], &DIRECT_MAP),
            ("VVec", &v[..], &VMALLOC),
            // There is room for these in the direct map.
            ("KVVec", &kv[..], &DIRECT_MAP),
        ] {
            let wrong = misplaced(vec, window);
            if kind == "KVVec" && misplaced(vec, &VMALLOC).is_none() {
                // What could not be had in one piece comes in pages.
                return fell_back(format_args!("{kind} of {size} bytes: {wrong:?}"));
            }
            check!(wrong.is_none(), "{kind} of {size} bytes: {wrong:?}");
        }
    }
    let large = check_ok!(bytes::<KVmalloc>(TOO_LARGE));
    let wrong = misplaced(&large, &VMALLOC);
    check!(wrong.is_none(), "KVVec of {TOO_LARGE} bytes: {wrong:?}");
    let boxes = (
        check_ok!(KBox::new([1u8; 100], GFP_KERNEL)),
        check_ok!(VBox::new([1u8; 100], GFP_KERNEL)),
        check_ok!(KVBox::new([1u8; 100], GFP_KERNEL)),
    );
    for (kind, boxed, window) in [
        ("KBox", &boxes.0[..], &DIRECT_MAP),
        ("VBox", &boxes.1[..], &VMALLOC),
        ("KVBox", &boxes.2[..], &DIRECT_MAP),
    ] {
        let wrong = misplaced(boxed, window);
        check!(wrong.is_none(), "{kind}: {wrong:?}");
    }
    Ok(())
}

pub(super) fn placement_planted() -> Outcome {
    let (k, v) = (
        check_ok!(bytes::<Kmalloc>(64)),
        check_ok!(bytes::<Vmalloc>(64)),
    );
    check!(
        misplaced(&k, &VMALLOC).is_some(),
        "a KVec passes for a VVec"
    );
    check!(
        misplaced(&v, &DIRECT_MAP).is_some(),
        "a VVec passes for a KVec"
    );
    Ok(())
}

#[repr(align(4096))]
struct Page([u8; PAGE_SIZE]);

#[repr(align(256))]
struct Lines(u8);

fn is_aligned<T>(value: &T) -> bool {
    VirtAddr::from_ptr(value).is_aligned(align_of::<T>())
}

fn aligned_in<A: Allocator>() -> Outcome {
    let mut held = KVec::<Box<Lines, A>>::new();
    for number in 0..8 {
        let lines = check_ok!(Box::<Lines, A>::new(Lines(number), GFP_KERNEL));
        check!(
            is_aligned(&*lines),
            "{:p} for {}",
            &*lines,
            align_of::<Lines>()
        );
        check_ok!(held.push(lines, GFP_KERNEL));
        let page = check_ok!(Box::<Page, A>::new(Page([number; PAGE_SIZE]), GFP_KERNEL));
        check!(
            is_aligned(&*page) && page.0[PAGE_SIZE - 1] == number,
            "{:p}",
            &*page
        );
    }
    check!(held.iter().map(|lines| lines.0).eq(0..8), "boxes overlap");
    Ok(())
}

pub(super) fn alignment() -> Outcome {
    aligned_in::<Kmalloc>()?;
    aligned_in::<Vmalloc>()?;
    aligned_in::<KVmalloc>()
}

/// Grows a vector push by push, in pieces and back, beside what it must hold.
fn grown_in<A: Allocator>(kind: &str) -> Outcome {
    const LEN: u64 = 20_000;
    let seed = machine().seed;
    let mut vec = Vec::<u64, A>::new();
    let (mut moves, mut place) = (0, vec.as_ptr());
    for index in 0..LEN {
        check_ok!(vec.push(nth(seed, index), GFP_KERNEL));
        if place != vec.as_ptr() {
            (place, moves) = (vec.as_ptr(), moves + 1);
        }
    }
    check!(
        moves <= LEN.ilog2(),
        "{kind}: {moves} moves for {LEN} elements"
    );
    let wrong = (0..LEN).find(|&index| vec[index as usize] != nth(seed, index));
    check!(
        wrong.is_none(),
        "{kind}: element {wrong:?} is not what was pushed"
    );
    let mut random = Random::new(seed, 31);
    while let Some(last) = vec.pop() {
        let index = vec.len();
        check!(
            last == nth(seed, index as u64),
            "{kind}: popped {last:#x} at {index}"
        );
        vec.truncate(vec.len() - random.below(100).min(vec.len()));
        check_ok!(vec.shrink_to(0, GFP_KERNEL));
    }
    diagnostic(format_args!("{kind}: {LEN} elements pushed, {moves} moves"));
    Ok(())
}

pub(super) fn growth() -> Outcome {
    grown_in::<Kmalloc>("KVec")?;
    grown_in::<Vmalloc>("VVec")?;
    grown_in::<KVmalloc>("KVVec")
}

/// Counts itself out.
struct Counted<'a>(&'a Cell<usize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Values made in each of two ways. Boxes in the vmalloc window are areas of their own, few enough
/// that no page is taken for noting them.
const EACH: usize = 20;

/// Allocates with `A` in every way there is, drops all of it, and returns how many values that was.
fn come_and_go<A: Allocator>(drops: &Cell<usize>) -> Result<usize, AllocError> {
    let mut boxes = Vec::<Box<Counted<'_>, A>, A>::new();
    for _ in 0..EACH {
        boxes.push(Box::new(Counted(drops), GFP_KERNEL)?, GFP_KERNEL)?;
    }
    let mut counted = Vec::<Counted<'_>, A>::with_capacity(EACH, GFP_KERNEL)?;
    for _ in 0..EACH {
        counted.push(Counted(drops), GFP_KERNEL)?;
    }
    let slice = counted.into_boxed_slice(GFP_KERNEL)?;
    drop(boxes.pop().map(Box::drop_contents));
    boxes.truncate(EACH / 2);
    drop(boxes.into_iter().nth(EACH / 4));
    drop(slice);
    drop(bytes::<A>(MAX_SIZE / 2)?);
    Ok(2 * EACH)
}

pub(super) fn dropped() -> Outcome {
    let before = check_ok!(Ledger::take());
    let drops = Cell::new(0);
    let mut made = 0;
    made += check_ok!(come_and_go::<Kmalloc>(&drops));
    made += check_ok!(come_and_go::<Vmalloc>(&drops));
    made += check_ok!(come_and_go::<KVmalloc>(&drops));
    check!(
        drops.get() == made,
        "{made} values made, {} dropped",
        drops.get()
    );
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

pub(super) fn dropped_planted() -> Outcome {
    let before = check_ok!(Ledger::take());
    let kept = check_ok!(bytes::<Vmalloc>(PAGE_SIZE));
    let difference = before.difference(&check_ok!(Ledger::take()));
    drop(kept);
    check!(difference.is_some(), "a vector that was kept is not missed");
    Ok(())
}

/// Boxes that each core leaves for another.
static EXCHANGE: IrqLock<[Option<KBox<usize>>; 16]> = IrqLock::new([const { None }; 16]);

pub(super) fn other_cores() -> Outcome {
    const ROUNDS: usize = 200;
    let before = check_ok!(Ledger::take());
    let (foreign, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    check_ok!(smp::run_on_all(|core| {
        let mut random = Random::new(machine().seed, core as u64 + 201);
        for _ in 0..lightly(ROUNDS) {
            let Ok(boxed) = KBox::new(core, GFP_ATOMIC) else {
                refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let old = EXCHANGE.lock()[random.below(16)].replace(boxed);
            if old.is_some_and(|old| *old != core) {
                foreign.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let left = core::mem::replace(&mut *EXCHANGE.lock(), [const { None }; 16]);
    drop(left);
    diagnostic(format_args!(
        "{} boxes dropped on another core",
        foreign.into_inner()
    ));
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    check_served!(refused.into_inner());
    Ok(())
}

pub(super) fn failures() -> Outcome {
    let too_large = KVec::<u8>::with_capacity(TOO_LARGE, GFP_KERNEL).map(drop);
    check!(
        matches!(
            too_large,
            Err(AllocError::Kmalloc(mm::AllocError::SizeTooLarge {
                size: TOO_LARGE,
                ..
            }))
        ),
        "{too_large:?}"
    );
    let managed = mm::pages().map_or(0, |pages| pages.managed_pages()) as usize;
    let refused = VVec::<u8>::with_capacity((managed + 1) * PAGE_SIZE, GFP_KERNEL).map(drop);
    check!(
        matches!(
            refused,
            Err(AllocError::Vmalloc(VmallocError::TooLarge { .. }))
        ),
        "{refused:?}"
    );
    let mut words = check_ok!(KVec::from_elem(7u64, 5, GFP_KERNEL));
    let overflow = words.reserve(usize::MAX, GFP_KERNEL);
    check!(
        overflow
            == Err(AllocError::CapacityOverflow {
                count: usize::MAX,
                size: 8
            }),
        "{overflow:?}"
    );
    let refused = words.resize(TOO_LARGE, 1, GFP_KERNEL);
    check!(refused.is_err(), "{} elements", words.len());
    check!(words[..] == [7; 5], "{words:?}");
    Ok(())
}

pub(super) fn exhaustion() -> Outcome {
    let before = check_ok!(Ledger::take());
    {
        let mut words = KVec::<usize>::new();
        for number in 0..1000 {
            check_ok!(words.push(number, GFP_KERNEL));
        }
        let mut hoard = check_ok!(Hoard::new(capacity(0)));
        let gfp = GFP_KERNEL | __GFP_NOWARN;
        for order in (0..=MAX_ORDER).rev() {
            let full = hoard.fill(gfp, order);
            check!(full.is_some(), "no room to note the memory taken");
        }
        let refused = loop {
            let len = words.len();
            if let Err(error) = words.push(len, gfp) {
                break error;
            }
        };
        drop(hoard);
        diagnostic(format_args!("after {} elements: {refused}", words.len()));
        check!(
            matches!(
                refused,
                AllocError::Kmalloc(mm::AllocError::NoMemory { .. })
            ),
            "{refused:?}"
        );
        let wrong = (0..words.len()).find(|&index| words[index] != index);
        check!(wrong.is_none(), "element {wrong:?} changed");
        check_ok!(words.push(0, gfp));
    }
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

pub(super) fn under_a_lock() -> Outcome {
    let before = check_ok!(Ledger::take());
    let (to_drop, large) = (
        check_ok!(VBox::new(1, GFP_KERNEL)),
        check_ok!(bytes::<Vmalloc>(9000)),
    );
    let lock = IrqLock::new(());
    let held = lock.lock();
    let vmalloc = VBox::new(1, GFP_KERNEL).map(drop);
    let vmalloc_atomic = VBox::new(1, GFP_ATOMIC).map(drop);
    let kmalloc = KBox::new(1, GFP_ATOMIC);
    let either = KVec::from_elem(1u8, PAGE_SIZE, GFP_ATOMIC);
    let no_fallback = KVVec::<u8>::with_capacity(TOO_LARGE, GFP_ATOMIC).map(drop);
    drop((to_drop, large));
    drop(held);
    check_ok!(&kmalloc);
    check_ok!(&either);
    for refused in [vmalloc, vmalloc_atomic] {
        check!(
            matches!(refused, Err(AllocError::Vmalloc(_))),
            "{refused:?}"
        );
    }
    check!(
        matches!(no_fallback, Err(AllocError::Kmalloc(_))),
        "{no_fallback:?}"
    );
    drop((kmalloc, either));
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}
