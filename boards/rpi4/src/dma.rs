//! The DMA engines of the board: two legacy channels of the BCM2711.

use hal::addr::{PhysAddr, PhysRange, VirtAddr};
use hal::board::Platform;
use hal::dma::{BusWindow, Device, DmaEngine, DmaMask};
use hal::drivers::bcm2711_dma::{Channel, ChannelMask, ProbeError, REGISTERS_SIZE};
use hal::drivers::gic::{GicError, Line};
use hal::drivers::irq::{EngineInterrupt, IrqError};
use hal::drivers::mmio::Mmio;
use hal::mm::IoremapError;
use hal::sync::Once;
use thiserror::Error;

/// The controller (Datasheet 4.2.1.2), for when no device tree says.
const CONTROLLER: PhysAddr = PhysAddr::new(0xFE00_7000);

/// Where the controller is mapped, once for all channels.
static CONTROLLER_BASE: Once<VirtAddr> = Once::new();

/// What the legacy channels see of memory: the first GiB, behind the alias that bypasses the
/// VideoCore's cache (Datasheet 1.2.2, 4.6).
const ALIAS: u64 = 0xC000_0000;
const REACH: u64 = 1 << 30;

pub(crate) static WINDOWS: [BusWindow; 1] = {
    // SAFETY: the datasheet's sections say so of every master on the legacy bus.
    match unsafe { BusWindow::new(PhysAddr::new(0), ALIAS, REACH) } {
        Some(window) => [window],
        None => panic!("the window does not wrap"),
    }
};

/// A channel and the places of its parts.
pub(crate) struct ChannelSlot {
    pub(crate) number: u8,
    /// Its SPI: VideoCore interrupt 16 + n is SPI 80 + n; 7 and 8 share one (Datasheet 6.2.4).
    spi: u32,
    device: Device,
    engine: Once<Channel<Mmio>>,
    interrupt: Once<EngineInterrupt>,
}

/// The channels used: a full one with the long FIFO, and a lite one with 16-bit lengths.
pub(crate) static CHANNELS: [&ChannelSlot; 2] = [&FULL, &LITE];

static FULL: ChannelSlot = slot("dma0", 0, 80);
static LITE: ChannelSlot = slot("dma7", 7, 87);

const fn slot(name: &'static str, number: u8, spi: u32) -> ChannelSlot {
    ChannelSlot {
        number,
        spi,
        // SAFETY: legacy channels drive the 32 address bits of the legacy bus.
        device: unsafe { Device::new(name, DmaMask::new::<32>(), &WINDOWS) },
        engine: Once::new(),
        interrupt: Once::new(),
    }
}

#[derive(Debug, Error)]
pub(crate) enum ChannelError {
    #[error("registers cannot be mapped: {0}")]
    Ioremap(#[from] IoremapError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("the device tree puts the registers at {0}")]
    BadAddress(PhysAddr),
    #[error("no interrupt line")]
    NoInterrupt,
    #[error(transparent)]
    Irq(#[from] IrqError),
    #[error(transparent)]
    Gic(#[from] GicError),
}

/// Takes a channel over and connects its interrupt.
pub(crate) fn bring_up(
    slot: &'static ChannelSlot,
    platform: &Platform<'_>,
    built_in_coherence: bool,
) -> Result<&'static dyn DmaEngine, ChannelError> {
    let (start, mask) = match platform.description.bcm2835_dma {
        Some(dma) => (dma.registers.start, ChannelMask::new(dma.channel_mask)),
        None => (CONTROLLER, ChannelMask::RASPBERRY_PI),
    };
    let registers = PhysRange::from_size(start, REGISTERS_SIZE as u64);
    let registers = registers.ok_or(ChannelError::BadAddress(start))?;
    let base =
        *CONTROLLER_BASE.try_call_once(|| (platform.ioremap)(registers, "DMA controller"))?;
    // SAFETY: the device tree or the datasheet says that the controller is there; it is mapped as
    // Device memory for good. Each channel's driver touches its own registers, and the
    // shared ENABLE one after the other, here.
    let io = unsafe { Mmio::new(base, REGISTERS_SIZE) };
    let in_tree = || {
        platform
            .tree
            .and_then(|tree| tree.dma_coherent("brcm,bcm2835-dma"))
    };
    let coherent = platform
        .dma_coherent
        .or_else(in_tree)
        .unwrap_or(built_in_coherence);
    slot.device.set_coherent(coherent);
    let channel = Channel::probe(
        io,
        slot.number,
        mask,
        &slot.device,
        platform.pool,
        platform.clock,
    )?;
    let engine = slot.engine.call_once(|| channel);
    let line = Line::spi(slot.spi).ok_or(ChannelError::NoInterrupt)?;
    let handler = slot.interrupt.call_once(|| EngineInterrupt(engine));
    platform.interrupts.register(line, handler)?;
    platform.interrupts.gic().enable(line)?;
    (platform.note)(format_args!(
        "dma engine={} kind={:?} irq={line} granule={} coherent={}",
        slot.device.name(),
        engine.kind(),
        engine.length_granule(),
        if coherent { "yes" } else { "no" },
    ));
    Ok(engine)
}
