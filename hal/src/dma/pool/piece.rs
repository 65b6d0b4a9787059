//! A piece of coherent memory, and which of its blocks are handed out.

use super::RawBlock;
use super::geometry::{Geometry, MAX_BLOCKS};
use crate::addr::DmaAddr;
use crate::alloc::{Allocator, Box};
use crate::dma::Coherent;

const WORD_BLOCKS: usize = u64::BITS as usize;

/// Memory that is cut into blocks.
#[derive(Debug)]
pub(super) struct Piece<A: Allocator> {
    memory: Coherent,
    /// One bit a block, set while it is handed out.
    live: [u64; MAX_BLOCKS / WORD_BLOCKS],
    pub(super) next: Option<Box<Self, A>>,
}

impl<A: Allocator> Piece<A> {
    /// All blocks free.
    pub(super) fn new(memory: Coherent) -> Self {
        Self {
            memory,
            live: [0; MAX_BLOCKS / WORD_BLOCKS],
            next: None,
        }
    }

    /// Takes the first free block.
    pub(super) fn take(&mut self, geometry: Geometry) -> Option<RawBlock> {
        let words = self.live.iter_mut().enumerate();
        let (word, bits) = words
            .map(|(word, bits)| (word * WORD_BLOCKS, bits))
            .find(|(_, bits)| **bits != u64::MAX)?;
        let bit = bits.trailing_ones();
        let index = word + bit as usize;
        if index >= geometry.blocks() {
            return None;
        }
        *bits |= 1 << bit;
        Some(self.block(geometry, index))
    }

    /// Where block `index` is.
    pub(super) fn block(&self, geometry: Geometry, index: usize) -> RawBlock {
        let offset = geometry.offset(index);
        RawBlock {
            // SAFETY: blocks lie in the piece.
            cpu: unsafe { self.memory.as_ptr().add(offset) },
            addr: self.memory.dma_addr() + offset,
        }
    }

    /// The block that starts at `addr`.
    pub(super) fn index(&self, geometry: Geometry, addr: DmaAddr) -> Option<usize> {
        let offset = addr.get().checked_sub(self.memory.dma_addr().get())?;
        geometry.index(usize::try_from(offset).ok()?)
    }

    /// Whether block `index` is handed out.
    pub(super) fn is_live(&self, index: usize) -> bool {
        let bits = self.live.get(index / WORD_BLOCKS);
        bits.is_some_and(|bits| bits >> (index % WORD_BLOCKS) & 1 != 0)
    }

    /// Takes block `index` back.
    pub(super) fn give(&mut self, index: usize) {
        if let Some(bits) = self.live.get_mut(index / WORD_BLOCKS) {
            *bits &= !(1 << (index % WORD_BLOCKS));
        }
    }

    /// Whether any block is handed out.
    pub(super) fn is_in_use(&self) -> bool {
        self.live.iter().any(|bits| *bits != 0)
    }
}
