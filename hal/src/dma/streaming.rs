//! Streaming maps: a buffer of ordinary memory lent to a device for a while.
//!
//! ```text
//!   &mut [u8] --map--> Mapping (device's) --sync_for_cpu--> CpuOwned --sync_for_device--> Mapping
//!                         '--unmap / drop--> &mut [u8]         '--drop--> &mut [u8]
//! ```
//!
//! The buffer must be contiguous for the device, so it comes from the direct map (kmalloc, pages).
//! vmalloc memory goes through [`sg`](super::sg); text, statics and stacks, coherent memory and
//! device registers are refused by name, and so is memory of the direct map that nobody was given.
//! A buffer that a device writes should start and end on cache lines: one that shares a line with
//! its neighbours is copied, see [`bounce`](super::bounce), unless the device is coherent.
//!
//! # What does not compile
//!
//! Writing a buffer the device owns:
//!
//! ```compile_fail,E0499
//! use hal::dma::{Device, FromDevice, streaming::map_slice};
//!
//! fn poke(device: &Device, buffer: &mut [u8]) {
//!     let mapping = map_slice::<FromDevice>(device, buffer).unwrap();
//!     buffer.fill(0);
//!     mapping.unmap();
//! }
//! ```
//!
//! Reading it:
//!
//! ```compile_fail,E0502
//! use hal::dma::{Device, ToDevice, streaming::map_slice};
//!
//! fn peek(device: &Device, buffer: &mut [u8]) -> u8 {
//!     let mapping = map_slice::<ToDevice>(device, buffer).unwrap();
//!     let first = buffer[0];
//!     mapping.unmap();
//!     first
//! }
//! ```
//!
//! Reading it through the mapping, which only [`CpuOwned`] allows:
//!
//! ```compile_fail,E0608
//! use hal::dma::{FromDevice, Mapping};
//!
//! fn peek(mapping: Mapping<'_, FromDevice>) -> u8 {
//!     mapping[0]
//! }
//! ```
//!
//! Freeing it:
//!
//! ```compile_fail,E0505
//! use hal::dma::{Device, FromDevice, streaming::map_slice};
//!
//! fn free(device: &Device, mut buffer: Box<[u8]>) {
//!     let mapping = map_slice::<FromDevice>(device, &mut buffer).unwrap();
//!     drop(buffer);
//!     mapping.unmap();
//! }
//! ```
//!
//! Handing it over again:
//!
//! ```compile_fail,E0499
//! use hal::dma::{Device, FromDevice, streaming::map_slice};
//!
//! fn again(device: &Device, buffer: &mut [u8]) {
//!     let first = map_slice::<FromDevice>(device, buffer).unwrap();
//!     let second = map_slice::<FromDevice>(device, buffer).unwrap();
//!     first.unmap();
//!     second.unmap();
//! }
//! ```
//!
//! Giving a device what it owns, or going on with what was given back:
//!
//! ```compile_fail,E0599
//! use hal::dma::{FromDevice, Mapping};
//!
//! fn give(mapping: Mapping<'_, FromDevice>) {
//!     mapping.sync_for_device();
//! }
//! ```
//!
//! ```compile_fail,E0382
//! use hal::dma::{CpuOwned, FromDevice};
//!
//! fn keep(mut cpu: CpuOwned<'_, FromDevice>) {
//!     let mapping = cpu.sync_for_device();
//!     cpu[0] = 1;
//!     mapping.unmap();
//! }
//! ```
//!
//! Letting the device go on with a part that the CPU has:
//!
//! ```compile_fail,E0502
//! use hal::dma::{Bidirectional, Mapping, engine::Source};
//!
//! fn both(mut mapping: Mapping<'_, Bidirectional>) {
//!     let part = mapping.sync_part_for_cpu(0..64).unwrap();
//!     let segment = mapping.segment(0);
//!     drop(part);
//! }
//! ```
//!
//! Unmapping twice:
//!
//! ```compile_fail,E0382
//! use hal::dma::{FromDevice, Mapping};
//!
//! fn twice(mapping: Mapping<'_, FromDevice>) {
//!     mapping.unmap();
//!     mapping.unmap();
//! }
//! ```
//!
//! Using the device's address of what is no longer mapped:
//!
//! ```compile_fail,E0382
//! use hal::addr::DmaAddr;
//! use hal::dma::{FromDevice, Mapping};
//!
//! fn late(mapping: Mapping<'_, FromDevice>) -> DmaAddr {
//!     mapping.unmap();
//!     mapping.dma_addr()
//! }
//! ```
//!
//! Letting a device write a buffer that was mapped for reading:
//!
//! ```compile_fail,E0277
//! use hal::dma::{DmaEngine, DmaError, Mapping, ToDevice, engine::copy};
//!
//! fn backwards(engine: &dyn DmaEngine, a: &Mapping<'_, ToDevice>, b: &mut Mapping<'_, ToDevice>)
//! -> Result<(), DmaError> {
//!     copy(engine, a, b)
//! }
//! ```

use super::debug::{self, Kind};
use super::direction::{DeviceReads, DeviceWrites, Direction, ToDevice};
use super::engine::{Destination, Source};
use super::lease::{Lease, Part};
use super::{Device, DmaError, DmaSegment};
use crate::addr::{DmaAddr, Pfn, VirtAddr};
use crate::arch::barrier;
use crate::layout;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Range;

mod owned;
mod part;

pub use owned::CpuOwned;
pub use part::CpuPart;

/// A buffer that belongs to a device. Dropping it unmaps it.
#[must_use = "dropping the mapping takes the buffer back from the device"]
pub struct Mapping<'a, D: Direction> {
    device: &'a Device,
    ptr: *mut u8,
    lease: Lease,
    /// What a [`CpuPart`] has, or had when it was forgotten: the CPU may have stored to it.
    part_of_cpu: Option<Part>,
    buffer: PhantomData<(&'a mut [u8], D)>,
}

// SAFETY: a mapping is a borrowed `&mut [u8]` and a shared `Device`; both may cross threads.
unsafe impl<D: Direction> Send for Mapping<'_, D> {}
// SAFETY: a shared mapping gives no access to the bytes.
unsafe impl<D: Direction> Sync for Mapping<'_, D> {}

/// Hands the `len` bytes at `ptr` to `device`.
///
/// Costs one `DC CVAC` a line and one `DSB SY` if the device is not coherent, one `DMB OSHST`
/// otherwise; a copy too if the buffer is [bounced](super::bounce). May be called in any context.
///
/// The `Result` is what `dma_mapping_error` asks in C: there is no address without a mapping.
///
/// # Errors
///
/// [`DmaError::ZeroLength`], [`DmaError::Wraps`], [`DmaError::NotMappable`] by kind of memory,
/// [`DmaError::Unowned`] for memory that nobody was given, and [`DmaError::Packed`] unless the
/// device is coherent, which needs no line for itself. [`DmaError::OutOfReach`], and
/// [`DmaError::PartialLine`] where a device that is not coherent would write a part of a cache line,
/// if the buffer cannot be bounced; [`DmaError::BounceExhausted`] if it could.
///
/// # Safety
///
/// If the `len` bytes at `ptr` lie in the direct map, they are valid for reads and writes during
/// `'a` and nobody else accesses them during `'a`. An address outside the direct map is refused
/// and carries no obligation.
#[doc(alias("dma_map_single", "dma_mapping_error"))]
#[inline(always)]
#[track_caller]
pub unsafe fn map_single<'a, D: Direction>(
    device: &'a Device,
    ptr: *mut u8,
    len: usize,
) -> Result<Mapping<'a, D>, DmaError> {
    let pa = Device::direct_map_range(VirtAddr::from_ptr(ptr), len)?;
    barrier::hand_over(ptr);
    // SAFETY: the memory lies in the direct map, so the caller promises that it is valid and left
    // alone during 'a; the mapping gives no access to it while it is the device's.
    let lease = unsafe { Lease::begin(device, pa, len, D::KIND) }?;
    lease.given().issue();
    debug::on_map(
        device,
        Kind::Single,
        VirtAddr::from_ptr(ptr),
        &lease,
        D::KIND,
    );
    Ok(Mapping {
        device,
        ptr,
        lease,
        part_of_cpu: None,
        buffer: PhantomData,
    })
}

/// Hands the `len` bytes at `offset` of the block of pages at `page` to `device`: [`map_single`] for
/// owners of pages, which may name a later page of their block by a larger offset.
///
/// # Errors
///
/// As for [`map_single`].
///
/// # Safety
///
/// As for [`map_single`].
#[doc(alias = "dma_map_page")]
#[track_caller]
pub unsafe fn map_page<'a, D: Direction>(
    device: &'a Device,
    page: Pfn,
    offset: usize,
    len: usize,
) -> Result<Mapping<'a, D>, DmaError> {
    let start = layout::phys_to_virt(page.phys());
    let va = start
        .checked_add(offset)
        .ok_or(DmaError::Wraps { addr: start, len })?;
    // SAFETY: handed on to the caller.
    unsafe { map_single(device, va.as_ptr(), len) }
}

/// Hands a slice to `device`: [`map_single`] for memory whose ownership the borrow proves.
///
/// # Errors
///
/// As for [`map_single`].
#[inline(always)]
#[track_caller]
pub fn map_slice<'a, D: Direction>(
    device: &'a Device,
    buffer: &'a mut [u8],
) -> Result<Mapping<'a, D>, DmaError> {
    // SAFETY: the slice is valid and exclusively borrowed for 'a.
    unsafe { map_single(device, buffer.as_mut_ptr(), buffer.len()) }
}

/// Lets `device` read a slice that the CPU may go on reading.
///
/// # Errors
///
/// As for [`map_single`].
#[inline]
#[track_caller]
pub fn map_shared<'a>(device: &'a Device, buffer: &'a [u8]) -> Result<SharedMapping<'a>, DmaError> {
    // SAFETY: the slice is valid for reads during 'a. A `ToDevice` mapping is not written through
    // as long as it is not synchronised for the CPU, which `SharedMapping` does not offer.
    unsafe { map_single(device, buffer.as_ptr().cast_mut(), buffer.len()) }.map(SharedMapping)
}

impl<'a, D: Direction> Mapping<'a, D> {
    /// The address the device must be given.
    #[inline]
    pub fn dma_addr(&self) -> DmaAddr {
        self.dma_segment().addr
    }

    /// The address and length the device must be given.
    #[inline]
    pub fn dma_segment(&self) -> DmaSegment {
        self.lease.segment()
    }

    /// Whether the device works on a [copy](super::bounce) of the buffer.
    pub fn is_bounced(&self) -> bool {
        self.lease.is_bounced()
    }

    /// Ends the mapping: the borrowed buffer is the CPU's again and, unless
    /// the direction is [`ToDevice`], holds what the device wrote.
    ///
    /// The device must be done with the buffer.
    #[doc(alias = "dma_unmap_single")]
    #[inline(always)]
    #[track_caller]
    pub fn unmap(self) {
        ManuallyDrop::new(self).finish();
    }

    /// Takes the buffer back for a while, keeping the mapping.
    ///
    /// The device must be done with the buffer.
    #[doc(alias = "dma_sync_single_for_cpu")]
    #[track_caller]
    pub fn sync_for_cpu(mut self) -> CpuOwned<'a, D> {
        self.give_back_part();
        self.note_sync(self.lease.whole(), debug::Sync::ForCpu);
        self.take_from_device(self.lease.whole());
        CpuOwned::new(self)
    }

    /// Takes the bytes in `range` back for as long as the result lives; the rest stays the device's.
    ///
    /// The device must be done with these bytes, not with the others. A result that is forgotten
    /// ([`core::mem::forget`]) leaves them with the CPU until the next call that takes bytes back,
    /// the end of the mapping among them: what the CPU stored to them is kept. Until then no engine is
    /// given the mapping ([`DmaError::PartOfCpu`]), for what it writes could be overwritten.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::OutOfBounds`], and [`DmaError::PartialLine`] where the
    /// device writes and is not coherent, and the range cuts a cache line of the buffer.
    #[doc(alias("dma_sync_single_range_for_cpu", "dma_sync_single_range_for_device"))]
    #[track_caller]
    pub fn sync_part_for_cpu(
        &mut self,
        range: Range<usize>,
    ) -> Result<CpuPart<'_, 'a, D>, DmaError> {
        let part = self.lease.part(range, D::KIND)?;
        self.give_back_part();
        self.note_sync(part, debug::Sync::ForCpu);
        self.take_from_device(part);
        self.part_of_cpu = Some(part);
        Ok(CpuPart {
            mapping: self,
            part,
        })
    }

    /// Takes the buffer back for good; to be called once, and nothing after it.
    #[inline(always)]
    #[track_caller]
    fn finish(&mut self) {
        self.give_back_part();
        debug::on_unmap(self.device, Kind::Single, &self.lease, D::KIND);
        self.take_from_device(self.lease.whole());
        self.lease.end();
    }

    #[inline(always)]
    #[track_caller]
    fn note_sync(&self, Part { offset, len }: Part, to: debug::Sync) {
        let addr = self.dma_addr() + offset;
        debug::on_sync(self.device, DmaSegment { addr, len }, D::KIND, to);
    }

    #[track_caller]
    fn give_to_device(&self, part: Part) {
        self.note_sync(part, debug::Sync::ForDevice);
        barrier::hand_over(self.ptr);
        // SAFETY: the mapping borrows the buffer exclusively, and whoever had it as the CPU's gave
        // it up.
        unsafe { self.lease.give(VirtAddr::from_ptr(self.ptr), part) }.issue();
    }

    /// Gives the part that the CPU has to the device again, if there is one. What the CPU stored
    /// would be lost otherwise when its lines are invalidated.
    #[inline(always)]
    #[track_caller]
    fn give_back_part(&mut self) {
        if let Some(part) = self.part_of_cpu.take() {
            self.give_to_device(part);
        }
    }

    /// Refuses to let a device loose on a mapping of which the CPU has a part: cleaning the CPU's
    /// lines would undo what the device wrote.
    fn check_whole(&self) -> Result<(), DmaError> {
        match self.part_of_cpu {
            None => Ok(()),
            Some(Part { offset, len }) => Err(DmaError::PartOfCpu {
                addr: self.dma_addr() + offset,
                len,
            }),
        }
    }

    fn segment_of_device(&self, index: usize) -> Option<DmaSegment> {
        (index == 0 && self.part_of_cpu.is_none()).then_some(self.dma_segment())
    }

    #[inline(always)]
    fn take_from_device(&self, part: Part) {
        // SAFETY: the mapping borrows the buffer exclusively and gave the CPU no access, so the CPU
        // stored nothing since the buffer was given. That the device is done is the caller's part.
        unsafe { self.lease.take(VirtAddr::from_ptr(self.ptr), part, D::KIND) }.issue();
        barrier::hand_over(self.ptr);
    }
}

impl<D: Direction> Drop for Mapping<'_, D> {
    #[inline(always)]
    fn drop(&mut self) {
        self.finish();
    }
}

impl<D: Direction> fmt::Debug for Mapping<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("device", &self.device.name())
            .field("direction", &D::KIND)
            .field("segment", &self.dma_segment())
            .finish()
    }
}

// SAFETY: the segment is the memory the mapping borrows.
unsafe impl<D: DeviceReads> Source for Mapping<'_, D> {
    fn device(&self) -> &Device {
        self.device
    }

    fn check_lent(&self) -> Result<(), DmaError> {
        self.check_whole()
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.segment_of_device(index)
    }
}

// SAFETY: the segment is the memory the mapping borrows exclusively.
unsafe impl<D: DeviceWrites> Destination for Mapping<'_, D> {
    fn device(&self) -> &Device {
        self.device
    }

    fn check_lent(&self) -> Result<(), DmaError> {
        self.check_whole()
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.segment_of_device(index)
    }
}

/// A buffer that a device may read and the CPU may read too. Dropping it unmaps it.
#[derive(Debug)]
#[must_use = "dropping the mapping takes the buffer back from the device"]
pub struct SharedMapping<'a>(Mapping<'a, ToDevice>);

impl SharedMapping<'_> {
    /// The address and length the device must be given.
    pub fn dma_segment(&self) -> DmaSegment {
        self.0.dma_segment()
    }

    /// Ends the mapping. The device must be done with the buffer.
    #[track_caller]
    pub fn unmap(self) {
        self.0.unmap();
    }
}

// SAFETY: the segment is the memory the mapping borrows.
unsafe impl Source for SharedMapping<'_> {
    fn device(&self) -> &Device {
        self.0.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        (index == 0).then_some(self.0.dma_segment())
    }
}

#[cfg(test)]
mod master;
#[cfg(test)]
#[path = "streaming/tests.rs"]
mod tests;
