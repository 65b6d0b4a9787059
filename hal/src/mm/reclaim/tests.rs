use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::mm::testing::{PageCache, pages, with_area};

/// Marks of a zone of 16 MiB.
const LOW: u32 = 160;
const HIGH: u32 = 192;

fn machine() -> &'static PageAllocator {
    let ram = PhysRange::new(PhysAddr::new(0), PhysAddr::new(16 << 20));
    pages(&[ram], PhysAddr::new(0), PhysAddr::new(0))
}

#[test]
fn p9_background_reclaim_is_woken_at_low_and_stops_at_high() {
    let pages = machine();
    let cache = PageCache::register(pages, "cache", Gfp::IO | Gfp::FS, 0);
    while pages.free_pages_total() > LOW {
        assert_eq!(pages.reclaim_info().wakes, 0);
        assert_eq!(cache.fill(Gfp::NOWAIT, 1), 1);
    }
    assert_eq!(cache.fill(Gfp::NOWAIT, 1), 1);
    assert_eq!(pages.reclaim_info().wakes, 1);
    assert_eq!(pages.free_pages_total(), LOW - 1);
    pages.background_reclaim();
    let free = pages.free_pages_total();
    assert!(free > HIGH && free <= HIGH + BATCH as u32, "{free}");
    let info = pages.reclaim_info();
    assert_eq!((info.background_runs, info.direct_passes), (1, 0));
    // Nothing to do: nobody is asked.
    let scans = cache.scans();
    pages.background_reclaim();
    assert_eq!(cache.scans(), scans);
}

#[test]
fn p9_what_contiguous_memory_areas_lend_does_not_end_background_reclaim() {
    let (ram, area) = (PhysAddr::new(16 << 20), PhysAddr::new(32 << 20));
    let pages = with_area(
        PhysRange::new(PhysAddr::new(0), ram),
        PhysRange::new(ram, area),
    );
    let cache = PageCache::register(pages, "cache", Gfp::empty(), 0);
    cache.fill(Gfp::NOWAIT, usize::MAX);
    let zone = || pages.zone(ZoneKind::Normal);
    assert!(zone().free_cma == 4096 && zone().spare() == zone().watermarks.min);
    pages.background_reclaim();
    let (spare, high) = (zone().spare(), zone().watermarks.high);
    assert!(spare > high && spare <= high + BATCH as u32, "{spare}");
}

#[test]
fn background_reclaim_ends_when_nothing_is_left() {
    let pages = machine();
    let cache = PageCache::register(pages, "cache", Gfp::empty(), 0);
    cache.fill(Gfp::NOWAIT, 3);
    while pages.alloc_pages(Gfp::NOWAIT, 0).is_ok() {}
    pages.background_reclaim();
    assert_eq!(cache.held(), 0);
    assert!(pages.free_pages_total() < HIGH);
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn p9_a_zone_that_stays_low_does_not_empty_the_shrinkers() {
    let (dma, ram) = (PhysAddr::new(16 << 20), PhysAddr::new(32 << 20));
    let pages = pages(&[PhysRange::new(PhysAddr::new(0), ram)], dma, dma);
    let zone = |kind| pages.zone(kind);
    // The DMA zone is full for good.
    while pages.alloc_pages(Gfp::NOWAIT | Gfp::DMA, 0).is_ok() {}
    let cache = PageCache::register(pages, "cache", Gfp::empty(), 0);
    let held = cache.fill(Gfp::NOWAIT, usize::MAX);
    pages.background_reclaim();
    let (spare, high) = (
        zone(ZoneKind::Normal).spare(),
        zone(ZoneKind::Normal).watermarks.high,
    );
    assert!(spare > high && spare <= high + BATCH as u32, "{spare}");
    let low = zone(ZoneKind::Dma);
    assert!(low.spare() <= low.watermarks.min + low.lowmem_reserve[2]);
    assert!(cache.held() + 2 * (high as usize) > held);
    // For who needs that zone, the other does not count.
    assert!(pages.alloc_pages(Gfp::NOWAIT | Gfp::DMA, 0).is_err());
    pages.background_reclaim();
    assert_eq!(cache.held(), 0);
}

#[test]
fn background_reclaim_that_gains_nothing_is_left_alone() {
    let pages = machine();
    while pages.alloc_pages(Gfp::NOWAIT, 0).is_ok() {}
    let wakes = || pages.reclaim_info().wakes;
    let wake = || {
        let before = wakes();
        assert!(pages.alloc_pages(Gfp::NOWAIT, 0).is_err());
        wakes() > before
    };
    for run in 0..MAX_FRUITLESS_RUNS {
        assert!(wake(), "run {run}");
        pages.background_reclaim();
    }
    let woken = (0..2 * REQUESTS_PER_TRIAL).filter(|_| wake()).count();
    assert_eq!(woken, 2);
    // Until there is a shrinker that may have something, or a request finds something.
    let cache = PageCache::register(pages, "cache", Gfp::empty(), 0);
    assert!(wake());
    (0..MAX_FRUITLESS_RUNS).for_each(|_| pages.background_reclaim());
    assert!(!wake());
    assert_eq!(cache.fill(Gfp::ATOMIC, 1), 1);
    assert_eq!(pages.direct_reclaim(Gfp::KERNEL, 0), Progress::Made);
    assert!(wake());
}

#[test]
fn passes_start_with_another_shrinker_each() {
    let pages = machine();
    let caches = ["a", "b"].map(|name| PageCache::register(pages, name, Gfp::empty(), 0));
    for cache in caches {
        cache.fill(Gfp::NOWAIT, 500);
    }
    while pages.alloc_pages(Gfp::NOWAIT, 0).is_ok() {}
    for _ in 0..MAX_SHRINKERS {
        assert_eq!(pages.direct_reclaim(Gfp::KERNEL, 0), Progress::Made);
    }
    assert!(caches.iter().all(|cache| cache.held() < 500));
}

#[test]
fn registration_is_checked() {
    let pages = machine();
    let cache = PageCache::register(pages, "cache", Gfp::empty(), 0);
    assert_eq!(
        pages.register_shrinker(cache),
        Err(ShrinkerError::Registered("cache"))
    );
    assert_eq!(pages.unregister_shrinker(cache), Ok(()));
    assert_eq!(
        pages.unregister_shrinker(cache),
        Err(ShrinkerError::NotRegistered("cache"))
    );
    for _ in 0..MAX_SHRINKERS {
        PageCache::register(pages, "one of many", Gfp::empty(), 0);
    }
    assert_eq!(
        pages.register_shrinker(cache),
        Err(ShrinkerError::Full("cache"))
    );
}

/// A shrinker that tries to leave while it runs.
struct Leaving(&'static PageAllocator, Once<Result<(), ShrinkerError>>);

impl Leaving {
    fn me(&self) -> &'static Self {
        // SAFETY: the test leaks the only one.
        unsafe { &*core::ptr::from_ref(self) }
    }
}

impl Shrinker for Leaving {
    fn name(&self) -> &'static str {
        "leaving"
    }

    fn count(&self) -> usize {
        1
    }

    fn scan(&self, _wanted: usize, _gfp: Gfp) -> usize {
        self.1.call_once(|| self.0.unregister_shrinker(self.me()));
        0
    }
}

#[test]
fn a_running_shrinker_stays_registered() {
    let pages = machine();
    let leaving: &'static Leaving = Box::leak(Box::new(Leaving(pages, Once::new())));
    pages.register_shrinker(leaving).unwrap();
    pages.direct_reclaim(Gfp::KERNEL, 0);
    assert_eq!(
        leaving.1.get(),
        Some(&Err(ShrinkerError::Running("leaving")))
    );
    assert_eq!(pages.unregister_shrinker(leaving), Ok(()));
}
