//! One contiguous run of memory lent to a device: what every kind of streaming map is made of.
//!
//! The one place that decides how a device gets at memory: directly, where it reaches it, and
//! refused by name otherwise.

use super::direction::DirectionKind;
use super::{Device, DmaError, DmaSegment, maintenance};
use crate::addr::{PhysAddr, VirtAddr};
use crate::layout;
use crate::mm;

/// The alignment the allocators promise for memory that is safe for DMA, in bytes.
pub const ALIGNMENT: usize = 64;

/// A run of memory lent to a device, and what it takes to have it back.
///
/// Plain data: who holds it keeps the rules of [`begin`](Self::begin). Nothing happens when it is
/// dropped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// Where the CPU finds the memory in the direct map.
    cpu: VirtAddr,
    segment: DmaSegment,
    /// Whether the device does not snoop, as it was when the memory was lent.
    maintained: bool,
}

impl Lease {
    /// Lends the `len` bytes of RAM at `pa`, mapped in the direct map, to `device`. Unless the
    /// device is coherent, each line is cleaned; [`maintenance::complete`] is left to the caller.
    ///
    /// May be called in any context.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::OutOfReach`], [`DmaError::Packed`],
    /// [`DmaError::PartialLine`], in the debug build `Freed`.
    ///
    /// # Safety
    ///
    /// Until the lease ends the bytes stay valid, and nobody but the device accesses them while
    /// they are the device's; a device that reads them may share them with readers.
    #[inline(always)]
    pub(super) unsafe fn begin(
        device: &Device,
        pa: PhysAddr,
        len: usize,
        direction: DirectionKind,
    ) -> Result<Self, DmaError> {
        let cpu = layout::phys_to_virt(pa);
        let addr = device.dma_addr(pa, len)?;
        let maintained = !device.is_coherent();
        #[cfg(feature = "slab-debug")]
        check_in_use(cpu, pa)?;
        if maintained {
            check_packed(cpu, pa)?;
            if direction.device_writes() {
                check_lines(cpu, len, maintenance::writeback_granule())?;
            }
        }
        let lease = Self {
            cpu,
            segment: DmaSegment { addr, len },
            maintained,
        };
        lease.give();
        Ok(lease)
    }

    /// The address and length the device must be given.
    #[inline]
    pub(super) const fn segment(&self) -> DmaSegment {
        self.segment
    }

    /// Whether the memory is maintained when it changes hands, so that a barrier is due.
    #[inline]
    pub(super) const fn is_maintained(&self) -> bool {
        self.maintained
    }

    /// Makes what the CPU stored visible to the device (`dma_sync_single_for_device`). The
    /// completing barrier is left to the caller.
    #[inline(always)]
    pub(super) fn give(&self) {
        if self.maintained {
            maintenance::for_device(self.cpu, self.segment.len);
        }
    }

    /// Makes what the device stored visible to the CPU (`dma_sync_single_for_cpu`). Returns whether
    /// a completing barrier is due.
    ///
    /// # Safety
    ///
    /// The memory is the device's, so that the CPU stored nothing to it since it was given, and the
    /// device is done with it.
    #[inline(always)]
    pub(super) unsafe fn take(&self, direction: DirectionKind) -> bool {
        // SAFETY: the caller's contract.
        self.maintained && unsafe { maintenance::for_cpu(direction, self.cpu, self.segment.len) }
    }
}

/// Refuses memory whose lines belong to several objects. Only its first page is looked up: such an
/// object lies in one page, and a buffer that is one's own does not reach into another's.
#[inline]
fn check_packed(va: VirtAddr, pa: PhysAddr) -> Result<(), DmaError> {
    match mm::packed_cache_at(pa) {
        Some(cache) => Err(DmaError::Packed { addr: va, cache }),
        None => Ok(()),
    }
}

/// Refuses memory of a free object: whoever lends it has given it up.
#[cfg(feature = "slab-debug")]
fn check_in_use(va: VirtAddr, pa: PhysAddr) -> Result<(), DmaError> {
    match mm::freed_object_at(pa) {
        Some(cache) => Err(DmaError::Freed { addr: va, cache }),
        None => Ok(()),
    }
}

/// Refuses a buffer that ends inside a write-back granule which allocations may share.
#[inline]
fn check_lines(va: VirtAddr, len: usize, granule: usize) -> Result<(), DmaError> {
    if granule <= ALIGNMENT || (va.is_aligned(granule) && len.is_multiple_of(granule)) {
        Ok(())
    } else {
        Err(DmaError::PartialLine {
            addr: va,
            len,
            granule,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_granules_want_whole_lines() {
        let va = VirtAddr::new(0x1_0000);
        assert_eq!(check_lines(va + 1, 3, 64), Ok(()));
        assert_eq!(check_lines(va, 256, 256), Ok(()));
        for (va, len) in [(va + 64, 256), (va, 255)] {
            assert_eq!(
                check_lines(va, len, 256),
                Err(DmaError::PartialLine {
                    addr: va,
                    len,
                    granule: 256
                })
            );
        }
    }
}
