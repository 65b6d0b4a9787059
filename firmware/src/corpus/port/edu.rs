//! QEMU's edu: memory to its buffer, or its buffer to memory.

use super::{ELSEWHERE, Port, Way, Window, end_of_ram, engine_named};
use crate::clock;
use crate::machine::machine;
use crate::report::Stop;
use core::cell::Cell;
use hal::addr::PhysAddr;
use hal::dma::Device;
use hal::drivers::edu::{PCI_ID, REGISTERS_SIZE};
use hal::drivers::mmio::RegisterIo;
use hal::drivers::pci;

/// Registers (QEMU documentation, "EDU device").
const SOURCE: usize = 0x80;
const DESTINATION: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
/// Bits of the command: run, and from the buffer to memory.
const RUN: u64 = 1 << 0;
const DRAIN: u64 = 1 << 1;
/// Where the device sees its own buffer.
const BUFFER: u64 = 0x4_0000;
/// Somewhat longer than a copy takes, in nanoseconds.
const COPY_NS: u64 = 110_000_000;

/// Configuration space of device `n` of bus 0 starts at `n` times this; the first base address register.
const FUNCTIONS: usize = 8 * 4096;
const BAR0: usize = 0x10;
const BAR_ADDRESS_MASK: u32 = !0xF;

/// The device.
pub(in crate::corpus) struct Edu {
    window: Window,
    device: &'static Device,
    command: Cell<u64>,
}

impl Edu {
    /// Where the device's registers were put.
    fn registers() -> Result<PhysAddr, Stop> {
        let host = machine().description.pci.ok_or(ELSEWHERE)?;
        let ecam = Window::map(host.ecam.start, pci::BUS_SIZE)?;
        let (vendor, device) = PCI_ID;
        let id = u32::from(device) << 16 | u32::from(vendor);
        let mut functions = (0..pci::BUS_SIZE).step_by(FUNCTIONS);
        let edu = functions.find(|&at| ecam.io.read32(at) == id);
        let bar = ecam.io.read32(edu.ok_or(ELSEWHERE)? + BAR0);
        Ok(PhysAddr::new(u64::from(bar & BAR_ADDRESS_MASK)))
    }
}

impl Port for Edu {
    fn open() -> Result<Self, Stop> {
        let device = engine_named("edu").ok_or(ELSEWHERE)?;
        Ok(Self {
            window: Window::map(Self::registers()?, REGISTERS_SIZE)?,
            device,
            command: Cell::new(0),
        })
    }

    fn device(&self) -> &'static Device {
        self.device
    }

    fn prepare(&self, way: Way, at: u64, len: usize) {
        let (source, destination, direction) = match way {
            Way::Reads => (at, BUFFER, 0),
            Way::Writes => (BUFFER, at, DRAIN),
        };
        self.window.io.write64(SOURCE, source);
        self.window.io.write64(DESTINATION, destination);
        self.window.io.write64(COUNT, len as u64);
        self.command.set(RUN | direction);
    }

    #[inline(always)]
    fn ring(&self) {
        self.window.io.write64(COMMAND, self.command.get());
    }

    fn finish(&self) {
        while self.window.io.read64(COMMAND) & RUN != 0 {
            clock::pause(COPY_NS);
        }
    }

    fn beyond(&self, _: usize) -> u64 {
        end_of_ram().get()
    }
}
