//! Contiguous memory that is non-cacheable while it is allocated.
//!
//! A run of frames of a contiguous memory area leaves the direct map and appears in the coherent
//! window, in the order of [`change_type`](crate::mmu::Mapper::change_type); on the way back it is
//! write-back memory in the direct map again before the area sees it. The frames' descriptors say
//! what they are in between.
//!
//! Should a change fail half-way it is undone. Where that fails too, or memory cannot become
//! write-back memory again, nobody gets it any more: the run stays in the window, counted
//! ([`RunInfo::kept`](super::RunInfo)) and noted ([`Misuse::CoherentKept`]).

mod change;

use super::MAX_ALLOCATION;
use crate::addr::{PAGE_SIZE, Pfn, PhysRange, VirtAddr};
use crate::arch::cpu;
use crate::dma::{Device, DmaError};
use crate::layout::{self, COHERENT, DIRECT_MAP, Window};
use crate::mm::va::{Chunk, VaAllocator, VaError};
use crate::mm::{
    AllocError, Cma, CmaError, Gfp, MAX_ALIGN_ORDER, MemoryTypeError, PageAllocator, get_order,
};
use crate::mmu::{KernelMapper, MapError, MemoryType};
use crate::sync::{Context, IrqLock, PerCpu};
use change::Unchanged;
use core::sync::atomic::{AtomicU32, Ordering};

/// What the boot code maps its pool in: the start of the window.
const POOL_WINDOW: usize = 1 << 30;

/// Where runs are mapped: the coherent window behind the pool.
const RUNS: Window = Window {
    name: "coherent runs",
    base: VirtAddr::new(COHERENT.base.get() + POOL_WINDOW),
    size: COHERENT.size - POOL_WINDOW,
};

/// Chunks of areas besides the built-in one: about 2,000 runs.
const CHUNKS: usize = 32;

/// Why memory could not be made non-cacheable. Nothing has changed but for what
/// [`KeptOut`](Self::KeptOut) says, and that movable memory may have moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// No contiguous memory area has it.
    #[error(transparent)]
    Contiguous(#[from] CmaError),
    /// The coherent window has no room.
    #[error("coherent window: {0}")]
    Window(#[from] VaError),
    /// There is no memory to note another run.
    #[error(transparent)]
    NoMemory(#[from] AllocError),
    /// Its frames have another type already.
    #[error(transparent)]
    MemoryType(#[from] MemoryTypeError),
    /// It cannot be mapped.
    #[error(transparent)]
    Tables(#[from] MapError),
    /// It cannot be mapped, and some of it not put back where it was: nobody gets it any more.
    #[error("{error}; {pages} pages are between two types and kept out of use")]
    KeptOut {
        /// Why it cannot be mapped.
        error: MapError,
        /// Pages of the run.
        pages: u32,
    },
}

/// Frames of a contiguous memory area that are mapped in the coherent window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    va: VirtAddr,
    pfn: Pfn,
    count: u32,
}

impl Run {
    /// First address in the coherent window.
    pub(super) const fn va(&self) -> VirtAddr {
        self.va
    }

    /// The frames.
    pub(super) fn frames(&self) -> PhysRange {
        PhysRange::new(self.pfn.phys(), (self.pfn + self.count).phys())
    }
}

/// What is noted of an area of the window.
#[derive(Clone, Copy, Debug)]
struct Note {
    pfn: Pfn,
    count: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    /// Freed where blocking is not allowed, under that ticket.
    Freed(u32),
    /// On its way back, after it was freed under that ticket.
    Leaving(u32),
    /// Nobody's for good, because its type could not be changed back.
    Kept,
}

impl Note {
    const NONE: Self = Self {
        pfn: Pfn::new(0),
        count: 0,
        state: State::Kept,
    };

    /// Whether it was freed before `ticket` was drawn, and is not its area's yet.
    fn returns_before(&self, ticket: u32) -> bool {
        match self.state {
            // Tickets wrap around.
            State::Freed(drawn) | State::Leaving(drawn) => (drawn.wrapping_sub(ticket) as i32) < 0,
            State::Live | State::Kept => false,
        }
    }
}

/// The runs of a machine.
///
/// No lock is taken under that of the window, so that a run may be freed under any.
#[derive(Debug)]
pub(super) struct Runs {
    tables: &'static IrqLock<KernelMapper>,
    pages: &'static PageAllocator,
    areas: &'static [Cma],
    window: IrqLock<VaAllocator<Note, CHUNKS>>,
    /// Runs that were freed where blocking is not allowed, and are not their area's yet.
    returning: AtomicU32,
    /// The ticket of the next such run: drawn under the window's lock.
    next_ticket: AtomicU32,
    /// Says that [`run_deferred`](Self::run_deferred) has work, in any context.
    defer: fn(),
}

impl Runs {
    /// No run yet; they will be made of memory of `areas`, in `tables`. `defer` is called in any
    /// context, and sees to it that [`run_deferred`](Self::run_deferred) is.
    pub(super) const fn new(
        tables: &'static IrqLock<KernelMapper>,
        pages: &'static PageAllocator,
        areas: &'static [Cma],
        defer: fn(),
    ) -> Self {
        Self {
            tables,
            pages,
            areas,
            window: IrqLock::new(VaAllocator::new(&RUNS, Note::NONE)),
            returning: AtomicU32::new(0),
            next_ticket: AtomicU32::new(0),
            defer,
        }
    }

    /// The areas of which `device` reaches at least the start, the default one first. No area is
    /// out of reach if there is no device.
    pub(super) fn areas_for(
        &self,
        device: Option<&'static Device>,
    ) -> impl Iterator<Item = &'static Cma> {
        let by_default = |wanted| move |cma: &&'static Cma| cma.area().is_default == wanted;
        let reached = move |cma: &&'static Cma| {
            let start = cma.base().phys();
            device.is_none_or(|device| device.coherent_addr(start, PAGE_SIZE).is_ok())
        };
        let areas = self.areas;
        let default = areas.iter().filter(by_default(true));
        default
            .chain(areas.iter().filter(by_default(false)))
            .filter(reached)
    }

    /// Makes `size` bytes, whole pages, of memory that `device` reaches non-cacheable. They are not
    /// zeroed. Task context: may block. Costs time in proportion to `size`, and to what is on its way
    /// back when it is called, which is waited for.
    ///
    /// # Errors
    ///
    /// [`DmaError::Run`] with the reason of the last area that was tried; [`DmaError::OutOfReach`].
    /// `None` if there is no area to try.
    pub(super) fn alloc(
        &self,
        device: Option<&'static Device>,
        size: usize,
        no_warn: bool,
    ) -> Option<Result<Run, DmaError>> {
        self.settle();
        let mut outcome = None;
        for cma in self.areas_for(device) {
            let tried = self.alloc_from(cma, device, size, no_warn);
            if tried.is_ok() {
                return Some(tried);
            }
            outcome = Some(tried);
        }
        outcome
    }

    fn alloc_from(
        &self,
        cma: &'static Cma,
        device: Option<&'static Device>,
        size: usize,
        no_warn: bool,
    ) -> Result<Run, DmaError> {
        let pfn = take(cma, device, size, no_warn)?;
        let count = (size / PAGE_SIZE) as u32;
        self.convert(pfn, count).map_err(|error| {
            if !matches!(error, RunError::KeptOut { .. }) {
                // SAFETY: the frames were taken above, and are in the direct map only.
                let _ = unsafe { cma.release(pfn, count) };
            }
            error.into()
        })
    }

    /// Makes a run of `count` frames at `pfn`, which are the caller's, and stay so unless they are
    /// [kept out](RunError::KeptOut).
    fn convert(&self, pfn: Pfn, count: u32) -> Result<Run, RunError> {
        let size = count as usize * PAGE_SIZE;
        let frames = pfn..pfn + count;
        let wanted = MemoryType::NormalNonCacheable;
        let note = Note {
            pfn,
            count,
            state: State::Live,
        };
        let va = self.reserve(size, note)?;
        let run = Run { va, pfn, count };
        // SAFETY: the frames are the caller's.
        let claimed = unsafe {
            self.pages
                .frames()
                .claim_memory_type(frames.clone(), wanted)
        };
        if let Err(error) = claimed {
            self.forget(run);
            return Err(error.into());
        }
        match self.change(in_direct_map(pfn), va, size, wanted) {
            Ok(()) => Ok(run),
            Err(Unchanged {
                error,
                is_undone: true,
            }) => {
                // SAFETY: the frames are mapped as write-back memory, as they were.
                unsafe { self.pages.frames().release_memory_type(frames) };
                self.forget(run);
                Err(error.into())
            }
            Err(Unchanged { error, .. }) => {
                self.keep_out(run);
                let pages = count;
                Err(RunError::KeptOut { error, pages })
            }
        }
    }

    /// Takes addresses for `size` bytes, as aligned as the frames.
    fn reserve(&self, size: usize, note: Note) -> Result<VirtAddr, RunError> {
        let align = (PAGE_SIZE << align_order(size)).min(VaAllocator::<Note, CHUNKS>::MAX_ALIGN);
        loop {
            let placed = self.window.lock().alloc(size, align, note);
            match placed {
                Ok(area) => return Ok(area.va),
                Err(VaError::OutOfNodes) => self.add_nodes()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn add_nodes(&self) -> Result<(), RunError> {
        let frame = self.pages.alloc_pages(Gfp::KERNEL, 0)?;
        // SAFETY: the frame is ours, in the direct map, and freed only if the chunk is not taken.
        let chunk = unsafe { Chunk::in_frame(frame, Note::NONE) };
        let grown = self.window.lock().grow(chunk);
        if let Err(error) = grown {
            // SAFETY: nothing refers to the chunk.
            let freed = unsafe { self.pages.free_pages(frame, 0) };
            debug_assert_eq!(freed, Ok(()));
            return Err(error.into());
        }
        Ok(())
    }

    /// Gives addresses back at which nothing is mapped.
    fn forget(&self, run: Run) {
        let freed = self.window.lock().free(run.va);
        debug_assert!(freed.is_ok());
    }

    /// Takes a run back that nobody uses. In a task it is write-back memory of its area on return;
    /// elsewhere that is left to [`run_deferred`](Self::run_deferred). Any context.
    pub(super) fn free(&self, run: Run) {
        if PerCpu::current().context() == Context::Task {
            self.give_back(run);
            return;
        }
        if let Ok(area) = self.window.lock().get_mut(run.va) {
            let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
            area.data.state = State::Freed(ticket);
            self.returning.fetch_add(1, Ordering::Relaxed);
        }
        (self.defer)();
    }

    /// Gives back what was freed where that is not allowed, before the call. A task.
    pub(super) fn run_deferred(&self) {
        self.give_back_before(self.next_ticket.load(Ordering::Relaxed));
    }

    /// As [`run_deferred`](Self::run_deferred), and waits for what another core gives back of it:
    /// what was freed before the call is its area's then. What is freed meanwhile is not waited for.
    /// Who gives back waits for nobody, so this ends. A task.
    pub(super) fn settle(&self) {
        if self.returning.load(Ordering::Acquire) == 0 {
            return;
        }
        let ticket = self.next_ticket.load(Ordering::Relaxed);
        self.give_back_before(ticket);
        while self.is_returning_before(ticket) {
            // An event that comes between the look and this is not lost: it ends the wait.
            cpu::wait_for_event();
        }
    }

    fn give_back_before(&self, ticket: u32) {
        while let Some(run) = self.next_freed_before(ticket) {
            self.give_back(run);
            // After the area has the run: see `settle`.
            self.returning.fetch_sub(1, Ordering::Release);
            cpu::send_event();
        }
    }

    fn is_returning_before(&self, ticket: u32) -> bool {
        let window = self.window.lock();
        window.iter().any(|area| area.data.returns_before(ticket))
    }

    fn next_freed_before(&self, ticket: u32) -> Option<Run> {
        let mut window = self.window.lock();
        let (area, drawn) = window.iter().find_map(|area| match area.data.state {
            State::Freed(drawn) if area.data.returns_before(ticket) => Some((area, drawn)),
            _ => None,
        })?;
        window.get_mut(area.va).ok()?.data.state = State::Leaving(drawn);
        Some(Run {
            va: area.va,
            pfn: area.data.pfn,
            count: area.data.count,
        })
    }

    /// Makes a run write-back memory of the direct map again, and then its area's.
    fn give_back(&self, run: Run) {
        let size = run.count as usize * PAGE_SIZE;
        let direct = in_direct_map(run.pfn);
        let cached = MemoryType::NormalWriteBack;
        if self.change(run.va, direct, size, cached).is_err() {
            self.keep_out(run);
            return;
        }
        // SAFETY: the frames are ours, and mapped as write-back memory only.
        unsafe {
            let frames = run.pfn..run.pfn + run.count;
            self.pages.frames().release_memory_type(frames);
        }
        if let Some(cma) = self.areas.iter().find(|cma| cma.contains(run.pfn)) {
            // SAFETY: the allocation is ours, and in the direct map only.
            let released = unsafe { cma.release(run.pfn, run.count) };
            debug_assert_eq!(released, Ok(()));
        }
        self.forget(run);
    }

    /// Runs that exist, their pages, and those that are kept out of use.
    pub(super) fn usage(&self) -> (usize, usize, usize) {
        let window = self.window.lock();
        let (mut runs, mut pages, mut kept) = (0, 0, 0);
        for Note { count, state, .. } in window.iter().map(|area| area.data) {
            let count = count as usize;
            runs += 1;
            pages += count;
            kept += if state == State::Kept { count } else { 0 };
        }
        (runs, pages, kept)
    }

    /// Frames that describe runs, which are kept for good.
    pub(super) fn kept_frames(&self) -> impl Iterator<Item = Pfn> + '_ {
        let chunk = |index| self.window.lock().chunk(index);
        let chunks = (0..CHUNKS).map_while(chunk);
        chunks
            .filter_map(layout::virt_to_phys)
            .map(crate::addr::PhysAddr::pfn)
    }
}

/// Where the tables have `pfn` in the direct map. On a host its bytes are elsewhere, see
/// [`layout::phys_to_virt`].
fn in_direct_map(pfn: Pfn) -> VirtAddr {
    DIRECT_MAP.base + pfn.phys().get() as usize
}

/// The alignment of `size` bytes, as a power of two of pages.
fn align_order(size: usize) -> u32 {
    get_order(size).min(MAX_ALIGN_ORDER)
}

/// Takes `size` bytes, whole pages, that `device` reaches from `cma`.
///
/// They are aligned to the smallest power of two of pages that holds them; above
/// [`MAX_ALLOCATION`], if the area has no such stretch, to that.
pub(super) fn take(
    cma: &'static Cma,
    device: Option<&'static Device>,
    size: usize,
    no_warn: bool,
) -> Result<Pfn, DmaError> {
    let area = cma.count();
    let count = u32::try_from(size / PAGE_SIZE).unwrap_or(u32::MAX);
    if count > area {
        return Err(RunError::from(CmaError::Count { count, area }).into());
    }
    let natural = align_order(size);
    let largest = get_order(MAX_ALLOCATION);
    let pfn = match cma.alloc(count, natural, no_warn || natural > largest) {
        Err(CmaError::Full { .. } | CmaError::Busy(_)) if natural > largest => {
            cma.alloc(count, largest, no_warn)
        }
        outcome => outcome,
    };
    let pfn = pfn.map_err(RunError::from)?;
    let reached = device.map_or(Ok(()), |device| {
        device.coherent_addr(pfn.phys(), size).map(drop)
    });
    reached.map(|()| pfn).inspect_err(|_| {
        // SAFETY: the frames were taken above.
        let released = unsafe { cma.release(pfn, count) };
        debug_assert_eq!(released, Ok(()));
    })
}
