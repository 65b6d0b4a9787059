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
    the_report_shows_the_machines_caches();
    kmalloc_caches().shrink();
    assert_eq!(pages().map(PageAllocator::free_pages_total), Some(2048));
}

fn the_report_shows_the_machines_caches() {
    static CACHE: KmemCache = match KmemCache::new("reported", 320, 64) {
        Ok(cache) => cache,
        Err(_) => panic!("a slab holds such objects"),
    };
    let pages = pages().unwrap();
    let report = || FailureReport::new(pages, Gfp::KERNEL, 0, Cause::Failure).to_string();
    assert!(!report().contains("slab reported "));
    let charged = kmalloc(64, Gfp::KERNEL_ACCOUNT).unwrap();
    let packed = kmalloc_packed(16, Gfp::KERNEL).unwrap();
    let named = CACHE.alloc(pages, Gfp::KERNEL).unwrap();
    let text = report();
    for line in [
        "\nslab kmalloc-cg-64 objects:1 slabs:1 empty:0\n",
        "\nslab kmalloc-packed-16 objects:1 slabs:1 empty:0\n",
        "\nslab reported objects:",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    // SAFETY: the objects are the test's.
    unsafe {
        kfree(charged.as_ptr()).unwrap();
        kfree(packed.as_ptr()).unwrap();
        CACHE.free(pages, named.as_ptr()).unwrap();
    }
    assert!(!CACHE.shrink(pages));
    for cache in named_caches().filter(|cache| cache.name() == "kmalloc-packed-16") {
        cache.shrink(pages);
    }
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
