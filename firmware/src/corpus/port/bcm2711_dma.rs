//! A legacy channel of the BCM2711, between memory and uncached memory of its own.

use super::{ELSEWHERE, Port, Way, Window, engine_named};
use crate::machine::machine;
use crate::report::Stop;
use core::hint::spin_loop;
use hal::addr::{PAGE_SIZE, PhysAddr};
use hal::arch::barrier;
use hal::dma::{Coherent, Device};
use hal::drivers::bcm2711_dma::REGISTERS_SIZE;
use hal::drivers::mmio::RegisterIo;

/// The controller (BCM2711 ARM Peripherals, 4.2.1.2), and a channel that the firmware leaves to the
/// Arm and no driver takes here.
const CONTROLLER: PhysAddr = PhysAddr::new(0xFE00_7000);
const CHANNEL: usize = 5;
/// Registers of the channel, and the controller's enable bits.
const CS: usize = CHANNEL * 0x100;
const CONBLK_AD: usize = CHANNEL * 0x100 + 0x04;
const ENABLE: usize = 0xFF0;
/// Bits of `CS`.
const CS_ACTIVE: u32 = 1 << 0;
const CS_END: u32 = 1 << 1;
/// Both addresses increment (`TI.DEST_INC`, `TI.SRC_INC`); rows (`TI.TDMODE`).
const TI_INCREMENT: u32 = 1 << 4 | 1 << 8;
const TI_ROWS: u32 = 1 << 1;

/// Where in its memory the channel has its side of a copy. The control block is at the start.
const SCRATCH: u64 = 2048;

/// The last address of the bus, and the window through which masters see memory.
const BUS_END: u64 = 1 << 32;

/// A channel and its memory.
pub(in crate::corpus) struct Bcm2711Dma {
    window: Window,
    device: &'static Device,
    memory: Coherent,
}

/// A control block (4.2.1.1).
#[derive(Clone, Copy, Default)]
pub(in crate::corpus) struct Block {
    /// Bus addresses.
    pub(in crate::corpus) src: u64,
    pub(in crate::corpus) dst: u64,
    /// Bytes; of a row, if there are rows.
    pub(in crate::corpus) len: usize,
    /// Rows after the first, and what is added to the source after each.
    pub(in crate::corpus) further_rows: u32,
    pub(in crate::corpus) src_stride: u32,
    /// Bus address of the next block, 0 for none.
    pub(in crate::corpus) next: u64,
}

impl Block {
    /// The words as the channel reads them.
    pub(in crate::corpus) fn words(&self) -> [u32; 8] {
        // CAST: addresses of the bus have 32 bits, lengths are some lines.
        let (rows, len) = match self.further_rows {
            0 => (0, self.len as u32),
            rows => (TI_ROWS, rows << 16 | self.len as u32),
        };
        [
            TI_INCREMENT | rows,
            self.src as u32,
            self.dst as u32,
            len,
            self.src_stride,
            self.next as u32,
            0,
            0,
        ]
    }
}

impl Bcm2711Dma {
    /// The channel's own bytes, as it sees them.
    pub(in crate::corpus) fn scratch(&self) -> u64 {
        self.memory.dma_addr().get() + SCRATCH
    }

    /// Bus address of the channel's own control block.
    pub(in crate::corpus) fn block_bus(&self) -> u64 {
        self.memory.dma_addr().get()
    }

    /// Writes the channel's own control block, and waits until it is in memory.
    pub(in crate::corpus) fn write_block(&self, block: &Block) {
        let words = self.memory.va().as_ptr::<u32>();
        for (at, word) in block.words().into_iter().enumerate() {
            // SAFETY: the eight words are the first of this value's page, which is mapped and to which only
            // volatile accesses go.
            unsafe { words.add(at).write_volatile(word) };
        }
        barrier::dsb_sy();
    }

    /// Starts the chain at `bus`.
    #[inline(always)]
    pub(in crate::corpus) fn ring_at(&self, bus: u64) {
        self.window.io.write32(CONBLK_AD, bus as u32);
        self.window.io.write32(CS, CS_ACTIVE);
    }
}

impl Port for Bcm2711Dma {
    fn open() -> Result<Self, Stop> {
        let device = engine_named("dma").ok_or(ELSEWHERE)?;
        let Ok(memory) = machine().pool.alloc(device, PAGE_SIZE) else {
            return Err(Stop::Failed);
        };
        let window = Window::map(CONTROLLER, REGISTERS_SIZE)?;
        let enable = window.io.read32(ENABLE);
        window.io.write32(ENABLE, enable | 1 << CHANNEL);
        Ok(Self {
            window,
            device,
            memory,
        })
    }

    fn device(&self) -> &'static Device {
        self.device
    }

    fn prepare(&self, way: Way, at: u64, len: usize) {
        let (src, dst) = match way {
            Way::Reads => (at, self.scratch()),
            Way::Writes => (self.scratch(), at),
        };
        let block = Block {
            src,
            dst,
            len,
            ..Block::default()
        };
        self.write_block(&block);
    }

    #[inline(always)]
    fn ring(&self) {
        self.ring_at(self.block_bus());
    }

    fn finish(&self) {
        while self.window.io.read32(CS) & CS_ACTIVE != 0 {
            spin_loop();
        }
        self.window.io.write32(CS, CS_END);
        barrier::dmb_oshld();
    }

    /// Half of it after the end of the bus.
    fn beyond(&self, len: usize) -> u64 {
        BUS_END - len as u64 / 2
    }
}
