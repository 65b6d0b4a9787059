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
fn a_large_object_keeps_its_charge_until_it_is_freed() {
    static OWNER: Owner = Owner::new("large object", 64 << 20);
    let (pages, _) = normal_machine(8);
    let kmalloc: &'static Kmalloc = Box::leak(Box::default());
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
