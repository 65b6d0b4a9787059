mod model;

use super::*;
use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::arch::cpu;
use crate::arch::trace::{Op, record_during};
use crate::dma::engine::copy_2d;
use crate::dma::streaming::map_slice;
use crate::dma::{FromDevice, Rectangle, ToDevice};
use crate::drivers::bcm2711_dma::bench::{POOL, WINDOW, pattern};
use model::{ABORT, ACTIVE, BUS, Bench, END, HALT, INT, Model, SET};

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
    bench.edit(|model| assert_eq!(model.log, [(0xFF0, 0x1FFF)], "it was enabled only"));
    assert_eq!(bench.pool.free_pages(), POOL as usize / PAGE_SIZE);
}

#[test]
fn a_channel_in_use_keeps_its_errors() {
    let bench = Bench::new();
    let _engine = bench.probe(12).unwrap();
    bench.edit(|model| model.debug = SET | 0b0100);
    let taken = bench.probe(12).unwrap_err();
    assert_eq!(taken, Unavailable::Taken(12).into());
    assert_eq!(bench.edit(|model| model.debug), SET | 0b0100);
}

#[test]
fn a_write_that_the_second_look_shows_keeps_a_channel_from_a_reset() {
    let bench = Bench::new();
    bench.edit(|model| model.late = 1);
    assert_eq!(bench.probe(12).unwrap_err(), Unavailable::Wedged(12).into());
    bench.edit(|model| assert!(model.log.iter().all(|&(register, _)| register != 0xC0C)));
}

#[test]
fn a_channel_found_at_work_that_does_not_stop_does_not_probe() {
    let bench = Bench::new();
    bench.edit(|model| (model.cs, model.hang, model.debug2) = (ACTIVE, true, 1));
    assert_eq!(bench.probe(12).unwrap_err(), Unavailable::Wedged(12).into());
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
