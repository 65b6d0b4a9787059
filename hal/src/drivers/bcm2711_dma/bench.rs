//! Memory, a device and a clock for the tests of channels of either kind.

use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::dma::device::fake;
use crate::dma::engine::{copy_with, tests::FakeClock};
use crate::dma::streaming::map_slice;
use crate::dma::{
    CoherentPool, Completion, Device, DmaEngine, DmaError, DmaMask, FromDevice, ToDevice, Transfer,
};
use crate::layout::{self, host};

/// Bytes of memory that a device sees.
pub(in crate::drivers) const WINDOW: u64 = 1 << 20;
/// Bytes of it that are the coherent pool.
pub(in crate::drivers) const POOL: u64 = 64 << 10;

/// Some memory and who sees it.
pub(in crate::drivers) struct Memory {
    pub(in crate::drivers) ram: PhysRange,
    pub(in crate::drivers) device: &'static Device,
    pub(in crate::drivers) pool: &'static CoherentPool,
    pub(in crate::drivers) clock: &'static FakeClock,
    next: PhysAddr,
}

impl Memory {
    /// Memory that a device of that name and width sees from bus address `bus` on.
    pub(in crate::drivers) fn new(name: &'static str, width: DmaMask, bus: u64) -> Self {
        let ram = host::ram(WINDOW, 4096);
        let frames = PhysRange::from_size(ram.start, POOL).unwrap();
        // SAFETY: the first pages of this test's RAM; the host has no memory types.
        let pool = unsafe { CoherentPool::new(frames, layout::phys_to_virt(frames.start)) };
        Self {
            ram,
            device: fake(name, width, [ram.start.get(), bus, WINDOW]),
            pool: Box::leak(Box::new(pool.unwrap())),
            clock: FakeClock::leaked(),
            next: ram.start + POOL as usize,
        }
    }

    pub(in crate::drivers) fn buffer(&mut self, len: usize, fill: u8) -> &'static mut [u8] {
        let ptr = layout::phys_to_virt(self.next).as_ptr();
        self.next = self.next + len.next_multiple_of(64);
        // SAFETY: each piece of this test's RAM is handed out once.
        let buffer = unsafe { std::slice::from_raw_parts_mut(ptr, len) };
        buffer.fill(fill);
        buffer
    }

    /// A copy of `len` bytes of the [`pattern`], as it arrives.
    pub(in crate::drivers) fn copy_by(
        &mut self,
        engine: &dyn DmaEngine,
        len: usize,
        completion: Completion,
    ) -> Result<Vec<u8>, DmaError> {
        let src = self.buffer(len, 0);
        src.copy_from_slice(&pattern(len));
        let dst = self.buffer(len, 0);
        // So that a buffer may end within a line.
        self.device.set_coherent(true);
        let from = map_slice::<ToDevice>(self.device, src)?;
        let mut to = map_slice::<FromDevice>(self.device, dst)?;
        let result = copy_with(engine, &from, &mut to, completion);
        to.unmap();
        from.unmap();
        result.map(|()| dst.to_vec())
    }

    /// The same by interrupt.
    pub(in crate::drivers) fn copy_of(
        &mut self,
        engine: &dyn DmaEngine,
        len: usize,
    ) -> Result<Vec<u8>, DmaError> {
        self.copy_by(engine, len, Completion::Interrupt)
    }

    /// A transfer of 64 bytes between buffers that stay.
    pub(in crate::drivers) fn transfer(&mut self) -> Transfer {
        let mut side = |fill| {
            let va = VirtAddr::from_ptr(self.buffer(64, fill).as_ptr());
            let pa = layout::virt_to_phys(va).unwrap();
            self.device.dma_addr(pa, 64).unwrap()
        };
        Transfer {
            src: side(1),
            dst: side(0),
            len: 64,
        }
    }
}

pub(in crate::drivers) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8 + 1).collect()
}
