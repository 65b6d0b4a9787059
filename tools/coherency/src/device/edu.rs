//! QEMU's teaching device (QEMU `docs/specs/edu.rst`) behind PCI Express.
//!
//! It copies between memory and a buffer of its own. Where its registers are is what the firmware wrote
//! into base address register 0 of the function that has its identifiers.

mod pci;

use super::found::{Found, Jobs};
use super::{Access, Device, Does, Event, JobId, Memory};
use crate::kind::Kind;
use pci::ConfigurationSpace;
use std::ops::Range;

/// Vendor (low half) and device identifier.
const ID: u32 = 0x11E8_1234;
/// Bytes of registers.
const SIZE: u32 = 1 << 20;

/// Pending interrupts: 32 bits.
const INTERRUPT_STATUS: u64 = 0x24;
/// The end of a copy, in it.
const INTERRUPT_DMA: u64 = 0x100;
/// Registers of 64 bits. A store of 32 bits replaces the whole value.
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;

/// Starts a copy; reads 1 until it has ended.
const COMMAND_RUN: u64 = 1 << 0;
/// From the buffer to memory; otherwise from memory to the buffer.
const COMMAND_TO_MEMORY: u64 = 1 << 1;
/// Raises [`INTERRUPT_DMA`] at the end.
const COMMAND_INTERRUPT: u64 = 1 << 2;

/// The device's own buffer, where its side of a copy sees it.
const BUFFER: Range<u64> = 0x4_0000..0x4_1000;

/// The device.
#[derive(Debug)]
pub struct Edu {
    configuration: ConfigurationSpace,
    mask: u64,
    jobs: Jobs,
    source: u64,
    destination: u64,
    count: u64,
    running: Option<Running>,
}

/// A copy whose end the CPU has not seen.
#[derive(Clone, Copy, Debug)]
struct Running {
    job: JobId,
    interrupts: bool,
}

impl Edu {
    /// The device, wherever it is on the bus whose configuration space (ECAM) may be in any of
    /// `configuration`. It drives the address bits of `mask`.
    pub fn new(configuration: &[Range<u64>], mask: u64) -> Self {
        Self {
            configuration: ConfigurationSpace::new(configuration, ID, SIZE),
            mask,
            jobs: Jobs::default(),
            source: 0,
            destination: 0,
            count: 0,
            running: None,
        }
    }

    fn store(&mut self, offset: u64, value: u64, events: &mut Vec<Event>) {
        // Until the end of a copy the registers ignore what is stored.
        if self.running.is_some() {
            return;
        }
        match offset {
            DMA_SOURCE => self.source = value,
            DMA_DESTINATION => self.destination = value,
            DMA_COUNT => self.count = value,
            DMA_COMMAND if value & COMMAND_RUN != 0 => {
                let mut found = Found::default();
                self.follow(value, &mut found);
                let job = self.jobs.next();
                found.start(job, events);
                self.running = Some(Running {
                    job,
                    interrupts: value & COMMAND_INTERRUPT != 0,
                });
            }
            _ => {}
        }
    }

    fn follow(&self, command: u64, found: &mut Found) {
        let (memory, own, does, role) = if command & COMMAND_TO_MEMORY != 0 {
            (self.destination, self.source, Does::Writes, "destination")
        } else {
            (self.source, self.destination, Does::Reads, "source")
        };
        let own_end = own.checked_add(self.count);
        if own < BUFFER.start || own_end.is_none_or(|end| end > BUFFER.end) {
            found.wrong(Kind::DmaOutsideMemory, own, "device buffer");
        }
        // It never has more than its buffer to copy.
        let len = self.count.min(BUFFER.end - BUFFER.start);
        match memory.checked_add(len) {
            Some(end) if end.saturating_sub(1) & !self.mask == 0 && memory & !self.mask == 0 => {
                found.span(memory..end, does, role);
            }
            _ => found.wrong(Kind::DmaOutsideMemory, memory, role),
        }
    }

    fn load(&mut self, offset: u64, value: u64, events: &mut Vec<Event>) {
        let has_ended = |running: &mut Running| match offset {
            DMA_COMMAND => value & COMMAND_RUN == 0,
            INTERRUPT_STATUS => running.interrupts && value & INTERRUPT_DMA != 0,
            _ => false,
        };
        let ended = self.running.take_if(has_ended);
        events.extend(ended.map(|Running { job, .. }| Event::Completed { job }));
    }
}

impl Device for Edu {
    fn name(&self) -> &str {
        "edu"
    }

    fn windows(&self) -> Vec<Range<u64>> {
        let mut windows = self.configuration.windows().to_vec();
        windows.extend(self.configuration.registers());
        windows
    }

    fn watched(&self) -> Vec<Range<u64>> {
        Vec::new()
    }

    fn access(&mut self, access: &Access, _: &dyn Memory, events: &mut Vec<Event>) {
        let registers = self.configuration.registers();
        if let Some(registers) = registers.filter(|registers| registers.contains(&access.pa)) {
            let offset = access.pa - registers.start;
            match access.is_store {
                true => self.store(offset, access.value, events),
                false => self.load(offset, access.value, events),
            }
        } else if self.configuration.access(access) {
            events.push(Event::Moved);
        }
    }
}

#[cfg(test)]
mod tests;
