use super::*;
use crate::addr::PhysAddr;
use crate::mm::movable::{MovablePage, MovablePool};
use crate::mm::testing::{Oracle, frame_table, ram};
use crate::mm::{FreeError, UsableRam};
use crate::sync::IrqLock;
use proptest::prelude::*;

/// A machine with ordinary memory below one area, and a pool of movable pages.
struct Machine {
    pages: &'static PageAllocator,
    migration: &'static Migration,
    cma: Cma,
    pool: &'static MovablePool,
    ordinary: PhysRange,
}

impl Machine {
    /// `mib` MiB of ordinary memory and an area of `area` MiB.
    fn new(mib: u64, area: u64) -> Self {
        let whole = ram(mib + area);
        let border = whole.start + (mib as usize) * (1 << 20);
        let ordinary = PhysRange::new(whole.start, border);
        let map = UsableRam {
            ram: &[ordinary],
            dma_limit: PhysAddr::new(0),
            dma32_limit: PhysAddr::new(0),
        };
        let area = CmaArea {
            name: "test",
            frames: PhysRange::new(border, whole.end),
            is_default: true,
        };
        // SAFETY: the RAM and the table are the test's own.
        let pages = unsafe {
            let mut pages = PageAllocator::new(frame_table(whole), &map).unwrap();
            pages.lend(area.frames).unwrap();
            Box::leak(Box::new(pages))
        };
        let migration: &Migration = Box::leak(Box::new(Migration::new()));
        let pool: &MovablePool = Box::leak(Box::new(MovablePool::new(Gfp::KERNEL)));
        pool.open(pages, migration).unwrap();
        // SAFETY: the area was lent above.
        let cma = unsafe { Cma::new(area, pages, migration) }.unwrap();
        Self {
            pages,
            migration,
            cma,
            pool,
            ordinary,
        }
    }

    /// Takes all ordinary memory that unmovable requests may have, but what the pool needs to note
    /// where its pages are.
    fn hoard(&self) -> Vec<(Pfn, u32)> {
        let mut held = Vec::new();
        let spare = self.pages.alloc_pages(Gfp::KERNEL, 3).unwrap();
        for order in (0..=MAX_ORDER).rev() {
            while let Ok(pfn) = self.pages.alloc_pages(Gfp::KERNEL, order) {
                assert!(!self.cma.contains(pfn), "{pfn} is lent to movable memory");
                held.push((pfn, order));
            }
        }
        self.free(vec![(spare, 3)]);
        held
    }

    fn free(&self, held: Vec<(Pfn, u32)>) {
        for (pfn, order) in held {
            // SAFETY: `hoard` allocated the block.
            unsafe { self.pages.free_pages(pfn, order) }.unwrap();
        }
    }

    /// Fills the area with movable pages, each marked with its number.
    fn fill(&self) -> Vec<MovablePage> {
        let held = self.hoard();
        let mut pages = Vec::new();
        while let Ok(page) = self.pool.alloc() {
            pages.push(page);
        }
        self.free(held);
        for (number, page) in pages.iter_mut().enumerate() {
            mark(page, number as u32);
        }
        pages
    }

    fn release(&self, pfn: Pfn, count: u32) -> Result<(), CmaError> {
        // SAFETY: the tests use no memory of an allocation they release.
        unsafe { self.cma.release(pfn, count) }
    }
}

fn mark(page: &mut MovablePage, number: u32) {
    let mut pin = page.pin();
    for word in pin.as_chunks_mut::<4>().0 {
        *word = number.to_le_bytes();
    }
}

fn is_marked(page: &mut MovablePage, number: u32) -> bool {
    let pin = page.pin();
    pin.as_chunks::<4>()
        .0
        .iter()
        .all(|word| *word == number.to_le_bytes())
}

#[test]
fn unmovable_requests_get_nothing_of_an_area() {
    let machine = Machine::new(8, 8);
    let held = machine.hoard();
    let zone = machine.pages.zone(crate::mm::ZoneKind::Normal);
    assert!(zone.free >= machine.cma.count());
    for gfp in [Gfp::ATOMIC, Gfp::NOWAIT, Gfp::KERNEL | Gfp::MEMALLOC] {
        while let Ok(pfn) = machine.pages.alloc_pages(gfp, 0) {
            assert!(!machine.cma.contains(pfn), "{gfp:?}");
        }
    }
    let pfn = machine.pages.alloc_pages(Gfp::HIGHUSER_MOVABLE, 0).unwrap();
    assert!(machine.cma.contains(pfn));
    drop(held);
}

#[test]
fn movable_pages_move_out_and_keep_their_content() {
    let machine = Machine::new(16, 8);
    let mut pages = machine.fill();
    let there = pages.iter().filter(|page| machine.cma.contains(page.pfn()));
    assert_eq!(there.count(), 2048);
    let pfn = machine.cma.alloc(2048, 0, false).unwrap();
    assert_eq!(pfn, machine.cma.base());
    assert_eq!(machine.cma.stats().migrated, 2048);
    for (number, page) in pages.iter_mut().enumerate() {
        assert!(!machine.cma.contains(page.pfn()));
        assert!(is_marked(page, number as u32));
    }
    machine.release(pfn, 2048).unwrap();
    drop(pages);
    machine.pool.shrink();
    let blocks = machine.pages.zone(crate::mm::ZoneKind::Normal).blocks;
    // All but the page with the area's bits is whole again.
    assert_eq!(blocks[MAX_ORDER as usize], 5);
}

#[test]
fn a_pinned_page_makes_it_retry_elsewhere_or_fail_by_name() {
    let machine = Machine::new(16, 8);
    let mut pages = machine.fill();
    let base = machine.cma.base();
    let pinned = pages.iter_mut().find(|page| page.pfn() == base + 100);
    let pin = pinned.unwrap().pin();
    assert_eq!(
        machine.cma.alloc(2048, 0, false),
        Err(CmaError::Busy(base + 100))
    );
    let stats = machine.cma.stats();
    assert_eq!((stats.busy, stats.used, stats.failed), (1, 0, 1));
    let pfn = machine.cma.alloc(512, 9, false).unwrap();
    assert_eq!(pfn, base + 512);
    let next = machine.cma.alloc(64, 0, false).unwrap();
    assert_eq!(next, base);
    drop(pin);
    machine.release(pfn, 512).unwrap();
    machine.release(next, 64).unwrap();
}

#[test]
fn a_page_nobody_adopted_counts_as_pinned() {
    let machine = Machine::new(8, 4);
    let held = machine.hoard();
    let pfn = machine.pages.alloc_pages(Gfp::HIGHUSER_MOVABLE, 0).unwrap();
    assert!(machine.cma.contains(pfn));
    machine.free(held);
    assert_eq!(machine.cma.alloc(1024, 0, false), Err(CmaError::Busy(pfn)));
    // SAFETY: the page was allocated above.
    unsafe { machine.pages.free_pages(pfn, 0) }.unwrap();
    assert_eq!(machine.cma.alloc(1024, 0, false), Ok(machine.cma.base()));
}

#[test]
fn what_has_nowhere_to_go_is_named() {
    let machine = Machine::new(8, 4);
    let held = machine.hoard();
    let mut pages = Vec::new();
    while let Ok(page) = machine.pool.alloc() {
        pages.push(page);
    }
    let outcome = machine.cma.alloc(1024, 0, false);
    assert!(matches!(outcome, Err(CmaError::NoTarget(_))), "{outcome:?}");
    assert_eq!(machine.cma.stats().used, 0);
    machine.free(held);
    assert!(machine.cma.alloc(1024, 0, false).is_ok());
}

#[test]
fn alignment_is_that_of_the_physical_address() {
    let machine = Machine::new(4, 8);
    let one = machine.cma.alloc(1, 0, false).unwrap();
    for order in [0, 1, 5, 9, 10] {
        let pfn = machine.cma.alloc(3, order, false).unwrap();
        assert!(pfn.is_order_aligned(order), "{pfn} to {order}");
        machine.release(pfn, 3).unwrap();
    }
    assert_eq!(
        machine.cma.alloc(1, 21, false),
        Err(CmaError::Alignment(21))
    );
    machine.release(one, 1).unwrap();
}

#[test]
fn an_area_is_exhausted_by_name() {
    let machine = Machine::new(4, 4);
    let area = machine.cma.count();
    for count in [0, area + 1] {
        let refused = machine.cma.alloc(count, 0, false);
        assert_eq!(refused, Err(CmaError::Count { count, area }));
    }
    let all: Vec<_> = (0..4)
        .map(|_| machine.cma.alloc(256, 0, false).unwrap())
        .collect();
    let full = CmaError::Full {
        count: 1,
        align_order: 0,
    };
    assert_eq!(machine.cma.alloc(1, 0, false), Err(full));
    for pfn in all {
        machine.release(pfn, 256).unwrap();
    }
    assert_eq!(machine.cma.alloc(1024, 0, false), Ok(machine.cma.base()));
}

#[test]
fn bad_releases_are_refused_by_name() {
    let machine = Machine::new(4, 4);
    let pfn = machine.cma.alloc(10, 0, false).unwrap();
    let outside = machine.ordinary.start.pfn();
    assert_eq!(machine.release(outside, 1), Err(CmaError::Foreign(outside)));
    assert_eq!(
        machine.release(pfn + 1, 9),
        Err(CmaError::NotFirst(pfn + 1))
    );
    let (has, given) = (10, 9);
    assert_eq!(
        machine.release(pfn, 9),
        Err(CmaError::Partial { pfn, has, given })
    );
    // SAFETY: the frames are not the page allocator's now, so the calls must be refused.
    unsafe {
        let kind = FrameKind::CmaAllocated;
        assert_eq!(
            machine.pages.free_pages(pfn, 0),
            Err(FreeError::WrongKind { pfn, kind })
        );
        assert!(machine.pages.free_pages(pfn + 1, 0).is_err());
    }
    assert_eq!(machine.release(pfn, 10), Ok(()));
    assert_eq!(machine.release(pfn, 10), Err(CmaError::DoubleRelease(pfn)));
}

#[test]
fn memory_of_another_type_is_not_released() {
    let machine = Machine::new(4, 4);
    let pfn = machine.cma.alloc(3, 0, false).unwrap();
    let frames = machine.pages.frames();
    let page = pfn + 1;
    let memory_type = MemoryType::NormalNonCacheable;
    // SAFETY: the frame is the test's, and no table maps it.
    unsafe { frames.claim_memory_type(page..page + 1, memory_type) }.unwrap();
    let refused = CmaError::MemoryType {
        pfn: page,
        memory_type,
    };
    assert_eq!(machine.release(pfn, 3), Err(refused));
    // SAFETY: as above.
    unsafe { frames.release_memory_type(page..page + 1) };
    assert_eq!(machine.release(pfn, 3), Ok(()));
}

#[test]
fn a_context_that_may_not_block_is_refused_by_name() {
    let machine = Machine::new(4, 4);
    let lock = IrqLock::new(());
    let guard = lock.lock();
    assert_eq!(
        machine.cma.alloc(1, 0, false),
        Err(CmaError::Context(Context::LockHeld))
    );
    drop(guard);
    let turn = machine.migration.take_turn().unwrap();
    assert_eq!(machine.cma.alloc(1, 0, false), Err(CmaError::Nested));
    drop(turn);
    assert!(machine.cma.alloc(1, 0, true).is_ok());
}

#[test]
fn an_area_lies_in_one_zone_in_whole_blocks() {
    let whole = ram(16);
    let middle = whole.start + (8 << 20);
    let map = UsableRam {
        ram: &[],
        dma_limit: middle,
        dma32_limit: middle,
    };
    // SAFETY: the RAM and the table are the test's own.
    let mut pages = unsafe { PageAllocator::new(frame_table(whole), &map) }.unwrap();
    let part = |from: usize, to: usize| {
        PhysRange::new(whole.start + (from << 20), whole.start + (to << 20))
    };
    for (from, to) in [(2, 8), (0, 6), (4, 12)] {
        // SAFETY: as above.
        let refused = unsafe { pages.lend(part(from, to)) };
        assert!(refused.is_err(), "{from} to {to}");
    }
    // SAFETY: as above.
    assert_eq!(unsafe { pages.lend(part(4, 8)) }, Ok(()));
}

#[derive(Clone, Debug)]
enum Op {
    Movable,
    Drop(usize),
    Unmovable(u32),
    Free(usize),
    Cma(u32, u32),
    Release(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Movable),
        2 => any::<usize>().prop_map(Op::Drop),
        2 => (0..=10u32).prop_map(Op::Unmovable),
        2 => any::<usize>().prop_map(Op::Free),
        3 => (1..1500u32, 0..=10u32).prop_map(|(count, order)| Op::Cma(count, order)),
        3 => any::<usize>().prop_map(Op::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    #[test]
    fn movable_content_survives_any_sequence(
        ops in prop::collection::vec((op(), 1..200usize), 1..if cfg!(miri) { 12 } else { 60 }),
    ) {
        // SAFETY: the case's machine is not used after it.
        let _ram = unsafe { crate::layout::host::lease() };
        let machine = Machine::new(8, 8);
        let free = machine.pages.free_pages_total();
        let mut oracle = Oracle::default();
        let mut movable: Vec<(u32, MovablePage)> = Vec::new();
        let mut unmovable: Vec<(Pfn, u32)> = Vec::new();
        let mut next = 1;
        for (op, repeat) in ops {
            match op {
                Op::Movable => {
                    for _ in 0..if cfg!(miri) { 2 } else { repeat } {
                        let Ok(mut page) = machine.pool.alloc() else { break };
                        mark(&mut page, next);
                        movable.push((next, page));
                        next += 1;
                    }
                }
                Op::Drop(index) => {
                    for _ in 0..repeat {
                        let Some(at) = index.checked_rem(movable.len()) else { break };
                        let (number, mut page) = movable.swap_remove(at);
                        prop_assert!(is_marked(&mut page, number));
                    }
                }
                Op::Unmovable(order) => {
                    if let Ok(pfn) = machine.pages.alloc_pages(Gfp::KERNEL, order) {
                        prop_assert!(!machine.cma.contains(pfn));
                        oracle.take(pfn.get().into(), 1 << order);
                        unmovable.push((pfn, order));
                    }
                }
                Op::Free(index) => {
                    if let Some(at) = index.checked_rem(unmovable.len()) {
                        let (pfn, order) = unmovable.swap_remove(at);
                        oracle.forget(pfn.get().into());
                        machine.free(vec![(pfn, order)]);
                    }
                }
                Op::Cma(count, order) => match machine.cma.alloc(count, order, true) {
                    Ok(pfn) => {
                        prop_assert!(pfn.is_order_aligned(order));
                        prop_assert!(machine.cma.contains(pfn));
                        prop_assert!(machine.cma.contains(pfn + (count - 1)));
                        oracle.take(pfn.get().into(), count.into());
                    }
                    // Nothing is pinned, so an area is full or what is there has nowhere to go.
                    Err(CmaError::Full { .. } | CmaError::NoTarget(_)) => {}
                    Err(error) => prop_assert!(false, "{error}"),
                },
                Op::Release(index) => {
                    let areas = machine.cma.area.frames;
                    let held = oracle.within(areas.start.pfn().get().into());
                    if let Some(at) = index.checked_rem(held.len()) {
                        let (start, count) = held[at];
                        oracle.forget(start);
                        prop_assert_eq!(
                            machine.release(Pfn::new(start as u32), count as u32),
                            Ok(())
                        );
                    }
                }
            }
            for (_, page) in &movable {
                prop_assert!(!oracle.holds(page.pfn().get().into()));
            }
            prop_assert_eq!(
                machine.cma.stats().used,
                (0..machine.cma.count()).filter(|bit| machine.cma.state.lock().taken.is_set(*bit)).count() as u32
            );
        }
        for (number, mut page) in movable.drain(..) {
            prop_assert!(is_marked(&mut page, number));
        }
        machine.free(unmovable);
        for (start, count) in oracle.within(machine.cma.base().get().into()) {
            prop_assert_eq!(machine.release(Pfn::new(start as u32), count as u32), Ok(()));
        }
        machine.pool.shrink();
        prop_assert_eq!(machine.pages.free_pages_total(), free);
    }

    #[test]
    fn the_bitmap_finds_the_first_stretch(
        taken in prop::collection::vec(any::<bool>(), 1..300),
        from in 0..320u32,
        count in 1..100u32,
        order in 0..5u32,
        skew in 0..32u32,
    ) {
        let bits = taken.len() as u32;
        let words = vec![0; Bitmap::words_for(bits)];
        let mut map = Bitmap::new(words.leak(), bits);
        for (bit, _) in (0..).zip(&taken).filter(|(_, taken)| **taken) {
            map.set(bit..bit + 1);
        }
        let fits = |first: &u32| {
            (first + skew).is_multiple_of(1 << order)
                && first + count <= bits
                && (*first..first + count).all(|bit| !taken[bit as usize])
        };
        prop_assert_eq!(map.find_clear(from, count, order, skew), (from..bits).find(fits));
        map.set(0..bits);
        prop_assert!((0..bits).all(|bit| map.is_set(bit)) && !map.is_set(bits));
        map.clear(bits / 3..bits);
        prop_assert_eq!((0..bits).filter(|bit| map.is_set(*bit)).count() as u32, bits / 3);
    }
}
