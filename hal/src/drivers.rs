//! Drivers: interrupt controller, timer, console, firmware calls, PCI and the DMA engines.
//!
//! A driver is given the virtual address of its registers, mapped as Device memory, by whoever
//! read the device tree; it never chooses an address itself.
//!
//! | module | device |
//! |---|---|
//! | [`gic`], [`irq`] | GICv2 and GICv3, and who serves which interrupt |
//! | [`timer`] | the generic timer |
//! | [`uart`], [`console`] | PL011, and sharing it |
//! | [`mmio`] | registers of the DMA engines, faked in tests |
//! | [`bcm2711_channels`] | which DMA channels of a BCM2711 are ours |
//! | [`bcm2711_dma`], [`bcm2711_dma4`] | its legacy channels and those with 40-bit addresses |
//! | [`bcm2711_gpio`], [`bcm2711_watchdog`], [`mailbox`] | pins, reset and firmware of a BCM2711 |
//! | [`pci`] | PCI Express configuration space and address assignment |
//! | [`edu`] | QEMU's teaching device as a DMA engine |
//! | [`fw_cfg`] | QEMU's firmware configuration device, which copies files to memory |
//! | `psci`, `semihosting` | calls to firmware and to a debugger; bare metal only |

pub mod bcm2711_channels;
pub mod bcm2711_dma;
pub mod bcm2711_dma4;
pub mod bcm2711_gpio;
pub mod bcm2711_watchdog;
pub mod console;
pub mod edu;
pub mod fw_cfg;
pub mod gic;
pub mod irq;
pub mod mailbox;
pub mod mmio;
pub mod pci;
#[cfg(target_os = "none")]
pub mod psci;
#[cfg(target_os = "none")]
pub mod semihosting;
pub mod timer;
pub mod uart;

use crate::addr::VirtAddr;
use core::ptr::NonNull;
use safe_mmio::UniqueMmioPointer;

/// The registers of type `T` at `base`.
///
/// # Safety
///
/// `base` is not null, aligned for `T`, and maps the registers `T` describes as Device memory for
/// the rest of the program. Nothing else accesses them while the pointer lives.
unsafe fn registers<T>(base: VirtAddr) -> UniqueMmioPointer<'static, T> {
    // SAFETY: `base` is not null, and the other promises are the ones `new` asks for.
    unsafe { UniqueMmioPointer::new(NonNull::new_unchecked(base.as_ptr())) }
}
