//! Contiguous memory, and a crowd of pages that move out of its way.

use super::Object;
use crate::machine::machine;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use hal::addr::{PAGE_SIZE, Pfn, PhysRange, VirtAddr};
use hal::layout::phys_to_virt;
use hal::mm::{
    self, AllocError, Cma, CmaError, FreeError, Gfp, MemoryTypeError, MovablePage, MovablePool,
};
use hal::mmu::{MapError, MemoryType};

/// An allocation from a contiguous memory area.
#[derive(Debug)]
pub(crate) struct Contiguous {
    cma: &'static Cma,
    pfn: Pfn,
    count: u32,
}

// SAFETY: an allocation belongs to its holder, whichever core that runs on.
unsafe impl Send for Contiguous {}

/// Why a page did not change its memory type.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Retype {
    /// Its frame's descriptor says so.
    #[error(transparent)]
    Frame(#[from] MemoryTypeError),
    /// The tables say so.
    #[error(transparent)]
    Tables(#[from] MapError),
}

impl Contiguous {
    /// `cma_alloc`.
    pub(crate) fn alloc(cma: &'static Cma, count: u32, align_order: u32) -> Result<Self, CmaError> {
        let pfn = cma.alloc(count, align_order, true)?;
        Ok(Self { cma, pfn, count })
    }

    /// The first frame.
    pub(crate) fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// All of its frames.
    pub(crate) fn frames(&self) -> PhysRange {
        PhysRange::new(self.pfn.phys(), (self.pfn + self.count).phys())
    }

    /// Where the direct map has it.
    pub(crate) fn va(&self) -> VirtAddr {
        phys_to_virt(self.pfn.phys())
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        self.count as usize * PAGE_SIZE
    }

    /// Writes `mark` to every page and reads it back.
    pub(crate) fn is_mine(&self, mark: u8) -> bool {
        let first = self.va().as_ptr::<u8>();
        let pages = || (0..self.len()).step_by(PAGE_SIZE);
        // SAFETY: the pages are RAM in the direct map and belong to `self`.
        unsafe {
            pages().for_each(|offset| first.add(offset).write_volatile(mark));
            pages().all(|offset| first.add(offset).read_volatile() == mark)
        }
    }

    /// `cma_release`.
    pub(crate) fn release(self) -> Result<(), CmaError> {
        let this = ManuallyDrop::new(self);
        // SAFETY: the allocation belonged to `self`.
        unsafe { this.cma.release(this.pfn, this.count) }
    }

    /// Releases the allocation, and then what is no longer its own.
    pub(crate) fn release_twice(self) -> (Result<(), CmaError>, Result<(), CmaError>) {
        let (cma, pfn, count) = (self.cma, self.pfn, self.count);
        let first = self.release();
        // SAFETY: nobody allocates from the area between the two calls: the other cores are idle.
        (first, unsafe { cma.release(pfn, count) })
    }

    /// Releases `count` pages at page `first` of it, not all of it, which must be refused.
    pub(crate) fn release_part(&self, first: u32, count: u32) -> Result<(), CmaError> {
        debug_assert!(first != 0 || count != self.count);
        // SAFETY: no allocation of that size starts there.
        unsafe { self.cma.release(self.pfn + first, count) }
    }

    /// Releases all of it while a page is not write-back memory, which must be refused.
    pub(crate) fn release_retyped(&self) -> Result<(), CmaError> {
        // SAFETY: a page of another type keeps the allocation in use.
        unsafe { self.cma.release(self.pfn, self.count) }
    }

    /// Frees its first page as pages, which must be refused.
    pub(crate) fn free_as_page(&self) -> Result<(), FreeError> {
        // SAFETY: the frame is not the page allocator's at present.
        unsafe { mm::free_pages(self.pfn, 0) }
    }

    /// Gives page `page` of it another memory type, in place.
    pub(crate) fn retype(&self, page: u32, memory_type: MemoryType) -> Result<(), Retype> {
        let frame = self.pfn + page.min(self.count - 1);
        let va = phys_to_virt(frame.phys());
        let frames = mm::pages().map(mm::PageAllocator::frames);
        let change = || {
            // SAFETY: the page belongs to `self`, nobody refers to it, and it is mapped here only.
            unsafe {
                machine()
                    .tables
                    .lock()
                    .change_type(va, va, PAGE_SIZE, memory_type)
            }
        };
        if memory_type == MemoryType::NormalWriteBack {
            change()?;
            if let Some(frames) = frames {
                // SAFETY: the frame belongs to `self`, and its one mapping was just changed.
                unsafe { frames.release_memory_type(frame..frame + 1) };
            }
            return Ok(());
        }
        if let Some(frames) = frames {
            // SAFETY: the frame belongs to `self`.
            unsafe { frames.claim_memory_type(frame..frame + 1, memory_type) }?;
        }
        change()?;
        Ok(())
    }
}

/// The bytes, for allocations whose pages are all write-back memory: [`retype`](Contiguous::retype)
/// is for those that nobody reads.
impl Deref for Contiguous {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the pages are RAM in the direct map and belong to `self`.
        unsafe { core::slice::from_raw_parts(self.va().as_ptr(), self.len()) }
    }
}

impl DerefMut for Contiguous {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.va().as_ptr(), self.len()) }
    }
}

impl Drop for Contiguous {
    fn drop(&mut self) {
        // SAFETY: the allocation belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { self.cma.release(self.pfn, self.count) };
    }
}

/// Releases a frame that is in no area, which must be refused. `None` if it is in `cma`.
pub(crate) fn release_foreign(cma: &Cma, pfn: Pfn) -> Option<Result<(), CmaError>> {
    // SAFETY: no allocation of the area starts outside it.
    (!cma.contains(pfn)).then(|| unsafe { cma.release(pfn, 1) })
}

/// Movable pages, and the table of them.
#[derive(Debug)]
pub(crate) struct Crowd {
    pool: &'static MovablePool,
    table: Object,
    capacity: usize,
    len: usize,
}

impl Crowd {
    /// No pages, with room for `capacity`, which are allocated from `pool`.
    pub(crate) fn new(pool: &'static MovablePool, capacity: usize) -> Result<Self, AllocError> {
        let bytes = capacity.max(1) * size_of::<MovablePage>();
        Ok(Self {
            pool,
            table: Object::alloc(bytes, Gfp::KERNEL)?,
            capacity,
            len: 0,
        })
    }

    fn slots(&self) -> *mut MovablePage {
        self.table.va().as_ptr()
    }

    /// Allocates pages until the crowd is full or there are no more.
    pub(crate) fn gather(&mut self) {
        while self.len < self.capacity
            && let Ok(page) = self.pool.alloc()
        {
            // SAFETY: the table has room for `capacity` pages, is aligned to a cache line, and this
            // slot holds none.
            unsafe { self.slots().add(self.len).write(page) };
            self.len += 1;
        }
    }

    /// The pages.
    pub(crate) fn pages(&mut self) -> &mut [MovablePage] {
        // SAFETY: the first `len` slots hold pages, and belong to `self`.
        unsafe { core::slice::from_raw_parts_mut(self.slots(), self.len) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for index in 0..core::mem::take(&mut self.len) {
            // SAFETY: the slot held a page, and is not read again.
            drop(unsafe { self.slots().add(index).read() });
        }
        self.pool.shrink();
    }
}
