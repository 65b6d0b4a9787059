//! Small blocks of coherent memory of one size: `dma_pool`.
//!
//! A page or more of [coherent memory](super::coherent) at a time is cut into blocks. Which of them
//! are free is noted in ordinary memory beside it: what a device can write is never trusted with a
//! pointer, and non-cacheable memory takes no atomics.
//!
//! In the debug build a free block is filled with [`POISON_FREE`], and one that was written to
//! meanwhile is counted when it is handed out again.

mod error;
mod geometry;
mod piece;

pub use error::{DmaPoolError, PoolCreateError};
pub use geometry::MIN_BLOCK;

use super::coherent::{self, CoherentMemory};
use super::engine::{Destination, Source};
use super::{Device, DmaSegment};
use crate::addr::DmaAddr;
use crate::alloc::{Allocator, Box, Kmalloc};
use crate::arch::barrier;
use crate::mm::Gfp;
use crate::sync::IrqLock;
use core::fmt;
use core::mem;
use core::ptr::NonNull;
use geometry::Geometry;
use piece::Piece;

/// What free blocks hold in the debug build. Linux: `POOL_POISON_FREED`.
pub const POISON_FREE: u8 = 0xA7;
/// What blocks hold when they are handed out, in the debug build. Linux: `POOL_POISON_ALLOCATED`.
pub const POISON_ALLOCATED: u8 = 0xA9;

/// Blocks of coherent memory of one size, for one device.
///
/// Memory comes in pieces that stay until the pool is destroyed. `A` gives the memory for its
/// notes. Its lock is taken alone; no memory is allocated under it.
#[derive(Debug)]
#[doc(alias = "dma_pool")]
pub struct DmaPool<A: Allocator = Kmalloc> {
    name: &'static str,
    device: &'static Device,
    source: &'static CoherentMemory,
    geometry: Geometry,
    state: IrqLock<State<A>>,
}

#[derive(Debug)]
struct State<A: Allocator> {
    pieces: Option<Box<Piece<A>, A>>,
    live: usize,
    corrupted: usize,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawBlock {
    /// The CPU's address.
    pub cpu: NonNull<u8>,
    /// The device's address.
    pub addr: DmaAddr,
}

/// What is known of a pool at one moment. Displayed as a line in the manner of `slabinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaPoolInfo {
    /// What the pool is called.
    pub name: &'static str,
    /// Bytes in a block.
    pub block: usize,
    /// Blocks handed out.
    pub live: usize,
    /// Blocks in all.
    pub blocks: usize,
    /// Blocks that were written to while they were free. Found in the debug build only.
    pub corrupted: usize,
}

impl fmt::Display for DmaPoolInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "dma_pool name={} block={} live={} blocks={} corrupted={}",
            self.name, self.block, self.live, self.blocks, self.corrupted
        )
    }
}

/// A pool that was to be destroyed and has blocks handed out. Linux: "busy".
///
/// Dropped, it keeps the memory of those blocks for good: a device may be using it.
#[derive(Debug, thiserror::Error)]
#[error("dma_pool {} busy: {live} blocks handed out, the first at {first}", pool.name)]
pub struct Busy<A: Allocator = Kmalloc> {
    /// The pool, as it was.
    pub pool: DmaPool<A>,
    /// Blocks handed out.
    pub live: usize,
    /// One of them.
    pub first: DmaAddr,
}

impl DmaPool {
    /// A pool for `device` called `name` of blocks of `size` bytes, at multiples of `align`, none of
    /// which crosses a multiple of `boundary`. Where these two are 0 they ask for nothing. Blocks
    /// are rounded up to `align` and have at least [`MIN_BLOCK`] bytes. Allocates nothing.
    ///
    /// # Errors
    ///
    /// [`PoolCreateError`].
    #[doc(alias = "dma_pool_create")]
    pub fn create(
        name: &'static str,
        device: &'static Device,
        size: usize,
        align: usize,
        boundary: usize,
    ) -> Result<Self, PoolCreateError> {
        let source = coherent::memory().map_err(|_| PoolCreateError::NotReady)?;
        Self::create_from(source, name, device, size, align, boundary)
    }
}

impl<A: Allocator> DmaPool<A> {
    /// As [`create`](DmaPool::create), with memory of `source`.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn create_from(
        source: &'static CoherentMemory,
        name: &'static str,
        device: &'static Device,
        size: usize,
        align: usize,
        boundary: usize,
    ) -> Result<Self, PoolCreateError> {
        Ok(Self {
            name,
            device,
            source,
            geometry: Geometry::new(size, align, boundary)?,
            state: IrqLock::new(State {
                pieces: None,
                live: 0,
                corrupted: 0,
            }),
        })
    }

    /// A block. With [`Gfp::ZERO`] it is zero, and the zeros are ordered before later stores;
    /// without, it holds anything.
    ///
    /// May be called in any context with flags that do not block.
    ///
    /// # Errors
    ///
    /// [`DmaPoolError`] up to `Notes`, as for [`coherent::alloc`](coherent::alloc()).
    #[doc(alias("dma_pool_alloc", "dma_pool_zalloc"))]
    pub fn alloc(&self, gfp: Gfp) -> Result<PoolBlock<'_, A>, DmaPoolError> {
        let block = self.alloc_raw(gfp)?;
        Ok(PoolBlock { pool: self, block })
    }

    /// As [`alloc`](Self::alloc), for code that keeps addresses: nothing frees the block but
    /// [`free_raw`](Self::free_raw).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn alloc_raw(&self, gfp: Gfp) -> Result<RawBlock, DmaPoolError> {
        let taken = self.take();
        let block = match taken {
            Some(block) => block,
            None => self.grow(gfp)?,
        };
        if gfp.contains(Gfp::ZERO) {
            self.fill(block, 0);
            barrier::dmb_oshst();
        } else if cfg!(feature = "slab-debug") {
            self.fill(block, POISON_ALLOCATED);
        }
        Ok(block)
    }

    /// Takes a free block of the pieces there are.
    fn take(&self) -> Option<RawBlock> {
        let mut state = self.state.lock();
        let mut next = state.pieces.as_mut();
        while let Some(piece) = next {
            if let Some(block) = piece.take(self.geometry) {
                state.live += 1;
                drop(state);
                self.check_poison(block);
                return Some(block);
            }
            next = piece.next.as_mut();
        }
        None
    }

    /// Takes a block of a new piece.
    #[cold]
    fn grow(&self, gfp: Gfp) -> Result<RawBlock, DmaPoolError> {
        let Geometry { piece, .. } = self.geometry;
        let gfp = gfp.difference(Gfp::ZERO);
        let memory = self.source.alloc(self.device, piece, gfp)?;
        let mut piece = Box::<_, A>::new(Piece::new(memory), gfp)?;
        if cfg!(feature = "slab-debug") {
            for index in 0..self.geometry.blocks() {
                self.fill(piece.block(self.geometry, index), POISON_FREE);
            }
        }
        // A new piece has a free block.
        let block = piece.block(self.geometry, 0);
        let taken = piece.take(self.geometry);
        debug_assert_eq!(taken, Some(block));
        let mut state = self.state.lock();
        state.live += 1;
        piece.next = state.pieces.take();
        state.pieces = Some(piece);
        Ok(block)
    }

    /// Takes a block back. May be called in any context.
    ///
    /// # Errors
    ///
    /// [`DmaPoolError`] from `AlreadyFree` on, where it is no block that was handed out.
    ///
    /// # Safety
    ///
    /// If it is one, it belongs to the caller, and neither the CPU nor the device uses it any more.
    #[doc(alias = "dma_pool_free")]
    pub unsafe fn free_raw(&self, block: RawBlock) -> Result<(), DmaPoolError> {
        let mut state = self.state.lock();
        let (pool, addr) = (self.name, block.addr);
        let mut next = state.pieces.as_mut();
        while let Some(piece) = next {
            if let Some(index) = piece.index(self.geometry, addr) {
                if piece.block(self.geometry, index) != block {
                    return Err(DmaPoolError::OtherAddress { pool, addr });
                }
                if !piece.is_live(index) {
                    return Err(DmaPoolError::AlreadyFree { pool, addr });
                }
                if cfg!(feature = "slab-debug") {
                    self.fill(block, POISON_FREE);
                }
                piece.give(index);
                state.live -= 1;
                return Ok(());
            }
            next = piece.next.as_mut();
        }
        Err(DmaPoolError::Foreign { pool, addr })
    }

    /// Gives all memory back. Where blocks are handed out nothing is done.
    ///
    /// # Errors
    ///
    /// [`Busy`], with the pool.
    #[doc(alias = "dma_pool_destroy")]
    pub fn destroy(self) -> Result<(), Busy<A>> {
        let mut found = (0, None);
        self.for_each_live(|block| found = (found.0 + 1, found.1.or(Some(block.addr))));
        match found {
            (live, Some(first)) => Err(Busy {
                pool: self,
                live,
                first,
            }),
            _ => Ok(()),
        }
    }

    /// Calls `f` with the blocks that are handed out. The pool's lock is held.
    pub fn for_each_live(&self, mut f: impl FnMut(RawBlock)) {
        let state = self.state.lock();
        let mut next = state.pieces.as_ref();
        while let Some(piece) = next {
            let indices = (0..self.geometry.blocks()).filter(|index| piece.is_live(*index));
            indices.for_each(|index| f(piece.block(self.geometry, index)));
            next = piece.next.as_ref();
        }
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> usize {
        self.geometry.block
    }

    /// What is known of the pool now.
    pub fn info(&self) -> DmaPoolInfo {
        let state = self.state.lock();
        let pieces = core::iter::successors(state.pieces.as_ref(), |piece| piece.next.as_ref());
        DmaPoolInfo {
            name: self.name,
            block: self.geometry.block,
            live: state.live,
            blocks: pieces.count() * self.geometry.blocks(),
            corrupted: state.corrupted,
        }
    }

    /// Fills a block that belongs to the caller.
    fn fill(&self, block: RawBlock, byte: u8) {
        // SAFETY: the block is Normal memory of the pool, and nobody else's.
        unsafe { block.cpu.as_ptr().write_bytes(byte, self.geometry.block) };
    }

    /// Counts a block that was written to while it was free. The block belongs to the caller.
    fn check_poison(&self, block: RawBlock) {
        if !cfg!(feature = "slab-debug") {
            return;
        }
        let at = |offset| {
            // SAFETY: the offset lies in the block, which is initialised.
            unsafe { block.cpu.add(offset).read_volatile() }
        };
        if (0..self.geometry.block).any(|offset| at(offset) != POISON_FREE) {
            self.state.lock().corrupted += 1;
        }
    }
}

impl<A: Allocator> Drop for DmaPool<A> {
    fn drop(&mut self) {
        let mut next = self.state.get_mut().pieces.take();
        // One after the other: a chain dropped whole would recurse.
        while let Some(mut piece) = next {
            next = piece.next.take();
            if piece.is_in_use() {
                // A device may be using a block: the memory is lost, and the ledger says so.
                mem::forget(piece);
            }
        }
    }
}

/// A block of a [`DmaPool`]. Dropping it frees it.
///
/// ```compile_fail,E0505
/// # use hal::dma::DmaPool;
/// # use hal::mm::Gfp;
/// fn freed_under_its_block(pool: DmaPool) {
///     let block = pool.alloc(Gfp::KERNEL).unwrap();
///     drop(pool);
///     drop(block);
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping it frees the block"]
pub struct PoolBlock<'a, A: Allocator = Kmalloc> {
    pool: &'a DmaPool<A>,
    block: RawBlock,
}

// SAFETY: the block belongs to its holder, whichever core that is on.
unsafe impl<A: Allocator> Send for PoolBlock<'_, A> {}

impl<A: Allocator> PoolBlock<'_, A> {
    /// The address the device must be given.
    pub fn dma_addr(&self) -> DmaAddr {
        self.block.addr
    }

    /// The CPU's address, valid for [`DmaPool::block_size`] bytes.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.block.cpu
    }

    /// The bytes. What of them a device is using is for its driver to know.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the block is mapped and initialised, and belongs to `self`.
        unsafe { core::slice::from_raw_parts(self.block.cpu.as_ptr(), self.pool.geometry.block) }
    }

    /// The bytes, writable.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.pool.geometry.block;
        // SAFETY: as for `as_slice`; the borrow of `self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.block.cpu.as_ptr(), len) }
    }

    /// The addresses, for [`DmaPool::free_raw`].
    pub fn into_raw(self) -> RawBlock {
        mem::ManuallyDrop::new(self).block
    }

    /// All of the block, for an engine.
    fn whole(&self, index: usize) -> Option<DmaSegment> {
        barrier::hand_over(self.block.cpu.as_ptr());
        let (addr, len) = (self.block.addr, self.pool.geometry.block);
        (index == 0).then_some(DmaSegment { addr, len })
    }
}

// SAFETY: the segment is the block, which belongs to `self`; coherent memory needs no maintenance.
unsafe impl<A: Allocator> Source for PoolBlock<'_, A> {
    fn device(&self) -> &Device {
        self.pool.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.whole(index)
    }
}

// SAFETY: as above; the exclusive borrow keeps everybody else from the bytes.
unsafe impl<A: Allocator> Destination for PoolBlock<'_, A> {
    fn device(&self) -> &Device {
        self.pool.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.whole(index)
    }
}

impl<A: Allocator> Drop for PoolBlock<'_, A> {
    fn drop(&mut self) {
        // SAFETY: the block belonged to `self`.
        let freed = unsafe { self.pool.free_raw(self.block) };
        debug_assert_eq!(freed, Ok(()));
    }
}

#[cfg(test)]
mod tests;
