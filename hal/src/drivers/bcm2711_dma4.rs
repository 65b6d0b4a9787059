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
use super::bcm2711_dma::shape::Shape;
use super::bcm2711_dma::{Controller, Taken};
use super::mmio::RegisterIo;
use crate::arch::barrier;
use crate::dma::engine::Transfer2d;
use crate::dma::engine::submission::{self, Control, Progress};
use crate::dma::{
    Clock, Coherent, CoherentPool, Completion, Device, DmaEngine, DmaError, Ticket, Transfer,
};
use crate::sync::IrqLock;
use control_block::ControlBlock;
use registers::{CB_OFFSET, CHANNEL_STRIDE, CS, CS_OFFSET, DEBUG, DEBUG_OFFSET, DEBUG2_OFFSET};
use tock_registers::LocalRegisterCopy;

/// `DEBUG.VERSION` of silicon.
const VERSION: u32 = 1;

/// Control blocks of a channel: those that fill a page.
const MAX_BLOCKS: usize = crate::addr::PAGE_SIZE / control_block::SIZE;

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

/// Looks before a channel counts as one that does not stop.
const HALT_LOOKS: u32 = 10_000;

/// Nanoseconds before even the shortest submission counts as hung.
const TIMEOUT_BASE_NS: u64 = 1_000_000_000;
/// Nanoseconds a byte before a submission counts as hung: 10 MB/s, far below any channel.
const TIMEOUT_BYTE_NS: u64 = 100;

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
    /// The channel has a driver already.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// No coherent memory for control blocks.
    #[error("no memory for control blocks: {0}")]
    ControlBlocks(#[from] DmaError),
}

/// A DMA4 channel as a [`DmaEngine`].
#[derive(Debug)]
pub struct Channel<Io: 'static> {
    number: u8,
    device: &'static Device,
    clock: &'static dyn Clock,
    inner: IrqLock<Inner<Io>>,
}

/// What the lock of a channel protects. No other lock is taken under it.
#[derive(Debug)]
struct Inner<Io: 'static> {
    io: &'static Io,
    base: usize,
    blocks: Coherent,
    progress: Progress,
    /// The channel did not stop when told to. It may still access the memory of the submission that
    /// ended so; it gets no other before stopping has worked.
    is_wedged: bool,
}

impl<Io: RegisterIo> Channel<Io> {
    /// Takes channel `number` over: enables and stops it, and allocates its control blocks. `mask`
    /// says which channels are the Arm's, and `device` describes the channel's reach.
    ///
    /// # Errors
    ///
    /// [`ProbeError`].
    pub fn probe(
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
        let base = usize::from(number) * CHANNEL_STRIDE;
        let io = controller.io();
        let debug = LocalRegisterCopy::<u32, DEBUG::Register>::new(io.read32(base + DEBUG_OFFSET));
        let version = debug.read(DEBUG::VERSION);
        if version != VERSION {
            return Err(ProbeError::Version { number, version });
        }
        let blocks = pool.alloc(device, MAX_BLOCKS * control_block::SIZE)?;
        controller.claim(number)?;
        let mut inner = Inner {
            io,
            base,
            blocks,
            progress: Progress::new(),
            is_wedged: false,
        };
        inner.stop();
        Ok(Self {
            number,
            device,
            clock,
            inner: IrqLock::new(inner),
        })
    }

    /// The channel's number.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Starts the chain of `count` control blocks that `block` makes.
    fn start(
        &self,
        count: usize,
        block: impl Fn(usize) -> ControlBlock,
    ) -> Result<Ticket, DmaError> {
        let mut inner = self.inner.lock();
        if inner.progress.is_taken() {
            return Err(DmaError::Busy);
        }
        if inner.is_wedged && !inner.stop() {
            return Err(DmaError::Wedged);
        }
        for index in 0..count {
            inner.write_block(index, index + 1 == count, block(index))?;
        }
        let first = inner.pointer(0)?;
        let ticket = inner.progress.start();
        // The control blocks, and the maintenance and stores of the buffers, are in memory before
        // the channel is told to look.
        barrier::dsb_sy();
        inner.write(CB_OFFSET, first);
        let start = CS::WAIT_FOR_OUTSTANDING_WRITES::SET
            + CS::DISDEBUG::SET
            + CS::PANIC_QOS.val(PANIC_QOS)
            + CS::QOS.val(QOS)
            + CS::ACTIVE::SET;
        inner.write(CS_OFFSET, start.value);
        Ok(ticket)
    }
}

impl<Io: RegisterIo> Inner<Io> {
    fn read(&self, offset: usize) -> u32 {
        self.io.read32(self.base + offset)
    }

    fn write(&self, offset: usize, value: u32) {
        self.io.write32(self.base + offset, value);
    }

    fn status(&self) -> LocalRegisterCopy<u32, CS::Register> {
        LocalRegisterCopy::new(self.read(CS_OFFSET))
    }

    /// The error bits of DEBUG.
    fn errors(&self) -> u32 {
        self.read(DEBUG_OFFSET) & DEBUG_ERRORS
    }

    /// Whether the channel works no more and nothing of it is on the bus.
    fn is_quiet(&self) -> bool {
        let status = self.status();
        !status.is_set(CS::ACTIVE)
            && !status.is_set(CS::DMA_BUSY)
            && !status.is_set(CS::OUTSTANDING_TRANSACTIONS)
            && !status.is_set(CS::WAITING_FOR_OUTSTANDING_WRITES)
            && self.read(DEBUG2_OFFSET) == 0
    }

    fn becomes_quiet(&self) -> bool {
        (0..HALT_LOOKS).any(|_| {
            core::hint::spin_loop();
            self.is_quiet()
        })
    }

    /// Stops the channel whatever it is doing and leaves it without errors: halt it, which lets what
    /// is on the bus end; if that does not help, have it give the control block up; reset it. Returns
    /// whether it is known to be quiet. One that is not is never reset: that would be fatal.
    fn stop(&mut self) -> bool {
        let mut quiet = self.is_quiet();
        for how in [CS::HALT::SET, CS::HALT::SET + CS::ABORT::SET] {
            if !quiet {
                // ACTIVE stays: a paused channel would not get to its end.
                self.write(CS_OFFSET, self.status().get() | how.value);
                quiet = self.becomes_quiet();
            }
        }
        if quiet {
            self.write(DEBUG_OFFSET, DEBUG::RESET::SET.value);
            let acknowledge = CS::INT::SET + CS::END::SET;
            self.write(CS_OFFSET, acknowledge.value);
            // Errors are cleared by writing them, should the reset have left any.
            self.write(DEBUG_OFFSET, DEBUG_SETTING | self.errors());
        }
        barrier::dsb_sy();
        self.is_wedged = !quiet;
        quiet
    }

    /// Stops the channel and closes its submission with `error`.
    fn stop_with(&mut self, error: DmaError) {
        let error = if self.stop() { error } else { DmaError::Wedged };
        self.progress.finish(Err(error));
    }

    /// How the channel is told of control block number `index`.
    fn pointer(&self, index: usize) -> Result<u32, DmaError> {
        let addr = self.blocks.dma_addr() + index * control_block::SIZE;
        control_block::pointer(addr).ok_or(DmaError::ForeignAddress {
            addr,
            len: control_block::SIZE,
        })
    }

    /// Writes control block number `index`, the last of its chain or not.
    fn write_block(
        &mut self,
        index: usize,
        is_last: bool,
        block: ControlBlock,
    ) -> Result<(), DmaError> {
        let next = match is_last {
            true => None,
            false => Some(self.pointer(index + 1)?),
        };
        self.blocks
            .write_words(index * control_block::SIZE, &block.words(next))
    }
}

impl<Io: RegisterIo> Control for Inner<Io> {
    /// Stopping ends whatever runs.
    const GRACE_NS: u64 = 0;

    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn serve(&mut self) -> bool {
        // Accesses to different peripherals are not ordered against each other: barriers at entry
        // and exit of a handler (BCM2711 ARM Peripherals, 1.3).
        barrier::dsb_sy();
        let status = self.status();
        if !status.is_set(CS::INT) && !status.is_set(CS::ERROR) {
            return false;
        }
        let flags = self.errors();
        if status.is_set(CS::ERROR) || flags != 0 {
            self.stop_with(DmaError::Bus { flags });
        } else {
            // Only the last control block of a chain raises INT, so the channel is idle.
            let acknowledge = CS::INT::SET + CS::END::SET;
            self.write(CS_OFFSET, acknowledge.value);
            self.progress.finish(Ok(()));
        }
        barrier::dsb_sy();
        true
    }

    fn cancel(&mut self, error: DmaError) {
        if self.progress.is_running() {
            let error = match self.errors() {
                0 => error,
                flags => DmaError::Bus { flags },
            };
            self.stop_with(error);
        }
    }

    fn give_up(&mut self, _: DmaError) {
        self.progress.finish(Err(DmaError::Wedged));
    }
}

impl<Io: RegisterIo + Send + Sync> DmaEngine for Channel<Io> {
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
        MAX_BLOCKS
    }

    fn timeout_ns(&self, len: usize) -> u64 {
        TIMEOUT_BASE_NS.saturating_add((len as u64).saturating_mul(TIMEOUT_BYTE_NS))
    }

    unsafe fn submit(&self, transfers: &[Transfer]) -> Result<Ticket, DmaError> {
        self.check(transfers)?;
        self.start(transfers.len(), |index| {
            let Transfer { src, dst, len } = transfers[index];
            // CAST: at most MAX_LEN, which has 30 bits.
            let shape = Shape::Linear(len as u32);
            ControlBlock { src, dst, shape }
        })
    }

    unsafe fn submit_2d(&self, transfer: &Transfer2d) -> Result<Ticket, DmaError> {
        self.check_2d(transfer)?;
        let shape = Shape::rows(&transfer.shape)?;
        let &Transfer2d { src, dst, .. } = transfer;
        self.start(1, |_| ControlBlock { src, dst, shape })
    }

    fn on_interrupt(&self) -> bool {
        submission::on_interrupt(&self.inner)
    }

    fn interrupts(&self) -> u64 {
        self.inner.lock().progress.interrupts()
    }

    fn wait(&self, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        let by = Completion::Interrupt;
        submission::wait(&self.inner, self.clock, ticket, timeout_ns, by)
    }

    fn wait_polled(&self, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        let by = Completion::Polled;
        submission::wait(&self.inner, self.clock, ticket, timeout_ns, by)
    }

    fn abort(&self) {
        self.inner.lock().cancel(DmaError::Aborted);
    }
}

#[cfg(test)]
mod tests;
