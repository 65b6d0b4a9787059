//! Scatter-gather: a buffer contiguous for the CPU, made of pages that are not contiguous.
//!
//! A [`ScatterList`] holds the physical runs behind a virtual range. Pages that happen to be
//! adjacent in physical memory become one run. Maintenance is done through the direct-map address
//! of each run: data caches are physically indexed and tagged, so it covers the vmalloc alias the
//! CPU uses as well.

use super::direction::{DeviceReads, DeviceWrites, Direction};
use super::engine::{Destination, Source};
use super::lease::Lease;
use super::streaming::complete_if;
use super::{Device, DmaError, DmaSegment, MemoryKind};
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::arch::{barrier, translate};
use crate::layout;
use core::marker::PhantomData;

/// One physical run of a scattered buffer: room for a [`ScatterList`] is a slice of these.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScatterEntry {
    start: PhysAddr,
    len: usize,
    /// While the list is mapped.
    lease: Option<Lease>,
}

impl ScatterEntry {
    /// The physical address of the first byte.
    pub const fn phys(&self) -> PhysAddr {
        self.start
    }

    /// Bytes in the run.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the entry is unused.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The physical runs of a virtual range, in order.
#[derive(Debug)]
pub struct ScatterList<'a> {
    entries: &'a mut [ScatterEntry],
    buffer: *mut u8,
    len: usize,
    borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: the list is a borrowed `&mut [u8]` and a borrowed slice of plain data.
unsafe impl Send for ScatterList<'_> {}
// SAFETY: a shared list gives no access to the bytes.
unsafe impl Sync for ScatterList<'_> {}

impl<'a> ScatterList<'a> {
    /// Lists the runs of `buffer` into `room`, asking the MMU for each page.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::NotMappable`] for memory outside the direct map and
    /// the vmalloc window, [`DmaError::NoPage`], [`DmaError::TooManySegments`].
    pub fn new(room: &'a mut [ScatterEntry], buffer: &'a mut [u8]) -> Result<Self, DmaError> {
        let page_of = |va: VirtAddr| Some(translate::read_el1(va).page()? + va.page_offset());
        // SAFETY: the slice is valid and exclusively borrowed for 'a, and the MMU's translation is
        // what the CPU's own accesses use.
        unsafe { Self::from_raw(room, buffer.as_mut_ptr(), buffer.len(), page_of) }
    }

    /// As [`Self::new`], for the `len` bytes at `ptr`. `page_of` returns the physical address
    /// behind a virtual one, as `vmalloc_to_page` does; it is asked once a page.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`], and [`DmaError::Wraps`].
    ///
    /// # Safety
    ///
    /// If it succeeds, the bytes are valid for reads and writes during `'a`, nobody else accesses
    /// them during `'a`, and `page_of` tells the truth.
    pub unsafe fn from_raw(
        room: &'a mut [ScatterEntry],
        ptr: *mut u8,
        len: usize,
        page_of: impl Fn(VirtAddr) -> Option<PhysAddr>,
    ) -> Result<Self, DmaError> {
        let va = VirtAddr::from_ptr(ptr);
        check_range(va, len)?;
        let capacity = room.len();
        let mut used = 0;
        let mut done = 0;
        while done < len {
            let at = va + done;
            let piece = (PAGE_SIZE - at.page_offset()).min(len - done);
            let start = page_of(at).ok_or(DmaError::NoPage { addr: at })?;
            match room[..used].last_mut() {
                Some(run) if run.start + run.len == start => run.len += piece,
                _ => {
                    let entry = room
                        .get_mut(used)
                        .ok_or(DmaError::TooManySegments { capacity })?;
                    *entry = ScatterEntry {
                        start,
                        len: piece,
                        lease: None,
                    };
                    used += 1;
                }
            }
            done += piece;
        }
        Ok(Self {
            entries: &mut room[..used],
            buffer: ptr,
            len,
            borrow: PhantomData,
        })
    }

    /// The runs, in the order of the buffer.
    pub fn entries(&self) -> &[ScatterEntry] {
        self.entries
    }

    /// Bytes in all runs together.
    pub fn total_len(&self) -> usize {
        self.len
    }

    /// Hands the buffer to `device`, all runs or none.
    ///
    /// Costs one `DC CVAC` a line and one `DSB SY` in all if the device is not coherent.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfReach`] for the first run beyond the device's reach,
    /// [`DmaError::Packed`] and [`DmaError::PartialLine`] as for [`map_single`](streaming::map_single).
    #[doc(alias = "dma_map_sg")]
    pub fn map<D: Direction>(self, device: &'a Device) -> Result<SgMapping<'a, D>, DmaError> {
        barrier::hand_over(self.buffer);
        let mapping = SgMapping {
            list: self,
            device,
            direction: PhantomData,
        };
        let mut maintained = false;
        for entry in mapping.list.entries.iter_mut() {
            // SAFETY: the list borrows the memory exclusively, and the mapping gives no access to
            // it. What was lent before an error is taken back when the mapping is dropped.
            let lease = unsafe { Lease::begin(device, entry.start, entry.len, D::KIND) }?;
            maintained |= lease.is_maintained();
            entry.lease = Some(lease);
        }
        complete_if(maintained);
        Ok(mapping)
    }
}

/// Refuses ranges that are empty, wrap, or touch memory whose frames are not in the direct map.
fn check_range(va: VirtAddr, len: usize) -> Result<(), DmaError> {
    if len == 0 {
        return Err(DmaError::ZeroLength);
    }
    let last = va
        .checked_add(len - 1)
        .ok_or(DmaError::Wraps { addr: va, len })?;
    for addr in [va, last] {
        match MemoryKind::outside_direct_map(addr) {
            None | Some(MemoryKind::Vmalloc) => {}
            Some(kind) => return Err(DmaError::NotMappable { addr, kind }),
        }
    }
    Ok(())
}

/// A scattered buffer that belongs to a device. Dropping it unmaps it.
#[derive(Debug)]
#[must_use = "dropping the mapping takes the buffer back from the device"]
pub struct SgMapping<'a, D: Direction> {
    list: ScatterList<'a>,
    device: &'a Device,
    direction: PhantomData<D>,
}

impl<D: Direction> SgMapping<'_, D> {
    /// Ends the mapping. The device must be done with the buffer.
    #[doc(alias = "dma_unmap_sg")]
    pub fn unmap(self) {
        drop(self);
    }

    fn dma_segment(&self, index: usize) -> Option<DmaSegment> {
        let lease = self.list.entries.get(index)?.lease.as_ref()?;
        Some(lease.segment())
    }
}

impl<D: Direction> Drop for SgMapping<'_, D> {
    fn drop(&mut self) {
        let mut pending = false;
        for entry in self.list.entries.iter_mut() {
            let Some(lease) = entry.lease.take() else {
                continue;
            };
            let buffer = layout::phys_to_virt(entry.start);
            // SAFETY: the list borrows the memory exclusively and gave the CPU no access, so the
            // CPU stored nothing since the run was given.
            pending |= unsafe { lease.take(buffer, lease.whole(), D::KIND) };
            lease.end();
        }
        complete_if(pending);
        barrier::hand_over(self.list.buffer);
    }
}

// SAFETY: the segments are the memory the list borrows.
unsafe impl<D: DeviceReads> Source for SgMapping<'_, D> {
    fn device(&self) -> &Device {
        self.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.dma_segment(index)
    }
}

// SAFETY: the segments are the memory the list borrows exclusively.
unsafe impl<D: DeviceWrites> Destination for SgMapping<'_, D> {
    fn device(&self) -> &Device {
        self.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.dma_segment(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::fake;
    use super::super::{DmaMask, FromDevice, ToDevice};
    use super::*;
    use crate::addr::PhysRange;
    use crate::arch::trace::{Op, record_during};
    use crate::layout::{self, VMALLOC, host};

    const PAGES: [usize; 5] = [3, 4, 0, 6, 7];

    /// A vmalloc area of five pages in three runs of RAM.
    fn lookup(ram: PhysRange) -> impl Fn(VirtAddr) -> Option<PhysAddr> {
        move |va| {
            let offset = va.checked_sub(VMALLOC.base)?;
            let page = PAGES.get(offset / PAGE_SIZE)?;
            Some(ram.start + page * PAGE_SIZE + va.page_offset())
        }
    }

    fn list(
        room: &mut [ScatterEntry],
        offset: usize,
        len: usize,
    ) -> Result<(ScatterList<'_>, PhysAddr), DmaError> {
        let ram = host::ram(8 * PAGE_SIZE as u64, 4096);
        let ptr = (VMALLOC.base + offset).as_ptr();
        // SAFETY: nothing accesses the bytes; the frames behind them are this test's.
        let list = unsafe { ScatterList::from_raw(room, ptr, len, lookup(ram)) }?;
        Ok((list, ram.start))
    }

    fn device(limit: u64) -> &'static Device {
        fake("test", DmaMask::new::<40>(), [0, 0x10_0000_0000, limit])
    }

    #[test]
    fn adjacent_pages_merge() {
        let mut room = [ScatterEntry::default(); 3];
        let (list, ram) = list(&mut room, 0x10, 5 * PAGE_SIZE - 0x20).unwrap();
        let runs: Vec<_> = list.entries().iter().map(|e| (e.phys(), e.len())).collect();
        assert_eq!(
            runs,
            [
                (ram + 3 * PAGE_SIZE + 0x10, 2 * PAGE_SIZE - 0x10),
                (ram, PAGE_SIZE),
                (ram + 6 * PAGE_SIZE, 2 * PAGE_SIZE - 0x10),
            ]
        );
        assert_eq!(
            runs.iter().map(|run| run.1).sum::<usize>(),
            list.total_len()
        );
    }

    #[test]
    fn the_mmu_is_asked_for_a_slice() {
        let ram = host::ram(2 * PAGE_SIZE as u64, 4096);
        let ptr = layout::phys_to_virt(ram.start + 5).as_ptr();
        // SAFETY: the RAM was just handed out to this test alone.
        let buffer = unsafe { core::slice::from_raw_parts_mut(ptr, PAGE_SIZE) };
        let mut room = [ScatterEntry::default(); 1];
        let list = ScatterList::new(&mut room, buffer).unwrap();
        let run = list.entries()[0];
        assert_eq!((run.phys(), run.len()), (ram.start + 5, PAGE_SIZE));
    }

    #[test]
    fn maintenance_goes_through_the_direct_map() {
        let mut room = [ScatterEntry::default(); 3];
        let (list, ram) = list(&mut room, PAGE_SIZE, PAGE_SIZE + 64).unwrap();
        let device = device(1 << 36);
        let (mapping, map) = record_during(|| list.map::<FromDevice>(device).unwrap());
        assert_eq!(map.len(), 64 + 1 + 1);
        assert_eq!(map[0], Op::Clean(layout::phys_to_virt(ram + 4 * PAGE_SIZE)));
        assert_eq!(map[64], Op::Clean(layout::phys_to_virt(ram)));
        assert_eq!(map[65], Op::DsbSy);
        let segment = Destination::segment(&mapping, 1).unwrap();
        assert_eq!(segment.addr.get(), 0x10_0000_0000 + ram.get());
        assert_eq!(segment.len, 64);
        let ((), unmap) = record_during(|| mapping.unmap());
        assert_eq!(unmap[64], Op::Invalidate(layout::phys_to_virt(ram)));
        assert_eq!(unmap.len(), 64 + 1 + 1);
    }

    #[test]
    fn to_device_needs_nothing_at_unmap() {
        let mut room = [ScatterEntry::default(); 3];
        let (list, _) = list(&mut room, 0, 64).unwrap();
        let device = device(1 << 36);
        let mapping = list.map::<ToDevice>(device).unwrap();
        let ((), unmap) = record_during(|| mapping.unmap());
        assert!(unmap.is_empty());
    }

    #[test]
    fn misuse_is_named() {
        let mut room = [ScatterEntry::default(); 2];
        assert_eq!(list(&mut room, 0, 0).unwrap_err(), DmaError::ZeroLength);
        assert_eq!(
            list(&mut room, 0, 5 * PAGE_SIZE).unwrap_err(),
            DmaError::TooManySegments { capacity: 2 }
        );
        let addr = VMALLOC.base + 5 * PAGE_SIZE;
        assert_eq!(
            list(&mut room, 4 * PAGE_SIZE, PAGE_SIZE + 1).unwrap_err(),
            DmaError::NoPage { addr }
        );
        let addr = layout::IMAGE.base;
        // SAFETY: refused, so nothing is promised.
        let refused = unsafe { ScatterList::from_raw(&mut room, addr.as_ptr(), 8, |_| None) };
        assert_eq!(
            refused.unwrap_err(),
            DmaError::NotMappable {
                addr,
                kind: MemoryKind::Image
            }
        );
    }

    #[test]
    fn a_run_out_of_reach_maps_nothing() {
        let mut room = [ScatterEntry::default(); 3];
        let (list, _) = list(&mut room, 0, 5 * PAGE_SIZE).unwrap();
        // The window ends below the host's pretended RAM.
        let device = device(0x4000_0000);
        let (result, ops) = record_during(|| list.map::<ToDevice>(device).map(drop));
        assert!(matches!(result, Err(DmaError::OutOfReach { .. })));
        assert!(ops.is_empty());
    }
}
