//! Pages the caller has, mapped one after the other.

use super::{AreaKind, PageSource, State, Vmalloc, VmallocError, require_task};
use crate::addr::{PAGE_SIZE, Pfn, PhysRange, VirtAddr};
use crate::mm::Gfp;
use crate::mmu::{Access, Attributes, Level, MapError, MemoryType, Stale};
use crate::trace::trace;

/// How [`Vmalloc::vmap`] maps pages. Never executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Normal write-back, readable and writable. Linux: `PAGE_KERNEL`.
    ReadWrite,
    /// Normal write-back, readable. Linux: `PAGE_KERNEL_RO`.
    ReadOnly,
    /// Normal non-cacheable, readable and writable, for frames that are of this type already.
    /// Linux: `pgprot_writecombine(PAGE_KERNEL)`.
    NonCacheable,
}

impl Protection {
    const fn attributes(self) -> Attributes {
        match self {
            Self::ReadWrite => Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite),
            Self::ReadOnly => Attributes::new(MemoryType::NormalWriteBack, Access::ReadOnly),
            Self::NonCacheable => {
                Attributes::new(MemoryType::NormalNonCacheable, Access::ReadWrite)
            }
        }
    }
}

impl<P: PageSource> Vmalloc<P> {
    /// Maps `pages`, in this order, to contiguous addresses followed by a guard page. Linux:
    /// `vmap`.
    ///
    /// The pages stay the caller's. A task.
    ///
    /// # Errors
    ///
    /// See [`VmallocError`]; [`VmallocError::MemoryType`] names the first page whose memory type is
    /// not that of `protection`, or that is no page. Nothing stays mapped.
    ///
    /// # Safety
    ///
    /// Until [`vunmap`](Self::vunmap) has returned the pages are not freed and keep their memory
    /// type. Through which of their addresses they are accessed is the caller's business.
    pub unsafe fn vmap(
        &self,
        pages: &[Pfn],
        protection: Protection,
    ) -> Result<VirtAddr, VmallocError> {
        require_task(Gfp::KERNEL)?;
        // Pages may be listed more than once, but hardly more of them than there are.
        let size = self.check_size(pages.len().saturating_mul(PAGE_SIZE))?;
        let attributes = protection.attributes();
        for pfn in pages {
            self.pages.check_memory_type(*pfn, attributes.memory_type)?;
        }
        let va = self.reserve(size, AreaKind::Vmap, Gfp::KERNEL)?;
        let mut mapped = 0;
        for run in pages.chunk_by(|pfn, next| *pfn + 1 == *next) {
            let Some(first) = run.first() else { continue };
            let start = first.phys();
            let frames = PhysRange::new(start, start + run.len() * PAGE_SIZE);
            // SAFETY: the frames have the memory type, as just checked, and keep it by the caller's
            // promise; nothing here is executable, and frames of the image have no descriptor.
            let result = unsafe {
                self.tables
                    .lock()
                    .map_untraced(va + mapped, frames, attributes, Level::L2)
            };
            if let Err(error) = result {
                // SAFETY: the addresses were not given out.
                unsafe { self.unmap_now(va, mapped) }?;
                return Err(error.into());
            }
            mapped += frames.size() as usize;
        }
        // With no lock held: a trace frame may wait for the console.
        trace!(
            "vmap {=u64:x}, {=u64:x} bytes",
            va.get() as u64,
            size as u64
        );
        Ok(va)
    }

    /// Removes a mapping of [`vmap`](Self::vmap). Linux: `vunmap`.
    ///
    /// On return no core uses it: the frames are not ours to hold until a later flush, and their
    /// owner may change their type. A task.
    ///
    /// # Errors
    ///
    /// [`VmallocError::Context`], [`VmallocError::NotAnArea`] and [`VmallocError::WrongKind`]: a
    /// wrong or second call changes nothing.
    ///
    /// # Safety
    ///
    /// Nothing refers to memory through the mapping any more.
    pub unsafe fn vunmap(&self, va: VirtAddr) -> Result<(), VmallocError> {
        require_task(Gfp::KERNEL)?;
        let (_, size) = self
            .areas
            .lock()
            .give_up(va, AreaKind::Vmap, State::Freed)?;
        // SAFETY: the area was live until now, so it is mapped whole, and the caller is done.
        unsafe { self.unmap_now(va, size) }
    }

    /// Unmaps the first `size` bytes of the area at `va`, all that is mapped there, flushes them
    /// and frees the addresses.
    ///
    /// # Safety
    ///
    /// Nothing refers to memory through the mapping any more.
    unsafe fn unmap_now(&self, va: VirtAddr, size: usize) -> Result<(), VmallocError> {
        if size > 0 {
            let mut stale = Stale::empty(va);
            // SAFETY: the caller's promise.
            let retired: Result<(), MapError> =
                unsafe { self.tables.lock().retire(&mut stale, size) };
            retired?;
            stale.flush();
        }
        self.areas.lock().va.free(va)?;
        Ok(())
    }
}
