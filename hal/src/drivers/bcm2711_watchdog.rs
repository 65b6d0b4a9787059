//! The BCM2711's watchdog, used to restart or halt the chip.
//!
//! The power management block is not in the public datasheet; the register numbers are those that
//! Linux's `bcm2835_wdt` driver uses.

use super::registers;
use crate::addr::VirtAddr;
use crate::arch::barrier;
use core::mem::offset_of;
use safe_mmio::fields::ReadPureWrite;
use safe_mmio::{UniqueMmioPointer, field};

/// Every write must carry this in bits 31:24, or it is ignored.
const PASSWORD: u32 = 0x5A << 24;
/// Where the password is written.
const PASSWORD_MASK: u32 = 0xFF << 24;

/// `RSTC.WRCFG`, bits 5:4: what the watchdog does when it expires.
const RSTC_WRCFG_MASK: u32 = 0b11 << 4;
/// `RSTC.WRCFG`: reset the whole chip.
const RSTC_WRCFG_FULL_RESET: u32 = 0b10 << 4;

/// `RSTS`: the boot partition, in every second bit from 0 to 10. All ones, partition 63, tells the
/// firmware to halt.
const RSTS_PARTITION_HALT: u32 = 0x555;

/// Until the watchdog expires, in ticks of 1/65536 s: some 150 µs.
const RESET_TICKS: u32 = 10;

/// The registers used here.
#[repr(C)]
struct Registers {
    _unused: [u32; 7],
    /// `PM_RSTC`: reset control.
    rstc: ReadPureWrite<u32>,
    /// `PM_RSTS`: reset status, kept over a reset.
    rsts: ReadPureWrite<u32>,
    /// `PM_WDOG`: ticks left.
    wdog: ReadPureWrite<u32>,
}

const _: () = {
    assert!(offset_of!(Registers, rstc) == 0x1C);
    assert!(offset_of!(Registers, wdog) == 0x24);
};

/// The watchdog.
#[derive(Debug)]
pub struct Bcm2711Watchdog {
    registers: UniqueMmioPointer<'static, Registers>,
}

impl Bcm2711Watchdog {
    /// The watchdog with the power management registers at `base`.
    ///
    /// # Safety
    ///
    /// `base` maps the BCM2711's power management registers as Device memory for the rest of the
    /// program, and nothing else accesses them while the value lives.
    pub unsafe fn new(base: VirtAddr) -> Self {
        Self {
            // SAFETY: promised by the caller.
            registers: unsafe { registers(base) },
        }
    }

    /// Restarts the chip some 150 µs after the call returns. May be called in any context.
    pub fn reset(&mut self) {
        field!(self.registers, wdog).write(PASSWORD | RESET_TICKS);
        field!(self.registers, rstc).modify(|rstc| {
            PASSWORD | (rstc & !RSTC_WRCFG_MASK & !PASSWORD_MASK) | RSTC_WRCFG_FULL_RESET
        });
        barrier::dsb_sy();
    }

    /// Restarts into the firmware and makes it stay there: the nearest thing to power-off that the
    /// board has. Takes effect some 150 µs after the call returns. May be called in any context.
    pub fn halt(&mut self) {
        field!(self.registers, rsts)
            .modify(|rsts| PASSWORD | (rsts & !PASSWORD_MASK) | RSTS_PARTITION_HALT);
        self.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rstc: u32, action: impl FnOnce(&mut Bcm2711Watchdog)) -> [u32; 10] {
        let mut block = [0u32; 10];
        block[7] = rstc;
        block[8] = 0x1000;
        let base = VirtAddr::from_ptr(block.as_mut_ptr());
        // SAFETY: the block is as large as the registers and outlives the driver.
        action(&mut unsafe { Bcm2711Watchdog::new(base) });
        // SAFETY: `block` is live; the driver wrote it behind the compiler's back.
        unsafe { base.as_ptr::<[u32; 10]>().read_volatile() }
    }

    #[test]
    fn reset_as_linux_does_it() {
        let block = after(0x0000_0112, Bcm2711Watchdog::reset);
        assert_eq!(block[9], 0x5A00_000A);
        assert_eq!(block[7], 0x5A00_0122);
        assert_eq!(block[8], 0x1000);
    }

    #[test]
    fn halt_marks_partition_63() {
        let block = after(0x0000_0102, Bcm2711Watchdog::halt);
        assert_eq!(block[8], 0x5A00_1555);
        assert_eq!((block[7], block[9]), (0x5A00_0122, 0x5A00_000A));
    }
}
