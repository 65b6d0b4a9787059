//! Memory that takes more than 32 address bits, for an engine whose driver uses no more.

use super::super::dma::each_engine;
use super::super::phantom::MaskedTo;
use super::pool;
use crate::handed::Taken;
use crate::machine::machine;
use crate::memory::Object;
use crate::pattern::{self, POISON};
use crate::report::{self, Outcome, Stop};
use crate::{check, check_ok};
use hal::addr::PAGE_SIZE;
use hal::dma::engine::copy;
use hal::dma::streaming::map_slice;
use hal::dma::{Coherent, Device, DmaMask, DmaSegment, FromDevice, ToDevice, coherent};
use hal::layout::virt_to_phys;
use hal::mm::Gfp;

const LEN: usize = PAGE_SIZE;

/// The address bits of a driver that was written for 32-bit devices.
const BITS: u32 = 32;

/// Whether all of a segment has addresses of [`BITS`] bits.
fn is_low(segment: DmaSegment) -> bool {
    (segment.addr.get() + (segment.len as u64 - 1)) >> BITS == 0
}

/// All of an allocation.
fn segment_of(memory: &Coherent) -> DmaSegment {
    DmaSegment {
        addr: memory.dma_addr(),
        len: memory.len(),
    }
}

/// An object that lies above what [`BITS`] bits address.
fn high_object() -> Result<Object, Stop> {
    let ram = machine().map.ram();
    if ram.iter().all(|ram| ram.end.get() >> BITS == 0) {
        return Err(Stop::Skipped("no memory above 4 GiB"));
    }
    let object = check_ok!(Object::zeroed(LEN, Gfp::KERNEL));
    let pa = virt_to_phys(object.va()).unwrap_or_default();
    check!(pa.get() >> BITS != 0, "{pa} is not above 4 GiB");
    Ok(object)
}

fn mask() -> DmaMask {
    DmaMask::new::<BITS>()
}

pub(super) fn arrives() -> Outcome {
    pool()?;
    let mut source = high_object()?;
    let mut seen = high_object()?;
    pattern::fill(&mut source, machine().seed);
    each_engine(|engine| {
        let device = engine.device();
        let _narrowed = check_ok!(MaskedTo::set(device, mask()));
        seen.fill(POISON);
        let from = check_ok!(map_slice::<ToDevice>(device, &mut source));
        let mut to = check_ok!(map_slice::<FromDevice>(device, &mut seen));
        check!(from.is_bounced() && to.is_bounced(), "{from:?} and {to:?}");
        let (low_from, low_to) = (from.dma_segment(), to.dma_segment());
        check!(is_low(low_from) && is_low(low_to), "{from:?} and {to:?}");
        check_ok!(copy(engine, &from, &mut to));
        to.unmap();
        check_ok!(pattern::verify(&seen, 0, LEN, machine().seed));
        let mut memory = coherent_memory(device)?;
        check_ok!(copy(engine, &from, &mut check_ok!(memory.part_mut(0, LEN))));
        from.unmap();
        check_ok!(pattern::verify(memory.as_slice(), 0, LEN, machine().seed));
        report::diagnostic(format_args!(
            "engine={} drives {BITS} bits: memory above 4 GiB arrives through {} and {}, observed=data",
            device.name(),
            low_from.addr,
            low_to.addr
        ));
        Ok(())
    })
}

/// Coherent memory of each kind that the engine's device may be given, low; one that is not cached.
fn coherent_memory(device: &'static Device) -> Result<Coherent, Stop> {
    for gfp in [Gfp::KERNEL, Gfp::ATOMIC] {
        let _snoops = Taken::as_coherent(device, true);
        let cached = check_ok!(coherent::alloc(device, LEN, gfp));
        check!(is_low(segment_of(&cached)), "cached, {gfp}: {cached:?}");
    }
    let _maintained = Taken::as_coherent(device, false);
    let memory = check_ok!(coherent::alloc(device, LEN, Gfp::KERNEL));
    check!(is_low(segment_of(&memory)), "{memory:?}");
    Ok(memory)
}

/// An engine that may be given all of it, as far as it reaches that.
pub(super) fn planted() -> Outcome {
    let mut memory = high_object()?;
    let mut wide = 0;
    each_engine(|engine| {
        let device = engine.device();
        if device.mask() >> BITS == 0 {
            return Ok(());
        }
        wide += 1;
        let mapping = check_ok!(map_slice::<ToDevice>(device, &mut memory));
        check!(
            !mapping.is_bounced() && !is_low(mapping.dma_segment()),
            "memory above 4 GiB passes as low: {mapping:?}"
        );
        mapping.unmap();
        let _snoops = Taken::as_coherent(device, true);
        let cached = check_ok!(coherent::alloc(device, LEN, Gfp::KERNEL));
        check!(!is_low(segment_of(&cached)), "{cached:?} passes as high");
        Ok(())
    })?;
    match wide {
        0 => Err(Stop::Skipped("no engine drives more than 32 address bits")),
        _ => Ok(()),
    }
}
