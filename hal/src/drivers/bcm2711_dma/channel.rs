//! One legacy channel as a [`DmaEngine`].

use super::chain::{self, Chain};
use super::control_block::ControlBlock;
use super::controller::Controller;
use super::legacy::LegacyRegisters;
use super::shape::Shape;
use super::{Kind, ProbeError};
use crate::addr::DmaAddr;
use crate::dma::engine::Transfer2d;
use crate::dma::engine::submission::{self, Control};
use crate::dma::{Clock, CoherentPool, Completion, Device, DmaEngine, DmaError, Ticket, Transfer};
use crate::drivers::bcm2711_channels::ChannelMask;
use crate::drivers::mmio::RegisterIo;
use crate::sync::IrqLock;

/// A legacy channel as a [`DmaEngine`].
///
/// Dropping it stops the channel, whose control blocks are leaked if it does not stop: it may still
/// read them. The memory of a submission is the submitter's until its `wait` has returned. The
/// channel stays [taken](super::Unavailable::Taken).
#[derive(Debug)]
pub struct Channel<Io: RegisterIo + 'static> {
    number: u8,
    kind: Kind,
    granule: usize,
    mask: ChannelMask,
    controller: &'static Controller<Io>,
    device: &'static Device,
    clock: &'static dyn Clock,
    chain: IrqLock<Chain<LegacyRegisters<'static, Io>>>,
}

impl<Io: RegisterIo> Channel<Io> {
    /// Takes channel `number` over: stops it, enables it, and allocates its control blocks. `mask`
    /// says which channels are the Arm's.
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
        let kind = Kind::of(number)
            .filter(|_| mask.contains(number))
            .ok_or(ProbeError::Channel(number))?;
        let page = controller.dram_page(kind);
        if page != 0 {
            return Err(ProbeError::DramPage(page));
        }
        let blocks = Chain::<LegacyRegisters<'_, Io>>::allocate(pool, device)?;
        controller.claim(number)?;
        let registers = LegacyRegisters::new(controller.io(), number);
        let chain = Chain::new(registers, blocks).ok_or_else(|| controller.condemn(number))?;
        // QEMU's model copies words and reads DEBUG as 0; silicon is version 2 and copies bytes.
        let granule = match chain.registers().version() {
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
