//! Coherent memory: type, place, content, refusals; where it comes from.

mod contiguous;
mod ring;
mod sources;

use super::phantom::{NARROW, SNOOPING, WIDE};
use super::{mapping, probe};
use crate::machine::machine;
use crate::memory::{self, Object};
use crate::report::{Outcome, Stop, Suite, diagnostic};
use crate::{check, check_ok, check_served};
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use hal::arch::translate;
use hal::dma::coherent::{self, MAX_ALLOCATION};
use hal::dma::{Coherent, Device, DmaError};
use hal::layout::{self, COHERENT, DIRECT_MAP};
use hal::mm::{self, FrameError, Gfp, ObjectError};
use hal::mmu::MemoryType;
use hal::smp;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "coherent",
    tests: tests! {
        both_addresses_are_naturally_aligned: alignment,
        both_addresses_are_naturally_aligned_planted: alignment_planted,
        memory_is_normal_non_cacheable: memory_type,
        memory_is_normal_non_cacheable_planted: memory_type_planted,
        frames_are_absent_from_the_direct_map: absent,
        frames_are_absent_from_the_direct_map_planted: absent_planted,
        frames_have_their_type_recorded: recorded,
        memory_is_zero_after_reuse: zeroed,
        unaligned_accesses_are_legal: unaligned,
        exhaustion_is_named_and_passes: exhaustion,
        a_device_that_cannot_reach_the_pool_is_refused: out_of_reach,
        frees_by_another_name_are_refused: bad_frees,
        cores_allocate_at_once: all_cores,
        a_run_leaves_the_direct_map_and_comes_back: contiguous::round_trip,
        a_run_leaves_the_direct_map_and_comes_back_planted: contiguous::planted,
        a_run_freed_with_interrupts_masked_comes_back_later: contiguous::put_off,
        what_was_freed_with_interrupts_masked_is_memory_still: contiguous::put_off_and_wanted,
        handlers_exhaust_the_pool_and_it_refills: sources::exhausted_by_a_handler,
        handlers_exhaust_the_pool_and_it_refills_planted: sources::exhausted_planted,
        an_idle_core_refills_the_pool: sources::refilled_by_an_idle_core,
        an_idle_core_refills_the_pool_planted: sources::no_core_is_idle,
        tasks_leave_the_reserve_to_handlers: sources::reserve,
        devices_that_snoop_get_cached_memory: sources::cached,
        devices_that_snoop_get_cached_memory_planted: sources::cached_planted,
        wrong_flags_and_contexts_are_named: sources::refused,
        slots_that_an_engine_gives_back_are_the_cpus: ring::given_back,
        slots_that_an_engine_gives_back_are_the_cpus_planted: ring::given_back_planted,
    },
};

/// An engine's device, or one that reaches everything on a machine without engines.
fn device() -> &'static Device {
    machine()
        .engines
        .first()
        .map_or(&WIDE, |engine| engine.device())
}

/// Waits until no core refills the pool, and gives back what it took in.
fn settle() -> Outcome {
    check_ok!(smp::run_on_all(|_| ()));
    coherent::drain();
    Ok(())
}

/// The frames behind an allocation, by where the pool is mapped.
fn frames_of(memory: &Coherent) -> Option<PhysRange> {
    let pool = machine().pool;
    let offset = memory.va().checked_sub(pool.cpu_base())?;
    PhysRange::from_size(pool.frames().start + offset, memory.len() as u64)
}

/// Sizes from a byte to the largest allocation, as the pool allows.
fn sizes() -> impl Iterator<Item = usize> {
    let free = machine().pool.free_pages() * PAGE_SIZE;
    let pages = [1, 4095, 4096, 4097, 3 * PAGE_SIZE, 64 << 10, (64 << 10) + 1];
    let large = [1 << 20, 2 << 20, MAX_ALLOCATION];
    pages
        .into_iter()
        .chain(large)
        .filter(move |size| *size <= free)
}

/// Whether an address is less aligned than the smallest power of two of pages that holds `size`.
fn misaligned(address: u64, size: usize) -> bool {
    let block = size.div_ceil(PAGE_SIZE).next_power_of_two() * PAGE_SIZE;
    !address.is_multiple_of(block as u64)
}

fn alignment() -> Outcome {
    let mut count = 0;
    for size in sizes() {
        let memory = check_ok!(machine().pool.alloc(device(), size));
        let (va, addr) = (memory.va(), memory.dma_addr());
        check!(!misaligned(va.get() as u64, size), "{size} bytes at {va}");
        check!(
            !misaligned(addr.get(), size),
            "{size} bytes at device address {addr}"
        );
        let frames = frames_of(&memory);
        let start = frames.map_or(PhysAddr::new(0), |frames| frames.start);
        let at = translate::read_el1(va).page();
        check!(at == Some(start), "{va} is {at:?}, the pool says {start}");
        let expected = check_ok!(device().dma_addr(start, memory.len()));
        check!(addr == expected, "{start} became device address {addr}");
        check!(COHERENT.contains(va), "{va} is outside the coherent window");
        count += 1;
    }
    diagnostic(format_args!("{count} sizes for device {}", device().name()));
    Ok(())
}

fn alignment_planted() -> Outcome {
    let memory = check_ok!(machine().pool.alloc(device(), 2 * PAGE_SIZE));
    let second = memory.va() + PAGE_SIZE;
    check!(
        misaligned(second.get() as u64, 2 * PAGE_SIZE),
        "{second} passes"
    );
    Ok(())
}

fn memory_type() -> Outcome {
    let wanted = MemoryType::NormalNonCacheable;
    let pool = machine().pool;
    let size = pool.frames().size() as usize;
    let other = mapping::other_type(pool.cpu_base(), size, wanted);
    check!(other.is_none(), "{other:?} is not {wanted}");
    let par = translate::read_el1(pool.cpu_base());
    diagnostic(format_args!(
        "structural: PAR_EL1 attribute {:#04x} over {} pages",
        par.attr().unwrap_or_default(),
        size / PAGE_SIZE
    ));
    Ok(())
}

fn memory_type_planted() -> Outcome {
    let object = check_ok!(Object::alloc(PAGE_SIZE, Gfp::KERNEL));
    let wanted = MemoryType::NormalNonCacheable;
    let found = mapping::other_type(object.va(), object.len(), wanted);
    check!(
        found == Some(object.va()),
        "cached memory passes as {wanted}"
    );
    Ok(())
}

fn absent() -> Outcome {
    let pool = machine().pool;
    let (frames, va) = (pool.frames(), pool.cpu_base());
    let alias = mapping::alias_of(frames, va, va + frames.size() as usize);
    check!(alias.is_none(), "a second mapping of the pool: {alias:?}");
    let pages = (frames.start.get()..frames.end.get()).step_by(PAGE_SIZE);
    for pa in pages.map(PhysAddr::new) {
        let at = translate::read_el1(layout::phys_to_virt(pa));
        check!(at.page().is_none(), "{pa} is in the direct map");
    }
    diagnostic(format_args!(
        "structural: no entry of the tree maps {frames} twice"
    ));
    Ok(())
}

fn absent_planted() -> Outcome {
    let object = check_ok!(Object::alloc(PAGE_SIZE, Gfp::KERNEL));
    let pa = layout::virt_to_phys(object.va()).unwrap_or_default();
    let frames = PhysRange::new(pa, pa + PAGE_SIZE);
    let pool = machine().pool;
    let alias = mapping::alias_of(frames, pool.cpu_base(), pool.cpu_base() + PAGE_SIZE);
    let found = alias.is_some_and(|leaf| DIRECT_MAP.contains(leaf.va));
    check!(found, "the direct map's entry for {pa} was not found");
    Ok(())
}

fn recorded() -> Outcome {
    let Some(allocator) = mm::pages() else {
        return Err(Stop::Failed);
    };
    let frames = machine().pool.frames();
    let wanted = MemoryType::NormalNonCacheable;
    for pfn in frames.start.pfn().get()..frames.end.pfn().get() {
        let has = allocator.frames().memory_type(Pfn::new(pfn));
        check!(has == Ok(wanted), "frame {pfn:#x} is recorded as {has:?}");
    }
    let cached = MemoryType::NormalWriteBack;
    let second = allocator
        .frames()
        .check_memory_type(frames.start.pfn(), cached);
    let Err(conflict) = second else {
        check!(false, "the pool's first frame may be mapped as {cached}");
        return Ok(());
    };
    diagnostic(format_args!("{conflict}"));
    Ok(())
}

fn zeroed() -> Outcome {
    const SIZE: usize = 5 * PAGE_SIZE;
    let mut first = check_ok!(machine().pool.alloc(device(), SIZE));
    let va = first.va();
    first.as_mut_slice().fill(0xA5);
    drop(first);
    let mut again = check_ok!(machine().pool.alloc(device(), SIZE));
    check!(again.va() == va, "the dirtied pages did not come back");
    let dirty = again.as_slice().iter().position(|byte| *byte != 0);
    check!(dirty.is_none(), "byte {dirty:?} is not zero");
    // The plant: one byte, so that the scan above is known to look at all of them.
    again.as_mut_slice()[SIZE - 1] = 1;
    let found = again.as_slice().iter().position(|byte| *byte != 0);
    check!(found == Some(SIZE - 1), "a dirty byte was not found");
    Ok(())
}

fn unaligned() -> Outcome {
    let mut memory = check_ok!(machine().pool.alloc(device(), PAGE_SIZE));
    for offset in 0..=64 {
        let value = 0x0123_4567_89AB_CDEF ^ offset as u64;
        let read = probe::store_and_load(&mut memory, offset, value);
        check!(
            read == Some(value),
            "offset {offset}: stored {value:#x}, read {read:x?}"
        );
    }
    if smp::online().count() == 1 {
        diagnostic(format_args!(
            "one core: QEMU would allow the access on any memory type"
        ));
    }
    Ok(())
}

fn exhaustion() -> Outcome {
    const HELD: usize = 64;
    settle()?;
    let pool = machine().pool;
    let before = pool.free_pages();
    let mut held = heapless::Vec::<Coherent, HELD>::new();
    let mut size = MAX_ALLOCATION;
    let refusal = loop {
        match pool.alloc(device(), size) {
            Ok(memory) => {
                check!(held.push(memory).is_ok(), "more blocks than the pool has");
                // An idle core may have brought a chunk meanwhile: take it in large pieces too.
                size = MAX_ALLOCATION;
            }
            Err(error) if size == PAGE_SIZE => break error,
            Err(_) => size /= 2,
        }
    };
    diagnostic(format_args!("{refusal}"));
    let named = DmaError::PoolExhausted {
        size: PAGE_SIZE,
        free: 0,
    };
    check!(refusal == named, "{refusal}");
    drop(held);
    settle()?;
    check!(
        pool.free_pages() == before,
        "{} of {before} pages came back",
        pool.free_pages()
    );
    let too_large = pool.alloc(device(), MAX_ALLOCATION + 1);
    check!(
        matches!(too_large, Err(DmaError::PoolExhausted { .. })),
        "{too_large:?}"
    );
    check!(
        matches!(pool.alloc(device(), 0), Err(DmaError::ZeroLength)),
        "zero bytes"
    );
    Ok(())
}

fn out_of_reach() -> Outcome {
    let before = machine().pool.free_pages();
    let refused = machine().pool.alloc(&NARROW, PAGE_SIZE);
    let Err(error) = refused else {
        check!(
            false,
            "a device with a mask of 12 bits was given {refused:?}"
        );
        return Ok(());
    };
    diagnostic(format_args!("{error}"));
    check!(matches!(error, DmaError::OutOfReach { .. }), "{error}");
    check!(
        machine().pool.free_pages() == before,
        "the refusal kept pages"
    );
    Ok(())
}

fn bad_frees() -> Outcome {
    let memory = check_ok!(machine().pool.alloc(device(), PAGE_SIZE));
    let frame = frames_of(&memory)
        .map_or(PhysAddr::new(0), |frames| frames.start)
        .pfn();
    let as_page = memory::free_foreign(frame);
    check!(
        matches!(
            as_page,
            Some(Err(mm::FreeError::Frame(FrameError::SetAside { .. })))
        ),
        "freed as a page: {as_page:?}"
    );
    let as_object = memory::free_no_object(memory.va());
    check!(
        matches!(as_object, Some(Err(ObjectError::NotDirectMap(_)))),
        "freed as an object: {as_object:?}"
    );
    let as_area = memory::free_no_area(memory.va());
    check!(
        matches!(as_area, Some(Err(mm::VmallocError::NotAnArea(_)))),
        "freed as an area: {as_area:?}"
    );
    diagnostic(format_args!(
        "a second free does not compile: dropping the allocation frees it"
    ));
    Ok(())
}

fn all_cores() -> Outcome {
    const ROUNDS: usize = 40;
    settle()?;
    let before = machine().pool.free_pages();
    let (refused, shared) = (AtomicUsize::new(0), AtomicUsize::new(0));
    check_ok!(smp::run_on_all(|core| {
        for round in 0..ROUNDS {
            let Ok(mut memory) = machine().pool.alloc(device(), PAGE_SIZE << (round % 3)) else {
                refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let mine = core as u8 + 1;
            memory.as_mut_slice().fill(mine);
            let foreign = memory.as_slice().iter().any(|byte| *byte != mine);
            shared.fetch_add(usize::from(foreign), Ordering::Relaxed);
        }
    }));
    let (refused, shared) = (refused.into_inner(), shared.into_inner());
    check!(shared == 0, "{shared} allocations had two owners");
    settle()?;
    check!(machine().pool.free_pages() == before, "pages are missing");
    check_served!(refused);
    Ok(())
}
