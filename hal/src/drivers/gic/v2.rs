//! GICv2 (IHI 0048B).
//!
//! With the Security Extensions, as in a real GIC-400, the firmware has put every interrupt into
//! group 1, and from the non-secure side bit 0 of `GICD_CTLR` and `GICC_CTLR` means group 1 while
//! `GICD_IGROUPR` is read-as-zero, write-ignored. Without them, as in QEMU, bit 0 means group 0,
//! so the driver puts every interrupt there. Either way the same registers enable, acknowledge
//! and end. The `arm-gic` driver for the GICv2 sets bit 1 in the first case, which the non-secure
//! side cannot; only its register layout is used here.

use super::{GicError, Line, SPI_START, Trigger};
use crate::addr::VirtAddr;
use crate::drivers::registers;
use crate::sync::{IrqLock, MAX_CPUS};
use arm_gic::gicv2::registers::{Gicc, Gicd, GicdCtlr};
use core::sync::atomic::{AtomicU8, Ordering};
use safe_mmio::fields::ReadPureWrite;
use safe_mmio::{UniqueMmioPointer, field, field_shared};

/// Priority of every line; the middle of the range.
const PRIORITY: u8 = 0x80;
/// `GICC_PMR`: less urgent than every line's priority, so all of them are signalled.
const PRIORITY_MASK: u32 = 0xF0;
/// `GICC_CTLR.Enable`, `EOImode` 0: ending an interrupt drops its priority and deactivates it.
const CPU_INTERFACE_ENABLE: u32 = 1;
/// `GICC_APR0`, and how many of them there are (IHI 0048B 4.4.9). `arm-gic` does not name them.
const ACTIVE_PRIORITIES: usize = 0xD0;
const ACTIVE_PRIORITY_WORDS: usize = 4;
/// `GICD_SGIR.CPUTargetList`.
const SGIR_TARGETS_SHIFT: u32 = 16;

/// `N` registers that hold one field per line, from line 0 on.
type PerLine<'a, const N: usize> = UniqueMmioPointer<'a, [ReadPureWrite<u32>; N]>;

#[derive(Debug)]
pub(super) struct GicV2 {
    /// The lock is a leaf: nothing else is locked under it.
    distributor: IrqLock<UniqueMmioPointer<'static, Gicd>>,
    /// `GICC`, at the same address for every core: each reaches its own.
    cpu_interface: VirtAddr,
    /// By core number: the core's bit in `GICD_ITARGETSR` and `GICD_SGIR`; zero before it is known.
    interfaces: [AtomicU8; MAX_CPUS],
}

impl GicV2 {
    /// # Safety
    ///
    /// As [`super::Gic::v2`].
    pub(super) unsafe fn new(distributor: VirtAddr, cpu_interface: VirtAddr) -> Self {
        Self {
            // SAFETY: promised by the caller.
            distributor: IrqLock::new(unsafe { registers(distributor) }),
            cpu_interface,
            interfaces: [const { AtomicU8::new(0) }; MAX_CPUS],
        }
    }

    pub(super) fn lines(&self) -> u32 {
        let lines = field_shared!(self.distributor.lock(), typer)
            .read()
            .num_irqs();
        lines.min(super::LINES as u32)
    }

    pub(super) fn init(&self, core: usize) -> Result<(), GicError> {
        let lines = self.lines();
        let target = self.interface(core)?;
        let mut gicd = self.distributor.lock();
        field!(gicd, ctlr).write(GicdCtlr::empty());
        reset_lines(&mut gicd, SPI_START, lines);
        fill(field!(gicd, icfgr), SPI_START, lines, 2, 0);
        let targets = u32::from_ne_bytes([target; 4]);
        fill(target_registers(&mut gicd), SPI_START, lines, 8, targets);
        field!(gicd, ctlr).write(GicdCtlr::EnableGrp0);
        Ok(())
    }

    pub(super) fn init_core(&self, core: usize) {
        let mut gicd = self.distributor.lock();
        reset_lines(&mut gicd, 0, SPI_START);
        // The first eight registers are banked: every byte that is implemented names the reader.
        let mut own = 0;
        for index in 0..SPI_START as usize / 4 {
            if let Some(register) = target_registers(&mut gicd).get(index) {
                own |= register.read();
            }
        }
        let own = own
            .to_ne_bytes()
            .into_iter()
            .fold(0, |all, byte| all | byte);
        // A controller for one core has no such registers and reads as zero.
        let own = if own == 0 { 1 } else { own };
        if let Some(interface) = self.interfaces.get(core) {
            interface.store(own, Ordering::Relaxed);
        }
        drop(gicd);
        // A predecessor that acknowledged an interrupt and never ended it left its priority active,
        // which would keep every line of that priority back.
        for index in 0..ACTIVE_PRIORITY_WORDS {
            let offset = ACTIVE_PRIORITIES + index * size_of::<u32>();
            // SAFETY: `new` was promised the registers, which are banked; see `cpu_interface`.
            let mut word: UniqueMmioPointer<'_, ReadPureWrite<u32>> =
                unsafe { registers(self.cpu_interface + offset) };
            word.write(0);
        }
        let mut gicc = self.cpu_interface();
        field!(gicc, pmr).write(PRIORITY_MASK);
        field!(gicc, ctlr).write(CPU_INTERFACE_ENABLE);
    }

    pub(super) fn set_enabled(&self, line: Line, enabled: bool) {
        let mut gicd = self.distributor.lock();
        let mut registers = if enabled {
            field!(gicd, isenabler)
        } else {
            field!(gicd, icenabler)
        };
        // Writing a zero changes nothing, so the other 31 lines are left alone.
        if let Some(mut register) = registers.get(line.index() / 32) {
            register.write(1 << (line.index() % 32));
        }
    }

    pub(super) fn set_trigger(&self, line: Line, trigger: Trigger) {
        // The upper bit of the field; the lower one is reserved.
        let value = match trigger {
            Trigger::Edge => 0b10,
            Trigger::Level => 0b00,
        };
        let mut gicd = self.distributor.lock();
        replace(field!(gicd, icfgr), line, 2, value);
    }

    pub(super) fn set_priority(&self, line: Line, priority: u8) {
        let mut gicd = self.distributor.lock();
        replace(field!(gicd, ipriorityr), line, 8, priority.into());
    }

    pub(super) fn set_target(&self, line: Line, core: usize) -> Result<(), GicError> {
        let interface = self.interface(core)?;
        let mut gicd = self.distributor.lock();
        replace(target_registers(&mut gicd), line, 8, interface.into());
        Ok(())
    }

    pub(super) fn send_sgi(&self, line: Line, core: usize) -> Result<(), GicError> {
        let targets = u32::from(self.interface(core)?) << SGIR_TARGETS_SHIFT;
        let mut gicd = self.distributor.lock();
        field!(gicd, sgir).write(targets | line.intid());
        Ok(())
    }

    pub(super) fn acknowledge(&self) -> u32 {
        let mut gicc = self.cpu_interface();
        field!(gicc, iar).read()
    }

    pub(super) fn end(&self, token: u32) {
        let mut gicc = self.cpu_interface();
        field!(gicc, eoir).write(token);
    }

    /// The executing core's interface registers.
    fn cpu_interface(&self) -> UniqueMmioPointer<'_, Gicc> {
        // SAFETY: `new` was promised the registers. They are banked, so no other core reaches
        // these, and each use here is one access, complete before an interrupt handler's.
        unsafe { registers(self.cpu_interface) }
    }

    fn interface(&self, core: usize) -> Result<u8, GicError> {
        self.interfaces
            .get(core)
            .map(|interface| interface.load(Ordering::Relaxed))
            .filter(|&interface| interface != 0)
            .ok_or(GicError::CoreNotReady { core })
    }
}

/// Disables the lines `start..end` and gives them group and priority; forgets what the firmware
/// left pending or active.
fn reset_lines(gicd: &mut UniqueMmioPointer<'_, Gicd>, start: u32, end: u32) {
    let one_state = !field_shared!(*gicd, typer).read().has_security_extension();
    fill(field!(*gicd, icenabler), start, end, 1, u32::MAX);
    fill(field!(*gicd, icpendr), start, end, 1, u32::MAX);
    fill(field!(*gicd, icactiver), start, end, 1, u32::MAX);
    if one_state {
        fill(field!(*gicd, igroupr), start, end, 1, 0);
    }
    let priorities = u32::from_ne_bytes([PRIORITY; 4]);
    fill(field!(*gicd, ipriorityr), start, end, 8, priorities);
}

/// `GICD_ITARGETSR`, which the register layout declares as plain words.
fn target_registers<'a>(gicd: &'a mut UniqueMmioPointer<'_, Gicd>) -> PerLine<'a, 0x100> {
    let registers = field!(*gicd, itargetsr).ptr_nonnull().cast();
    // SAFETY: the words are part of `gicd`, and `ReadPureWrite` is transparent. Reading them has no
    // side effect (IHI 0048B 4.3.12).
    unsafe { gicd.child(registers) }
}

/// Writes `value` to every register that holds fields of `bits` bits for the lines `start..end`.
fn fill<const N: usize>(
    mut registers: PerLine<'_, N>,
    start: u32,
    end: u32,
    bits: u32,
    value: u32,
) {
    for index in start * bits / 32..end * bits / 32 {
        if let Some(mut register) = registers.get(index as usize) {
            register.write(value);
        }
    }
}

/// Replaces the field of `bits` bits that belongs to `line`.
fn replace<const N: usize>(mut registers: PerLine<'_, N>, line: Line, bits: u32, value: u32) {
    let bit = line.intid() * bits;
    let shift = bit % 32;
    let mask = ((1 << bits) - 1) << shift;
    if let Some(mut register) = registers.get((bit / 32) as usize) {
        register.modify(|old| old & !mask | value << shift);
    }
}
