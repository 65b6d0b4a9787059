//! What the rest of the system needs to know of a board.

use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::devicetree::{Description, DeviceTree};
use crate::dma::{Clock, CoherentPool, DmaEngine};
use crate::drivers::fw_cfg::FwCfg;
use crate::drivers::irq::Interrupts;
use crate::drivers::mailbox::Mailbox;
use crate::drivers::mmio::Mmio;
use crate::drivers::timer::Timer;
use crate::mm::IoremapError;
use core::fmt::{self, Write};

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
/// [`ZoneKind`](crate::mm::ZoneKind).
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

/// Most DMA engines a board brings up.
pub const MAX_ENGINES: usize = 4;

/// The DMA engines of a board.
pub type Engines = heapless::Vec<&'static dyn DmaEngine, MAX_ENGINES>;

/// Why an engine is missing, in words.
pub type Absence = heapless::String<160>;

/// The engines that a machine should have and has not.
pub type Absences = heapless::Vec<Absence, MAX_ENGINES>;

/// The devices of a machine, once they are up.
#[derive(Debug, Default)]
pub struct Devices {
    /// The DMA engines that came up.
    pub engines: Engines,
    /// Why engines did not come up that come up on this machine when nothing is wrong.
    pub absent_engines: Absences,
    /// Why this machine, an emulator, has fewer engines than the board.
    pub unmodelled_engines: Option<&'static str>,
    /// The mailbox to the board's firmware, on [boards that have one](Board::has_mailbox).
    pub mailbox: Option<&'static Mailbox<Mmio>>,
    /// QEMU's firmware configuration device.
    pub fw_cfg: Option<&'static FwCfg>,
}

impl Devices {
    /// Notes that an engine is missing, and why. From the first piece of `why` on that does not fit whole
    /// into an [`Absence`], nothing of it is kept; nor is an absence beyond [`MAX_ENGINES`].
    pub fn lack_engine(&mut self, why: fmt::Arguments<'_>) {
        let mut absence = Absence::new();
        let _ = absence.write_fmt(why);
        let _ = self.absent_engines.push(absence);
    }
}

/// Claims the registers in a range for the driver of that name, and maps them for good.
pub type MapRegisters = dyn Fn(PhysRange, &'static str) -> Result<VirtAddr, IoremapError>;

/// What a board may use before there is memory to allocate: enough to get the console going.
pub struct EarlyPlatform<'a> {
    /// Claims registers and maps them as Device memory, for good.
    pub ioremap: &'a MapRegisters,
}

impl fmt::Debug for EarlyPlatform<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyPlatform").finish_non_exhaustive()
    }
}

/// What a board may use to bring its devices up, with memory, interrupts and cores running.
pub struct Platform<'a> {
    /// Claims registers and maps them as Device memory, for good.
    pub ioremap: &'a MapRegisters,
    /// The device tree, if there is one to go by.
    pub tree: Option<&'a DeviceTree<'static>>,
    /// What it says; empty without one.
    pub description: &'a Description<'static>,
    /// The interrupt controller.
    pub interrupts: &'static Interrupts,
    /// The coherent pool.
    pub pool: &'static CoherentPool,
    /// The clock engines wait with.
    pub clock: &'static dyn Clock,
    /// The clock drivers measure with.
    pub timer: Timer,
    /// The command line's say on coherence, which overrides everybody else's.
    pub dma_coherent: Option<bool>,
    /// Writes a line about the machine into the report.
    pub note: &'a dyn Fn(fmt::Arguments<'_>),
}

impl fmt::Debug for Platform<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("tree", &self.tree.is_some())
            .finish_non_exhaustive()
    }
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

    /// Whether this board exists in an emulator only, which checks less than silicon does.
    fn is_emulated(&self) -> bool {
        false
    }

    /// Whether the board has a property mailbox to its firmware.
    fn has_mailbox(&self) -> bool {
        false
    }

    /// Routes the console UART to its pins.
    fn prepare_console(&self, _platform: &EarlyPlatform<'_>) {}

    /// Brings the board's devices up. What is missing or broken is said through
    /// [`Platform::note`] and left out.
    fn bring_up(&self, platform: &Platform<'_>) -> Devices;
}

impl fmt::Debug for dyn Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Board").field(&self.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_keeps_the_pieces_that_fit_whole() {
        let mut devices = Devices::default();
        let long = "x".repeat(150);
        devices.lack_engine(format_args!("legacy: {long}{}", "cut"));
        devices.lack_engine(format_args!("DMA4: {}", "no interrupt line"));
        let kept: Vec<_> = devices.absent_engines.iter().collect();
        assert_eq!(
            kept,
            [
                format!("legacy: {long}").as_str(),
                "DMA4: no interrupt line"
            ]
        );
        for number in 2..=MAX_ENGINES {
            devices.lack_engine(format_args!("engine {number}"));
        }
        assert_eq!(devices.absent_engines.last().unwrap(), "engine 3");
    }
}
