use super::*;
use crate::mm::testing::normal_machine;
use crate::mm::{Kmalloc, fault};

#[test]
fn g5_pages_are_charged_up_to_the_limit_and_back_when_freed() {
    static OWNER: Owner = Owner::new("g5", 5 * PAGE_SIZE);
    let (pages, _) = normal_machine(8);
    // Nobody is charged without a scope, or without the flag.
    let unowned = pages.alloc_pages(Gfp::KERNEL_ACCOUNT, 0).unwrap();
    let scope = charge_to(&OWNER).unwrap();
    let plain = pages.alloc_pages(Gfp::KERNEL, 0).unwrap();
    assert_eq!(OWNER.used(), 0);
    let block = pages.alloc_pages(Gfp::KERNEL_ACCOUNT, 2).unwrap();
    assert_eq!(OWNER.used(), 4 * PAGE_SIZE);
    let refused = AllocError::OverLimit {
        owner: "g5",
        used: 4 * PAGE_SIZE,
        limit: 5 * PAGE_SIZE,
        bytes: 2 * PAGE_SIZE,
    };
    assert_eq!(pages.alloc_pages(Gfp::KERNEL_ACCOUNT, 1), Err(refused));
    let forced = pages.alloc_pages(Gfp::KERNEL_ACCOUNT | Gfp::NOFAIL, 1);
    assert_eq!(OWNER.used(), 6 * PAGE_SIZE);
    drop(scope);
    // SAFETY: the blocks are the test's, and given up here; the wrong ones are refused.
    unsafe {
        let wrong = pages.free_pages(block, 1);
        let (has, given) = (2, 1);
        let pfn = block;
        assert_eq!(wrong, Err(FreeError::WrongOrder { pfn, has, given }));
        assert_eq!(
            OWNER.used(),
            6 * PAGE_SIZE,
            "a refused free takes no charge back"
        );
        pages.free_pages(forced.unwrap(), 1).unwrap();
        pages.free_pages(block, 2).unwrap();
        assert_eq!(OWNER.used(), 0);
        assert!(pages.free_pages(block, 2).is_err());
        assert_eq!(OWNER.used(), 0);
        pages.free_pages(plain, 0).unwrap();
        pages.free_pages(unowned, 0).unwrap();
    }
    assert_eq!(pages.free_pages_total(), 2048);
    assert!(owners().any(|owner| owner.to_string() == "g5 used:0kB limit:20kB refused:1"));
}

#[test]
fn a_failed_allocation_is_not_charged() {
    static OWNER: Owner = Owner::new("failed", 64 << 20);
    let (pages, _) = normal_machine(4);
    let _scope = charge_to(&OWNER).unwrap();
    assert!(pages.alloc_pages(Gfp::KERNEL_ACCOUNT, 10).is_err());
    fault::fail_nth(1);
    assert!(pages.alloc_pages(Gfp::KERNEL_ACCOUNT, 0).is_err());
    assert!(fault::has_fired());
    fault::disarm();
    assert_eq!(OWNER.used(), 0);
}

#[test]
fn a_block_taken_apart_stays_charged_piece_by_piece() {
    static OWNER: Owner = Owner::new("apart", 64 << 20);
    let (pages, _) = normal_machine(8);
    let free = pages.free_pages_total();
    let scope = charge_to(&OWNER).unwrap();
    for order in [0, 3, 10] {
        let block = pages.alloc_pages(Gfp::KERNEL_ACCOUNT, order).unwrap();
        // SAFETY: the block is the test's, and never touched.
        unsafe {
            assert!(pages.split_page(block, order + 1).is_err());
            assert_eq!(pages.split_page(block, order), Ok(()));
            for page in 0..1 << order {
                let left = (1 << order) - page as usize;
                assert_eq!(OWNER.used(), left * PAGE_SIZE);
                assert_eq!(pages.free_pages(block + page, 0), Ok(()));
            }
        }
        assert_eq!((OWNER.used(), pages.free_pages_total()), (0, free));
    }
    for size in [1, 5 * PAGE_SIZE, 700 * PAGE_SIZE + 1] {
        let va = pages.alloc_pages_exact(size, Gfp::KERNEL_ACCOUNT).unwrap();
        // No more than is kept: the rest of the block went back with its charge.
        assert_eq!(OWNER.used(), size.next_multiple_of(PAGE_SIZE));
        // SAFETY: as above.
        unsafe { pages.free_pages_exact(va, size) }.unwrap();
        assert_eq!((OWNER.used(), pages.free_pages_total()), (0, free));
    }
    drop(scope);
}

#[test]
fn a_large_object_keeps_its_charge_until_it_is_freed() {
    static OWNER: Owner = Owner::new("large object", 64 << 20);
    let (pages, _) = normal_machine(8);
    let kmalloc: &'static Kmalloc = Box::leak(Box::new(Kmalloc::new()));
    kmalloc.set_pages(pages);
    let scope = charge_to(&OWNER).unwrap();
    let object = kmalloc.kmalloc(20_000, Gfp::KERNEL_ACCOUNT).unwrap();
    drop(scope);
    assert_eq!(OWNER.used(), 32 << 10);
    // SAFETY: the objects are the test's.
    unsafe { kmalloc.kfree(object.as_ptr()) }.unwrap();
    assert_eq!(OWNER.used(), 0);
    // The frame remembers nothing of that.
    let again = kmalloc.kmalloc(20_000, Gfp::KERNEL).unwrap();
    // SAFETY: as above.
    unsafe { kmalloc.kfree(again.as_ptr()) }.unwrap();
    assert_eq!(OWNER.used(), 0);
}

#[test]
fn scopes_nest_and_do_not_bind_interrupt_handlers() {
    static OUTER: Owner = Owner::new("outer", 0);
    static INNER: Owner = Owner::new("inner", 0);
    let current = || Owner::current().map(Owner::name);
    let outer = charge_to(&OUTER).unwrap();
    let inner = charge_to(&INNER).unwrap();
    assert_eq!(current(), Some("inner"));
    PerCpu::current().irq_entered();
    assert_eq!(current(), None);
    PerCpu::current().irq_left();
    drop(inner);
    assert_eq!(current(), Some("outer"));
    drop(outer);
    assert_eq!(current(), None);
}

#[test]
fn objects_below_a_limit_or_of_shrinkers_are_charged_to_nobody() {
    static OWNER: Owner = Owner::new("first kind counts", 1 << 20);
    let (pages, _) = normal_machine(8);
    let kmalloc: &'static Kmalloc = Box::leak(Box::new(Kmalloc::new()));
    kmalloc.set_pages(pages);
    let _scope = charge_to(&OWNER).unwrap();
    for (more, cache) in [
        (Gfp::empty(), "kmalloc-cg"),
        (Gfp::RECLAIMABLE, "kmalloc-rcl"),
        (Gfp::DMA, "kmalloc-dma"),
        (Gfp::DMA32, "kmalloc-dma"),
        (Gfp::DMA | Gfp::RECLAIMABLE, "kmalloc-dma"),
    ] {
        let object = kmalloc.kmalloc(64, Gfp::KERNEL_ACCOUNT | more).unwrap();
        let used = if cache == "kmalloc-cg" { 64 } else { 0 };
        assert_eq!(OWNER.used(), used, "{more}");
        let mut filled = kmalloc.caches().filter(|cache| cache.slabs != 0);
        assert_eq!(filled.next().map(|cache| cache.name), Some(cache), "{more}");
        // SAFETY: the object is the test's.
        unsafe { kmalloc.kfree(object.as_ptr()) }.unwrap();
        kmalloc.shrink();
        assert_eq!(OWNER.used(), 0);
    }
}

#[test]
fn each_object_is_charged_to_its_owner_until_it_is_freed() {
    static ONE: Owner = Owner::new("one object's", 9000);
    static OTHER: Owner = Owner::new("other object's", 64 << 20);
    let (pages, _) = normal_machine(8);
    let kmalloc: &'static Kmalloc = Box::leak(Box::new(Kmalloc::new()));
    kmalloc.set_pages(pages);
    let before = pages.free_pages_total();
    let gfp = Gfp::KERNEL_ACCOUNT;
    for size in [1, 64, 100, 1000, 2048, 4096, 8192] {
        // Without a scope nobody is charged.
        let unowned = kmalloc.kmalloc(size, gfp).unwrap();
        let outer = charge_to(&ONE).unwrap();
        let one = kmalloc.kmalloc(size, gfp | Gfp::ZERO).unwrap();
        let usable = kmalloc.ksize(one.as_ptr()).unwrap();
        assert_eq!(ONE.used(), usable);
        assert!(usable >= size);
        if usable.is_power_of_two() {
            assert!(one.addr().get().is_multiple_of(usable.min(PAGE_SIZE)));
        }
        let inner = charge_to(&OTHER).unwrap();
        let others: std::vec::Vec<_> = (0..80)
            .map(|_| kmalloc.kmalloc(size, gfp).unwrap())
            .collect();
        assert_eq!((ONE.used(), OTHER.used()), (usable, 80 * usable));
        for object in &others {
            // SAFETY: the objects are the test's. All of each is written, so that an owner's
            // number in an object would be lost.
            unsafe { object.write_bytes(0xFF, usable) };
        }
        PerCpu::current().irq_entered();
        let in_handler = kmalloc.kmalloc(size, Gfp::ATOMIC | Gfp::ACCOUNT).unwrap();
        assert_eq!(OTHER.used(), 80 * usable, "a handler is nobody's task");
        // SAFETY: the object is the test's.
        unsafe { kmalloc.kfree(others[0].as_ptr()) }.unwrap();
        PerCpu::current().irq_left();
        assert_eq!(OTHER.used(), 79 * usable);
        drop((inner, outer));
        let addresses: std::vec::Vec<_> =
            others[1..].iter().map(|o| o.expose_provenance()).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for address in addresses {
                    let object = core::ptr::with_exposed_provenance_mut(address.get());
                    // SAFETY: the object was handed to this thread.
                    unsafe { kmalloc.kfree(object) }.unwrap();
                }
            });
        });
        assert_eq!((ONE.used(), OTHER.used()), (usable, 0));
        for object in [one, unowned, in_handler] {
            // SAFETY: the objects are the test's, the second time they are free and refused.
            unsafe {
                kmalloc.kfree(object.as_ptr()).unwrap();
                assert!(kmalloc.kfree(object.as_ptr()).is_err());
            }
        }
        assert_eq!(ONE.used(), 0);
    }
    kmalloc.shrink();
    assert_eq!(pages.free_pages_total(), before);
}

#[test]
fn over_its_limit_an_owner_gets_no_object() {
    static OWNER: Owner = Owner::new("small", 1024);
    let (pages, _) = normal_machine(8);
    let kmalloc: &'static Kmalloc = Box::leak(Box::new(Kmalloc::new()));
    kmalloc.set_pages(pages);
    let _scope = charge_to(&OWNER).unwrap();
    let object = kmalloc.kmalloc(700, Gfp::KERNEL_ACCOUNT).unwrap();
    let refused = AllocError::OverLimit {
        owner: "small",
        used: 768,
        limit: 1024,
        bytes: 320,
    };
    let objects = || kmalloc.caches().map(|c| c.objects_out).sum::<u32>();
    assert_eq!(kmalloc.kmalloc(300, Gfp::KERNEL_ACCOUNT), Err(refused));
    assert_eq!(objects(), 1);
    fault::fail_nth(1);
    assert!(kmalloc.kmalloc(64, Gfp::KERNEL_ACCOUNT).is_err());
    fault::disarm();
    let forced = kmalloc.kmalloc(300, Gfp::KERNEL_ACCOUNT | Gfp::NOFAIL);
    assert_eq!(OWNER.used(), 768 + 320);
    // SAFETY: the objects are the test's.
    unsafe {
        kmalloc.kfree(object.as_ptr()).unwrap();
        kmalloc.kfree(forced.unwrap().as_ptr()).unwrap();
    }
    assert_eq!((OWNER.used(), objects()), (0, 0));
}
