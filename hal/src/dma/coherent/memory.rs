//! Where a request for coherent memory is served from.

use super::block::{Block, Origin};
use super::pool::{CHUNK_SIZE, CoherentPool};
use super::run::{self, Runs};
use super::{Coherent, MAX_ALLOCATION, RunError};
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::dma::{Device, DmaError, DmaSegment};
use crate::layout;
use crate::mm::{AllocError, Cma, Gfp, Misuse, PageAllocator, ZoneKind, fault, get_order};
use crate::mmu::KernelMapper;
use crate::sync::{Context, IrqLock, PerCpu};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Flags that a request for coherent memory does not pass on: the device's mask decides on the
/// zone, and memory that a device has does not move.
const NOT_PASSED_ON: Gfp = Gfp::DMA
    .union(Gfp::DMA32)
    .union(Gfp::HIGHMEM)
    .union(Gfp::MOVABLE);

/// The coherent memory of a machine: its pool, and what it can be made of.
#[derive(Debug)]
pub struct CoherentMemory {
    pool: &'static CoherentPool,
    pages: &'static PageAllocator,
    runs: Runs,
    /// Whether a core takes in chunks.
    is_refilling: AtomicBool,
    failed_refills: AtomicU32,
}

/// What is known of coherent memory beside its pool. Displayed as a line in the manner of
/// `slabinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunInfo {
    /// Runs of contiguous memory that are non-cacheable now, the pool's chunks among them.
    pub runs: usize,
    /// Their pages.
    pub pages: usize,
    /// Pages of these that nobody gets any more, because their type could not be changed back. See
    /// [`Misuse::CoherentKept`].
    pub kept: usize,
    /// Attempts to take in a chunk for the pool that failed since boot.
    pub failed_refills: u32,
}

impl fmt::Display for RunInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            runs,
            pages,
            kept,
            failed_refills,
        } = self;
        write!(
            f,
            "coherent_runs runs={runs} pages={pages} kept={kept} failed_refills={failed_refills}"
        )
    }
}

impl CoherentMemory {
    /// The memory of `pool`, of `pages`, and what is made of the contiguous memory `areas` by
    /// changing `tables`. `defer` sees to it that [`run_deferred`](Self::run_deferred) is called; it
    /// may be called in any context.
    pub const fn new(
        pool: &'static CoherentPool,
        tables: &'static IrqLock<KernelMapper>,
        pages: &'static PageAllocator,
        areas: &'static [Cma],
        defer: fn(),
    ) -> Self {
        Self {
            pool,
            pages,
            runs: Runs::new(tables, pages, areas, defer),
            is_refilling: AtomicBool::new(false),
            failed_refills: AtomicU32::new(0),
        }
    }

    /// The pool.
    pub fn pool(&self) -> &'static CoherentPool {
        self.pool
    }

    /// Allocates `size` bytes, rounded up to pages, for `device`: see [`alloc`](super::alloc()).
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(never)]
    #[track_caller]
    pub fn alloc(
        &'static self,
        device: &'static Device,
        size: usize,
        gfp: Gfp,
    ) -> Result<Coherent, DmaError> {
        if size == 0 {
            return Err(DmaError::ZeroLength);
        }
        if gfp.contains(Gfp::COMP) {
            return Err(refuse_compound(gfp));
        }
        if gfp.may_block() && PerCpu::current().context() != Context::Task {
            return Err(refuse_context(gfp));
        }
        if device.is_coherent() {
            return self.cached(device, size, gfp.difference(NOT_PASSED_ON));
        }
        if fault::is_armed() && fault::should_fail(gfp) {
            return Err(AllocError::NoMemory { order: 0, gfp }.into());
        }
        let keep = if gfp.may_block() {
            self.pool.reserve()
        } else {
            0
        };
        match self.pool.take(device, size, keep) {
            Some(taken) => Ok(self.pool.hand_out(device, taken)),
            None if gfp.may_block() => self.uncached(device, size, gfp),
            None => self.pool.take_elsewhere(device, size, 0),
        }
    }

    /// Takes `size` bytes of a chunk of the pool, or makes them non-cacheable. Where there is no area
    /// that could give them, the reserve of the pool is for everybody.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn uncached(
        &'static self,
        device: &'static Device,
        size: usize,
        gfp: Gfp,
    ) -> Result<Coherent, DmaError> {
        let chunk = self.pool.take_elsewhere(device, size, self.pool.reserve());
        if chunk.is_ok() {
            return chunk;
        }
        let no_warn = gfp.contains(Gfp::NOWARN);
        let len = size.checked_next_multiple_of(PAGE_SIZE);
        let len = len.unwrap_or(size - size % PAGE_SIZE);
        let Some(run) = self.runs.alloc(Some(device), len, no_warn) else {
            return self.pool.alloc(device, size);
        };
        let run = run?;
        let start = run.frames().start;
        let addr = device
            .coherent_addr(start, len)
            .inspect_err(|_| self.runs.free(run))?;
        let origin = Origin::Run {
            runs: &self.runs,
            run,
        };
        let cpu = layout::mapped_view(run.va(), start);
        // SAFETY: the run was made for this call alone, and is mapped there.
        let block = unsafe { Block::zeroed(device, cpu, DmaSegment { addr, len }, origin) };
        Ok(Coherent::new(block))
    }

    /// Cached memory, for a device that snoops.
    #[inline(never)]
    #[track_caller]
    fn cached(
        &'static self,
        device: &'static Device,
        size: usize,
        gfp: Gfp,
    ) -> Result<Coherent, DmaError> {
        if size > MAX_ALLOCATION {
            return self.cached_area(device, size, gfp);
        }
        let len = size.next_multiple_of(PAGE_SIZE);
        let mut outcome = Err(DmaError::ZeroLength);
        for zone in self.zones_for(device) {
            let cpu = self.pages.alloc_pages_exact(len, gfp | zone)?;
            let pa = layout::virt_to_phys(cpu).unwrap_or_default();
            match device.coherent_addr(pa, len) {
                Ok(addr) => {
                    let origin = Origin::Pages(self.pages);
                    let segment = DmaSegment { addr, len };
                    // SAFETY: the pages were just allocated, and are in the direct map.
                    return Ok(unsafe { Self::ready(device, cpu, segment, origin) });
                }
                Err(error) => {
                    outcome = Err(error);
                    self.free_pages(cpu, len);
                }
            }
        }
        outcome
    }

    /// Zeroed memory.
    ///
    /// # Safety
    ///
    /// As for [`Block::zeroed`].
    #[track_caller]
    unsafe fn ready(
        device: &'static Device,
        cpu: VirtAddr,
        segment: DmaSegment,
        origin: Origin,
    ) -> Coherent {
        // SAFETY: handed on to the caller.
        Coherent::new(unsafe { Block::zeroed(device, cpu, segment, origin) })
    }

    fn free_pages(&self, cpu: VirtAddr, len: usize) {
        // SAFETY: the pages were allocated by this length, and nobody knows of them.
        let freed = unsafe { self.pages.free_pages_exact(cpu, len) };
        debug_assert_eq!(freed, Ok(()));
    }

    /// The zones to try for a device, as flags: the largest of which it may reach all, and those
    /// below.
    fn zones_for(&self, device: &Device) -> impl Iterator<Item = Gfp> {
        const ZONES: [Gfp; ZoneKind::COUNT] = [Gfp::empty(), Gfp::DMA32, Gfp::DMA];
        let end = device.coherent_limit().pfn();
        let [dma, dma32] = self.pages.frames().zone_limits();
        let first = if end < dma {
            2
        } else {
            usize::from(end < dma32)
        };
        ZONES.into_iter().skip(first)
    }

    /// More memory than a block of pages has, from a contiguous memory area as it is.
    #[track_caller]
    fn cached_area(
        &'static self,
        device: &'static Device,
        size: usize,
        gfp: Gfp,
    ) -> Result<Coherent, DmaError> {
        let order = get_order(size);
        let mut outcome = Err(AllocError::OrderTooLarge { order, gfp }.into());
        if !gfp.may_block() {
            return outcome;
        }
        let len = size.checked_next_multiple_of(PAGE_SIZE);
        let len = len.unwrap_or(size - size % PAGE_SIZE);
        self.runs.settle();
        for cma in self.runs.areas_for(Some(device)) {
            match run::take(cma, Some(device), len, gfp.contains(Gfp::NOWARN)) {
                Ok(pfn) => {
                    let reached = device.coherent_addr(pfn.phys(), len);
                    let addr = reached.inspect_err(|_| {
                        // SAFETY: the frames were just allocated, and nobody knows of them.
                        let freed = unsafe { cma.release(pfn, (len / PAGE_SIZE) as u32) };
                        debug_assert_eq!(freed, Ok(()));
                    })?;
                    let cpu = layout::phys_to_virt(pfn.phys());
                    let origin = Origin::Area { cma, pfn };
                    let segment = DmaSegment { addr, len };
                    // SAFETY: the frames were just allocated, and are in the direct map.
                    return Ok(unsafe { Self::ready(device, cpu, segment, origin) });
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Takes in chunks while the pool is low: what [`Work::PoolRefill`](crate::deferred::Work) does.
    /// A task; does nothing while another core is at it. A failure is counted, and the pool stays as
    /// it is; it asks again at its next request.
    pub fn refill(&self) {
        if self.is_refilling.swap(true, Ordering::Acquire) {
            return;
        }
        while self.pool.wants_a_chunk() {
            let added = match self.runs.alloc(None, CHUNK_SIZE, true) {
                Some(Ok(run)) => self.pool.add(run).map_err(|run| self.runs.free(run)),
                Some(Err(_)) | None => Err(()),
            };
            if added.is_err() {
                self.failed_refills.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        self.is_refilling.store(false, Ordering::Release);
    }

    /// Gives back what was freed where that is not allowed. A task.
    pub fn run_deferred(&self) {
        self.runs.run_deferred();
    }

    /// Gives back all that is not in use beyond what the pool had at boot, and waits for what another
    /// core gives back. A task.
    pub fn drain(&self) {
        self.runs.settle();
        while let Some(run) = self.pool.remove_unused() {
            self.runs.free(run);
        }
    }

    /// What is known now of memory beside the pool.
    pub fn run_info(&self) -> RunInfo {
        let (runs, pages, kept) = self.runs.usage();
        RunInfo {
            runs,
            pages,
            kept,
            failed_refills: self.failed_refills.load(Ordering::Relaxed),
        }
    }

    /// Frames that describe runs, which are kept for good.
    pub fn kept_frames(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.runs.kept_frames()
    }
}

/// The refusal of a block that is to be a compound page, counted.
#[cold]
fn refuse_compound(gfp: Gfp) -> DmaError {
    Misuse::CoherentCompound.note(gfp);
    DmaError::Compound(gfp)
}

/// The refusal of a blocking request where blocking is not allowed, counted.
#[cold]
fn refuse_context(gfp: Gfp) -> DmaError {
    let context = PerCpu::current().context();
    Misuse::Context(context).note(gfp);
    AllocError::Context { context, gfp }.into()
}

impl From<RunError> for DmaError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::NoMemory(error) => Self::NoMemory(error),
            error => Self::Run(error),
        }
    }
}
