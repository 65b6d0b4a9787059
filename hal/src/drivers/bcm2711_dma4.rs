//! The DMA4 channels of a BCM2711 (BCM2711 ARM Peripherals, chapter 4): 11 to 14.
//!
//! They share the controller with the [legacy channels](super::bcm2711_dma) and have registers and
//! control blocks of their own, with 40-bit addresses. RAM is where the Arm sees it; `ENABLE.PAGE`
//! does not apply. They do not snoop the Arm's caches either. The VideoCore firmware uses channel 11.
//!
//! Interrupt lines: shared peripheral interrupts 89 to 92 (6.2.4).
//!
//! QEMU has legacy channels in their place. They are recognised by `DEBUG.VERSION`, which is 1.

mod control_block;
mod registers;

use super::bcm2711_channels::{ChannelKind, ChannelMask};
use super::bcm2711_dma::chain::{self, Chain, Registers, Signal};
use super::bcm2711_dma::shape::Shape;
use super::bcm2711_dma::window::{ACKNOWLEDGE, CS_OFFSET, Window};
use super::bcm2711_dma::{Controller, Unavailable};
use super::mmio::RegisterIo;
use crate::addr::DmaAddr;
use crate::dma::engine::Transfer2d;
use crate::dma::engine::submission::{self, Control};
use crate::dma::{Clock, CoherentPool, Completion, Device, DmaEngine, DmaError, Ticket, Transfer};
use crate::sync::IrqLock;
use control_block::ControlBlock;
use registers::{CB_OFFSET, CS, DEBUG, DEBUG_OFFSET, DEBUG2_OFFSET};
use tock_registers::LocalRegisterCopy;

/// `DEBUG.VERSION` of silicon.
const VERSION: u32 = 1;

/// The longest transfer, in bytes: the last whole cache line below the end of LEN's 30 bits.
const MAX_LEN: usize = (1 << 30) - 64;

/// Bus priority of the engine against others, 0 to 15: just above the lowest.
const QOS: u32 = 1;
/// Bus priority in a panic: the highest.
const PANIC_QOS: u32 = 15;

/// The errors DEBUG reports.
const DEBUG_ERRORS: u32 = DEBUG::READ_CB_ERROR::SET.value
    | DEBUG::READ_ERROR::SET.value
    | DEBUG::FIFO_ERROR::SET.value
    | DEBUG::WRITE_ERROR::SET.value;

/// What DEBUG is set to: an error raises the interrupt and stops the channel. The datasheet and
/// Linux's driver disagree which of the other two bits halts and which aborts; with both set the
/// chain does not go on either way, and whoever looks at its end finds the error.
const DEBUG_SETTING: u32 = DEBUG::INT_ON_ERROR::SET.value
    | DEBUG::HALT_ON_ERROR::SET.value
    | DEBUG::ABORT_ON_ERROR::SET.value;

/// Why a channel cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The channel is not a DMA4 channel of the Arm.
    #[error("DMA channel {0} is not a DMA4 channel left to the Arm")]
    Channel(u8),
    /// The channel has another register layout: an emulator's.
    #[error("DMA channel {number} has version {version}, not {VERSION}: not modelled here")]
    Version {
        /// The channel.
        number: u8,
        /// Its `DEBUG.VERSION`.
        version: u32,
    },
    /// The channel has a driver already, or does not stop.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// No coherent memory for control blocks.
    #[error("no memory for control blocks: {0}")]
    ControlBlocks(#[from] DmaError),
}

/// A DMA4 channel as a [`DmaEngine`].
///
/// Dropping it stops the channel, whose control blocks are leaked if it does not stop: it may still
/// read them. The memory of a submission is the submitter's until its `wait` has returned. The
/// channel stays [taken](Unavailable::Taken).
#[derive(Debug)]
pub struct Channel<Io: RegisterIo + 'static> {
    number: u8,
    device: &'static Device,
    clock: &'static dyn Clock,
    chain: IrqLock<Chain<Dma4Registers<'static, Io>>>,
}

/// The registers of a DMA4 channel.
#[derive(Debug)]
struct Dma4Registers<'a, Io>(Window<'a, Io>);

impl<Io: RegisterIo> Channel<Io> {
    /// Takes channel `number` over: enables and stops it, and allocates its control blocks. `mask`
    /// says which channels are the Arm's. One that has another register layout stays
    /// [taken](Unavailable::Taken).
    ///
    /// # Errors
    ///
    /// [`ProbeError`].
    ///
    /// # Safety
    ///
    /// `device` describes this channel: the bus it is on, and what it reaches there. Nobody but the Arm
    /// uses a channel that `mask` names.
    pub unsafe fn probe(
        controller: &'static Controller<Io>,
        number: u8,
        mask: ChannelMask,
        device: &'static Device,
        pool: &'static CoherentPool,
        clock: &'static dyn Clock,
    ) -> Result<Self, ProbeError> {
        if !mask.contains(number) || ChannelKind::of(number) != Some(ChannelKind::Dma4) {
            return Err(ProbeError::Channel(number));
        }
        let blocks = Chain::<Dma4Registers<'_, Io>>::allocate(pool, device)?;
        controller.claim(number)?;
        let registers = Dma4Registers(Window::new(controller.io(), number));
        // Only now: a look clears the errors, which another driver may wait for.
        let version = registers.debug().read(DEBUG::VERSION);
        if version != VERSION {
            return Err(ProbeError::Version { number, version });
        }
        let chain = Chain::new(registers, blocks).ok_or_else(|| controller.condemn(number))?;
        Ok(Self {
            number,
            device,
            clock,
            chain: IrqLock::new(chain),
        })
    }

    /// The channel's number.
    pub fn number(&self) -> u8 {
        self.number
    }
}

impl<Io: RegisterIo> Dma4Registers<'_, Io> {
    fn status(&self) -> LocalRegisterCopy<u32, CS::Register> {
        LocalRegisterCopy::new(self.0.read(CS_OFFSET))
    }

    fn debug(&self) -> LocalRegisterCopy<u32, DEBUG::Register> {
        LocalRegisterCopy::new(self.0.read(DEBUG_OFFSET))
    }

    /// Whether the channel works no more and nothing of it is on the bus.
    fn is_quiet(&self) -> bool {
        let status = self.status();
        !status.is_set(CS::ACTIVE)
            && !status.is_set(CS::DMA_BUSY)
            && !status.is_set(CS::OUTSTANDING_TRANSACTIONS)
            && !status.is_set(CS::WAITING_FOR_OUTSTANDING_WRITES)
            && self.0.read(DEBUG2_OFFSET) == 0
    }
}

impl<Io: RegisterIo> Registers for Dma4Registers<'_, Io> {
    fn pointer(addr: DmaAddr) -> Option<u32> {
        control_block::pointer(addr)
    }

    fn start(&self, first: u32) {
        self.0.write(CB_OFFSET, first);
        let start = CS::WAIT_FOR_OUTSTANDING_WRITES::SET
            + CS::DISDEBUG::SET
            + CS::PANIC_QOS.val(PANIC_QOS)
            + CS::QOS.val(QOS)
            + CS::ACTIVE::SET;
        self.0.write(CS_OFFSET, start.value);
    }

    fn signal(&self) -> Option<Signal> {
        self.0.signal(CS::ERROR::SET.value)
    }

    fn acknowledge(&self) {
        self.0.acknowledge();
    }

    fn errors(&self) -> u32 {
        self.debug().get() & DEBUG_ERRORS
    }

    /// Halts, which lets what is on the bus end; if that does not help, has the control block given
    /// up; resets. A channel that is not quiet is never reset: that would be fatal.
    fn stop(&self) -> bool {
        let mut quiet = chain::stays_quiet(|| self.is_quiet());
        for how in [CS::HALT::SET, CS::HALT::SET + CS::ABORT::SET] {
            if !quiet {
                // ACTIVE stays: a paused channel would not get to its end. Nothing is acknowledged.
                let status = self.status().get() & !ACKNOWLEDGE;
                self.0.write(CS_OFFSET, status | how.value);
                quiet = chain::becomes_quiet(|| self.is_quiet());
            }
        }
        if quiet {
            self.0.write(DEBUG_OFFSET, DEBUG::RESET::SET.value);
            self.acknowledge();
            // A look clears the errors, should the reset have left any.
            self.errors();
            self.0.write(DEBUG_OFFSET, DEBUG_SETTING);
        }
        quiet
    }
}

// SAFETY: `submission::wait` returns when the channel has ended or was stopped, with `Wedged` if not.
unsafe impl<Io: RegisterIo + Send + Sync> DmaEngine for Channel<Io> {
    fn device(&self) -> &'static Device {
        self.device
    }

    fn length_granule(&self) -> usize {
        1
    }

    fn max_len(&self) -> usize {
        MAX_LEN
    }

    fn max_transfers(&self) -> usize {
        chain::MAX_BLOCKS
    }

    fn timeout_ns(&self, len: usize) -> u64 {
        chain::timeout_ns(len)
    }

    unsafe fn submit(&self, transfers: &[Transfer]) -> Result<Ticket, DmaError> {
        self.check(transfers)?;
        self.chain.lock().submit(transfers.len(), |index, next| {
            let Transfer { src, dst, len } = transfers[index];
            // CAST: at most MAX_LEN, which has 30 bits.
            let shape = Shape::Linear(len as u32);
            Ok(ControlBlock { src, dst, shape }.words(next))
        })
    }

    unsafe fn submit_2d(&self, transfer: &Transfer2d) -> Result<Ticket, DmaError> {
        self.check_2d(transfer)?;
        let shape = Shape::rows(&transfer.shape)?;
        let &Transfer2d { src, dst, .. } = transfer;
        let block = ControlBlock { src, dst, shape };
        let words = |_, next| Ok(block.words(next));
        self.chain.lock().submit(1, words)
    }

    fn on_interrupt(&self) -> bool {
        submission::on_interrupt(&self.chain)
    }

    fn interrupts(&self) -> u64 {
        self.chain.lock().progress().interrupts()
    }

    fn wait_by(&self, by: Completion, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        submission::wait(&self.chain, self.clock, ticket, timeout_ns, by)
    }

    fn lost_interrupts(&self) -> u64 {
        self.chain.lock().progress().lost_interrupts()
    }

    fn abort(&self) {
        self.chain.lock().cancel(DmaError::Aborted);
    }
}

#[cfg(test)]
mod tests;
