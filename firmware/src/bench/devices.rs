//! Memory for devices, which are taken as not coherent.

use super::meter::Meter;
use super::shape::{Measured, failed, pairs};
use crate::handed::Taken;
use crate::machine::machine;
use crate::memory::{Object, reachable};
use crate::report::Stop;
use hal::arch::pmu::opaque;
use hal::dma::streaming::map_slice;
use hal::dma::{Device, Direction, FromDevice, ToDevice, coherent};
use hal::mm::Gfp;

/// Pairs in a repetition.
const COHERENT_PAIRS: u32 = 2_000;
const MAP_PAIRS: u32 = 5_000;

/// The device that memory is for: the first that does DMA.
fn device() -> Result<&'static Device, Stop> {
    let engine = machine().engines.first();
    engine
        .map(|engine| engine.device())
        .ok_or(Stop::Skipped("no device does DMA here"))
}

/// Zeroed memory allocated by a task and freed again.
pub(super) fn coherent_kernel(meter: &Meter, size: usize) -> Measured {
    coherent_pairs(meter, size, Gfp::KERNEL)
}

/// Zeroed memory allocated as by an interrupt handler and freed again.
pub(super) fn coherent_atomic(meter: &Meter, size: usize) -> Measured {
    coherent_pairs(meter, size, Gfp::ATOMIC)
}

fn coherent_pairs(meter: &Meter, size: usize, gfp: Gfp) -> Measured {
    let device = device()?;
    let _maintained = Taken::as_coherent(device, false);
    pairs(
        meter,
        COHERENT_PAIRS,
        || coherent::alloc(device, opaque(size), gfp).map(drop),
        || (),
    )
}

/// A buffer the device reads.
pub(super) fn map_to_device(meter: &Meter, size: usize) -> Measured {
    map::<ToDevice>(meter, size)
}

/// A buffer the device writes.
pub(super) fn map_from_device(meter: &Meter, size: usize) -> Measured {
    map::<FromDevice>(meter, size)
}

/// A buffer handed to the device and taken back.
fn map<D: Direction>(meter: &Meter, size: usize) -> Measured {
    let device = device()?;
    let mut buffer = Object::alloc(size, reachable(device)).map_err(failed)?;
    let _maintained = Taken::as_coherent(device, false);
    let pair = || {
        // Another buffer each time, as far as the compiler knows.
        let part = opaque(0)..opaque(size);
        let buffer = buffer.get_mut(part).unwrap_or_default();
        map_slice::<D>(device, buffer).map(|mapping| mapping.unmap())
    };
    pairs(meter, MAP_PAIRS, pair, || ())
}
