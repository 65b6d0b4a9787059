//! Structural evidence for what this machine may have no caches to show: which lines a map
//! maintains, and how coherent memory is mapped.

use super::super::bounce;
use super::each_engine;
use crate::handed::Taken;
use crate::machine::machine;
use crate::memory::{Object, reachable};
use crate::report::{self, Outcome};
use crate::{check, check_ok};
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::arch::cache;
use hal::arch::translate;
use hal::dma::maintenance::{Counters, counters, line_size};
use hal::dma::streaming::map_slice;
use hal::dma::{Bidirectional, Device, Direction, DmaError, FromDevice, ToDevice};
use hal::layout::phys_to_virt;
use hal::mm::Gfp;
use hal::mmu::MemoryType;
use hal::smp;

/// Buffers as offset and length: whole lines, one byte, inside a line, across one, shared ends.
const SHAPES: [(usize, usize); 8] = [
    (0, 64),
    (0, 4096),
    (0, 1),
    (63, 2),
    (1, 62),
    (3, 130),
    (31, 513),
    (64, 192),
];

/// Counted line by line: which a map must clean, and which an unmap must invalidate. A device never
/// writes a line that is not all the buffer's: it is given slots, which start on lines and are
/// whole ones.
pub(in crate::suites) fn demanded(buffer: Range<usize>, device_writes: bool) -> Counters {
    let line = line_size();
    let shares = !buffer.start.is_multiple_of(line) || !buffer.end.is_multiple_of(line);
    let mut lent = buffer;
    if device_writes && shares {
        lent = 0..lent.len();
    }
    let touched = (lent.start / line..lent.end.div_ceil(line)).len() as u64;
    Counters {
        cleaned: touched,
        invalidated: if device_writes { touched } else { 0 },
        cleaned_and_invalidated: 0,
    }
}

/// What was maintained while `f` ran.
pub(in crate::suites) fn maintained<E>(f: impl FnOnce() -> Result<(), E>) -> Result<Counters, E> {
    let before = counters();
    f()?;
    let after = counters();
    Ok(Counters {
        cleaned: after.cleaned - before.cleaned,
        invalidated: after.invalidated - before.invalidated,
        cleaned_and_invalidated: after.cleaned_and_invalidated - before.cleaned_and_invalidated,
    })
}

/// What one map and unmap maintained.
fn counted<D: Direction>(device: &Device, bytes: &mut [u8]) -> Result<Counters, DmaError> {
    maintained(|| {
        map_slice::<D>(device, bytes)?.unmap();
        Ok(())
    })
}

/// Maps every shape in direction `D` and compares with what the lines demand of a device that is
/// not coherent. The first difference, if there is one.
fn difference<D: Direction>(
    device: &Device,
    memory: &mut Object,
) -> Result<Option<(Counters, Counters)>, DmaError> {
    for (offset, len) in SHAPES {
        let start = memory.va().get() + offset;
        let demand = demanded(start..start + len, D::KIND.device_writes());
        let count = counted::<D>(device, &mut memory[offset..offset + len])?;
        if count != demand {
            return Ok(Some((demand, count)));
        }
    }
    Ok(None)
}

/// The granule is looked up once for all cores.
pub(super) fn cores_agree() -> Outcome {
    let own = cache::ctr_el0();
    let others = AtomicU32::new(0);
    check_ok!(smp::run_on_all(|_| {
        if cache::ctr_el0() != own {
            others.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let others = others.into_inner();
    check!(others == 0, "{others} cores have other lines than {own:#x}");
    Ok(())
}

pub(super) fn lines() -> Outcome {
    bounce::pool()?;
    each_engine(|engine| {
        let device = engine.device();
        let mut memory = check_ok!(Object::zeroed(2 * PAGE_SIZE, reachable(device)));
        {
            let _maintained = Taken::as_coherent(device, false);
            let found = [
                check_ok!(difference::<ToDevice>(device, &mut memory)),
                check_ok!(difference::<FromDevice>(device, &mut memory)),
                check_ok!(difference::<Bidirectional>(device, &mut memory)),
            ];
            if let Some((demand, count)) = found.into_iter().flatten().next() {
                check!(false, "{demand:?} demanded, {count:?} done");
            }
        }
        let _unmaintained = Taken::as_coherent(device, true);
        let count = check_ok!(counted::<Bidirectional>(device, &mut memory));
        check!(
            count == Counters::default(),
            "{count:?} for a coherent device"
        );
        report::diagnostic(format_args!(
            "engine={} shapes={} directions=3 line={} observed=structural",
            device.name(),
            SHAPES.len(),
            line_size()
        ));
        Ok(())
    })
}

/// A device wrongly taken as coherent: nothing is maintained, and that must be found.
pub(super) fn planted() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let mut memory = check_ok!(Object::zeroed(2 * PAGE_SIZE, reachable(device)));
        let _forgotten = Taken::as_coherent(device, true);
        check!(
            check_ok!(difference::<ToDevice>(device, &mut memory)).is_some()
                && check_ok!(difference::<FromDevice>(device, &mut memory)).is_some(),
            "forgotten maintenance was not found"
        );
        Ok(())
    })
}

/// The first page of `len` bytes at `va` that is cacheable, or has a second mapping that is.
fn cacheable_page(va: VirtAddr, len: usize) -> Option<VirtAddr> {
    let pages = (0..len).step_by(PAGE_SIZE).map(|offset| va + offset);
    pages.into_iter().find(|&page| {
        let par = translate::read_el1(page);
        let is_uncached = par.memory_type() == Some(MemoryType::NormalNonCacheable);
        let alias = par.page().map(|pa| translate::read_el1(phys_to_virt(pa)));
        !is_uncached || alias.is_none_or(|alias| alias.page().is_some())
    })
}

pub(super) fn coherent_attributes() -> Outcome {
    each_engine(|engine| {
        for len in [1, PAGE_SIZE, 5 * PAGE_SIZE, 1 << 20] {
            let memory = check_ok!(machine().pool.alloc(engine.device(), len));
            if let Some(page) = cacheable_page(memory.va(), memory.len()) {
                check!(false, "{page}: {}", translate::read_el1(page));
            }
            check!(
                memory.as_slice().iter().all(|&byte| byte == 0),
                "not zeroed"
            );
        }
        report::diagnostic(format_args!(
            "Normal-NC by PAR_EL1, absent from the direct map"
        ));
        Ok(())
    })
}

pub(super) fn coherent_attributes_planted() -> Outcome {
    let memory = check_ok!(Object::zeroed(PAGE_SIZE, Gfp::KERNEL));
    check!(
        cacheable_page(memory.va(), memory.len()).is_some(),
        "kmalloc memory passed for coherent memory"
    );
    Ok(())
}
