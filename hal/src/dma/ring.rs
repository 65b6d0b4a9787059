//! Descriptors in coherent memory that CPU and device hand to each other in turn.
//!
//! One word of each descriptor says whose it is. It is stored last and loaded first, with a barrier
//! in between (Arm ARM B2.3.10): the device must not see it before the fields, and the CPU must not
//! load fields before it.
//!
//! | | CPU | barrier | device |
//! |---|---|---|---|
//! | to the device | fields | `DMB OSHST` (`dma_wmb`) | the word |
//! | to the CPU | the word | `DMB OSHLD` (`dma_rmb`) | fields |
//!
//! A slot that the device owns has no name in the program, so it cannot be touched:
//!
//! ```
//! # use hal::dma::{Coherent, DmaError, Ring};
//! # use hal::dma::coherent::Field;
//! # use hal::dma::ring::{Descriptor, Owner};
//! # use hal::mm::Gfp;
//! # use zerocopy::{FromBytes, Immutable, IntoBytes};
//! #[derive(FromBytes, IntoBytes, Immutable)]
//! #[repr(C)]
//! struct Packet {
//!     addr: u64,
//!     len: u32,
//!     status: u32,
//! }
//!
//! const LEN: Field<Packet, u32> = hal::dma_field!(Packet, len);
//!
//! impl Descriptor for Packet {
//!     const OWNER: Owner<Self> = Owner::new(hal::dma_field!(Packet, status), 31);
//! }
//!
//! fn send(ring: &mut Ring<Packet>, len: u32) -> bool {
//!     let Some(mut slot) = ring.next() else {
//!         return false;
//!     };
//!     let stored = slot.write(LEN, len);
//!     slot.give(0);
//!     stored.is_ok()
//! }
//! ```
//!
//! It cannot be read, written, or handed over again once it is the device's; nor can the ring go
//! while one of its slots has a name:
//!
//! ```compile_fail,E0382
//! # use hal::dma::{coherent::Field, ring::{Descriptor, Slot}};
//! fn read<D: Descriptor>(slot: Slot<'_, D>, field: Field<D, u32>) -> u32 {
//!     slot.give(0);
//!     slot.read(field)
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use hal::dma::{coherent::Field, ring::{Descriptor, Slot}};
//! fn write<D: Descriptor>(mut slot: Slot<'_, D>, field: Field<D, u32>) {
//!     slot.give(0);
//!     let _ = slot.write(field, 1);
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use hal::dma::ring::{Descriptor, Slot};
//! fn twice<D: Descriptor>(slot: Slot<'_, D>) {
//!     slot.give(0);
//!     slot.give(0);
//! }
//! ```
//!
//! ```compile_fail,E0505
//! # use hal::dma::{Ring, ring::Descriptor};
//! fn dropped<D: Descriptor>(mut ring: Ring<D>) {
//!     let slot = ring.next();
//!     drop(ring);
//!     drop(slot);
//! }
//! ```
//!
//! What the device gave back is there to be read:
//!
//! ```compile_fail,E0599
//! # use hal::dma::{coherent::Field, ring::{Descriptor, Done}};
//! fn answer<D: Descriptor>(mut done: Done<'_, D>, field: Field<D, u32>) {
//!     done.write(field, 1);
//! }
//! ```

use super::coherent::{Coherent, Field, Plain};
use super::{Device, DmaError};
use crate::addr::DmaAddr;
use crate::arch::barrier;
use crate::mm::Gfp;
use core::mem::ManuallyDrop;

/// The bit that says whose a descriptor is: the device's while it is set.
///
/// One bit of one aligned word, so that the word that hands a descriptor over always says that it is
/// the device's, and a word of 0 that it is not, whoever names the bit.
#[derive(Debug)]
pub struct Owner<D> {
    word: Field<D, u32>,
    bit: u32,
}

impl<D> Owner<D> {
    /// Bit number `bit`, from 0, of the word at `word`.
    ///
    /// # Panics
    ///
    /// If a word has no such bit. In a constant that is a compile error:
    ///
    /// ```compile_fail,E0080
    /// # use hal::dma::ring::Owner;
    /// #[repr(C)]
    /// struct Packet {
    ///     status: u32,
    /// }
    /// const OWNER: Owner<Packet> = Owner::new(hal::dma_field!(Packet, status), 32);
    /// ```
    pub const fn new(word: Field<D, u32>, bit: u32) -> Self {
        assert!(bit < u32::BITS);
        let bit = 1 << bit;
        Self { word, bit }
    }

    /// The word.
    pub const fn word(&self) -> Field<D, u32> {
        self.word
    }

    /// The word that makes a descriptor the device's, with the other bits of `word`.
    pub const fn given(&self, word: u32) -> u32 {
        word | self.bit
    }

    /// Whether a descriptor with `word` is the device's.
    pub const fn is_given(&self, word: u32) -> bool {
        word & self.bit != 0
    }
}

/// What a ring is made of: plain data, so of a layout without padding, with an [`Owner`].
///
/// Nothing a type says here makes a ring hand out what the device has: whether the device keeps to
/// the bit is what its driver says when it tells the device of the ring.
pub trait Descriptor: Plain + Sized {
    /// The bit that says whose a descriptor is.
    const OWNER: Owner<Self>;
}

/// A field that cannot be stored, by its offset: it overlaps the word that says whose the
/// descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field at {0:#x} of a descriptor overlaps the word that says whose it is")]
pub struct OwnerWord(pub usize);

/// A ring of descriptors, handed over and given back in turn.
///
/// Dropped while the device owns some of them, it keeps its memory for good, because the device may
/// still write there; see [`reclaim`](Self::reclaim).
#[derive(Debug)]
pub struct Ring<D: Descriptor> {
    memory: ManuallyDrop<Coherent<[D]>>,
    /// The slot that is handed over next.
    next: usize,
    /// Slots that the device owns: those before `next`.
    given: usize,
}

impl<D: Descriptor> Ring<D> {
    /// A ring of `len` descriptors for `device`, all zero and the CPU's.
    ///
    /// # Errors
    ///
    /// As [`coherent::alloc`](super::coherent::alloc()).
    pub fn new(device: &'static Device, len: usize, gfp: Gfp) -> Result<Self, DmaError> {
        Coherent::zeroed_slice(device, len, gfp).map(Self::of)
    }

    /// A ring in `memory`, whatever is there: every slot's word becomes 0, so all of it is the CPU's.
    pub fn of(memory: Coherent<[D]>) -> Self {
        let mut ring = Self {
            memory: ManuallyDrop::new(memory),
            next: 0,
            given: 0,
        };
        ring.take_all();
        ring
    }

    /// Where the device finds the first descriptor.
    pub fn dma_addr(&self) -> DmaAddr {
        self.memory.dma_addr()
    }

    /// Descriptors in the ring.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// Descriptors that the device owns, or gave back unseen.
    pub fn given(&self) -> usize {
        self.given
    }

    /// The next slot to be handed over, or `None` if the device has all. The same one again until
    /// it is handed over.
    #[expect(clippy::should_implement_trait, reason = "a slot borrows the ring")]
    pub fn next(&mut self) -> Option<Slot<'_, D>> {
        (self.given < self.len()).then_some(Slot { ring: self })
    }

    /// The slot that the device has had longest, if it gave it back.
    pub fn complete(&mut self) -> Option<Done<'_, D>> {
        let oldest = self.oldest()?;
        let word = self.memory.read_field_at(oldest, D::OWNER.word()).ok()?;
        if D::OWNER.is_given(word) {
            return None;
        }
        barrier::dmb_oshld();
        self.given -= 1;
        Some(Done {
            ring: self,
            index: oldest,
            word,
        })
    }

    /// Makes all slots the CPU's, of a device that was stopped: every slot's word becomes 0. The
    /// next slot to be handed over stays the next.
    ///
    /// # Safety
    ///
    /// The device accesses no slot any more, whatever its word says.
    pub unsafe fn reclaim(&mut self) {
        barrier::dmb_oshld();
        self.given = 0;
        self.take_all();
    }

    /// Says in every slot that it is the CPU's. A device that is started on the ring afterwards must
    /// find no word of an earlier life.
    fn take_all(&mut self) {
        for index in 0..self.len() {
            let stored = self.memory.write_field_at(index, D::OWNER.word(), 0);
            debug_assert_eq!(stored, Ok(()));
        }
    }

    fn oldest(&self) -> Option<usize> {
        let behind = self.next + self.len() - self.given;
        (self.given != 0).then(|| behind % self.len())
    }
}

impl<D: Descriptor> Drop for Ring<D> {
    fn drop(&mut self) {
        if self.given == 0 {
            // SAFETY: the memory is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}

/// A slot that is the CPU's, to be filled and handed over.
#[derive(Debug)]
pub struct Slot<'a, D: Descriptor> {
    ring: &'a mut Ring<D>,
}

impl<D: Descriptor> Slot<'_, D> {
    /// The slot's number.
    pub fn index(&self) -> usize {
        self.ring.next
    }

    /// Loads a field, whatever was left in it.
    pub fn read<F: Plain>(&self, field: Field<D, F>) -> F {
        load(&self.ring.memory, self.index(), field)
    }

    /// Stores a field.
    ///
    /// # Errors
    ///
    /// [`OwnerWord`] if it overlaps the word that says whose the slot is, which only
    /// [`give`](Self::give) stores.
    pub fn write<F: Plain>(&mut self, field: Field<D, F>, value: F) -> Result<(), OwnerWord> {
        let (offset, owner) = (field.offset(), D::OWNER.word().offset());
        if offset < owner + size_of::<u32>() && owner < offset + size_of::<F>() {
            return Err(OwnerWord(offset));
        }
        let index = self.index();
        // The index is below the length.
        let stored = self.ring.memory.write_field_at(index, field, value);
        debug_assert_eq!(stored, Ok(()));
        Ok(())
    }

    /// Makes the slot the device's: what was stored before, `DMB OSHST`, then the word that
    /// [`Owner::given`] makes of `word`. The doorbell is the driver's.
    pub fn give(self, word: u32) {
        let ring = self.ring;
        barrier::dmb_oshst();
        let given = ring
            .memory
            .write_field_at(ring.next, D::OWNER.word(), D::OWNER.given(word));
        debug_assert_eq!(given, Ok(()));
        ring.next = (ring.next + 1) % ring.len();
        ring.given += 1;
    }
}

/// A slot that the device gave back, to be read.
#[derive(Debug)]
pub struct Done<'a, D: Descriptor> {
    ring: &'a Ring<D>,
    index: usize,
    word: u32,
}

impl<D: Descriptor> Done<'_, D> {
    /// The slot's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The word with which the device gave it back.
    pub fn word(&self) -> u32 {
        self.word
    }

    /// Loads a field.
    pub fn read<F: Plain>(&self, field: Field<D, F>) -> F {
        load(&self.ring.memory, self.index, field)
    }
}

/// Loads a field of slot `index`, which is below the length.
fn load<D: Descriptor, F: Plain>(memory: &Coherent<[D]>, index: usize, field: Field<D, F>) -> F {
    match memory.read_field_at(index, field) {
        Ok(value) => value,
        Err(_) => F::new_zeroed(),
    }
}

#[cfg(test)]
mod tests;
