//! A ring whose slots an engine gives back: the word that says whose a slot is comes from outside.

use crate::memory::device_ring::{DeviceRing, OWN, Packet};
use crate::report::{Outcome, Stop, diagnostic};
use crate::suites::dma::each_engine;
use crate::{check, check_ok};
use hal::dma::engine::copy;
use hal::dma::{Coherent, DmaEngine, DmaError};
use hal::mm::Gfp;

/// Slots, and answers: more, so that the ring wraps around.
const SLOTS: usize = 2;
const ANSWERS: usize = 3;

/// Lets the engine write `packet` over the slot that it has had longest.
fn answer(
    engine: &dyn DmaEngine,
    ring: &mut DeviceRing,
    from: &mut Coherent<Packet>,
    packet: Packet,
) -> Result<(), DmaError> {
    from.write(packet);
    match ring.slot() {
        Some(mut slot) => copy(engine, &from.part(0, size_of::<Packet>())?, &mut slot),
        None => Err(DmaError::ZeroLength),
    }
}

/// The answer number `number`, the CPU's.
fn packet(number: usize) -> Packet {
    Packet {
        tag: !tag(number),
        len: 0x100 + number as u32,
        status: 0x20 + number as u32,
    }
}

/// What is asked for it.
const fn tag(number: usize) -> u64 {
    0x0123_4567_89AB_CDEF ^ number as u64
}

pub(super) fn given_back() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let mut ring = check_ok!(DeviceRing::new(device, SLOTS));
        let mut from = check_ok!(Coherent::zeroed(device, Gfp::KERNEL));
        for number in 0..ANSWERS {
            let index = ring.ask(tag(number));
            check!(index == Some(number % SLOTS), "{index:?} was next");
            let early = ring.complete();
            check!(early.is_none(), "{early:x?} before the engine wrote");
            check_ok!(answer(engine, &mut ring, &mut from, packet(number)));
            let done = ring.complete();
            let wanted = Some((number % SLOTS, packet(number)));
            check!(done == wanted, "{done:x?} instead of {wanted:x?}");
        }
        diagnostic(format_args!(
            "engine={} slots={SLOTS} given back={ANSWERS} observed=data",
            device.name()
        ));
        Ok(())
    })
}

/// An answer that leaves the slot with the device: it must not be taken for one that does not.
pub(super) fn given_back_planted() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let mut ring = check_ok!(DeviceRing::new(device, SLOTS));
        let mut from = check_ok!(Coherent::zeroed(device, Gfp::KERNEL));
        check!(ring.ask(tag(0)).is_some(), "no slot");
        let mut kept = packet(0);
        kept.status |= OWN;
        check_ok!(answer(engine, &mut ring, &mut from, kept));
        let done = ring.complete();
        check!(done.is_none(), "{done:x?} is the device's");
        ring.slot().map(drop).ok_or(Stop::Failed)
    })
}
