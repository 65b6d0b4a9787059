//! Memory of each kind, owned: what the suites work on and hand to the DMA engines.
//!
//! A test that ends early leaks nothing. Wrong frees are methods of what they are wrong about,
//! because the owner is what proves that nothing is freed under somebody else's feet.

#[cfg(feature = "bench")]
pub(crate) mod array;
#[cfg(feature = "bench")]
pub(crate) mod bulk;
pub(crate) mod contiguous;
pub(crate) mod hoard;
pub(crate) mod local;
pub(crate) mod named;
#[cfg(feature = "bench")]
pub(crate) mod registers;
#[cfg(feature = "bench")]
pub(crate) mod slot;
#[cfg(feature = "slab-debug")]
pub(crate) mod stray;

use crate::machine::machine;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use hal::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr};
use hal::arch::translate;
use hal::dma::{Coherent, Device};
use hal::layout::{self, phys_to_virt};
use hal::mm::{
    self, AllocError, FreeError, Gfp, IoKind, IoremapError, KvmallocError, ObjectError, Protection,
    ReallocError, VmallocError,
};
use hal::mmu::MemoryType;

/// The flags for memory `device` reaches: zone bits only where some RAM is out of its reach.
pub(crate) fn reachable(device: &Device) -> Gfp {
    let limits = machine().board.zone_limits();
    let ram_end = machine().map.ram().iter().map(|ram| ram.end).max();
    let end = device.limit().checked_add(1).unwrap_or(device.limit());
    if ram_end.is_none_or(|ram_end| ram_end <= end) {
        Gfp::KERNEL
    } else if limits.dma32 <= end {
        Gfp::KERNEL | Gfp::DMA32
    } else {
        Gfp::KERNEL | Gfp::DMA
    }
}

/// A block of pages.
#[derive(Debug)]
pub(crate) struct Pages {
    pfn: Pfn,
    order: u32,
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
        layout::phys_to_virt(self.pfn.phys())
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

/// An object from `kmalloc`.
#[derive(Debug)]
pub(crate) struct Object {
    va: VirtAddr,
    size: usize,
}

// SAFETY: an object belongs to its holder, whichever core that runs on.
unsafe impl Send for Object {}

impl Object {
    /// `kmalloc`. The content is unspecified.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(crate) fn alloc(size: usize, gfp: Gfp) -> Result<Self, AllocError> {
        let object = mm::kmalloc(size, gfp)?;
        let va = VirtAddr::from_ptr(object.as_ptr());
        Ok(Self { va, size })
    }

    /// `kzalloc`.
    pub(crate) fn zeroed(size: usize, gfp: Gfp) -> Result<Self, AllocError> {
        Self::alloc(size, gfp | Gfp::ZERO)
    }

    /// Where it is.
    pub(crate) fn va(&self) -> VirtAddr {
        self.va
    }

    /// `ksize`; 0 if it is refused.
    pub(crate) fn usable(&self) -> usize {
        mm::ksize(self.va.as_ptr()).unwrap_or(0)
    }

    /// All usable bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `ksize` bytes from the object's start are its own.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.usable()) }
    }

    /// `kfree`.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(crate) fn free(self) -> Result<(), ObjectError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the object belonged to `self`.
        unsafe { mm::kfree(va.as_ptr()) }
    }

    /// `kmalloc_array`.
    pub(crate) fn array(count: usize, size: usize, gfp: Gfp) -> Result<Self, AllocError> {
        mm::kmalloc_array(count, size, gfp).map(|object| Self {
            va: VirtAddr::from_ptr(object.as_ptr()),
            size: count * size,
        })
    }

    /// `krealloc` of null.
    pub(crate) fn resized_nothing(size: usize, gfp: Gfp) -> Result<Self, ReallocError> {
        // SAFETY: there is no object at null.
        let object = unsafe { mm::krealloc(core::ptr::null_mut(), size, gfp) }?;
        let va = VirtAddr::from_ptr(object.as_ptr());
        Ok(Self { va, size })
    }

    /// `krealloc`, to a size that is not 0.
    pub(crate) fn resize(&mut self, size: usize, gfp: Gfp) -> Result<(), ReallocError> {
        debug_assert_ne!(size, 0);
        // SAFETY: the object belongs to `self`, which takes the new address.
        let object = unsafe { mm::krealloc(self.va.as_ptr(), size, gfp) }?;
        (self.va, self.size) = (VirtAddr::from_ptr(object.as_ptr()), size);
        Ok(())
    }

    /// `krealloc` to 0 bytes, and what it returns.
    pub(crate) fn resize_to_nothing(self) -> Result<NonNull<u8>, ReallocError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the object belonged to `self`.
        unsafe { mm::krealloc(va.as_ptr(), 0, Gfp::KERNEL) }
    }

    /// `kfree_sensitive`.
    pub(crate) fn free_sensitive(self) -> Result<(), ObjectError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the object belonged to `self`.
        unsafe { mm::kfree_sensitive(va.as_ptr()) }
    }

    /// Frees the object, and then what is no longer its own.
    pub(crate) fn free_twice(self) -> (Result<(), ObjectError>, Result<(), ObjectError>) {
        let va = self.va;
        let first = self.free();
        // SAFETY: nobody allocates between the two calls, as in `Pages::free_twice`.
        (first, unsafe { mm::kfree(va.as_ptr()) })
    }

    /// Frees the object's first page as pages, which must be refused.
    pub(crate) fn free_as_page(&self) -> Result<(), FreeError> {
        let pa = layout::virt_to_phys(self.va).unwrap_or_default();
        // SAFETY: the frame holds an object, so no block of pages in use starts there.
        unsafe { mm::free_pages(pa.pfn(), 0) }
    }

    /// Frees an address inside the object, which must be refused. `offset` is not 0.
    pub(crate) fn free_interior(&self, offset: usize) -> Result<(), ObjectError> {
        debug_assert!(offset != 0 && offset < self.len());
        // SAFETY: no object starts inside another.
        unsafe { mm::kfree((self.va + offset).as_ptr()) }
    }
}

/// The bytes asked for.
impl Deref for Object {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `kmalloc` gave at least `size` bytes, which belong to `self`.
        unsafe { core::slice::from_raw_parts(self.va.as_ptr(), self.size) }
    }
}

impl DerefMut for Object {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.size) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the object belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { mm::kfree(self.va.as_ptr()) };
    }
}

/// How `kmalloc_array`, `kcalloc` and `krealloc_array` refuse `count` elements of `size` bytes;
/// `None` for one that does not, whose memory leaks.
pub(crate) fn no_array(count: usize, size: usize) -> [Option<AllocError>; 3] {
    // SAFETY: there is no object at null.
    let grown =
        unsafe { mm::krealloc_array(core::ptr::null_mut(), count, size, Gfp::KERNEL) }.err();
    let grown = grown.and_then(|error| match error {
        ReallocError::Alloc(error) => Some(error),
        ReallocError::Object(_) => None,
    });
    [
        mm::kmalloc_array(count, size, Gfp::KERNEL).err(),
        mm::kcalloc(count, size, Gfp::KERNEL).err(),
        grown,
    ]
}

/// What `krealloc` of null to 0 bytes returns.
pub(crate) fn nothing_resized() -> Result<NonNull<u8>, ReallocError> {
    // SAFETY: there is no object at null.
    unsafe { mm::krealloc(core::ptr::null_mut(), 0, Gfp::KERNEL) }
}

/// Frees an address outside the direct map, or one `kmalloc` gives out for nothing. `None` if the
/// address is in the direct map.
pub(crate) fn free_no_object(va: VirtAddr) -> Option<Result<(), ObjectError>> {
    // SAFETY: objects lie in the direct map only, so none starts there.
    (layout::virt_to_phys(va).is_none()).then(|| unsafe { mm::kfree(va.as_ptr()) })
}

/// Frees where the direct map would have a frame of the pool, which must be refused.
pub(crate) fn free_pool_frame(frame: Pfn) -> Option<Result<(), ObjectError>> {
    let pool = crate::machine::machine().pool.frames();
    let va = layout::phys_to_virt(frame.phys());
    // SAFETY: objects lie in frames of the page allocator, and this one is the pool's.
    pool.contains(frame.phys())
        .then(|| unsafe { mm::kfree(va.as_ptr()) })
}

/// An area from `vmalloc`.
#[derive(Debug)]
pub(crate) struct Area {
    va: VirtAddr,
    /// Whole pages.
    size: usize,
}

impl Area {
    /// `vmalloc`. The content is unspecified.
    pub(crate) fn alloc(size: usize) -> Result<Self, VmallocError> {
        Self::alloc_with(size, Gfp::KERNEL)
    }

    /// `vmalloc`, from the zones that `gfp` admits.
    pub(crate) fn alloc_with(size: usize, gfp: Gfp) -> Result<Self, VmallocError> {
        let va = mm::vmalloc_with(size, gfp)?;
        let size = size.next_multiple_of(PAGE_SIZE);
        Ok(Self { va, size })
    }

    /// `vzalloc`.
    pub(crate) fn zeroed(size: usize) -> Result<Self, VmallocError> {
        Self::alloc_with(size, Gfp::KERNEL | Gfp::ZERO)
    }

    /// Where it is.
    pub(crate) fn va(&self) -> VirtAddr {
        self.va
    }

    /// First address after the area: its guard page.
    pub(crate) fn end(&self) -> VirtAddr {
        self.va + self.len()
    }

    /// `vfree`.
    pub(crate) fn free(self) -> Result<(), VmallocError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the area belonged to `self`.
        unsafe { mm::vfree(va) }
    }

    /// Frees the area, and then what is no longer its own.
    pub(crate) fn free_twice(self) -> (Result<(), VmallocError>, Result<(), VmallocError>) {
        let va = self.va;
        let first = self.free();
        // SAFETY: nobody allocates between the two calls, as in `Pages::free_twice`.
        (first, unsafe { mm::vfree(va) })
    }

    /// Frees an address inside the area, which must be refused. `offset` is not 0.
    pub(crate) fn free_interior(&self, offset: usize) -> Result<(), VmallocError> {
        debug_assert!(offset != 0 && offset < self.len());
        // SAFETY: no area starts inside another.
        unsafe { mm::vfree(self.va + offset) }
    }
}

impl Deref for Area {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the area is mapped whole, and belongs to `self`.
        unsafe { core::slice::from_raw_parts(self.va.as_ptr(), self.size) }
    }
}

impl DerefMut for Area {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, mapped read-write; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.size) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the area belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { mm::vfree(self.va) };
    }
}

impl Area {
    /// `vrealloc`; the area stays as it was if that fails.
    pub(crate) fn resize(&mut self, size: usize, gfp: Gfp) -> Result<(), VmallocError> {
        // SAFETY: the area belongs to `self`, which forgets its old address.
        let moved = unsafe { mm::vrealloc(Some(self.va), size, gfp) }?;
        self.va = moved.unwrap_or(self.va);
        self.size = mm::vmalloc_size(self.va)?;
        Ok(())
    }

    /// Gives the area up to [`vfree_by_address`], which an interrupt handler can call.
    pub(crate) fn into_address(self) -> usize {
        let va = self.va;
        core::mem::forget(self);
        va.get()
    }
}

/// `vfree` of what [`Area::into_address`] gave up; anything else in the window must be refused.
pub(crate) fn vfree_by_address(address: usize) -> Result<(), VmallocError> {
    // SAFETY: nobody has the area any more; other areas are not given to this function.
    unsafe { mm::vfree(VirtAddr::new(address)) }
}

/// Pages mapped once more, by `vmap`, as long as they live.
#[derive(Debug)]
pub(crate) struct Remapped<'a> {
    va: VirtAddr,
    owner: core::marker::PhantomData<&'a ()>,
}

impl<'a> Remapped<'a> {
    /// The pages of `block`, the last one first.
    pub(crate) fn backwards(
        block: &'a Pages,
        protection: Protection,
    ) -> Result<Self, VmallocError> {
        let mut list = heapless::Vec::<Pfn, 64>::new();
        for page in (0..1 << block.order).rev() {
            // More than fit are not mapped.
            let _ = list.push(block.pfn + page);
        }
        // SAFETY: the borrow keeps the block, and nobody changes the type of a block of pages.
        let va = unsafe { mm::vmap(&list, protection) }?;
        let owner = core::marker::PhantomData;
        Ok(Self { va, owner })
    }

    /// The first page of coherent memory.
    pub(crate) fn of_coherent(
        memory: &'a Coherent,
        protection: Protection,
    ) -> Result<Self, VmallocError> {
        let va = VirtAddr::from_ptr(memory.as_slice().as_ptr());
        let pa = translate::read_el1(va).page().unwrap_or_default();
        // SAFETY: the borrow keeps the memory, and the pool's frames never change their type.
        let va = unsafe { mm::vmap(&[pa.pfn()], protection) }?;
        let owner = core::marker::PhantomData;
        Ok(Self { va, owner })
    }

    /// Where the pages are mapped.
    pub(crate) fn va(&self) -> VirtAddr {
        self.va
    }

    /// `vunmap`.
    pub(crate) fn unmap(self) -> Result<(), VmallocError> {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the mapping belonged to `self`.
        unsafe { mm::vunmap(va) }
    }

    /// Frees the mapping as an area, which must be refused.
    pub(crate) fn free_as_area(&self) -> Result<(), VmallocError> {
        // SAFETY: `vfree` takes areas of `vmalloc` only.
        unsafe { mm::vfree(self.va) }
    }
}

impl Drop for Remapped<'_> {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`. A refusal shows in the list of areas.
        let _ = unsafe { mm::vunmap(self.va) };
    }
}

/// Memory from `kvmalloc`.
#[derive(Debug)]
pub(crate) struct Kv {
    va: VirtAddr,
    size: usize,
}

impl Kv {
    /// `kvmalloc`. The content is unspecified.
    pub(crate) fn alloc(size: usize, gfp: Gfp) -> Result<Self, KvmallocError> {
        mm::kvmalloc(size, gfp).map(|memory| Self {
            va: VirtAddr::from_ptr(memory.as_ptr()),
            size,
        })
    }

    /// Where it is.
    pub(crate) fn va(&self) -> VirtAddr {
        self.va
    }

    /// `kvrealloc`; the memory stays as it was if that fails.
    pub(crate) fn resize(&mut self, size: usize, gfp: Gfp) -> Result<(), KvmallocError> {
        // SAFETY: the memory belongs to `self`, which forgets its old address.
        let moved = unsafe { mm::kvrealloc(self.va.as_ptr(), size, gfp) }?;
        self.va = VirtAddr::from_ptr(moved.as_ptr());
        self.size = size;
        Ok(())
    }

    /// `kvfree`, and then once more what is no longer its own.
    pub(crate) fn free_twice(self) -> (Result<(), KvmallocError>, Result<(), KvmallocError>) {
        let va = self.va;
        core::mem::forget(self);
        // SAFETY: the memory belonged to `self`; nobody allocates between the two calls, as in
        // `Pages::free_twice`.
        unsafe { (mm::kvfree(va.as_ptr()), mm::kvfree(va.as_ptr())) }
    }
}

impl Deref for Kv {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `kvmalloc` gave at least `size` bytes, which belong to `self`.
        unsafe { core::slice::from_raw_parts(self.va.as_ptr(), self.size) }
    }
}

impl DerefMut for Kv {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.size) }
    }
}

impl Drop for Kv {
    fn drop(&mut self) {
        // SAFETY: the memory belongs to `self`. A refusal shows in the ledger.
        let _ = unsafe { mm::kvfree(self.va.as_ptr()) };
    }
}

/// `kvfree` of an object of `kmalloc`, which it must take.
pub(crate) fn kvfree_object(object: Object) -> Result<(), KvmallocError> {
    let va = object.va;
    core::mem::forget(object);
    // SAFETY: the object was given to this function.
    unsafe { mm::kvfree(va.as_ptr()) }
}

/// `kvfree` of an area of `vmalloc`, which it must take.
pub(crate) fn kvfree_area(area: Area) -> Result<(), KvmallocError> {
    let va = area.va;
    core::mem::forget(area);
    // SAFETY: the area was given to this function.
    unsafe { mm::kvfree(va.as_ptr()) }
}

/// Registers mapped by `ioremap`.
#[derive(Debug)]
pub(crate) struct Registers(VirtAddr);

impl Registers {
    /// `ioremap`.
    pub(crate) fn map(range: PhysRange, kind: IoKind) -> Result<Self, IoremapError> {
        mm::ioremap(range, kind).map(Self)
    }

    /// Where the first byte is.
    pub(crate) fn va(&self) -> VirtAddr {
        self.0
    }

    /// `iounmap`, and then once more what is no longer its own.
    pub(crate) fn unmap_twice(self) -> (Result<(), IoremapError>, Result<(), IoremapError>) {
        let va = self.0;
        core::mem::forget(self);
        // SAFETY: the mapping belonged to `self`; nobody maps between the two calls.
        unsafe { (mm::iounmap(va), mm::iounmap(va)) }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`. A refusal shows in the list of areas.
        let _ = unsafe { mm::iounmap(self.0) };
    }
}

/// Frees an address outside the vmalloc window as an area. `None` if it is inside.
pub(crate) fn free_no_area(va: VirtAddr) -> Option<Result<(), VmallocError>> {
    // SAFETY: areas lie in the window only.
    (!mm::is_vmalloc_addr(va)).then(|| unsafe { mm::vfree(va) })
}

/// Why there is no payload to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPayload {
    /// The device tree names none.
    #[error("no payload: make run PAYLOAD=FILE")]
    Absent,
    /// The memory map gives the memory to nobody or to somebody else.
    #[error("the payload {0} is not reserved")]
    NotReserved(PhysRange),
    /// A page of it is not ordinary memory of the direct map.
    #[error("the payload's page {0} is not write-back memory of the direct map")]
    NotMapped(PhysAddr),
}

/// The payload's bytes.
///
/// # Errors
///
/// [`NoPayload`].
pub(crate) fn payload() -> Result<&'static [u8], NoPayload> {
    let range = machine().payload.ok_or(NoPayload::Absent)?;
    let reserved = machine().map.reserved().iter();
    if !reserved
        .clone()
        .any(|reserved| reserved.range.contains_range(&range))
    {
        return Err(NoPayload::NotReserved(range));
    }
    let mut page = range.start.align_down(PAGE_SIZE);
    while page < range.end {
        let par = translate::read_el1(phys_to_virt(page));
        if par.page() != Some(page) || par.memory_type() != Some(MemoryType::NormalWriteBack) {
            return Err(NoPayload::NotMapped(page));
        }
        page = page + PAGE_SIZE;
    }
    let start = phys_to_virt(range.start).as_ptr::<u8>();
    // SAFETY: every page is mapped, as checked; the memory is reserved, so that no allocator owns
    // it, and nothing writes it.
    Ok(unsafe { core::slice::from_raw_parts(start, range.size() as usize) })
}
