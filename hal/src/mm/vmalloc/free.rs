//! Taking memory back: at once where that is allowed, else later; flushed in batches.

use super::{
    Areas, Deferred, Departing, PageSource, QUARANTINE, Reaping, Runs, State, Vmalloc, VmallocError,
};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::deferred::{self, Work};
use crate::layout::VMALLOC;
use crate::mm::Owner;
use crate::mm::va::AreaId;
use crate::mm::vmalloc::AreaKind;
use crate::mmu::{KernelMapper, MapError, Stale};
use crate::smp;
use crate::sync::{Context, PerCpu};

/// Address space that may wait for a flush, for each binary digit of the number of cores: more of
/// them make a flush dearer. Linux: `lazy_max_pages`.
const LAZY_BYTES: usize = 32 << 20;

/// The most that may wait, as a share of the machine's memory.
const LAZY_SHARE: usize = 16;

/// Bytes of addresses that may wait on a machine of so many cores and frames.
pub(super) fn lazy_limit(cores: usize, frames: usize) -> usize {
    let digits = (usize::BITS - cores.leading_zeros()) as usize;
    (LAZY_BYTES * digits).min(frames / LAZY_SHARE * PAGE_SIZE)
}

/// Areas that may wait for a flush; the other half of the quarantine are flushed ones.
const LAZY_AREAS: usize = QUARANTINE / 2;

/// Bytes retired under one hold of the tables' lock; a multiple of every block, so that none is
/// split.
const RETIRE_STEP: usize = 4 << 20;

impl<P: PageSource> Vmalloc<P> {
    /// Takes memory of [`vmalloc`](Self::vmalloc) back; null is ignored. Linux: `vfree`.
    ///
    /// The addresses are unmapped on return, but TLBs are flushed, and the frames freed, by a later
    /// call (see the module). May be called in any context; where blocking is not allowed the area
    /// is only marked, and unmapped by [`Work::Vfree`]. Costs time in proportion to the pages freed,
    /// now and then that of a flush.
    ///
    /// # Errors
    ///
    /// [`VmallocError::NotAnArea`] and [`VmallocError::WrongKind`]: a wrong or second free changes
    /// nothing.
    ///
    /// # Safety
    ///
    /// Nothing refers to the memory any more. An address that was never returned by an allocation
    /// is refused, but not while a concurrent allocation is about to return it.
    pub unsafe fn vfree(&self, va: VirtAddr) -> Result<(), VmallocError> {
        if va.get() == 0 {
            return Ok(());
        }
        if PerCpu::current().context() != Context::Task {
            return self.defer(va);
        }
        let mut tables = self.tables.lock();
        let mut areas = self.areas.lock();
        let (id, size) = areas.give_up(va, AreaKind::Vmalloc, State::Freed)?;
        if size > RETIRE_STEP {
            drop(areas);
            drop(tables);
            // SAFETY: the area was live until now, so it is mapped whole, and the caller is done.
            return unsafe { self.take_down(id, va, size) };
        }
        let mut stale = Stale::empty(va);
        // SAFETY: as above.
        unsafe { tables.retire(&mut stale, size) }?;
        let refused = areas.put_away(stale, id, self.frames);
        // As many pages as were added: what was flushed is gone before the next flush, and frames
        // leave at the pace of the allocations that will want them.
        let mut owed = size / PAGE_SIZE;
        let mut reaped = Runs::new();
        if areas.has_flushed() {
            owed = owed.saturating_sub(areas.reap(&mut tables, &mut reaped, owed)?);
        }
        drop(areas);
        drop(tables);
        self.free_runs(&reaped);
        if refused.is_some() || owed > 0 && reaped.is_full() {
            return self.settle(refused.map(|stale| (stale, id)), owed);
        }
        Ok(())
    }

    /// Marks an area as freed, to be taken down by [`run_deferred`](Self::run_deferred).
    #[cold]
    fn defer(&self, va: VirtAddr) -> Result<(), VmallocError> {
        {
            let mut areas = self.areas.lock();
            let (_, size) = areas.give_up(va, AreaKind::Vmalloc, State::Deferred)?;
            areas.deferred_pages += size >> PAGE_SHIFT;
            let next = areas.deferred;
            areas.va.get_mut(va)?.data.next = next;
            let page = (va.get() - VMALLOC.base.get()) >> PAGE_SHIFT;
            areas.deferred = Deferred::MIN.checked_add(page as u32);
        }
        deferred::schedule(Work::Vfree);
        Ok(())
    }

    /// Takes down what was freed where it could not be, also what another core has begun: on return
    /// nothing is left of what was freed before the call. The frames freed meanwhile. The handler of
    /// [`Work::Vfree`]; a task.
    pub fn run_deferred(&self) -> usize {
        let mut frames = 0;
        loop {
            let mut reaped = Runs::new();
            {
                let mut tables = self.tables.lock();
                let mut areas = self.areas.lock();
                let Some(mut next) = areas.next_deferred() else {
                    return frames;
                };
                let step = RETIRE_STEP.min(next.size - next.stale.size());
                if step > 0 {
                    // SAFETY: the area was live until it was freed, so it is mapped whole, and who
                    // freed it was done with it.
                    let retired = unsafe { tables.retire(&mut next.stale, step) };
                    debug_assert_eq!(retired, Ok(()));
                }
                areas.departing = if next.stale.size() < next.size {
                    Some(next)
                } else {
                    let refused = areas.put_away(next.stale, next.area, self.frames);
                    refused.map(|stale| Departing { stale, ..next })
                };
                let result = areas.reap(&mut tables, &mut reaped, usize::MAX);
                debug_assert!(result.is_ok());
                frames += result.unwrap_or_default();
            }
            self.free_runs(&reaped);
        }
    }

    /// Unmaps the first `size` bytes of the area at `va`, all that is mapped there, puts it in
    /// quarantine, and gives back some of what has left it.
    ///
    /// # Safety
    ///
    /// Nothing refers to the memory any more.
    pub(super) unsafe fn take_down(
        &self,
        id: AreaId,
        va: VirtAddr,
        size: usize,
    ) -> Result<(), VmallocError> {
        let mut stale = Stale::empty(va);
        while stale.size() < size {
            let step = RETIRE_STEP.min(size - stale.size());
            // SAFETY: the caller's promise.
            unsafe { self.tables.lock().retire(&mut stale, step) }?;
        }
        self.settle(Some((stale, id)), size / PAGE_SIZE)
    }

    /// Puts `stale` in quarantine, which may have no room at once, and gives back `owed` pages that
    /// have left it, if there are as many.
    fn settle(
        &self,
        mut stale: Option<(Stale, AreaId)>,
        mut owed: usize,
    ) -> Result<(), VmallocError> {
        loop {
            let mut reaped = Runs::new();
            let pages = {
                let mut tables = self.tables.lock();
                let mut areas = self.areas.lock();
                if let Some((waiting, id)) = stale.take() {
                    let refused = areas.put_away(waiting, id, self.frames);
                    stale = refused.map(|waiting| (waiting, id));
                }
                // A full quarantine holds areas to reap, and until one has gone nothing else counts.
                let most = stale.as_ref().map_or(owed, |_| usize::MAX);
                areas.reap(&mut tables, &mut reaped, most)?
            };
            self.free_runs(&reaped);
            owed = owed.saturating_sub(pages);
            if stale.is_none() && (owed == 0 || !reaped.is_full()) {
                return Ok(());
            }
        }
    }

    /// Gives frames back that nothing maps but the direct map.
    #[inline]
    fn free_runs(&self, runs: &Runs) {
        for run in runs {
            // SAFETY: `map_runs` noted the run as it was allocated, and `reap` says that it has
            // left the tables and the TLBs.
            unsafe { self.pages.free(run.pfn, run.order) };
        }
    }

    /// Takes down what was deferred, flushes what waits, and gives all frames and addresses back:
    /// on return no core uses an address that was freed before the call, and the memory is free, but
    /// for what another core is giving back just then. The frames freed. Linux: `vm_unmap_aliases`.
    ///
    /// For tests and ledgers, and for reclaim when memory runs short. A task; costs time in
    /// proportion to what was freed, in batches between which interrupts are served.
    pub fn vm_unmap_aliases(&self) -> usize {
        let mut frames = self.run_deferred();
        {
            let mut areas = self.areas.lock();
            if areas.quarantine.stale() > 0 {
                areas.flush(self.frames);
            }
        }
        loop {
            let mut reaped = Runs::new();
            let result = {
                let mut tables = self.tables.lock();
                let mut areas = self.areas.lock();
                areas.reap(&mut tables, &mut reaped, usize::MAX)
            };
            debug_assert!(result.is_ok());
            if reaped.is_empty() {
                break;
            }
            self.free_runs(&reaped);
            frames += result.unwrap_or_default();
        }
        self.areas.lock().va.compact();
        frames
    }
}

/// Takes the charge of an area of `size` bytes from the owner with number `owner`.
#[cold]
fn give_charge_back(owner: u8, size: usize) {
    if let Some(owner) = Owner::with_number(u32::from(owner)) {
        owner.uncharge(size);
    }
}

impl Areas {
    /// Marks the live area at `va`, which must be of `kind`, as `state`; its name and size.
    #[inline(always)]
    pub(super) fn give_up(
        &mut self,
        va: VirtAddr,
        kind: AreaKind,
        state: State,
    ) -> Result<(AreaId, usize), VmallocError> {
        let found = self.va.lookup(va);
        let (id, size, note) = found.ok_or(VmallocError::NotAnArea(va))?;
        if note.state != State::Live {
            return Err(VmallocError::NotAnArea(va));
        }
        note.kind.expect(kind, va)?;
        note.state = state;
        if note.owner != 0 {
            give_charge_back(core::mem::take(&mut note.owner), size);
        }
        Ok((id, size))
    }

    /// Puts `area`, whose start `stale` is, in quarantine, if there is room, and flushes if enough
    /// waits. `frames` are the machine's.
    #[inline(always)]
    fn put_away(&mut self, stale: Stale, area: AreaId, frames: usize) -> Option<Stale> {
        let refused = self.quarantine.push(stale, area).err();
        if self.quarantine.stale() >= LAZY_AREAS || self.quarantine.stale_bytes() > self.limit {
            self.flush(frames);
        }
        refused
    }

    /// Flushes what waits.
    #[cold]
    fn flush(&mut self, frames: usize) {
        self.quarantine.flush();
        self.flushes += 1;
        self.limit = lazy_limit(smp::online().count(), frames);
    }

    /// Whether there is anything to reap.
    #[inline]
    fn has_flushed(&self) -> bool {
        self.reaping.is_some() || self.quarantine.has_flushed()
    }

    /// The area to be taken down next of those freed where that was impossible.
    pub(super) fn next_deferred(&mut self) -> Option<Departing> {
        if let Some(begun) = self.departing.take() {
            return Some(begun);
        }
        let page = self.deferred?.get() - 1;
        let va = VMALLOC.base + ((page as usize) << PAGE_SHIFT);
        let (area, size, note) = self.va.lookup(va)?;
        note.state = State::Freed;
        self.deferred = note.next.take();
        self.deferred_pages -= size >> PAGE_SHIFT;
        let stale = Stale::empty(va);
        Some(Departing { area, stale, size })
    }

    /// Takes runs of flushed areas out of the tables, for the caller to free, until they have `most`
    /// pages or more or `runs` is full, and frees the addresses of the areas that are gone. The
    /// pages taken.
    #[inline(always)]
    fn reap(
        &mut self,
        tables: &mut KernelMapper,
        runs: &mut Runs,
        most: usize,
    ) -> Result<usize, MapError> {
        let mut pages = 0;
        while pages < most && !runs.is_full() && self.has_flushed() {
            let mut next = match self.reaping.take() {
                Some(next) => next,
                None => match self.quarantine.pop() {
                    Some((rest, area)) => Reaping { area, rest },
                    None => break,
                },
            };
            if let Some(run) = tables.reap(&mut next.rest)? {
                pages += 1 << run.order;
                // Not full, as just checked.
                let _ = runs.push(run);
            }
            if next.rest.size() > 0 {
                self.reaping = Some(next);
            } else {
                let freed = self.va.free_id(next.area);
                debug_assert!(freed.is_some());
            }
        }
        Ok(pages)
    }
}
