//! What the channels share: the registers, `ENABLE`, and interrupt lines.

use super::Kind;
use super::chain::Registers;
use super::legacy::LegacyRegisters;
use super::registers::{ENABLE, ENABLE_OFFSET};
use crate::arch::barrier;
use crate::drivers::bcm2711_channels::ChannelMask;
use crate::drivers::mmio::RegisterIo;
use crate::sync::IrqLock;
use tock_registers::LocalRegisterCopy;

/// The controller: the registers of all its channels.
#[derive(Debug)]
pub struct Controller<Io> {
    io: Io,
    shared: IrqLock<Shared>,
}

/// Why a channel cannot get a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The channel has a driver already.
    #[error("DMA channel {0} is in use")]
    Taken(u8),
    /// The channel was at work, and did not stop. It may write memory at any time.
    #[error("DMA channel {0} does not stop and is not used")]
    Wedged(u8),
}

/// What the controller's lock protects, beside `ENABLE`. No other lock is taken under it.
#[derive(Debug)]
struct Shared {
    /// Channels that have a driver, one bit each.
    claimed: u32,
    /// Channels that nobody drives and that did not stop, one bit each.
    stuck: u32,
    /// Interrupts of channels without one.
    strays: u64,
}

impl<Io: RegisterIo> Controller<Io> {
    /// The controller with the registers `io` ([`REGISTERS_SIZE`](super::REGISTERS_SIZE) bytes). A
    /// channel's driver touches those of its channel; the rest is touched here.
    pub const fn new(io: Io) -> Self {
        Self {
            io,
            shared: IrqLock::new(Shared {
                claimed: 0,
                stuck: 0,
                strays: 0,
            }),
        }
    }

    /// Interrupts of channels that nobody drives, which were made to stop.
    pub fn strays(&self) -> u64 {
        self.shared.lock().strays
    }

    /// Whether the controller is QEMU's model, whose channels have version 0. Channel 0 is looked at,
    /// which every controller has; reading `DEBUG` disturbs nobody who uses it.
    pub fn is_modelled(&self) -> bool {
        LegacyRegisters::new(&self.io, 0).version() == 0
    }

    /// The registers, for the driver of a claimed channel.
    pub(in crate::drivers) const fn io(&self) -> &Io {
        &self.io
    }

    fn enable(&self) -> LocalRegisterCopy<u32, ENABLE::Register> {
        LocalRegisterCopy::new(self.io.read32(ENABLE_OFFSET))
    }

    /// The GiB of DRAM that channels of `kind` see.
    pub(super) fn dram_page(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Fifo | Kind::Full => self.enable().read(ENABLE::PAGE),
            Kind::Lite => self.enable().read(ENABLE::PAGELITE),
        }
    }

    /// Takes channel `number` and enables it, leaving the others and the DRAM pages as they are.
    pub(in crate::drivers) fn claim(&self, number: u8) -> Result<(), Unavailable> {
        let channel = 1 << number;
        let mut shared = self.shared.lock();
        if shared.stuck & channel != 0 {
            return Err(Unavailable::Wedged(number));
        }
        if shared.claimed & channel != 0 {
            return Err(Unavailable::Taken(number));
        }
        shared.claimed |= channel;
        let enable = self.enable();
        if enable.read(ENABLE::CHANNELS) & channel == 0 {
            self.io.write32(ENABLE_OFFSET, enable.get() | channel);
        }
        Ok(())
    }

    /// Gives channel `number` up, which was [claimed](Self::claim) and does not stop.
    pub(in crate::drivers) fn condemn(&self, number: u8) -> Unavailable {
        self.shared.lock().stuck |= 1 << number;
        Unavailable::Wedged(number)
    }

    /// Makes the channel that shares its line with `number` stop raising it, if it does, is the
    /// Arm's by `mask`, and has no driver. Returns whether it was so.
    ///
    /// A channel of somebody else is left alone, and one that does not stop is never tried again: then
    /// the line has to be masked.
    pub(super) fn quieten(&self, number: u8, mask: ChannelMask) -> bool {
        let Some(partner) = partner(number).filter(|&partner| mask.contains(partner)) else {
            return false;
        };
        let mut shared = self.shared.lock();
        if (shared.claimed | shared.stuck) & (1 << partner) != 0 {
            return false;
        }
        let registers = LegacyRegisters::new(&self.io, partner);
        if !registers.raises_line() {
            return false;
        }
        if !registers.stop() {
            shared.stuck |= 1 << partner;
            return false;
        }
        shared.strays += 1;
        // The line is level: the acknowledgement reaches it before the end of interrupt.
        barrier::dsb_sy();
        true
    }
}

/// The channel on the same interrupt line (BCM2711 ARM Peripherals, 6.2.4).
const fn partner(number: u8) -> Option<u8> {
    match number {
        7 => Some(8),
        8 => Some(7),
        9 => Some(10),
        10 => Some(9),
        _ => None,
    }
}
