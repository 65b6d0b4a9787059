//! Streaming maps: a buffer of ordinary memory lent to a device for a while.
//!
//! ```text
//!   &mut [u8] --map--> Mapping (device's) --sync_for_cpu--> CpuOwned --sync_for_device--> Mapping
//!                         '--unmap / drop--> &mut [u8]         '--drop--> &mut [u8]
//! ```
//!
//! The buffer must be contiguous for the device, so it comes from the direct map (kmalloc, pages).
//! vmalloc memory goes through [`sg`](super::sg); text, statics and stacks, coherent memory and
//! device registers are refused by name. Start and end should lie on cache lines: the bytes beside
//! the buffer in its first and last line must not be stored to while the device owns it, or their
//! write-back may overwrite what the device wrote.
//!
//! # What does not compile
//!
//! Touching a buffer the device owns:
//!
//! ```compile_fail,E0499
//! use hal::dma::{Device, FromDevice, streaming::map_slice};
//!
//! fn peek(device: &Device, buffer: &mut [u8]) {
//!     let mapping = map_slice::<FromDevice>(device, buffer).unwrap();
//!     buffer.fill(0);
//!     mapping.unmap();
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

use super::direction::{DeviceReads, DeviceWrites, Direction, ToDevice};
use super::engine::{Destination, Source};
use super::lease::Lease;
use super::{Device, DmaError, DmaSegment, maintenance};
use crate::addr::{DmaAddr, VirtAddr};
use crate::arch::barrier;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

/// A buffer that belongs to a device. Dropping it unmaps it.
#[must_use = "dropping the mapping takes the buffer back from the device"]
pub struct Mapping<'a, D: Direction> {
    device: &'a Device,
    ptr: *mut u8,
    lease: Lease,
    buffer: PhantomData<(&'a mut [u8], D)>,
}

// SAFETY: a mapping is a borrowed `&mut [u8]` and a shared `Device`; both may cross threads.
unsafe impl<D: Direction> Send for Mapping<'_, D> {}
// SAFETY: a shared mapping gives no access to the bytes.
unsafe impl<D: Direction> Sync for Mapping<'_, D> {}

/// Hands the `len` bytes at `ptr` to `device`.
///
/// Costs one `DC CVAC` a line and one `DSB SY` if the device is not coherent, nothing otherwise.
/// May be called in any context.
///
/// # Errors
///
/// [`DmaError::ZeroLength`], [`DmaError::Wraps`], [`DmaError::NotMappable`] by kind of memory,
/// [`DmaError::OutOfReach`], [`DmaError::Packed`] unless the device is coherent, which needs no
/// line for itself, and [`DmaError::PartialLine`] on machines whose write-back granule
/// exceeds [`ALIGNMENT`](super::ALIGNMENT).
///
/// # Safety
///
/// If the `len` bytes at `ptr` lie in the direct map, they are valid for reads and writes during
/// `'a` and nobody else accesses them during `'a`. An address outside the direct map is refused
/// and carries no obligation.
#[doc(alias = "dma_map_single")]
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
    complete_if(lease.is_maintained());
    Ok(Mapping {
        device,
        ptr,
        lease,
        buffer: PhantomData,
    })
}

/// Hands a slice to `device`: [`map_single`] for memory whose ownership the borrow proves.
///
/// # Errors
///
/// As for [`map_single`].
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
pub fn map_shared<'a>(device: &'a Device, buffer: &'a [u8]) -> Result<SharedMapping<'a>, DmaError> {
    // SAFETY: the slice is valid for reads during 'a. A `ToDevice` mapping is not written through
    // as long as it is not synchronised for the CPU, which `SharedMapping` does not offer.
    unsafe { map_single(device, buffer.as_ptr().cast_mut(), buffer.len()) }.map(SharedMapping)
}

/// The barrier that completes maintenance, if there was any.
#[inline(always)]
pub(super) fn complete_if(maintained: bool) {
    if maintained {
        maintenance::complete();
    }
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

    /// Ends the mapping: the borrowed buffer is the CPU's again and, unless
    /// the direction is [`ToDevice`], holds what the device wrote.
    ///
    /// The device must be done with the buffer.
    #[doc(alias = "dma_unmap_single")]
    pub fn unmap(self) {
        drop(self);
    }

    /// Takes the buffer back for a while, keeping the mapping.
    ///
    /// The device must be done with the buffer.
    #[doc(alias = "dma_sync_single_for_cpu")]
    pub fn sync_for_cpu(self) -> CpuOwned<'a, D> {
        self.take_from_device();
        CpuOwned {
            mapping: ManuallyDrop::new(self),
        }
    }

    fn give_to_device(&self) {
        barrier::hand_over(self.ptr);
        self.lease.give();
        complete_if(self.lease.is_maintained());
    }

    #[inline]
    fn take_from_device(&self) {
        // SAFETY: the mapping borrows the buffer exclusively and gave the CPU no access, so the CPU
        // stored nothing since the buffer was given. That the device is done is the caller's part.
        complete_if(unsafe { self.lease.take(D::KIND) });
        barrier::hand_over(self.ptr);
    }
}

impl<D: Direction> Drop for Mapping<'_, D> {
    fn drop(&mut self) {
        self.take_from_device();
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

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        (index == 0).then_some(self.dma_segment())
    }
}

// SAFETY: the segment is the memory the mapping borrows exclusively.
unsafe impl<D: DeviceWrites> Destination for Mapping<'_, D> {
    fn device(&self) -> &Device {
        self.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        (index == 0).then_some(self.dma_segment())
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

/// A mapped buffer that is the CPU's for the moment. Dropping it ends the mapping.
#[must_use = "dropping it ends the mapping"]
pub struct CpuOwned<'a, D: Direction> {
    mapping: ManuallyDrop<Mapping<'a, D>>,
}

impl<'a, D: Direction> CpuOwned<'a, D> {
    /// Gives the buffer to the device again.
    #[doc(alias = "dma_sync_single_for_device")]
    pub fn sync_for_device(self) -> Mapping<'a, D> {
        let mapping = ManuallyDrop::into_inner(self.mapping);
        mapping.give_to_device();
        mapping
    }
}

impl<D: Direction> Deref for CpuOwned<'_, D> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `map_single`'s caller promised the bytes valid and exclusive for 'a, and the
        // device gave them back.
        unsafe { core::slice::from_raw_parts(self.mapping.ptr, self.mapping.dma_segment().len) }
    }
}

impl<D: Direction> DerefMut for CpuOwned<'_, D> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow of `self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.mapping.ptr, self.mapping.dma_segment().len) }
    }
}

impl<D: Direction> fmt::Debug for CpuOwned<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CpuOwned").field(&*self.mapping).finish()
    }
}

#[cfg(test)]
#[path = "streaming/tests.rs"]
mod tests;
