//! Copying out of objects.

use super::KmemCache;
use crate::addr::VirtAddr;
use crate::mm::frame::FrameKind;
use crate::mm::page::PageAllocator;
use crate::mm::slab::{ObjectError, frame_of};
use core::sync::atomic::Ordering;

impl KmemCache {
    /// Copies `to.len()` bytes at `offset` out of an object, for a reader outside the kernel.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Usercopy`] when the bytes are not all in the window that
    /// [`with_usercopy`](Self::with_usercopy) opened, others when no object of this cache that is
    /// in use starts at `object`. Nothing is copied then.
    ///
    /// # Safety
    ///
    /// If an object in use starts at `object`, nobody writes it meanwhile.
    pub unsafe fn copy_out(
        &'static self,
        pages: &PageAllocator,
        object: *const u8,
        offset: usize,
        to: &mut [u8],
    ) -> Result<(), ObjectError> {
        let va = VirtAddr::from_ptr(object);
        let (pa, frame) = frame_of(pages.frames(), va)?;
        let tag = self.tag.load(Ordering::Relaxed);
        if frame.kind() != FrameKind::Slab || frame.tag() != tag {
            return Err(ObjectError::NotAtObject(va));
        }
        self.check(va, pa, frame)?;
        let fits = offset >= self.usercopy.start
            && offset
                .checked_add(to.len())
                .is_some_and(|end| end <= self.usercopy.end);
        if !fits {
            let (len, window) = (to.len(), self.usercopy());
            return Err(ObjectError::Usercopy {
                cache: self.name,
                offset,
                len,
                window: (window.start, window.end),
            });
        }
        // SAFETY: the window lies in the object, which nobody writes.
        unsafe {
            to.as_mut_ptr().copy_from(object.add(offset), to.len());
        };
        Ok(())
    }
}
