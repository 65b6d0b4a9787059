//! Scatter-gather: buffers made of pages that are not contiguous, or several of them at once.
//!
//! A [`ScatterList`] holds the physical runs behind virtual ranges. Pages of one range that happen
//! to be adjacent in physical memory become one run. Maintenance is done through the direct-map
//! address of each run: data caches are physically indexed and tagged, so it covers the vmalloc
//! alias the CPU uses as well.
//!
//! Mapping the list lends each run to the device, and then merges what is adjacent on the device's
//! side, up to the device's [limits](super::SegmentLimits) and within one of its windows; a longer
//! run becomes several segments.
//! So there may be fewer segments than runs, which is what an engine must go by.
//!
//! # What does not compile
//!
//! Touching a buffer of a list that a device owns:
//!
//! ```compile_fail,E0499
//! use hal::dma::{Device, FromDevice, ScatterList, sg::ScatterEntry};
//!
//! fn poke(device: &Device, room: &mut [ScatterEntry], buffer: &mut [u8]) {
//!     let mapping = ScatterList::new(room, buffer).unwrap().map::<FromDevice>(device).unwrap();
//!     buffer.fill(0);
//!     mapping.unmap();
//! }
//! ```
//!
//! Going on with a list that was unmapped:
//!
//! ```compile_fail,E0382
//! use hal::dma::{FromDevice, SgMapping};
//!
//! fn late(mapping: SgMapping<'_, FromDevice>) -> usize {
//!     mapping.unmap();
//!     mapping.segments().count()
//! }
//! ```

use super::debug::{self, Kind};
use super::direction::{DeviceReads, DeviceWrites, Direction};
use super::engine::{Destination, Source};
use super::lease::{Due, Lease};
use super::{Device, DmaError, DmaSegment, MemoryKind};
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::arch::{barrier, translate};
use crate::layout;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

/// One physical run of a scattered buffer: room for a [`ScatterList`] is a slice of these.
///
/// While the list is mapped the same room holds the device's segments, from the first entry on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScatterEntry {
    start: PhysAddr,
    len: usize,
    /// While the list is mapped.
    lease: Option<Lease>,
    /// While the list is mapped: the device's segment with the number of this entry.
    segment: Option<DmaSegment>,
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

/// The physical runs of virtual ranges, in order.
#[derive(Debug)]
pub struct ScatterList<'a> {
    /// The runs, and room for more.
    room: &'a mut [ScatterEntry],
    runs: usize,
    len: usize,
    borrow: PhantomData<&'a mut [u8]>,
}

impl<'a> ScatterList<'a> {
    /// A list of nothing yet, with `room` for runs.
    #[doc(alias = "sg_init_table")]
    pub fn empty(room: &'a mut [ScatterEntry]) -> Self {
        Self {
            room,
            runs: 0,
            len: 0,
            borrow: PhantomData,
        }
    }

    /// Lists the runs of `buffer` into `room`, asking the MMU for each page.
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push).
    pub fn new(room: &'a mut [ScatterEntry], buffer: &'a mut [u8]) -> Result<Self, DmaError> {
        let mut list = Self::empty(room);
        list.push(buffer)?;
        Ok(list)
    }

    /// Adds the runs of `buffer`, asking the MMU for each page. They stay apart from those of
    /// buffers added before. The list is as it was if that fails.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::NotMappable`] for memory outside the direct map and
    /// the vmalloc window, [`DmaError::NoPage`], [`DmaError::TooManySegments`].
    #[doc(alias = "sg_set_buf")]
    pub fn push(&mut self, buffer: &'a mut [u8]) -> Result<(), DmaError> {
        let page_of = |va: VirtAddr| Some(translate::read_el1(va).page()? + va.page_offset());
        // SAFETY: the slice is valid and exclusively borrowed for 'a, and the MMU's translation is
        // what the CPU's own accesses use.
        unsafe { self.push_raw(buffer.as_mut_ptr(), buffer.len(), page_of) }
    }

    /// As [`push`](Self::push), for the `len` bytes at `ptr`. `page_of` returns the physical address
    /// behind a virtual one, as `vmalloc_to_page` does; it is asked once a page.
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push), and [`DmaError::Wraps`].
    ///
    /// # Safety
    ///
    /// If it succeeds, the bytes are valid for reads and writes during `'a`, nobody else accesses
    /// them during `'a`, and `page_of` tells the truth.
    pub unsafe fn push_raw(
        &mut self,
        ptr: *mut u8,
        len: usize,
        page_of: impl Fn(VirtAddr) -> Option<PhysAddr>,
    ) -> Result<(), DmaError> {
        let va = VirtAddr::from_ptr(ptr);
        check_range(va, len)?;
        barrier::hand_over(ptr);
        let capacity = self.room.len();
        let mut used = self.runs;
        let mut done = 0;
        while done < len {
            let at = va + done;
            let piece = (PAGE_SIZE - at.page_offset()).min(len - done);
            let start = page_of(at).ok_or(DmaError::NoPage { addr: at })?;
            match self.room[self.runs..used].last_mut() {
                Some(run) if run.start + run.len == start => run.len += piece,
                _ => {
                    let entry = self
                        .room
                        .get_mut(used)
                        .ok_or(DmaError::TooManySegments { capacity })?;
                    *entry = ScatterEntry {
                        start,
                        len: piece,
                        lease: None,
                        segment: None,
                    };
                    used += 1;
                }
            }
            done += piece;
        }
        self.runs = used;
        self.len += len;
        Ok(())
    }

    /// The runs, in the order of the buffers.
    #[doc(alias = "nents")]
    pub fn entries(&self) -> &[ScatterEntry] {
        &self.room[..self.runs]
    }

    /// Bytes in all runs together.
    pub fn total_len(&self) -> usize {
        self.len
    }

    /// Hands the buffers to `device`, all runs or none.
    ///
    /// Costs one `DC CVAC` a line and one `DSB SY` in all if the device is not coherent. A list
    /// within the device's limits has at most as many segments as runs; one with longer runs needs
    /// room for the pieces.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`] for an empty list, and those of
    /// [`map_single`](super::streaming::map_single) for the first run that cannot be lent.
    /// [`DmaError::TooManySegments`] when the pieces of long runs do not fit.
    #[doc(alias = "dma_map_sg")]
    #[track_caller]
    pub fn map<D: Direction>(self, device: &'a Device) -> Result<SgMapping<'a, D>, DmaError> {
        if self.runs == 0 {
            return Err(DmaError::ZeroLength);
        }
        let mut mapping = SgMapping {
            list: self,
            device,
            direction: PhantomData,
        };
        let ScatterList { room, runs, .. } = &mut mapping.list;
        let mut due = Due::Nothing;
        for entry in &mut room[..*runs] {
            barrier::hand_over(layout::phys_to_virt(entry.start).as_ptr());
            // SAFETY: the list borrows the memory exclusively, and the mapping gives no access to
            // it. What was lent before an error is taken back when the mapping is dropped.
            let lease = unsafe { Lease::begin(device, entry.start, entry.len, D::KIND) }?;
            due = due.max(lease.given());
            let cpu = layout::phys_to_virt(entry.start);
            debug::on_map(device, Kind::Sg, cpu, &lease, D::KIND);
            entry.lease = Some(lease);
        }
        due.issue();
        gather(room, *runs, device)?;
        Ok(mapping)
    }
}

/// Makes segments of the `runs` leases in `room`, merging neighbours, within the limits of `device`
/// and each in one of its windows: two that meet on the bus need not do so in memory.
fn gather(room: &mut [ScatterEntry], runs: usize, device: &Device) -> Result<(), DmaError> {
    let (capacity, limits) = (room.len(), device.limits());
    let mut count = 0_usize;
    for entry in room.iter_mut() {
        entry.segment = None;
    }
    for run in 0..runs {
        let Some(lease) = room[run].lease else { break };
        let DmaSegment { mut addr, mut len } = lease.segment();
        while len != 0 {
            let before = count.checked_sub(1).and_then(|last| room[last].segment);
            let fits = match before {
                Some(last)
                    if last.addr + last.len == addr
                        && device.phys_addr(last.addr, last.len + len).is_some() =>
                {
                    limits.fit(last.addr.get(), last.len + len) - last.len
                }
                _ => 0,
            };
            let taken = match (fits, before) {
                (1.., Some(last)) => {
                    let len = last.len + fits;
                    room[count - 1].segment = Some(DmaSegment { len, ..last });
                    fits
                }
                _ => {
                    let fits = limits.fit(addr.get(), len);
                    let entry = room.get_mut(count);
                    let entry = entry.ok_or(DmaError::TooManySegments { capacity })?;
                    entry.segment = Some(DmaSegment { addr, len: fits });
                    count += 1;
                    fits
                }
            };
            addr = addr + taken;
            len -= taken;
        }
    }
    Ok(())
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
#[must_use = "dropping the mapping takes the buffer back from the device"]
pub struct SgMapping<'a, D: Direction> {
    list: ScatterList<'a>,
    device: &'a Device,
    direction: PhantomData<D>,
}

impl<'a, D: Direction> SgMapping<'a, D> {
    /// Ends the mapping, of all runs however many segments they were. The device must be done with
    /// the buffer.
    #[doc(alias = "dma_unmap_sg")]
    #[track_caller]
    pub fn unmap(self) {
        let mut this = ManuallyDrop::new(self);
        this.take_from_device();
        this.end();
    }

    /// What the device must be given, in order.
    #[doc(alias("for_each_sg", "sg_dma_address", "sg_dma_len"))]
    pub fn segments(&self) -> impl Iterator<Item = DmaSegment> {
        self.list.room.iter().map_while(|entry| entry.segment)
    }

    /// Takes all runs back for a while, keeping the mapping. The device must be done with them.
    #[doc(alias = "dma_sync_sg_for_cpu")]
    #[track_caller]
    pub fn sync_for_cpu(mut self) -> SgCpuOwned<'a, D> {
        self.note_sync(debug::Sync::ForCpu);
        self.take_from_device();
        SgCpuOwned {
            mapping: ManuallyDrop::new(self),
        }
    }

    #[track_caller]
    fn note_sync(&self, to: debug::Sync) {
        if !debug::is_on() {
            return;
        }
        for lease in self.list.entries().iter().filter_map(|entry| entry.lease) {
            debug::on_sync(self.device, lease.segment(), D::KIND, to);
        }
    }

    fn runs(&mut self) -> &mut [ScatterEntry] {
        &mut self.list.room[..self.list.runs]
    }

    fn take_from_device(&mut self) {
        let mut due = Due::Nothing;
        for entry in self.runs() {
            let Some(lease) = entry.lease else { continue };
            let buffer = layout::phys_to_virt(entry.start);
            // SAFETY: the list borrows the memory exclusively and gave the CPU no access, so the
            // CPU stored nothing since the run was given.
            due = due.max(unsafe { lease.take(buffer, lease.whole(), D::KIND) });
            barrier::hand_over(buffer.as_ptr());
        }
        due.issue();
    }

    #[track_caller]
    fn end(&mut self) {
        let device = self.device;
        for entry in self.runs() {
            if let Some(lease) = entry.lease.take() {
                debug::on_unmap(device, Kind::Sg, &lease, D::KIND);
                lease.end();
            }
        }
    }

    fn dma_segment(&self, index: usize) -> Option<DmaSegment> {
        self.list.room.get(index)?.segment
    }
}

impl<D: Direction> Drop for SgMapping<'_, D> {
    fn drop(&mut self) {
        self.take_from_device();
        self.end();
    }
}

impl<D: Direction> fmt::Debug for SgMapping<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SgMapping")
            .field("device", &self.device.name())
            .field("direction", &D::KIND)
            .field("runs", &self.list.entries())
            .finish()
    }
}

// SAFETY: the segments are the memory the list borrows, or slots that are this mapping's.
unsafe impl<D: DeviceReads> Source for SgMapping<'_, D> {
    fn device(&self) -> &Device {
        self.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.dma_segment(index)
    }
}

// SAFETY: the segments are the memory the list borrows exclusively, or slots that are this mapping's.
unsafe impl<D: DeviceWrites> Destination for SgMapping<'_, D> {
    fn device(&self) -> &Device {
        self.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.dma_segment(index)
    }
}

/// A mapped list whose runs are the CPU's for the moment. Dropping it ends the mapping.
#[must_use = "dropping it ends the mapping"]
pub struct SgCpuOwned<'a, D: Direction> {
    mapping: ManuallyDrop<SgMapping<'a, D>>,
}

impl<'a, D: Direction> SgCpuOwned<'a, D> {
    /// The bytes of run number `index`, from 0, where the direct map has them.
    pub fn run(&self, index: usize) -> Option<&[u8]> {
        let run = self.mapping.list.entries().get(index)?;
        let ptr = layout::phys_to_virt(run.start).as_ptr();
        // SAFETY: the list borrows the run's memory, it is the CPU's, and RAM is in the direct map.
        Some(unsafe { core::slice::from_raw_parts(ptr, run.len) })
    }

    /// As [`run`](Self::run), to be written.
    pub fn run_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        let run = self.mapping.list.entries().get(index)?;
        let ptr = layout::phys_to_virt(run.start).as_ptr();
        // SAFETY: as above; the borrow of `self` is exclusive.
        Some(unsafe { core::slice::from_raw_parts_mut(ptr, run.len) })
    }

    /// Gives all runs to the device again.
    #[doc(alias = "dma_sync_sg_for_device")]
    #[track_caller]
    pub fn sync_for_device(self) -> SgMapping<'a, D> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the mapping is taken once.
        let mut mapping = unsafe { ManuallyDrop::take(&mut this.mapping) };
        mapping.note_sync(debug::Sync::ForDevice);
        let mut due = Due::Nothing;
        for entry in mapping.runs() {
            let Some(lease) = entry.lease else { continue };
            let buffer = layout::phys_to_virt(entry.start);
            barrier::hand_over(buffer.as_ptr());
            // SAFETY: the list borrows the memory exclusively, and the CPU gives it up here.
            due = due.max(unsafe { lease.give(buffer, lease.whole()) });
        }
        due.issue();
        mapping
    }
}

impl<D: Direction> Drop for SgCpuOwned<'_, D> {
    fn drop(&mut self) {
        self.mapping.end();
    }
}

impl<D: Direction> fmt::Debug for SgCpuOwned<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SgCpuOwned").field(&*self.mapping).finish()
    }
}

#[cfg(test)]
#[path = "sg/tests.rs"]
mod tests;
