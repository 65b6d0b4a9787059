//! What the rest of the system needs to know of a board.

use crate::addr::{PhysAddr, PhysRange};

/// Where a PL011 is and how it is clocked.
#[derive(Clone, Copy, Debug)]
pub struct UartDescription {
    /// First register.
    pub base: PhysAddr,
    /// Reference clock in Hz and the baud rate to program, or `None` to leave it as it was found.
    pub clock: Option<(u32, u32)>,
}

/// Where the interrupt controller is, for a machine whose device tree does not say.
#[derive(Clone, Copy, Debug)]
pub struct GicDescription {
    /// Distributor.
    pub distributor: PhysAddr,
    /// GICv2 CPU interface.
    pub cpu_interface: PhysAddr,
    /// First GICv3 redistributor, on boards that can have a GICv3.
    pub redistributors: Option<PhysAddr>,
}

/// The first address beyond the reach of a class of DMA masters; see
/// [`crate::mm::zone`].
#[derive(Clone, Copy, Debug)]
pub struct ZoneLimits {
    /// End of `ZONE_DMA`: what the most limited masters reach.
    pub dma: PhysAddr,
    /// End of `ZONE_DMA32`.
    pub dma32: PhysAddr,
}

/// How the secondary cores are started where the device tree does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondaryStart {
    /// A word per core that the core polls for its entry address, by core number.
    SpinTable(&'static [PhysAddr]),
    /// Only the core that boots, unless the cores entered together and are parked by the boot code.
    ParkedOnly,
}

/// A board: facts, and the few things only it can do.
///
/// # Safety
///
/// The implementor guarantees that the memory it calls RAM is RAM when no device tree says
/// otherwise, that its device windows hold no RAM, and that its bus windows translate as the
/// hardware does: a wrong answer lets a device write over memory it was not given.
pub unsafe trait Board: Sync {
    /// Name used in reports and on the build command line.
    fn name(&self) -> &'static str;

    /// RAM that every machine of this kind has, for when the device tree is missing or wrong.
    fn built_in_ram(&self) -> &'static [PhysRange];

    /// RAM that belongs to someone else although no device tree says so.
    fn firmware_ram(&self) -> &'static [PhysRange];

    /// Physical addresses where registers are and RAM cannot be.
    fn device_windows(&self) -> &'static [PhysRange];

    /// The address zones.
    fn zone_limits(&self) -> ZoneLimits;

    /// The console UART.
    fn uart(&self) -> UartDescription;

    /// The interrupt controller.
    fn gic(&self) -> GicDescription;

    /// How the secondary cores start.
    fn secondary_start(&self) -> SecondaryStart;

    /// Whether DMA masters snoop the CPU caches, for when the device tree does not say.
    fn dma_coherent(&self) -> bool;
}
