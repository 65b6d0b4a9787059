//! The registers of one channel, and what those of every kind have in common.

use super::chain::Signal;
use crate::drivers::mmio::RegisterIo;
use tock_registers::{LocalRegisterCopy, register_bitfields};

/// Bytes from one channel's registers to the next one's.
const STRIDE: usize = 0x100;

/// Control and status.
pub(in crate::drivers) const CS_OFFSET: usize = 0x00;

register_bitfields! [u32,
    /// What control and status of every kind of channel has in the same place.
    pub(in crate::drivers) SIGNALS [
        /// Interrupt raised by a control block with INTEN. Write 1 to clear.
        INT OFFSET(2) NUMBITS(1) [],
        /// A control block was completed. Write 1 to clear.
        END OFFSET(1) NUMBITS(1) [],
        /// Runs the channel; clears itself after the last control block.
        ACTIVE OFFSET(0) NUMBITS(1) []
    ]
];

/// The bits that clear themselves when they are written.
pub(in crate::drivers) const ACKNOWLEDGE: u32 = SIGNALS::INT::SET.value | SIGNALS::END::SET.value;

/// The registers of one channel.
#[derive(Debug)]
pub(in crate::drivers) struct Window<'a, Io> {
    io: &'a Io,
    base: usize,
}

impl<'a, Io: RegisterIo> Window<'a, Io> {
    /// The registers of `channel` among those of the controller.
    pub(in crate::drivers) fn new(io: &'a Io, channel: u8) -> Self {
        Self {
            io,
            base: usize::from(channel) * STRIDE,
        }
    }

    pub(in crate::drivers) fn read(&self, offset: usize) -> u32 {
        self.io.read32(self.base + offset)
    }

    pub(in crate::drivers) fn write(&self, offset: usize, value: u32) {
        self.io.write32(self.base + offset, value);
    }

    /// What the channel signals, if anything. `error` is the error bit of its kind.
    ///
    /// An end is one once the channel is idle: to [acknowledge](Self::acknowledge) before would
    /// pause it.
    pub(in crate::drivers) fn signal(&self, error: u32) -> Option<Signal> {
        let status = LocalRegisterCopy::<u32, SIGNALS::Register>::new(self.read(CS_OFFSET));
        if status.get() & error != 0 {
            return Some(Signal::Error);
        }
        let has_ended = status.is_set(SIGNALS::INT) && !status.is_set(SIGNALS::ACTIVE);
        has_ended.then_some(Signal::End)
    }

    /// Withdraws the signal of an end. The channel must be idle.
    pub(in crate::drivers) fn acknowledge(&self) {
        self.write(CS_OFFSET, ACKNOWLEDGE);
    }
}
