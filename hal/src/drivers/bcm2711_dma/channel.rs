//! One legacy channel as a [`DmaEngine`].

use super::chain::{self, Chain, Registers, Signal};
use super::control_block::ControlBlock;
use super::controller::Controller;
use super::registers::{CHANNEL_STRIDE, CONBLK_AD_OFFSET, CS, CS_OFFSET, DEBUG, DEBUG_OFFSET};
use super::shape::Shape;
use super::{Kind, ProbeError};
use crate::addr::DmaAddr;
use crate::dma::engine::Transfer2d;
use crate::dma::engine::submission::{self, Control};
use crate::dma::{Clock, CoherentPool, Completion, Device, DmaEngine, DmaError, Ticket, Transfer};
use crate::drivers::bcm2711_channels::ChannelMask;
use crate::drivers::mmio::RegisterIo;
use crate::sync::IrqLock;
use tock_registers::LocalRegisterCopy;

/// Bus priority of the engine against others, 0 to 15: just above the lowest.
const PRIORITY: u32 = 1;
/// Bus priority in a panic: the highest, so that a peripheral's FIFO does not overrun.
const PANIC_PRIORITY: u32 = 15;

/// The errors DEBUG reports, and the bits that clear them.
const DEBUG_ERRORS: u32 = DEBUG::READ_ERROR::SET.value
    | DEBUG::FIFO_ERROR::SET.value
    | DEBUG::READ_LAST_NOT_SET_ERROR::SET.value;

/// A legacy channel as a [`DmaEngine`].
///
/// Dropping it stops the channel, whose control blocks are leaked if it does not stop: it may still
/// read them. The memory of a submission is the submitter's until its `wait` has returned. The
/// channel stays [taken](super::Taken).
#[derive(Debug)]
pub struct Channel<Io: RegisterIo + 'static> {
    number: u8,
    kind: Kind,
    granule: usize,
    mask: ChannelMask,
    controller: &'static Controller<Io>,
    device: &'static Device,
    clock: &'static dyn Clock,
    chain: IrqLock<Chain<LegacyRegisters<Io>>>,
}

/// The registers of a legacy channel.
#[derive(Debug)]
struct LegacyRegisters<Io: 'static> {
    io: &'static Io,
    base: usize,
}

impl<Io: RegisterIo> Channel<Io> {
    /// Takes channel `number` over: stops it, enables it, and allocates its control blocks. `mask`
    /// says which channels are the Arm's, and `device` describes the channel's reach. A channel that
    /// does not stop stays [`Taken`](super::Taken).
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
        let blocks = Chain::<LegacyRegisters<Io>>::allocate(pool, device)?;
        controller.claim(number)?;
        let registers = LegacyRegisters {
            io: controller.io(),
            base: usize::from(number) * CHANNEL_STRIDE,
        };
        let chain = Chain::new(registers, blocks).ok_or(ProbeError::Wedged(number))?;
        // QEMU's model copies words and reads DEBUG as 0; silicon is version 2 and copies bytes.
        let granule = match chain.registers().debug().read(DEBUG::VERSION) {
            0 => 4,
            _ => 1,
        };
        Ok(Self {
            number,
            kind,
            granule,
            mask,
            controller,
            device,
            clock,
            chain: IrqLock::new(chain),
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
}

impl<Io: RegisterIo> LegacyRegisters<Io> {
    fn read(&self, offset: usize) -> u32 {
        self.io.read32(self.base + offset)
    }

    fn write(&self, offset: usize, value: u32) {
        self.io.write32(self.base + offset, value);
    }

    fn status(&self) -> LocalRegisterCopy<u32, CS::Register> {
        LocalRegisterCopy::new(self.read(CS_OFFSET))
    }

    fn debug(&self) -> LocalRegisterCopy<u32, DEBUG::Register> {
        LocalRegisterCopy::new(self.read(DEBUG_OFFSET))
    }

    /// Whether the channel has no control block to go on with.
    fn is_idle(&self) -> bool {
        !self.status().is_set(CS::ACTIVE) && self.read(CONBLK_AD_OFFSET) == 0
    }

    /// Whether the channel transfers nothing and none of its writes is under way.
    fn is_quiet(&self) -> bool {
        let status = self.status();
        !status.is_set(CS::WAITING_FOR_OUTSTANDING_WRITES)
            // QEMU's model says that it is paused only after a copy.
            && (status.is_set(CS::PAUSED) || self.is_idle())
            // Last: a channel that is paused sends no more.
            && self.debug().read(DEBUG::OUTSTANDING_WRITES) == 0
    }
}

impl<Io: RegisterIo> Registers for LegacyRegisters<Io> {
    fn pointer(addr: DmaAddr) -> Option<u32> {
        u32::try_from(addr.get()).ok()
    }

    fn start(&self, first: u32) {
        self.write(CONBLK_AD_OFFSET, first);
        let start = CS::WAIT_FOR_OUTSTANDING_WRITES::SET
            + CS::PANIC_PRIORITY.val(PANIC_PRIORITY)
            + CS::PRIORITY.val(PRIORITY)
            + CS::ACTIVE::SET;
        self.write(CS_OFFSET, start.value);
    }

    fn signal(&self) -> Option<Signal> {
        let status = self.status();
        if status.is_set(CS::ERROR) {
            Some(Signal::Error)
        } else {
            status.is_set(CS::INT).then_some(Signal::End)
        }
    }

    fn acknowledge(&self) {
        let acknowledge = CS::INT::SET + CS::END::SET;
        self.write(CS_OFFSET, acknowledge.value);
    }

    fn errors(&self) -> u32 {
        self.debug().get() & DEBUG_ERRORS
    }

    /// Pauses; if that does not help, has the control block given up; lets outstanding writes land
    /// for a bounded time; resets.
    ///
    /// A chain may have ended with writes still outstanding, so they are waited for in any case,
    /// and before the reset, which sets their counter to zero without waiting for them.
    fn stop(&self) -> bool {
        let pause = CS::WAIT_FOR_OUTSTANDING_WRITES::SET;
        let landed = [pause, pause + CS::ABORT::SET].into_iter().any(|how| {
            self.write(CS_OFFSET, how.value);
            chain::becomes_quiet(|| self.is_quiet())
        });
        if !landed {
            return false;
        }
        self.write(CS_OFFSET, CS::RESET::SET.value);
        self.acknowledge();
        // Only where there is something to clear: QEMU's model keeps what is written to DEBUG.
        match self.errors() {
            0 => {}
            flags => self.write(DEBUG_OFFSET, flags),
        }
        self.is_idle()
    }
}

/// An address as a channel takes it: 32 bits.
fn bus_word(addr: DmaAddr) -> Result<u32, DmaError> {
    u32::try_from(addr.get()).map_err(|_| DmaError::ForeignAddress { addr, len: 1 })
}

// SAFETY: `submission::wait` returns when the channel has ended or was stopped, with `Wedged` if not.
unsafe impl<Io: RegisterIo + Send + Sync> DmaEngine for Channel<Io> {
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
        chain::MAX_BLOCKS
    }

    fn timeout_ns(&self, len: usize) -> u64 {
        chain::timeout_ns(len)
    }

    unsafe fn submit(&self, transfers: &[Transfer]) -> Result<Ticket, DmaError> {
        self.check(transfers)?;
        self.chain.lock().submit(transfers.len(), |index, next| {
            let Transfer { src, dst, len } = transfers[index];
            let block = ControlBlock {
                src: bus_word(src)?,
                dst: bus_word(dst)?,
                // CAST: at most `Kind::max_len`, which has 30 bits.
                shape: Shape::Linear(len as u32),
            };
            Ok(block.words(self.kind, next))
        })
    }

    unsafe fn submit_2d(&self, transfer: &Transfer2d) -> Result<Ticket, DmaError> {
        if self.kind == Kind::Lite {
            return Err(DmaError::NoRectangles {
                engine: self.device.name(),
            });
        }
        self.check_2d(transfer)?;
        let block = ControlBlock {
            src: bus_word(transfer.src)?,
            dst: bus_word(transfer.dst)?,
            shape: Shape::rows(&transfer.shape)?,
        };
        let words = |_, next| Ok(block.words(self.kind, next));
        self.chain.lock().submit(1, words)
    }

    fn on_interrupt(&self) -> bool {
        submission::on_interrupt(&self.chain) || self.controller.quieten(self.number, self.mask)
    }

    fn interrupts(&self) -> u64 {
        self.chain.lock().progress().interrupts()
    }

    fn wait(&self, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        let by = Completion::Interrupt;
        submission::wait(&self.chain, self.clock, ticket, timeout_ns, by)
    }

    fn wait_polled(&self, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        let by = Completion::Polled;
        submission::wait(&self.chain, self.clock, ticket, timeout_ns, by)
    }

    fn abort(&self) {
        self.chain.lock().cancel(DmaError::Aborted);
    }
}
