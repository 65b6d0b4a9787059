//! The BCM2711's mailbox to the VideoCore firmware, property channel.
//!
//! The firmware reads a request from memory and writes its answer over it, past the caches of the Arm
//! cores: one request is one round of non-coherent DMA in both directions. The memory is either
//! [coherent](Via::Coherent), which needs no maintenance, or [cacheable](Via::Streaming) and lent for
//! the time of the request: its lines are cleaned before the doorbell rings, and invalidated before
//! the answer is read, because a speculative read may have fetched a line in between.
//!
//! # A lost answer
//!
//! If the firmware does not answer in time, the request ends with [`MailboxError::NoAnswer`] and the
//! memory stays the firmware's, which may still write it. Every later request looks for the answer
//! that is owed, and fails with [`MailboxError::Lost`] until it has come; then the mailbox works
//! again, and memory that was lent for it is taken back. If it never comes the firmware is dead, and only a reset of the board brings it back.

mod buffer;
mod message;
pub mod property;
pub mod revision;

pub use buffer::PropertyBuffer;
#[doc(inline)]
pub use property::{ClockId, Property};
pub use revision::RevisionCode;

use super::mmio::RegisterIo;
use super::timer::Timer;
use crate::addr::DmaAddr;
use crate::arch::{barrier, cpu};
use crate::dma::{Coherent, Device, DmaError};
use crate::sync::IrqLock;
use buffer::{BUFFER_SIZE, Cacheable};
use core::mem::ManuallyDrop;
use thiserror::Error;

/// Bytes of registers: mailbox 0, to the Arm, and mailbox 1, to the VideoCore.
pub const REGISTERS_SIZE: usize = 0x40;

/// `READ` of the mailbox to the Arm cores.
const READ: usize = 0x00;
/// `STATUS` of it.
const STATUS_0: usize = 0x18;
/// `WRITE` of the mailbox to the VideoCore.
const WRITE: usize = 0x20;
/// `STATUS` of it.
const STATUS_1: usize = 0x38;

/// `STATUS_0`: nothing to read.
const STATUS_EMPTY: u32 = 1 << 30;
/// `STATUS_1`: no room to write.
const STATUS_FULL: u32 = 1 << 31;

/// The channel of property requests, in the low four bits of a mailbox word.
const PROPERTY_CHANNEL: u32 = 8;
const CHANNEL_MASK: u32 = 0xF;

/// Words a mailbox holds.
const FIFO_WORDS: usize = 8;

/// How long the firmware may take. It answers within milliseconds unless it is dead.
const TIMEOUT_NS: u64 = 1_000_000_000;

/// Which memory carries a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Coherent memory: never cached.
    Coherent,
    /// Cacheable memory, lent to the firmware for the request.
    Streaming,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MailboxError {
    /// The buffer's bus address has more than 32 bits or is not a multiple of 16.
    #[error("the firmware cannot be given a buffer at bus address {0}")]
    BadBuffer(DmaAddr),
    /// The firmware cannot be lent the buffer.
    #[error(transparent)]
    Memory(#[from] DmaError),
    /// Another request is under way, and did not end in time or cannot: it was interrupted by the
    /// caller.
    #[error("the mailbox is in use")]
    Busy,
    /// The mailbox accepted no request in time.
    #[error("the mailbox stays full")]
    Full,
    /// The firmware did not answer in time. It may still write to the buffer, so later requests
    /// are refused with [`MailboxError::Lost`].
    #[error("the firmware did not answer tag {tag:#x}")]
    NoAnswer {
        /// The tag asked for.
        tag: u32,
    },
    /// An earlier request was never answered.
    #[error("the firmware still owes an answer")]
    Lost,
    /// The firmware said that it had answered, but the buffer still reads as the request.
    #[error(
        "tag {tag:#x} still reads as the request: a stale cache line, or memory the firmware does not see"
    )]
    Stale {
        /// The tag asked for.
        tag: u32,
    },
    /// The firmware could not read the request.
    #[error("the firmware answered tag {tag:#x} with code {code:#x}")]
    Refused {
        /// The tag asked for.
        tag: u32,
        /// The answer's code.
        code: u32,
    },
    /// The firmware does not know the tag.
    #[error("the firmware does not know tag {tag:#x}")]
    Unknown {
        /// The tag asked for.
        tag: u32,
    },
    /// The answer is shorter than the tag promises.
    #[error("the firmware answered tag {tag:#x} with {bytes} bytes of {expected}")]
    Short {
        /// The tag asked for.
        tag: u32,
        /// Bytes of the answer.
        bytes: u32,
        /// Bytes it must have.
        expected: usize,
    },
    /// The answer is longer than there is room for, and was cut.
    #[error("the firmware's answer to tag {tag:#x} has {bytes} bytes, there is room for {room}")]
    Truncated {
        /// The tag asked for.
        tag: u32,
        /// Bytes of the answer.
        bytes: u32,
        /// Bytes there is room for.
        room: usize,
    },
    /// The answer belongs to another question.
    #[error("the firmware answered something else than tag {tag:#x}")]
    WrongAnswer {
        /// The tag asked for.
        tag: u32,
    },
}

/// The property mailbox.
///
/// Dropping it gives its memory back, unless the firmware still owes an answer: then the memory is
/// leaked.
#[derive(Debug)]
pub struct Mailbox<Io> {
    device: &'static Device,
    timer: Timer,
    timeout_ns: u64,
    /// Taken out while a request is under way, so that IRQs are not masked meanwhile.
    link: IrqLock<Option<Link<Io>>>,
}

/// The registers and the memory: what one request needs at a time.
#[derive(Debug)]
struct Link<Io> {
    port: Port<Io>,
    coherent: ManuallyDrop<Coherent>,
    cacheable: ManuallyDrop<Cacheable>,
}

impl<Io> Drop for Link<Io> {
    /// The firmware may still write the memory of an answer that it owes.
    fn drop(&mut self) {
        if self.port.owed.is_none() {
            // SAFETY: each is dropped here only, and used nowhere afterwards.
            unsafe {
                ManuallyDrop::drop(&mut self.coherent);
                ManuallyDrop::drop(&mut self.cacheable);
            }
        }
    }
}

/// The registers, and what is still to come through them.
#[derive(Debug)]
struct Port<Io> {
    io: Io,
    /// The word of the answer the firmware owes.
    owed: Option<u32>,
}

impl<Io: RegisterIo> Mailbox<Io> {
    /// The mailbox with the registers `io` ([`REGISTERS_SIZE`] bytes). `device` describes what memory
    /// the VideoCore reaches; `coherent` was allocated for it and holds a [`PropertyBuffer`].
    ///
    /// # Errors
    ///
    /// [`MailboxError::Memory`] if `coherent` is too small.
    pub fn new(
        io: Io,
        device: &'static Device,
        coherent: Coherent,
        streaming: &'static mut PropertyBuffer,
        timer: Timer,
    ) -> Result<Self, MailboxError> {
        coherent.part(0, BUFFER_SIZE)?;
        Ok(Self {
            device,
            timer,
            timeout_ns: TIMEOUT_NS,
            link: IrqLock::new(Some(Link {
                port: Port { io, owed: None },
                coherent: ManuallyDrop::new(coherent),
                cacheable: ManuallyDrop::new(Cacheable::new(streaming)),
            })),
        })
    }

    /// What memory the VideoCore reaches, and whether it is taken as coherent.
    pub fn device(&self) -> &'static Device {
        self.device
    }

    /// Asks for `property` and returns the answer.
    ///
    /// Waits for requests of other cores, with IRQs masked not at all. Takes milliseconds. Allocates
    /// nothing.
    ///
    /// # Errors
    ///
    /// Any [`MailboxError`].
    pub fn request<P: Property>(&self, via: Via, property: &P) -> Result<P::Answer, MailboxError> {
        let mut link = self.take()?;
        let answer = link.request(self, via, property);
        *self.link.lock() = Some(link);
        answer
    }

    fn take(&self) -> Result<Link<Io>, MailboxError> {
        // Whoever holds it may be what this was called from.
        let patience = if cpu::irqs_masked() {
            0
        } else {
            self.timeout_ns
        };
        let mut link = None;
        self.timer.poll_until(patience, || {
            link = self.link.lock().take();
            link.is_some()
        });
        link.ok_or(MailboxError::Busy)
    }
}

impl<Io: RegisterIo> Link<Io> {
    fn request<P: Property>(
        &mut self,
        mailbox: &Mailbox<Io>,
        via: Via,
        property: &P,
    ) -> Result<P::Answer, MailboxError> {
        // The firmware may still write the memory of an answer it owes, and what a boot loader left
        // unread must not pass for the answer to come.
        self.port.collect_owed()?;
        self.cacheable.take_back();
        let len = const { message::len_of::<P>() };
        match via {
            Via::Coherent => {
                let memory = &mut self.coherent;
                message::write(property, &mut memory.as_mut_slice()[..len]);
                let doorbell = doorbell(memory.dma_addr())?;
                barrier::hand_over(memory.as_ptr().as_ptr());
                self.port.exchange(mailbox, doorbell, P::TAG)?;
                barrier::hand_over(memory.as_ptr().as_ptr());
                message::read(property, &memory.as_slice()[..len])
            }
            Via::Streaming => {
                message::write(property, self.cacheable.bytes(len));
                let bus = self.cacheable.lend(mailbox.device, len)?;
                let answered = doorbell(bus)
                    .and_then(|doorbell| self.port.exchange(mailbox, doorbell, P::TAG));
                if self.port.owed.is_none() {
                    self.cacheable.take_back();
                }
                // Without an answer the firmware may still write the buffer: it stays lent.
                answered?;
                message::read(property, self.cacheable.bytes(len))
            }
        }
    }
}

impl<Io: RegisterIo> Port<Io> {
    /// Rings the doorbell and waits for the answer.
    fn exchange(
        &mut self,
        mailbox: &Mailbox<Io>,
        doorbell: u32,
        tag: u32,
    ) -> Result<(), MailboxError> {
        let (timer, timeout_ns) = (&mailbox.timer, mailbox.timeout_ns);
        let has_room = || self.io.read32(STATUS_1) & STATUS_FULL == 0;
        if !timer.poll_until(timeout_ns, has_room) {
            return Err(MailboxError::Full);
        }
        // The request, and its maintenance, are in memory before the doorbell rings.
        barrier::dsb_sy();
        self.io.write32(WRITE, doorbell);
        self.owed = Some(doorbell);
        if !timer.poll_until(timeout_ns, || self.collect_owed().is_ok()) {
            return Err(MailboxError::NoAnswer { tag });
        }
        Ok(())
    }

    /// Empties the mailbox, the answer that is owed included. Other words are nobody's here and are
    /// dropped.
    fn collect_owed(&mut self) -> Result<(), MailboxError> {
        for _ in 0..FIFO_WORDS {
            if self.io.read32(STATUS_0) & STATUS_EMPTY != 0 {
                break;
            }
            if Some(self.io.read32(READ)) == self.owed {
                self.owed = None;
                // Loads of the answer come after the look that saw it announced.
                barrier::dmb_oshld();
            }
        }
        match self.owed {
            None => Ok(()),
            Some(_) => Err(MailboxError::Lost),
        }
    }
}

/// The word that names a buffer at `bus` and the channel.
fn doorbell(bus: DmaAddr) -> Result<u32, MailboxError> {
    u32::try_from(bus.get())
        .ok()
        .filter(|bus| bus & CHANNEL_MASK == 0)
        .map(|bus| bus | PROPERTY_CHANNEL)
        .ok_or(MailboxError::BadBuffer(bus))
}

#[cfg(test)]
mod tests;
