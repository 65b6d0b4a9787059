//! The BCM2711's mailbox to the VideoCore firmware, property channel.
//!
//! The firmware reads the request from memory and writes its answer over it, past the caches of
//! the Arm cores: one request is one round of non-coherent DMA. So the buffer is written back and
//! dropped from the caches before the doorbell, and dropped again before the answer is read,
//! because a speculative read may have fetched a line in between.

use super::registers;
use super::timer::Timer;
use crate::addr::{DmaAddr, PhysAddr, PhysRange, VirtAddr};
use crate::arch::{barrier, cache};
use core::mem::{align_of, offset_of, size_of};
use safe_mmio::fields::{ReadOnly, ReadPure, WriteOnly};
use safe_mmio::{UniqueMmioPointer, field, field_shared};
use thiserror::Error;

/// The channel of property requests, in the low four bits of a mailbox word.
const PROPERTY_CHANNEL: u32 = 8;
const CHANNEL_MASK: u32 = 0xF;

/// `STATUS0`: nothing to read.
const STATUS_EMPTY: u32 = 1 << 30;
/// `STATUS1`: no room to write.
const STATUS_FULL: u32 = 1 << 31;

/// A request, and the firmware's "done" answer to it.
const CODE_REQUEST: u32 = 0;
const CODE_DONE: u32 = 0x8000_0000;
/// In a tag's length: the firmware answered this tag.
const TAG_ANSWERED: u32 = 1 << 31;

/// Tags of the property interface (Linux `include/soc/bcm2835/raspberrypi-firmware.h`).
const TAG_BOARD_REVISION: u32 = 0x0001_0002;
const TAG_ARM_MEMORY: u32 = 0x0001_0005;
const TAG_SET_CLOCK_RATE: u32 = 0x0003_8002;

/// How long the firmware may take. It answers within milliseconds unless it is dead.
const TIMEOUT_NS: u64 = 1_000_000_000;

/// Words in a buffer: one cache line of the Cortex-A72, 64 bytes.
const BUFFER_WORDS: usize = 16;
/// Words before the values: total size, code, and the tag's number, space and length.
const HEADER_WORDS: usize = 5;

/// The registers used here.
#[repr(C)]
struct Registers {
    /// `READ` of the mailbox to the Arm cores.
    read: ReadOnly<u32>,
    _unused_0: [u32; 5],
    /// `STATUS0`.
    status_0: ReadPure<u32>,
    _unused_1: u32,
    /// `WRITE` of the mailbox to the VideoCore.
    write: WriteOnly<u32>,
    _unused_2: [u32; 5],
    /// `STATUS1`.
    status_1: ReadPure<u32>,
}

const _: () = {
    assert!(offset_of!(Registers, status_0) == 0x18);
    assert!(offset_of!(Registers, write) == 0x20);
    assert!(offset_of!(Registers, status_1) == 0x38);
};

/// The memory of a request and its answer. It fills its cache line, so that nothing else is lost
/// when the line is dropped.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PropertyBuffer([u32; BUFFER_WORDS]);

const _: () = assert!(size_of::<PropertyBuffer>() == align_of::<PropertyBuffer>());

impl PropertyBuffer {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self([0; BUFFER_WORDS])
    }
}

impl Default for PropertyBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// A clock the firmware controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Clock {
    /// The clock of the PL011 UARTs.
    Uart = 2,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MailboxError {
    /// The buffer's bus address has more than 32 bits or is not a multiple of 16.
    #[error("the firmware cannot be given a buffer at bus address {0}")]
    BadBuffer(DmaAddr),
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
    /// The firmware could not read the request.
    #[error("the firmware answered tag {tag:#x} with code {code:#x}")]
    Refused {
        /// The tag asked for.
        tag: u32,
        /// The answer's code.
        code: u32,
    },
    /// The firmware does not know the tag, or answered less than the tag promises.
    #[error("the firmware answered tag {tag:#x} with {bytes} bytes")]
    Short {
        /// The tag asked for.
        tag: u32,
        /// Bytes of the answer.
        bytes: u32,
    },
}

/// The property mailbox.
#[derive(Debug)]
pub struct Mailbox {
    registers: UniqueMmioPointer<'static, Registers>,
    buffer: *mut [u32; BUFFER_WORDS],
    /// The word that names the buffer and the channel.
    doorbell: u32,
    timer: Timer,
    lost: bool,
}

// SAFETY: `buffer` is memory that the mailbox owns for the rest of the program, on every core.
unsafe impl Send for Mailbox {}

impl Mailbox {
    /// The mailbox with its registers at `base`, which uses `buffer`, known to the firmware as
    /// `bus`. The buffer may be cached or not.
    ///
    /// # Errors
    ///
    /// [`MailboxError::BadBuffer`] if `bus` cannot be written to the mailbox.
    ///
    /// # Safety
    ///
    /// `base` maps the registers of mailboxes 0 and 1 (the second pair of the chip, offset 0x880
    /// in its block) as Device memory for the rest of the program, and nothing else accesses them
    /// while the value lives. `bus` is the address by which the VideoCore reaches `buffer`.
    pub unsafe fn new(
        base: VirtAddr,
        buffer: &'static mut PropertyBuffer,
        bus: DmaAddr,
        timer: Timer,
    ) -> Result<Self, MailboxError> {
        let doorbell = u32::try_from(bus.get())
            .ok()
            .filter(|bus| bus & CHANNEL_MASK == 0)
            .map(|bus| bus | PROPERTY_CHANNEL)
            .ok_or(MailboxError::BadBuffer(bus))?;
        Ok(Self {
            // SAFETY: promised by the caller.
            registers: unsafe { registers(base) },
            buffer: VirtAddr::from_ptr(buffer).as_ptr(),
            doorbell,
            timer,
            lost: false,
        })
    }

    /// Sets `clock` to `hz` and returns the rate the firmware chose, in Hz.
    ///
    /// # Errors
    ///
    /// Any [`MailboxError`].
    pub fn set_clock_rate(&mut self, clock: Clock, hz: u32) -> Result<u32, MailboxError> {
        // The third word would be "skip setting turbo"; the answer is the clock and its rate.
        let [_, rate] = self.request(TAG_SET_CLOCK_RATE, [clock as u32, hz, 0])?;
        Ok(rate)
    }

    /// The board revision code.
    ///
    /// # Errors
    ///
    /// Any [`MailboxError`].
    pub fn board_revision(&mut self) -> Result<u32, MailboxError> {
        let [revision] = self.request(TAG_BOARD_REVISION, [0])?;
        Ok(revision)
    }

    /// The part of the first GiB of RAM that belongs to the Arm cores.
    ///
    /// # Errors
    ///
    /// Any [`MailboxError`].
    pub fn arm_memory(&mut self) -> Result<PhysRange, MailboxError> {
        let [base, size] = self.request(TAG_ARM_MEMORY, [0, 0])?;
        let start = PhysAddr::new(base.into());
        Ok(PhysRange::new(start, start + size as usize))
    }

    /// Sends `tag` with `values` and returns the first words of the answer.
    fn request<const IN: usize, const OUT: usize>(
        &mut self,
        tag: u32,
        values: [u32; IN],
    ) -> Result<[u32; OUT], MailboxError> {
        const { assert!(OUT <= IN && HEADER_WORDS + IN < BUFFER_WORDS) };
        if self.lost {
            return Err(MailboxError::Lost);
        }
        self.fill(tag, &values);
        self.exchange(tag)?;
        // SAFETY: the buffer fills its lines, and the answer replaces what was stored there.
        unsafe { cache::invalidate_line(VirtAddr::from_ptr(self.buffer)) };
        barrier::dsb_sy();
        let code = self.word(1);
        if code != CODE_DONE {
            return Err(MailboxError::Refused { tag, code });
        }
        let length = self.word(4);
        let bytes = length & !TAG_ANSWERED;
        if length & TAG_ANSWERED == 0 || (bytes as usize) < size_of::<[u32; OUT]>() {
            return Err(MailboxError::Short { tag, bytes });
        }
        Ok(core::array::from_fn(|index| {
            self.word(HEADER_WORDS + index)
        }))
    }

    /// Writes a request of one tag into the buffer and hands the buffer over.
    fn fill(&mut self, tag: u32, values: &[u32]) {
        let value_bytes = size_of_val(values) as u32;
        let header = [
            size_of::<PropertyBuffer>() as u32,
            CODE_REQUEST,
            tag,
            value_bytes,
            0,
        ];
        let mut words = [0; BUFFER_WORDS];
        for (word, value) in words.iter_mut().zip(header.iter().chain(values)) {
            *word = *value;
        }
        // SAFETY: the mailbox owns the buffer, and the firmware is not using it: no request is
        // under way.
        unsafe { self.buffer.write_volatile(words) };
        cache::clean_invalidate_line(VirtAddr::from_ptr(self.buffer));
        // The request is in memory before the doorbell rings.
        barrier::dsb_sy();
    }

    /// Rings the doorbell and waits for the answer.
    fn exchange(&mut self, tag: u32) -> Result<(), MailboxError> {
        let registers = &mut self.registers;
        let has_room = || field_shared!(*registers, status_1).read() & STATUS_FULL == 0;
        if !self.timer.poll_until(TIMEOUT_NS, has_room) {
            return Err(MailboxError::Full);
        }
        field!(*registers, write).write(self.doorbell);
        let doorbell = self.doorbell;
        // Words of other channels are nobody's here and are dropped.
        let answered = || {
            field_shared!(*registers, status_0).read() & STATUS_EMPTY == 0
                && field!(*registers, read).read() == doorbell
        };
        if !self.timer.poll_until(TIMEOUT_NS, answered) {
            self.lost = true;
            return Err(MailboxError::NoAnswer { tag });
        }
        Ok(())
    }

    fn word(&self, index: usize) -> u32 {
        // SAFETY: the mailbox owns the buffer, and the index is checked.
        unsafe { (&raw const (*self.buffer)[index]).read_volatile() }
    }
}

#[cfg(test)]
mod tests;
