//! QEMU's firmware configuration device, which writes what an item holds.

use super::{ELSEWHERE, Port, Way, Window, end_of_ram};
use crate::machine::machine;
use crate::report::Stop;
use core::hint::spin_loop;
use hal::addr::{PAGE_SIZE, PhysAddr};
use hal::arch::barrier;
use hal::dma::{Coherent, Device};
use hal::drivers::fw_cfg::REGISTERS_SIZE;
use hal::drivers::mmio::RegisterIo;

/// Where QEMU's virt has it, if the device tree does not say (`hw/arm/virt.c`).
const BASE: PhysAddr = PhysAddr::new(0x0902_0000);
/// The address of a descriptor, big-endian; the store starts the transfer.
const DMA_ADDRESS: usize = 0x10;
/// Bits of a control word (QEMU `docs/specs/fw_cfg.rst`); the item that every device has is number 0.
const ERROR: u32 = 1 << 0;
const READ: u32 = 1 << 1;
const SELECT: u32 = 1 << 3;

/// The device, and its descriptor in uncached memory.
pub(in crate::corpus) struct FwCfg {
    window: Window,
    device: &'static Device,
    descriptor: Coherent,
}

impl FwCfg {
    /// The words of a descriptor that has `len` bytes written to `at`.
    pub(in crate::corpus) fn words(at: u64, len: usize) -> [u32; 4] {
        // CAST: some lines.
        [READ | SELECT, len as u32, (at >> 32) as u32, at as u32].map(u32::to_be)
    }

    /// Starts the transfer of the descriptor at `bus`.
    #[inline(always)]
    pub(in crate::corpus) fn ring_at(&self, bus: u64) {
        self.window.io.write64(DMA_ADDRESS, bus.to_be());
    }
}

impl Port for FwCfg {
    fn open() -> Result<Self, Stop> {
        let device = machine().fw_cfg.ok_or(ELSEWHERE)?.device();
        let descriptor = machine().pool.alloc(device, PAGE_SIZE);
        let Ok(descriptor) = descriptor else {
            return Err(Stop::Failed);
        };
        Ok(Self {
            window: Window::map(BASE, REGISTERS_SIZE)?,
            device,
            descriptor,
        })
    }

    fn device(&self) -> &'static Device {
        self.device
    }

    fn prepare(&self, _: Way, at: u64, len: usize) {
        let descriptor = self.descriptor.va().as_ptr::<u32>();
        for (index, word) in Self::words(at, len).into_iter().enumerate() {
            // SAFETY: the four words are the first of this value's page, which is mapped and to which only
            // volatile accesses go.
            unsafe { descriptor.add(index).write_volatile(word) };
        }
        barrier::dsb_sy();
    }

    #[inline(always)]
    fn ring(&self) {
        self.ring_at(self.descriptor.dma_addr().get());
    }

    fn finish(&self) {
        // SAFETY: as for `prepare`.
        let control = || unsafe { self.descriptor.va().as_ptr::<u32>().read_volatile() };
        while u32::from_be(control()) & !ERROR != 0 {
            spin_loop();
        }
        barrier::dmb_oshld();
    }

    fn beyond(&self, _: usize) -> u64 {
        end_of_ram().get()
    }
}
