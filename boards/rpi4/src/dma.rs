//! The DMA engines of the board: two legacy channels of the BCM2711, and a DMA4 channel.

use hal::addr::{PhysAddr, PhysRange, VirtAddr};
use hal::board::{Devices, Platform};
use hal::dma::{BusWindow, Clock, CoherentPool, Device, DmaEngine, DmaMask};
use hal::drivers::bcm2711_channels::{ChannelKind, ChannelMask, Channels, Firmware, Taken};
use hal::drivers::bcm2711_dma::{self, Controller, Kind, REGISTERS_SIZE};
use hal::drivers::bcm2711_dma4;
use hal::drivers::gic::{GicError, Line};
use hal::drivers::irq::{EngineInterrupt, IrqError};
use hal::drivers::mmio::Mmio;
use hal::mm::IoremapError;
use hal::sync::Once;
use thiserror::Error;

/// The controller (Datasheet 4.2.1.2), for when no device tree says.
const CONTROLLER: PhysAddr = PhysAddr::new(0xFE00_7000);

/// What the legacy channels see of memory: the first GiB, behind the alias that bypasses the
/// VideoCore's cache (Datasheet 1.2.2, 4.6).
const ALIAS: u64 = 0xC000_0000;
const REACH: u64 = 1 << 30;

/// What DMA4 sees: all RAM, where the Arm does (Datasheet 1.2.4, 4.6; `dma-ranges` of `/scb`).
const DMA4_REACH: u64 = 16 << 30;

pub(crate) static WINDOWS: [BusWindow; 1] = {
    // SAFETY: the datasheet's sections say so of every master on the legacy bus.
    match unsafe { BusWindow::new(PhysAddr::new(0), ALIAS, REACH) } {
        Some(window) => [window],
        None => panic!("the window does not wrap"),
    }
};

static DMA4_WINDOWS: [BusWindow; 1] = {
    // SAFETY: the datasheet's sections say so of DMA4.
    match unsafe { BusWindow::new(PhysAddr::new(0), 0, DMA4_REACH) } {
        Some(window) => [window],
        None => panic!("the window does not wrap"),
    }
};

/// The channels by number: names, and SPIs. VideoCore interrupt 16 + n is SPI 80 + n; 7 and 8 share
/// one, 9 and 10 another (Datasheet 6.2.4).
const CHANNELS: [(&str, u32); 15] = [
    ("dma0", 80),
    ("dma1", 81),
    ("dma2", 82),
    ("dma3", 83),
    ("dma4", 84),
    ("dma5", 85),
    ("dma6", 86),
    ("dma7", 87),
    ("dma8", 87),
    ("dma9", 88),
    ("dma10", 88),
    ("dma11", 89),
    ("dma12", 90),
    ("dma13", 91),
    ("dma14", 92),
];

/// The kinds of legacy channels used, in order of preference: a fast one, the best being that with
/// the long FIFO; and a lite one.
const LEGACY: [&[ChannelKind]; 2] = [
    &[
        ChannelKind::Legacy(Kind::Fifo),
        ChannelKind::Legacy(Kind::Full),
    ],
    &[ChannelKind::Legacy(Kind::Lite)],
];

/// A channel's driver and what belongs to it.
struct Slot<T> {
    device: Once<Device>,
    engine: Once<T>,
    interrupt: Once<EngineInterrupt>,
}

impl<T> Slot<T> {
    const fn new() -> Self {
        Self {
            device: Once::new(),
            engine: Once::new(),
            interrupt: Once::new(),
        }
    }
}

static CONTROLLER_REGISTERS: Once<Controller<Mmio>> = Once::new();
static LEGACY_SLOTS: [Slot<bcm2711_dma::Channel<Mmio>>; 2] = [const { Slot::new() }; 2];
static DMA4_SLOT: Slot<bcm2711_dma4::Channel<Mmio>> = Slot::new();

#[derive(Debug, Error)]
pub(crate) enum ChannelError {
    #[error("registers cannot be mapped: {0}")]
    Ioremap(#[from] IoremapError),
    #[error(transparent)]
    Legacy(#[from] bcm2711_dma::ProbeError),
    #[error(transparent)]
    Dma4(#[from] bcm2711_dma4::ProbeError),
    #[error("the device tree puts the registers at {0}")]
    BadAddress(PhysAddr),
    #[error("the device tree and the firmware have none in common that they leave to the Arm")]
    NoneLeft,
    #[error("no interrupt line")]
    NoInterrupt,
    #[error(transparent)]
    Irq(#[from] IrqError),
    #[error(transparent)]
    Gic(#[from] GicError),
}

/// Brings the engines up, on channels that the device tree and, by its answer, the firmware leave to
/// the Arm.
pub(crate) fn bring_up(
    platform: &Platform<'_>,
    firmware: Option<ChannelMask>,
    built_in_coherence: bool,
    devices: &mut Devices,
) {
    // What a tree does not mention is as the Raspberry Pi firmware leaves it: Linux's own tree has
    // no node for DMA4.
    let description = platform.description;
    let legacy = description.bcm2835_dma.map_or(ChannelMask::LEGACY, |dma| {
        ChannelMask::new(dma.channel_mask)
    });
    let dma4 = description
        .bcm2711_dma
        .map_or(ChannelMask::DMA4, |dma| ChannelMask::new(dma.channel_mask));
    let tree = legacy.or(dma4);
    // An error is met again, and noted, for each channel.
    let is_modelled = controller(platform).is_ok_and(Controller::is_modelled);
    let firmware = match firmware {
        Some(mask) if is_modelled => Firmware::Modelled(mask),
        Some(mask) => Firmware::Leaves(mask),
        None => Firmware::Silent,
    };
    let mut bring_up = BringUp {
        platform,
        channels: Channels::new(tree, firmware),
        built_in_coherence,
    };
    match firmware {
        Firmware::Leaves(firmware) | Firmware::Modelled(firmware) => {
            (platform.note)(format_args!(
                "dma channels tree={:#06x} firmware={:#06x}",
                tree.bits(),
                firmware.bits()
            ));
        }
        Firmware::Silent => (platform.note)(format_args!(
            "dma channels tree={:#06x} firmware=silent",
            tree.bits()
        )),
    }
    if is_modelled {
        devices.unmodelled_engines = Some("QEMU's Pi model has no DMA4 channels");
    }

    for (slot, kinds) in LEGACY_SLOTS.iter().zip(LEGACY) {
        match bring_up.legacy(slot, kinds) {
            // As many as there are slots, fewer than MAX_ENGINES.
            Ok(engine) => drop(devices.engines.push(engine)),
            Err(error) => {
                (platform.note)(format_args!("no legacy DMA channel: {error}"));
                if !matches!(error, ChannelError::NoneLeft) {
                    devices.lack_engine(format_args!("legacy: {error}"));
                }
            }
        }
    }
    match bring_up.dma4(&DMA4_SLOT) {
        // As above.
        Ok(engine) => drop(devices.engines.push(engine)),
        Err(error) => {
            (platform.note)(format_args!("no DMA4 channel: {error}"));
            if !is_modelled && !matches!(error, ChannelError::NoneLeft) {
                devices.lack_engine(format_args!("DMA4: {error}"));
            }
        }
    }
    // A board whose every channel is kept has nothing to prove anything with.
    if devices.engines.is_empty() && devices.absent_engines.is_empty() {
        devices.lack_engine(format_args!("{}", ChannelError::NoneLeft));
    }
}

/// The command line decides whether a device is taken as coherent, then the tree, then the board.
pub(crate) fn decide_coherence(
    platform: &Platform<'_>,
    device: &Device,
    compatible: &str,
    built_in: bool,
) {
    let in_tree = || platform.tree?.dma_coherent(compatible);
    let coherent = platform.dma_coherent.or_else(in_tree);
    device.set_coherent(coherent.unwrap_or(built_in));
}

/// Whether a device is taken as coherent, as notes say it.
pub(crate) fn coherence_of(device: &Device) -> &'static str {
    if device.is_coherent() { "yes" } else { "no" }
}

struct BringUp<'a> {
    platform: &'a Platform<'a>,
    channels: Channels,
    built_in_coherence: bool,
}

/// What the channels on a bus reach, and what the device tree calls them.
struct Bus {
    width: DmaMask,
    windows: &'static [BusWindow],
    compatible: &'static str,
}

/// The 32 address bits of the legacy bus.
const LEGACY_BUS: Bus = Bus {
    width: DmaMask::new::<32>(),
    windows: &WINDOWS,
    compatible: "brcm,bcm2835-dma",
};

/// The 40 address bits of DMA4.
const DMA4_BUS: Bus = Bus {
    width: DmaMask::new::<40>(),
    windows: &DMA4_WINDOWS,
    compatible: "brcm,bcm2711-dma",
};

/// How a driver takes a channel over.
type Probe<T, E> = unsafe fn(
    &'static Controller<Mmio>,
    u8,
    ChannelMask,
    &'static Device,
    &'static CoherentPool,
    &'static dyn Clock,
) -> Result<T, E>;

impl BringUp<'_> {
    fn legacy(
        &mut self,
        slot: &'static Slot<bcm2711_dma::Channel<Mmio>>,
        kinds: &[ChannelKind],
    ) -> Result<&'static dyn DmaEngine, ChannelError> {
        self.engine(slot, kinds, &LEGACY_BUS, bcm2711_dma::Channel::probe)
    }

    fn dma4(
        &mut self,
        slot: &'static Slot<bcm2711_dma4::Channel<Mmio>>,
    ) -> Result<&'static dyn DmaEngine, ChannelError> {
        let kinds = [ChannelKind::Dma4];
        self.engine(slot, &kinds, &DMA4_BUS, bcm2711_dma4::Channel::probe)
    }

    /// Makes a free channel of one of `kinds`, which are on `bus`, an engine.
    fn engine<T: DmaEngine, E>(
        &mut self,
        slot: &'static Slot<T>,
        kinds: &[ChannelKind],
        bus: &Bus,
        probe: Probe<T, E>,
    ) -> Result<&'static dyn DmaEngine, ChannelError>
    where
        ChannelError: From<E>,
    {
        let channel = self.channels.take(kinds).ok_or(ChannelError::NoneLeft)?;
        let (name, _) = CHANNELS[usize::from(channel.number)];
        // SAFETY: the two buses are as the datasheet has them, and each kind is on its own.
        let device = || unsafe { Device::new(name, bus.width, bus.windows) };
        let device = slot.device.call_once(device);
        decide_coherence(
            self.platform,
            device,
            bus.compatible,
            self.built_in_coherence,
        );
        let &Platform { pool, clock, .. } = self.platform;
        let controller = controller(self.platform)?;
        let mask = self.channels.mask();
        // SAFETY: the device was just made for the bus that the channel's kind is on, and the device tree
        // and the firmware leave the channels of the mask to the Arm.
        let engine = unsafe { probe(controller, channel.number, mask, device, pool, clock) }?;
        let engine = slot.engine.call_once(|| engine);
        let line = self.connect(engine, &slot.interrupt, channel)?;
        self.note(engine, line, channel);
        Ok(engine)
    }

    /// Connects an engine to its interrupt line.
    fn connect(
        &self,
        engine: &'static dyn DmaEngine,
        interrupt: &'static Once<EngineInterrupt>,
        channel: Taken,
    ) -> Result<Line, ChannelError> {
        let (_, spi) = CHANNELS[usize::from(channel.number)];
        let line = Line::spi(spi).ok_or(ChannelError::NoInterrupt)?;
        let handler = interrupt.call_once(|| EngineInterrupt::new(engine));
        self.platform.interrupts.register(line, handler)?;
        self.platform.interrupts.gic().enable(line)?;
        Ok(line)
    }

    fn note(&self, engine: &dyn DmaEngine, line: Line, channel: Taken) {
        let device = engine.device();
        (self.platform.note)(format_args!(
            "dma engine={} kind={} named_by={:?} irq={line} granule={} coherent={}",
            device.name(),
            channel.kind,
            channel.named_by,
            engine.length_granule(),
            coherence_of(device),
        ));
    }
}

/// The controller, mapped once for all channels. DMA4's node of the tree names the last of the same
/// registers.
fn controller(platform: &Platform<'_>) -> Result<&'static Controller<Mmio>, ChannelError> {
    let start = platform
        .description
        .bcm2835_dma
        .map_or(CONTROLLER, |dma| dma.registers.start);
    let registers = PhysRange::from_size(start, REGISTERS_SIZE as u64)
        .filter(|registers| match platform.description.bcm2711_dma {
            Some(dma4) => registers.contains_range(&dma4.registers),
            None => true,
        })
        .ok_or(ChannelError::BadAddress(start))?;
    CONTROLLER_REGISTERS.try_call_once(|| {
        let base: VirtAddr = (platform.ioremap)(registers, "DMA controller")?;
        // SAFETY: the device tree or the datasheet says that the controller is there; it was just
        // mapped as Device memory for good, and nobody else uses it.
        Ok(Controller::new(unsafe { Mmio::new(base, REGISTERS_SIZE) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus(windows: &[BusWindow], pa: u64) -> Option<u64> {
        let mut found = windows
            .iter()
            .filter_map(|window| window.translate(PhysAddr::new(pa), 4));
        let addr = found.next().map(|addr| addr.get());
        assert!(found.next().is_none(), "{pa:#x} has two bus addresses");
        addr
    }

    /// Engines, and the VideoCore behind the mailbox.
    #[test]
    fn legacy_masters_see_the_first_gib_behind_the_alias_that_is_not_cached() {
        assert_eq!(bus(&WINDOWS, 0x1000), Some(0xC000_1000));
        assert_eq!(bus(&WINDOWS, 0x3FFF_FFFC), Some(0xFFFF_FFFC));
        assert_eq!(bus(&WINDOWS, 0x3FFF_FFFE), None);
        assert_eq!(bus(&WINDOWS, 0x4000_0000), None);
        assert_eq!(bus(&WINDOWS, 0x1_0000_1000), None);
    }

    #[test]
    fn dma4_sees_all_ram_where_the_arm_does() {
        assert_eq!(bus(&DMA4_WINDOWS, 0x1000), Some(0x1000));
        assert_eq!(bus(&DMA4_WINDOWS, 0x1_FFFF_FFFC), Some(0x1_FFFF_FFFC));
        assert_eq!(bus(&DMA4_WINDOWS, 0x3_FFFF_FFFC), Some(0x3_FFFF_FFFC));
        assert_eq!(bus(&DMA4_WINDOWS, 0x4_0000_0000), None);
    }
}
