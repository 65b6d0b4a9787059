//! Coherent memory: seen alike by the CPU and by devices that do not snoop, without maintenance.
//!
//! A [`CoherentPool`] is a range of RAM that the boot code set aside and mapped Normal
//! non-cacheable in the coherent window; its frames are absent from the direct map. The memory
//! takes unaligned accesses and `DC ZVA`, but exclusive accesses are not legal there: no lock and
//! no atomic may live in it.

mod bitmap;

use super::engine::{Destination, Source};
use super::{Device, DmaError, DmaSegment, debug, maintenance};
use crate::addr::{DmaAddr, PAGE_SIZE, PhysRange, VirtAddr};
use crate::arch::{barrier, cache};
use crate::sync::IrqLock;
use bitmap::{Block, PageBitmap};
use core::ops::Range;
use core::ptr::NonNull;

pub use bitmap::MAX_POOL_SIZE;

/// Bytes in the largest allocation, and the alignment a pool's two addresses agree in.
pub const MAX_ALLOCATION: usize = 4 << 20;

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

/// The pool that [`CoherentPool::alloc`] serves from.
///
/// Its lock is taken last: no other lock is taken under it.
#[derive(Debug)]
pub struct CoherentPool {
    frames: PhysRange,
    cpu: VirtAddr,
    pages: IrqLock<PageBitmap>,
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
        Ok(Self {
            frames,
            cpu,
            pages: IrqLock::new(PageBitmap::new(skew / PAGE_SIZE, size as usize / PAGE_SIZE)),
        })
    }

    /// Allocates `size` bytes, rounded up to pages, for `device`.
    ///
    /// Both addresses are aligned to the smallest power of two of pages that holds `size`. The
    /// memory is zero, and the zeros are ordered before whatever store makes a device look at them.
    /// Never blocks; may be called in any context.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::PoolExhausted`] (also above [`MAX_ALLOCATION`]),
    /// [`DmaError::OutOfReach`] if the device does not reach the pool.
    #[doc(alias = "dma_alloc_coherent")]
    #[track_caller]
    pub fn alloc(
        &'static self,
        device: &'static Device,
        size: usize,
    ) -> Result<Coherent, DmaError> {
        if size == 0 {
            return Err(DmaError::ZeroLength);
        }
        let Block { page, first_use } = self.take(size).ok_or_else(|| DmaError::PoolExhausted {
            size,
            free: self.free_pages() * PAGE_SIZE,
        })?;
        let offset = page * PAGE_SIZE;
        let pages = size.div_ceil(PAGE_SIZE);
        let len = pages * PAGE_SIZE;
        if first_use {
            maintenance::drop_lines(self.cpu + offset, len);
        }
        let addr = device
            .coherent_addr(self.frames.start + offset, len)
            .inspect_err(|_| {
                self.pages.lock().free(page, pages);
            })?;
        let coherent = Coherent {
            pool: self,
            device,
            page,
            segment: DmaSegment { addr, len },
        };
        // SAFETY: the pages are mapped and were just allocated to this call alone.
        unsafe { zero(coherent.va(), len) };
        barrier::dmb_oshst();
        debug::on_alloc(device, coherent.va(), coherent.segment);
        Ok(coherent)
    }

    /// Pages not allocated.
    pub fn free_pages(&self) -> usize {
        self.pages.lock().free_pages()
    }

    /// The frames of the pool.
    pub fn frames(&self) -> PhysRange {
        self.frames
    }

    /// The CPU's address of the first frame.
    pub fn cpu_base(&self) -> VirtAddr {
        self.cpu
    }

    fn take(&self, size: usize) -> Option<Block> {
        if size > MAX_ALLOCATION {
            return None;
        }
        self.pages.lock().allocate(size.div_ceil(PAGE_SIZE))
    }
}

/// `DCZID_EL0.DZP`: `DC ZVA` is prohibited (Arm ARM D24.2.45).
const DCZID_DZP: u64 = 1 << 4;

/// Zeroes the `len` bytes at `va`, both multiples of [`PAGE_SIZE`].
///
/// # Safety
///
/// The range is Normal memory that the caller owns.
unsafe fn zero(va: VirtAddr, len: usize) {
    let dczid = cache::dczid_el0();
    if dczid & DCZID_DZP != 0 {
        // SAFETY: the caller owns the range.
        unsafe { va.as_ptr::<u8>().write_bytes(0, len) };
        return;
    }
    // DCZID_EL0.BS counts words, as a power of two; at most 2 KiB, so blocks tile a page.
    let block = size_of::<u32>() << (dczid & 0xF);
    for offset in (0..len).step_by(block) {
        // SAFETY: the block lies in the range, since both ends are multiples of its size.
        unsafe { cache::zero_block(va + offset) };
    }
}

/// Memory that CPU and device use together. Dropping it frees it.
///
/// Whether the device is using the memory right now is for its driver to know: it reads and writes
/// what the device does not own at the time, and orders its stores with
/// [`dmb_oshst`](crate::arch::barrier::dmb_oshst) or the barrier before the doorbell.
#[derive(Debug)]
#[must_use = "dropping it frees the memory"]
pub struct Coherent {
    pool: &'static CoherentPool,
    device: &'static Device,
    page: usize,
    segment: DmaSegment,
}

impl Coherent {
    /// The address the device must be given.
    #[inline]
    pub fn dma_addr(&self) -> DmaAddr {
        self.segment.addr
    }

    /// The CPU's address.
    #[inline]
    pub fn va(&self) -> VirtAddr {
        self.pool.cpu + self.page * PAGE_SIZE
    }

    /// The CPU's address as a pointer, valid for [`len`](Self::len) bytes.
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        match NonNull::new(self.va().as_ptr()) {
            Some(ptr) => ptr,
            None => unreachable!("the pool is not mapped at address 0"),
        }
    }

    /// Bytes in the allocation: a multiple of the page size.
    #[inline]
    pub fn len(&self) -> usize {
        self.segment.len
    }

    /// Never: an allocation holds at least a page.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes. The borrow keeps [`copy`](super::engine::copy) from writing them meanwhile.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the pages are mapped, initialised, and this allocation's. A device writes them
        // only while the allocation is exclusively borrowed, or under a contract of its driver.
        unsafe { core::slice::from_raw_parts(self.as_ptr().as_ptr(), self.len()) }
    }

    /// The bytes, writable.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as for `as_slice`; the borrow of `self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.as_ptr().as_ptr(), self.len()) }
    }

    /// Stores `words` at byte `offset`, each with one access, for a structure the device reads.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`] if they do not fit or `offset` is no multiple of 4.
    pub fn write_words(&mut self, offset: usize, words: &[u32]) -> Result<(), DmaError> {
        let range = self.check(offset, size_of_val(words))?;
        if !range.start.is_multiple_of(size_of::<u32>()) {
            return Err(self.out_of_bounds(offset, size_of_val(words)));
        }
        let base = self.as_ptr().as_ptr();
        for (index, &word) in words.iter().enumerate() {
            // SAFETY: in bounds and aligned, checked above; the base is page-aligned.
            unsafe {
                base.add(range.start)
                    .cast::<u32>()
                    .add(index)
                    .write_volatile(word);
            };
        }
        Ok(())
    }

    /// The `len` bytes at `offset`, to be read by a device.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::OutOfBounds`].
    pub fn part(&self, offset: usize, len: usize) -> Result<CoherentPart<'_>, DmaError> {
        Ok(CoherentPart {
            segment: self.segment_of(offset, len)?,
            owner: self,
        })
    }

    /// The `len` bytes at `offset`, to be written by a device.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::OutOfBounds`].
    pub fn part_mut(&mut self, offset: usize, len: usize) -> Result<CoherentPartMut<'_>, DmaError> {
        Ok(CoherentPartMut {
            segment: self.segment_of(offset, len)?,
            owner: self,
        })
    }

    fn segment_of(&self, offset: usize, len: usize) -> Result<DmaSegment, DmaError> {
        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        let range = self.check(offset, len)?;
        Ok(DmaSegment {
            addr: self.segment.addr + range.start,
            len,
        })
    }

    fn check(&self, offset: usize, len: usize) -> Result<Range<usize>, DmaError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(offset..end),
            _ => Err(self.out_of_bounds(offset, len)),
        }
    }

    fn out_of_bounds(&self, offset: usize, len: usize) -> DmaError {
        DmaError::OutOfBounds {
            offset,
            len,
            size: self.len(),
        }
    }
}

impl Drop for Coherent {
    fn drop(&mut self) {
        debug::on_free(self.device, self.va(), self.segment);
        self.pool
            .pages
            .lock()
            .free(self.page, self.segment.len / PAGE_SIZE);
    }
}

/// A part of a [`Coherent`] allocation that a device reads.
#[derive(Debug)]
pub struct CoherentPart<'a> {
    segment: DmaSegment,
    owner: &'a Coherent,
}

/// A part of a [`Coherent`] allocation that a device writes.
#[derive(Debug)]
pub struct CoherentPartMut<'a> {
    segment: DmaSegment,
    owner: &'a mut Coherent,
}

// SAFETY: the segment is a part of the borrowed allocation.
unsafe impl Source for CoherentPart<'_> {
    fn device(&self) -> &Device {
        self.owner.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        barrier::hand_over(self.owner.as_ptr().as_ptr());
        (index == 0).then_some(self.segment)
    }
}

// SAFETY: the segment is a part of the exclusively borrowed allocation.
unsafe impl Destination for CoherentPartMut<'_> {
    fn device(&self) -> &Device {
        self.owner.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        barrier::hand_over(self.owner.as_ptr().as_ptr());
        (index == 0).then_some(self.segment)
    }
}

#[cfg(test)]
#[path = "coherent/tests.rs"]
mod tests;
