mod model;

use super::*;
use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::arch::cpu;
use crate::arch::trace::{Op, record_during};
use crate::dma::engine::copy_2d;
use crate::dma::streaming::map_slice;
use crate::dma::{Clock, Completion, DmaEngine, FromDevice, Rectangle, ToDevice, Transfer};
use crate::drivers::bcm2711_channels::ChannelMask;
use crate::drivers::mmio::RegisterIo;
use bench::{POOL, pattern};
use model::{BUS, Bench, Model, SILICON, STRAY_CS};

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
    let transfer = bench.transfer();
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
fn a_copy_that_is_over_is_not_aborted() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.probe(5).unwrap();
    // SAFETY: the buffers belong to the test for good.
    let ticket = unsafe { engine.submit(&[bench.transfer()]) }.unwrap();
    bench.edit(Model::run);
    engine.abort();
    assert_eq!(engine.wait(ticket, 1), Ok(()));
    assert!(engine.on_interrupt(), "its interrupt, late");
    assert_eq!(engine.lost_interrupts(), 0);
}

#[test]
fn an_end_is_acknowledged_once_the_channel_is_idle() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.probe(5).unwrap();
    // SAFETY: the buffers belong to the test for good.
    let ticket = unsafe { engine.submit(&[bench.transfer()]) }.unwrap();
    bench.edit(|model| {
        model.run();
        model.cs |= 1;
        model.log.clear();
    });
    assert!(!engine.on_interrupt());
    bench.edit(|model| {
        assert!(model.log.is_empty(), "it would be paused");
        model.cs &= !1;
    });
    assert!(engine.on_interrupt());
    assert_eq!(engine.wait(ticket, 1), Ok(()));
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
fn an_error_without_a_reason_is_one() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(4);
    // A bit of DEBUG that names no error.
    bench.edit(|model| model.error = 0b1000_0000_0000);
    let failed = bench.copy_of(engine, 64);
    assert_eq!(failed, Err(DmaError::Bus { flags: 0 }));
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
    bench.edit(|model| (model.hang, model.unanswered) = (true, 1));
    let _ = bench.copy_of(engine, 64);
}

#[test]
fn qemu_s_model_is_told_from_silicon() {
    assert!(Bench::new(0).controller.is_modelled());
    assert!(!Bench::new(SILICON).controller.is_modelled());
    // An error that a boot loader left does not make it silicon.
    assert!(Bench::new(1 << 2).controller.is_modelled());
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
fn a_channel_found_at_work_that_does_not_stop_does_not_probe() {
    let bench = Bench::new(SILICON);
    let two_outstanding = 2 << 4;
    // As a boot loader may leave it.
    bench.edit(|model| {
        (model.cs, model.conblk, model.hang) = (1, 0xC000_0020, true);
        model.debug |= two_outstanding;
    });
    assert_eq!(bench.probe(5).unwrap_err(), Unavailable::Wedged(5).into());
    bench.edit(|model| assert_eq!((model.outstanding(), model.forgotten), (2, 0)));
    assert_eq!(bench.pool.free_pages(), POOL as usize / PAGE_SIZE);
    assert_eq!(bench.probe(5).unwrap_err(), Unavailable::Wedged(5).into());
}

#[test]
fn a_disabled_channel_is_enabled_and_the_pages_are_left_alone() {
    let bench = Bench::new(SILICON);
    bench.edit(|model| model.enable = 0x3000_7FDF);
    bench.probe(5).unwrap();
    bench.edit(|model| assert_eq!(model.enable, 0x3000_7FFF));
}

#[test]
fn a_channel_whose_writes_do_not_land_is_not_reset_and_takes_nothing_more() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(6);
    let transfer = bench.transfer();
    bench.edit(|model| (model.hang, model.unanswered) = (true, 1));
    // SAFETY: the buffers belong to the test for good.
    let submit = || unsafe { engine.submit(&[transfer]) };
    let ticket = submit().unwrap();
    assert_eq!(engine.wait(ticket, 1), Err(DmaError::Wedged));
    bench.edit(|model| {
        assert_eq!((model.outstanding(), model.forgotten), (1, 0));
        // They land after all; whose memory it was by then nobody knows.
        (model.hang, model.debug) = (false, SILICON);
        model.log.clear();
    });
    assert_eq!(submit(), Err(DmaError::Wedged));
    assert_eq!(bench.copy_of(engine, 64), Err(DmaError::Wedged));
    bench.edit(|model| assert!(model.log.is_empty(), "it was touched"));
}

/// The same with a driver that resets first: the channel then looks as if nothing were under way.
#[test]
fn a_channel_whose_writes_do_not_land_is_not_reset_and_takes_nothing_more_planted() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(6);
    let transfer = bench.transfer();
    bench.edit(|model| (model.hang, model.unanswered) = (true, 1));
    // SAFETY: the buffers belong to the test for good.
    let ticket = unsafe { engine.submit(&[transfer]) }.unwrap();
    model::Io(bench.model.clone()).write32(0x600, 1 << 31);
    assert_eq!(engine.wait(ticket, 1), Err(DmaError::Timeout(1)));
    bench.edit(|model| assert_eq!((model.outstanding(), model.forgotten), (0, 1)));
}

#[test]
fn a_channel_that_does_not_pause_gives_its_block_up() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(6);
    bench.edit(|model| {
        (model.hang, model.stubborn) = (true, true);
        model.log.clear();
    });
    let timeout = engine.timeout_ns(64);
    assert_eq!(bench.copy_of(engine, 64), Err(DmaError::Timeout(timeout)));
    bench.edit(|model| {
        let (pause, abort) = (1 << 28, 1 << 28 | 1 << 30);
        let stop = [pause, abort, 1 << 31, 6].map(|cs| (0x600, cs));
        assert_eq!(model.log[2..], stop);
        model.hang = false;
    });
    assert_eq!(bench.copy_of(engine, 64), Ok(pattern(64)));
}

#[test]
fn a_dropped_channel_is_stopped_and_keeps_its_blocks_if_it_does_not_stop() {
    let pages = POOL as usize / PAGE_SIZE;
    for (unanswered, free_pages) in [(0, pages), (1, pages - 1)] {
        let mut bench = Bench::new(SILICON);
        let engine = bench.probe(6).unwrap();
        bench.edit(|model| (model.hang, model.unanswered) = (true, unanswered));
        // SAFETY: the buffers belong to the test for good.
        let _ticket = unsafe { engine.submit(&[bench.transfer()]) }.unwrap();
        drop(engine);
        bench.edit(|model| assert_eq!((model.cs & 1, model.forgotten), (0, 0)));
        assert_eq!(bench.pool.free_pages(), free_pages);
    }
}

#[test]
fn a_stray_interrupt_on_a_shared_line_is_withdrawn() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(7);
    bench.edit(|model| model.stray = true);
    assert!(engine.on_interrupt());
    assert_eq!((bench.controller.strays(), engine.interrupts()), (1, 0));
    bench.edit(|model| {
        assert!(!model.stray, "the line would stay up");
        assert!(model.log.ends_with(&[(STRAY_CS, 1 << 31), (STRAY_CS, 6)]));
    });
    assert!(!engine.on_interrupt(), "nobody's");
    assert_eq!(bench.copy_of(engine, 64), Ok(pattern(64)));
}

#[test]
fn a_stray_error_on_a_shared_line_is_cleared() {
    let bench = Bench::new(SILICON);
    let engine = bench.engine(7);
    bench.edit(|model| model.stray_debug = 0b101);
    assert!(engine.on_interrupt());
    bench.edit(|model| assert_eq!(model.stray_debug, 0, "the line would stay up"));
    assert!(!engine.on_interrupt(), "nobody's");
    assert_eq!(bench.controller.strays(), 1);
}

#[test]
fn a_stray_channel_that_does_not_stop_is_not_reset_and_left_alone() {
    let bench = Bench::new(SILICON);
    let engine = bench.engine(7);
    bench.edit(|model| {
        (model.stray, model.stray_debug) = (true, 1 << 4);
        model.log.clear();
    });
    assert!(!engine.on_interrupt(), "the storm limit has to end it");
    bench.edit(|model| {
        assert!(!model.log.is_empty());
        assert!(model.log.iter().all(|(_, value)| value & 1 << 31 == 0));
        model.log.clear();
    });
    assert!(!engine.on_interrupt());
    bench.edit(|model| assert!(model.log.is_empty()));
    assert_eq!(bench.probe(8).unwrap_err(), Unavailable::Wedged(8).into());
}

#[test]
fn a_channel_of_somebody_else_on_a_shared_line_is_left_alone() {
    let bench = Bench::new(SILICON);
    let only_seven = ChannelMask::new(1 << 7);
    let engine = bench.probe_with(7, only_seven).unwrap();
    bench.edit(|model| {
        model.stray = true;
        model.log.clear();
    });
    assert!(!engine.on_interrupt());
    bench.edit(|model| assert!(model.stray && model.log.is_empty()));
}

#[test]
fn a_channel_has_one_driver() {
    let bench = Bench::new(SILICON);
    let first = bench.probe(5);
    assert!(first.is_ok());
    let pages = bench.pool.free_pages();
    assert_eq!(bench.probe(5).unwrap_err(), Unavailable::Taken(5).into());
    assert_eq!(bench.pool.free_pages(), pages);
}

#[test]
fn polled_copies_need_no_interrupt() {
    let mut bench = Bench::new(SILICON);
    let engine: &'static _ = Box::leak(Box::new(bench.probe(2).unwrap()));
    let model = bench.model.clone();
    // Nobody serves the interrupt.
    bench.clock.on_sleep(move || model.lock().unwrap().run());
    let irq = cpu::irq_save();
    let copied = bench.copy_by(engine, 300, Completion::Polled);
    cpu::irq_restore(irq);
    assert_eq!(copied, Ok(pattern(300)));
    assert!(engine.on_interrupt(), "its interrupt, late");
    assert!(!engine.on_interrupt(), "somebody else's");
    assert_eq!(engine.interrupts(), 0);
    // The twin: by interrupt it is found at the deadline only.
    assert_eq!(engine.lost_interrupts(), 0);
    let (before, timeout) = (bench.clock.now_ns(), engine.timeout_ns(64));
    assert_eq!(bench.copy_of(engine, 64), Ok(pattern(64)));
    assert_eq!(engine.lost_interrupts(), 1);
    assert_eq!(bench.clock.now_ns() - before, timeout);
}

#[test]
fn rectangles_arrive_and_their_surroundings_stay() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(2);
    let shape = Rectangle {
        rows: 3,
        row_len: 5,
        src_stride: 4,
        dst_stride: -12,
    };
    let src = bench.buffer(64, 0);
    src.copy_from_slice(&pattern(64));
    let dst = bench.buffer(64, 0xEE);
    let from = map_slice::<ToDevice>(bench.device, src).unwrap();
    let mut to = map_slice::<FromDevice>(bench.device, dst).unwrap();
    let by = Completion::Interrupt;
    // The last row first: 40, 33, 26.
    let copied = copy_2d(engine, (&from, 2), (&mut to, 40), shape, by);
    let outside = copy_2d(engine, (&from, 2), (&mut to, 13), shape, by);
    to.unmap();
    assert_eq!(copied, Ok(()));
    let mut expected = [0xEE; 64];
    for (row, start) in [40, 33, 26].into_iter().enumerate() {
        let read = 2 + row * 9;
        expected[start..start + 5].copy_from_slice(&pattern(64)[read..read + 5]);
    }
    assert_eq!(dst, expected);
    let (offset, len, size) = (13, 19, 64);
    assert_eq!(outside, Err(DmaError::OutOfBounds { offset, len, size }));
}

#[test]
fn lite_channels_refuse_rectangles_by_name() {
    let mut bench = Bench::new(SILICON);
    let engine = bench.engine(7);
    let shape = Rectangle {
        rows: 1,
        row_len: 4,
        src_stride: 0,
        dst_stride: 0,
    };
    let (src, dst) = (bench.buffer(64, 0), bench.buffer(64, 0));
    let from = map_slice::<ToDevice>(bench.device, src).unwrap();
    let mut to = map_slice::<FromDevice>(bench.device, dst).unwrap();
    let refused = copy_2d(engine, (&from, 0), (&mut to, 0), shape, Completion::Polled);
    assert_eq!(refused, Err(DmaError::NoRectangles { engine: "dma" }));
}
