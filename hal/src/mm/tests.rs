use super::*;
use crate::addr::{Pfn, PhysAddr};

/// One test for the machine's own allocators: they are set up once in a process.
#[test]
fn the_machine_is_set_up_once() {
    let pfn = Pfn::new(0x4_0000);
    assert_eq!(alloc_pages(Gfp::KERNEL, 0), Err(AllocError::NotReady));
    assert_eq!(kmalloc(64, Gfp::KERNEL), Err(AllocError::NotReady));
    let ram = testing::ram(8);
    let frames = testing::frame_table(ram);
    let map = UsableRam {
        ram: &[ram],
        dma_limit: PhysAddr::new(0),
        dma32_limit: PhysAddr::new(0),
    };
    // SAFETY: the RAM and the table are the test's own; a page and an object are freed once.
    unsafe {
        assert_eq!(
            free_pages(pfn, 0),
            Err(FreeError::Frame(FrameError::Untouched(pfn)))
        );
        assert_eq!(init(frames, &map, &[]), Ok(()));
        assert_eq!(init(frames, &map, &[]), Err(InitError::Twice));
        let page = get_zeroed_page(Gfp::KERNEL).unwrap();
        assert!(ram.contains(page.phys()));
        assert_eq!(free_pages(page, 0), Ok(()));
        let object = kzalloc(100, Gfp::KERNEL).unwrap().as_ptr();
        assert_eq!(ksize(object), Ok(128));
        assert_eq!(object.read(), 0);
        assert_eq!(kfree(object), Ok(()));
        assert!(kfree(object).is_err());
    }
    kmalloc_caches().shrink();
    assert_eq!(pages().map(PageAllocator::free_pages_total), Some(2048));
}

#[test]
fn failures_say_what_was_asked() {
    let failure = AllocError::NoMemory {
        order: 3,
        gfp: Gfp::DMA,
    };
    assert!(
        failure
            .to_string()
            .starts_with("page allocation failure: order:3")
    );
}
