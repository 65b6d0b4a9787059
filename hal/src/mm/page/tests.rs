mod at_hand;
mod zones;

use super::*;
use crate::mm::FrameError;
use crate::mm::testing::{self, Oracle, frame_table, normal_machine, pages};
use crate::mmu::MemoryType;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
const NO_LIMIT: PhysAddr = PhysAddr::new(0);

fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start), size).unwrap()
}

/// A machine of three zones of `mib` MiB each; no page of it may be touched.
fn three_zones(mib: u64) -> &'static PageAllocator {
    let size = mib * MIB;
    pages(
        &[range(0, 3 * size)],
        PhysAddr::new(size),
        PhysAddr::new(2 * size),
    )
}

fn drain(pages: &PageAllocator, gfp: Gfp) -> Vec<Pfn> {
    std::iter::from_fn(|| pages.alloc_pages(gfp, 0).ok()).collect()
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn floors_of_a_16_mib_zone() {
    for (gfp, left) in [
        (Gfp::NOWAIT, 128),
        (Gfp::KERNEL, 128),
        (Gfp::KERNEL | Gfp::HIGH, 64),
        (Gfp::ATOMIC, 48),
        (Gfp::ATOMIC | Gfp::NOMEMALLOC, 64),
        (Gfp::KERNEL | Gfp::MEMALLOC, 0),
    ] {
        let pages = pages(&[range(0, 16 * MIB)], NO_LIMIT, NO_LIMIT);
        assert_eq!(pages.free_pages_total(), 4096);
        let taken = drain(pages, gfp);
        assert_eq!(pages.free_pages_total(), left, "{gfp:?}");
        assert_eq!(taken.len() as u32, 4096 - left);
        let order = 0;
        assert_eq!(
            pages.alloc_pages(gfp, 0),
            Err(AllocError::NoMemory { order, gfp })
        );
    }
}

#[test]
fn the_first_try_of_a_16_mib_zone_stops_at_low() {
    let pages = pages(&[range(0, 16 * MIB)], NO_LIMIT, NO_LIMIT);
    while pages.try_alloc(Gfp::ATOMIC, 0, Mark::Low).is_some() {}
    assert_eq!(pages.free_pages_total(), 160);
    let rights = Gfp::KERNEL | Gfp::MEMALLOC;
    assert_eq!(pages.try_alloc(rights, 0, Mark::Low), None);
}

#[test]
fn exact_sizes_take_no_more_pages_than_they_need() {
    let (pages, _) = normal_machine(16);
    let free = pages.free_pages_total();
    for size in [
        1,
        4096,
        4097,
        5 * 4096 - 7,
        512 * 4096,
        1000 * 4096,
        4 << 20,
    ] {
        let va = pages.alloc_pages_exact(size, Gfp::KERNEL).unwrap();
        let used = size.div_ceil(4096) as u32;
        assert_eq!(pages.free_pages_total(), free - used, "{size}");
        assert!(va.is_aligned(PAGE_SIZE << get_order(size)));
        // SAFETY: the pages are the test's, and never touched.
        unsafe {
            assert!(pages.free_pages_exact(va + 1, size).is_err());
            // As many frames as 2^32 are, of which 32 bits are 0.
            let size_of_all = PAGE_SIZE << u32::BITS;
            let refused = pages.free_pages_exact(va, size_of_all);
            assert!(
                matches!(refused, Err(FreeError::Size { .. })),
                "{refused:?}"
            );
            assert_eq!(pages.free_pages_exact(va, size), Ok(()));
            let first = layout::virt_to_phys(va).unwrap().pfn();
            let again = pages.free_pages_exact(va, size);
            assert!(again.is_err(), "{first} {again:?}");
        }
        assert_eq!(pages.free_pages_total(), free);
    }
    assert_eq!(pages.zone(ZoneKind::Normal).blocks[10], 4);
    for size in [0, (4 << 20) + 1, usize::MAX] {
        let refused = pages.alloc_pages_exact(size, Gfp::KERNEL);
        assert!(matches!(refused, Err(AllocError::OrderTooLarge { .. })));
    }
}

#[test]
fn orders_of_sizes() {
    let orders = [1, 4096, 4097, 8192, 8193, 4 << 20, (4 << 20) + 1].map(get_order);
    assert_eq!(orders, [0, 0, 1, 1, 2, 10, 11]);
    assert!(get_order(0) > MAX_ORDER && get_order(usize::MAX) > MAX_ORDER);
}

#[test]
fn memory_never_used_is_opened_by_pageblocks() {
    let (pages, _) = normal_machine(16);
    let blocks = || {
        let blocks = pages.zone(ZoneKind::Normal).blocks;
        (blocks[9], blocks[10])
    };
    let page = pages.alloc_pages(Gfp::KERNEL, 0).unwrap();
    let other = Pfn::new(page.get() ^ 512);
    // The other half of the block of 4 MiB has no descriptors yet, and counts.
    assert!(pages.frames().get(other).is_err());
    assert_eq!(blocks(), (1, 3));
    let large: Vec<_> = (0..3)
        .map(|_| pages.alloc_pages(Gfp::KERNEL, 10).unwrap())
        .collect();
    assert!(large.iter().all(|pfn| pfn.is_order_aligned(10)));
    assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::NOWARN, 10).is_err());
    assert_eq!(blocks(), (1, 0));
    for pfn in large {
        // SAFETY: allocated above, given back once.
        unsafe { pages.free_pages(pfn, 10) }.unwrap();
    }
    // SAFETY: as above.
    unsafe { pages.free_pages(page, 0) }.unwrap();
    assert_eq!(blocks(), (0, 4));
}

#[test]
fn split_pages_are_freed_one_by_one() {
    let (pages, _) = normal_machine(8);
    for order in [0, 3, 9, 10] {
        let block = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
        // SAFETY: the block is the test's, and never touched.
        unsafe {
            assert!(pages.split_page(block, order + 1).is_err());
            assert_eq!(pages.split_page(block, order), Ok(()));
            for page in 0..1 << order {
                assert_eq!(pages.free_pages(block + page, 0), Ok(()));
            }
        }
        assert_eq!(pages.zone(ZoneKind::Normal).blocks[10], 2, "{order}");
    }
}

#[test]
fn pages_by_address() {
    let (pages, _) = normal_machine(8);
    let va = pages.get_free_pages(Gfp::HIGHUSER, 1).unwrap();
    // SAFETY: the block is the test's, and never touched.
    unsafe {
        let inside = va + 8;
        assert_eq!(
            pages.free_pages_at(inside, 1),
            Err(FreeError::Address(inside))
        );
        assert_eq!(pages.free_pages_at(va, 1), Ok(()));
        assert!(pages.free_pages_at(va, 1).is_err());
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn memalloc_takes_the_lowmem_reserve_too() {
    let pages = three_zones(64);
    drain(pages, Gfp::KERNEL | Gfp::MEMALLOC);
    assert_eq!(pages.free_pages_total(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn only_atomic_requests_of_several_pages_build_a_reserve() {
    let size = 256 * MIB;
    let pages = pages(&[range(0, size)], NO_LIMIT, NO_LIMIT);
    let low = pages.zone(ZoneKind::Normal).watermarks.low;
    while pages.zone(ZoneKind::Normal).free > low + 2048 {
        pages.alloc_pages(Gfp::KERNEL, 10).unwrap();
    }
    while pages.try_alloc(Gfp::KERNEL, 0, Mark::Low).is_some() {}
    let reserve = || pages.zone(ZoneKind::Normal).free_highatomic;
    pages.alloc_pages(Gfp::ATOMIC, 0).unwrap();
    pages.alloc_pages(Gfp::KERNEL, 2).unwrap();
    pages.alloc_pages(Gfp::KERNEL | Gfp::HIGH, 2).unwrap();
    assert_eq!(reserve(), 0);
    let block = pages.alloc_pages(Gfp::ATOMIC, 2).unwrap();
    assert!(reserve() > 0);
    let kind = MigrateType::HighAtomic;
    assert_eq!(pages.frames().migrate_type(block), kind);
    // 1 % of 65,536 pages is 656: two pageblocks.
    let taken: Vec<_> = std::iter::from_fn(|| pages.alloc_pages(Gfp::ATOMIC, 1).ok()).collect();
    let mut blocks: Vec<_> = taken
        .iter()
        .filter(|block| pages.frames().migrate_type(**block) == kind)
        .map(|block| block.get() >> 9)
        .collect();
    blocks.dedup();
    blocks.sort_unstable();
    blocks.dedup();
    assert!(blocks.len() <= 2, "{blocks:?}");
    for block in taken {
        // SAFETY: the blocks are the test's, and never touched.
        unsafe { pages.free_pages(block, 1) }.unwrap();
    }
    // Its pages count for requests with a right to a reserve only.
    let held = reserve();
    assert!(held > 0);
    while pages.try_alloc(Gfp::KERNEL, 0, Mark::Min).is_some() {}
    let zone = pages.zone(ZoneKind::Normal);
    assert!(zone.free > zone.watermarks.min && zone.free <= zone.watermarks.min + held);
    assert!(pages.alloc_pages(Gfp::ATOMIC, 1).is_ok());
    assert!(pages.unreserve_highatomic(true));
    assert_eq!(reserve(), 0);
    assert!(!pages.unreserve_highatomic(true));
    assert!(pages.alloc_pages(Gfp::KERNEL, 0).is_ok());
}

#[test]
fn an_area_serves_movable_requests_first_while_it_has_most_of_the_free_memory() {
    let mut zone = Zone::new();
    let frames = frame_table(range(0, 32 * MIB));
    let (area, rest) = (Pfn::new(0)..Pfn::new(6144), Pfn::new(6144)..Pfn::new(8192));
    // SAFETY: the table is the test's, and no page is touched.
    unsafe {
        zone.add_range(&frames, area.clone(), MigrateType::Cma)
            .unwrap();
        zone.add_range(&frames, rest, MigrateType::Movable).unwrap();
    }
    zone.set_limits(Watermarks::default(), [0; ZoneKind::COUNT]);
    let take = |gfp, order| {
        let (highest, mark) = (ZoneKind::Normal, Mark::Low);
        let request = Request {
            gfp,
            order,
            highest,
            mark,
        };
        zone.alloc(&frames, request).map(|pfn| area.contains(&pfn))
    };
    // 4 of 6 blocks above half, then both alike; the area first again when it has more.
    let movable: Vec<_> = (0..6).map(|_| take(Gfp::HIGHUSER_MOVABLE, 10)).collect();
    assert_eq!(movable[..4], [Some(true); 4]);
    assert_eq!(
        zone.info().free_cma,
        0x400 * movable.iter().filter(|m| **m == Some(false)).count() as u32
    );
    assert_eq!(zone.info().free, 2048);
    // No other request gets any of what the area still has.
    while zone.info().free > zone.info().free_cma {
        assert_eq!(take(Gfp::KERNEL, 10), Some(false));
    }
    assert_eq!(take(Gfp::KERNEL, 0), None);
    assert_eq!(take(Gfp::KERNEL | Gfp::RECLAIMABLE, 0), None);
    assert_eq!(take(Gfp::KERNEL | Gfp::MEMALLOC, 0), None);
}

#[test]
fn contradicting_maps_are_refused() {
    let span = range(0, 64 * MIB);
    let refuse = |ram: &[PhysRange], dma, dma32| {
        let map = UsableRam {
            ram,
            dma_limit: PhysAddr::new(dma),
            dma32_limit: PhysAddr::new(dma32),
        };
        // SAFETY: the table is the test's own; no page is touched.
        unsafe { PageAllocator::new(frame_table(span), &map) }.unwrap_err()
    };
    let (a, b) = (range(0, 8 * MIB), range(7 * MIB, MIB));
    assert_eq!(refuse(&[a, b], 0, 0), InitError::Overlap(a, b));
    assert_eq!(
        refuse(&[a], MIB, 4 * MIB),
        InitError::ZoneLimit(PhysAddr::new(MIB))
    );
    assert_eq!(
        refuse(&[a], 8 * MIB, 4 * MIB),
        InitError::ZoneLimit(PhysAddr::new(4 * MIB))
    );
}

#[test]
fn zeroed_means_every_byte() {
    let (pages, _) = normal_machine(8);
    for (gfp, order) in [(Gfp::KERNEL, 2), (Gfp::KERNEL | Gfp::ZERO, 2)] {
        let pfn = pages.alloc_pages(gfp, order).unwrap();
        let bytes = layout::phys_to_virt(pfn.phys()).as_ptr::<u8>();
        if gfp.contains(Gfp::ZERO) {
            for at in 0..PAGE_SIZE << order {
                // SAFETY: the block is ours.
                assert_eq!(unsafe { bytes.add(at).read() }, 0, "byte {at}");
            }
        }
        // SAFETY: the block is ours, and given up below.
        unsafe {
            bytes.write_bytes(0xA5, PAGE_SIZE << order);
            pages.free_pages(pfn, order).unwrap();
        }
    }
    let order = 11;
    let gfp = Gfp::KERNEL;
    assert_eq!(
        pages.alloc_pages(gfp, order),
        Err(AllocError::OrderTooLarge { order, gfp })
    );
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn setting_up_touches_only_the_ragged_ends() {
    // Two ends cut a pageblock each; everything between stays untouched.
    let ragged = range(2 * MIB - 4096, 1 << 30);
    let pages = pages(&[ragged], NO_LIMIT, NO_LIMIT);
    let untouched = (0..(1 << 30) / (4 * MIB))
        .filter(|block| {
            let pfn = PhysAddr::new(block * 4 * MIB).pfn();
            pages.frames().get(pfn).err() == Some(FrameError::Untouched(pfn))
        })
        .count();
    assert!(untouched >= 254, "{untouched}");
    assert_eq!(pages.free_pages_total(), (1 << 30 >> 12) as u32);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    /// Random calls on a machine with holes, against a record of what is taken.
    #[test]
    fn blocks_lie_in_ram_and_zone_and_all_come_back(
        cuts in proptest::collection::vec(0..5000_u64, 2..8),
        steps in proptest::collection::vec(
            (any::<bool>(), 0..=10_u32, any::<usize>(), 0..5_usize),
            if cfg!(miri) { 1..30 } else { 1..300_usize },
        ),
    ) {
        let mut at = 0;
        let mut ranges = Vec::new();
        for (index, pages) in cuts.iter().enumerate() {
            if index % 2 == 1 && *pages > 0 {
                ranges.push(range(at * 4096, pages * 4096));
            }
            at += pages;
        }
        prop_assume!(!ranges.is_empty());
        let (dma, dma32) = (PhysAddr::new(8 * MIB), PhysAddr::new(24 * MIB));
        let pages = pages(&ranges, dma, dma32);
        let initial = ZoneKind::ALL.map(|kind| pages.zone(kind));
        prop_assert_eq!(
            u64::from(pages.free_pages_total()) * 4096,
            ranges.iter().map(PhysRange::size).sum::<u64>()
        );
        let mut oracle = Oracle::default();
        let mut orders = BTreeMap::new();
        let flags = [
            Gfp::KERNEL,
            Gfp::ATOMIC,
            Gfp::HIGHUSER_MOVABLE,
            Gfp::KERNEL | Gfp::DMA | Gfp::RECLAIMABLE,
            Gfp::ATOMIC | Gfp::DMA32,
        ];
        for (alloc, order, pick, gfp) in steps {
            let gfp = flags[gfp];
            if alloc {
                let Ok(pfn) = pages.alloc_pages(gfp, order) else { continue };
                let block = range(pfn.phys().get(), 4096 << order);
                prop_assert!(ranges.iter().any(|ram| ram.contains_range(&block)));
                prop_assert!(pfn.is_order_aligned(order));
                let populated_dma = initial[0].managed != 0;
                if gfp.contains(Gfp::DMA) && populated_dma {
                    prop_assert!(block.end <= dma);
                }
                if gfp.contains(Gfp::DMA32) && initial[1].managed != 0 {
                    prop_assert!(block.end <= dma32);
                }
                oracle.take(pfn.get().into(), 1 << order);
                orders.insert(u64::from(pfn.get()), order);
            } else if let Some((pfn, _)) = oracle.remove(pick) {
                let (order, pfn) = (orders[&pfn], Pfn::new(pfn as u32));
                // SAFETY: the block is the test's; its pages are never touched.
                unsafe {
                    prop_assert!(pages.free_pages(pfn, order + 1).is_err());
                    prop_assert_eq!(pages.free_pages(pfn, order), Ok(()));
                    prop_assert!(pages.free_pages(pfn, order).is_err());
                }
            }
        }
        while let Some((pfn, len)) = oracle.remove(0) {
            // SAFETY: as above.
            unsafe { pages.free_pages(Pfn::new(pfn as u32), len.ilog2()) }.unwrap();
        }
        prop_assert_eq!(ZoneKind::ALL.map(|kind| pages.zone(kind)), initial);
    }
}
