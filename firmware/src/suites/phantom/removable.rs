//! An edu that can leave the bus: registers that a program answers.

use super::REMOVABLE;
use crate::machine::machine;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hal::drivers::edu::{Edu, ProbeError};
use hal::drivers::mmio::RegisterIo;

/// `IDENTIFICATION` and its value, and `LIVENESS`.
const IDENTIFICATION: usize = 0x00;
const EDU: u32 = 0x0100_00ED;
const LIVENESS: usize = 0x04;

/// The registers of an edu that copies nothing and never interrupts.
#[derive(Debug)]
pub(in crate::suites) struct Registers {
    is_gone: AtomicBool,
    liveness: AtomicU32,
}

impl Registers {
    pub(in crate::suites) const fn new() -> Self {
        Self {
            is_gone: AtomicBool::new(false),
            liveness: AtomicU32::new(0),
        }
    }

    /// Takes the registers off the bus, or puts them back.
    pub(in crate::suites) fn set_gone(&self, is_gone: bool) {
        self.is_gone.store(is_gone, Ordering::Relaxed);
    }

    /// The driver of the device.
    pub(in crate::suites) fn probe(&self) -> Result<Edu<&Self>, ProbeError> {
        // SAFETY: no bus master is behind these registers, so that any description holds.
        unsafe { Edu::probe(self, &REMOVABLE, &machine().timer) }
    }
}

impl RegisterIo for &Registers {
    fn read32(&self, offset: usize) -> u32 {
        match offset {
            _ if self.is_gone.load(Ordering::Relaxed) => u32::MAX,
            IDENTIFICATION => EDU,
            LIVENESS => !self.liveness.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        if offset == LIVENESS {
            self.liveness.store(value, Ordering::Relaxed);
        }
    }

    fn read64(&self, _: usize) -> u64 {
        match self.is_gone.load(Ordering::Relaxed) {
            true => u64::MAX,
            false => 0,
        }
    }

    fn write64(&self, _: usize, _: u64) {}
}
