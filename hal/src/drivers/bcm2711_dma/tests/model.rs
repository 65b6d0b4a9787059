//! A model of the controller, from the datasheet, and a channel to drive it.

use super::super::*;
use crate::addr::PhysRange;
use crate::arch::trace;
use crate::dma::{DmaEngine, DmaMask};
use crate::drivers::bcm2711_channels::ChannelMask;
use crate::drivers::bcm2711_dma::bench::Memory;
use crate::drivers::mmio::RegisterIo;
use crate::layout;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

pub(super) const BUS: u64 = 0xC000_0000;

/// A model of the controller, from the datasheet: it copies what its control blocks say.
pub(super) struct Model {
    pub(super) ram: PhysRange,
    pub(super) cs: u32,
    pub(super) conblk: u32,
    pub(super) debug: u32,
    pub(super) enable: u32,
    /// Never completes a block.
    pub(super) hang: bool,
    /// Goes on when it is to pause, until the block is aborted.
    pub(super) stubborn: bool,
    /// Writes of the next transfer that the bus does not answer.
    pub(super) unanswered: u32,
    /// Writes under way that a reset forgot: they land in whatever the memory is by then.
    pub(super) forgotten: u32,
    /// Reports this error instead of copying.
    pub(super) error: u32,
    /// Raises no interrupt for an error.
    pub(super) mute: bool,
    pub(super) log: Vec<(usize, u32)>,
    /// Channel 8 raises the line it shares with 7.
    pub(super) stray: bool,
    /// `DEBUG` of channel 8, whose errors raise the line as well.
    pub(super) stray_debug: u32,
}

/// `CS` of channel 8, in those tests that drive channel 7.
pub(super) const STRAY_CS: usize = 0x800;
/// `CONBLK_AD` of it.
const STRAY_CONBLK: usize = 0x804;
/// `DEBUG` of it.
const STRAY_DEBUG: usize = 0x820;

/// `DEBUG.OUTSTANDING_WRITES`.
const OUTSTANDING: u32 = 0xF << 4;

#[derive(Clone)]
pub(super) struct Io(pub(super) Arc<Mutex<Model>>);

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Io")
    }
}

impl Model {
    fn ptr(&self, bus: u32) -> *mut u8 {
        let pa = self.ram.start + (u64::from(bus) - BUS) as usize;
        assert!(
            self.ram.contains(pa),
            "the channel leaves its memory: {bus:#x}"
        );
        layout::phys_to_virt(pa).as_ptr()
    }

    /// Writes the bus has not answered.
    pub(super) fn outstanding(&self) -> u32 {
        (self.debug & OUTSTANDING) >> 4
    }

    /// `CS` as it reads: what is not active is paused, and waits for its writes.
    fn status(&self) -> u32 {
        let active = self.cs & 1 != 0;
        let goes_on = self.stubborn && self.conblk != 0;
        let paused = !active && !goes_on;
        let waiting = !active && self.outstanding() != 0;
        self.cs | u32::from(paused) << 4 | u32::from(waiting) << 6
    }

    /// Runs the chain, if the channel is active.
    pub(super) fn run(&mut self) {
        while self.cs & 1 != 0 && !self.hang {
            if self.error != 0 {
                self.debug |= self.error;
                self.cs = (self.cs & !1) | 1 << 8 | if self.mute { 0 } else { 1 << 2 };
                return;
            }
            assert!(self.conblk.is_multiple_of(32));
            // SAFETY: the block lies in the pool, whose pages the channel allocated.
            let block = unsafe { self.ptr(self.conblk).cast::<[u32; 8]>().read_volatile() };
            let [ti, src, dst, len, stride, next, ..] = block;
            assert_eq!(ti & 0x0000_0110, 0x110, "both addresses increment");
            let (rows, row_len) = match ti & 0b10 {
                0 => (1, len),
                _ => ((len >> 16 & 0x3FFF) + 1, len & 0xFFFF),
            };
            for row in 0..rows {
                let at = |first: u32, stride: u32| {
                    let step = row_len.wrapping_add_signed((stride as i16).into());
                    self.ptr(first.wrapping_add(step.wrapping_mul(row)))
                };
                // SAFETY: the test's buffers lie in the window.
                unsafe {
                    at(src, stride & 0xFFFF).copy_to(at(dst, stride >> 16), row_len as usize);
                }
            }
            self.cs |= 1 << 1 | if ti & 1 != 0 { 1 << 2 } else { 0 };
            self.conblk = next;
            if next == 0 {
                self.cs &= !1;
            }
        }
    }
}

impl RegisterIo for Io {
    fn read32(&self, offset: usize) -> u32 {
        let model = self.0.lock().unwrap();
        match (offset, offset & 0xFF) {
            (0xFF0, _) => model.enable,
            (STRAY_CS, _) => {
                u32::from(model.stray) << 2 | u32::from(model.stray_debug & 0b111 != 0) << 8
            }
            (STRAY_CONBLK, _) => 0,
            (STRAY_DEBUG, _) => model.stray_debug,
            (_, 0x00) => model.status(),
            (_, 0x04) => model.conblk,
            (_, 0x20) => model.debug,
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        let mut model = self.0.lock().unwrap();
        model.log.push((offset, value));
        match (offset, offset & 0xFF) {
            (0xFF0, _) => model.enable = value,
            (STRAY_CS, _) => model.stray &= value & 1 << 2 == 0,
            (STRAY_DEBUG, _) => model.stray_debug &= !(value & 0b111),
            (_, 0x00) if value & 1 << 31 != 0 => {
                model.forgotten += model.outstanding();
                model.debug &= !OUTSTANDING;
                model.cs = 0;
                model.conblk = 0;
            }
            (_, 0x00) => {
                let kept = model.cs & !value & 0b110;
                let error = model.cs & 1 << 8;
                let starts = model.cs & 1 == 0 && value & 1 != 0;
                model.cs = (value & 0x10FF_0001) | kept | error;
                if starts {
                    trace::assert_behind_barrier();
                    model.debug = model.debug & !OUTSTANDING | model.unanswered << 4;
                }
                model.stubborn &= value & 1 << 30 == 0;
            }
            (_, 0x04) => model.conblk = value,
            // QEMU's model, version 0, keeps what is written.
            (_, 0x20) if model.debug & SILICON == 0 => model.debug = value,
            (_, 0x20) => {
                model.debug &= !(value & 0b111);
                if model.debug & 0b111 == 0 {
                    model.cs &= !(1 << 8);
                }
            }
            _ => panic!("write of {offset:#x}"),
        }
    }

    fn read64(&self, offset: usize) -> u64 {
        panic!("64-bit read of {offset:#x}")
    }

    fn write64(&self, offset: usize, _: u64) {
        panic!("64-bit write of {offset:#x}")
    }
}

pub(super) struct Bench {
    pub(super) model: Arc<Mutex<Model>>,
    pub(super) controller: &'static Controller<Io>,
    memory: Memory,
}

impl Deref for Bench {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }
}

pub(super) const SILICON: u32 = 2 << 25;

impl Bench {
    pub(super) fn new(debug: u32) -> Self {
        let memory = Memory::new("dma", DmaMask::new::<32>(), BUS);
        let model = Arc::new(Mutex::new(Model {
            ram: memory.ram,
            cs: 0,
            conblk: 0,
            debug,
            enable: 0x7FFF,
            hang: false,
            stubborn: false,
            unanswered: 0,
            forgotten: 0,
            error: 0,
            mute: false,
            log: Vec::new(),
            stray: false,
            stray_debug: 0,
        }));
        Self {
            controller: Box::leak(Box::new(Controller::new(Io(model.clone())))),
            model,
            memory,
        }
    }

    pub(super) fn probe(&self, number: u8) -> Result<Channel<Io>, ProbeError> {
        self.probe_with(number, ChannelMask::LEGACY)
    }

    pub(super) fn probe_with(
        &self,
        number: u8,
        mask: ChannelMask,
    ) -> Result<Channel<Io>, ProbeError> {
        let (device, pool) = (self.device, self.pool);
        // SAFETY: the model is alone, and sees what the bench says.
        unsafe { Channel::probe(self.controller, number, mask, device, pool, self.clock) }
    }

    /// A leaked channel whose model runs, and whose interrupt is served, in every sleep.
    pub(super) fn engine(&self, number: u8) -> &'static Channel<Io> {
        let channel: &'static _ = Box::leak(Box::new(self.probe(number).unwrap()));
        let model = self.model.clone();
        self.clock.on_sleep(move || {
            model.lock().unwrap().run();
            channel.on_interrupt();
        });
        channel
    }

    pub(super) fn edit(&self, f: impl FnOnce(&mut Model)) {
        f(&mut self.model.lock().unwrap());
    }
}
