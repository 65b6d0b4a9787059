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
//! Small areas that come back keep their node and place in the tree and wait on a list of areas of
//! the same size, from which the next one of that size is taken without touching the tree; they
//! become gaps when addresses or nodes run short.
//!
//! The allocator never allocates: nodes come in [`Chunk`]s that the owner adds, outside the lock
//! that guards the allocator, when [`VaError::OutOfNodes`] asks for it.

mod tree;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::layout::Window;
use tree::{Arena, NIL};

pub use tree::Chunk;

/// Unmapped pages after every area.
pub const GUARD_PAGES: u32 = 1;

/// Largest area, in pages without the guard, that is kept to be given out again as it is.
const MAX_RECYCLED_PAGES: usize = 16;

/// Most areas kept, of all sizes.
const MAX_RECYCLED: u32 = 64;

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

/// Entries of the table that finds most areas without the tree.
const HINTS: usize = 64;

/// The area as its allocator knows it: good for one [`free_id`](VaAllocator::free_id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaId(u32);

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
    /// Heads of the lists of areas to be given out again, by pages less one.
    recycled: [u32; MAX_RECYCLED_PAGES],
    recycled_areas: u32,
    /// Areas given out lately, by [`hint`]; may be stale.
    hints: [u32; HINTS],
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
            recycled: [NIL; MAX_RECYCLED_PAGES],
            recycled_areas: 0,
            hints: [0; HINTS],
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

    /// Gives out `size` bytes (rounded up to pages) at a multiple of `align` bytes, followed by a
    /// guard page: a small area of that size that came back last, else the lowest that is free.
    ///
    /// A gap is considered only if it holds the area wherever the alignment puts it.
    ///
    /// # Errors
    ///
    /// See [`VaError`].
    #[inline(always)]
    pub fn alloc(&mut self, size: usize, align: usize, data: D) -> Result<Area<D>, VaError> {
        if !align.is_power_of_two() || align > Self::MAX_ALIGN {
            return Err(VaError::BadAlignment(align));
        }
        let pages = size.div_ceil(PAGE_SIZE);
        if align <= PAGE_SIZE
            && let Some(area) = self.reuse(pages, data)
        {
            return Ok(area);
        }
        self.place_or_compact(pages, align, data)
    }

    #[inline(never)]
    fn place_or_compact(
        &mut self,
        pages: usize,
        align: usize,
        data: D,
    ) -> Result<Area<D>, VaError> {
        let placed = self.place(pages, align, data);
        match placed {
            Err(VaError::NoSpace { .. } | VaError::OutOfNodes | VaError::TooManyAreas(_))
                if self.recycled_areas > 0 =>
            {
                self.compact();
                self.place(pages, align, data)
            }
            _ => placed,
        }
    }

    /// Gives out an area of `pages` that came back, if there is one.
    #[inline(always)]
    fn reuse(&mut self, pages: usize, data: D) -> Option<Area<D>> {
        let list = self.recycled.get_mut(pages.wrapping_sub(1))?;
        let node = *list;
        if node == NIL {
            return None;
        }
        let (start, next) = self.arena.reuse(node, data);
        *list = next;
        self.recycled_areas -= 1;
        self.hints[hint(start)] = node;
        Some(self.area(start, pages as u32 + GUARD_PAGES, data))
    }

    /// Gives out the lowest fitting part of a gap.
    fn place(&mut self, pages: usize, align: usize, data: D) -> Result<Area<D>, VaError> {
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
        let node = self.arena.insert_after(before, start, needed, data)?;
        self.hints[hint(start)] = node;
        Ok(self.area(start, needed, data))
    }

    /// Takes the area that starts at `va` back. Its addresses may be given out again at once, so
    /// they are unmapped and flushed from the TLBs by now.
    ///
    /// # Errors
    ///
    /// [`VaError::NotAnArea`].
    pub fn free(&mut self, va: VirtAddr) -> Result<Area<D>, VaError> {
        let node = self.node_at(va).ok_or(VaError::NotAnArea(va))?;
        let (start, pages, data) = self.arena.get(node);
        self.release(node);
        Ok(self.area(start, pages, data))
    }

    /// As [`free`](Self::free), for the area `id`; what its owner noted, or `None` if it is no area
    /// any more.
    #[inline(always)]
    pub fn free_id(&mut self, id: AreaId) -> Option<D> {
        self.arena.is_in_use(id.0).then(|| self.release(id.0))
    }

    #[inline(always)]
    fn release(&mut self, node: u32) -> D {
        let (start, pages, data) = self.arena.get(node);
        let list = pages.wrapping_sub(GUARD_PAGES + 1) as usize;
        let recycled = self.recycled_areas;
        match self.recycled.get_mut(list) {
            Some(list) if recycled < MAX_RECYCLED => {
                self.arena.recycle(node, *list);
                *list = node;
                self.recycled_areas = recycled + 1;
            }
            _ => {
                self.arena.remove(start);
            }
        }
        data
    }

    /// Makes gaps of the areas kept to be given out again.
    pub fn compact(&mut self) {
        for list in &mut self.recycled {
            while *list != NIL {
                let (start, _, data) = self.arena.get(*list);
                *list = self.arena.reuse(*list, data).1;
                self.arena.remove(start);
            }
        }
        self.recycled_areas = 0;
    }

    /// The area that starts at `va`, with what its owner noted open to change.
    ///
    /// # Errors
    ///
    /// [`VaError::NotAnArea`].
    pub fn get_mut(&mut self, va: VirtAddr) -> Result<Area<&mut D>, VaError> {
        let (_, size, data) = self.lookup(va).ok_or(VaError::NotAnArea(va))?;
        Ok(Area { va, size, data })
    }

    /// The area that starts at `va`: its name, its bytes, and what its owner noted, open to change.
    #[inline(always)]
    pub fn lookup(&mut self, va: VirtAddr) -> Option<(AreaId, usize, &mut D)> {
        let page = self.page_at(va)?;
        let hinted = self.hints[hint(page)];
        // Two returns, so that what was read of the hinted node need not be read again.
        if self.arena.is_area_at(hinted, page) {
            return Some(self.named(hinted));
        }
        let node = self.search(page)?;
        Some(self.named(node))
    }

    #[inline(always)]
    fn named(&mut self, node: u32) -> (AreaId, usize, &mut D) {
        let (_, pages, data) = self.arena.get_mut(node);
        (AreaId(node), bytes(pages.wrapping_sub(GUARD_PAGES)), data)
    }

    /// The node of the area that starts at `va`.
    fn node_at(&self, va: VirtAddr) -> Option<u32> {
        self.search(self.page_at(va)?)
    }

    /// The node of the area that starts at `page`, by way of the tree.
    #[inline(never)]
    fn search(&self, page: u32) -> Option<u32> {
        let node = self.arena.last_at_or_below(page)?;
        self.arena.is_area_at(node, page).then_some(node)
    }

    /// The number of the page that starts at `va`.
    #[inline(always)]
    fn page_at(&self, va: VirtAddr) -> Option<u32> {
        self.page_of(va).filter(|_| va.is_aligned(PAGE_SIZE))
    }

    /// The area that holds `va`; a guard page is not part of its area.
    pub fn find(&self, va: VirtAddr) -> Option<Area<D>> {
        let page = self.page_of(va)?;
        let node = self.arena.last_at_or_below(page)?;
        let (start, pages, data) = self.arena.get(node);
        let inside = page - start < pages - GUARD_PAGES && self.arena.is_in_use(node);
        inside.then(|| self.area(start, pages, data))
    }

    /// The first area that starts at or after `va`.
    pub fn first_from(&self, va: VirtAddr) -> Option<Area<D>> {
        let page = self.page_of(va.max(self.base))?;
        let (start, pages, data) = self.arena.first_from(page)?;
        Some(self.area(start, pages, data))
    }

    /// Where the chunk number `index` of those added with [`grow`](Self::grow) lies. They are kept
    /// for good.
    pub fn chunk(&self, index: usize) -> Option<VirtAddr> {
        self.arena.chunk(index)
    }

    /// All areas, by address.
    pub fn iter(&self) -> impl Iterator<Item = Area<D>> + '_ {
        self.arena
            .iter()
            .map(|(start, pages, data)| self.area(start, pages, data))
    }

    /// The largest gap between areas, kept ones included, in bytes, guard page of a future area
    /// included.
    pub fn largest_gap(&self) -> usize {
        bytes(self.arena.largest_gap())
    }

    #[inline]
    fn page_of(&self, va: VirtAddr) -> Option<u32> {
        u32::try_from(va.checked_sub(self.base)? >> PAGE_SHIFT).ok()
    }

    #[inline]
    fn area(&self, start: u32, pages: u32, data: D) -> Area<D> {
        Area {
            va: self.base + bytes(start),
            size: bytes(pages - GUARD_PAGES),
            data,
        }
    }
}

/// The entry of the hints for an area that starts at `page`; the smallest take two pages.
#[inline]
const fn hint(page: u32) -> usize {
    page as usize / 2 % HINTS
}

#[inline]
const fn bytes(pages: u32) -> usize {
    (pages as usize) << PAGE_SHIFT
}

#[cfg(test)]
mod tests;
