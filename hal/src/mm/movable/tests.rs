use super::*;
use crate::mm::testing::normal_machine;
use crate::mm::{FrameKind, Owner, charge_to};

/// A pool of its own on a machine of `mib` MiB.
fn pool(
    mib: u64,
) -> (
    &'static PageAllocator,
    &'static Migration,
    &'static MovablePool,
) {
    let (pages, _) = normal_machine(mib);
    let migration: &Migration = Box::leak(Box::new(Migration::new()));
    let pool: &MovablePool = Box::leak(Box::new(MovablePool::new(Gfp::KERNEL)));
    pool.open(pages, migration).unwrap();
    (pages, migration, pool)
}

fn block(pages: &PageAllocator, page: &MovablePage) -> MovableBlock {
    let frame = pages.frames().get(page.pfn()).unwrap();
    assert_eq!(frame.kind(), FrameKind::Movable);
    MovableBlock {
        pfn: page.pfn(),
        order: frame.order(),
        owner: OwnerId(frame.movable_owner()),
        private: frame.data(),
    }
}

#[test]
fn a_page_keeps_its_content_where_it_goes() {
    let (pages, migration, pool) = pool(8);
    let free = pages.free_pages_total();
    let mut page = pool.alloc().unwrap();
    assert!(page.pin().iter().all(|byte| *byte == 0));
    page.pin().fill(0x5C);
    let before = page.pfn();
    let turn = migration.take_turn().unwrap();
    let order = block(pages, &page);
    assert_eq!(migration.migrate(&turn, pages, &order), Ok(()));
    assert_ne!(page.pfn(), before);
    assert!(page.pin().iter().all(|byte| *byte == 0x5C));
    // The old place is free, and an order to move what was there finds nobody.
    assert_eq!(
        migration.migrate(&turn, pages, &order),
        Err(Unmoved::Pinned)
    );
    assert_eq!(pool.used(), 1);
    drop(page);
    pool.shrink();
    assert_eq!(pages.free_pages_total(), free);
}

#[test]
fn a_pinned_page_stays() {
    let (pages, migration, pool) = pool(8);
    let mut page = pool.alloc().unwrap();
    let order = block(pages, &page);
    let turn = migration.take_turn().unwrap();
    let pin = page.pin();
    assert_eq!(
        migration.migrate(&turn, pages, &order),
        Err(Unmoved::Pinned)
    );
    assert_eq!(pin.pfn(), order.pfn);
    drop(pin);
    assert_eq!(migration.migrate(&turn, pages, &order), Ok(()));
}

#[test]
fn pages_of_a_pool_are_charged_to_nobody() {
    static OWNER: Owner = Owner::new("movable pool", 1 << 20);
    let (pages, _) = normal_machine(8);
    let migration = Migration::new();
    let pool: &MovablePool = Box::leak(Box::new(MovablePool::new(Gfp::KERNEL_ACCOUNT)));
    pool.open(pages, &migration).unwrap();
    let free = pages.free_pages_total();
    let scope = charge_to(&OWNER).unwrap();
    let mut page = pool.alloc().unwrap();
    page.pin().fill(0x5C);
    assert_eq!(OWNER.used(), 0);
    let turn = migration.take_turn().unwrap();
    let order = block(pages, &page);
    assert_eq!(migration.migrate(&turn, pages, &order), Ok(()));
    assert!(page.pin().iter().all(|byte| *byte == 0x5C));
    drop((page, scope));
    pool.shrink();
    assert_eq!(OWNER.used(), 0);
    assert_eq!(pages.free_pages_total(), free);
}

/// An owner whose blocks are charged wherever they go.
struct Charged;

// SAFETY: the old block is given up on `Ok`.
unsafe impl MovableOwner for Charged {
    fn gfp(&self) -> Gfp {
        Gfp::KERNEL_ACCOUNT
    }

    unsafe fn migrate(&self, _old: Pfn, _new: Pfn, _private: u32) -> Result<(), Pinned> {
        Ok(())
    }
}

#[test]
fn a_block_that_moves_is_not_charged_again() {
    static OWNER: Owner = Owner::new("movable block", 1 << 20);
    let (pages, _) = normal_machine(8);
    let free = pages.free_pages_total();
    let migration = Migration::new();
    let owner = migration.admit(&Charged).unwrap();
    let pfn = pages.alloc_pages(Gfp::HIGHUSER_MOVABLE, 1).unwrap();
    // SAFETY: the block is the test's, and never touched.
    unsafe { Migration::adopt(pages, pfn, owner, 3) }.unwrap();
    let order = MovableBlock {
        pfn,
        order: 1,
        owner,
        private: 3,
    };
    let scope = charge_to(&OWNER).unwrap();
    let turn = migration.take_turn().unwrap();
    assert_eq!(migration.migrate(&turn, pages, &order), Ok(()));
    drop(scope);
    assert_eq!(OWNER.used(), 0);
    // One block of two pages is in use: the new one.
    assert_eq!(pages.free_pages_total(), free - 2);
    assert_eq!(
        pages.frames().get(pfn).unwrap().kind(),
        FrameKind::Free,
        "the old place is not free"
    );
}

#[test]
fn an_adopted_block_is_not_freed_as_pages() {
    let (pages, _, pool) = pool(8);
    let page = pool.alloc().unwrap();
    let pfn = page.pfn();
    let kind = FrameKind::Movable;
    // SAFETY: the block is adopted, so the calls must be refused.
    unsafe {
        assert_eq!(
            pages.free_pages(pfn, 0),
            Err(FreeError::WrongKind { pfn, kind })
        );
        assert_eq!(
            Migration::adopt(pages, pfn, OwnerId(0), 7),
            Err(FreeError::WrongKind { pfn, kind })
        );
    }
    drop(page);
    // SAFETY: nobody adopted the block, which is free.
    let again = unsafe { Migration::disown(pages, pfn) };
    let kind = FrameKind::Free;
    assert_eq!(again, Err(FreeError::WrongKind { pfn, kind }));
}

#[test]
fn the_turn_is_taken_once() {
    let migration = Migration::new();
    let turn = migration.take_turn().unwrap();
    assert!(migration.take_turn().is_none());
    let scopes = PerCpu::current().scopes();
    assert_eq!(scopes.outside(|| ()), None, "another's work, with the turn");
    drop(turn);
    assert_eq!(scopes.outside(|| ()), Some(()));
    assert!(migration.take_turn().is_some());
}

#[test]
fn a_pool_is_opened_once_and_not_used_before() {
    static POOL: MovablePool = MovablePool::new(Gfp::KERNEL);
    assert_eq!(POOL.alloc().map(drop), Err(AllocError::NotReady));
    let (pages, _) = normal_machine(8);
    let migration = Migration::new();
    for _ in 0..MAX_MOVABLE_OWNERS + 1 {
        assert_eq!(POOL.open(pages, &migration), Ok(()));
    }
    for _ in 1..MAX_MOVABLE_OWNERS {
        assert!(migration.admit(&POOL).is_ok());
    }
    assert_eq!(migration.admit(&POOL), Err(TooManyOwners));
}

#[test]
fn a_pool_has_as_many_pages_as_it_has_slots_for() {
    let (pages, _, pool) = pool(8);
    let free = pages.free_pages_total();
    let mut held = Vec::new();
    while let Ok(page) = pool.alloc() {
        held.push(page);
    }
    let mut frames: Vec<_> = held.iter().map(MovablePage::pfn).collect();
    frames.sort_unstable();
    frames.dedup();
    assert_eq!(frames.len(), held.len());
    held.clear();
    pool.shrink();
    assert_eq!(pages.free_pages_total(), free);
    assert!(pool.alloc().is_ok());
}
