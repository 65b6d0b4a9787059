//! Memory contiguous in virtual addresses only.
//!
//! `vmalloc` takes the largest runs of frames the page allocator gives and maps them one after
//! the other, with an unmapped guard page behind. No list of the frames is kept: the leaf that
//! maps the first frame of a run notes the run's order, and stays readable until the TLBs have
//! forgotten it.
//!
//! ```text
//! vmalloc:  reserve addresses -> allocate frames, write leaves -> one barrier pair
//! vfree:    mark -> retire leaves -> quarantine
//! later:    one flush for all in quarantine -> reap: free frames, then free addresses
//! ```
//!
//! Freed addresses are unmapped at once, but TLBs are flushed for many areas together. Until then
//! neither the addresses nor the frames are given out again, and so no frame changes its memory
//! type either; the types [`Stale`](crate::mmu::Stale), [`Quarantine`] and [`Flushed`] carry that
//! order. An access after `vfree` therefore faults for sure only after the flush, and reads or
//! writes nothing but the freed memory before it. [`vm_unmap_aliases`](Vmalloc::vm_unmap_aliases)
//! flushes and frees at once.

mod content;
mod error;
mod free;
mod info;
mod vmap;

pub use error::VmallocError;
pub use info::{AreaInfo, AreaKind, PurgeInfo, VmallocUsage};
pub use vmap::Protection;

use super::scope::admits_any_work;
use super::va::{AreaId, Chunk, VaAllocator, VaError};
use super::{Gfp, MemoryTypeError, Misuse, Owner, fault};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::deferred;
use crate::layout::{self, VMALLOC};
use crate::mmu::mapper;
use crate::mmu::{
    Access, Attributes, Flushed, KernelMapper, Level, MemoryType, Quarantine, Run, Stale,
};
use crate::sync::{Context, IrqLock, PerCpu};

/// Where frames come from.
///
/// # Safety
///
/// The `2^order` frames from the one [`alloc`](Self::alloc) returns are RAM in the direct map,
/// aligned to their size, that nobody else uses until they are given to [`free`](Self::free).
pub unsafe trait PageSource: Sync {
    /// Largest order [`alloc`](Self::alloc) can serve, at most 14.
    const MAX_ORDER: u32;

    /// Takes `2^order` frames from the zones `gfp` admits, zeroed with [`Gfp::ZERO`]. May block;
    /// above order 0 it gives up early, because the caller falls back to smaller runs.
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

    /// Whether `pfn`, anybody's, may be mapped as `wanted`.
    ///
    /// # Errors
    ///
    /// [`MemoryTypeError`] when it has another type or cannot be looked up.
    fn check_memory_type(&self, pfn: Pfn, wanted: MemoryType) -> Result<(), MemoryTypeError>;
}

/// Chunks of areas besides the built-in one: about 32,800 areas.
const CHUNKS: usize = 512;

/// Areas in quarantine, half of them flushed.
const QUARANTINE: usize = 128;

/// What every area of `vmalloc` is mapped as.
const ATTRIBUTES: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);

/// Runs mapped or reaped under one hold of the tables' lock.
const BATCH: usize = 16;

type Runs = heapless::Vec<Run, BATCH>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    /// Freed where it could not be taken down; on the list of deferred areas.
    Deferred,
    /// Taken down: another `vfree` is one too many.
    Freed,
}

/// What is noted of an area.
#[derive(Clone, Copy, Debug)]
struct Note {
    state: State,
    kind: AreaKind,
    /// The number of the owner the memory is charged to, 0 for none.
    owner: u8,
    /// The next deferred area.
    next: Option<Deferred>,
}

impl Note {
    const fn live(kind: AreaKind) -> Self {
        Self {
            state: State::Live,
            kind,
            owner: 0,
            next: None,
        }
    }
}

/// An area on the list of deferred ones, by the number of its first page in the window, plus one.
type Deferred = core::num::NonZero<u32>;

/// An area that no TLB holds any more.
#[derive(Debug)]
struct Reaping {
    area: AreaId,
    /// What still has frames.
    rest: Flushed,
}

/// A deferred area that is being taken down, by whichever core comes by.
#[derive(Debug)]
struct Departing {
    area: AreaId,
    /// What is unmapped of it.
    stale: Stale,
    /// Bytes of all of it.
    size: usize,
}

/// The areas of a window, and what waits to be given out again.
#[derive(Debug)]
struct Areas {
    va: VaAllocator<Note, CHUNKS>,
    quarantine: Quarantine<AreaId, QUARANTINE>,
    /// The area whose frames are being given back.
    reaping: Option<Reaping>,
    /// Bytes that may wait for a flush; none before the first one.
    limit: usize,
    deferred: Option<Deferred>,
    /// Pages of the deferred areas.
    deferred_pages: usize,
    departing: Option<Departing>,
    flushes: u64,
}

/// The allocator of one tree's vmalloc window.
#[derive(Debug)]
pub struct Vmalloc<P: 'static> {
    tables: &'static IrqLock<KernelMapper>,
    pages: &'static P,
    frames: usize,
    areas: IrqLock<Areas>,
}

impl<P: PageSource> Vmalloc<P> {
    /// The allocator of the vmalloc window of `tables`, with frames from `pages`.
    ///
    /// # Safety
    ///
    /// Nothing else maps or unmaps anything in this window of `tables`.
    pub unsafe fn new(tables: &'static IrqLock<KernelMapper>, pages: &'static P) -> Self {
        Self {
            tables,
            pages,
            frames: pages.total_frames(),
            areas: IrqLock::new(Areas {
                va: VaAllocator::new(&VMALLOC, Note::live(AreaKind::Vmalloc)),
                quarantine: Quarantine::new(),
                reaping: None,
                limit: 0,
                deferred: None,
                deferred_pages: 0,
                departing: None,
                flushes: 0,
            }),
        }
    }

    /// Allocates `size` bytes, rounded up to pages; the content is unspecified.
    ///
    /// The result is page aligned, contiguous in virtual addresses, Normal write-back, readable
    /// and writable, never executable. From 2 MiB on it is mapped by blocks where the frames
    /// allow. May block: interrupts are on and no lock is held.
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

    /// As [`vmalloc`](Self::vmalloc), with flags. Linux: `__vmalloc`.
    ///
    /// The flags are those of a request that may block: [`Gfp::KERNEL`], [`Gfp::NOFS`],
    /// [`Gfp::NOIO`], with [`Gfp::ZERO`], [`Gfp::NOFAIL`] (for frames; addresses and tables may
    /// still run out) and others. Unlike Linux's, a zone bit is honoured: with [`Gfp::DMA`] every
    /// frame is one the most limited DMA master reaches.
    ///
    /// # Errors
    ///
    /// As [`vmalloc`](Self::vmalloc); [`VmallocError::NonBlocking`] for flags like [`Gfp::ATOMIC`]
    /// and [`Gfp::NOWAIT`]; [`VmallocError::Flags`] for [`Gfp::NORETRY`] and [`Gfp::RETRY_MAYFAIL`],
    /// which large and small runs would take differently, and [`Gfp::MOVABLE`], because mapped
    /// frames cannot be migrated.
    #[doc(alias = "__vmalloc")]
    pub fn vmalloc_with(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
        const REFUSED: Gfp = Gfp::NORETRY.union(Gfp::RETRY_MAYFAIL).union(Gfp::MOVABLE);
        require_task(gfp)?;
        if !gfp.may_block() {
            return Err(VmallocError::NonBlocking(gfp));
        }
        if gfp.intersects(REFUSED) {
            let refused = gfp & REFUSED;
            return Err(VmallocError::Flags { refused, gfp });
        }
        let size = self.check_size(size)?;
        if fault::should_fail(gfp) {
            return Err(VmallocError::OutOfMemory { mapped: 0, size });
        }
        if deferred::is_pending() {
            self.catch_up(gfp);
        }
        if gfp.contains(Gfp::ACCOUNT) {
            return self.alloc_charged(size, gfp);
        }
        self.alloc_area(size, gfp)
    }

    fn alloc_area(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
        let va = self.reserve(size, AreaKind::Vmalloc, gfp)?;
        if let Err((mapped, error)) = self.populate(va, size, gfp) {
            match mapped {
                0 => {
                    self.areas.lock().va.free(va)?;
                }
                _ => {
                    let mut areas = self.areas.lock();
                    let (id, _) = areas.give_up(va, AreaKind::Vmalloc, State::Freed)?;
                    drop(areas);
                    // SAFETY: the addresses were not given out.
                    unsafe { self.take_down(id, va, mapped) }?;
                }
            }
            return Err(error);
        }
        mapper::publish();
        Ok(va)
    }

    /// The same, charged to the task's owner. The whole area is charged, not its frames: they are
    /// given back some time after it.
    #[cold]
    fn alloc_charged(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
        let Some(owner) = Owner::current() else {
            return self.alloc_area(size, gfp - Gfp::ACCOUNT);
        };
        owner.charge(size, gfp).map_err(VmallocError::OverLimit)?;
        let area = self.alloc_area(size, gfp - Gfp::ACCOUNT);
        let noted = area.and_then(|va| {
            self.areas.lock().va.get_mut(va)?.data.owner = owner.given_number();
            Ok(va)
        });
        noted.inspect_err(|_| owner.uncharge(size))
    }

    /// Does the work that was put off, as much of it as a request with `gfp` may wait for.
    #[cold]
    fn catch_up(&self, gfp: Gfp) {
        if admits_any_work(gfp) {
            deferred::run_pending();
        } else {
            self.run_deferred();
        }
    }

    /// Bytes of the area `vmalloc` gave out at `va`: what was asked for, rounded up to pages.
    ///
    /// # Errors
    ///
    /// [`VmallocError::NotAnArea`] and [`VmallocError::WrongKind`].
    pub fn vmalloc_size(&self, va: VirtAddr) -> Result<usize, VmallocError> {
        match self.areas.lock().va.get_mut(va) {
            Ok(area) if area.data.state == State::Live => {
                area.data.kind.expect(AreaKind::Vmalloc, va)?;
                Ok(area.size)
            }
            _ => Err(VmallocError::NotAnArea(va)),
        }
    }

    /// Frames taken for descriptors of areas, which are kept for good. No lock is held between two.
    pub fn kept_frames(&self) -> impl Iterator<Item = Pfn> + '_ {
        let chunk = |index| self.areas.lock().va.chunk(index);
        let frames = (0..CHUNKS).map_while(chunk).map(layout::virt_to_phys);
        frames.flatten().map(PhysAddr::pfn)
    }

    /// `size` in whole pages, if the machine has as many.
    #[inline]
    fn check_size(&self, size: usize) -> Result<usize, VmallocError> {
        if size == 0 {
            return Err(VmallocError::ZeroSize);
        }
        let pages = size.div_ceil(PAGE_SIZE);
        if pages > self.frames {
            let frames = self.frames;
            return Err(VmallocError::TooLarge { size, frames });
        }
        Ok(pages * PAGE_SIZE)
    }

    /// Takes addresses for `size` bytes, and nodes for the allocator if it has none left.
    #[inline(always)]
    fn reserve(&self, size: usize, kind: AreaKind, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
        let align = if size >= Level::L2.size() {
            Level::L2.size()
        } else {
            PAGE_SIZE
        };
        let placed = self.areas.lock().va.alloc(size, align, Note::live(kind));
        match placed {
            Ok(area) => Ok(area.va),
            Err(error) => self.reserve_short(size, align, kind, gfp, error),
        }
    }

    /// [`reserve`](Self::reserve) where that failed with `error`: with more nodes, or with what was
    /// freed.
    #[cold]
    #[inline(never)]
    fn reserve_short(
        &self,
        size: usize,
        align: usize,
        kind: AreaKind,
        gfp: Gfp,
        mut error: VaError,
    ) -> Result<VirtAddr, VmallocError> {
        let mut purged = false;
        loop {
            match error {
                VaError::OutOfNodes => self.add_nodes(size, gfp)?,
                VaError::NoSpace { .. } | VaError::TooManyAreas(_) if !purged => {
                    self.vm_unmap_aliases();
                    purged = true;
                }
                error => return Err(error.into()),
            }
            match self.areas.lock().va.alloc(size, align, Note::live(kind)) {
                Ok(area) => return Ok(area.va),
                Err(next) => error = next,
            }
        }
    }

    /// Takes a frame for more nodes, wanted for an area of `size` bytes that is asked for with `gfp`.
    fn add_nodes(&self, size: usize, gfp: Gfp) -> Result<(), VmallocError> {
        // What the flags say of the effort holds for the frame too; it is wanted anywhere, as it is.
        const EFFORT: Gfp = Gfp::KERNEL.union(Gfp::NOFAIL).union(Gfp::NOWARN);
        let frame = self.pages.alloc(0, gfp & EFFORT);
        let frame = frame.ok_or(VmallocError::OutOfMemory { mapped: 0, size })?;
        // SAFETY: the frame is ours, in the direct map, and freed only if the chunk is not taken.
        let chunk = unsafe { Chunk::in_frame(frame, Note::live(AreaKind::Vmalloc)) };
        let grown = self.areas.lock().va.grow(chunk);
        if let Err(error) = grown {
            // SAFETY: nothing refers to the chunk.
            unsafe { self.pages.free(frame, 0) };
            return Err(error.into());
        }
        Ok(())
    }

    /// Maps fresh frames for `size` bytes at `va`; on error also how many bytes were mapped.
    #[inline(always)]
    fn populate(&self, va: VirtAddr, size: usize, gfp: Gfp) -> Result<(), (usize, VmallocError)> {
        let mut mapped = 0;
        let mut largest = P::MAX_ORDER;
        while mapped < size {
            let mut runs = Runs::new();
            let taken = self.take_runs(&mut runs, size - mapped, &mut largest, gfp);
            if runs.is_empty() {
                return Err((mapped, VmallocError::OutOfMemory { mapped, size }));
            }
            // SAFETY: the frames are RAM of ours, mapped elsewhere by the direct map only, which
            // is write-back and not executable either.
            let result = unsafe { self.tables.lock().map_runs(va + mapped, &runs, ATTRIBUTES) };
            match result {
                Ok(()) => mapped += taken,
                Err((number, error)) => {
                    let (done, rest) = runs.split_at(number);
                    mapped += done.iter().map(|run| run.size()).sum::<usize>();
                    for run in rest {
                        // SAFETY: the run was just allocated with this order and is not mapped.
                        unsafe { self.pages.free(run.pfn, run.order) };
                    }
                    return Err((mapped, error.into()));
                }
            }
        }
        Ok(())
    }

    /// Takes runs of at most `size` bytes in all, as large as there are, but none larger than
    /// 2^`largest` frames, which falls to what there is. The bytes taken.
    #[inline]
    fn take_runs(&self, runs: &mut Runs, size: usize, largest: &mut u32, gfp: Gfp) -> usize {
        let mut taken = 0;
        let mut purged = false;
        while taken < size && !runs.is_full() {
            let order = ((size - taken) / PAGE_SIZE).ilog2().min(*largest);
            match self.pages.alloc(order, gfp) {
                Some(pfn) => {
                    let run = Run { pfn, order };
                    taken += run.size();
                    // Not full, as just checked.
                    let _ = runs.push(run);
                }
                None if order > 0 => *largest = order - 1,
                // What was freed may be all there is.
                None if !purged => {
                    purged = true;
                    self.vm_unmap_aliases();
                }
                None => break,
            }
        }
        taken
    }
}

/// Whether `va` lies in the vmalloc window, mapped or not.
#[inline]
pub fn is_vmalloc_addr(va: VirtAddr) -> bool {
    VMALLOC.contains(va)
}

/// Refuses, and counts, a request of a context that may not block.
#[inline]
fn require_task(gfp: Gfp) -> Result<(), VmallocError> {
    match PerCpu::current().context() {
        Context::Task => Ok(()),
        context => {
            Misuse::Context(context).note(gfp);
            Err(VmallocError::Context(context))
        }
    }
}

#[cfg(test)]
mod tests;
