//! Memory contiguous in virtual addresses only.
//!
//! `vmalloc` takes the largest runs of frames the page allocator gives and maps them one after
//! the other, with an unmapped guard page behind. No list of the frames is kept: the leaf that
//! maps the first frame of a run notes the run's order, and stays readable until the TLBs have
//! forgotten it.
//!
//! ```text
//! vmalloc:  reserve addresses -> allocate frames, write leaves -> one barrier pair
//! vfree:    mark -> retire leaves -> TLBI on all cores -> reap: free frames -> free addresses
//! ```
//!
//! Only the last line's order matters for safety, and the types [`Stale`] and [`Flushed`] carry
//! it. The flush is eager today; a batch of retired areas waiting for one flush fits between
//! `retire` and `purge`.

use super::Gfp;
use super::fault;
use super::va::{Chunk, VaAllocator, VaError};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::arch::cpu;
use crate::layout::{self, VMALLOC};
use crate::mmu::mapper;
use crate::mmu::{
    Access, Attributes, Flushed, KernelMapper, Level, MapError, MemoryType, Run, Stale,
};
use crate::sync::{IrqLock, PerCpu};

/// Where frames come from.
///
/// # Safety
///
/// The `2^order` frames from the one [`alloc`](Self::alloc) returns are RAM in the direct map,
/// aligned to their size, that nobody else uses until they are given to [`free`](Self::free).
pub unsafe trait PageSource: Sync {
    /// Largest order [`alloc`](Self::alloc) can serve, at most 14.
    const MAX_ORDER: u32;

    /// Takes `2^order` frames from the zones `gfp` admits. May block; above order 0 it gives up
    /// early, because the caller falls back to smaller runs.
    fn alloc(&self, order: u32, gfp: Gfp) -> Option<Pfn>;

    /// Takes frames back.
    ///
    /// # Safety
    ///
    /// `pfn` came from [`alloc`](Self::alloc) with the same order, and nothing maps the frames but
    /// the direct map.
    unsafe fn free(&self, pfn: Pfn, order: u32);

    /// Frames the source could ever give out.
    fn total_frames(&self) -> usize;
}

/// Why memory was not given out or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmallocError {
    /// Zero bytes were asked for.
    #[error("zero bytes")]
    ZeroSize,
    /// More than the machine's memory was asked for.
    #[error("{size:#x} bytes are more than the {frames} frames of the machine")]
    TooLarge {
        /// Bytes asked for.
        size: usize,
        /// Frames there are.
        frames: usize,
    },
    /// The call may block, and the context may not: an interrupt handler, a lock held or
    /// interrupts masked.
    #[error("called where blocking is not allowed")]
    AtomicContext,
    /// The page allocator had no frame left.
    #[error("out of memory after {mapped:#x} of {size:#x} bytes")]
    OutOfMemory {
        /// Bytes that had been mapped (and were given back).
        mapped: usize,
        /// Bytes asked for.
        size: usize,
    },
    /// The address is not the start of memory that `vmalloc` gave out and `vfree` has not taken
    /// back.
    #[error("{0} is not the start of a vmalloc area")]
    NotAnArea(VirtAddr),
    /// The address is not in a mapped page of the vmalloc window.
    #[error("{0} is not vmalloc memory")]
    NotMapped(VirtAddr),
    /// The window is not set up yet.
    #[error("vmalloc is not set up yet")]
    NotReady,
    /// No addresses or descriptors are left.
    #[error(transparent)]
    Addresses(#[from] VaError),
    /// The tables could not be changed.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Chunks of areas besides the built-in one: about 32,800 areas.
const CHUNKS: usize = 512;

/// What every vmalloc area is mapped as.
const ATTRIBUTES: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);

/// Runs reaped under one hold of the tables' lock.
const REAP_BATCH: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    /// Being taken down: another `vfree` is one too many.
    Freeing,
}

/// The allocator of one tree's vmalloc window.
#[derive(Debug)]
pub struct Vmalloc<P: 'static> {
    tables: &'static IrqLock<KernelMapper>,
    pages: &'static P,
    areas: IrqLock<VaAllocator<State, CHUNKS>>,
}

impl<P: PageSource> Vmalloc<P> {
    /// The allocator of the vmalloc window of `tables`, with frames from `pages`.
    pub const fn new(tables: &'static IrqLock<KernelMapper>, pages: &'static P) -> Self {
        Self {
            tables,
            pages,
            areas: IrqLock::new(VaAllocator::new(&VMALLOC, State::Live)),
        }
    }

    /// Allocates `size` bytes, rounded up to pages; the content is unspecified.
    ///
    /// The result is page aligned, contiguous in virtual addresses, Normal write-back, readable
    /// and writable. May block: interrupts are on and no lock is held.
    ///
    /// # Errors
    ///
    /// See [`VmallocError`]; nothing stays allocated.
    pub fn vmalloc(&self, size: usize) -> Result<VirtAddr, VmallocError> {
        self.vmalloc_with(size, Gfp::KERNEL)
    }

    /// As [`vmalloc`](Self::vmalloc), zeroed to the end of the last page.
    ///
    /// # Errors
    ///
    /// As [`vmalloc`](Self::vmalloc).
    pub fn vzalloc(&self, size: usize) -> Result<VirtAddr, VmallocError> {
        self.vmalloc_with(size, Gfp::KERNEL | Gfp::ZERO)
    }

    /// Takes memory back. On return no core can reach it through `va`.
    ///
    /// May be called in any context that may take the locks of the kernel's tables, of the areas
    /// and of the page allocator; it does not block.
    ///
    /// # Errors
    ///
    /// [`VmallocError::NotAnArea`]: a wrong or second free changes nothing.
    ///
    /// # Safety
    ///
    /// Nothing refers to the memory any more. An address that was never returned by an allocation
    /// is refused, but not while a concurrent allocation is about to return it.
    pub unsafe fn vfree(&self, va: VirtAddr) -> Result<(), VmallocError> {
        let size = {
            let mut areas = self.areas.lock();
            match areas.get_mut(va) {
                Ok(area) if *area.data == State::Live => {
                    *area.data = State::Freeing;
                    area.size
                }
                _ => return Err(VmallocError::NotAnArea(va)),
            }
        };
        // SAFETY: the area was live until now, so it is mapped whole, and the caller is done.
        let stale = unsafe { self.retire(va, size) }?;
        self.purge(stale.flush())?;
        self.areas.lock().free(va)?;
        Ok(())
    }

    /// The frame behind `va`, an address in memory from [`vmalloc`](Self::vmalloc).
    ///
    /// # Errors
    ///
    /// [`VmallocError::NotMapped`], also for guard pages and addresses outside the window.
    pub fn vmalloc_to_page(&self, va: VirtAddr) -> Result<Pfn, VmallocError> {
        self.translate(va).map(PhysAddr::pfn)
    }

    fn translate(&self, va: VirtAddr) -> Result<PhysAddr, VmallocError> {
        if !is_vmalloc_addr(va) {
            return Err(VmallocError::NotMapped(va));
        }
        let leaf = self.tables.lock().leaf(va);
        leaf.and_then(|leaf| leaf.translate(va))
            .ok_or(VmallocError::NotMapped(va))
    }

    /// As [`vmalloc`](Self::vmalloc), of frames that `gfp` admits: with [`Gfp::DMA`], of frames
    /// the most limited DMA master reaches. Linux: `__vmalloc`.
    ///
    /// # Errors
    ///
    /// As [`vmalloc`](Self::vmalloc).
    #[doc(alias = "__vmalloc")]
    pub fn vmalloc_with(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
        if in_atomic_context() {
            return Err(VmallocError::AtomicContext);
        }
        if size == 0 {
            return Err(VmallocError::ZeroSize);
        }
        let frames = self.pages.total_frames();
        if size.div_ceil(PAGE_SIZE) > frames {
            return Err(VmallocError::TooLarge { size, frames });
        }
        let size = size.next_multiple_of(PAGE_SIZE);
        if fault::should_fail(gfp) {
            return Err(VmallocError::OutOfMemory { mapped: 0, size });
        }
        let va = self.reserve(size)?;
        if let Err((mapped, error)) = self.populate(va, size, gfp) {
            if mapped > 0 {
                // SAFETY: the addresses were not given out.
                let stale = unsafe { self.retire(va, mapped) }?;
                self.purge(stale.flush())?;
            }
            self.areas.lock().free(va)?;
            return Err(error);
        }
        mapper::publish();
        Ok(va)
    }

    /// Takes addresses for `size` bytes, and nodes for the allocator if it has none left.
    fn reserve(&self, size: usize) -> Result<VirtAddr, VmallocError> {
        let align = if size >= Level::L2.size() {
            Level::L2.size()
        } else {
            PAGE_SIZE
        };
        loop {
            match self.areas.lock().alloc(size, align, State::Live) {
                Ok(area) => return Ok(area.va),
                Err(VaError::OutOfNodes) => {}
                Err(error) => return Err(error.into()),
            }
            let frame = self.pages.alloc(0, Gfp::KERNEL);
            let frame = frame.ok_or(VmallocError::OutOfMemory { mapped: 0, size })?;
            // SAFETY: the frame is ours, in the direct map, and freed only if the chunk is not
            // taken.
            let chunk = unsafe { Chunk::in_frame(frame, State::Live) };
            let grown = self.areas.lock().grow(chunk);
            if let Err(error) = grown {
                // SAFETY: nothing refers to the chunk.
                unsafe { self.pages.free(frame, 0) };
                return Err(error.into());
            }
        }
    }

    /// Maps fresh frames for `size` bytes at `va`; on error also how many bytes were mapped.
    fn populate(&self, va: VirtAddr, size: usize, gfp: Gfp) -> Result<(), (usize, VmallocError)> {
        let mut mapped = 0;
        let mut largest = P::MAX_ORDER;
        while mapped < size {
            let order = ((size - mapped) / PAGE_SIZE).ilog2().min(largest);
            let Some(pfn) = self.pages.alloc(order, gfp - Gfp::ZERO) else {
                if order == 0 {
                    return Err((mapped, VmallocError::OutOfMemory { mapped, size }));
                }
                largest = order - 1;
                continue;
            };
            let run = Run { pfn, order };
            if gfp.contains(Gfp::ZERO) {
                let start = layout::phys_to_virt(pfn.phys()).as_ptr::<u8>();
                // SAFETY: the run is ours alone and in the direct map.
                unsafe { start.write_bytes(0, run.size()) };
            }
            // SAFETY: the frames are RAM of ours, mapped elsewhere by the direct map only, which
            // is write-back and not executable either.
            let result = unsafe { self.tables.lock().map_run(va + mapped, run, ATTRIBUTES) };
            if let Err(error) = result {
                // SAFETY: the run was just allocated with this order and is not mapped.
                unsafe { self.pages.free(pfn, order) };
                return Err((mapped, error.into()));
            }
            mapped += run.size();
        }
        Ok(())
    }

    /// Makes mapped addresses invalid; TLBs may still hold them.
    ///
    /// # Safety
    ///
    /// Nothing refers to the memory any more.
    unsafe fn retire(&self, va: VirtAddr, size: usize) -> Result<Stale, VmallocError> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.tables.lock().retire(va, size) }?)
    }

    /// Gives the frames of a flushed range back to the page allocator.
    fn purge(&self, mut flushed: Flushed) -> Result<(), VmallocError> {
        let mut batch = heapless::Vec::<Run, REAP_BATCH>::new();
        while flushed.size() > 0 {
            let mut tables = self.tables.lock();
            while !batch.is_full()
                && let Some(run) = tables.reap(&mut flushed)?
            {
                // Not full, as just checked.
                let _ = batch.push(run);
            }
            drop(tables);
            for run in &batch {
                // SAFETY: `map_run` noted the run as it was allocated, and it has left the
                // tables and, by the type of `flushed`, the TLBs.
                unsafe { self.pages.free(run.pfn, run.order) };
            }
            batch.clear();
        }
        Ok(())
    }
}

/// Whether `va` lies in the vmalloc window, mapped or not.
pub fn is_vmalloc_addr(va: VirtAddr) -> bool {
    VMALLOC.contains(va)
}

fn in_atomic_context() -> bool {
    let this_cpu = PerCpu::current();
    cpu::irqs_masked() || this_cpu.irq_depth() > 0 || this_cpu.locks_held() > 0
}

#[cfg(test)]
mod tests;
