//! Objects that are charged to owners.
//!
//! The number of each object's owner is a byte at the end of its slab, counted from the last byte
//! down. No object reaches there: see [`Geometry::new`](super::Geometry::new). The byte belongs to
//! whom the object belongs to; that of a free object says nothing.

use super::Cache;
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::layout;
use crate::mm::frame::Frame;
use crate::mm::owner::{MAX_OWNERS, Owner};
use crate::mm::page::PageAllocator;
use crate::mm::{AllocError, Gfp};
use core::ptr::NonNull;

/// The number of an object that is charged to nobody.
const NOBODY: u8 = 0;

const _: () = assert!(MAX_OWNERS < u8::MAX as usize);

impl Cache<'_> {
    /// Allocates an object that is charged to the task's owner, if it has one.
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub(super) fn alloc_charged(
        &self,
        pages: &PageAllocator,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let owner = Owner::current();
        if let Some(owner) = owner {
            owner.charge(self.object_size(), gfp)?;
        }
        let object = self.alloc_object(pages, gfp).inspect_err(|_| {
            if let Some(owner) = owner {
                owner.uncharge(self.object_size());
            }
        })?;
        let pa = PhysAddr::new(
            layout::distance_into_direct_map(VirtAddr::from_ptr(object.as_ptr())) as u64,
        );
        if let Some(frame) = pages.frames().lookup().find(pa.pfn()) {
            let number = owner.map_or(NOBODY, Owner::given_number);
            // SAFETY: the byte is in the object's slab, beyond all objects, and this object's.
            unsafe { self.owner_of(pa, frame).write(number) };
        }
        Ok(object)
    }

    /// Takes the charge of the object at `pa`, in `frame`, back: the object is in use, and the
    /// caller's to free.
    pub(super) fn uncharge(&self, pa: PhysAddr, frame: &Frame) {
        // SAFETY: as in `alloc_charged`, which wrote it.
        let number = unsafe { self.owner_of(pa, frame).replace(NOBODY) };
        if let Some(owner) = Owner::with_number(number.into()) {
            owner.uncharge(self.object_size());
        }
    }

    /// Where the number of the owner of the object at `pa`, in `frame`, is.
    fn owner_of(&self, pa: PhysAddr, frame: &Frame) -> *mut u8 {
        let bytes = PAGE_SIZE << frame.slab_order();
        let slab = pa.align_down(bytes);
        let object = (pa.get() - slab.get()) as usize / self.object_size();
        let end = layout::phys_to_virt(slab) + bytes;
        let at: *mut u8 = end.as_ptr();
        at.wrapping_sub(1 + object)
    }
}
