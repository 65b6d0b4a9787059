//! Memory mapped by the calls of C drivers, rightly and wrongly.
//!
//! A call here may be wrong about the mapping in every way but one: what it maintains lies in memory
//! of the caller's own whose bytes nobody looks at, for a device that no hardware is. So the worst
//! that a wrong call can do is to lose these bytes.

use crate::memory::Object;
use core::ops::Range;
use hal::addr::{DmaAddr, VirtAddr};
use hal::dma::Device;
use hal::dma::debug::Kind;
use hal::dma::direction::DirectionKind;
use hal::dma::raw::{self, DMA_MAPPING_ERROR, Scatter};
use hal::layout;
use hal::mm::{AllocError, Gfp};
use hal::sync::IrqLock;

/// Most entries in a list.
const MAX_ENTRIES: usize = 4;

/// Memory for one device, which nobody is: bytes that are lent and never looked at.
#[derive(Debug)]
pub(crate) struct Lent {
    device: &'static Device,
    memory: Object,
    /// Where the device sees slots that some of the memory is bounced through.
    slots: IrqLock<heapless::Vec<DmaAddr, MAX_ENTRIES>>,
}

impl Lent {
    /// `len` bytes for `device`, which must be one that no engine is.
    pub(crate) fn new(device: &'static Device, len: usize) -> Result<Self, AllocError> {
        let memory = Object::zeroed(len, Gfp::KERNEL)?;
        let slots = IrqLock::new(heapless::Vec::new());
        Ok(Self {
            device,
            memory,
            slots,
        })
    }

    /// The address at which the device sees byte `offset`, mapped or not.
    pub(crate) fn addr(&self, offset: usize) -> DmaAddr {
        let pa = layout::virt_to_phys(self.memory.va() + offset);
        pa.and_then(|pa| self.device.dma_addr(pa, 1).ok())
            .unwrap_or(DMA_MAPPING_ERROR)
    }

    /// Whether the `len` bytes at `addr` are this memory's or what it is bounced through, or the device
    /// sees none there.
    fn is_own(&self, addr: DmaAddr, len: usize) -> bool {
        if self.slots.lock().contains(&addr) {
            return true;
        }
        let Some(pa) = self.device.phys_addr(addr, len) else {
            return true;
        };
        let start = layout::phys_to_virt(pa).checked_sub(self.memory.va());
        start.is_some_and(|start| start <= self.memory.len() && len <= self.memory.len() - start)
    }

    /// `dma_map_single` or `dma_map_page`.
    #[track_caller]
    pub(crate) fn map(&self, kind: Kind, range: Range<usize>, direction: DirectionKind) -> DmaAddr {
        let len = range.len();
        if range.end > self.memory.len() {
            return DMA_MAPPING_ERROR;
        }
        let va = self.memory.va() + range.start;
        let frame = layout::virt_to_phys(va).unwrap_or_default().pfn();
        // SAFETY: the bytes are this memory's, which nobody accesses, and no device is told.
        let addr = unsafe {
            match kind {
                Kind::Page => {
                    raw::dma_map_page(self.device, frame, va.page_offset(), len, direction)
                }
                _ => raw::dma_map_single(self.device, va.as_ptr(), len, direction),
            }
        };
        if !self.is_own(addr, len) {
            // Of those beyond its room none is unmapped, which the ledger finds.
            let _ = self.slots.lock().push(addr);
        }
        addr
    }

    /// `dma_mapping_error`.
    pub(crate) fn failed(&self, addr: DmaAddr) -> bool {
        raw::dma_mapping_error(self.device, addr)
    }

    /// `dma_map_single` or `dma_map_page`, and `dma_mapping_error`.
    #[track_caller]
    pub(crate) fn map_checked(
        &self,
        kind: Kind,
        range: Range<usize>,
        direction: DirectionKind,
    ) -> DmaAddr {
        let addr = self.map(kind, range, direction);
        // A failure shows as the address that the test compares.
        let _ = self.failed(addr);
        addr
    }

    /// `dma_unmap_single`, `dma_unmap_page` or `dma_unmap_resource`.
    #[track_caller]
    pub(crate) fn unmap(&self, kind: Kind, addr: DmaAddr, len: usize, direction: DirectionKind) {
        if !self.is_own(addr, len) {
            return;
        }
        self.slots.lock().retain(|slots| *slots != addr);
        // SAFETY: whatever is maintained is this memory's, whose bytes nobody looks at.
        unsafe {
            match kind {
                Kind::Page => raw::dma_unmap_page(self.device, addr, len, direction),
                Kind::Resource => raw::dma_unmap_resource(self.device, addr, len, direction),
                _ => raw::dma_unmap_single(self.device, addr, len, direction),
            }
        }
    }

    /// `dma_sync_single_for_cpu`.
    #[track_caller]
    pub(crate) fn sync_for_cpu(&self, addr: DmaAddr, len: usize, direction: DirectionKind) {
        if self.is_own(addr, len) {
            // SAFETY: as for `unmap`.
            unsafe { raw::dma_sync_single_for_cpu(self.device, addr, len, direction) };
        }
    }

    /// `dma_sync_single_for_device`.
    #[track_caller]
    pub(crate) fn sync_for_device(&self, addr: DmaAddr, len: usize, direction: DirectionKind) {
        if self.is_own(addr, len) {
            // SAFETY: as for `unmap`.
            unsafe { raw::dma_sync_single_for_device(self.device, addr, len, direction) };
        }
    }

    /// `dma_sync_single_range_for_cpu`, of `range` of the mapping at `addr`.
    #[track_caller]
    pub(crate) fn sync_range(&self, addr: DmaAddr, range: Range<usize>, direction: DirectionKind) {
        let (offset, len) = (range.start, range.len());
        if addr
            .checked_add(offset)
            .is_some_and(|at| self.is_own(at, len))
        {
            // SAFETY: as for `unmap`.
            unsafe {
                raw::dma_sync_single_range_for_cpu(self.device, addr, offset, len, direction);
            }
        }
    }

    /// A list of `ranges` of the memory, not mapped.
    pub(crate) fn list<const N: usize>(&self, ranges: [Range<usize>; N]) -> List<'_> {
        let inside = ranges
            .into_iter()
            .filter(|range| range.end <= self.memory.len());
        let entry = |range: Range<usize>| {
            let pa = layout::virt_to_phys(self.memory.va() + range.start);
            Scatter::new(pa.unwrap_or_default(), range.len())
        };
        List {
            lent: self,
            entries: inside.map(entry).take(MAX_ENTRIES).collect(),
        }
    }
}

/// Runs of one memory.
#[derive(Debug)]
pub(crate) struct List<'a> {
    lent: &'a Lent,
    entries: heapless::Vec<Scatter, MAX_ENTRIES>,
}

impl List<'_> {
    /// The address of entry `index`, once the list is mapped.
    pub(crate) fn addr(&self, index: usize) -> DmaAddr {
        let entry = self.entries.get(index);
        entry.map_or(DMA_MAPPING_ERROR, Scatter::dma_address)
    }

    /// `dma_map_sg`.
    #[track_caller]
    pub(crate) fn map(&mut self, direction: DirectionKind) -> usize {
        // SAFETY: the list is of this memory, which nobody accesses, and no device is told.
        unsafe { raw::dma_map_sg(self.lent.device, &mut self.entries, direction) }
    }

    /// `dma_unmap_sg` of some entries.
    #[track_caller]
    pub(crate) fn unmap(&mut self, entries: Range<usize>, direction: DirectionKind) {
        if let Some(entries) = self.entries.get_mut(entries) {
            // SAFETY: as for `Lent::unmap`, for each entry.
            unsafe { raw::dma_unmap_sg(self.lent.device, entries, direction) };
        }
    }

    /// `dma_sync_sg_for_cpu` of some entries.
    #[track_caller]
    pub(crate) fn sync(&self, entries: Range<usize>, direction: DirectionKind) {
        if let Some(entries) = self.entries.get(entries) {
            // SAFETY: as for `Lent::unmap`, for each entry.
            unsafe { raw::dma_sync_sg_for_cpu(self.lent.device, entries, direction) };
        }
    }
}

/// Coherent memory of one device, which nobody is: bytes that are never looked at.
#[derive(Debug)]
pub(crate) struct LentCoherent {
    device: &'static Device,
    cpu: VirtAddr,
    addr: DmaAddr,
}

impl LentCoherent {
    /// `dma_alloc_coherent` of `size` bytes for `device`, which must be one that no engine is.
    #[track_caller]
    pub(crate) fn alloc(device: &'static Device, size: usize) -> Result<Self, AllocError> {
        let (mut addr, gfp) = (DMA_MAPPING_ERROR, Gfp::KERNEL);
        let cpu = raw::dma_alloc_coherent(device, size, &mut addr, gfp);
        if cpu.is_null() || addr == DMA_MAPPING_ERROR {
            // Null is all that the call says.
            return Err(AllocError::NoMemory { order: 0, gfp });
        }
        let cpu = VirtAddr::from_ptr(cpu);
        Ok(Self { device, cpu, addr })
    }

    /// The address at which the device sees it.
    pub(crate) fn addr(&self) -> DmaAddr {
        self.addr
    }

    /// `dma_free_coherent` of `size` bytes `offset` bytes into the memory, as the CPU sees it.
    #[track_caller]
    pub(crate) fn free(&self, size: usize, offset: usize) {
        let cpu = self.cpu + offset;
        // SAFETY: nobody accesses the memory. A wrong call frees all of it, or nothing if it was
        // freed, so no memory of anybody else's.
        unsafe { raw::dma_free_coherent(self.device, size, cpu.as_ptr(), self.addr) };
    }
}

/// `dma_map_single` of memory outside the direct map, which must be refused; `None` for other memory.
#[track_caller]
pub(crate) fn map_outside(device: &Device, va: VirtAddr, len: usize) -> Option<DmaAddr> {
    if layout::virt_to_phys(va).is_some() {
        return None;
    }
    // SAFETY: an address outside the direct map is refused and carries no obligation.
    Some(unsafe { raw::dma_map_single(device, va.as_ptr(), len, DirectionKind::ToDevice) })
}
