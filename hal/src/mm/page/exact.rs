//! Pages by the byte and by address: exact sizes, and blocks taken apart.

use super::PageAllocator;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr};
use crate::layout;
use crate::mm::buddy::{FreeError, check_pages};
use crate::mm::{AllocError, Gfp, MAX_ORDER, MigrateType};

/// The smallest order whose blocks have `size` bytes; above [`MAX_ORDER`](crate::mm::MAX_ORDER) if
/// there is none, or if `size` is 0.
pub const fn get_order(size: usize) -> u32 {
    match size.checked_sub(1) {
        Some(last) => usize::BITS - (last >> PAGE_SHIFT).leading_zeros(),
        None => usize::BITS - PAGE_SHIFT,
    }
}

impl PageAllocator {
    /// Allocates a block of pages and returns where it is in the direct map:
    /// [`alloc_pages`](Self::alloc_pages) by address.
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(alias = "__get_free_pages")]
    pub fn get_free_pages(&self, gfp: Gfp, order: u32) -> Result<VirtAddr, AllocError> {
        let pfn = self.alloc_pages(gfp.difference(Gfp::HIGHMEM), order)?;
        Ok(layout::phys_to_virt(pfn.phys()))
    }

    /// Frees what [`get_free_pages`](Self::get_free_pages) returned. May be called in any context.
    ///
    /// # Errors
    ///
    /// [`FreeError::Address`] when no page of the direct map starts at `va`, else as
    /// [`free_pages`](Self::free_pages).
    ///
    /// # Safety
    ///
    /// As there.
    #[doc(alias = "free_pages")]
    pub unsafe fn free_pages_at(&self, va: VirtAddr, order: u32) -> Result<(), FreeError> {
        // SAFETY: handed on to the caller.
        unsafe { self.free_pages(page_at(va)?, order) }
    }

    /// Makes the pages of a block of `order` blocks of their own, to be freed one by one. If the
    /// block is charged to an owner, so is each page.
    ///
    /// Takes time in proportion to the number of pages. May be called in any context.
    ///
    /// # Errors
    ///
    /// [`FreeError`] when `pfn` is not the first frame of a block of `order` in use as pages.
    ///
    /// # Safety
    ///
    /// If it is such a block, it belongs to the caller.
    #[doc(alias = "split_page_memcg")]
    pub unsafe fn split_page(&self, pfn: Pfn, order: u32) -> Result<(), FreeError> {
        check_pages(&self.frames, pfn, order)?;
        // SAFETY: the block is the caller's.
        unsafe { self.split_off(pfn, order, 1 << order) };
        Ok(())
    }

    /// Allocates contiguous pages for `size` bytes, and no more than those. Their start is aligned
    /// as for the smallest block that holds them. Returns their place in the direct map.
    ///
    /// Takes time in proportion to `size`. May be called in any context with flags that do not
    /// block.
    ///
    /// # Errors
    ///
    /// As [`alloc_pages`](Self::alloc_pages); [`AllocError::OrderTooLarge`] when `size` is 0 too.
    pub fn alloc_pages_exact(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, AllocError> {
        let order = get_order(size);
        let va = self.get_free_pages(gfp, order)?;
        let used = size.div_ceil(PAGE_SIZE) as u32;
        if let Ok(pfn) = page_at(va) {
            // SAFETY: the block was allocated above, and nobody else knows it.
            unsafe { self.split_off(pfn, order, used) };
            let mut at = pfn.get() + used;
            let end = pfn.get() + (1 << order);
            while at < end {
                // The end is aligned best, so the blocks get larger from here on.
                let piece = at.trailing_zeros();
                // SAFETY: `split_off` made a block of the piece.
                let given = unsafe { self.free_pages(Pfn::new(at), piece) };
                debug_assert_eq!(given, Ok(()));
                at += 1 << piece;
            }
        }
        Ok(va)
    }

    /// Frees what [`alloc_pages_exact`](Self::alloc_pages_exact) returned for the same size. May be
    /// called in any context.
    ///
    /// # Errors
    ///
    /// [`FreeError`] when a page of `size` bytes at `va` is not in use as a page of its own. It and
    /// those behind it stay as they are, those before it are free. More bytes than any block has
    /// were never returned: [`FreeError::Size`], and all stays as it is.
    ///
    /// # Safety
    ///
    /// As for [`free_pages`](Self::free_pages), for each of the pages.
    pub unsafe fn free_pages_exact(&self, va: VirtAddr, size: usize) -> Result<(), FreeError> {
        let first = page_at(va)?;
        if size > PAGE_SIZE << MAX_ORDER {
            return Err(FreeError::Size { pfn: first, size });
        }
        (0..size.div_ceil(PAGE_SIZE) as u32)
            // SAFETY: handed on to the caller.
            .try_for_each(|page| unsafe { self.free_pages(first + page, 0) })
    }

    /// Takes a block in use apart: its first `pages` pages become single pages, the rest blocks as
    /// large as their alignment allows. Each is charged to the owner of the whole, if it has one.
    ///
    /// # Safety
    ///
    /// The block belongs to the caller.
    unsafe fn split_off(&self, pfn: Pfn, order: u32, pages: u32) {
        let Ok(whole) = self.frames.get(pfn) else {
            return;
        };
        let (kind, owner) = (whole.kind(), whole.data());
        // SAFETY: if the pageblock is not ready, all of it belongs to this block, the caller's.
        // The second pageblock of a block of the largest order likewise.
        unsafe {
            self.frames.prepare(pfn, 0, MigrateType::Unmovable);
            self.frames
                .prepare(pfn + ((1 << order) - 1), 0, MigrateType::Unmovable);
        }
        let mut at = 0;
        while at < 1 << order {
            let piece = if at < pages { 0 } else { at.trailing_zeros() };
            if let Some(frame) = self.frames.get_ready(pfn + at) {
                frame.set_head(kind, piece);
                frame.set_data(owner);
            }
            at += 1 << piece;
        }
    }
}

/// The frame of the page that starts at `va`.
fn page_at(va: VirtAddr) -> Result<Pfn, FreeError> {
    match layout::virt_to_phys(va) {
        Some(pa) if va.is_aligned(PAGE_SIZE) => Ok(pa.pfn()),
        _ => Err(FreeError::Address(va)),
    }
}
