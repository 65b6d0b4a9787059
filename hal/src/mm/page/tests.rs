use super::*;
use crate::mm::FrameError;
use crate::mm::testing::{Oracle, frame_table, normal_machine, pages};
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
fn a_large_block_counts_against_the_floor_in_advance() {
    let pages = pages(&[range(0, 16 * MIB)], NO_LIMIT, NO_LIMIT);
    for left in [3072, 2048, 1024] {
        assert!(pages.alloc_pages(Gfp::KERNEL, 10).is_ok());
        assert_eq!(pages.free_pages_total(), left);
    }
    // 1024 - 1023 pages are not above the floor of 128, nor above that of an atomic request.
    assert!(pages.alloc_pages(Gfp::KERNEL, 10).is_err());
    assert!(pages.alloc_pages(Gfp::ATOMIC, 10).is_err());
    assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::MEMALLOC, 10).is_ok());
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn requests_fall_back_to_lower_zones_only() {
    let pages = three_zones(16);
    let zone = |gfp| pages.zone_of(pages.alloc_pages(gfp, 0).unwrap());
    assert_eq!(zone(Gfp::KERNEL), ZoneKind::Normal);
    assert_eq!(zone(Gfp::KERNEL | Gfp::DMA32), ZoneKind::Dma32);
    assert_eq!(zone(Gfp::KERNEL | Gfp::DMA), ZoneKind::Dma);
    let dma32: Vec<_> = drain(pages, Gfp::KERNEL | Gfp::DMA32);
    assert!(dma32.iter().all(|pfn| pfn.phys().get() < 32 * MIB));
    assert!(dma32.iter().any(|pfn| pfn.phys().get() < 16 * MIB));
    assert_eq!(zone(Gfp::KERNEL), ZoneKind::Normal);
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn a_lower_zone_keeps_its_lowmem_reserve() {
    let pages = three_zones(64);
    let marks = pages.zone(ZoneKind::Dma).watermarks;
    drain(pages, Gfp::KERNEL);
    // 1/256 of the 32768 pages of the two zones above, and 1/256 of the 16384 above DMA32.
    assert_eq!(pages.zone(ZoneKind::Dma).free, marks.min + 128);
    assert_eq!(pages.zone(ZoneKind::Dma32).free, marks.min + 64);
    assert_eq!(pages.zone(ZoneKind::Normal).free, marks.min);
    drain(pages, Gfp::KERNEL | Gfp::DMA);
    assert_eq!(pages.zone(ZoneKind::Dma).free, marks.min);
}

#[test]
fn an_empty_dma_zone_passes_its_requests_up() {
    // QEMU's virt: RAM starts where the DMA zone ends.
    let gib = 1 << 30;
    let pages = pages(
        &[range(gib, 64 * MIB)],
        PhysAddr::new(gib),
        PhysAddr::new(4 * gib),
    );
    assert_eq!(pages.zone(ZoneKind::Dma).managed, 0);
    let pfn = pages.alloc_pages(Gfp::KERNEL | Gfp::DMA, 3).unwrap();
    assert_eq!(pages.zone_of(pfn), ZoneKind::Dma32);
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
