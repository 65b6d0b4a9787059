//! Coherent memory as bytes, as a value, as values in a row.

use super::Field;
use super::block::Block;
use super::machine::memory;
use crate::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use crate::arch::barrier;
use crate::dma::engine::{Destination, Source};
use crate::dma::{Device, DmaError, DmaSegment, debug};
use crate::mm::Gfp;
use core::ops::Range;
use core::ptr::NonNull;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Plain data: any bytes are a value, every byte of a value may be looked at, and nothing is
/// changed through a shared reference. So no atomic and no lock is plain: an exclusive access to
/// non-cacheable memory is not legal.
///
/// ```
/// # use hal::dma::coherent::Plain;
/// fn is_plain<T: Plain>() {}
/// is_plain::<[u64; 4]>();
/// ```
///
/// ```compile_fail,E0277
/// # use hal::dma::coherent::Plain;
/// fn is_plain<T: Plain>() {}
/// is_plain::<core::sync::atomic::AtomicU32>();
/// ```
pub trait Plain: FromBytes + IntoBytes + Immutable + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + 'static> Plain for T {}

/// Memory that CPU and device use together. Dropping it frees it. A type that is aligned to more
/// than a page does not compile.
///
/// Whether the device is using the memory right now is for its driver to know: it reads and writes
/// what the device does not own at the time, and orders its stores with
/// [`dmb_oshst`](crate::arch::barrier::dmb_oshst) or the barrier before the doorbell. In a
/// [`Ring`](crate::dma::Ring) the types know it.
///
/// Atomics have no place in it:
///
/// ```compile_fail,E0599
/// # use hal::dma::{Coherent, Device};
/// # use hal::mm::Gfp;
/// # use core::sync::atomic::AtomicU32;
/// fn shared(device: &'static Device) {
///     let _ = Coherent::<AtomicU32>::zeroed(device, Gfp::KERNEL);
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping it frees the memory"]
pub struct Coherent<T: ?Sized = [u8]> {
    /// In `block`, mapped and initialised.
    data: NonNull<T>,
    block: Block,
}

// SAFETY: the memory belongs to the allocation, whichever core that is on.
unsafe impl<T: ?Sized + Send> Send for Coherent<T> {}
// SAFETY: a shared reference reads only.
unsafe impl<T: ?Sized + Sync> Sync for Coherent<T> {}

impl Coherent {
    /// All the bytes of `block`.
    #[inline(always)]
    #[track_caller]
    pub(super) fn new(block: Block) -> Self {
        let cpu = VirtAddr::from_ptr(block.as_ptr().as_ptr());
        debug::on_alloc(block.device(), cpu, block.segment());
        let data = NonNull::slice_from_raw_parts(block.as_ptr(), block.segment().len);
        Self { data, block }
    }

    /// Stores `words` at byte `offset`, each with one access, for a structure the device reads.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`] if they do not fit or `offset` is no multiple of 4.
    pub fn write_words(&mut self, offset: usize, words: &[u32]) -> Result<(), DmaError> {
        let range = self.check(offset, size_of_val(words))?;
        if !range.start.is_multiple_of(size_of::<u32>()) {
            return Err(self.out_of_bounds(offset, size_of_val(words)));
        }
        let base = self.as_ptr().as_ptr();
        for (index, &word) in words.iter().enumerate() {
            // SAFETY: in bounds and aligned, checked above; the base is page-aligned.
            unsafe {
                base.add(range.start)
                    .cast::<u32>()
                    .add(index)
                    .write_volatile(word);
            };
        }
        Ok(())
    }
}

impl<T: ?Sized> Coherent<T> {
    /// The device the memory is for.
    #[inline]
    pub fn device(&self) -> &'static Device {
        self.block.device()
    }

    /// The address the device must be given.
    #[inline]
    #[doc(alias = "dma_handle")]
    pub fn dma_addr(&self) -> DmaAddr {
        self.block.segment().addr
    }

    /// The CPU's address.
    #[inline]
    pub fn va(&self) -> VirtAddr {
        VirtAddr::from_ptr(self.as_ptr().as_ptr())
    }

    /// The CPU's address as a pointer, valid for [`size`](Self::size) bytes.
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.block.as_ptr()
    }

    /// Bytes that were asked for; of [bytes](Coherent), rounded up to pages.
    #[inline]
    pub fn size(&self) -> usize {
        // SAFETY: `data` leads to a value in the block.
        size_of_val(unsafe { self.data.as_ref() })
    }

    /// The `len` bytes at byte `offset`, to be read by a device.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::OutOfBounds`].
    pub fn part(&self, offset: usize, len: usize) -> Result<CoherentPart<'_>, DmaError> {
        Ok(CoherentPart {
            segment: self.segment_of(offset, len)?,
            owner: &self.block,
        })
    }

    /// The `len` bytes at byte `offset`, to be written by a device.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::OutOfBounds`].
    pub fn part_mut(&mut self, offset: usize, len: usize) -> Result<CoherentPartMut<'_>, DmaError>
    where
        // What the device writes is a value.
        T: FromBytes,
    {
        Ok(CoherentPartMut {
            segment: self.segment_of(offset, len)?,
            owner: &mut self.block,
        })
    }

    fn segment_of(&self, offset: usize, len: usize) -> Result<DmaSegment, DmaError> {
        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        let range = self.check(offset, len)?;
        Ok(DmaSegment {
            addr: self.dma_addr() + range.start,
            len,
        })
    }

    fn check(&self, offset: usize, len: usize) -> Result<Range<usize>, DmaError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size() => Ok(offset..end),
            _ => Err(self.out_of_bounds(offset, len)),
        }
    }

    fn out_of_bounds(&self, offset: usize, len: usize) -> DmaError {
        let size = self.size();
        DmaError::OutOfBounds { offset, len, size }
    }
}

impl<T: Plain> Coherent<T> {
    /// Memory for a `T`, zero: [`alloc`](super::alloc()) by type.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn zeroed(device: &'static Device, gfp: Gfp) -> Result<Self, DmaError> {
        const { assert!(align_of::<T>() <= PAGE_SIZE) };
        let block = memory()?.alloc(device, size_of::<T>(), gfp)?.block;
        Ok(Self {
            data: block.as_ptr().cast(),
            block,
        })
    }

    /// The value, loaded without the compiler's leave to do it twice or not at all. In one access
    /// if there is an instruction for it; else a device may be seen half-way.
    #[doc(alias = "dma_read")]
    pub fn read(&self) -> T {
        // SAFETY: the value is mapped and initialised, whatever a device wrote: it is plain data.
        unsafe { self.data.as_ptr().read_volatile() }
    }

    /// Stores a value; accesses as for [`read`](Self::read).
    #[doc(alias = "dma_write")]
    pub fn write(&mut self, value: T) {
        // SAFETY: the value is mapped, and borrowed exclusively.
        unsafe { self.data.as_ptr().write_volatile(value) };
    }

    /// Loads one field of the value; accesses as for [`read`](Self::read).
    pub fn read_field<F: Plain>(&self, field: Field<T, F>) -> F {
        // SAFETY: the value is mapped and initialised.
        unsafe { load(self.data, field) }
    }

    /// Stores one field of the value; accesses as for [`read`](Self::read).
    pub fn write_field<F: Plain>(&mut self, field: Field<T, F>, value: F) {
        // SAFETY: the value is mapped, and borrowed exclusively.
        unsafe { store(self.data, field, value) };
    }
}

impl<T: Plain> Coherent<[T]> {
    /// Memory for `len` values, zero: [`alloc`](super::alloc()) by type.
    ///
    /// # Errors
    ///
    /// As there; for more bytes than there are addresses as for the largest request.
    #[track_caller]
    pub fn zeroed_slice(device: &'static Device, len: usize, gfp: Gfp) -> Result<Self, DmaError> {
        let bytes = memory()?.alloc(device, size_of::<T>().saturating_mul(len), gfp)?;
        Ok(Self::in_block(bytes.block, len))
    }

    /// As many values as fit into the pages of `bytes`.
    pub fn from_bytes(bytes: Coherent) -> Self {
        let len = bytes.size().checked_div(size_of::<T>()).unwrap_or(0);
        Self::in_block(bytes.block, len)
    }

    fn in_block(block: Block, len: usize) -> Self {
        // The block's pages hold the values.
        const { assert!(align_of::<T>() <= PAGE_SIZE) };
        let data = NonNull::slice_from_raw_parts(block.as_ptr().cast(), len);
        Self { data, block }
    }

    /// Values in the allocation; of bytes a multiple of the page size.
    #[inline]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values. The borrow keeps [`copy`](crate::dma::engine::copy) from writing them meanwhile.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the values are mapped, initialised, and this allocation's. A device writes them
        // only while the allocation is exclusively borrowed, or under a contract of its driver.
        unsafe { self.data.as_ref() }
    }

    /// The values, writable.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as for `as_slice`; the borrow of `self` is exclusive.
        unsafe { self.data.as_mut() }
    }

    /// Value number `index`, loaded as [`Coherent::read`] does.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn read_at(&self, index: usize) -> Result<T, DmaError> {
        let value = self.at(index)?;
        // SAFETY: the value is mapped and initialised, whatever a device wrote: it is plain data.
        Ok(unsafe { value.as_ptr().read_volatile() })
    }

    /// Stores value number `index`.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn write_at(&mut self, index: usize, value: T) -> Result<(), DmaError> {
        let place = self.at(index)?;
        // SAFETY: the value is mapped, and borrowed exclusively.
        unsafe { place.as_ptr().write_volatile(value) };
        Ok(())
    }

    /// Loads a field of value number `index`.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn read_field_at<F: Plain>(&self, index: usize, field: Field<T, F>) -> Result<F, DmaError> {
        let value = self.at(index)?;
        // SAFETY: the value is mapped and initialised.
        Ok(unsafe { load(value, field) })
    }

    /// Stores a field of value number `index`.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn write_field_at<F: Plain>(
        &mut self,
        index: usize,
        field: Field<T, F>,
        value: F,
    ) -> Result<(), DmaError> {
        let place = self.at(index)?;
        // SAFETY: the value is mapped, and borrowed exclusively.
        unsafe { store(place, field, value) };
        Ok(())
    }

    /// Where value number `index` is.
    fn at(&self, index: usize) -> Result<NonNull<T>, DmaError> {
        if index >= self.len() {
            let len = size_of::<T>();
            return Err(self.out_of_bounds(index.saturating_mul(len), len));
        }
        // SAFETY: the index is below the length, so the place lies in the allocation.
        Ok(unsafe { self.data.cast::<T>().add(index) })
    }
}

/// Loads `field` of the value at `value`.
///
/// # Safety
///
/// The value is mapped and initialised.
unsafe fn load<T: Plain, F: Plain>(value: NonNull<T>, field: Field<T, F>) -> F {
    // SAFETY: the field lies in the value and is aligned, by its own invariant; of plain data every
    // byte is initialised.
    unsafe { value.byte_add(field.offset()).cast::<F>().read_volatile() }
}

/// Stores `field` of the value at `value`.
///
/// # Safety
///
/// The value is mapped, and nobody else accesses it.
unsafe fn store<T: Plain, F: Plain>(value: NonNull<T>, field: Field<T, F>, new: F) {
    // SAFETY: as for `load`; what is stored is plain data, so the value stays one.
    unsafe {
        let place = value.byte_add(field.offset()).cast::<F>();
        place.write_volatile(new);
    }
}

/// A part of a [`Coherent`] allocation that a device reads.
///
/// Freeing the memory meanwhile does not compile:
///
/// ```compile_fail,E0505
/// use hal::dma::{Coherent, DmaError};
///
/// fn free(memory: Coherent) -> Result<(), DmaError> {
///     let part = memory.part(0, 64)?;
///     drop(memory);
///     drop(part);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct CoherentPart<'a> {
    segment: DmaSegment,
    owner: &'a Block,
}

/// A part of a [`Coherent`] allocation that a device writes.
///
/// Reading meanwhile what it writes does not compile:
///
/// ```compile_fail,E0502
/// use hal::dma::{Coherent, DmaError};
///
/// fn peek(memory: &mut Coherent) -> Result<u8, DmaError> {
///     let part = memory.part_mut(0, 64)?;
///     let first = memory.as_slice()[0];
///     drop(part);
///     Ok(first)
/// }
/// ```
#[derive(Debug)]
pub struct CoherentPartMut<'a> {
    segment: DmaSegment,
    owner: &'a mut Block,
}

// SAFETY: the segment is a part of the borrowed allocation.
unsafe impl Source for CoherentPart<'_> {
    fn device(&self) -> &Device {
        self.owner.device()
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        barrier::hand_over(self.owner.as_ptr().as_ptr());
        (index == 0).then_some(self.segment)
    }
}

// SAFETY: the segment is a part of the exclusively borrowed allocation.
unsafe impl Destination for CoherentPartMut<'_> {
    fn device(&self) -> &Device {
        self.owner.device()
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        barrier::hand_over(self.owner.as_ptr().as_ptr());
        (index == 0).then_some(self.segment)
    }
}
