//! The legacy DMA channels of a BCM2711 (BCM2711 ARM Peripherals, chapter 4).
//!
//! Channels 0 to 6 are full, 7 to 10 are lite: 16-bit lengths and about half the bandwidth. A
//! channel follows a chain of control blocks in coherent memory and raises its interrupt after the
//! last. It sees RAM at the 0xC000_0000 alias, which bypasses the VideoCore's cache, and only the
//! first GiB of it. It does not snoop the Arm's caches.
//!
//! Interrupt lines: channels 0 to 6 have shared peripheral interrupts 80 to 86, channels 7 and 8
//! share 87, channels 9 and 10 share 88 (6.2), so handlers ask each channel of the line.
//!
//! QEMU's model runs a chain inside the store that starts it, and never ends if a length is no
//! multiple of 4. It is recognised by `DEBUG.VERSION` 0, and other lengths are refused there.

mod control_block;
mod registers;

use super::mmio::RegisterIo;
use crate::addr::DmaAddr;
use crate::arch::barrier;
use crate::dma::engine::{Progress, wait_for};
use crate::dma::{Clock, Coherent, CoherentPool, Device, DmaEngine, DmaError, Ticket, Transfer};
use crate::sync::IrqLock;
use control_block::ControlBlock;
use registers::{
    CHANNEL_STRIDE, CONBLK_AD_OFFSET, CS, CS_OFFSET, DEBUG, DEBUG_OFFSET, ENABLE, ENABLE_OFFSET,
};
use tock_registers::LocalRegisterCopy;

/// Bytes of registers in the controller: channels 0 to 14 and the registers they share.
pub const REGISTERS_SIZE: usize = 0x1000;

/// Which channels are the Arm's, one bit a channel: `brcm,dma-channel-mask` of the device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelMask(u32);

impl ChannelMask {
    /// The legacy channels the Raspberry Pi firmware leaves to the Arm: 0, 2 and 4 to 10.
    pub const RASPBERRY_PI: Self = Self(0x07F5);

    /// The channels whose bits are set.
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether the channel is in the mask.
    pub const fn contains(self, channel: u8) -> bool {
        matches!(self.0.checked_shr(channel as u32), Some(bits) if bits & 1 != 0)
    }
}

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
    const fn of(channel: u8) -> Option<Self> {
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
    /// The channel sees another GiB of DRAM than the first.
    #[error("DMA channel sees GiB {0} of the DRAM, not the first")]
    DramPage(u32),
    /// No coherent memory for control blocks.
    #[error("no memory for control blocks: {0}")]
    ControlBlocks(#[from] DmaError),
}

/// Control blocks of a channel: those that fill a page.
const MAX_BLOCKS: usize = crate::addr::PAGE_SIZE / control_block::SIZE;

/// Bus priority of the engine against others, 0 to 15: just above the lowest.
const PRIORITY: u32 = 1;
/// Bus priority in a panic: the highest, so that a peripheral's FIFO does not overrun.
const PANIC_PRIORITY: u32 = 15;

/// The errors DEBUG reports, and the bits that clear them.
const DEBUG_ERRORS: u32 = DEBUG::READ_ERROR::SET.value
    | DEBUG::FIFO_ERROR::SET.value
    | DEBUG::READ_LAST_NOT_SET_ERROR::SET.value;

/// Looks at `CS` before outstanding writes count as lost, as in Linux's driver.
const ABORT_LOOKS: u32 = 10_000;

/// Nanoseconds before even the shortest submission counts as hung.
const TIMEOUT_BASE_NS: u64 = 1_000_000_000;
/// Nanoseconds a byte before a submission counts as hung: 10 MB/s, far below any channel.
const TIMEOUT_BYTE_NS: u64 = 100;

/// A legacy channel as a [`DmaEngine`].
#[derive(Debug)]
pub struct Channel<Io> {
    number: u8,
    kind: Kind,
    granule: usize,
    device: &'static Device,
    clock: &'static dyn Clock,
    inner: IrqLock<Inner<Io>>,
}

/// What the lock of a channel protects. The lock is taken last: no other lock is taken under it.
#[derive(Debug)]
struct Inner<Io> {
    io: Io,
    base: usize,
    blocks: Coherent,
    progress: Progress,
}

impl<Io: RegisterIo> Channel<Io> {
    /// Takes channel `number` over: stops it, enables it, and allocates its control blocks.
    ///
    /// `io` are the registers of the whole controller ([`REGISTERS_SIZE`] bytes), of which the
    /// driver touches those of its channel and `ENABLE`. `device` describes the channel's reach.
    /// Channels of one controller are probed one after the other.
    ///
    /// # Errors
    ///
    /// [`ProbeError`].
    pub fn probe(
        io: Io,
        number: u8,
        mask: ChannelMask,
        device: &'static Device,
        pool: &'static CoherentPool,
        clock: &'static dyn Clock,
    ) -> Result<Self, ProbeError> {
        let kind = Kind::of(number)
            .filter(|_| mask.contains(number))
            .ok_or(ProbeError::Channel(number))?;
        let enable = LocalRegisterCopy::<u32, ENABLE::Register>::new(io.read32(ENABLE_OFFSET));
        let page = match kind {
            Kind::Fifo | Kind::Full => enable.read(ENABLE::PAGE),
            Kind::Lite => enable.read(ENABLE::PAGELITE),
        };
        if page != 0 {
            return Err(ProbeError::DramPage(page));
        }
        let blocks = pool.alloc(device, MAX_BLOCKS * control_block::SIZE)?;
        let channel = 1 << number;
        if enable.read(ENABLE::CHANNELS) & channel == 0 {
            io.write32(ENABLE_OFFSET, enable.get() | channel);
        }
        let inner = Inner {
            io,
            base: usize::from(number) * CHANNEL_STRIDE,
            blocks,
            progress: Progress::new(),
        };
        inner.stop();
        let debug = LocalRegisterCopy::<u32, DEBUG::Register>::new(inner.read(DEBUG_OFFSET));
        // QEMU's model copies words and reads DEBUG as 0; silicon is version 2 and copies bytes.
        let granule = if debug.read(DEBUG::VERSION) == 0 {
            4
        } else {
            1
        };
        Ok(Self {
            number,
            kind,
            granule,
            device,
            clock,
            inner: IrqLock::new(inner),
        })
    }

    /// The channel's number.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// What the channel can do.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Stops the channel and closes its submission with `error`, or with the bus error that kept
    /// it from ending.
    fn cancel(&self, error: DmaError) {
        let mut inner = self.inner.lock();
        if inner.progress.is_running() {
            let error = match inner.errors() {
                0 => error,
                flags => DmaError::Bus { flags },
            };
            let error = if inner.stop() {
                error
            } else {
                DmaError::Wedged
            };
            inner.progress.finish(Err(error));
        }
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

    /// Stops the channel whatever it is doing and leaves it without errors: pause, let outstanding
    /// writes land for a bounded time, reset. Returns whether it is known to be quiet.
    ///
    /// A chain may have ended with writes still outstanding, so they are waited for in any case,
    /// and before the reset, which forgets them.
    fn stop(&self) -> bool {
        self.write(CS_OFFSET, CS::WAIT_FOR_OUTSTANDING_WRITES::SET.value);
        let landed = (0..ABORT_LOOKS).any(|_| {
            core::hint::spin_loop();
            let debug = LocalRegisterCopy::<u32, DEBUG::Register>::new(self.read(DEBUG_OFFSET));
            !self.status().is_set(CS::WAITING_FOR_OUTSTANDING_WRITES)
                && debug.read(DEBUG::OUTSTANDING_WRITES) == 0
        });
        self.write(CS_OFFSET, CS::RESET::SET.value);
        let acknowledge = CS::INT::SET + CS::END::SET;
        self.write(CS_OFFSET, acknowledge.value);
        // Only where there is something to clear: QEMU's model keeps what is written to DEBUG.
        match self.errors() {
            0 => {}
            flags => self.write(DEBUG_OFFSET, flags),
        }
        let idle = !self.status().is_set(CS::ACTIVE) && self.read(CONBLK_AD_OFFSET) == 0;
        barrier::dsb_sy();
        landed && idle
    }

    /// Writes the chain of control blocks for `transfers`.
    fn write_chain(&mut self, kind: Kind, transfers: &[Transfer]) -> Result<(), DmaError> {
        for (index, transfer) in transfers.iter().enumerate() {
            let offset = index * control_block::SIZE;
            let next = if index + 1 < transfers.len() {
                Some(bus_word(
                    self.blocks.dma_addr() + offset + control_block::SIZE,
                )?)
            } else {
                None
            };
            let block = ControlBlock {
                src: bus_word(transfer.src)?,
                dst: bus_word(transfer.dst)?,
                // CAST: at most `Kind::max_len`, which has 30 bits.
                len: transfer.len as u32,
                next,
            };
            self.blocks.write_words(offset, &block.words(kind))?;
        }
        Ok(())
    }
}

/// An address as a channel takes it: 32 bits.
fn bus_word(addr: DmaAddr) -> Result<u32, DmaError> {
    u32::try_from(addr.get()).map_err(|_| DmaError::ForeignAddress { addr, len: 1 })
}

impl<Io: RegisterIo + Send> DmaEngine for Channel<Io> {
    fn device(&self) -> &'static Device {
        self.device
    }

    fn length_granule(&self) -> usize {
        self.granule
    }

    fn max_len(&self) -> usize {
        self.kind.max_len()
    }

    fn max_transfers(&self) -> usize {
        MAX_BLOCKS
    }

    fn timeout_ns(&self, len: usize) -> u64 {
        TIMEOUT_BASE_NS.saturating_add((len as u64).saturating_mul(TIMEOUT_BYTE_NS))
    }

    unsafe fn submit(&self, transfers: &[Transfer]) -> Result<Ticket, DmaError> {
        self.check(transfers)?;
        let mut inner = self.inner.lock();
        if inner.progress.is_taken() {
            return Err(DmaError::Busy);
        }
        inner.write_chain(self.kind, transfers)?;
        let first = bus_word(inner.blocks.dma_addr())?;
        let ticket = inner.progress.start();
        // The control blocks, and the maintenance and stores of the buffers, are in memory before
        // the channel is told to look.
        barrier::dsb_sy();
        inner.write(CONBLK_AD_OFFSET, first);
        let start = CS::WAIT_FOR_OUTSTANDING_WRITES::SET
            + CS::PANIC_PRIORITY.val(PANIC_PRIORITY)
            + CS::PRIORITY.val(PRIORITY)
            + CS::ACTIVE::SET;
        inner.write(CS_OFFSET, start.value);
        Ok(ticket)
    }

    fn on_interrupt(&self) -> bool {
        let mut inner = self.inner.lock();
        // Accesses to different peripherals are not ordered against each other: barriers at entry
        // and exit of a handler (BCM2711 ARM Peripherals, 1.3).
        barrier::dsb_sy();
        let status = inner.status();
        if !status.is_set(CS::INT) && !status.is_set(CS::ERROR) {
            return false;
        }
        inner.progress.interrupted();
        let flags = inner.errors();
        if status.is_set(CS::ERROR) || flags != 0 {
            let error = if inner.stop() {
                DmaError::Bus { flags }
            } else {
                DmaError::Wedged
            };
            inner.progress.finish(Err(error));
        } else {
            // Only the last control block of a chain raises INT, so the channel is idle.
            let acknowledge = CS::INT::SET + CS::END::SET;
            inner.write(CS_OFFSET, acknowledge.value);
            inner.progress.finish(Ok(()));
        }
        barrier::dsb_sy();
        true
    }

    fn interrupts(&self) -> u64 {
        self.inner.lock().progress.interrupts()
    }

    fn wait(&self, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        let collect = || self.inner.lock().progress.collect(ticket);
        if let Some(result) = wait_for(self.clock, timeout_ns, collect)? {
            return result;
        }
        self.cancel(DmaError::Timeout(timeout_ns));
        // Either cancelled now, or completed since the last look.
        collect().unwrap_or(Err(DmaError::Wedged))
    }

    fn abort(&self) {
        self.cancel(DmaError::Aborted);
    }
}

#[cfg(test)]
#[path = "bcm2711_dma/tests.rs"]
mod tests;
