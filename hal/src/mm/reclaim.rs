//! Reclaim: shrinkers run for a request that found no memory, and in the background before that.
//!
//! ```text
//! free pages   high ---- background reclaim stops, in any zone that can serve who woke it
//!              low  ---- below it, a request wakes background reclaim
//!              min  ---- below it, a blocking request reclaims by itself
//! ```
//!
//! Background reclaim is [`Work::Reclaim`](crate::deferred::Work): an idle core does it, or the next
//! request that may block and enter file systems.

use super::page::PageAllocator;
use super::scope::memalloc_noreclaim;
use super::shrinker::{Answer, MAX_SHRINKERS, Shrinkers};
use super::zone::ZoneKind;
use super::{Gfp, Shrinker, ShrinkerError, ShrinkerInfo};
use crate::sync::Once;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Pages a direct reclaim tries to free at least. Linux: `SWAP_CLUSTER_MAX`.
const CLUSTER: u32 = 32;

/// Objects a shrinker is asked for at a time: few, so that reclaim stops close to its goal.
const BATCH: usize = 32;

/// Runs of background reclaim in a row that gained nothing, after which it is woken but now and then
/// until it or direct reclaim gains something. Linux: `MAX_RECLAIM_RETRIES`.
const MAX_FRUITLESS_RUNS: u32 = 16;

/// Requests of which one wakes background reclaim after that: what the shrinkers have may grow.
const REQUESTS_PER_TRIAL: u32 = 64;

/// What reclaim has done on a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimInfo {
    /// Requests that found less than a low watermark free and woke background reclaim.
    pub wakes: u32,
    /// Runs of background reclaim.
    pub background_runs: u32,
    /// Objects given up in the background.
    pub background_freed: usize,
    /// Passes of direct reclaim.
    pub direct_passes: u32,
    /// Objects given up in direct reclaim.
    pub direct_freed: usize,
    /// Requests that failed for want of memory.
    pub failures: u32,
    /// Failures that were reported: those without [`Gfp::NOWARN`].
    pub reports: u32,
}

/// What a pass of reclaim came to.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    /// Objects given up.
    freed: usize,
    /// Whether a shrinker was left out because it was running.
    busy: bool,
}

/// What a pass of direct reclaim gained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Some memory.
    Made,
    /// None, but another core may be about to free some: it runs a shrinker.
    Elsewhere,
    /// None.
    None,
}

/// The reclaim state of a page allocator.
#[derive(Debug)]
pub(super) struct Reclaim {
    pub(super) shrinkers: Shrinkers,
    /// Where the next pass starts, so that no shrinker is always the first to be asked.
    next: AtomicUsize,
    waker: Once<fn()>,
    /// What each core does to give back what it has at hand of other things than pages.
    core_shrinker: Once<fn()>,
    /// One more than the highest zone that the requests since the last background run admit.
    woken_for: AtomicU32,
    /// Background runs since there was no need or something was gained, and the requests that found
    /// these too many.
    fruitless_runs: AtomicU32,
    spared: AtomicU32,
    wakes: AtomicU32,
    background_runs: AtomicU32,
    background_freed: AtomicUsize,
    direct_passes: AtomicU32,
    direct_freed: AtomicUsize,
    pub(super) failures: AtomicU32,
    pub(super) reports: AtomicU32,
}

impl Reclaim {
    pub(super) const fn new() -> Self {
        Self {
            shrinkers: Shrinkers::new(),
            next: AtomicUsize::new(0),
            waker: Once::new(),
            core_shrinker: Once::new(),
            woken_for: AtomicU32::new(0),
            fruitless_runs: AtomicU32::new(0),
            spared: AtomicU32::new(0),
            wakes: AtomicU32::new(0),
            background_runs: AtomicU32::new(0),
            background_freed: AtomicUsize::new(0),
            direct_passes: AtomicU32::new(0),
            direct_freed: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            reports: AtomicU32::new(0),
        }
    }

    /// Has background reclaim run soon for a request that admits zones up to `highest`; seldom, if
    /// it was of no use lately. Any context.
    pub(super) fn wake(&self, highest: ZoneKind) {
        if self.fruitless_runs.load(Ordering::Relaxed) >= MAX_FRUITLESS_RUNS {
            let spared = self.spared.fetch_add(1, Ordering::Relaxed) + 1;
            if !spared.is_multiple_of(REQUESTS_PER_TRIAL) {
                return;
            }
        }
        self.wakes.fetch_add(1, Ordering::Relaxed);
        let admitted = highest as u32 + 1;
        self.woken_for.fetch_max(admitted, Ordering::Relaxed);
        if let Some(wake) = self.waker.get() {
            wake();
        }
    }

    /// The highest zone that the requests since the last call admit; without one, the highest.
    fn take_wake(&self) -> ZoneKind {
        let admitted = self.woken_for.swap(0, Ordering::Relaxed) as usize;
        let highest = admitted
            .checked_sub(1)
            .and_then(|index| ZoneKind::ALL.get(index));
        *highest.unwrap_or(&ZoneKind::Normal)
    }

    /// Gives back what the executing core has at hand, but for its pages. Task context.
    pub(super) fn shrink_core(&self) {
        if let Some(shrink) = self.core_shrinker.get() {
            shrink();
        }
    }

    /// One pass: asks every shrinker that `rights` reach for half of what it has, until there is
    /// `enough`.
    fn shrink(&self, rights: Gfp, enough: impl Fn() -> bool) -> Pass {
        let _scope = memalloc_noreclaim();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut pass = Pass::default();
        for offset in 0..MAX_SHRINKERS {
            if enough() {
                break;
            }
            let index = first.wrapping_add(offset) % MAX_SHRINKERS;
            let answer = self.shrinkers.run(index, rights, |shrinker| {
                let mut left = shrinker.count().div_ceil(2);
                let mut freed = 0;
                while left > 0 && !enough() {
                    let wanted = left.min(BATCH);
                    let given = shrinker.scan(wanted, rights);
                    freed += given;
                    left -= wanted;
                    if given == 0 {
                        break;
                    }
                }
                freed
            });
            match answer {
                Answer::Gave(freed) => pass.freed += freed,
                Answer::Busy => pass.busy = true,
                Answer::Unreached => {}
            }
        }
        pass
    }
}

impl PageAllocator {
    /// Registers a shrinker. Any context.
    ///
    /// # Errors
    ///
    /// [`ShrinkerError::Full`], [`ShrinkerError::Registered`].
    #[doc(alias = "shrinker_register")]
    pub fn register_shrinker(&self, shrinker: &'static dyn Shrinker) -> Result<(), ShrinkerError> {
        self.reclaim.shrinkers.register(shrinker)?;
        // It may have what the others have not.
        self.reclaim.fruitless_runs.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Unregisters a shrinker: on return it is not running and will not be called. Any context.
    ///
    /// # Errors
    ///
    /// [`ShrinkerError::NotRegistered`]; [`ShrinkerError::Running`], and then it stays registered.
    #[doc(alias = "shrinker_free")]
    pub fn unregister_shrinker(
        &self,
        shrinker: &'static dyn Shrinker,
    ) -> Result<(), ShrinkerError> {
        self.reclaim.shrinkers.unregister(shrinker)
    }

    /// What each shrinker has done.
    pub fn shrinkers(&self) -> impl Iterator<Item = ShrinkerInfo> {
        self.reclaim.shrinkers.info()
    }

    /// What reclaim has done.
    pub fn reclaim_info(&self) -> ReclaimInfo {
        let reclaim = &self.reclaim;
        ReclaimInfo {
            wakes: reclaim.wakes.load(Ordering::Relaxed),
            background_runs: reclaim.background_runs.load(Ordering::Relaxed),
            background_freed: reclaim.background_freed.load(Ordering::Relaxed),
            direct_passes: reclaim.direct_passes.load(Ordering::Relaxed),
            direct_freed: reclaim.direct_freed.load(Ordering::Relaxed),
            failures: reclaim.failures.load(Ordering::Relaxed),
            reports: reclaim.reports.load(Ordering::Relaxed),
        }
    }

    /// Says what is called when a request wants background reclaim to run; the first call wins.
    /// The function may be called in any context.
    pub fn set_reclaim_waker(&self, wake: fn()) {
        self.reclaim.waker.call_once(|| wake);
    }

    /// Says how a core gives back what it has at hand of other things than pages; the first call
    /// wins. The function is called in a task, does not allocate, and is brief.
    pub(super) fn set_core_shrinker(&self, shrink: fn()) {
        self.reclaim.core_shrinker.call_once(|| shrink);
    }

    /// Runs shrinkers until a zone that the requests which woke it admit is above its high
    /// watermark, or they have nothing left. Linux: `kswapd`. Task context, no lock held.
    ///
    /// One zone is enough: a request looks in all it admits, and memory in use may keep another one
    /// from ever getting there.
    ///
    /// Only pages that every request may be given count, as they do for the request that woke it:
    /// those that contiguous memory areas lend would end it while the others are still short.
    #[doc(alias = "kswapd")]
    pub fn background_reclaim(&self) {
        let reclaim = &self.reclaim;
        reclaim.background_runs.fetch_add(1, Ordering::Relaxed);
        let highest = self.start_zone(reclaim.take_wake());
        let mut gained = false;
        while !self.is_balanced(highest) {
            let Pass { freed, busy } = reclaim.shrink(Gfp::KERNEL, || self.is_balanced(highest));
            reclaim.background_freed.fetch_add(freed, Ordering::Relaxed);
            gained |= freed > 0 || busy;
            if freed == 0 {
                if !gained {
                    reclaim.fruitless_runs.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
        }
        reclaim.fruitless_runs.store(0, Ordering::Relaxed);
    }

    /// Whether a zone up to `highest` is above its high watermark, for requests that admit those.
    #[doc(alias = "pgdat_balanced")]
    fn is_balanced(&self, highest: ZoneKind) -> bool {
        let admitted = ZoneKind::ALL
            .into_iter()
            .take_while(|kind| *kind <= highest);
        admitted.map(|kind| self.zone(kind)).any(|zone| {
            let kept = zone.watermarks.high + zone.lowmem_reserve[highest as usize];
            zone.managed != 0 && zone.spare() > kept
        })
    }

    /// One pass of reclaim for a request of `order` with `rights`.
    #[doc(alias = "__perform_reclaim")]
    pub(super) fn direct_reclaim(&self, rights: Gfp, order: u32) -> Progress {
        let reclaim = &self.reclaim;
        let usable = || self.usable_pages(rights);
        let goal = usable() + CLUSTER.max(1 << order);
        reclaim.direct_passes.fetch_add(1, Ordering::Relaxed);
        let Pass { freed, busy } = reclaim.shrink(rights, || usable() >= goal);
        reclaim.direct_freed.fetch_add(freed, Ordering::Relaxed);
        if freed > 0 {
            reclaim.fruitless_runs.store(0, Ordering::Relaxed);
            Progress::Made
        } else if busy {
            Progress::Elsewhere
        } else {
            Progress::None
        }
    }
}

/// The slabs of the machine's caches that hold no object in use.
#[derive(Debug)]
pub(super) struct EmptySlabs;

impl EmptySlabs {
    /// Gives back the slabs without objects but those this core has at hand.
    pub(super) fn give_back() {
        super::kmalloc_caches().shrink();
        for cache in super::named_caches() {
            if let Some(pages) = super::pages() {
                cache.shrink(pages);
            }
        }
    }

    fn slabs() -> usize {
        let named = super::named_caches().map(|cache| cache.info());
        super::kmalloc_caches()
            .caches()
            .chain(named)
            .map(|cache| cache.slabs as usize)
            .sum()
    }
}

impl Shrinker for EmptySlabs {
    fn name(&self) -> &'static str {
        "kmalloc slabs"
    }

    fn count(&self) -> usize {
        Self::slabs()
    }

    fn scan(&self, _wanted: usize, _gfp: Gfp) -> usize {
        let before = Self::slabs();
        Self::give_back();
        before.saturating_sub(Self::slabs())
    }
}

/// The memory that `vfree` has put off freeing until a flush of the TLBs.
#[derive(Debug)]
pub(super) struct LazyPurge;

impl Shrinker for LazyPurge {
    fn name(&self) -> &'static str {
        "vmalloc purge"
    }

    fn count(&self) -> usize {
        super::pages_put_off()
    }

    fn scan(&self, _wanted: usize, _gfp: Gfp) -> usize {
        // One flush serves all that waits.
        super::vm_unmap_aliases()
    }
}

#[cfg(test)]
mod tests;
