//! The VideoCore firmware: the mailbox to it, the UART's clock, and what board this is.

use crate::dma::{WINDOWS, coherence_of, decide_coherence};
use hal::addr::{PhysAddr, PhysRange};
use hal::alloc::{AllocError, KBox, flags::GFP_KERNEL};
use hal::board::Platform;
use hal::dma::{Device, DmaError, DmaMask};
use hal::drivers::bcm2711_channels::ChannelMask;
use hal::drivers::mailbox::property::{
    ArmMemory, BoardRevision, DmaChannels, FirmwareRevision, SetClockRate,
};
use hal::drivers::mailbox::{ClockId, Mailbox, MailboxError, PropertyBuffer, REGISTERS_SIZE, Via};
use hal::drivers::mmio::Mmio;
use hal::mm::{Gfp, IoremapError};
use hal::sync::Once;
use thiserror::Error;

/// The page that holds the mailboxes, and their offset in it (Datasheet 1.2.4, block 0x7E00_B000).
const PAGE: PhysRange = PhysRange::new(PhysAddr::new(0xFE00_B000), PhysAddr::new(0xFE00_C000));
const OFFSET: usize = 0x880;

/// The rate `init_uart_clock` in config.txt asks for.
const UART_CLOCK: SetClockRate = SetClockRate {
    clock: ClockId::Uart,
    hz: 48_000_000,
};

/// The mailbox in a device tree.
const COMPATIBLE: &str = "brcm,bcm2835-mbox";

// SAFETY: the VideoCore sees the first GiB where the legacy DMA channels see it, by addresses of 32
// bits.
static DEVICE: Device = unsafe { Device::new("mailbox", DmaMask::new::<32>(), &WINDOWS) };

static MAILBOX: Once<Mailbox<Mmio>> = Once::new();

#[derive(Debug, Error)]
pub(crate) enum FirmwareError {
    #[error("registers cannot be mapped: {0}")]
    Ioremap(#[from] IoremapError),
    #[error("no coherent memory for requests: {0}")]
    Coherent(#[from] DmaError),
    #[error("no memory for requests: {0}")]
    Streaming(#[from] AllocError),
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

/// Brings the mailbox up.
pub(crate) fn bring_up(
    platform: &Platform<'_>,
    built_in_coherence: bool,
) -> Result<&'static Mailbox<Mmio>, FirmwareError> {
    decide_coherence(platform, &DEVICE, COMPATIBLE, built_in_coherence);
    let base = (platform.ioremap)(PAGE, "mailbox")? + OFFSET;
    // SAFETY: the mailboxes are there on every BCM2711, mapped as Device memory for good and used
    // by this driver only.
    let io = unsafe { Mmio::new(base, REGISTERS_SIZE) };
    let coherent = platform.pool.alloc(&DEVICE, size_of::<PropertyBuffer>())?;
    // The first GiB is the DMA zone.
    let streaming = KBox::leak(KBox::new(PropertyBuffer::new(), GFP_KERNEL | Gfp::DMA)?);
    let mailbox = Mailbox::new(io, &DEVICE, coherent, streaming, platform.timer)?;
    (platform.note)(format_args!("mailbox coherent={}", coherence_of(&DEVICE)));
    Ok(MAILBOX.call_once(|| mailbox))
}

/// Fixes the UART's clock and notes what the firmware says of the board.
pub(crate) fn ask(platform: &Platform<'_>, mailbox: &Mailbox<Mmio>) -> Result<(), MailboxError> {
    let via = Via::Coherent;
    let rate = mailbox.request(via, &UART_CLOCK)?;
    let build = mailbox.request(via, &FirmwareRevision)?;
    let board = mailbox.request(via, &BoardRevision)?;
    let memory = mailbox.request(via, &ArmMemory)?;
    (platform.note)(format_args!(
        "firmware build={build} board={board} arm_memory={memory} uart_clock={rate}"
    ));
    Ok(())
}

/// The DMA channels the firmware leaves to the Arm, if it says.
pub(crate) fn channels(mailbox: &Mailbox<Mmio>) -> Option<ChannelMask> {
    mailbox.request(Via::Coherent, &DmaChannels).ok()
}
