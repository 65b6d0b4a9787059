//! Frees of what is no block, or not that block.

use crate::ledger::Ledger;
use crate::machine::machine;
use crate::memory::{self, Object, Pages};
use crate::report::{Outcome, Stop, diagnostic};
use crate::{check, check_ok};
use hal::addr::PhysAddr;
use hal::mm::{self, FrameError, FrameKind, FreeError, Gfp, MAX_ORDER, ZoneKind};

pub(super) fn bad_frees() -> Outcome {
    let before = check_ok!(Ledger::take());
    let refusals: [(&str, FreeError); 6] = {
        let block = check_ok!(Pages::alloc(Gfp::KERNEL, 3));
        let coherent = machine().pool.frames().start.pfn();
        let image = machine().image.frames().start.pfn();
        let end = machine().map.ram().iter().map(|ram| ram.end).max();
        let beyond = end.unwrap_or(PhysAddr::new(0)).pfn();
        let object = check_ok!(Object::alloc(64, Gfp::KERNEL));
        let (first, second) = check_ok!(Pages::alloc(Gfp::KERNEL, 0)).free_twice();
        check_ok!(first);
        let all = [
            ("double free", Some(second)),
            ("wrong order", Some(block.free_with_order(2))),
            ("page in a block", Some(block.free_tail(1))),
            ("pool page", memory::free_foreign(coherent)),
            ("image page", memory::free_foreign(image)),
            ("no RAM", memory::free_foreign(beyond)),
        ];
        let slab = object.free_as_page();
        check!(
            matches!(
                slab,
                Err(FreeError::WrongKind {
                    kind: FrameKind::Slab,
                    ..
                })
            ),
            "an object freed as a page: {slab:?}"
        );
        let mut errors = heapless::Vec::<(&str, FreeError), 6>::new();
        for (what, result) in all {
            let Some(Err(error)) = result else {
                check!(false, "{what} was not refused: {result:?}");
                return Ok(());
            };
            diagnostic(format_args!("{what}: {error}"));
            let _ = errors.push((what, error));
        }
        match errors.into_array() {
            Ok(array) => array,
            Err(_) => return Err(Stop::Failed),
        }
    };
    let [double, order, tail, pool, image, beyond] = refusals.map(|(_, error)| error);
    check!(matches!(double, FreeError::DoubleFree(_)), "{double}");
    check!(
        matches!(
            order,
            FreeError::WrongOrder {
                has: 3,
                given: 2,
                ..
            }
        ),
        "{order}"
    );
    check!(
        matches!(
            tail,
            FreeError::WrongKind {
                kind: FrameKind::Tail,
                ..
            }
        ),
        "{tail}"
    );
    check!(
        matches!(pool, FreeError::Frame(FrameError::SetAside { .. })),
        "{pool}"
    );
    check!(matches!(image, FreeError::Frame(_)), "{image}");
    check!(matches!(beyond, FreeError::Frame(_)), "{beyond}");
    let changed = before.difference(&check_ok!(Ledger::take()));
    check!(
        changed.is_none(),
        "a refused free changed something: {changed:?}"
    );
    Ok(())
}

pub(super) fn freed_twice_at_hand() -> Outcome {
    let before = check_ok!(Ledger::take());
    for order in 0..=MAX_ORDER {
        let block = check_ok!(Pages::alloc(Gfp::KERNEL, order));
        let (first, second) = block.free_twice();
        check_ok!(first);
        check!(
            matches!(second, Err(FreeError::DoubleFree(_))),
            "order {order} freed twice: {second:?}"
        );
    }
    let difference = before.difference(&check_ok!(Ledger::take()));
    check!(difference.is_none(), "{difference:?}");
    Ok(())
}

/// Blocks on the lists of all zones, each of which was looked at.
fn sound_blocks() -> Result<u32, Stop> {
    let pages = mm::pages().ok_or(Stop::Failed)?;
    let mut blocks = 0;
    for kind in ZoneKind::ALL {
        blocks += check_ok!(pages.validate(kind));
    }
    Ok(blocks)
}

pub(super) fn sound() -> Outcome {
    let before = sound_blocks()?;
    // Several lists get blocks, and wrong frees meet free and used ones beside each other.
    let blocks = (0..=MAX_ORDER).map(|order| Pages::alloc(Gfp::KERNEL, order));
    let mut held = heapless::Vec::<Pages, { MAX_ORDER as usize + 1 }>::new();
    for block in blocks {
        // There is room for one of each order.
        let _ = held.push(check_ok!(block));
    }
    for (order, block) in (0..).zip(&held) {
        let wrong = if order > 0 { order - 1 } else { MAX_ORDER };
        let refused = block.free_with_order(wrong);
        check!(refused.is_err(), "order {order} was freed as {wrong}");
    }
    while let Some(block) = held.pop() {
        let (first, second) = block.free_twice();
        check_ok!(first);
        check!(second.is_err(), "a block was freed twice");
    }
    check_ok!(Ledger::take());
    let after = sound_blocks()?;
    check!(after > 0, "no block was looked at");
    diagnostic(format_args!("{before} blocks on the lists, then {after}"));
    Ok(())
}
