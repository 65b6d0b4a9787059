use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::mm::testing::{PageCache, pages, with_lists};
use crate::mm::{
    GfpError, Misuse, Shrinker, ZoneKind, memalloc_nofs, memalloc_noio, memalloc_noreclaim,
};
use crate::smp::tests::spawn_other_core;
use crate::sync::{Once, PerCpu};
use std::sync::atomic::AtomicUsize;

const MIB: u64 = 1 << 20;
/// Marks of a zone of 16 MiB.
const MIN: u32 = 128;
const ATOMIC_FLOOR: u32 = 48;

/// A zone of 16 MiB none of whose pages may be touched.
fn machine() -> &'static PageAllocator {
    let ram = PhysRange::new(PhysAddr::new(0), PhysAddr::new(16 * MIB));
    pages(&[ram], PhysAddr::new(0), PhysAddr::new(0))
}

/// The machine with all pages but `min` in a cache that needs `needs` to give them up.
fn full(needs: Gfp, reluctance: usize) -> (&'static PageAllocator, &'static PageCache) {
    let pages = machine();
    let cache = PageCache::register(pages, "cache", needs, reluctance);
    cache.fill(Gfp::NOWAIT, usize::MAX);
    assert_eq!(pages.free_pages_total(), MIN);
    (pages, cache)
}

/// A shrinker that claims to free without freeing, a number of times.
struct Boaster {
    left: AtomicUsize,
}

impl Boaster {
    fn register(pages: &PageAllocator, left: usize) {
        let boaster = Box::leak(Box::new(Self {
            left: AtomicUsize::new(left),
        }));
        pages.register_shrinker(boaster).unwrap();
    }
}

impl Shrinker for Boaster {
    fn name(&self) -> &'static str {
        "boaster"
    }

    fn count(&self) -> usize {
        self.left.load(Ordering::Relaxed).min(1)
    }

    fn scan(&self, _wanted: usize, _gfp: Gfp) -> usize {
        self.left.fetch_sub(1, Ordering::Relaxed);
        1
    }
}

/// Passes of direct reclaim that a request of `order` takes to fail, with as much progress as
/// `boasts`.
fn passes_to_fail(gfp: Gfp, order: u32, boasts: usize) -> u32 {
    let pages = machine();
    while pages.alloc_pages(Gfp::NOWAIT, 0).is_ok() {}
    Boaster::register(pages, boasts);
    assert!(pages.alloc_pages(gfp, order).is_err());
    pages.reclaim_info().direct_passes
}

#[test]
fn g1_a_blocking_request_reclaims_and_is_served() {
    let (pages, cache) = full(Gfp::empty(), 0);
    let failures = pages.reclaim_info().failures;
    assert!(pages.alloc_pages(Gfp::KERNEL, 0).is_ok());
    let info = pages.reclaim_info();
    assert_eq!((info.direct_passes, info.failures), (1, failures));
    assert_eq!(info.direct_freed, 32, "one cluster of pages");
    assert!(cache.scans() > 0);
}

#[test]
fn g2_an_atomic_request_wakes_background_reclaim_and_reclaims_nothing() {
    let (pages, cache) = full(Gfp::empty(), 0);
    let wakes = pages.reclaim_info().wakes;
    while pages.alloc_pages(Gfp::ATOMIC, 0).is_ok() {}
    assert_eq!(pages.free_pages_total(), ATOMIC_FLOOR);
    assert_eq!(cache.scans(), 0);
    let info = pages.reclaim_info();
    assert!(info.wakes > wakes && info.direct_passes == 0);
}

#[test]
fn g3_nowait_fails_at_min_in_silence() {
    let (pages, cache) = full(Gfp::empty(), 0);
    assert!(pages.alloc_pages(Gfp::NOWAIT, 0).is_err());
    assert_eq!(cache.scans(), 0);
    let info = pages.reclaim_info();
    assert_eq!((info.direct_passes, info.reports), (0, 0));
    assert!(info.failures > 0);
}

#[test]
fn g4_noio_and_nofs_reach_only_shrinkers_that_need_neither() {
    for (gfp, reached) in [
        (Gfp::KERNEL, [true, true, true]),
        (Gfp::NOFS, [true, true, false]),
        (Gfp::NOIO, [true, false, false]),
    ] {
        let (pages, plain) = full(Gfp::empty(), usize::MAX);
        let io = PageCache::register(pages, "io", Gfp::IO, usize::MAX);
        let fs = PageCache::register(pages, "fs", Gfp::FS, usize::MAX);
        // The two hold a page each, so that there is something to ask for.
        for cache in [io, fs] {
            assert_eq!(cache.fill(Gfp::ATOMIC, 1), 1);
        }
        assert!(pages.alloc_pages(gfp, 0).is_err());
        assert_eq!(
            [plain, io, fs].map(|cache| cache.scans() > 0),
            reached,
            "{gfp}"
        );
        // The same by scope.
        let before = [plain, io, fs].map(PageCache::scans);
        let scope = match reached {
            [_, true, true] => None,
            [_, true, false] => Some(memalloc_nofs()),
            _ => Some(memalloc_noio()),
        };
        assert!(pages.alloc_pages(Gfp::KERNEL, 0).is_err());
        drop(scope);
        let after = [plain, io, fs].map(PageCache::scans);
        assert_eq!(
            core::array::from_fn(|i| after[i] > before[i]),
            reached,
            "{gfp}"
        );
    }
}

#[test]
fn g8_transhuge_light_is_one_try_without_reserves_reclaim_or_report() {
    let (pages, cache) = full(Gfp::empty(), 0);
    let before = pages.reclaim_info();
    assert!(pages.alloc_pages(Gfp::TRANSHUGE_LIGHT, 9).is_err());
    let after = pages.reclaim_info();
    assert_eq!(cache.scans(), 0);
    assert_eq!(
        (after.wakes, after.direct_passes, after.reports),
        (before.wakes, 0, before.reports)
    );
    // The heavier form leaves the reserves alone even in a task that frees memory.
    let scope = memalloc_noreclaim();
    assert!(pages.alloc_pages(Gfp::TRANSHUGE, 0).is_err());
    drop(scope);
    assert!(pages.alloc_pages(Gfp::TRANSHUGE, 9).is_ok());
    assert_eq!(pages.reclaim_info().direct_passes, 1);
}

#[test]
fn g10_nofail_waits_until_something_is_freed() {
    let (pages, cache) = full(Gfp::empty(), 7);
    // Below what the half of the reserve allows, too.
    while pages.alloc_pages(Gfp::ATOMIC, 0).is_ok() {}
    assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::NOFAIL, 0).is_ok());
    assert!(cache.scans() > 7);
    // NORETRY does not change that.
    let gfp = Gfp::KERNEL | Gfp::NOFAIL | Gfp::NORETRY;
    let misuses = Misuse::Flags(GfpError::NofailNoretry(gfp)).count();
    assert!(pages.alloc_pages(gfp, 0).is_ok());
    assert!(Misuse::Flags(GfpError::NofailNoretry(gfp)).count() > misuses);
}

#[test]
fn g10_a_looping_nofail_request_has_half_of_the_reserve() {
    let (pages, _) = full(Gfp::FS, 0);
    assert!(pages.alloc_pages(Gfp::NOFS | Gfp::NOFAIL, 0).is_ok());
    assert_eq!(pages.free_pages_total(), MIN - 1);
    assert!(pages.alloc_pages(Gfp::NOFS, 0).is_err());
}

#[test]
fn g10_nofail_in_a_task_that_frees_memory_waits_without_reclaim() {
    let (pages, cache) = full(Gfp::empty(), 0);
    let misuses = Misuse::NofailReclaim.count();
    let scope = memalloc_noreclaim();
    let mut last = None;
    while let Ok(page) = pages.alloc_pages(Gfp::KERNEL, 0) {
        last = Some(page);
    }
    let last = last.unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while Misuse::NofailReclaim.count() == misuses {
                std::thread::yield_now();
            }
            // SAFETY: the page is the test's, and never touched.
            unsafe { pages.free_pages(last, 0) }.unwrap();
        });
        let gfp = Gfp::KERNEL | Gfp::NOFAIL;
        assert_eq!(pages.alloc_pages(gfp, 0), Ok(last));
    });
    drop(scope);
    assert_eq!(cache.scans(), 0);
}

#[test]
fn g10_misuse_of_nofail_is_counted() {
    let (pages, _) = full(Gfp::empty(), 0);
    let large = Misuse::NofailOrder(2).count();
    assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::NOFAIL, 2).is_ok());
    assert!(Misuse::NofailOrder(2).count() > large);
    let gfp = Gfp::ATOMIC | Gfp::NOFAIL;
    let kind = Misuse::Flags(GfpError::NofailNonblocking(gfp));
    let atomic = kind.count();
    while pages.alloc_pages(gfp, 0).is_ok() {}
    assert!(kind.count() > atomic);
}

#[test]
fn g11_noretry_takes_one_pass() {
    assert_eq!(passes_to_fail(Gfp::KERNEL | Gfp::NORETRY, 0, 40), 1);
    assert_eq!(passes_to_fail(Gfp::KERNEL | Gfp::NORETRY, 9, 40), 1);
}

#[test]
fn g12_retry_mayfail_takes_bounded_passes_while_there_is_progress() {
    let gfp = Gfp::KERNEL | Gfp::RETRY_MAYFAIL;
    assert_eq!(passes_to_fail(gfp, 9, 40), COSTLY_PASSES);
    assert_eq!(passes_to_fail(gfp, 9, 3), 4);
}

#[test]
fn a_costly_order_takes_one_pass_and_a_small_one_goes_on_while_there_is_progress() {
    assert_eq!(passes_to_fail(Gfp::KERNEL, 4, 40), 1);
    assert_eq!(passes_to_fail(Gfp::KERNEL, 3, 40), 41);
    assert_eq!(passes_to_fail(Gfp::KERNEL, 0, 0), 1);
}

#[test]
fn memalloc_uses_every_page_and_nomemalloc_beats_it() {
    let (pages, cache) = full(Gfp::empty(), 0);
    let scope = memalloc_noreclaim();
    assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::NOMEMALLOC, 0).is_err());
    let mut taken = 0;
    while pages.alloc_pages(Gfp::KERNEL, 0).is_ok() {
        taken += 1;
    }
    drop(scope);
    assert_eq!((taken, cache.scans()), (MIN, 0));
}

/// A shrinker that needs memory to free memory.
struct Needy {
    pages: &'static PageAllocator,
    depth: AtomicUsize,
    deepest: AtomicUsize,
    served: AtomicUsize,
}

impl Shrinker for Needy {
    fn name(&self) -> &'static str {
        "needy"
    }

    fn count(&self) -> usize {
        1
    }

    fn scan(&self, _wanted: usize, gfp: Gfp) -> usize {
        let depth = self.depth.fetch_add(1, Ordering::Relaxed) + 1;
        self.deepest.fetch_max(depth, Ordering::Relaxed);
        if self.pages.alloc_pages(gfp, 0).is_ok() {
            self.served.fetch_add(1, Ordering::Relaxed);
        }
        self.depth.fetch_sub(1, Ordering::Relaxed);
        0
    }
}

#[test]
fn a_shrinker_that_allocates_is_served_from_the_reserve_and_not_entered_again() {
    let (pages, _) = full(Gfp::FS, 0);
    let needy: &'static Needy = Box::leak(Box::new(Needy {
        pages,
        depth: AtomicUsize::new(0),
        deepest: AtomicUsize::new(0),
        served: AtomicUsize::new(0),
    }));
    pages.register_shrinker(needy).unwrap();
    assert!(pages.alloc_pages(Gfp::NOFS, 0).is_err());
    assert_eq!(needy.deepest.load(Ordering::Relaxed), 1);
    assert_eq!(needy.served.load(Ordering::Relaxed), 1);
}

/// A shrinker during whose call another task asks for memory.
struct Amid {
    pages: &'static PageAllocator,
    served: Once<bool>,
}

impl Shrinker for Amid {
    fn name(&self) -> &'static str {
        "amid"
    }

    fn count(&self) -> usize {
        1
    }

    fn scan(&self, _wanted: usize, _gfp: Gfp) -> usize {
        let ask = || self.pages.alloc_pages(Gfp::KERNEL, 0).is_ok();
        let another_task = PerCpu::current().scopes();
        let served = self.served.call_once(|| another_task.outside(ask).unwrap());
        usize::from(*served)
    }
}

/// Whether a request is served while a shrinker runs elsewhere and another one gives nothing up
/// at its first `reluctance` calls; and the passes that took.
fn ask_amid_a_call(reluctance: usize) -> (bool, u32) {
    let (pages, _) = full(Gfp::empty(), reluctance);
    let served = Once::new();
    let amid = Box::leak(Box::new(Amid { pages, served }));
    pages.register_shrinker(amid).unwrap();
    let gfp = Gfp::KERNEL | Gfp::NORETRY;
    let _ = pages.alloc_pages(gfp, 0);
    let passes = pages.reclaim_info().direct_passes - 1;
    (*amid.served.get().unwrap(), passes)
}

#[test]
fn a_shrinker_that_runs_elsewhere_is_worth_waiting_for() {
    assert_eq!(ask_amid_a_call(10), (true, 10));
    assert_eq!(ask_amid_a_call(usize::MAX), (false, 1 + BUSY_PASSES));
}

#[test]
fn g13_a_failure_is_reported_unless_nowarn_says_otherwise() {
    let (pages, _) = full(Gfp::FS, usize::MAX);
    let before = pages.reclaim_info();
    assert!(pages.alloc_pages(Gfp::NOFS | Gfp::NOWARN, 0).is_err());
    assert!(pages.alloc_pages(Gfp::NOFS, 0).is_err());
    let after = pages.reclaim_info();
    assert_eq!(after.failures - before.failures, 2);
    assert_eq!(after.reports - before.reports, 1);
}

#[test]
fn only_small_requests_with_all_rights_mean_that_memory_is_out() {
    assert_eq!(cause(Gfp::KERNEL, 3), Cause::OutOfMemory);
    for (rights, order) in [
        (Gfp::KERNEL, 4),
        (Gfp::NOFS, 0),
        (Gfp::KERNEL | Gfp::NORETRY, 0),
        (Gfp::KERNEL | Gfp::RETRY_MAYFAIL, 0),
    ] {
        assert_eq!(cause(rights, order), Cause::Failure, "{rights}");
    }
}

/// RAM from 0 on, no page of which may be touched.
fn ram(mib: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(0), PhysAddr::new(mib * MIB))
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn a_page_on_another_cores_list_is_found() {
    let other = spawn_other_core();
    let pages = with_lists(&[ram(64)]);
    let page = pages.alloc_pages(Gfp::KERNEL, 0).unwrap();
    while pages.alloc_pages(Gfp::NOWAIT, 0).is_ok() {}
    let min = pages.zone(ZoneKind::Normal).watermarks.min;
    // SAFETY: the page is the test's, and never touched.
    smp::run_on(other, || unsafe { pages.free_pages(page, 0) })
        .unwrap()
        .unwrap();
    assert_eq!(pages.free_pages_total(), min);
    assert!(pages.alloc_pages(Gfp::NOWAIT, 0).is_err());
    assert!(pages.alloc_pages(Gfp::NOFS | Gfp::NORETRY, 0).is_err());
    // A thread of the host may take longer to answer than a core does.
    let found = (0..1000).find_map(|_| pages.alloc_pages(Gfp::NOFS, 0).ok());
    assert_eq!(found, Some(page));
    assert_eq!(pages.free_pages_total(), min);
}

/// A machine with a page above min, but also pages in the reserve for atomic requests.
fn machine_with_reserve() -> &'static PageAllocator {
    let pages = pages(&[ram(256)], PhysAddr::new(0), PhysAddr::new(0));
    let page = pages.alloc_pages(Gfp::KERNEL, 0).unwrap();
    while pages.alloc_pages(Gfp::NOWAIT, 0).is_ok() {}
    let atomic = pages.alloc_pages(Gfp::ATOMIC, 1).unwrap();
    // SAFETY: the blocks are the test's, and never touched.
    unsafe {
        pages.free_pages(atomic, 1).unwrap();
        pages.free_pages(page, 0).unwrap();
    }
    assert!(pages.zone(ZoneKind::Normal).free_highatomic > 1);
    pages
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn the_reserve_for_atomic_requests_is_the_last_resort() {
    let pages = machine_with_reserve();
    for gfp in [Gfp::NOWAIT, Gfp::KERNEL | Gfp::NORETRY] {
        assert!(pages.alloc_pages(gfp, 0).is_err(), "{gfp}");
    }
    assert!(pages.zone(ZoneKind::Normal).free_highatomic > 0);
    assert!(pages.alloc_pages(Gfp::KERNEL, 0).is_ok());
    assert_eq!(pages.zone(ZoneKind::Normal).free_highatomic, 0);
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn the_reserve_for_atomic_requests_takes_no_memory_never_used() {
    let pages = pages(&[ram(256)], PhysAddr::new(0), PhysAddr::new(0));
    let zone = || pages.zone(ZoneKind::Normal);
    while zone().free > 1024 {
        pages.alloc_pages(Gfp::KERNEL, 10).unwrap();
    }
    // From the first half of the last block of 4 MiB.
    let mut taken = Vec::new();
    while zone().free >= zone().watermarks.low {
        taken.push(pages.alloc_pages(Gfp::NOWAIT, 0).unwrap());
    }
    let atomic = pages.alloc_pages(Gfp::ATOMIC, 1).unwrap();
    assert!(zone().free_highatomic > 0);
    // SAFETY: the blocks are the test's, and never touched.
    unsafe {
        pages.free_pages(atomic, 1).unwrap();
        for page in taken {
            pages.free_pages(page, 0).unwrap();
        }
    }
    assert_eq!((zone().free_highatomic, zone().free), (512, 1024));
    assert!(pages.unreserve_highatomic(true));
    assert_eq!((zone().free_highatomic, zone().blocks[10]), (0, 1));
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn a_task_that_frees_memory_has_the_reserve_for_atomic_requests_too() {
    let pages = machine_with_reserve();
    let scope = memalloc_noreclaim();
    while pages.alloc_pages(Gfp::KERNEL, 0).is_ok() {}
    drop(scope);
    assert_eq!(pages.free_pages_total(), 0);
}
