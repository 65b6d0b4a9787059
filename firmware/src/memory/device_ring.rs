//! A ring of descriptors whose slots an engine gives back, in the place of a device that reads them.

use hal::dma::coherent::Field;
use hal::dma::engine::Destination;
use hal::dma::ring::{Descriptor, Owner};
use hal::dma::{Device, DmaError, DmaSegment, Ring};
use hal::mm::Gfp;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Packet {
    pub(crate) tag: u64,
    pub(crate) len: u32,
    /// Whose it is, and what else the two tell each other.
    pub(crate) status: u32,
}

/// The bit of [`Packet::status`] that says that a packet is the device's.
pub(crate) const OWN: u32 = 1 << OWN_BIT;
const OWN_BIT: u32 = 31;

const TAG: Field<Packet, u64> = hal::dma_field!(Packet, tag);
const LEN: Field<Packet, u32> = hal::dma_field!(Packet, len);

impl Descriptor for Packet {
    const OWNER: Owner<Self> = Owner::new(hal::dma_field!(Packet, status), OWN_BIT);
}

/// A ring that no device was told of. What it gives away an engine gives back, by writing a
/// [`DeviceSlot`].
#[derive(Debug)]
pub(crate) struct DeviceRing {
    device: &'static Device,
    ring: Ring<Packet>,
    /// The slot that was given away longest ago, if any is away.
    oldest: usize,
}

impl DeviceRing {
    /// A ring of `len` slots for `device`.
    pub(crate) fn new(device: &'static Device, len: usize) -> Result<Self, DmaError> {
        let ring = Ring::new(device, len, Gfp::KERNEL)?;
        Ok(Self {
            device,
            ring,
            oldest: 0,
        })
    }

    /// Stores `tag` in the next slot and gives it to the device: the slot's number.
    pub(crate) fn ask(&mut self, tag: u64) -> Option<usize> {
        let mut slot = self.ring.next()?;
        let index = slot.index();
        slot.write(TAG, tag).ok()?;
        slot.give(0);
        Some(index)
    }

    /// The slot that the device has had longest, for an engine to write.
    pub(crate) fn slot(&mut self) -> Option<DeviceSlot<'_>> {
        (self.ring.given() != 0).then_some(DeviceSlot(self))
    }

    /// What stands in the slot that the device has had longest, and its number, if it was given back.
    pub(crate) fn complete(&mut self) -> Option<(usize, Packet)> {
        let done = self.ring.complete()?;
        let packet = Packet {
            tag: done.read(TAG),
            len: done.read(LEN),
            status: done.word(),
        };
        let index = done.index();
        self.oldest = (index + 1) % self.ring.len();
        Some((index, packet))
    }
}

impl Drop for DeviceRing {
    fn drop(&mut self) {
        // SAFETY: what writes slots borrows the ring as long as it does, and nobody else was told
        // of it.
        unsafe { self.ring.reclaim() };
    }
}

/// A slot that the device has.
#[derive(Debug)]
pub(crate) struct DeviceSlot<'a>(&'a mut DeviceRing);

// SAFETY: the slot was given away and not back, so the ring hands it to nobody; the borrow keeps the
// ring from looking whether it was.
unsafe impl Destination for DeviceSlot<'_> {
    fn device(&self) -> &Device {
        self.0.device
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        let DeviceRing { ring, oldest, .. } = &*self.0;
        let len = size_of::<Packet>();
        let addr = ring.dma_addr() + oldest * len;
        (index == 0).then_some(DmaSegment { addr, len })
    }
}
