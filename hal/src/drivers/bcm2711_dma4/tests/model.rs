//! A model of a DMA4 channel, from the datasheet, and a channel to drive it.

use super::super::*;
use crate::addr::PhysRange;
use crate::arch::trace;
use crate::dma::DmaMask;
use crate::drivers::bcm2711_dma::bench::Memory;
use crate::layout;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// Where the model's master sees RAM: above what 32 bits reach.
pub(super) const BUS: u64 = 0x2_4000_0000;

pub(super) const ACTIVE: u32 = 1;
pub(super) const END: u32 = 1 << 1;
pub(super) const INT: u32 = 1 << 2;
pub(super) const ERROR: u32 = 1 << 10;
pub(super) const BUSY: u32 = 1 << 24;
pub(super) const ABORT: u32 = 1 << 30;
pub(super) const HALT: u32 = 1 << 31;

/// What the setting of DEBUG reads as on silicon.
pub(super) const SET: u32 = 0x1000_0700;

/// A model of a channel, from the datasheet: it copies what its control blocks say.
pub(super) struct Model {
    pub(super) ram: PhysRange,
    pub(super) cs: u32,
    pub(super) cb: u32,
    pub(super) debug: u32,
    pub(super) debug2: u32,
    /// Writes on their way to the counter: `DEBUG2` shows them from its second look on.
    pub(super) late: u32,
    pub(super) enable: u32,
    /// Never completes a block.
    pub(super) hang: bool,
    /// Halts only if the block is aborted.
    pub(super) stubborn: bool,
    /// Reports this error instead of copying.
    pub(super) error: u32,
    pub(super) log: Vec<(usize, u32)>,
}

#[derive(Clone)]
pub(super) struct Io(Arc<Mutex<Model>>);

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Io")
    }
}

impl Model {
    pub(super) fn ptr(&self, bus: u64) -> *mut u8 {
        let offset = bus.checked_sub(BUS).expect("below the window");
        let pa = self.ram.start + offset as usize;
        assert!(self.ram.contains(pa), "{bus:#x} is outside the window");
        layout::phys_to_virt(pa).as_ptr()
    }

    /// Runs the chain, if the channel is active.
    pub(super) fn run(&mut self) {
        while self.cs & ACTIVE != 0 && !self.hang {
            if self.error != 0 {
                self.debug |= self.error;
                self.cs = self.cs & !ACTIVE | ERROR;
                // As INT_ON_ERROR says.
                self.cs |= if self.debug & 1 << 8 != 0 { INT } else { 0 };
                return;
            }
            // SAFETY: the block lies in the pool, whose pages the channel allocated.
            let block = unsafe {
                self.ptr(u64::from(self.cb) << 5)
                    .cast::<[u32; 8]>()
                    .read_volatile()
            };
            let [ti, src, src_info, dst, dst_info, len, next, _] = block;
            assert_eq!(ti & !0b11, 0, "nothing waits in TI");
            for info in [src_info, dst_info] {
                assert_eq!(info & 0xFF00, 0x5F00, "128 bits, increment, 16 beats");
            }
            let (rows, row_len) = match ti & 0b10 {
                0 => (1, len),
                _ => ((len >> 16 & 0x3FFF) + 1, len & 0xFFFF),
            };
            let address = |low: u32, info: u32, row: u32| {
                let first = u64::from(info & 0xFF) << 32 | u64::from(low);
                let step = i64::from(row_len) + i64::from((info >> 16) as i16);
                self.ptr(first.wrapping_add_signed(step * i64::from(row)))
            };
            for row in 0..rows {
                // SAFETY: the test's buffers lie in the window.
                unsafe {
                    address(src, src_info, row)
                        .copy_to(address(dst, dst_info, row), row_len as usize);
                }
            }
            self.cs |= END | if ti & 1 != 0 { INT } else { 0 };
            self.cb = next;
            if next == 0 {
                self.cs &= !ACTIVE;
            }
        }
    }

    fn write_cs(&mut self, value: u32) {
        let cleared = value & (INT | END);
        let paused = self.cs & value & ACTIVE == 0 && self.cs & ACTIVE != 0;
        assert!(!paused, "an acknowledgement pauses the channel");
        if self.cs & ACTIVE == 0 && value & ACTIVE != 0 {
            trace::assert_behind_barrier();
        }
        let kept = self.cs & (INT | END | ERROR) & !cleared;
        self.cs = value & !(INT | END | ERROR | BUSY) | kept;
        if value & HALT != 0 && (!self.stubborn || value & ABORT != 0) {
            self.cs &= !(HALT | ABORT | ACTIVE);
        }
    }

    /// The errors are cleared by reading them.
    fn read_debug(&mut self) -> u32 {
        let debug = self.debug;
        self.debug &= !0xF;
        self.cs &= !ERROR;
        debug
    }

    fn write_debug(&mut self, value: u32) {
        if value & 1 << 23 != 0 {
            let busy = self.cs & ACTIVE != 0 || self.debug2 != 0;
            assert!(!busy, "a reset while the bus is in use is fatal");
            (self.cs, self.cb, self.debug) = (0, 0, 0x1000_0400);
        } else {
            self.debug = 0x1000_0000 | value & 0x700 | self.debug & 0xF;
        }
    }
}

impl RegisterIo for Io {
    fn read32(&self, offset: usize) -> u32 {
        let mut model = self.0.lock().unwrap();
        match offset {
            0xFF0 => model.enable,
            0xC00 => {
                let busy = model.cs & ACTIVE != 0 || model.debug2 != 0;
                model.cs | if busy { BUSY } else { 0 }
            }
            0xC0C => model.read_debug(),
            0xC2C => {
                let shown = model.debug2;
                model.debug2 += std::mem::take(&mut model.late);
                shown
            }
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        let mut model = self.0.lock().unwrap();
        model.log.push((offset, value));
        match offset {
            0xFF0 => model.enable = value,
            0xC00 => model.write_cs(value),
            0xC04 => model.cb = value,
            0xC0C => model.write_debug(value),
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

impl Bench {
    pub(super) fn new() -> Self {
        let memory = Memory::new("dma12", DmaMask::new::<40>(), BUS);
        let model = Arc::new(Mutex::new(Model {
            ram: memory.ram,
            cs: 0,
            cb: 0,
            debug: 0x1000_0400,
            debug2: 0,
            late: 0,
            enable: 0x0FFF,
            hang: false,
            stubborn: false,
            error: 0,
            log: Vec::new(),
        }));
        Self {
            controller: Box::leak(Box::new(Controller::new(Io(model.clone())))),
            model,
            memory,
        }
    }

    pub(super) fn probe(&self, number: u8) -> Result<Channel<Io>, ProbeError> {
        let mask = ChannelMask::DMA4;
        let (device, pool) = (self.device, self.pool);
        // SAFETY: the model is alone, and sees what the bench says.
        unsafe { Channel::probe(self.controller, number, mask, device, pool, self.clock) }
    }

    /// A leaked channel whose model runs, and whose interrupt is served, in every sleep.
    pub(super) fn engine(&self) -> &'static Channel<Io> {
        let channel: &'static _ = Box::leak(Box::new(self.probe(12).unwrap()));
        let model = self.model.clone();
        self.clock.on_sleep(move || {
            model.lock().unwrap().run();
            channel.on_interrupt();
        });
        channel
    }

    pub(super) fn edit<R>(&self, f: impl FnOnce(&mut Model) -> R) -> R {
        f(&mut self.model.lock().unwrap())
    }
}
