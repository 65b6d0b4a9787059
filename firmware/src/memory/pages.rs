//! Blocks of pages.

use hal::addr::{PAGE_SIZE, Pfn, PhysRange, VirtAddr};
use hal::layout::phys_to_virt;
use hal::mm::{self, AllocError, FreeError, Gfp, ObjectError};

/// A block of pages.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(super) pfn: Pfn,
    pub(super) order: u32,
}

impl Pages {
    /// `alloc_pages`.
    pub(crate) fn alloc(gfp: Gfp, order: u32) -> Result<Self, AllocError> {
        mm::alloc_pages(gfp, order).map(|pfn| Self { pfn, order })
    }

    /// The first frame.
    pub(crate) fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// All of its frames.
    pub(crate) fn frames(&self) -> PhysRange {
        let start = self.pfn.phys();
        PhysRange::new(start, start + (PAGE_SIZE << self.order))
    }

    /// Where the direct map has the block.
    pub(crate) fn va(&self) -> VirtAddr {
        phys_to_virt(self.pfn.phys())
    }

    /// The content.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block is RAM in the direct map and belongs to `self`.
        unsafe { core::slice::from_raw_parts_mut(self.va().as_ptr(), PAGE_SIZE << self.order) }
    }

    /// Gives the block up without freeing it: its number and order, for [`Pages::from_parts`].
    pub(super) fn into_parts(self) -> (Pfn, u32) {
        let parts = (self.pfn, self.order);
        core::mem::forget(self);
        parts
    }

    /// The block that [`Pages::into_parts`] gave up.
    ///
    /// # Safety
    ///
    /// The parts came from there, and are used once.
    pub(super) unsafe fn from_parts(pfn: Pfn, order: u32) -> Self {
        Self { pfn, order }
    }

    /// `free_pages`.
    pub(crate) fn free(self) -> Result<(), FreeError> {
        let (pfn, order) = self.into_parts();
        // SAFETY: the block belonged to `self`.
        unsafe { mm::free_pages(pfn, order) }
    }

    /// Frees the block, and then what is no longer its own.
    pub(crate) fn free_twice(self) -> (Result<(), FreeError>, Result<(), FreeError>) {
        let (pfn, order) = (self.pfn, self.order);
        let first = self.free();
        // SAFETY: nobody allocates between the two calls: the other cores are idle and interrupt
        // handlers allocate only in the tests that let them. So no block in use is there.
        (first, unsafe { mm::free_pages(pfn, order) })
    }

    /// Frees the block with another order, which must be refused.
    pub(crate) fn free_with_order(&self, order: u32) -> Result<(), FreeError> {
        debug_assert_ne!(order, self.order);
        // SAFETY: a block of that order does not start here: one of another does.
        unsafe { mm::free_pages(self.pfn, order) }
    }

    /// Frees a page inside the block, which must be refused. `page` is not 0.
    pub(crate) fn free_tail(&self, page: u32) -> Result<(), FreeError> {
        debug_assert!(page != 0 && page < 1 << self.order);
        // SAFETY: no block starts inside another.
        unsafe { mm::free_pages(self.pfn + page, 0) }
    }

    /// Frees the block as an object, which must be refused.
    pub(crate) fn free_as_object(&self) -> Result<(), ObjectError> {
        // SAFETY: pages are no object.
        unsafe { mm::kfree(self.va().as_ptr()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the block belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { mm::free_pages(self.pfn, self.order) };
    }
}

/// As many pages as a number of bytes takes.
#[derive(Debug)]
pub(crate) struct ExactPages {
    va: VirtAddr,
    size: usize,
}

impl ExactPages {
    /// `alloc_pages_exact`.
    pub(crate) fn alloc(size: usize, gfp: Gfp) -> Result<Self, AllocError> {
        mm::alloc_pages_exact(size, gfp).map(|va| Self { va, size })
    }

    /// The bytes asked for.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the pages are RAM in the direct map and belong to `self`.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.size) }
    }

    /// `free_pages_exact`.
    pub(crate) fn free(self) -> Result<(), FreeError> {
        let (va, size) = (self.va, self.size);
        core::mem::forget(self);
        // SAFETY: the pages belonged to `self`.
        unsafe { mm::free_pages_exact(va, size) }
    }
}

impl Drop for ExactPages {
    fn drop(&mut self) {
        // SAFETY: the pages belong to `self`. A refusal shows in the ledger.
        let _ = unsafe { mm::free_pages_exact(self.va, self.size) };
    }
}

/// Frees a frame that no page allocator handed out, which must be refused: no RAM, a frame of the
/// image or of the coherent pool. `None` if the frame is one an allocator owns.
pub(crate) fn free_foreign(pfn: Pfn) -> Option<Result<(), FreeError>> {
    let machine = crate::machine::machine();
    let free = machine
        .map
        .free_ranges()
        .any(|range| range.contains(pfn.phys()));
    let lent = machine
        .map
        .cma_ranges()
        .any(|range| range.contains(pfn.phys()));
    // SAFETY: the page allocator got the free ranges and the contiguous memory areas only, and this
    // frame is in none of them.
    (!free && !lent).then(|| unsafe { mm::free_pages(pfn, 0) })
}
