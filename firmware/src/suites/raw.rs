//! The memory the allocator suites work on: owned, so that a test that ends early leaks nothing.
//!
//! The only file of these suites with `unsafe`. Wrong frees are methods of what they are wrong
//! about, because the owner is what proves that nothing is freed under somebody else's feet.

use hal::addr::{PAGE_SIZE, Pfn, VirtAddr};
use hal::arch::exception::FaultInfo;
use hal::arch::fault_probe;
use hal::dma::Coherent;
use hal::layout;
use hal::mm::{self, AllocError, FreeError, Gfp, ObjectError, VmallocError};

/// A block of pages.
#[derive(Debug)]
pub(super) struct Pages {
    pfn: Pfn,
    order: u32,
}

impl Pages {
    /// `alloc_pages`.
    pub(super) fn alloc(gfp: Gfp, order: u32) -> Result<Self, AllocError> {
        mm::alloc_pages(gfp, order).map(|pfn| Self { pfn, order })
    }

    /// The first frame.
    pub(super) fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// Where the direct map has the block.
    pub(super) fn va(&self) -> VirtAddr {
        layout::phys_to_virt(self.pfn.phys())
    }

    /// The content.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
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
    unsafe fn from_parts(pfn: Pfn, order: u32) -> Self {
        Self { pfn, order }
    }

    /// `free_pages`.
    pub(super) fn free(self) -> Result<(), FreeError> {
        let (pfn, order) = self.into_parts();
        // SAFETY: the block belonged to `self`.
        unsafe { mm::free_pages(pfn, order) }
    }

    /// Frees the block, and then what is no longer its own.
    pub(super) fn free_twice(self) -> (Result<(), FreeError>, Result<(), FreeError>) {
        let (pfn, order) = (self.pfn, self.order);
        let first = self.free();
        // SAFETY: nobody allocates between the two calls: the other cores are idle and interrupt
        // handlers allocate only in the tests that let them. So no block in use is there.
        (first, unsafe { mm::free_pages(pfn, order) })
    }

    /// Frees the block with another order, which must be refused.
    pub(super) fn free_with_order(&self, order: u32) -> Result<(), FreeError> {
        debug_assert_ne!(order, self.order);
        // SAFETY: a block of that order does not start here: one of another does.
        unsafe { mm::free_pages(self.pfn, order) }
    }

    /// Frees a page inside the block, which must be refused. `page` is not 0.
    pub(super) fn free_tail(&self, page: u32) -> Result<(), FreeError> {
        debug_assert!(page != 0 && page < 1 << self.order);
        // SAFETY: no block starts inside another.
        unsafe { mm::free_pages(self.pfn + page, 0) }
    }

    /// Frees the block as an object, which must be refused.
    pub(super) fn free_as_object(&self) -> Result<(), ObjectError> {
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

/// Frees a frame that no page allocator handed out, which must be refused: no RAM, a frame of the
/// image or of the coherent pool. `None` if the frame is one an allocator owns.
pub(super) fn free_foreign(pfn: Pfn) -> Option<Result<(), FreeError>> {
    let machine = crate::machine::machine();
    let free = machine
        .map
        .free_ranges()
        .any(|range| range.contains(pfn.phys()));
    // SAFETY: the page allocator got the free ranges only, and this frame is in none of them.
    (!free).then(|| unsafe { mm::free_pages(pfn, 0) })
}

/// An object from `kmalloc`.
#[derive(Debug)]
pub(super) struct Object {
    va: VirtAddr,
    size: usize,
}

// SAFETY: an object belongs to its holder, whichever core that runs on.
unsafe impl Send for Object {}

impl Object {
    /// `kmalloc`, of at least one byte.
    pub(super) fn alloc(size: usize, gfp: Gfp) -> Result<Self, AllocError> {
        debug_assert_ne!(size, 0);
        mm::kmalloc(size, gfp).map(|object| Self {
            va: VirtAddr::from_ptr(object.as_ptr()),
            size,
        })
    }

    /// Where it is.
    pub(super) fn va(&self) -> VirtAddr {
        self.va
    }

    /// Bytes asked for.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// `ksize`; 0 if it is refused.
    pub(super) fn usable(&self) -> usize {
        mm::ksize(self.va.as_ptr()).unwrap_or(0)
    }

    /// All usable bytes.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `ksize` bytes from the object's start are its own.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.usable()) }
    }

    /// `kfree`.
    pub(super) fn free(self) -> Result<(), ObjectError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the object belonged to `self`.
        unsafe { mm::kfree(va.as_ptr()) }
    }

    /// Frees the object, and then what is no longer its own.
    pub(super) fn free_twice(self) -> (Result<(), ObjectError>, Result<(), ObjectError>) {
        let va = self.va;
        let first = self.free();
        // SAFETY: nobody allocates between the two calls, as in `Pages::free_twice`.
        (first, unsafe { mm::kfree(va.as_ptr()) })
    }

    /// Frees the object's first page as pages, which must be refused.
    pub(super) fn free_as_page(&self) -> Result<(), FreeError> {
        let pa = layout::virt_to_phys(self.va).unwrap_or_default();
        // SAFETY: the frame holds an object, so no block of pages in use starts there.
        unsafe { mm::free_pages(pa.pfn(), 0) }
    }

    /// Frees an address inside the object, which must be refused. `offset` is not 0.
    pub(super) fn free_interior(&self, offset: usize) -> Result<(), ObjectError> {
        debug_assert!(offset != 0 && offset < self.size);
        // SAFETY: no object starts inside another.
        unsafe { mm::kfree((self.va + offset).as_ptr()) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the object belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { mm::kfree(self.va.as_ptr()) };
    }
}

/// Frees an address outside the direct map, or one `kmalloc` gives out for nothing. `None` if the
/// address is in the direct map.
pub(super) fn free_no_object(va: VirtAddr) -> Option<Result<(), ObjectError>> {
    // SAFETY: objects lie in the direct map only, so none starts there.
    (layout::virt_to_phys(va).is_none()).then(|| unsafe { mm::kfree(va.as_ptr()) })
}

/// Frees where the direct map would have a frame of the pool, which must be refused.
pub(super) fn free_pool_frame(frame: Pfn) -> Option<Result<(), ObjectError>> {
    let pool = crate::machine::machine().pool.frames();
    let va = layout::phys_to_virt(frame.phys());
    // SAFETY: objects lie in frames of the page allocator, and this one is the pool's.
    pool.contains(frame.phys())
        .then(|| unsafe { mm::kfree(va.as_ptr()) })
}

/// An area from `vmalloc`.
#[derive(Debug)]
pub(super) struct Area {
    va: VirtAddr,
    size: usize,
}

impl Area {
    /// `vmalloc`.
    pub(super) fn alloc(size: usize) -> Result<Self, VmallocError> {
        mm::vmalloc(size).map(|va| Self { va, size })
    }

    /// `vzalloc`.
    pub(super) fn zeroed(size: usize) -> Result<Self, VmallocError> {
        mm::vzalloc(size).map(|va| Self { va, size })
    }

    /// Where it is.
    pub(super) fn va(&self) -> VirtAddr {
        self.va
    }

    /// Bytes, rounded up to pages.
    pub(super) fn len(&self) -> usize {
        self.size.next_multiple_of(PAGE_SIZE)
    }

    /// First address after the area: its guard page.
    pub(super) fn end(&self) -> VirtAddr {
        self.va + self.len()
    }

    /// The content.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the area is mapped whole, read-write, and belongs to `self`.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.len()) }
    }

    /// `vfree`.
    pub(super) fn free(self) -> Result<(), VmallocError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the area belonged to `self`.
        unsafe { mm::vfree(va) }
    }

    /// Frees the area, and then what is no longer its own.
    pub(super) fn free_twice(self) -> (Result<(), VmallocError>, Result<(), VmallocError>) {
        let va = self.va;
        let first = self.free();
        // SAFETY: nobody allocates between the two calls, as in `Pages::free_twice`.
        (first, unsafe { mm::vfree(va) })
    }

    /// Frees an address inside the area, which must be refused. `offset` is not 0.
    pub(super) fn free_interior(&self, offset: usize) -> Result<(), VmallocError> {
        debug_assert!(offset != 0 && offset < self.len());
        // SAFETY: no area starts inside another.
        unsafe { mm::vfree(self.va + offset) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the area belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { mm::vfree(self.va) };
    }
}

/// Frees an address outside the vmalloc window as an area. `None` if it is inside.
pub(super) fn free_no_area(va: VirtAddr) -> Option<Result<(), VmallocError>> {
    // SAFETY: areas lie in the window only.
    (!mm::is_vmalloc_addr(va)).then(|| unsafe { mm::vfree(va) })
}

/// Reads the byte at `va`, or says why that is impossible. `None` where registers are.
pub(super) fn probe(va: VirtAddr) -> Option<Result<u64, FaultInfo>> {
    let memory = [layout::DIRECT_MAP, layout::VMALLOC, layout::COHERENT];
    let in_memory = memory.iter().any(|window| window.contains(va));
    // SAFETY: in these windows there is memory or nothing, so reading has no side effect.
    in_memory.then(|| unsafe { fault_probe::probe_read_u8(va) })
}

/// Stores and loads eight bytes at `offset` of coherent memory with one access each, aligned or
/// not. `None` if they do not fit.
pub(super) fn store_and_load(memory: &mut Coherent, offset: usize, value: u64) -> Option<u64> {
    let end = offset.checked_add(size_of::<u64>())?;
    let bytes = memory.as_mut_slice().get_mut(offset..end)?;
    let va = VirtAddr::from_ptr(bytes.as_mut_ptr());
    // SAFETY: the bytes are the slice's, borrowed exclusively; alignment is what is being tested.
    unsafe {
        fault_probe::probe_write_u64(va, value).ok()?;
        fault_probe::probe_read_u64(va).ok()
    }
}

/// Blocks held so that nobody else has them.
#[derive(Debug)]
pub(super) struct Hoard {
    /// Frame number times 16 plus order: both fit, since physical addresses end at 2^40.
    table: Object,
    len: usize,
}

/// Bits of the order in an entry of a [`Hoard`].
const ORDER_BITS: u32 = 4;

impl Hoard {
    /// An empty hoard for `capacity` blocks.
    pub(super) fn new(capacity: usize) -> Result<Self, AllocError> {
        let table = Object::alloc(capacity.max(1) * size_of::<u32>(), Gfp::KERNEL)?;
        Ok(Self { table, len: 0 })
    }

    /// Blocks held.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn entry(&mut self, index: usize) -> Option<&mut [u8; size_of::<u32>()]> {
        self.table.bytes().as_chunks_mut().0.get_mut(index)
    }

    /// Takes a block in; gives it back if there is no room.
    pub(super) fn push(&mut self, pages: Pages) -> Result<(), Pages> {
        let index = self.len;
        let Some(entry) = self.entry(index) else {
            return Err(pages);
        };
        let (pfn, order) = pages.into_parts();
        *entry = (pfn.get() << ORDER_BITS | order).to_le_bytes();
        self.len += 1;
        Ok(())
    }

    /// Takes the last block out.
    pub(super) fn pop(&mut self) -> Option<Pages> {
        let last = self.len.checked_sub(1)?;
        let entry = u32::from_le_bytes(*self.entry(last)?);
        self.len = last;
        let (pfn, order) = (entry >> ORDER_BITS, entry & ((1 << ORDER_BITS) - 1));
        // SAFETY: `push` took the block apart, and the entry is gone.
        Some(unsafe { Pages::from_parts(Pfn::new(pfn), order) })
    }

    /// Allocates blocks of `order` into the hoard until there are no more; returns the refusal,
    /// or `None` if the hoard is full.
    pub(super) fn fill(&mut self, gfp: Gfp, order: u32) -> Option<AllocError> {
        loop {
            match Pages::alloc(gfp, order) {
                Ok(pages) => self.push(pages).ok()?,
                Err(error) => return Some(error),
            }
        }
    }

    /// Frees every block of which `selected` says so, and keeps the others.
    pub(super) fn release(&mut self, selected: impl Fn(Pfn) -> bool) {
        let mut kept = 0;
        for index in 0..self.len {
            let Some(entry) = self.entry(index).copied() else {
                return;
            };
            let value = u32::from_le_bytes(entry);
            if selected(Pfn::new(value >> ORDER_BITS)) {
                let order = value & ((1 << ORDER_BITS) - 1);
                // SAFETY: as in `pop`; the entry is not kept.
                drop(unsafe { Pages::from_parts(Pfn::new(value >> ORDER_BITS), order) });
            } else if let Some(slot) = self.entry(kept) {
                *slot = entry;
                kept += 1;
            }
        }
        self.len = kept;
    }
}

impl Drop for Hoard {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}
