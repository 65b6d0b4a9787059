//! Memory pressure on purpose: all memory taken, some of it by caches that give it back.

use crate::machine::machine;
use crate::memory::Pages;
use crate::memory::hoard::{Hoard, capacity};
use crate::report::{Outcome, Stop};
use crate::{check, check_ok};
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::deferred;
use hal::mm::{
    self, Gfp, MAX_ORDER, PageAllocator, ReclaimInfo, Shrinker, ShrinkerError, ZoneKind,
};
use hal::smp;
use hal::sync::{IrqLock, PerCpu};

/// Requests that may wait, and leave background reclaim to idle cores: it has all rights.
pub(super) const BLOCKING: Gfp = Gfp::NOFS.union(Gfp::NOWARN);

/// The same without background reclaim: what is freed for them, this core frees.
pub(super) const UNAIDED: Gfp = BLOCKING.difference(Gfp::KSWAPD_RECLAIM);

/// How long a core waits for another one's answer before it says that there is none.
pub(super) const PATIENCE_NS: u64 = 2_000_000_000;

/// The machine's page allocator.
pub(super) fn allocator() -> Result<&'static PageAllocator, Stop> {
    mm::pages().ok_or(Stop::Failed)
}

/// What reclaim has done so far.
pub(super) fn reclaim_info() -> Result<ReclaimInfo, Stop> {
    Ok(allocator()?.reclaim_info())
}

/// The zones that have memory.
pub(super) fn populated() -> impl Iterator<Item = ZoneKind> {
    let has_memory = |kind: &ZoneKind| mm::pages().is_some_and(|p| p.zone(*kind).managed > 0);
    ZoneKind::ALL.into_iter().filter(has_memory)
}

/// Flags for pages of `kind`, without any right to reclaim.
pub(super) fn from_zone(kind: ZoneKind) -> Gfp {
    match kind {
        ZoneKind::Dma => Gfp::NOWAIT | Gfp::DMA,
        ZoneKind::Dma32 => Gfp::NOWAIT | Gfp::DMA32,
        ZoneKind::Normal => Gfp::NOWAIT,
    }
}

/// A hoard that can hold everything. The `kmalloc` caches, the lazy purge of `vmalloc` and the lists
/// of the cores have nothing left to give back.
pub(super) fn ballast() -> Result<Hoard, Stop> {
    let singles = populated()
        .filter_map(|kind| mm::pages().map(|pages| pages.zone(kind).watermarks.high as usize))
        .sum();
    let hoard = check_ok!(Hoard::new(capacity(singles)));
    mm::vm_unmap_aliases();
    let pages = allocator()?;
    check_ok!(smp::run_on_all(|_| {
        mm::kmalloc_caches().shrink();
        pages.drain();
    }));
    Ok(hoard)
}

/// Takes all memory that `gfp` may have.
pub(super) fn take_all(ballast: &mut Hoard, gfp: Gfp) -> Result<(), Stop> {
    for order in (0..=MAX_ORDER).rev() {
        let refusal = ballast.fill(gfp | Gfp::NOWARN, order);
        check!(refusal.is_some(), "no room to note the ballast");
    }
    Ok(())
}

/// Takes all memory down to the min watermarks; dropping the hoard gives it back. The background
/// reclaim that this wakes is over.
pub(super) fn squeeze() -> Result<Hoard, Stop> {
    let mut ballast = ballast()?;
    take_all(&mut ballast, Gfp::NOWAIT)?;
    settle()?;
    Ok(ballast)
}

/// Waits until the other cores have done what was put off. Alone, this core leaves it undone.
pub(super) fn settle() -> Outcome {
    if smp::online().count() == 1 {
        return Ok(());
    }
    // A core that answers is in the middle of nothing. What it has done may have put off more.
    let is_done = || !deferred::is_runnable();
    let settled = machine().timer.poll_until(PATIENCE_NS, || {
        is_done() && smp::run_on_all(|_| ()).is_ok() && is_done()
    });
    check!(settled, "no idle core does what was put off");
    Ok(())
}

/// No core: a cache open to none has nothing to give.
const NOWHERE: usize = usize::MAX;

/// On any core.
pub(super) const ANYWHERE: usize = usize::MAX - 1;

/// A cache of single pages that gives them up when asked.
///
/// It can be open to one core only: then what an idle core does in the background leaves it alone.
pub(super) struct Cache {
    name: &'static str,
    needs: Gfp,
    pages: IrqLock<Option<Hoard>>,
    open_to: AtomicUsize,
    scans: AtomicUsize,
    /// Calls that give nothing up before the first that does.
    reluctance: AtomicUsize,
}

impl Cache {
    /// An empty cache whose shrinker needs `needs`.
    pub(super) const fn new(name: &'static str, needs: Gfp) -> Self {
        Self {
            name,
            needs,
            pages: IrqLock::new(None),
            open_to: AtomicUsize::new(NOWHERE),
            scans: AtomicUsize::new(0),
            reluctance: AtomicUsize::new(0),
        }
    }

    /// Registers the cache with room for `capacity` pages, open to this core. `reluctance` calls
    /// give nothing up before the first that does.
    pub(super) fn register(
        &'static self,
        capacity: usize,
        reluctance: usize,
    ) -> Result<Registered, Stop> {
        let hoard = check_ok!(Hoard::new(capacity));
        *self.pages.lock() = Some(hoard);
        self.scans.store(0, Ordering::Relaxed);
        self.reluctance.store(reluctance, Ordering::Relaxed);
        self.open(PerCpu::current().index());
        check_ok!(allocator()?.register_shrinker(self));
        Ok(Registered(self))
    }

    /// Lets `core` see the content, or every core, [`ANYWHERE`].
    pub(super) fn open(&self, core: usize) {
        self.open_to.store(core, Ordering::Relaxed);
    }

    /// Lets nobody see the content.
    pub(super) fn close(&self) {
        self.open(NOWHERE);
    }

    /// Takes a page into the cache.
    pub(super) fn take(&self, gfp: Gfp) -> Result<(), Stop> {
        let page = check_ok!(Pages::alloc(gfp, 0));
        let refused = match self.pages.lock().as_mut() {
            Some(hoard) => hoard.push(page).err(),
            None => Some(page),
        };
        check!(refused.is_none(), "{}: no room", self.name);
        Ok(())
    }

    /// Pages held.
    pub(super) fn held(&self) -> usize {
        self.pages.lock().as_ref().map_or(0, Hoard::len)
    }

    /// Calls so far that asked for something.
    pub(super) fn scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }
}

impl Shrinker for Cache {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs(&self) -> Gfp {
        self.needs
    }

    fn count(&self) -> usize {
        let open_to = self.open_to.load(Ordering::Relaxed);
        if open_to == ANYWHERE || open_to == PerCpu::current().index() {
            self.held()
        } else {
            0
        }
    }

    fn scan(&self, wanted: usize, _gfp: Gfp) -> usize {
        if self.scans.fetch_add(1, Ordering::Relaxed) < self.reluctance.load(Ordering::Relaxed) {
            return 0;
        }
        // Each page is freed when the lock is no longer held.
        let pop = || self.pages.lock().as_mut().and_then(Hoard::pop);
        (0..wanted).map_while(|_| pop().map(drop)).count()
    }
}

/// A registered cache; dropping it unregisters the cache and frees its pages.
pub(super) struct Registered(&'static Cache);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.close();
        if let Some(pages) = mm::pages() {
            // Another core may be about to find that there is nothing for it.
            while let Err(ShrinkerError::Running(_)) = pages.unregister_shrinker(self.0) {
                core::hint::spin_loop();
            }
        }
        let hoard = self.0.pages.lock().take();
        drop(hoard);
    }
}
