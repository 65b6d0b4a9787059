//! QEMU's `virt` machine.
//!
//! Addresses are those of `hw/arm/virt.c` (QEMU 10.0), which the device tree repeats; they are
//! used where the device tree is missing or wrong, and to tell RAM from registers.

#![no_std]

mod edu;
mod fw_cfg;

use hal::addr::{PhysAddr, PhysRange};
use hal::board::{
    Board, Devices, GicDescription, Platform, SecondaryStart, UartDescription, ZoneLimits,
};
use hal::dma::BusWindow;

const RAM_BASE: u64 = 0x4000_0000;

/// The smallest machine the firmware is used on; a device tree says how much there really is.
const BUILT_IN_RAM: u64 = 64 << 20;

const GIB: u64 = 1 << 30;

/// QEMU's device tree calls every device coherent; without one the safe answer is no.
const DMA_COHERENT: bool = false;

/// Every device sees memory where the CPU does, all of it.
static WINDOWS: [BusWindow; 1] = {
    // SAFETY: neither QEMU's PCI host bridge nor the bus that fw_cfg is on translates anything
    // (`create_pcie` and `create_fw_cfg`, `hw/arm/virt.c`).
    match unsafe { BusWindow::new(PhysAddr::new(0), 0, 1 << 40) } {
        Some(window) => [window],
        None => panic!("the window does not wrap"),
    }
};

/// The board.
#[derive(Debug)]
pub struct QemuVirt;

// SAFETY: RAM starts at 1 GiB on every `virt` machine and has at least the size given with `-m`,
// which QEMU's documentation of this firmware requires to be 64 MiB or more; flash, registers and
// PCI memory lie below. No bus translates addresses.
unsafe impl Board for QemuVirt {
    fn name(&self) -> &'static str {
        "qemu-virt"
    }

    fn built_in_ram(&self) -> &'static [PhysRange] {
        const {
            &[PhysRange::new(
                PhysAddr::new(RAM_BASE),
                PhysAddr::new(RAM_BASE + BUILT_IN_RAM),
            )]
        }
    }

    fn firmware_ram(&self) -> &'static [PhysRange] {
        &[]
    }

    fn device_windows(&self) -> &'static [PhysRange] {
        const { &[PhysRange::new(PhysAddr::new(0), PhysAddr::new(RAM_BASE))] }
    }

    /// RAM starts where the zone for 30-bit masters would end, so that zone is empty.
    fn zone_limits(&self) -> ZoneLimits {
        ZoneLimits {
            dma: PhysAddr::new(GIB),
            dma32: PhysAddr::new(4 * GIB),
        }
    }

    fn uart(&self) -> UartDescription {
        UartDescription {
            base: PhysAddr::new(0x0900_0000),
            clock: None,
        }
    }

    fn gic(&self) -> GicDescription {
        GicDescription {
            distributor: PhysAddr::new(0x0800_0000),
            cpu_interface: PhysAddr::new(0x0801_0000),
            redistributors: Some(PhysAddr::new(0x080A_0000)),
        }
    }

    fn secondary_start(&self) -> SecondaryStart {
        SecondaryStart::ParkedOnly
    }

    fn is_emulated(&self) -> bool {
        true
    }

    fn bring_up(&self, platform: &Platform<'_>) -> Devices {
        let mut devices = Devices::default();
        match edu::bring_up(platform, DMA_COHERENT) {
            // The first of MAX_ENGINES.
            Ok(engine) => drop(devices.engines.push(engine)),
            Err(error) => {
                (platform.note)(format_args!("no DMA engine: {error}"));
                devices.lack_engine(format_args!("edu: {error}"));
            }
        }
        match fw_cfg::bring_up(platform) {
            Ok(fw_cfg) => devices.fw_cfg = Some(fw_cfg),
            Err(error) => (platform.note)(format_args!("no fw_cfg: {error}")),
        }
        devices
    }
}
