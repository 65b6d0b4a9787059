//! Devices driven past their drivers, one step at a time.
//!
//! A driver of the library cannot be made to leave its barrier out or to take a wrong address. These can.
//! The library's driver of the device is idle meanwhile, and finds the device as it left it.

mod bcm2711_dma;
mod edu;
mod fw_cfg;
mod second;

pub(super) use bcm2711_dma::{Bcm2711Dma, Block};
pub(super) use edu::Edu;
pub(super) use fw_cfg::FwCfg;
pub(super) use second::Second;

use crate::machine::machine;
use crate::memory::Registers;
use crate::report::{Stop, failed_operation};
use hal::addr::{PhysAddr, PhysRange};
use hal::dma::Device;
use hal::drivers::mmio::Mmio;
use hal::mm::IoKind;

/// What a device does with the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It reads it.
    Reads,
    /// It writes it.
    Writes,
}

/// A device.
pub(super) trait Port: Sized {
    /// Takes the device, if this board has it.
    fn open() -> Result<Self, Stop>;

    /// The device as the library knows it.
    fn device(&self) -> &'static Device;

    /// Tells the device of `len` bytes at bus address `at`, all but the doorbell. What it stores to memory
    /// for that is complete.
    fn prepare(&self, way: Way, at: u64, len: usize);

    /// The doorbell. Inlined: it is rung in the seed's function.
    fn ring(&self);

    /// Waits for the end and sees it.
    fn finish(&self);

    /// An address of `len` bytes that are not all memory the device reaches.
    fn beyond(&self, len: usize) -> u64;

    /// Where the device sees `pa`.
    fn bus(&self, pa: PhysAddr) -> u64 {
        // The memory was allocated within the device's reach.
        let addr = self.device().dma_addr(pa, 1);
        addr.map_or(0, hal::addr::DmaAddr::get)
    }
}

/// Why a seed does not run: its device is another board's.
pub(super) const ELSEWHERE: Stop = Stop::Skipped("another board's device");

/// Device registers mapped a second time.
pub(super) struct Window {
    /// The registers.
    pub(super) io: Mmio,
    _mapping: Registers,
}

impl Window {
    /// Maps the `size` bytes of registers at `base`.
    pub(super) fn map(base: PhysAddr, size: usize) -> Result<Self, Stop> {
        let range = PhysRange::new(base, base + size);
        let mapping = match Registers::map(range, IoKind::Posted) {
            Ok(mapping) => mapping,
            Err(error) => return failed_operation(&error),
        };
        // SAFETY: `ioremap` has mapped the range as device memory, refusing RAM, until `mapping` is dropped
        // with the value. The driver that the registers are shared with makes no submission meanwhile: each
        // seed runs to its end on the only core that has work.
        let io = unsafe { Mmio::new(mapping.va(), size) };
        Ok(Self {
            io,
            _mapping: mapping,
        })
    }
}

/// Whether the engine called `name`, or any whose name starts so, is the machine's.
fn engine_named(name: &str) -> Option<&'static Device> {
    let mut engines = machine().engines.iter().map(|engine| engine.device());
    engines.find(|device| device.name().starts_with(name))
}

/// The first address after RAM.
fn end_of_ram() -> PhysAddr {
    let ends = machine().map.ram().iter().map(|ram| ram.end);
    ends.max().unwrap_or_default()
}
