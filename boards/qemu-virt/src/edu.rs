//! The DMA engine of the machine: QEMU's `edu` device on the PCI bus.

use crate::WINDOWS;
use hal::addr::{DmaAddr, PhysAddr, PhysRange};
use hal::alloc::{AllocError, KBox};
use hal::board::Platform;
use hal::devicetree::{PciHost, PciWindow};
use hal::dma::engine::copy;
use hal::dma::streaming::map_shared;
use hal::dma::{CoherentPool, Device, DmaEngine, DmaError, DmaMask};
use hal::drivers::edu::{self, Edu};
use hal::drivers::gic::{GicError, Line};
use hal::drivers::irq::{EngineInterrupt, IrqError};
use hal::drivers::mmio::Mmio;
use hal::drivers::pci::{self, Bus, Function, MemoryWindow, PciError, Pin};
use hal::mm::{Gfp, IoremapError};
use hal::sync::Once;
use thiserror::Error;

/// The host bridge where QEMU puts it, for when no device tree says (`hw/arm/virt.c`).
const BUILT_IN_HOST: PciHost = PciHost {
    ecam: PhysRange::new(PhysAddr::new(0x40_1000_0000), PhysAddr::new(0x40_2000_0000)),
    first_bus: 0,
    last_bus: 0xFF,
    memory: PciWindow {
        cpu: PhysRange::new(PhysAddr::new(0x1000_0000), PhysAddr::new(0x3EFF_0000)),
        bus: 0x1000_0000,
    },
};

/// The SPI of INTA of device 0; the others follow, swizzled (`create_pcie`, `hw/arm/virt.c`).
const FIRST_SPI: u32 = 3;
const INTERRUPT_LINES: u32 = 4;

/// The runner starts QEMU with `dma_mask` at 64 bits; the tables hold 40-bit addresses.
// SAFETY: the window is that of every PCI device, and the runner sets `dma_mask`.
static DEVICE: Device = unsafe { Device::new("edu", DmaMask::new::<40>(), &WINDOWS) };

static ENGINE: Once<Edu<Mmio>> = Once::new();
static INTERRUPT: Once<EngineInterrupt> = Once::new();

#[derive(Debug, Error)]
pub(crate) enum EduError {
    #[error("registers cannot be mapped: {0}")]
    Ioremap(#[from] IoremapError),
    #[error(transparent)]
    Pci(#[from] PciError),
    #[error("edu has no registers in BAR 0")]
    NoRegisters,
    #[error("edu has no interrupt")]
    NoInterrupt,
    #[error(transparent)]
    Probe(#[from] edu::ProbeError),
    #[error(transparent)]
    Irq(#[from] IrqError),
    #[error(transparent)]
    Gic(#[from] GicError),
    #[error("no memory to try the device with: {0}")]
    NoMemory(#[from] AllocError),
    #[error("a trial copy failed: {0}")]
    Trial(#[from] DmaError),
    #[error("edu clamps addresses: a copy from {src} to {dst} went elsewhere (option dma_mask)")]
    Clamps { src: DmaAddr, dst: DmaAddr },
}

/// Finds the device on the bus, gives it addresses and an interrupt, and makes it an engine.
pub(crate) fn bring_up(
    platform: &Platform<'_>,
    built_in_coherence: bool,
) -> Result<&'static dyn DmaEngine, EduError> {
    let host = platform.description.pci.unwrap_or(BUILT_IN_HOST);
    let bus_0 = PhysRange::new(host.ecam.start, host.ecam.start + pci::BUS_SIZE);
    let ecam = (platform.ioremap)(bus_0, "PCI host")?;
    // SAFETY: the device tree or QEMU's map says that configuration space is there; it was just
    // mapped as Device memory for good, and nothing else uses it.
    let bus = Bus::new(unsafe { Mmio::new(ecam, pci::BUS_SIZE) });
    let (vendor, device) = edu::PCI_ID;
    let function = bus.find(vendor, device)?;
    let window = host.memory;
    let mut window = MemoryWindow::new(window.cpu.start, window.bus, window.cpu.size());
    let [Some(bar), ..] = bus.enable(function, &mut window)? else {
        return Err(EduError::NoRegisters);
    };
    let line = bus.pin(function).and_then(|pin| line_of(function, pin));
    let line = line.ok_or(EduError::NoInterrupt)?;

    let registers = PhysRange::new(bar.base, bar.base + edu::REGISTERS_SIZE);
    let registers = (platform.ioremap)(registers, "edu")?;
    // SAFETY: the BAR was just given these addresses; they are mapped as Device memory for good,
    // and nothing else uses them.
    let io = unsafe { Mmio::new(registers, edu::REGISTERS_SIZE) };
    let in_tree = || {
        platform
            .tree
            .and_then(|tree| tree.dma_coherent("pci-host-ecam-generic"))
    };
    let coherent = platform
        .dma_coherent
        .or_else(in_tree)
        .unwrap_or(built_in_coherence);
    DEVICE.set_coherent(coherent);
    // SAFETY: `DEVICE` is the function that was just enabled.
    let edu = unsafe { Edu::probe(io, &DEVICE, platform.clock) }?;
    let engine = ENGINE.call_once(|| edu);
    let handler = INTERRUPT.call_once(|| EngineInterrupt::new(engine));
    platform.interrupts.register(line, handler)?;
    platform.interrupts.gic().enable(line)?;
    try_out(engine, platform.pool).inspect_err(|_| {
        // The machine goes on without it, and none of its memory is to be left mapped.
        DEVICE.release();
    })?;
    (platform.note)(format_args!(
        "dma engine=edu pci={vendor:04x}:{device:04x} slot={} bar0={} irq={line} coherent={}",
        function.device(),
        bar.base,
        if coherent { "yes" } else { "no" },
    ));
    Ok(engine)
}

/// What the device is tried with: bytes that no memory holds by chance.
const TRIAL: [u8; 64] = [0x9D; 64];

/// Lets the device copy from the highest zone that the allocators serve from to the coherent pool.
///
/// Its option `dma_mask` cannot be read, and it does not refuse an address beyond it: it accesses
/// other memory. A driver that takes 40 bits for granted must find out before it is believed.
fn try_out(engine: &dyn DmaEngine, pool: &'static CoherentPool) -> Result<(), EduError> {
    let source = KBox::new(TRIAL, Gfp::KERNEL)?;
    let mut seen = pool.alloc(&DEVICE, TRIAL.len())?;
    let mapping = map_shared(&DEVICE, source.as_slice())?;
    copy(engine, &mapping, &mut seen.part_mut(0, TRIAL.len())?)?;
    if seen.as_slice().starts_with(&TRIAL) {
        return Ok(());
    }
    Err(EduError::Clamps {
        src: mapping.dma_segment().addr,
        dst: seen.dma_addr(),
    })
}

/// The interrupt line of `pin` of `function`: the standard swizzle.
fn line_of(function: Function, pin: Pin) -> Option<Line> {
    let swizzled = (u32::from(function.device()) + pin as u32 - Pin::A as u32) % INTERRUPT_LINES;
    Line::spi(FIRST_SPI + swizzled)
}
