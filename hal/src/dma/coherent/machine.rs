//! The machine's coherent memory.

use super::Coherent;
use super::memory::{CoherentMemory, RunInfo};
use super::pool::{CoherentPool, PoolInfo};
use crate::addr::Pfn;
use crate::deferred::{self, Work};
use crate::dma::{Device, DmaError};
use crate::mm::{self, AllocError, Gfp};
use crate::mmu::KernelMapper;
use crate::sync::{IrqLock, Once};

static MEMORY: Once<CoherentMemory> = Once::new();

/// Sets up the machine's coherent memory: `pool`, and what is made of contiguous memory by changing
/// `tables`. The first call wins. After [`mm::init`], without which nothing is set up.
pub fn init(pool: &'static CoherentPool, tables: &'static IrqLock<KernelMapper>) {
    let Some(pages) = mm::pages() else { return };
    MEMORY.call_once(|| {
        CoherentMemory::new(pool, tables, pages, mm::cma_areas(), || {
            deferred::schedule(Work::CoherentFree);
        })
    });
    pool.set_refill(|| deferred::schedule(Work::PoolRefill));
    deferred::set_handler(Work::PoolRefill, || with(CoherentMemory::refill));
    deferred::set_handler(Work::CoherentFree, || with(CoherentMemory::run_deferred));
}

fn with(work: fn(&CoherentMemory)) {
    if let Some(memory) = MEMORY.get() {
        work(memory);
    }
}

/// The machine's coherent memory.
///
/// # Errors
///
/// [`AllocError::NotReady`] before [`init`].
#[inline]
pub(in crate::dma) fn memory() -> Result<&'static CoherentMemory, DmaError> {
    MEMORY.get().ok_or(DmaError::NoMemory(AllocError::NotReady))
}

/// Allocates `size` bytes, rounded up to pages, that the CPU and `device` use together without
/// maintenance.
///
/// Both addresses are aligned to the smallest power of two of pages that holds `size`; above
/// [`MAX_ALLOCATION`](super::MAX_ALLOCATION) that is tried, and given up for that alignment. The
/// memory is zero whatever the flags say, and the zeros are ordered before whatever store makes a
/// device look at them.
///
/// Where it comes from:
///
/// - For a device that snoops: cached memory of the highest zone that the device's coherent mask
///   reaches; above [`MAX_ALLOCATION`](super::MAX_ALLOCATION) of a contiguous memory area.
/// - For any other, with flags that do not block ([`Gfp::ATOMIC`], [`Gfp::NOWAIT`]): the pool.
/// - With flags that block: the pool while more than half of it stays free; else memory of a
///   contiguous memory area, which leaves the direct map while it is allocated. Where the device
///   reaches no such area, all of the pool.
///
/// The zone flags are dropped: the mask decides. Write-combining memory (`dma_alloc_wc`) is the
/// same: Normal non-cacheable memory of an arm64 machine gathers writes already.
///
/// May be called in any context with flags that do not block, and does not block then. With flags
/// that do, takes time in proportion to `size`.
///
/// # Errors
///
/// [`DmaError::ZeroLength`]; [`DmaError::Compound`] with [`Gfp::COMP`]; [`DmaError::PoolExhausted`];
/// [`DmaError::Run`] where contiguous memory cannot be had; [`DmaError::NoMemory`], also in a
/// context that may not block; [`DmaError::OutOfReach`].
#[doc(alias("dma_alloc_coherent", "dma_alloc_wc", "dma_alloc_attrs"))]
#[inline]
#[track_caller]
pub fn alloc(device: &'static Device, size: usize, gfp: Gfp) -> Result<Coherent, DmaError> {
    memory()?.alloc(device, size, gfp)
}

/// Gives back all that is not in use beyond what the pool had at boot, and what was freed where
/// blocking is not allowed. Ledgers call it before they count. A task.
pub fn drain() {
    with(CoherentMemory::drain);
}

/// What is known of the machine's coherent memory: its pool, and what was made of contiguous
/// memory. Any context.
pub fn info() -> Option<(PoolInfo, RunInfo)> {
    let memory = MEMORY.get()?;
    Some((memory.pool().info(), memory.run_info()))
}

/// Frames that describe coherent memory, which are kept for good.
pub fn kept_frames() -> impl Iterator<Item = Pfn> {
    MEMORY
        .get()
        .into_iter()
        .flat_map(CoherentMemory::kept_frames)
}
