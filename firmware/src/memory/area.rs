//! Areas of `vmalloc` and `vmap`.

use super::Pages;
use core::ops::{Deref, DerefMut};
use hal::addr::{PAGE_SIZE, Pfn, VirtAddr};
use hal::arch::translate;
use hal::dma::Coherent;
use hal::mm::{self, Gfp, Protection, VmallocError};

/// An area from `vmalloc`.
#[derive(Debug)]
pub(crate) struct Area {
    pub(super) va: VirtAddr,
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

/// Frees an address outside the vmalloc window as an area. `None` if it is inside.
pub(crate) fn free_no_area(va: VirtAddr) -> Option<Result<(), VmallocError>> {
    // SAFETY: areas lie in the window only.
    (!mm::is_vmalloc_addr(va)).then(|| unsafe { mm::vfree(va) })
}
