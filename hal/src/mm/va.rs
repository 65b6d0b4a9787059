//! Address ranges of a window: who has which, and where the next one fits.
//!
//! Every area is a node of one balanced tree ordered by address. A node also owns the free gap
//! that follows its area, and knows the largest gap below it in the tree, so that placing an
//! area, freeing one and finding the one an address lies in all take a number of steps
//! logarithmic in the number of areas. Nothing needs merging: a freed area and its gap join the
//! gap of the area before it.
//!
//! ```text
//! |origin| gap |area|guard| gap |area|guard|area|guard| gap ...                 |
//!  \__________/ \______________/ \________/ \_____________________________ ____/
//!     node            node          node                node
//! ```
//!
//! The allocator never allocates: nodes come in [`Chunk`]s that the owner adds, outside the lock
//! that guards the allocator, when [`VaError::OutOfNodes`] asks for it.

mod tree;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::layout::Window;
use tree::Arena;

pub use tree::Chunk;

/// Unmapped pages after every area.
pub const GUARD_PAGES: u32 = 1;

/// Why an address range was not given out or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaError {
    /// No gap of the window holds the area, its guard page and the worst alignment loss.
    #[error("no room for {pages} pages in the window")]
    NoSpace {
        /// Pages asked for, without the guard.
        pages: usize,
    },
    /// An area of no pages.
    #[error("an area of no pages")]
    Empty,
    /// The alignment is not a power of two of pages, or larger than [`VaAllocator::MAX_ALIGN`].
    #[error("{0:#x} is no alignment for an area")]
    BadAlignment(usize),
    /// Every node is in use: add a [`Chunk`] and ask again.
    #[error("no descriptor left for another area")]
    OutOfNodes,
    /// Every node is in use and no more can be added.
    #[error("the window holds {0} areas, its limit")]
    TooManyAreas(usize),
    /// No area starts at the address.
    #[error("no area starts at {0}")]
    NotAnArea(VirtAddr),
}

/// An area that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area<D> {
    /// First address.
    pub va: VirtAddr,
    /// Bytes, without the guard page.
    pub size: usize,
    /// What the owner noted.
    pub data: D,
}

impl<D> Area<D> {
    /// First address after the area: the guard page.
    pub fn end(&self) -> VirtAddr {
        self.va + self.size
    }
}

/// The areas of one window. Each carries a `D` for its owner.
///
/// Room for one [`Chunk`] of areas is inside, so the first need no memory; `CHUNKS` more can be
/// added.
#[derive(Debug)]
pub struct VaAllocator<D: 'static, const CHUNKS: usize> {
    base: VirtAddr,
    arena: Arena<D, CHUNKS>,
}

impl<D: Copy, const CHUNKS: usize> VaAllocator<D, CHUNKS> {
    /// Largest alignment of an area, in bytes: that of the windows themselves.
    pub const MAX_ALIGN: usize = 1 << 30;

    /// An allocator for `window` with no area in it; `idle` fills unused nodes.
    pub const fn new(window: &Window, idle: D) -> Self {
        assert!(window.base.is_aligned(Self::MAX_ALIGN));
        assert!(window.size >> PAGE_SHIFT < u32::MAX as usize);
        Self {
            base: window.base,
            arena: Arena::new((window.size >> PAGE_SHIFT) as u32, idle),
        }
    }

    /// Adds nodes.
    ///
    /// # Errors
    ///
    /// [`VaError::TooManyAreas`] when `CHUNKS` have been added; nothing refers to `chunk` then.
    pub fn grow(&mut self, chunk: &'static mut Chunk<D>) -> Result<(), VaError> {
        self.arena.grow(chunk)
    }

    /// Gives out the lowest `size` bytes (rounded up to pages) at a multiple of `align` bytes,
    /// followed by a guard page.
    ///
    /// A gap is considered only if it holds the area wherever the alignment puts it.
    ///
    /// # Errors
    ///
    /// See [`VaError`].
    pub fn alloc(&mut self, size: usize, align: usize, data: D) -> Result<Area<D>, VaError> {
        if !align.is_power_of_two() || align > Self::MAX_ALIGN {
            return Err(VaError::BadAlignment(align));
        }
        let pages = size.div_ceil(PAGE_SIZE);
        let align = (align >> PAGE_SHIFT).max(1) as u32;
        let no_space = VaError::NoSpace { pages };
        let needed = u32::try_from(pages)
            .ok()
            .and_then(|pages| pages.checked_add(GUARD_PAGES))
            .ok_or(no_space)?;
        if pages == 0 {
            return Err(VaError::Empty);
        }
        let searched = needed.checked_add(align - 1).ok_or(no_space)?;
        let before = self.arena.first_gap(searched).ok_or(no_space)?;
        let start = self.arena.end_of(before).next_multiple_of(align);
        self.arena.insert_after(before, start, needed, data)?;
        Ok(self.area(start, needed, data))
    }

    /// Takes the area that starts at `va` back. Its addresses may be given out again at once, so
    /// they are unmapped and flushed from the TLBs by now.
    ///
    /// # Errors
    ///
    /// [`VaError::NotAnArea`].
    pub fn free(&mut self, va: VirtAddr) -> Result<Area<D>, VaError> {
        let page = self.page_of(va).filter(|_| va.is_aligned(PAGE_SIZE));
        let removed = page.and_then(|page| self.arena.remove(page));
        let (start, pages, data) = removed.ok_or(VaError::NotAnArea(va))?;
        Ok(self.area(start, pages, data))
    }

    /// The area that starts at `va`, with what its owner noted open to change.
    ///
    /// # Errors
    ///
    /// [`VaError::NotAnArea`].
    pub fn get_mut(&mut self, va: VirtAddr) -> Result<Area<&mut D>, VaError> {
        let page = self.page_of(va).filter(|_| va.is_aligned(PAGE_SIZE));
        let node = page.and_then(|page| Some((page, self.arena.last_at_or_below(page)?)));
        match node.map(|(page, node)| (page, self.arena.get_mut(node))) {
            Some((page, (start, pages, data))) if start == page => Ok(Area {
                va,
                size: bytes(pages - GUARD_PAGES),
                data,
            }),
            _ => Err(VaError::NotAnArea(va)),
        }
    }

    /// The area that holds `va`; a guard page is not part of its area.
    pub fn find(&self, va: VirtAddr) -> Option<Area<D>> {
        let page = self.page_of(va)?;
        let node = self.arena.last_at_or_below(page)?;
        let (start, pages, data) = self.arena.get(node);
        (page - start < pages - GUARD_PAGES).then(|| self.area(start, pages, data))
    }

    /// All areas, by address.
    pub fn iter(&self) -> impl Iterator<Item = Area<D>> + '_ {
        self.arena
            .iter()
            .map(|(start, pages, data)| self.area(start, pages, data))
    }

    /// The largest gap between areas, in bytes, guard page of a future area included.
    pub fn largest_gap(&self) -> usize {
        bytes(self.arena.largest_gap())
    }

    fn page_of(&self, va: VirtAddr) -> Option<u32> {
        u32::try_from(va.checked_sub(self.base)? >> PAGE_SHIFT).ok()
    }

    fn area(&self, start: u32, pages: u32, data: D) -> Area<D> {
        Area {
            va: self.base + bytes(start),
            size: bytes(pages - GUARD_PAGES),
            data,
        }
    }
}

const fn bytes(pages: u32) -> usize {
    (pages as usize) << PAGE_SHIFT
}

#[cfg(test)]
mod tests;
