use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::mm::frame::FrameError;
use crate::mm::testing::{Oracle, frame_table};
use crate::mmu::MemoryType;
use proptest::prelude::*;

fn table(frames: Range<u32>) -> &'static FrameTable {
    let start = PhysAddr::new(u64::from(frames.start) << 12);
    let end = PhysAddr::new(u64::from(frames.end) << 12);
    Box::leak(Box::new(frame_table(PhysRange::new(start, end))))
}

fn buddy(range: Range<u32>) -> (Buddy, &'static FrameTable) {
    let frames = table(range.clone());
    let mut buddy = Buddy::new();
    let pfns = Pfn::new(range.start)..Pfn::new(range.end);
    // SAFETY: the frames exist in the test's table only, and no page is touched.
    let added = unsafe { buddy.add_range(frames, pfns, MigrateType::Movable) };
    assert_eq!(added, range.end - range.start);
    (buddy, frames)
}

/// What a zone does with its free memory, without its lock.
impl Buddy {
    /// A block of `2^order` pages, from another migrate type if `migrate` has none left.
    fn alloc(&mut self, frames: &FrameTable, order: u32, migrate: MigrateType) -> Option<Pfn> {
        if order > MAX_ORDER {
            return None;
        }
        self.take(frames, order, order, migrate)
            .or_else(|| self.steal(frames, order, order, migrate))
            .map(|(pfn, _)| pfn)
    }

    fn free(&mut self, frames: &FrameTable, pfn: Pfn, order: u32) -> Result<(), FreeError> {
        check_allocated(frames, pfn, order)?;
        self.release(frames, pfn, order);
        Ok(())
    }
}

fn histogram(buddy: &Buddy) -> Histogram {
    let of_types = MigrateType::ALL.map(|migrate| buddy.histogram_of(migrate));
    core::array::from_fn(|order| of_types.iter().map(|blocks| blocks[order]).sum())
}

#[test]
fn split_and_merge_restore_the_histogram() {
    let (mut buddy, frames) = buddy(1024..1024 + 32);
    assert_eq!(histogram(&buddy)[5], 1);
    let pages: Vec<_> = (0..32)
        .map(|_| buddy.alloc(frames, 0, MigrateType::Movable).unwrap())
        .collect();
    // The low half of a split goes to the caller.
    assert_eq!(pages[0], Pfn::new(1024));
    assert_eq!(buddy.free_pages(), 0);
    assert_eq!(buddy.alloc(frames, 0, MigrateType::Unmovable), None);
    for pfn in pages {
        buddy.free(frames, pfn, 0).unwrap();
    }
    assert_eq!(histogram(&buddy), [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn bad_frees_are_named_and_change_nothing() {
    let (mut buddy, frames) = buddy(1024..2048);
    let pfn = buddy.alloc(frames, 2, MigrateType::Movable).unwrap();
    let before = histogram(&buddy);
    let kind = FrameKind::Tail;
    assert_eq!(
        buddy.free(frames, pfn + 1, 0),
        Err(FreeError::WrongKind { pfn: pfn + 1, kind })
    );
    assert_eq!(
        buddy.free(frames, pfn, 3),
        Err(FreeError::WrongOrder {
            pfn,
            has: 2,
            given: 3
        })
    );
    assert_eq!(
        buddy.free(frames, pfn + 4, 2),
        Err(FreeError::DoubleFree(pfn + 4))
    );
    assert_eq!(
        buddy.free(frames, Pfn::new(7), 0),
        Err(FreeError::Frame(FrameError::Untouched(Pfn::new(7))))
    );
    // Any frame of the block counts, not the first alone.
    // SAFETY: the table belongs to the test alone.
    unsafe { frames.claim_memory_type(pfn + 3..pfn + 4, MemoryType::NormalNonCacheable) }.unwrap();
    assert_eq!(
        buddy.free(frames, pfn, 2),
        Err(FreeError::MemoryType {
            pfn: pfn + 3,
            memory_type: MemoryType::NormalNonCacheable
        })
    );
    assert_eq!(histogram(&buddy), before);
    // SAFETY: as above.
    unsafe { frames.release_memory_type(pfn..pfn + 4) };
    buddy.free(frames, pfn, 2).unwrap();
    assert_eq!(histogram(&buddy)[10], 1);
    assert_eq!(buddy.free(frames, pfn, 2), Err(FreeError::DoubleFree(pfn)));
    assert_eq!(buddy.alloc(frames, 11, MigrateType::Movable), None);
}

#[test]
fn an_unmovable_request_takes_a_whole_pageblock_over() {
    let (mut buddy, frames) = buddy(1024..2048);
    let movable = buddy.alloc(frames, 0, MigrateType::Movable).unwrap();
    let kernel = buddy.alloc(frames, 0, MigrateType::Unmovable).unwrap();
    // The largest free block is the pageblock the movable page does not lie in.
    assert_eq!(kernel.get() & !511, (movable.get() & !511) + 512);
    assert_eq!(frames.migrate_type(kernel), MigrateType::Unmovable);
    assert_eq!(frames.migrate_type(movable), MigrateType::Movable);
    for _ in 0..511 {
        let next = buddy.alloc(frames, 0, MigrateType::Unmovable).unwrap();
        assert_eq!(next.get() & !511, kernel.get() & !511);
    }
}

#[test]
fn a_movable_request_takes_the_smallest_block_that_disturbs_least() {
    let (mut buddy, frames) = buddy(1024..1024 + 8);
    frames.set_migrate_type(Pfn::new(1024), MigrateType::Unmovable);
    let all = buddy.alloc(frames, 3, MigrateType::Movable).unwrap();
    buddy.free(frames, all, 3).unwrap();
    let a = buddy.alloc(frames, 0, MigrateType::Unmovable).unwrap();
    let b = buddy.alloc(frames, 0, MigrateType::Movable).unwrap();
    assert_eq!(b, a + 1);
    assert_eq!(frames.migrate_type(b), MigrateType::Unmovable);
}

#[test]
fn a_converted_pageblock_takes_its_free_blocks_along() {
    let (mut buddy, frames) = buddy(1024..2048);
    let (low, high) = (Pfn::new(1024), Pfn::new(1536));
    // Out of a larger block.
    assert_eq!(buddy.convert(frames, high, MigrateType::Isolate), 512);
    assert_eq!(buddy.histogram_of(MigrateType::Isolate)[9], 1);
    assert_eq!(buddy.histogram_of(MigrateType::Movable)[9], 1);
    assert_eq!(buddy.free_pages(), 512);
    // With some of it in use, which follows when it is freed; and no merge across the boundary.
    let page = buddy.alloc(frames, 0, MigrateType::Movable).unwrap();
    assert_eq!(page, low);
    assert_eq!(buddy.convert(frames, low, MigrateType::Cma), 511);
    assert_eq!(buddy.pages_of(MigrateType::Cma), 511);
    assert_eq!(buddy.alloc(frames, 0, MigrateType::Unmovable), None);
    assert_eq!(buddy.alloc(frames, 0, MigrateType::Movable), None);
    buddy.free(frames, page, 0).unwrap();
    assert_eq!(buddy.histogram_of(MigrateType::Cma)[9], 1);
    // Back to one block, whichever half comes first.
    assert_eq!(buddy.convert(frames, low, MigrateType::Movable), 512);
    assert_eq!(buddy.convert(frames, high, MigrateType::Unmovable), 512);
    assert_eq!(histogram(&buddy)[10], 1);
    assert_eq!(buddy.free_pages(), 1024);
}

fn steps() -> impl Strategy<Value = Vec<(bool, u32, usize, usize)>> {
    let len = if cfg!(miri) { 1..12 } else { 1..400usize };
    proptest::collection::vec((any::<bool>(), 0..=11_u32, any::<usize>(), 0..3_usize), len)
}

/// A buddy allocator that was used, with blocks on several lists.
fn used() -> (Buddy, &'static FrameTable) {
    let (mut buddy, frames) = buddy(1024..2048);
    for order in [0, 3, 0] {
        buddy.alloc(frames, order, MigrateType::Movable).unwrap();
    }
    (buddy, frames)
}

/// Each of them is the plant for the check, on lists that pass without it.
#[test]
fn damaged_lists_are_found_planted() {
    type Damage = (fn(&mut Buddy, &FrameTable), fn(&ListError) -> bool);
    const MOVABLE: usize = MigrateType::Movable as usize;
    let damages: [Damage; 8] = [
        (
            |buddy, frames| first_frame(frames, buddy.lists[MOVABLE][2].first).set_tail(),
            |error| matches!(error, ListError::NotFree { order: 2, .. }),
        ),
        (
            |buddy, _| buddy.lists[MOVABLE].swap(2, 4),
            |error| matches!(error, ListError::NotFree { order: 2, .. }),
        ),
        (
            |buddy, frames| first_frame(frames, buddy.lists[MOVABLE][2].first).set_prev(1024),
            |error| matches!(error, ListError::Link(_)),
        ),
        (
            |buddy, frames| {
                let first = buddy.lists[MOVABLE][2].first;
                first_frame(frames, first).set_next(first);
                buddy.lists[MOVABLE][2].blocks += 1;
            },
            |error| matches!(error, ListError::Link(_)),
        ),
        (
            |buddy, frames| {
                let first = buddy.lists[MOVABLE][2].first;
                first_frame(frames, first ^ 1 << 2).set_free(2, MigrateType::Movable, NO_FRAME);
            },
            |error| matches!(error, ListError::Unmerged { order: 2, .. }),
        ),
        (
            |buddy, _| buddy.lists[MOVABLE][2].blocks += 1,
            |error| matches!(error, ListError::Blocks { order: 2, .. }),
        ),
        (
            |buddy, _| buddy.occupied[MOVABLE] &= !(1 << 2),
            |error| matches!(error, ListError::Blocks { order: 2, .. }),
        ),
        (
            |buddy, _| buddy.pages[MOVABLE] -= 1,
            |error| matches!(error, ListError::Pages { .. }),
        ),
    ];
    for (number, (damage, is_named)) in damages.into_iter().enumerate() {
        let (mut buddy, frames) = used();
        let blocks = histogram(&buddy).iter().sum();
        assert_eq!(buddy.validate(frames), Ok(blocks));
        damage(&mut buddy, frames);
        let found = buddy.validate(frames).unwrap_err();
        assert!(is_named(&found), "damage {number}: {found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 128 }))]

    /// Random calls on memory with odd ends, against a record of what is taken.
    #[test]
    fn blocks_are_aligned_disjoint_and_all_come_back(
        start in 1000..2100_u32,
        len in 1..if cfg!(miri) { 200 } else { 4000_u32 },
        steps in steps(),
    ) {
        let range = start..start + len;
        let (mut buddy, frames) = buddy(range.clone());
        let initial = histogram(&buddy);
        let mut oracle = Oracle::default();
        let mut orders = std::collections::BTreeMap::new();
        for (alloc, order, pick, migrate) in steps {
            if alloc {
                let free = buddy.free_pages();
                if let Some(pfn) = buddy.alloc(frames, order, MigrateType::ALL[migrate]) {
                    prop_assert!(pfn.is_order_aligned(order));
                    prop_assert!(range.start <= pfn.get() && pfn.get() + (1 << order) <= range.end);
                    oracle.take(pfn.get().into(), 1 << order);
                    orders.insert(pfn.get(), order);
                    prop_assert_eq!(buddy.free_pages(), free - (1 << order));
                } else {
                    prop_assert!(histogram(&buddy)[order.min(11) as usize..].iter().all(|n| *n == 0));
                }
            } else if let Some((pfn, pages)) = oracle.remove(pick) {
                let order = orders[&(pfn as u32)];
                let pfn = Pfn::new(pfn as u32);
                prop_assert_eq!(pages, 1 << order);
                prop_assert_eq!(buddy.free(frames, pfn, order), Ok(()));
                prop_assert!(buddy.free(frames, pfn, order).is_err());
            }
            let blocks: u32 = histogram(&buddy).iter().sum();
            prop_assert_eq!(buddy.validate(frames), Ok(blocks));
        }
        while let Some((pfn, pages)) = oracle.remove(0) {
            buddy.free(frames, Pfn::new(pfn as u32), pages.ilog2()).unwrap();
        }
        prop_assert_eq!(histogram(&buddy), initial);
        prop_assert_eq!(buddy.free_pages(), len);
    }
}
