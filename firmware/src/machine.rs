//! The machine the firmware found itself on, once it is up.

use crate::boot::image::Image;
use crate::boot::memory::TreeFault;
use crate::boot::secondary::StartError;
use crate::dmatest;
use hal::addr::PhysRange;
use hal::board::{Absences, Board, Engines};
use hal::devicetree::{Description, DeviceTree};
use hal::dma::CoherentPool;
use hal::drivers::fw_cfg::FwCfg;
use hal::drivers::irq::Interrupts;
use hal::drivers::mailbox::Mailbox;
use hal::drivers::mmio::Mmio;
use hal::drivers::timer::Timer;
use hal::memory_map::MemoryMap;
use hal::mmu::KernelMapper;
use hal::sync::{IrqLock, MAX_CPUS, Once};

/// What is known of the machine. Nothing here changes after boot.
#[derive(Debug)]
pub struct Machine {
    /// The board.
    pub board: &'static dyn Board,
    /// Where the image is.
    pub image: Image,
    /// Exception level at entry, 1 to 3.
    pub entry_level: u8,
    /// RAM and its owners.
    pub map: MemoryMap,
    /// The device tree, or why the board's own map is used.
    pub tree: Result<DeviceTree<'static>, TreeFault>,
    /// What the device tree says.
    pub description: Description<'static>,
    /// The kernel's tables.
    pub tables: &'static IrqLock<KernelMapper>,
    /// The coherent pool.
    pub pool: &'static CoherentPool,
    /// The interrupt controller.
    pub interrupts: &'static Interrupts,
    /// The clock.
    pub timer: Timer,
    /// The DMA engines.
    pub engines: Engines,
    /// Why others did not come up that this machine must have.
    pub absent_engines: Absences,
    /// Why an emulator has fewer engines than its board.
    pub unmodelled_engines: Option<&'static str>,
    /// The mailbox to the board's firmware, if it has one.
    pub mailbox: Option<&'static Mailbox<Mmio>>,
    /// QEMU's firmware configuration device.
    pub fw_cfg: Option<&'static FwCfg>,
    /// Cores that did not come up, and why.
    pub absent_cores: heapless::Vec<StartError, MAX_CPUS>,
    /// The payload: the initial RAM disk.
    pub payload: Option<PhysRange>,
    /// Seed of everything random.
    pub seed: u64,
    /// What the suite `dmatest` copies.
    pub dmatest: dmatest::Options<'static>,
}

static MACHINE: Once<Machine> = Once::new();

/// Publishes the machine; once.
pub fn install(machine: Machine) -> &'static Machine {
    MACHINE.call_once(|| machine)
}

/// The machine.
///
/// # Panics
///
/// Before boot has ended: a mistake in the order of the boot code.
pub fn machine() -> &'static Machine {
    match MACHINE.get() {
        Some(machine) => machine,
        None => panic!("the machine is not up yet"),
    }
}
