//! Coherent memory made of a contiguous memory area.

use super::device;
use crate::handed::Taken;
use crate::machine::machine;
use crate::memory::contiguous::Contiguous;
use crate::memory::{Object, reachable};
use crate::report::{Outcome, Stop, diagnostic};
use crate::suites::busy::while_others_are_busy;
use crate::suites::mapping;
use crate::{check, check_ok, pattern};
use hal::addr::{PAGE_SIZE, PhysRange, VirtAddr};
use hal::arch::{cpu, translate};
use hal::deferred;
use hal::dma::engine::copy;
use hal::dma::streaming::map_slice;
use hal::dma::{Coherent, DmaEngine, DmaError, FromDevice, ToDevice, coherent};
use hal::layout::{COHERENT, phys_to_virt};
use hal::mm::{self, Cma, Gfp};
use hal::mmu::MemoryType;

/// More than the pool hands out at once, so that only an area can serve it.
const SIZE: usize = 8 << 20;

/// Bytes that an engine copies there and back.
const TRIP: usize = 64 << 10;

const UNCACHED: MemoryType = MemoryType::NormalNonCacheable;
const CACHED: MemoryType = MemoryType::NormalWriteBack;

/// The area that serves everybody, and what of it a test takes.
fn area() -> Result<(&'static Cma, usize), Stop> {
    let cma = mm::default_cma().ok_or(Stop::Skipped("no contiguous memory area"))?;
    let half = cma.count() as usize / 2 * PAGE_SIZE;
    Ok((cma, SIZE.min(half)))
}

/// The frames of a run, page by page as `AT S1E1R` finds them, if they are one run of the area.
fn frames_of(cma: &Cma, va: VirtAddr, len: usize) -> Option<PhysRange> {
    let first = translate::read_el1(va).page()?;
    let is_one_run = mapping::physical_breaks(va, len) == Ok(0);
    let frames = PhysRange::from_size(first, len as u64)?;
    let last = frames.end.pfn().get().checked_sub(1)?;
    let in_area = cma.contains(first.pfn()) && cma.contains(hal::addr::Pfn::new(last));
    (is_one_run && in_area).then_some(frames)
}

/// The first page of `frames` that the direct map has.
fn in_direct_map(frames: PhysRange) -> Option<VirtAddr> {
    let start = phys_to_virt(frames.start);
    let pages = (0..frames.size() as usize).step_by(PAGE_SIZE);
    pages
        .map(|offset| start + offset)
        .find(|page| translate::read_el1(*page).page().is_some())
}

/// The first frame that is not recorded as `wanted`.
fn recorded_otherwise(frames: PhysRange, wanted: MemoryType) -> Option<hal::addr::Pfn> {
    let table = mm::pages()?.frames();
    let pfns = frames.start.pfn().get()..frames.end.pfn().get();
    pfns.map(hal::addr::Pfn::new)
        .find(|pfn| table.memory_type(*pfn) != Ok(wanted))
}

pub(super) fn round_trip() -> Outcome {
    let (cma, size) = area()?;
    if machine().engines.is_empty() {
        return on_behalf_of(cma, size, device(), |_| Ok(()));
    }
    machine().engines.iter().try_for_each(|&engine| {
        on_behalf_of(cma, size, engine.device(), |memory| trip(engine, memory))
    })
}

/// Checks `size` bytes for `device` while they are held, does `during` with them, and checks what
/// is left behind.
fn on_behalf_of(
    cma: &Cma,
    size: usize,
    device: &'static hal::dma::Device,
    during: impl FnOnce(&mut Coherent) -> Outcome,
) -> Outcome {
    let _maintained = Taken::as_coherent(device, false);
    let mut memory = match coherent::alloc(device, size, Gfp::KERNEL) {
        Err(DmaError::OutOfReach { .. }) => {
            return Err(Stop::Skipped("the area is out of the device's reach"));
        }
        memory => check_ok!(memory),
    };
    let va = memory.va();
    check!(COHERENT.contains(va), "{va} is outside the coherent window");
    let other = mapping::other_type(va, size, UNCACHED);
    check!(other.is_none(), "{other:?} is not {UNCACHED}");
    let Some(frames) = frames_of(cma, va, size) else {
        check!(false, "{va} is no run of the area");
        return Err(Stop::Failed);
    };
    let cached = in_direct_map(frames);
    check!(cached.is_none(), "{cached:?} is still in the direct map");
    let alias = mapping::alias_of(frames, va, va + size);
    check!(alias.is_none(), "a second mapping: {alias:?}");
    let wrong = recorded_otherwise(frames, UNCACHED);
    check!(wrong.is_none(), "{wrong:?} is recorded otherwise");
    let dirty = memory.as_slice().iter().position(|byte| *byte != 0);
    check!(dirty.is_none(), "byte {dirty:?} is not zero");
    let expected = check_ok!(device.coherent_addr(frames.start, size));
    check!(memory.dma_addr() == expected, "at {}", memory.dma_addr());
    during(&mut memory)?;
    let attr = translate::read_el1(va).attr().unwrap_or_default();
    drop(memory);

    let direct = phys_to_virt(frames.start);
    let other = mapping::other_type(direct, size, CACHED);
    check!(other.is_none(), "{other:?} did not come back as {CACHED}");
    let wrong = recorded_otherwise(frames, CACHED);
    check!(wrong.is_none(), "{wrong:?} is recorded otherwise");
    let left = translate::read_el1(va).page();
    check!(left.is_none(), "{va} still leads to {left:?}");
    let after = translate::read_el1(direct).attr().unwrap_or_default();
    diagnostic(format_args!(
        "structural: {size:#x} bytes for {}: PAR_EL1 attribute {attr:#04x}, after the free {after:#04x}",
        device.name()
    ));
    Ok(())
}

/// Lets the engine write the end of the memory and read it back; both times bytes are compared.
fn trip(engine: &'static dyn DmaEngine, memory: &mut Coherent) -> Outcome {
    let device = engine.device();
    let seed = machine().seed;
    let at = memory.len() - TRIP;
    let mut source = check_ok!(Object::zeroed(TRIP, reachable(device)));
    pattern::fill(&mut source, seed);
    {
        let mapped = check_ok!(map_slice::<ToDevice>(device, &mut source));
        let mut part = check_ok!(memory.part_mut(at, TRIP));
        check_ok!(copy(engine, &mapped, &mut part));
        mapped.unmap();
    }
    check_ok!(pattern::verify(&memory.as_slice()[at..], 0, TRIP, seed));
    pattern::fill(&mut memory.as_mut_slice()[at..], seed + 1);
    let mut back = check_ok!(Object::zeroed(TRIP, reachable(device)));
    let mut mapped = check_ok!(map_slice::<FromDevice>(device, &mut back));
    let part = check_ok!(memory.part(at, TRIP));
    check_ok!(copy(engine, &part, &mut mapped));
    mapped.unmap();
    check_ok!(pattern::verify(&back, 0, TRIP, seed + 1));
    Ok(())
}

/// What is found of memory that did not leave the direct map, and of memory that did not come back.
pub(super) fn planted() -> Outcome {
    let (cma, _) = area()?;
    let object = check_ok!(Object::alloc(PAGE_SIZE, Gfp::KERNEL));
    check!(
        frames_of(cma, object.va(), PAGE_SIZE).is_none(),
        "kmalloc memory passes as the area's"
    );
    let pa = hal::layout::virt_to_phys(object.va()).unwrap_or_default();
    let frames = PhysRange::new(pa, pa + PAGE_SIZE);
    check!(
        in_direct_map(frames) == Some(object.va()),
        "an alias in the direct map was not found"
    );
    check!(
        recorded_otherwise(frames, UNCACHED) == Some(pa.pfn()),
        "a cached frame passes as {UNCACHED}"
    );
    let held = check_ok!(coherent::alloc(
        &super::WIDE,
        SIZE.min(area()?.1),
        Gfp::KERNEL
    ));
    let Some(frames) = frames_of(cma, held.va(), held.len()) else {
        check!(false, "{} is no run of the area", held.va());
        return Err(Stop::Failed);
    };
    let direct = phys_to_virt(frames.start);
    check!(
        mapping::other_type(direct, held.len(), CACHED) == Some(direct)
            && recorded_otherwise(frames, CACHED) == Some(frames.start.pfn()),
        "memory that is held passes as given back"
    );
    Ok(())
}

pub(super) fn put_off() -> Outcome {
    let (_, size) = area()?;
    let runs = || coherent::info().map_or(0, |(_, runs)| runs.runs);
    super::settle()?;
    let before = runs();
    let _maintained = Taken::as_coherent(&super::WIDE, false);
    let memory = check_ok!(coherent::alloc(&super::WIDE, size, Gfp::KERNEL));
    check!(runs() == before + 1, "{} runs", runs());
    let counts = while_others_are_busy(move || {
        let irq = cpu::irq_save();
        drop(memory);
        let while_masked = runs();
        cpu::irq_restore(irq);
        let unmasked = runs();
        deferred::run_pending();
        [while_masked, unmasked, runs()]
    })?;
    check!(
        counts == [before + 1, before + 1, before],
        "{counts:?} runs with interrupts masked, after, and after what was put off"
    );
    Ok(())
}

/// A task gets what was freed with interrupts masked, whether or not it was given back by then.
pub(super) fn put_off_and_wanted() -> Outcome {
    /// Allocations that fill the largest area.
    const MOST: usize = 64;

    let (cma, size) = area()?;
    super::settle()?;
    let _maintained = Taken::as_coherent(&super::WIDE, false);
    let alloc = || coherent::alloc(&super::WIDE, size, Gfp::KERNEL);
    let memory = check_ok!(alloc());
    let mut rest = heapless::Vec::<Contiguous, MOST>::new();
    let count = (size / PAGE_SIZE) as u32;
    while let Ok(other) = Contiguous::alloc(cma, count, 0) {
        check!(rest.push(other).is_ok(), "the area has no end");
    }
    let irq = cpu::irq_save();
    drop(memory);
    cpu::irq_restore(irq);
    drop(check_ok!(alloc()));
    Ok(())
}
