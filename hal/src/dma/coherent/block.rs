//! Coherent memory of any origin, without a type.

use super::pool::{CoherentPool, Place};
use super::run::{Run, Runs};
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::arch::barrier;
use crate::dma::{Device, DmaSegment, debug};
use crate::mm::{self, Cma, PageAllocator};
use core::ptr::NonNull;

/// Where memory came from, and goes back to.
#[derive(Debug)]
pub(super) enum Origin {
    /// A pool of non-cacheable memory.
    Pool {
        pool: &'static CoherentPool,
        place: Place,
    },
    /// Memory that was made non-cacheable for this allocation.
    Run { runs: &'static Runs, run: Run },
    /// Single pages, for a device that snoops.
    Pages(&'static PageAllocator),
    /// A contiguous memory area as it is, for a device that snoops.
    Area { cma: &'static Cma, pfn: Pfn },
}

/// Memory that belongs to its holder. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Block {
    device: &'static Device,
    cpu: VirtAddr,
    segment: DmaSegment,
    origin: Origin,
}

impl Block {
    /// The memory of `segment`, seen by the CPU at `cpu`, zeroed through that address. The zeros
    /// are ordered before later stores.
    ///
    /// # Safety
    ///
    /// The whole pages at `cpu` are mapped, writable Normal memory, and belong to the caller, who
    /// had them from `origin`.
    #[inline(always)]
    pub(super) unsafe fn zeroed(
        device: &'static Device,
        cpu: VirtAddr,
        segment: DmaSegment,
        origin: Origin,
    ) -> Self {
        // SAFETY: the caller's contract.
        unsafe { mm::zero_pages(cpu, segment.len / PAGE_SIZE) };
        barrier::dmb_oshst();
        Self {
            device,
            cpu,
            segment,
            origin,
        }
    }

    /// Who the memory is for.
    pub(super) const fn device(&self) -> &'static Device {
        self.device
    }

    /// The address the device must be given, and the length, a multiple of the page size.
    #[inline]
    pub(super) const fn segment(&self) -> DmaSegment {
        self.segment
    }

    /// The first byte.
    #[inline]
    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        match NonNull::new(self.cpu.as_ptr()) {
            Some(ptr) => ptr,
            None => unreachable!("no memory is mapped at address 0"),
        }
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        debug::on_free(self.device, self.cpu, self.segment);
        let size = self.segment.len;
        match &self.origin {
            Origin::Pool { pool, place } => pool.free(*place, size),
            Origin::Run { runs, run } => runs.free(*run),
            // A refusal of these two shows in the ledger.
            Origin::Pages(allocator) => {
                // SAFETY: the pages came from there by this size, and belong to `self`.
                let _ = unsafe { allocator.free_pages_exact(self.cpu, size) };
            }
            Origin::Area { cma, pfn } => {
                // SAFETY: the run came from there with this length, and belongs to `self`.
                let _ = unsafe { cma.release(*pfn, (size / PAGE_SIZE) as u32) };
            }
        }
    }
}
