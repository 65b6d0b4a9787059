//! One legacy channel as a [`DmaEngine`].

use super::control_block::{self, ControlBlock};
use super::controller::Controller;
use super::registers::{CHANNEL_STRIDE, CONBLK_AD_OFFSET, CS, CS_OFFSET, DEBUG, DEBUG_OFFSET};
use super::shape::Shape;
use super::{Kind, ProbeError};
use crate::addr::DmaAddr;
use crate::arch::barrier;
use crate::dma::engine::Transfer2d;
use crate::dma::engine::submission::{self, Control, Progress};
use crate::dma::{
    Clock, Coherent, CoherentPool, Completion, Device, DmaEngine, DmaError, Ticket, Transfer,
};
use crate::drivers::bcm2711_channels::ChannelMask;
use crate::drivers::mmio::RegisterIo;
use crate::sync::IrqLock;
use tock_registers::LocalRegisterCopy;

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
pub struct Channel<Io: 'static> {
    number: u8,
    kind: Kind,
    granule: usize,
    mask: ChannelMask,
    controller: &'static Controller<Io>,
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
    /// ended so; it gets no other before a reset has worked.
    is_wedged: bool,
}

impl<Io: RegisterIo> Channel<Io> {
    /// Takes channel `number` over: stops it, enables it, and allocates its control blocks. `mask`
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
        let kind = Kind::of(number)
            .filter(|_| mask.contains(number))
            .ok_or(ProbeError::Channel(number))?;
        let page = controller.dram_page(kind);
        if page != 0 {
            return Err(ProbeError::DramPage(page));
        }
        let blocks = pool.alloc(device, MAX_BLOCKS * control_block::SIZE)?;
        controller.claim(number)?;
        let mut inner = Inner {
            io: controller.io(),
            base: usize::from(number) * CHANNEL_STRIDE,
            blocks,
            progress: Progress::new(),
            is_wedged: false,
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
            mask,
            controller,
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

    /// Whether the channel is QEMU's model of one.
    pub fn is_modelled(&self) -> bool {
        self.granule != 1
    }

    /// Starts the chain of `count` control blocks that `block` makes.
    fn start(
        &self,
        count: usize,
        block: impl Fn(usize) -> Result<ControlBlock, DmaError>,
    ) -> Result<Ticket, DmaError> {
        let mut inner = self.inner.lock();
        if inner.progress.is_taken() {
            return Err(DmaError::Busy);
        }
        if inner.is_wedged && !inner.stop() {
            return Err(DmaError::Wedged);
        }
        for index in 0..count {
            inner.write_block(self.kind, index, index + 1 == count, block(index)?)?;
        }
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
    fn stop(&mut self) -> bool {
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
        self.is_wedged = !(landed && idle);
        !self.is_wedged
    }

    /// Stops the channel and closes its submission with `error`.
    fn stop_with(&mut self, error: DmaError) {
        let error = if self.stop() { error } else { DmaError::Wedged };
        self.progress.finish(Err(error));
    }

    /// Writes control block number `index`, the last of its chain or not.
    fn write_block(
        &mut self,
        kind: Kind,
        index: usize,
        is_last: bool,
        block: ControlBlock,
    ) -> Result<(), DmaError> {
        let offset = index * control_block::SIZE;
        let next = match is_last {
            true => None,
            false => {
                let next = self.blocks.dma_addr() + offset + control_block::SIZE;
                Some(bus_word(next)?)
            }
        };
        self.blocks.write_words(offset, &block.words(kind, next))
    }
}

impl<Io: RegisterIo> Control for Inner<Io> {
    /// A reset ends whatever runs.
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

/// An address as a channel takes it: 32 bits.
fn bus_word(addr: DmaAddr) -> Result<u32, DmaError> {
    u32::try_from(addr.get()).map_err(|_| DmaError::ForeignAddress { addr, len: 1 })
}

impl<Io: RegisterIo + Send + Sync> DmaEngine for Channel<Io> {
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
        self.start(transfers.len(), |index| {
            let Transfer { src, dst, len } = transfers[index];
            Ok(ControlBlock {
                src: bus_word(src)?,
                dst: bus_word(dst)?,
                // CAST: at most `Kind::max_len`, which has 30 bits.
                shape: Shape::Linear(len as u32),
            })
        })
    }

    unsafe fn submit_2d(&self, transfer: &Transfer2d) -> Result<Ticket, DmaError> {
        if self.kind == Kind::Lite {
            return Err(DmaError::NoRectangles {
                engine: self.device.name(),
            });
        }
        self.check_2d(transfer)?;
        let shape = Shape::rows(&transfer.shape)?;
        self.start(1, |_| {
            Ok(ControlBlock {
                src: bus_word(transfer.src)?,
                dst: bus_word(transfer.dst)?,
                shape,
            })
        })
    }

    fn on_interrupt(&self) -> bool {
        submission::on_interrupt(&self.inner) || self.controller.quieten(self.number, self.mask)
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
