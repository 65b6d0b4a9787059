//! The legacy DMA channels of a BCM2711 (BCM2711 ARM Peripherals, chapter 4).
//!
//! Channels 0 to 6 are full, 7 to 10 are lite: 16-bit lengths and about half the bandwidth. A
//! channel follows a chain of control blocks in coherent memory and raises its interrupt after the
//! last. It sees RAM at the 0xC000_0000 alias, which bypasses the VideoCore's cache, and only the
//! first GiB of it. It does not snoop the Arm's caches.
//!
//! Interrupt lines: channels 0 to 6 have shared peripheral interrupts 80 to 86, channels 7 and 8
//! share 87, channels 9 and 10 share 88 (6.2). A channel whose partner on the line raises it, although
//! nobody drives the partner, resets the partner: the line would stay up for ever.
//!
//! QEMU's model runs a chain inside the store that starts it, and never ends if a length is no
//! multiple of 4. It is recognised by `DEBUG.VERSION` 0, and other lengths are refused there.

pub(super) mod chain;
mod channel;
mod control_block;
mod controller;
mod legacy;
mod registers;
pub(super) mod shape;
pub(super) mod window;

pub use channel::Channel;
pub use controller::{Controller, Unavailable};

use crate::dma::DmaError;

/// Bytes of registers in the controller: channels 0 to 14 and the registers they share.
pub const REGISTERS_SIZE: usize = 0x1000;

/// What a channel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Channel 0: full, with a read FIFO for long bursts.
    Fifo,
    /// Channels 1 to 6.
    Full,
    /// Channels 7 to 10: 16-bit lengths.
    Lite,
}

impl Kind {
    pub(super) const fn of(channel: u8) -> Option<Self> {
        match channel {
            0 => Some(Self::Fifo),
            1..=6 => Some(Self::Full),
            7..=10 => Some(Self::Lite),
            _ => None,
        }
    }

    /// The longest transfer, in bytes: the last whole cache line below the length field's end, so
    /// that a long copy is cut at lines. TXFR_LEN has 30 bits, on lite channels 16.
    const fn max_len(self) -> usize {
        match self {
            Self::Fifo | Self::Full => (1 << 30) - 64,
            Self::Lite => (1 << 16) - 64,
        }
    }
}

/// Why a channel cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The channel is not a legacy channel of the Arm.
    #[error("DMA channel {0} is not a legacy channel left to the Arm")]
    Channel(u8),
    /// The channel has a driver already, or does not stop.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The channel sees another GiB of DRAM than the first.
    #[error("DMA channel sees GiB {0} of the DRAM, not the first")]
    DramPage(u32),
    /// No coherent memory for control blocks.
    #[error("no memory for control blocks: {0}")]
    ControlBlocks(#[from] DmaError),
}

#[cfg(test)]
pub(super) mod bench;
#[cfg(test)]
mod tests;
