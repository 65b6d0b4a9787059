//! Which zone serves a request, and what it keeps.

use super::*;

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
