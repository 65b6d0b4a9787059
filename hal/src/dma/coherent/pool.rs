//! The pool for callers that may not block.

use super::bitmap::{Found, PageBitmap, SKEW_WORDS, words_for};
use super::block::{Block, Origin};
use super::run::Run;
use super::{Coherent, MAX_ALLOCATION};
use crate::addr::{PAGE_SIZE, PhysRange, VirtAddr};
use crate::dma::{Device, DmaError, DmaSegment, maintenance};
use crate::layout;
use crate::sync::{IrqLock, Once};
use core::fmt;

/// Bytes in the largest pool, without what it takes in while it runs.
pub const MAX_POOL_SIZE: usize = 16 << 20;

/// Bytes that a pool takes in at a time while it runs.
pub const CHUNK_SIZE: usize = 2 << 20;

/// Most chunks that a pool takes in: half of the largest pool again.
pub const MAX_CHUNKS: usize = MAX_POOL_SIZE / 2 / CHUNK_SIZE;

const POOL_WORDS: usize = words_for(MAX_POOL_SIZE) + SKEW_WORDS;
const CHUNK_WORDS: usize = words_for(CHUNK_SIZE);
const CHUNK_PAGES: u32 = (CHUNK_SIZE / PAGE_SIZE) as u32;

/// The share of its pages that a pool keeps for callers that may not block.
const RESERVE_SHARE: u32 = 2;

/// The share of its pages below which a pool wants another chunk.
const LOW_SHARE: u32 = 4;

/// Why a range cannot be a coherent pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPool {
    /// Empty, not of whole pages, or larger than [`MAX_POOL_SIZE`].
    #[error("a coherent pool of {0:#x} bytes")]
    Size(u64),
    /// Start and mapping differ modulo [`MAX_ALLOCATION`], so that no address could be aligned for
    /// the CPU and the device at once.
    #[error("a coherent pool mapped at {0}, misaligned with its frames")]
    Alignment(VirtAddr),
}

/// Non-cacheable memory that is ready: what is handed out without blocking.
///
/// It begins with memory that the boot code set aside, and may take in [chunks](CHUNK_SIZE) while
/// it runs. Its lock is taken last: no other lock is taken under it.
#[derive(Debug)]
pub struct CoherentPool {
    frames: PhysRange,
    cpu: VirtAddr,
    /// Pages that are kept for callers that may not block, where others have another source.
    reserve: u32,
    /// Free pages below which the pool asks for a chunk.
    low: u32,
    state: IrqLock<State>,
    /// Called when the pool is low on pages.
    refill: Once<fn()>,
}

#[derive(Debug)]
struct State {
    boot: PageBitmap<POOL_WORDS>,
    chunks: [Option<Chunk>; MAX_CHUNKS],
    /// Free pages, of the chunks too.
    free: u32,
    refills: u32,
    exhausted: u32,
}

#[derive(Debug)]
struct Chunk {
    run: Run,
    pages: PageBitmap<CHUNK_WORDS>,
}

impl Chunk {
    /// Takes `pages` pages if the device reaches them: where the CPU and the device find them.
    fn take(
        &mut self,
        device: &Device,
        index: u8,
        pages: u32,
    ) -> Option<(VirtAddr, DmaSegment, Place)> {
        let start = self.run.frames().start;
        let addr = device.coherent_addr(start, CHUNK_SIZE).ok()?;
        let page = self.pages.allocate(pages)?.page;
        let offset = page as usize * PAGE_SIZE;
        let cpu = layout::mapped_view(self.run.va(), start) + offset;
        let segment = DmaSegment {
            addr: addr + offset,
            len: pages as usize * PAGE_SIZE,
        };
        let chunk = Some(index);
        Some((cpu, segment, Place { chunk, page }))
    }
}

/// A block of what was set aside at boot, before its lines are dropped and it is zeroed.
#[derive(Clone, Copy, Debug)]
#[must_use = "it is lost"]
pub(super) struct Taken {
    found: Found,
    segment: DmaSegment,
}

/// Where in a pool an allocation lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Which of the chunks, or `None` for the memory set aside at boot.
    chunk: Option<u8>,
    page: u32,
}

/// What is known of a coherent pool at one moment. Displayed as a line in the manner of
/// `slabinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    /// Pages, taken-in chunks included.
    pub pages: usize,
    /// Pages not allocated.
    pub free: usize,
    /// Chunks that the pool holds beyond what it had at boot.
    pub chunks: usize,
    /// Chunks taken in since boot.
    pub refills: u32,
    /// Requests refused because no block was free.
    pub exhausted: u32,
}

impl fmt::Display for PoolInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "coherent_pool pages={} free={} chunks={} refills={} exhausted={}",
            self.pages, self.free, self.chunks, self.refills, self.exhausted
        )
    }
}

impl CoherentPool {
    /// A pool of the RAM `frames`, mapped at `cpu`, all free.
    ///
    /// # Errors
    ///
    /// [`BadPool`]. The CPU's and the physical address must agree modulo [`MAX_ALLOCATION`]:
    /// allocations are naturally aligned on both sides.
    ///
    /// # Safety
    ///
    /// From now on `frames` are mapped at `cpu` as Normal non-cacheable memory, read-write, and
    /// nowhere else; nobody else uses them. Caches may hold lines that a loader left: they are
    /// dropped before a page is first handed out.
    pub unsafe fn new(frames: PhysRange, cpu: VirtAddr) -> Result<Self, BadPool> {
        let size = frames.size();
        if size == 0 || size > MAX_POOL_SIZE as u64 || !size.is_multiple_of(PAGE_SIZE as u64) {
            return Err(BadPool::Size(size));
        }
        let skew = frames.start.get() as usize % MAX_ALLOCATION;
        if skew != cpu.get() % MAX_ALLOCATION || !frames.start.is_aligned(PAGE_SIZE) {
            return Err(BadPool::Alignment(cpu));
        }
        let pages = (size / PAGE_SIZE as u64) as u32;
        Ok(Self {
            frames,
            cpu,
            reserve: pages / RESERVE_SHARE,
            low: pages / LOW_SHARE,
            state: IrqLock::new(State {
                boot: PageBitmap::new((skew / PAGE_SIZE) as u32, pages, true),
                chunks: [const { None }; MAX_CHUNKS],
                free: pages,
                refills: 0,
                exhausted: 0,
            }),
            refill: Once::new(),
        })
    }

    /// Allocates `size` bytes, rounded up to pages, for `device`, from this pool and nowhere else.
    ///
    /// Both addresses are aligned to the smallest power of two of pages that holds `size`. The
    /// memory is zero, and the zeros are ordered before whatever store makes a device look at them.
    /// Never blocks; may be called in any context.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::PoolExhausted`] (also above [`MAX_ALLOCATION`]),
    /// [`DmaError::OutOfReach`] if the device does not reach the pool.
    #[doc(alias = "dma_alloc_from_pool")]
    #[track_caller]
    pub fn alloc(
        &'static self,
        device: &'static Device,
        size: usize,
    ) -> Result<Coherent, DmaError> {
        if size == 0 {
            return Err(DmaError::ZeroLength);
        }
        match self.take(device, size, 0) {
            Some(taken) => Ok(self.hand_out(device, taken)),
            None => self.take_elsewhere(device, size, 0),
        }
    }

    /// Takes a block of `size` bytes, not 0, of what was set aside at boot, if `device` reaches it
    /// and `keep` pages stay free.
    #[inline(always)]
    pub(super) fn take(&self, device: &Device, size: usize, keep: u32) -> Option<Taken> {
        if size > MAX_ALLOCATION {
            return None;
        }
        let pages = size.div_ceil(PAGE_SIZE) as u32;
        let mut state = self.state.lock();
        let found = match state.free.checked_sub(pages) {
            Some(left) if left >= keep => state.boot.allocate(pages).map(|found| (found, left)),
            _ => None,
        };
        let Some((found, left)) = found else {
            let is_low = state.free < self.low;
            drop(state);
            if is_low {
                self.ask_for_a_chunk();
            }
            return None;
        };
        state.free = left;
        drop(state);
        if left < self.low {
            self.ask_for_a_chunk();
        }
        let offset = found.page as usize * PAGE_SIZE;
        let len = pages as usize * PAGE_SIZE;
        match device.coherent_addr(self.frames.start + offset, len) {
            Ok(addr) => Some(Taken {
                found,
                segment: DmaSegment { addr, len },
            }),
            Err(_) => {
                let (chunk, page) = (None, found.page);
                if found.first_use {
                    self.state.lock().boot.forget_use(page, pages);
                }
                self.free(Place { chunk, page }, len);
                None
            }
        }
    }

    /// Makes what [`take`](Self::take) found for `device` its holder's.
    #[inline(always)]
    #[track_caller]
    pub(super) fn hand_out(&'static self, device: &'static Device, taken: Taken) -> Coherent {
        let Taken { found, segment } = taken;
        let cpu = self.cpu + found.page as usize * PAGE_SIZE;
        if found.first_use {
            forget_the_loader(cpu, segment.len);
        }
        let (chunk, page) = (None, found.page);
        let origin = Origin::Pool {
            pool: self,
            place: Place { chunk, page },
        };
        // SAFETY: the pages are mapped there and were taken for this holder alone.
        Coherent::new(unsafe { Block::zeroed(device, cpu, segment, origin) })
    }

    /// A block of a chunk, where [`take`](Self::take) found none.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(super) fn take_elsewhere(
        &'static self,
        device: &'static Device,
        size: usize,
        keep: u32,
    ) -> Result<Coherent, DmaError> {
        let mut state = self.state.lock();
        if size <= CHUNK_SIZE
            && let pages = size.div_ceil(PAGE_SIZE) as u32
            && state.free >= pages + keep
        {
            let chunks = state.chunks.iter_mut().enumerate();
            let taken = chunks
                .filter_map(|(index, chunk)| Some((index as u8, chunk.as_mut()?)))
                .find_map(|(index, chunk)| chunk.take(device, index, pages));
            if let Some((cpu, segment, place)) = taken {
                state.free -= pages;
                drop(state);
                let origin = Origin::Pool { pool: self, place };
                // SAFETY: the pages are mapped there and were just allocated to this call alone.
                let block = unsafe { Block::zeroed(device, cpu, segment, origin) };
                return Ok(Coherent::new(block));
            }
        }
        if size <= MAX_ALLOCATION {
            device.coherent_addr(self.frames.start, PAGE_SIZE)?;
        }
        if keep == 0 {
            state.exhausted = state.exhausted.saturating_add(1);
        }
        let free = state.free as usize * PAGE_SIZE;
        Err(DmaError::PoolExhausted { size, free })
    }

    /// Takes `len` bytes back. Any context.
    #[inline]
    pub(super) fn free(&self, place: Place, len: usize) {
        let pages = (len / PAGE_SIZE) as u32;
        let mut state = self.state.lock();
        state.free += pages;
        match place.chunk {
            None => state.boot.free(place.page, pages),
            Some(index) => {
                if let Some(Some(chunk)) = state.chunks.get_mut(usize::from(index)) {
                    chunk.pages.free(place.page, pages);
                }
            }
        }
    }

    /// Pages not allocated, those of chunks included.
    pub fn free_pages(&self) -> usize {
        self.state.lock().free as usize
    }

    /// The frames set aside at boot.
    pub fn frames(&self) -> PhysRange {
        self.frames
    }

    /// The CPU's address of the first frame set aside at boot.
    pub fn cpu_base(&self) -> VirtAddr {
        self.cpu
    }

    /// Pages that are kept for callers that may not block, where others have another source.
    #[inline]
    pub(super) const fn reserve(&self) -> u32 {
        self.reserve
    }

    /// What is known of the pool now.
    pub fn info(&self) -> PoolInfo {
        let state = self.state.lock();
        let chunks = state.chunks.iter().flatten().count();
        PoolInfo {
            pages: (self.frames.size() as usize + chunks * CHUNK_SIZE) / PAGE_SIZE,
            free: state.free as usize,
            chunks,
            refills: state.refills,
            exhausted: state.exhausted,
        }
    }

    /// Says who is called when the pool is low on pages, in any context; the first call wins.
    pub(super) fn set_refill(&self, refill: fn()) {
        self.refill.call_once(|| refill);
    }

    #[cold]
    fn ask_for_a_chunk(&self) {
        if let Some(refill) = self.refill.get() {
            refill();
        }
    }

    /// Whether the pool is low on pages and has room for a chunk.
    pub(super) fn wants_a_chunk(&self) -> bool {
        let state = self.state.lock();
        state.free < self.low && state.chunks.iter().any(Option::is_none)
    }

    /// Takes in `run`, of [`CHUNK_SIZE`] bytes, zero or not; gives it back where there is no room.
    pub(super) fn add(&self, run: Run) -> Result<(), Run> {
        let mut state = self.state.lock();
        let Some(slot) = state.chunks.iter_mut().find(|slot| slot.is_none()) else {
            return Err(run);
        };
        let pages = PageBitmap::new(0, CHUNK_PAGES, false);
        *slot = Some(Chunk { run, pages });
        state.free += CHUNK_PAGES;
        state.refills = state.refills.saturating_add(1);
        Ok(())
    }

    /// Takes out a chunk of which nothing is allocated, if there is one.
    pub(super) fn remove_unused(&self) -> Option<Run> {
        let mut state = self.state.lock();
        let is_unused = |slot: &&mut Option<Chunk>| {
            let chunk = slot.as_ref();
            chunk.is_some_and(|chunk| chunk.pages.is_unused(CHUNK_PAGES))
        };
        let chunk = state.chunks.iter_mut().find(is_unused)?.take()?;
        state.free -= CHUNK_PAGES;
        Some(chunk.run)
    }
}

/// Drops the lines that the loader may have left of pages that are handed out for the first time.
#[cold]
#[inline(never)]
fn forget_the_loader(cpu: VirtAddr, len: usize) {
    maintenance::drop_lines(cpu, len);
}
