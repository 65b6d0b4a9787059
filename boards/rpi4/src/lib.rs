//! Raspberry Pi 4 Model B (BCM2711), in its default low-peripheral address mode.
//!
//! "Datasheet" is BCM2711 ARM Peripherals, Raspberry Pi Ltd, release 4.

#![no_std]

mod dma;
mod firmware;

use hal::addr::{PhysAddr, PhysRange};
use hal::board::{
    Board, Devices, EarlyPlatform, GicDescription, Platform, SecondaryStart, UartDescription,
    ZoneLimits,
};
use hal::drivers::bcm2711_gpio::Bcm2711Gpio;

/// What the VideoCore leaves of the first GiB with the default `gpu_mem=76`. A smaller carve-out
/// only means that some RAM stays unused; the firmware's device tree has the true number.
const VIDEOCORE_BASE: u64 = 0x3B40_0000;

/// The boot stub and the spin table: the device tree reserves this page.
const STUB_PAGE: u64 = 0x1000;

/// Registers start here in low-peripheral mode (Datasheet 1.2.3).
const PERIPHERALS: u64 = 0xFC00_0000;

/// GPIO block (Datasheet 5.2).
const GPIO: PhysRange = PhysRange::new(PhysAddr::new(0xFE20_0000), PhysAddr::new(0xFE20_1000));

/// PCIe outbound window (`pcie@7d500000` in the device tree).
const PCIE: u64 = 0x6_0000_0000;

const GIB: u64 = 1 << 30;

/// The words the secondary cores poll, by core (`cpu-release-addr` of the device tree); the first
/// belongs to the core that boots.
static SPIN_TABLE: [PhysAddr; 4] = [
    PhysAddr::new(0xD8),
    PhysAddr::new(0xE0),
    PhysAddr::new(0xE8),
    PhysAddr::new(0xF0),
];

/// No master of the BCM2711 snoops the Cortex-A72 caches.
const DMA_COHERENT: bool = false;

/// The board.
#[derive(Debug)]
pub struct RaspberryPi4;

// SAFETY: every model has at least 1 GiB of which the VideoCore takes at most the top 76 MiB
// unless config.txt says otherwise (it then also passes a device tree); the first page is the boot
// stub's; nothing but registers lies between 0xFC00_0000 and 4 GiB.
unsafe impl Board for RaspberryPi4 {
    fn name(&self) -> &'static str {
        "rpi4"
    }

    fn built_in_ram(&self) -> &'static [PhysRange] {
        const {
            &[PhysRange::new(
                PhysAddr::new(0),
                PhysAddr::new(VIDEOCORE_BASE),
            )]
        }
    }

    fn firmware_ram(&self) -> &'static [PhysRange] {
        const { &[PhysRange::new(PhysAddr::new(0), PhysAddr::new(STUB_PAGE))] }
    }

    fn device_windows(&self) -> &'static [PhysRange] {
        const {
            &[
                PhysRange::new(PhysAddr::new(PERIPHERALS), PhysAddr::new(4 * GIB)),
                PhysRange::new(PhysAddr::new(PCIE), PhysAddr::new(PCIE + 4 * GIB)),
            ]
        }
    }

    /// The legacy DMA channels, the mailbox and the USB OTG core reach the first GiB only.
    fn zone_limits(&self) -> ZoneLimits {
        ZoneLimits {
            dma: PhysAddr::new(GIB),
            dma32: PhysAddr::new(4 * GIB),
        }
    }

    /// UART0 at the 48 MHz that config.txt and the mailbox set.
    fn uart(&self) -> UartDescription {
        UartDescription {
            base: PhysAddr::new(0xFE20_1000),
            clock: Some((48_000_000, 115_200)),
        }
    }

    /// GIC-400.
    fn gic(&self) -> GicDescription {
        GicDescription {
            distributor: PhysAddr::new(0xFF84_1000),
            cpu_interface: PhysAddr::new(0xFF84_2000),
            redistributors: None,
        }
    }

    fn secondary_start(&self) -> SecondaryStart {
        SecondaryStart::SpinTable(&SPIN_TABLE)
    }

    /// The firmware may have given UART0 to Bluetooth; the report goes to the header.
    fn prepare_console(&self, platform: &EarlyPlatform<'_>) {
        if let Ok(base) = (platform.ioremap)(GPIO, "GPIO") {
            // SAFETY: the GPIO block is there on every BCM2711, was just mapped as Device memory
            // for good, and is used here only.
            unsafe { Bcm2711Gpio::new(base) }.connect_uart0();
        }
    }

    fn has_mailbox(&self) -> bool {
        true
    }

    fn bring_up(&self, platform: &Platform<'_>) -> Devices {
        let mut devices = Devices::default();
        match firmware::bring_up(platform, DMA_COHERENT) {
            Ok(mailbox) => devices.mailbox = Some(mailbox),
            Err(error) => (platform.note)(format_args!("no mailbox: {error}")),
        }
        let channels = devices.mailbox.and_then(|mailbox| {
            if let Err(error) = firmware::ask(platform, mailbox) {
                (platform.note)(format_args!("VideoCore firmware: {error}"));
            }
            firmware::channels(mailbox)
        });
        dma::bring_up(platform, channels, DMA_COHERENT, &mut devices);
        devices
    }
}
