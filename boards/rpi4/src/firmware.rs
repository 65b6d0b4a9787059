//! What is asked of the VideoCore firmware: the UART's clock, and what board this is.

use crate::dma::WINDOWS;
use hal::addr::{PhysAddr, PhysRange};
use hal::board::Platform;
use hal::dma::{Device, DmaError, DmaMask};
use hal::drivers::mailbox::{Clock, Mailbox, MailboxError, PropertyBuffer};
use hal::mm::IoremapError;
use thiserror::Error;

/// The page that holds the mailboxes, and their offset in it (Datasheet 1.2.4, block 0x7E00_B000).
const PAGE: PhysRange = PhysRange::new(PhysAddr::new(0xFE00_B000), PhysAddr::new(0xFE00_C000));
const OFFSET: usize = 0x880;

/// The rate `init_uart_clock` in config.txt asks for, in Hz.
pub(crate) const UART_CLOCK: u32 = 48_000_000;

// SAFETY: the VideoCore sees the first GiB where the legacy DMA channels see it, by addresses of 32
// bits.
static DEVICE: Device = unsafe { Device::new("mailbox", DmaMask::new::<32>(), &WINDOWS) };

#[derive(Debug, Error)]
pub(crate) enum FirmwareError {
    #[error("registers cannot be mapped: {0}")]
    Ioremap(#[from] IoremapError),
    #[error("no memory for a request: {0}")]
    Buffer(#[from] DmaError),
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

/// Fixes the UART's clock and notes what the firmware says of the board.
pub(crate) fn ask(platform: &Platform<'_>) -> Result<(), FirmwareError> {
    let base = (platform.ioremap)(PAGE, "mailbox")? + OFFSET;
    let buffer = platform.pool.alloc(&DEVICE, size_of::<PropertyBuffer>())?;
    let bus = buffer.dma_addr();
    let words = buffer.as_ptr().cast::<PropertyBuffer>();
    // The mailbox keeps its buffer for good.
    core::mem::forget(buffer);
    // SAFETY: a page of the pool is aligned and large enough, zeroes are a valid buffer, and it was
    // given away for good with the line above.
    let words = unsafe { &mut *words.as_ptr() };
    // SAFETY: the mailboxes are there on every BCM2711, mapped as Device memory for good and used
    // here only; `bus` is where the VideoCore sees the buffer.
    let mut mailbox = unsafe { Mailbox::new(base, words, bus, platform.timer) }?;
    let rate = mailbox.set_clock_rate(Clock::Uart, UART_CLOCK)?;
    let revision = mailbox.board_revision()?;
    let memory = mailbox.arm_memory()?;
    (platform.note)(format_args!(
        "firmware revision={revision:#x} arm_memory={memory} uart_clock={rate}"
    ));
    Ok(())
}
