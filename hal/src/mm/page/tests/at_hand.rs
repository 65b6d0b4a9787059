//! Pages at hand: what the lists of a core may hold and give.

use super::*;

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn pages_at_hand_do_not_move_the_floors() {
    for (gfp, left) in [(Gfp::KERNEL, 256), (Gfp::ATOMIC, 96)] {
        let pages = testing::with_lists(&[range(0, 64 * MIB)]);
        let taken = drain(pages, gfp);
        let zone = pages.zone(ZoneKind::Normal);
        assert_eq!((zone.free, zone.at_hand), (left, 0), "{gfp:?}");
        assert_eq!(taken.len() as u32, zone.managed - left);
    }
}

#[test]
fn a_page_at_hand_comes_back_first_and_is_not_freed_twice() {
    let pages = testing::with_lists(&[range(0, 256 * MIB)]);
    for order in 0..=3 {
        let block = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
        let before = pages.zone(ZoneKind::Normal);
        // SAFETY: the block is the test's, and never touched.
        unsafe {
            let wrong = pages.free_pages(block, order + 1);
            assert!(matches!(wrong, Err(FreeError::WrongOrder { .. })));
            assert_eq!(pages.free_pages(block, order), Ok(()));
            assert_eq!(
                pages.free_pages(block, order),
                Err(FreeError::DoubleFree(block))
            );
        }
        let after = pages.zone(ZoneKind::Normal);
        assert_eq!(after.free, before.free);
        assert_eq!(after.at_hand, before.at_hand + (1 << order));
        assert_eq!(pages.alloc_pages(Gfp::KERNEL, order), Ok(block));
        // SAFETY: as above.
        unsafe { pages.free_pages(block, order) }.unwrap();
    }
    pages.drain();
    let zone = pages.zone(ZoneKind::Normal);
    assert_eq!((zone.at_hand, zone.free), (0, zone.managed));
}

#[test]
fn a_block_with_a_frame_of_another_type_is_not_kept_at_hand() {
    let pages = testing::with_lists(&[range(0, 256 * MIB)]);
    let block = pages.alloc_pages(Gfp::KERNEL, 2).unwrap();
    let memory_type = MemoryType::NormalNonCacheable;
    let last = block + 3;
    // SAFETY: the block is the test's, and never touched.
    unsafe {
        let claimed = pages
            .frames()
            .claim_memory_type(last..last + 1, memory_type);
        claimed.unwrap();
        assert_eq!(
            pages.free_pages(block, 2),
            Err(FreeError::MemoryType {
                pfn: last,
                memory_type
            })
        );
        pages.frames().release_memory_type(last..last + 1);
        assert_eq!(pages.free_pages(block, 2), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 48 }))]

    /// Random calls with lists at hand, against a record of what is taken: every page is free, at
    /// hand or taken, and each bad free is refused and changes nothing.
    #[test]
    fn pages_are_free_at_hand_or_taken(
        steps in proptest::collection::vec(
            (0..8_u32, 0..=5_u32, any::<usize>(), 0..4_usize),
            if cfg!(miri) { 1..30 } else { 1..600_usize },
        ),
    ) {
        let span = range(0, 128 * MIB);
        let pages = testing::with_lists(&[span]);
        let initial = pages.zone(ZoneKind::Normal);
        let mut oracle = Oracle::default();
        let (mut taken, mut freed) = (0, None);
        let flags = [
            Gfp::KERNEL,
            Gfp::ATOMIC,
            Gfp::HIGHUSER_MOVABLE,
            Gfp::KERNEL | Gfp::RECLAIMABLE,
        ];
        for (what, order, pick, gfp) in steps {
            match what {
                0..4 => {
                    let pfn = pages.alloc_pages(flags[gfp], order).unwrap();
                    prop_assert!(pfn.is_order_aligned(order));
                    prop_assert!(span.contains_range(&range(pfn.phys().get(), 4096 << order)));
                    oracle.take(pfn.get().into(), 1 << order);
                    taken += 1 << order;
                    freed = None;
                }
                4..7 => if let Some((pfn, len)) = oracle.remove(pick) {
                    let (pfn, order) = (Pfn::new(pfn as u32), len.ilog2());
                    // SAFETY: the block is the test's; its pages are never touched.
                    unsafe {
                        prop_assert!(pages.free_pages(pfn, order + 1).is_err());
                        if order > 0 {
                            prop_assert!(pages.free_pages(pfn + 1, 0).is_err());
                        }
                        prop_assert_eq!(pages.free_pages(pfn, order), Ok(()));
                        prop_assert!(pages.free_pages(pfn, order).is_err());
                    }
                    taken -= 1 << order;
                    freed = Some((pfn, order));
                },
                _ => pages.drain(),
            }
            if let Some((pfn, order)) = freed {
                // SAFETY: the block is free, and nothing was allocated since.
                unsafe { prop_assert!(pages.free_pages(pfn, order).is_err()) };
            }
            let zone = pages.zone(ZoneKind::Normal);
            prop_assert_eq!(zone.free + zone.at_hand + taken, zone.managed);
        }
        while let Some((pfn, len)) = oracle.remove(0) {
            // SAFETY: as above.
            unsafe { pages.free_pages(Pfn::new(pfn as u32), len.ilog2()) }.unwrap();
        }
        pages.drain();
        prop_assert_eq!(pages.zone(ZoneKind::Normal), initial);
    }
}
