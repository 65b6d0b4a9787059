//! The machine's pages.

use super::{AT_HAND, pages};
use crate::addr::{Pfn, VirtAddr};
use crate::mm::*;

/// Allocates pages of the machine: [`PageAllocator::alloc_pages`].
///
/// # Errors
///
/// As there, and [`AllocError::NotReady`] before [`init`].
#[doc(alias = "alloc_page")]
#[inline(always)]
pub fn alloc_pages(gfp: Gfp, order: u32) -> Result<Pfn, AllocError> {
    match page::take(&AT_HAND, gfp, order) {
        Some(pfn) => Ok(pfn),
        // Taken apart, so that a caller's fast path keeps the result in registers.
        None => match pages()
            .ok_or(AllocError::NotReady)?
            .alloc_from_zones(gfp, order)
        {
            Ok(pfn) => Ok(pfn),
            Err(error) => Err(error),
        },
    }
}

/// Allocates a page of the machine that becomes a translation table, for good. May be called in any
/// context.
///
/// The tables' lock is held where a table is wanted: nothing is printed then. The reserve is for
/// those that cannot fail as mildly.
pub fn alloc_table() -> Option<Pfn> {
    const TABLES: Gfp = Gfp::NOWAIT.union(Gfp::NOWARN);
    let table = alloc_pages(TABLES, 0).ok()?;
    if let Ok(frame) = pages()?.frames().get(table) {
        frame.set_kind(FrameKind::Table);
    }
    Some(table)
}

/// Allocates pages of the machine by address: [`PageAllocator::get_free_pages`].
///
/// # Errors
///
/// As [`alloc_pages`].
#[doc(alias = "__get_free_pages")]
pub fn get_free_pages(gfp: Gfp, order: u32) -> Result<VirtAddr, AllocError> {
    let pages = pages().ok_or(AllocError::NotReady)?;
    pages.get_free_pages(gfp, order)
}

/// Allocates as many pages of the machine as `size` bytes take:
/// [`PageAllocator::alloc_pages_exact`].
///
/// # Errors
///
/// As there, and [`AllocError::NotReady`] before [`init`].
pub fn alloc_pages_exact(size: usize, gfp: Gfp) -> Result<VirtAddr, AllocError> {
    let pages = pages().ok_or(AllocError::NotReady)?;
    pages.alloc_pages_exact(size, gfp)
}

/// Allocates one zeroed page of the machine: [`PageAllocator::get_zeroed_page`].
///
/// # Errors
///
/// As [`alloc_pages`].
pub fn get_zeroed_page(gfp: Gfp) -> Result<Pfn, AllocError> {
    alloc_pages(gfp | Gfp::ZERO, 0)
}

/// Frees pages of the machine: [`PageAllocator::free_pages`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[doc(alias = "__free_pages")]
#[inline(always)]
pub unsafe fn free_pages(pfn: Pfn, order: u32) -> Result<(), FreeError> {
    if AT_HAND.lists().push(pfn, order) {
        return Ok(());
    }
    let pages = pages().ok_or(FrameError::Untouched(pfn))?;
    pages.free_to_zone(pfn, order)
}

/// Frees pages of the machine by address: [`PageAllocator::free_pages_at`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[doc(alias = "free_pages")]
pub unsafe fn free_pages_at(va: VirtAddr, order: u32) -> Result<(), FreeError> {
    let pages = pages().ok_or(FreeError::Address(va))?;
    // SAFETY: handed on to the caller.
    unsafe { pages.free_pages_at(va, order) }
}

/// Frees pages of the machine by size: [`PageAllocator::free_pages_exact`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn free_pages_exact(va: VirtAddr, size: usize) -> Result<(), FreeError> {
    let pages = pages().ok_or(FreeError::Address(va))?;
    // SAFETY: handed on to the caller.
    unsafe { pages.free_pages_exact(va, size) }
}

/// Takes a block of pages of the machine apart: [`PageAllocator::split_page`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn split_page(pfn: Pfn, order: u32) -> Result<(), FreeError> {
    let pages = pages().ok_or(FrameError::Untouched(pfn))?;
    // SAFETY: handed on to the caller.
    unsafe { pages.split_page(pfn, order) }
}
