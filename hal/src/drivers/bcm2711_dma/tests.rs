use super::*;
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::arch::trace::{Op, record_during};
use crate::dma::device::fake;
use crate::dma::engine::{copy, tests::FakeClock};
use crate::dma::streaming::map_slice;
use crate::dma::{DmaMask, FromDevice, ToDevice};
use crate::layout::{self, host};
use std::sync::{Arc, Mutex};

const BUS: u64 = 0xC000_0000;
const WINDOW: u64 = 1 << 20;
const POOL: u64 = 64 << 10;

/// A model of the controller, from the datasheet: it copies what its control blocks say.
struct Model {
    ram: PhysRange,
    cs: u32,
    conblk: u32,
    debug: u32,
    enable: u32,
    /// Never completes a block.
    hang: bool,
    /// Reports this error instead of copying.
    error: u32,
    /// Raises no interrupt for an error.
    mute: bool,
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
    fn ptr(&self, bus: u32) -> *mut u8 {
        let pa = self.ram.start + (u64::from(bus) - BUS) as usize;
        assert!(
            self.ram.contains(pa),
            "the channel leaves its memory: {bus:#x}"
        );
        layout::phys_to_virt(pa).as_ptr()
    }

    /// Runs the chain, if the channel is active.
    fn run(&mut self) {
        while self.cs & 1 != 0 && !self.hang {
            if self.error != 0 {
                self.debug |= self.error;
                self.cs = (self.cs & !1) | 1 << 8 | if self.mute { 0 } else { 1 << 2 };
                return;
            }
            assert!(self.conblk.is_multiple_of(32));
            // SAFETY: the block lies in the pool, whose pages the channel allocated.
            let block = unsafe { self.ptr(self.conblk).cast::<[u32; 8]>().read_volatile() };
            let [ti, src, dst, len, _, next, ..] = block;
            assert_eq!(ti & 0x0000_0110, 0x110, "both addresses increment");
            // SAFETY: the test's buffers lie in the window.
            unsafe { self.ptr(src).copy_to(self.ptr(dst), len as usize) };
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
            (_, 0x00) => model.cs,
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
            (_, 0x00) if value & 1 << 31 != 0 => {
                model.cs = 0;
                model.conblk = 0;
            }
            (_, 0x00) => {
                let kept = model.cs & !value & 0b110;
                let error = model.cs & 1 << 8;
                model.cs = (value & 0x10FF_0001) | kept | error;
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

struct Bench {
    model: Arc<Mutex<Model>>,
    device: &'static Device,
    pool: &'static CoherentPool,
    clock: &'static FakeClock,
    next: PhysAddr,
}

const SILICON: u32 = 2 << 25;

impl Bench {
    fn new(debug: u32) -> Self {
        let ram = host::ram(WINDOW, 4096);
        let frames = PhysRange::from_size(ram.start, POOL).unwrap();
        // SAFETY: the first pages of this test's RAM; the host has no memory types.
        let pool = unsafe { CoherentPool::new(frames, layout::phys_to_virt(frames.start)) };
        Self {
            model: Arc::new(Mutex::new(Model {
                ram,
                cs: 0,
                conblk: 0,
                debug,
                enable: 0x7FFF,
                hang: false,
                error: 0,
                mute: false,
                log: Vec::new(),
            })),
            device: fake("dma", DmaMask::new::<32>(), [ram.start.get(), BUS, WINDOW]),
            pool: Box::leak(Box::new(pool.unwrap())),
            clock: FakeClock::leaked(),
            next: ram.start + POOL as usize,
        }
    }

    fn probe(&self, number: u8) -> Result<Channel<Io>, ProbeError> {
        let mask = ChannelMask::RASPBERRY_PI;
        Channel::probe(
            Io(self.model.clone()),
            number,
            mask,
            self.device,
            self.pool,
            self.clock,
        )
    }

    /// A leaked channel whose model runs, and whose interrupt is served, in every sleep.
    fn engine(&self, number: u8) -> &'static Channel<Io> {
        let channel: &'static _ = Box::leak(Box::new(self.probe(number).unwrap()));
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

    fn copy_of(&mut self, engine: &dyn DmaEngine, len: usize) -> Result<Vec<u8>, DmaError> {
        let src = self.buffer(len, 0);
        for (index, byte) in src.iter_mut().enumerate() {
            *byte = (index % 251) as u8 + 1;
        }
        let dst = self.buffer(len, 0);
        // So that a buffer may end within a line.
        self.device.set_coherent(true);
        let from = map_slice::<ToDevice>(self.device, src)?;
        let mut to = map_slice::<FromDevice>(self.device, dst)?;
        let result = copy(engine, &from, &mut to);
        to.unmap();
        from.unmap();
        result.map(|()| dst.to_vec())
    }

    fn edit(&self, f: impl FnOnce(&mut Model)) {
        f(&mut self.model.lock().unwrap());
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8 + 1).collect()
}

#[test]
fn copies_of_every_length_arrive() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(0);
    assert_eq!((engine.length_granule(), engine.kind()), (1, Kind::Fifo));
    for len in [1, 3, 64, 4095, 4097, 70_000] {
        assert_eq!(bench.copy_of(engine, len), Ok(pattern(len)), "{len}");
    }
}

#[test]
fn lite_channels_cut_long_copies_into_a_chain() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(7);
    assert_eq!((engine.kind(), engine.max_len()), (Kind::Lite, 0xFFC0));
    assert_eq!(bench.copy_of(engine, 200_000), Ok(pattern(200_000)));
}

#[test]
fn the_doorbell_rings_after_a_full_barrier() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.probe(5).unwrap();
    let segment = |bytes: &mut [u8]| {
        let va = crate::addr::VirtAddr::from_ptr(bytes.as_ptr());
        let pa = layout::virt_to_phys(va).unwrap();
        bench.device.dma_addr(pa, bytes.len()).unwrap()
    };
    let transfer = Transfer {
        src: segment(bench.buffer(64, 1)),
        dst: segment(bench.buffer(64, 0)),
        len: 64,
    };
    bench.edit(|model| model.log.clear());
    // SAFETY: the buffers belong to the test for good.
    let (ticket, ops) = record_during(|| unsafe { engine.submit(&[transfer]) }.unwrap());
    assert_eq!(ops, [Op::DsbSy]);
    let blocks = BUS as u32;
    let written = bench.model.lock().unwrap().log.clone();
    assert_eq!(written, [(0x504, blocks), (0x500, 0x10F1_0001)]);
    // SAFETY: as above.
    assert_eq!(unsafe { engine.submit(&[transfer]) }, Err(DmaError::Busy));
    assert!(!engine.on_interrupt(), "not ours while it runs");
    engine.abort();
    assert_eq!(engine.wait(ticket, 1), Err(DmaError::Aborted));
    assert_eq!(engine.wait(ticket, 1), Err(DmaError::StaleTicket(1)));
}

#[test]
fn errors_are_decoded_and_cleared_and_the_engine_goes_on() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(4);
    for (error, mute) in [
        (0b100, false),
        (0b010, false),
        (0b001, false),
        (0b100, true),
    ] {
        bench.edit(|model| (model.error, model.mute) = (error, mute));
        assert_eq!(
            bench.copy_of(engine, 64),
            Err(DmaError::Bus { flags: error })
        );
        bench.edit(|model| {
            assert_eq!(model.debug, SILICON);
            assert_eq!(model.cs & 0x107, 0);
            model.error = 0;
        });
        assert_eq!(bench.copy_of(engine, 64), Ok(pattern(64)));
    }
}

#[test]
fn a_hung_channel_times_out_and_is_reset() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(6);
    bench.edit(|model| {
        model.hang = true;
        model.log.clear();
    });
    let timeout = engine.timeout_ns(64);
    assert_eq!(bench.copy_of(engine, 64), Err(DmaError::Timeout(timeout)));
    bench.edit(|model| {
        let tail = &model.log[2..];
        assert_eq!(tail, [(0x600, 1 << 28), (0x600, 1 << 31), (0x600, 6)]);
        model.hang = false;
    });
    assert_eq!(bench.copy_of(engine, 64), Ok(pattern(64)));
}

#[test]
#[should_panic(expected = "dma does not stop and may still write")]
fn writes_that_never_land_keep_the_memory() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(6);
    let one_outstanding = 1 << 4;
    bench.edit(|model| {
        model.hang = true;
        model.debug |= one_outstanding;
    });
    let _ = bench.copy_of(engine, 64);
}

#[test]
fn qemu_s_model_takes_words_only() {
    let mut bench = Bench::new(0);
    let engine = bench.engine(0);
    bench.edit(|model| model.log.clear());
    assert_eq!(
        bench.copy_of(engine, 66),
        Err(DmaError::LengthGranule {
            len: 66,
            granule: 4
        })
    );
    bench.edit(|model| assert!(model.log.is_empty(), "refused before any register"));
    assert_eq!(bench.copy_of(engine, 68), Ok(pattern(68)));
}

#[test]
fn addresses_of_another_device_are_refused_before_the_doorbell() {
    let bench = Bench::new(SILICON);
    let engine = bench.probe(0).unwrap();
    bench.edit(|model| model.log.clear());
    let addr = bench.model.lock().unwrap().ram.end.get();
    let foreign = Transfer {
        src: DmaAddr::new(addr),
        dst: DmaAddr::new(BUS),
        len: 4,
    };
    // SAFETY: refused.
    let result = unsafe { engine.submit(&[foreign]) };
    assert!(matches!(
        result,
        Err(DmaError::ForeignAddress { len: 4, .. })
    ));
    bench.edit(|model| assert!(model.log.is_empty()));
}

#[test]
fn only_usable_channels_probe() {
    let bench = Bench::new(SILICON);
    for number in [1, 3, 11, 15, 40] {
        assert_eq!(
            bench.probe(number).unwrap_err(),
            ProbeError::Channel(number)
        );
    }
    bench.edit(|model| model.enable = 0x0100_7FFF);
    assert_eq!(bench.probe(0).unwrap_err(), ProbeError::DramPage(1));
    assert!(
        bench.probe(7).is_ok(),
        "lite channels have a page of their own"
    );
    bench.edit(|model| model.enable = 0x2000_7FFF);
    assert_eq!(bench.probe(7).unwrap_err(), ProbeError::DramPage(2));
    assert_eq!(bench.pool.free_pages(), POOL as usize / PAGE_SIZE);
}

#[test]
fn a_disabled_channel_is_enabled_and_the_pages_are_left_alone() {
    let bench = Bench::new(SILICON);
    bench.edit(|model| model.enable = 0x3000_7FDF);
    bench.probe(5).unwrap();
    bench.edit(|model| assert_eq!(model.enable, 0x3000_7FFF));
}
