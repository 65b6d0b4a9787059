use super::*;
use crate::addr::{DmaAddr, PhysAddr};
use crate::arch::cpu;
use crate::arch::trace::{self, Op};
use crate::dma::engine::{copy, copy_2d, copy_with, tests::FakeClock, tests::identity_device};
use crate::dma::streaming::map_slice;
use crate::dma::{DmaMask, FromDevice, Mapping, Rectangle, ToDevice};
use crate::layout::{self, host};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

/// A model of the device, from QEMU's documentation, that fails the test on an overrun.
struct Model {
    identification: u32,
    inverts: bool,
    liveness: u32,
    pending: u32,
    dma: [u64; 4],
    buffer: [u8; 4096],
    /// Registers are not decoded: reads return all ones, writes are lost. A half step goes on.
    gone: bool,
    /// Half steps never end.
    hang: bool,
    /// Half steps end without an interrupt.
    mute: bool,
    /// Direction and count of each half step.
    steps: Vec<(bool, u64)>,
}

#[derive(Clone)]
struct Io(Arc<Mutex<Model>>);

impl Model {
    /// Ends the half step under way.
    fn run(&mut self) {
        let [source, destination, count, command] = self.dma;
        if command & 1 == 0 || self.hang {
            return;
        }
        let drain = command & 2 != 0;
        let (inner, outer) = if drain {
            (source, destination)
        } else {
            (destination, source)
        };
        assert!(inner >= BUFFER && inner + count <= BUFFER + 4096, "overrun");
        let offset = (inner - BUFFER) as usize;
        let bytes = &mut self.buffer[offset..offset + count as usize];
        let memory: *mut u8 = layout::phys_to_virt(PhysAddr::new(outer)).as_ptr();
        // SAFETY: the test's buffers are pretended RAM.
        unsafe {
            match drain {
                true => memory.copy_from(bytes.as_ptr(), bytes.len()),
                false => memory.copy_to(bytes.as_mut_ptr(), bytes.len()),
            }
        }
        self.steps.push((drain, count));
        self.dma[3] &= !1;
        if command & 4 != 0 && !self.mute {
            self.pending |= 0x100;
        }
    }
}

impl RegisterIo for Io {
    fn read32(&self, offset: usize) -> u32 {
        let model = self.0.lock().unwrap();
        if model.gone {
            return u32::MAX;
        }
        match offset {
            0x00 => model.identification,
            0x04 if model.inverts => !model.liveness,
            0x04 => model.liveness,
            0x24 => model.pending,
            _ => panic!("32-bit read of {offset:#x}"),
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        let mut model = self.0.lock().unwrap();
        if model.gone {
            return;
        }
        match offset {
            0x04 => model.liveness = value,
            0x64 => model.pending &= !value,
            _ => panic!("32-bit write of {offset:#x}"),
        }
    }

    fn read64(&self, offset: usize) -> u64 {
        assert_eq!(offset, 0x98);
        let model = self.0.lock().unwrap();
        if model.gone { u64::MAX } else { model.dma[3] }
    }

    fn write64(&self, offset: usize, value: u64) {
        let mut model = self.0.lock().unwrap();
        if model.gone {
            return;
        }
        assert!(
            model.dma[3] & 1 == 0,
            "registers are written while the device is busy"
        );
        if offset == 0x98 {
            trace::assert_behind_barrier();
        }
        model.dma[(offset - 0x80) / 8] = value;
    }
}

fn io() -> Io {
    Io(Arc::new(Mutex::new(Model {
        identification: 0x0100_00ED,
        inverts: true,
        liveness: 0,
        pending: 0,
        dma: [0; 4],
        buffer: [0; 4096],
        gone: false,
        hang: false,
        mute: false,
        steps: Vec::new(),
    })))
}

fn probe(
    io: &Io,
    device: &'static Device,
    clock: &'static FakeClock,
) -> Result<Edu<Io>, ProbeError> {
    // SAFETY: the model sees all pretended RAM, with every address bit.
    unsafe { Edu::probe(io.clone(), device, clock) }
}

/// An engine whose model runs, and whose interrupt is served, in every sleep.
fn engine(io: &Io) -> (&'static Edu<Io>, &'static Device) {
    let device = identity_device(DmaMask::new::<64>());
    let clock = FakeClock::leaked();
    let edu: &'static _ = Box::leak(Box::new(probe(io, device, clock).unwrap()));
    let io = io.clone();
    clock.on_sleep(move || {
        io.0.lock().unwrap().run();
        edu.on_interrupt();
    });
    (edu, device)
}

fn buffer(len: usize) -> &'static mut [u8] {
    let ram = host::ram(len as u64, 4096);
    // SAFETY: the RAM was just handed out to this call alone.
    unsafe { std::slice::from_raw_parts_mut(layout::phys_to_virt(ram.start).as_ptr(), len) }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 253) as u8 + 1).collect()
}

/// A transfer of 64 bytes and the maps that lend them.
fn lent(device: &Device) -> (Mapping<'_, ToDevice>, Mapping<'_, FromDevice>, Transfer) {
    let from = map_slice::<ToDevice>(device, buffer(64)).unwrap();
    let to = map_slice::<FromDevice>(device, buffer(64)).unwrap();
    let transfer = Transfer {
        src: from.dma_addr(),
        dst: to.dma_addr(),
        len: 64,
    };
    (from, to, transfer)
}

fn copy_of(engine: &dyn DmaEngine, device: &Device, len: usize) -> Result<Vec<u8>, DmaError> {
    let (src, dst) = (buffer(len), buffer(len));
    src.copy_from_slice(&pattern(len));
    let from = map_slice::<ToDevice>(device, src)?;
    let mut to = map_slice::<FromDevice>(device, dst)?;
    let result = copy(engine, &from, &mut to);
    to.unmap();
    result.map(|()| dst.to_vec())
}

#[test]
fn long_copies_go_through_the_buffer_in_steps() {
    let io = io();
    let (edu, device) = engine(&io);
    assert_eq!(copy_of(edu, device, 10_001), Ok(pattern(10_001)));
    let steps = io.0.lock().unwrap().steps.clone();
    let chunks = [4096, 4096, 1809];
    let expected: Vec<_> = chunks
        .iter()
        .flat_map(|&len| [(false, len), (true, len)])
        .collect();
    assert_eq!(steps, expected);
    for len in [1, 4095, 4096, 4097, 8192] {
        assert_eq!(copy_of(edu, device, len), Ok(pattern(len)), "{len}");
    }
}

#[test]
fn several_transfers_run_one_after_the_other() {
    let io = io();
    let (edu, device) = engine(&io);
    let (src, dst) = (buffer(64), buffer(64));
    src.copy_from_slice(&pattern(64));
    let from = map_slice::<ToDevice>(device, src).unwrap();
    let to = map_slice::<FromDevice>(device, dst).unwrap();
    let half = |offset: usize| Transfer {
        src: from.dma_addr() + offset,
        dst: to.dma_addr() + (32 - offset),
        len: 32,
    };
    // SAFETY: both buffers are mapped until the wait is over.
    let ticket = unsafe { edu.submit(&[half(0), half(32)]) }.unwrap();
    // SAFETY: refused.
    assert_eq!(unsafe { edu.submit(&[half(0)]) }, Err(DmaError::Busy));
    assert_eq!(edu.wait(ticket, edu.timeout_ns(64)), Ok(()));
    to.unmap();
    assert_eq!(dst[..32], pattern(64)[32..]);
    assert_eq!(dst[32..], pattern(64)[..32]);
}

#[test]
fn the_doorbell_rings_after_a_full_barrier() {
    let io = io();
    let (edu, device) = engine(&io);
    let (from, to, transfer) = lent(device);
    // The model looks at the order.
    // SAFETY: both buffers are mapped until the wait is over.
    let (ticket, ops) = trace::record_during(|| unsafe { edu.submit(&[transfer]) }.unwrap());
    assert_eq!(ops, [Op::DsbSy]);
    assert_eq!(edu.wait(ticket, edu.timeout_ns(64)), Ok(()));
    drop((from, to));
}

#[test]
fn an_abort_ends_after_the_half_step() {
    let io = io();
    let (edu, device) = engine(&io);
    let (from, to, transfer) = lent(device);
    // SAFETY: both buffers are mapped until the wait is over.
    let ticket = unsafe { edu.submit(&[transfer]) }.unwrap();
    edu.abort();
    assert_eq!(edu.wait(ticket, edu.timeout_ns(64)), Err(DmaError::Aborted));
    assert_eq!(io.0.lock().unwrap().steps, [(false, 64)]);
    drop((from, to));
    assert_eq!(copy_of(edu, device, 100), Ok(pattern(100)));
}

#[test]
fn a_hung_device_is_wedged_until_it_ends() {
    let io = io();
    let (edu, device) = engine(&io);
    io.0.lock().unwrap().hang = true;
    // The copy must not return: the device may still write its destination.
    let copied = std::panic::catch_unwind(AssertUnwindSafe(|| copy_of(edu, device, 64)));
    assert!(copied.is_err());
    assert_eq!(copy_of(edu, device, 64), Err(DmaError::Wedged));
    io.0.lock().unwrap().hang = false;
    io.0.lock().unwrap().run();
    assert_eq!(copy_of(edu, device, 64), Ok(pattern(64)));
}

#[test]
fn a_device_that_is_gone_is_named_and_works_when_it_is_back() {
    let io = io();
    let (engine, device) = engine(&io);
    io.0.lock().unwrap().gone = true;
    assert_eq!(copy_of(engine, device, 64), Err(DmaError::Gone));
    io.0.lock().unwrap().gone = false;
    assert_eq!(copy_of(engine, device, 64), Ok(pattern(64)));

    // In the middle of a copy: nobody interrupts, and the registers say all at once.
    let (from, to, transfer) = lent(device);
    // SAFETY: both buffers are mapped until the wait is over.
    let ticket = unsafe { engine.submit(&[transfer]) }.unwrap();
    io.0.lock().unwrap().gone = true;
    assert_eq!(engine.wait(ticket, 1_000), Err(DmaError::Gone));
    drop((from, to));
    io.0.lock().unwrap().gone = false;
    assert_eq!(copy_of(engine, device, 64), Ok(pattern(64)));
}

#[test]
fn a_device_that_is_gone_keeps_the_memory_for_a_half_step() {
    const POISON: u8 = 0xEE;
    let io = io();
    let device = identity_device(DmaMask::new::<64>());
    let clock = FakeClock::leaked();
    let edu: &'static _ = Box::leak(Box::new(probe(&io, device, clock).unwrap()));
    let (src, dst) = (buffer(64), buffer(64));
    src.copy_from_slice(&pattern(64));
    let from = map_slice::<ToDevice>(device, src).unwrap();
    let to = map_slice::<FromDevice>(device, dst).unwrap();
    let transfer = Transfer {
        src: from.dma_addr(),
        dst: to.dma_addr(),
        len: 64,
    };
    // SAFETY: both buffers are mapped until the wait is over.
    let ticket = unsafe { edu.submit(&[transfer]) }.unwrap();
    io.0.lock().unwrap().run();
    assert!(edu.on_interrupt());
    // The half step under way drains, and takes its time.
    io.0.lock().unwrap().gone = true;
    let model = io.clone();
    clock.on_sleep(move || {
        if clock.now_ns() >= HALF_STEP_NS {
            model.0.lock().unwrap().run();
        }
    });
    assert_eq!(edu.wait(ticket, 1_000), Err(DmaError::Gone));
    to.unmap();
    dst.fill(POISON);
    io.0.lock().unwrap().run();
    assert_eq!(dst, [POISON; 64]);
    let drained = [(false, 64), (true, 64)];
    assert_eq!(io.0.lock().unwrap().steps, drained);
}

#[test]
fn a_lost_interrupt_is_a_timeout_and_the_engine_goes_on() {
    let io = io();
    let (edu, device) = engine(&io);
    io.0.lock().unwrap().mute = true;
    let timeout = edu.timeout_ns(64);
    assert_eq!(copy_of(edu, device, 64), Err(DmaError::Timeout(timeout)));
    assert_eq!(edu.lost_interrupts(), 1);
    io.0.lock().unwrap().mute = false;
    assert_eq!(copy_of(edu, device, 64), Ok(pattern(64)));
}

/// The line of the second half step is never seen.
#[test]
fn a_copy_that_is_over_is_none_that_timed_out() {
    let io = io();
    let device = identity_device(DmaMask::new::<64>());
    let clock = FakeClock::leaked();
    let edu: &'static _ = Box::leak(Box::new(probe(&io, device, clock).unwrap()));
    let model = io.clone();
    clock.on_sleep(move || {
        model.0.lock().unwrap().run();
        if edu.interrupts() == 0 {
            edu.on_interrupt();
        }
    });
    assert_eq!(copy_of(edu, device, 64), Ok(pattern(64)));
    assert_eq!((edu.interrupts(), edu.lost_interrupts()), (1, 1));
    assert_eq!(io.0.lock().unwrap().pending, 0, "it was acknowledged");
}

#[test]
fn interrupts_of_others_and_other_interrupts() {
    let io = io();
    let (edu, _) = engine(&io);
    assert!(!edu.on_interrupt(), "the line is shared");
    io.0.lock().unwrap().pending = 1;
    assert!(edu.on_interrupt());
    assert_eq!(io.0.lock().unwrap().pending, 0);
}

#[test]
fn addresses_beyond_the_mask_do_not_reach_the_device() {
    let io = io();
    let device = identity_device(DmaMask::new::<28>());
    let edu = probe(&io, device, FakeClock::leaked()).unwrap();
    assert!(matches!(
        copy_of(&edu, device, 64),
        Err(DmaError::OutOfReach { limit, .. }) if limit == PhysAddr::new(0x0FFF_FFFF)
    ));
    let transfer = Transfer {
        src: DmaAddr::new(0x1000_0000),
        dst: DmaAddr::new(0x1000),
        len: 4,
    };
    // SAFETY: refused.
    let result = unsafe { edu.submit(&[transfer]) };
    assert!(matches!(result, Err(DmaError::ForeignAddress { .. })));
    assert_eq!(io.0.lock().unwrap().dma, [0; 4]);
}

#[test]
fn only_a_live_edu_device_probes() {
    let device = identity_device(DmaMask::new::<64>());
    let probe = |io: Io| probe(&io, device, FakeClock::leaked()).map(drop);
    let other = io();
    other.0.lock().unwrap().identification = 0xFFFF_FFFF;
    assert_eq!(probe(other), Err(ProbeError::Identification(0xFFFF_FFFF)));
    let dead = io();
    dead.0.lock().unwrap().inverts = false;
    assert_eq!(probe(dead), Err(ProbeError::Liveness(0x1234_ABCD)));
}

#[test]
fn polled_copies_need_no_interrupt() {
    let io = io();
    let device = identity_device(DmaMask::new::<64>());
    let clock = FakeClock::leaked();
    let edu: &'static _ = Box::leak(Box::new(probe(&io, device, clock).unwrap()));
    // Nobody serves the interrupt.
    clock.on_sleep(move || io.0.lock().unwrap().run());
    let (src, dst) = (buffer(5000), buffer(5000));
    src.copy_from_slice(&pattern(5000));
    let from = map_slice::<ToDevice>(device, src).unwrap();
    let mut to = map_slice::<FromDevice>(device, dst).unwrap();
    let irq = cpu::irq_save();
    let copied = copy_with(edu, &from, &mut to, Completion::Polled);
    cpu::irq_restore(irq);
    assert_eq!((copied, edu.interrupts()), (Ok(()), 0));
    to.unmap();
    assert_eq!(dst, pattern(5000));
}

#[test]
fn rectangles_are_refused_by_name() {
    let (edu, device) = engine(&io());
    let (src, dst) = (buffer(64), buffer(64));
    let from = map_slice::<ToDevice>(device, src).unwrap();
    let mut to = map_slice::<FromDevice>(device, dst).unwrap();
    let shape = Rectangle {
        rows: 1,
        row_len: 4,
        src_stride: 0,
        dst_stride: 0,
    };
    let refused = copy_2d(edu, (&from, 0), (&mut to, 0), shape, Completion::Polled);
    assert_eq!(refused, Err(DmaError::NoRectangles { engine: "test" }));
}
