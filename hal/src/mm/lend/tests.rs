use super::*;
use crate::addr::PAGE_SIZE;
use crate::mm::Gfp;
use crate::mm::testing;

fn page(number: u32) -> usize {
    number as usize * PAGE_SIZE
}

#[test]
fn what_was_handed_out_is_lent_from_any_page_to_its_end() {
    let pages = testing::pages(&[testing::ram(8)], PhysAddr::new(0), PhysAddr::new(0));
    let frames = pages.frames();
    let block = pages.alloc_pages(Gfp::KERNEL, 3).unwrap();
    let start = block.phys();
    for first in 0..8 {
        let at = start + page(first) + 7;
        let len = page(8 - first) - 7;
        assert_eq!(unlendable(frames, at, len), None, "from page {first}");
        // The next block is free: the allocator cuts blocks from below.
        let found = unlendable(frames, at, len + 1);
        assert_eq!(found, Some((block + 8, Unlendable::Free)));
    }
    // SAFETY: the block is this test's.
    unsafe { pages.free_pages(block, 3) }.unwrap();
    assert_eq!(
        unlendable(frames, start, 1),
        Some((block, Unlendable::Free))
    );
}

#[test]
fn every_kind_of_frame_has_its_answer() {
    let pages = testing::pages(&[testing::ram(8)], PhysAddr::new(0), PhysAddr::new(0));
    let frames = pages.frames();
    let block = pages.alloc_pages(Gfp::KERNEL, 0).unwrap();
    let frame = frames.get(block).unwrap();
    let answer = || unlendable(frames, block.phys(), PAGE_SIZE).map(|(_, why)| why);
    for (kind, why) in [
        (FrameKind::Allocated, None),
        (FrameKind::LargeObject, None),
        (FrameKind::Movable, None),
        (FrameKind::Accounted, None),
        (FrameKind::PcpFree, Some(Unlendable::Free)),
        (FrameKind::Free, Some(Unlendable::Free)),
        (FrameKind::Table, Some(Unlendable::Table)),
    ] {
        frame.set_kind(kind);
        assert_eq!(answer(), why, "{kind:?}");
    }
    // Five pages from an area: their number is in the first one's descriptor.
    frame.set_head(FrameKind::CmaAllocated, 0);
    frame.set_data(5);
    assert_eq!(unlendable(frames, block.phys(), page(5)), None);
    assert!(unlendable(frames, block.phys(), page(5) + 1).is_some());
    frame.set_head(FrameKind::Allocated, 0);
    // SAFETY: the frame is this test's, and nothing is mapped here.
    unsafe { frames.claim_memory_type(block..block + 1, MemoryType::NormalNonCacheable) }.unwrap();
    assert_eq!(
        answer(),
        Some(Unlendable::OtherType(MemoryType::NormalNonCacheable))
    );
}

#[test]
fn what_no_allocator_handed_out_is_nobody_s() {
    let ram = testing::ram(8);
    let pages = testing::pages(&[ram], PhysAddr::new(0), PhysAddr::new(0));
    let behind = ram.end;
    assert_eq!(
        unlendable(pages.frames(), behind, 1),
        Some((behind.pfn(), Unlendable::Unowned))
    );
    // Nothing was taken yet, so no frame has a descriptor.
    assert_eq!(
        unlendable(pages.frames(), ram.start + page(700), 1),
        Some((ram.start.pfn() + 700, Unlendable::Unowned))
    );
}

/// What whoever started the program left begins and ends where it likes, and so does what of it may
/// be lent.
#[test]
fn what_was_given_is_lent_to_the_byte() {
    // The first call wins for good, so no other test may be given this RAM.
    let ram = std::thread::spawn(|| testing::ram(1)).join().unwrap();
    let pages = testing::pages(&[testing::ram(8)], PhysAddr::new(0), PhysAddr::new(0));
    let given = PhysRange::new(ram.start + 100, ram.start + (page(2) + 50));
    note_given_memory([given].into_iter());
    let refused = |start: usize, end: usize| {
        let found = unlendable(pages.frames(), ram.start + start, end - start);
        found.map(|(pfn, why)| {
            (
                (pfn.phys().get() - ram.start.get()) as usize / PAGE_SIZE,
                why,
            )
        })
    };
    let unowned = |page| Some((page, Unlendable::Unowned));
    assert_eq!(refused(100, page(2) + 50), None);
    assert_eq!(refused(100, 101), None);
    assert_eq!(refused(page(2) + 49, page(2) + 50), None);
    assert_eq!(refused(99, 200), unowned(0));
    assert_eq!(refused(0, 1), unowned(0));
    assert_eq!(refused(page(1), page(2) + 51), unowned(2));
    assert_eq!(refused(page(2) + 50, page(2) + 51), unowned(2));
    assert_eq!(refused(page(3), page(3) + 1), unowned(3));
}
