//! Device models: what a bus master reads and writes, and until when.
//!
//! A model sees what the CPUs do with the device's registers, and with the words of RAM that it
//! asked for. From that alone it says which memory the device works on. It knows nothing of caches.
//!
//! # A device model of your own
//!
//! One type that implements [`Device`], and one line in [`board`](crate::board) that puts it where the
//! registers are. A model has to answer three questions:
//!
//! 1. Which store makes the device start? Emit [`Event::Started`] with a [`Span`] for everything
//!    that it then reads or writes: the descriptors as well as the buffers.
//! 2. Which load tells the CPU that it is done? Emit [`Event::Completed`] for that load, not for the
//!    moment at which QEMU's device has finished: the CPU may not look before it knows.
//! 3. Which addresses does the device take? Where a model can tell that one is wrong, it emits
//!    [`Event::Wrong`] and leaves that span out.
//!
//! Addresses in descriptors come from the firmware under test: take none on trust. Follow chains up to
//! a bound, compute with `checked_` or `wrapping_` operations, and never panic.
//!
//! QEMU's devices may be done before the model is told of the doorbell, and may have changed their
//! descriptors by then: what the model reads of them is what is left.
//!
//! In tests `testing::Bench` is a CPU before the model. `fuzz` drives every model of every board at
//! random and holds it to what [`Device`] promises; it has to be told how the device is made to end.

pub mod bcm2711_dma;
pub mod edu;
pub mod fw_cfg;
pub mod mailbox;
pub mod virtio_mmio;

mod found;
#[cfg(test)]
mod fuzz;
mod legacy_bus;
mod registers;
#[cfg(test)]
mod testing;

use crate::kind::Kind;
use std::ops::Range;

/// One load or store of a CPU, after it was made: at a device's register or in watched RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who made it.
    pub cpu: u32,
    /// Physical address of the first byte.
    pub pa: u64,
    /// Bytes: 1, 2, 4, 8 or 16.
    pub size: u8,
    /// A store, or a load.
    pub is_store: bool,
    /// What was stored or loaded, zero-extended; the low 64 bits of 128.
    pub value: u64,
}

/// RAM as the devices see it: what is there now, behind every cache.
pub trait Memory {
    /// Fills `bytes` from physical address `pa`. Returns whether all of it is RAM; if not, what `bytes`
    /// holds is unspecified.
    fn read(&self, pa: u64, bytes: &mut [u8]) -> bool;
}

/// A job of a device, from its doorbell to the end that a CPU has seen. No two jobs of one device
/// model have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u32);

/// What a device does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Does {
    /// It reads.
    Reads,
    /// It writes, or may write.
    Writes,
}

/// Memory that a job works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Physical addresses; not empty.
    pub pa: Range<u64>,
    /// What the device does there. Memory it reads and writes is in two spans.
    pub does: Does,
    /// What the memory is to the device: "control block", "source", "used ring".
    pub role: &'static str,
}

/// What a model has understood of an access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The access was a doorbell.
    Started {
        /// The job it began.
        job: JobId,
        /// What the job works on, as far as it is known.
        spans: Vec<Span>,
    },
    /// The access gave a running job more to work on.
    Extended {
        /// The job.
        job: JobId,
        /// What is new.
        spans: Vec<Span>,
    },
    /// The access told the CPU that a job has ended, or made the device forget it.
    Completed {
        /// The job.
        job: JobId,
    },
    /// The device has read this within the access, in no job: it is the CPU's again.
    Read {
        /// What it read.
        spans: Vec<Span>,
    },
    /// Parts of a job were too many to be told.
    LeftOut {
        /// How many there are at least.
        count: u64,
    },
    /// The access gave the device an address that it must not be given.
    Wrong {
        /// What is wrong with it.
        kind: Kind,
        /// The address as the device was given it.
        address: u64,
        /// What the memory was to be.
        role: &'static str,
    },
    /// [`Device::windows`] or [`Device::watched`] return something else than before.
    Moved,
}

/// A model of a device that accesses memory by itself.
pub trait Device: Send {
    /// The device's name, as reports print it.
    fn name(&self) -> &str;

    /// Physical addresses of its registers.
    fn windows(&self) -> Vec<Range<u64>>;

    /// RAM that tells the CPU about ends: a status word, the index of a used ring. The CPU may load from
    /// it while a job runs.
    fn watched(&self) -> Vec<Range<u64>>;

    /// Takes notice of an access to [`windows`](Self::windows) or [`watched`](Self::watched), and
    /// appends what it means.
    fn access(&mut self, access: &Access, memory: &dyn Memory, events: &mut Vec<Event>);
}
