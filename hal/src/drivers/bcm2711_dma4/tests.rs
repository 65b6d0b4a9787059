use super::*;
use crate::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use crate::arch::cpu;
use crate::arch::trace::{Op, record_during};
use crate::dma::device::fake;
use crate::dma::engine::{copy_2d, copy_with, tests::FakeClock};
use crate::dma::streaming::map_slice;
use crate::dma::{DmaMask, FromDevice, Rectangle, ToDevice};
use crate::layout::{self, host};
use std::sync::{Arc, Mutex};

/// Where the model's master sees RAM: above what 32 bits reach.
const BUS: u64 = 0x2_4000_0000;
const WINDOW: u64 = 1 << 20;
const POOL: u64 = 64 << 10;

const ACTIVE: u32 = 1;
const END: u32 = 1 << 1;
const INT: u32 = 1 << 2;
const ERROR: u32 = 1 << 10;
const BUSY: u32 = 1 << 24;
const ABORT: u32 = 1 << 30;
const HALT: u32 = 1 << 31;

/// What the setting of DEBUG reads as on silicon.
const SET: u32 = 0x1000_0700;

/// A model of a channel, from the datasheet: it copies what its control blocks say.
struct Model {
    ram: PhysRange,
    cs: u32,
    cb: u32,
    debug: u32,
    debug2: u32,
    enable: u32,
    /// Never completes a block.
    hang: bool,
    /// Halts only if the block is aborted.
    stubborn: bool,
    /// Reports this error instead of copying.
    error: u32,
    log: Vec<(usize, u32)>,
}

#[derive(Clone)]
struct Io(Arc<Mutex<Model>>);

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Io")
    }
}

impl Model {
    fn ptr(&self, bus: u64) -> *mut u8 {
        let offset = bus.checked_sub(BUS).expect("below the window");
        let pa = self.ram.start + offset as usize;
        assert!(self.ram.contains(pa), "{bus:#x} is outside the window");
        layout::phys_to_virt(pa).as_ptr()
    }

    /// Runs the chain, if the channel is active.
    fn run(&mut self) {
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
            0xC2C => model.debug2,
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

struct Bench {
    model: Arc<Mutex<Model>>,
    controller: &'static Controller<Io>,
    device: &'static Device,
    pool: &'static CoherentPool,
    clock: &'static FakeClock,
    next: PhysAddr,
}

impl Bench {
    fn new() -> Self {
        let ram = host::ram(WINDOW, 4096);
        let frames = PhysRange::from_size(ram.start, POOL).unwrap();
        // SAFETY: the first pages of this test's RAM; the host has no memory types.
        let pool = unsafe { CoherentPool::new(frames, layout::phys_to_virt(frames.start)) };
        let model = Arc::new(Mutex::new(Model {
            ram,
            cs: 0,
            cb: 0,
            debug: 0x1000_0400,
            debug2: 0,
            enable: 0x0FFF,
            hang: false,
            stubborn: false,
            error: 0,
            log: Vec::new(),
        }));
        let windows = [ram.start.get(), BUS, WINDOW];
        Self {
            controller: Box::leak(Box::new(Controller::new(Io(model.clone())))),
            model,
            device: fake("dma12", DmaMask::new::<40>(), windows),
            pool: Box::leak(Box::new(pool.unwrap())),
            clock: FakeClock::leaked(),
            next: ram.start + POOL as usize,
        }
    }

    fn probe(&self, number: u8) -> Result<Channel<Io>, ProbeError> {
        let mask = ChannelMask::DMA4;
        let (device, pool) = (self.device, self.pool);
        Channel::probe(self.controller, number, mask, device, pool, self.clock)
    }

    /// A leaked channel whose model runs, and whose interrupt is served, in every sleep.
    fn engine(&self) -> &'static Channel<Io> {
        let channel: &'static _ = Box::leak(Box::new(self.probe(12).unwrap()));
        let model = self.model.clone();
        self.clock.on_sleep(move || {
            model.lock().unwrap().run();
            channel.on_interrupt();
        });
        channel
    }

    fn buffer(&mut self, len: usize, fill: u8) -> &'static mut [u8] {
        let ptr = layout::phys_to_virt(self.next).as_ptr();
        self.next = self.next + len.next_multiple_of(64);
        // SAFETY: each piece of this test's RAM is handed out once.
        let buffer = unsafe { std::slice::from_raw_parts_mut(ptr, len) };
        buffer.fill(fill);
        buffer
    }

    fn copy_by(
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

    fn copy_of(&mut self, engine: &dyn DmaEngine, len: usize) -> Result<Vec<u8>, DmaError> {
        self.copy_by(engine, len, Completion::Interrupt)
    }

    /// A transfer of 64 bytes between buffers that stay.
    fn transfer(&mut self) -> Transfer {
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

    fn edit<R>(&self, f: impl FnOnce(&mut Model) -> R) -> R {
        f(&mut self.model.lock().unwrap())
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8 + 1).collect()
}

#[test]
fn copies_beyond_32_bits_arrive_by_interrupt_and_polled() {
    let mut bench = Bench::new();
    let engine = bench.engine();
    assert_eq!(
        bench.edit(|model| (model.enable, model.debug)),
        (0x1FFF, SET)
    );
    for len in [1, 3, 64, 4097, 70_000] {
        assert_eq!(bench.copy_of(engine, len), Ok(pattern(len)), "{len}");
    }
    let irq = cpu::irq_save();
    let polled = bench.copy_by(engine, 300, Completion::Polled);
    cpu::irq_restore(irq);
    assert_eq!(polled, Ok(pattern(300)));
}

#[test]
fn chains_run_to_their_end() {
    let mut bench = Bench::new();
    let engine = bench.engine();
    let transfers: Vec<_> = (0..chain::MAX_BLOCKS).map(|_| bench.transfer()).collect();
    // SAFETY: the buffers belong to the test for good.
    let ticket = unsafe { engine.submit(&transfers) }.unwrap();
    assert_eq!(engine.wait(ticket, 1_000_000), Ok(()));
    for transfer in &transfers {
        // SAFETY: the channel is done with it.
        let copied = bench.edit(|model| unsafe { *model.ptr(transfer.dst.get()) });
        assert_eq!(copied, 1);
    }
}

#[test]
fn the_doorbell_rings_after_a_full_barrier() {
    let mut bench = Bench::new();
    let engine = bench.probe(12).unwrap();
    let transfer = bench.transfer();
    bench.edit(|model| model.log.clear());
    // SAFETY: the buffers belong to the test for good.
    let (ticket, ops) = record_during(|| unsafe { engine.submit(&[transfer]) }.unwrap());
    assert_eq!(ops, [Op::DsbSy]);
    let pointer = (BUS >> 5) as u32;
    let written = bench.edit(|model| model.log.clone());
    assert_eq!(written, [(0xC04, pointer), (0xC00, 0x30F1_0001)]);
    // SAFETY: as above.
    assert_eq!(unsafe { engine.submit(&[transfer]) }, Err(DmaError::Busy));
    assert!(!engine.on_interrupt(), "not ours while it runs");
    engine.abort();
    assert_eq!(engine.wait(ticket, 1), Err(DmaError::Aborted));
}

#[test]
fn errors_are_decoded_and_cleared_and_the_engine_goes_on() {
    let mut bench = Bench::new();
    let engine = bench.engine();
    for error in [0b1000, 0b0100, 0b0010, 0b0001] {
        bench.edit(|model| model.error = error);
        let failed = bench.copy_of(engine, 64);
        assert_eq!(failed, Err(DmaError::Bus { flags: error }));
        bench.edit(|model| {
            assert_eq!((model.debug, model.cs), (SET, 0));
            model.error = 0;
        });
        assert_eq!(bench.copy_of(engine, 64), Ok(pattern(64)));
    }
}

#[test]
fn a_copy_that_is_over_is_neither_aborted_nor_timed_out() {
    let mut bench = Bench::new();
    let engine = bench.probe(12).unwrap();
    let transfer = bench.transfer();
    // SAFETY: the buffers belong to the test for good.
    let submit = || unsafe { engine.submit(&[transfer]) }.unwrap();
    let ticket = submit();
    bench.edit(Model::run);
    engine.abort();
    assert_eq!(engine.wait(ticket, 1), Ok(()));
    assert_eq!(engine.lost_interrupts(), 0);
    let ticket = submit();
    let model = bench.model.clone();
    bench.clock.on_sleep(move || model.lock().unwrap().run());
    assert_eq!(engine.wait(ticket, 1_000), Ok(()));
    assert_eq!(engine.lost_interrupts(), 1);
}

#[test]
fn what_halts_a_channel_acknowledges_nothing() {
    let mut bench = Bench::new();
    let engine = bench.probe(12).unwrap();
    // SAFETY: the buffers belong to the test for good.
    let ticket = unsafe { engine.submit(&[bench.transfer()]) }.unwrap();
    bench.edit(|model| {
        // A block of the chain has ended, the chain has not.
        model.cs |= INT | END;
        model.log.clear();
    });
    engine.abort();
    assert_eq!(engine.wait(ticket, 1), Err(DmaError::Aborted));
    bench.edit(|model| {
        let (_, halt) = model.log[0];
        assert_eq!(halt & (HALT | INT | END), HALT);
    });
}

#[test]
fn a_hung_channel_is_halted_then_reset() {
    let mut bench = Bench::new();
    let engine = bench.engine();
    let timeout = engine.timeout_ns(64);
    for stubborn in [false, true] {
        bench.edit(|model| {
            (model.hang, model.stubborn) = (true, stubborn);
            model.log.clear();
        });
        assert_eq!(bench.copy_of(engine, 64), Err(DmaError::Timeout(timeout)));
        bench.edit(|model| {
            let halts: Vec<_> = model.log.iter().filter(|(_, cs)| cs & HALT != 0).collect();
            assert_eq!(halts.len(), 1 + usize::from(stubborn));
            assert_eq!(halts.last().unwrap().1 & ABORT != 0, stubborn);
            assert!(
                model
                    .log
                    .ends_with(&[(0xC0C, 1 << 23), (0xC00, 6), (0xC0C, 0x700)])
            );
            (model.hang, model.stubborn) = (false, false);
        });
        assert_eq!(bench.copy_of(engine, 64), Ok(pattern(64)));
    }
}

#[test]
fn a_channel_with_the_bus_in_use_is_wedged_and_never_reset() {
    let mut bench = Bench::new();
    let engine = bench.engine();
    let transfer = bench.transfer();
    bench.edit(|model| {
        model.hang = true;
        model.debug2 = 1 << 16;
    });
    // SAFETY: the buffers belong to the test for good.
    let submit = || unsafe { engine.submit(&[transfer]) };
    let ticket = submit().unwrap();
    assert_eq!(engine.wait(ticket, 1), Err(DmaError::Wedged));
    bench.edit(|model| {
        model.debug2 = 0;
        model.hang = false;
    });
    assert_eq!(submit(), Err(DmaError::Wedged));
}

#[test]
fn rectangles_arrive_and_their_surroundings_stay() {
    let mut bench = Bench::new();
    let engine = bench.engine();
    let shape = Rectangle {
        rows: 4,
        row_len: 7,
        src_stride: -7,
        dst_stride: 3,
    };
    let src = bench.buffer(64, 0);
    src.copy_from_slice(&pattern(64));
    let dst = bench.buffer(64, 0xEE);
    let from = map_slice::<ToDevice>(bench.device, src).unwrap();
    let mut to = map_slice::<FromDevice>(bench.device, dst).unwrap();
    let by = Completion::Interrupt;
    let copied = copy_2d(engine, (&from, 5), (&mut to, 11), shape, by);
    to.unmap();
    assert_eq!(copied, Ok(()));
    let mut expected = [0xEE; 64];
    for row in 0..4 {
        // The same row of the source again and again.
        expected[11 + row * 10..][..7].copy_from_slice(&pattern(64)[5..12]);
    }
    assert_eq!(dst, expected);
}

#[test]
fn only_usable_channels_probe() {
    let bench = Bench::new();
    for number in [0, 7, 11, 15, 40] {
        let refused = bench.probe(number).unwrap_err();
        assert_eq!(refused, ProbeError::Channel(number));
    }
    // What QEMU's legacy channel reads there.
    bench.edit(|model| model.debug = 0);
    let (number, version) = (12, 0);
    let refused = bench.probe(12).unwrap_err();
    assert_eq!(refused, ProbeError::Version { number, version });
    assert_eq!(
        refused.to_string(),
        "DMA channel 12 has version 0, not 1: not modelled here"
    );
    bench.edit(|model| {
        assert!(model.log.is_empty(), "nothing was written");
        model.debug = 0x1000_0400;
    });
    assert_eq!(bench.pool.free_pages(), POOL as usize / PAGE_SIZE);
    assert!(bench.probe(12).is_ok());
    let taken = bench.probe(12).unwrap_err();
    assert_eq!(taken, ProbeError::Taken(Taken(12)));
}

#[test]
fn a_channel_found_at_work_that_does_not_stop_does_not_probe() {
    let bench = Bench::new();
    bench.edit(|model| (model.cs, model.hang, model.debug2) = (ACTIVE, true, 1));
    assert_eq!(bench.probe(12).unwrap_err(), ProbeError::Wedged(12));
    assert_eq!(bench.pool.free_pages(), POOL as usize / PAGE_SIZE);
}

#[test]
fn addresses_of_another_device_are_refused_before_the_doorbell() {
    let mut bench = Bench::new();
    let engine = bench.probe(12).unwrap();
    let good = bench.transfer();
    bench.edit(|model| model.log.clear());
    let foreign = Transfer {
        dst: DmaAddr::new(BUS + WINDOW - 4),
        ..good
    };
    // SAFETY: refused.
    let refused = unsafe { engine.submit(&[foreign]) };
    assert!(matches!(refused, Err(DmaError::ForeignAddress { .. })));
    bench.edit(|model| assert!(model.log.is_empty()));
}
