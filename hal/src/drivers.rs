//! Drivers: interrupt controller, timer, console, firmware calls, and the BCM2711's own blocks.
//!
//! A driver is given the virtual address of its registers, mapped as Device memory, by whoever
//! read the device tree; it never chooses an address itself.

pub mod bcm2711_gpio;
pub mod bcm2711_watchdog;
pub mod console;
pub mod gic;
pub mod irq;
pub mod mailbox;
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
