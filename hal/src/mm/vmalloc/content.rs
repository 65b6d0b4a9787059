//! What areas hold: the frames behind their addresses, and content that is copied.

use super::{PageSource, Vmalloc, VmallocError, is_vmalloc_addr};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::layout;
use crate::mm::Gfp;

impl<P: PageSource> Vmalloc<P> {
    /// Makes the memory at `old` `size` bytes long, moving it if its pages do not suffice; it never
    /// gives pages back. `old` and the result may be `None`: without `old` it allocates, for size 0
    /// it frees. Linux: `vrealloc`.
    ///
    /// With [`Gfp::ZERO`] on every call from the first, bytes never asked for are zero. Context as
    /// for [`vmalloc_with`](Self::vmalloc_with).
    ///
    /// # Errors
    ///
    /// As [`vmalloc_with`](Self::vmalloc_with) and [`vfree`](Self::vfree); the old memory stays as
    /// it was.
    ///
    /// # Safety
    ///
    /// As for [`vfree`](Self::vfree), unless an error is returned.
    pub unsafe fn vrealloc(
        &self,
        old: Option<VirtAddr>,
        size: usize,
        gfp: Gfp,
    ) -> Result<Option<VirtAddr>, VmallocError> {
        let Some(old) = old else {
            return self.vmalloc_with(size, gfp).map(Some);
        };
        if size == 0 {
            // SAFETY: handed on to the caller.
            unsafe { self.vfree(old) }?;
            return Ok(None);
        }
        let old_size = self.vmalloc_size(old)?;
        if size <= old_size {
            if gfp.contains(Gfp::ZERO) {
                self.for_each_piece(old + size, old_size - size, |_, piece, len| {
                    // SAFETY: the bytes are part of the caller's memory.
                    unsafe { piece.as_ptr::<u8>().write_bytes(0, len) };
                    Ok(())
                })?;
            }
            return Ok(Some(old));
        }
        let new = self.vmalloc_with(size, gfp)?;
        self.for_each_piece(old, old_size, |offset, from, len| {
            // SAFETY: part of the old memory, which is the caller's and the shorter of the two.
            unsafe { self.copy_to(new + offset, from.as_ptr(), len) }
        })?;
        // SAFETY: handed on to the caller.
        unsafe { self.vfree(old) }?;
        Ok(Some(new))
    }

    /// The frame behind `va`, an address in memory from [`vmalloc`](Self::vmalloc) or
    /// [`vmap`](Self::vmap), in a block too.
    ///
    /// # Errors
    ///
    /// [`VmallocError::NotMapped`], also for guard pages and addresses outside the window.
    pub fn vmalloc_to_page(&self, va: VirtAddr) -> Result<Pfn, VmallocError> {
        self.translate(va).map(PhysAddr::pfn)
    }

    pub(super) fn translate(&self, va: VirtAddr) -> Result<PhysAddr, VmallocError> {
        if !is_vmalloc_addr(va) {
            return Err(VmallocError::NotMapped(va));
        }
        let leaf = self.tables.lock().leaf(va);
        leaf.and_then(|leaf| leaf.translate(va))
            .ok_or(VmallocError::NotMapped(va))
    }

    /// Copies `len` bytes from `from` to `va`, inside an area.
    ///
    /// # Safety
    ///
    /// `from` can be read and the bytes from `va` on are the caller's; they do not overlap.
    pub(in crate::mm) unsafe fn copy_to(
        &self,
        va: VirtAddr,
        from: *const u8,
        len: usize,
    ) -> Result<(), VmallocError> {
        self.for_each_piece(va, len, |offset, to, len| {
            // SAFETY: handed on to the caller.
            unsafe {
                to.as_ptr::<u8>()
                    .copy_from_nonoverlapping(from.add(offset), len);
            }
            Ok(())
        })
    }

    /// Calls `f` with the offset, direct-map address and length of every piece of the `size` bytes
    /// at `va` that lies in one page.
    fn for_each_piece(
        &self,
        va: VirtAddr,
        size: usize,
        mut f: impl FnMut(usize, VirtAddr, usize) -> Result<(), VmallocError>,
    ) -> Result<(), VmallocError> {
        let mut offset = 0;
        while offset < size {
            let at = va + offset;
            let len = (PAGE_SIZE - at.page_offset()).min(size - offset);
            f(offset, layout::phys_to_virt(self.translate(at)?), len)?;
            offset += len;
        }
        Ok(())
    }
}
