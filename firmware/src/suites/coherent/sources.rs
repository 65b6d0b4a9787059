//! Which memory serves whom.

use super::{SNOOPING, WIDE, settle};
use crate::failslab::genuine;
use crate::handed::Taken;
use crate::machine::machine;
use crate::oom::OutOfMemory;
use crate::report::{Outcome, Stop, diagnostic};
use crate::suites::busy::while_others_are_busy;
use crate::suites::interrupt::InInterrupt;
use crate::suites::mapping;
use crate::{check, check_ok};
use hal::addr::PAGE_SIZE;
use hal::alloc::KVec;
use hal::arch::{cpu, translate};
use hal::deferred;
use hal::dma::coherent::{CHUNK_SIZE, MAX_ALLOCATION, MAX_CHUNKS, MAX_POOL_SIZE};
use hal::dma::{Coherent, DmaError, coherent};
use hal::layout::DIRECT_MAP;
use hal::mm::{self, AllocError, Gfp, Misuse, fault};
use hal::mmu::MemoryType;
use hal::smp;
use hal::sync::{Context, IrqLock};

/// Most blocks it takes to exhaust a pool, of any size and with all its chunks: for each power of
/// two of pages one more than it has.
const HELD: usize = 2 * (MAX_POOL_SIZE / MAX_ALLOCATION + MAX_CHUNKS) + 64;

/// What a handler holds, and why it got no more.
struct Haul {
    blocks: Option<KVec<Coherent>>,
    refusal: Option<DmaError>,
}

static TAKEN: IrqLock<Haul> = IrqLock::new(Haul {
    blocks: None,
    refusal: None,
});

/// Takes all there is, the largest block that is left each time, into room that is there already: an
/// idle core may add a chunk at any moment, and in single pages it would not fit there.
fn take_all() -> usize {
    let mut taken = TAKEN.lock();
    let Some(mut blocks) = taken.blocks.take() else {
        return 0;
    };
    let (mut size, mut bytes) = (MAX_ALLOCATION, 0);
    while !blocks.spare_capacity_mut().is_empty() {
        match coherent::alloc(&WIDE, size, Gfp::ATOMIC) {
            Ok(memory) => {
                bytes += memory.len();
                size = MAX_ALLOCATION;
                if blocks.push(memory, Gfp::NOWAIT).is_err() {
                    break;
                }
            }
            Err(_) if size > PAGE_SIZE => size /= 2,
            Err(error) => {
                taken.refusal = Some(error);
                break;
            }
        }
    }
    taken.blocks = Some(blocks);
    bytes / PAGE_SIZE
}

/// Pages that a handler gets until it is refused.
fn pages_for_a_handler() -> Result<(usize, Option<DmaError>), Stop> {
    static HANDLER: InInterrupt<usize> = InInterrupt::new(take_all);
    let room = check_ok!(KVec::with_capacity(HELD, Gfp::KERNEL));
    TAKEN.lock().blocks = Some(room);
    let taken = HANDLER.run();
    let refusal = TAKEN.lock().refusal.take();
    Ok((taken?, refusal))
}

fn release_all() {
    let blocks = TAKEN.lock().blocks.take();
    drop(blocks);
}

/// Whether `pages` is all of a pool that had `free`, or that and whole chunks.
fn is_all(pages: usize, free: usize) -> bool {
    let more = pages.checked_sub(free);
    more.is_some_and(|more| more.is_multiple_of(CHUNK_SIZE / PAGE_SIZE))
}

pub(super) fn exhausted_by_a_handler() -> Outcome {
    if fault::is_armed() {
        return Err(Stop::Skipped("another failure is injected"));
    }
    settle()?;
    let _maintained = Taken::as_coherent(&WIDE, false);
    let Some((before, _)) = coherent::info() else {
        return Err(Stop::Failed);
    };
    let taken = pages_for_a_handler();
    // What no idle core has begun is done by a call that may block; what one has, it ends before it
    // answers.
    deferred::run_pending();
    let idle = smp::run_on_all(|_| ());
    let during = coherent::info().map(|(pool, _)| pool);
    release_all();
    check_ok!(idle);
    let (pages, refusal) = taken?;
    check!(
        is_all(pages, before.free),
        "{pages} pages of a pool with {} free",
        before.free
    );
    check!(
        matches!(refusal, Some(DmaError::PoolExhausted { free: 0, .. })),
        "{refusal:?}"
    );
    let refills = during.map_or(0, |info| info.refills - before.refills);
    if mm::default_cma().is_some() {
        check!(refills > 0, "the pool was not refilled");
    }
    settle()?;
    let after = coherent::info().map(|(pool, _)| pool);
    check!(
        after.is_some_and(|info| info.free == before.free && info.chunks == 0),
        "{after:?}"
    );
    if let Some(info) = after {
        diagnostic(format_args!("{info}"));
    }
    if let Some((_, runs)) = coherent::info() {
        diagnostic(format_args!("{runs}"));
    }
    Ok(())
}

/// Nanoseconds in which an idle core has surely refilled the pool, on a host with more to do too.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Nanoseconds in which an idle core would most likely have done so.
const SHORT_NS: u64 = 20_000_000;

/// Whether the pool is refilled within `patience_ns` of a handler's exhausting it, though this core
/// does nothing that may block: only an idle one can have done it.
fn refilled_in_the_background(patience_ns: u64) -> Result<bool, Stop> {
    let refills = || coherent::info().map_or(0, |(pool, _)| pool.refills);
    let before = refills();
    let taken = pages_for_a_handler();
    let timer = &machine().timer;
    let start = timer.now_ns();
    while refills() == before && timer.now_ns() - start < patience_ns {
        cpu::wait_for_event();
    }
    let refilled = refills() != before;
    release_all();
    let (pages, _) = taken?;
    check!(pages > 0, "the pool was empty");
    Ok(refilled)
}

/// What the tests of refills need: a machine at rest, with memory to refill the pool from.
fn ready_to_refill() -> Outcome {
    if fault::is_armed() {
        return Err(Stop::Skipped("another failure is injected"));
    }
    if mm::default_cma().is_none() {
        return Err(Stop::Skipped("no contiguous memory area"));
    }
    settle()
}

pub(super) fn refilled_by_an_idle_core() -> Outcome {
    ready_to_refill()?;
    if smp::online().count() == 1 {
        return Err(Stop::Skipped("one core is never idle"));
    }
    let _maintained = Taken::as_coherent(&WIDE, false);
    let refilled = refilled_in_the_background(PATIENCE_NS);
    settle()?;
    check!(refilled?, "no idle core refilled the pool");
    Ok(())
}

/// Where no core is idle nothing is refilled.
pub(super) fn no_core_is_idle() -> Outcome {
    ready_to_refill()?;
    let _maintained = Taken::as_coherent(&WIDE, false);
    let refilled = while_others_are_busy(|| refilled_in_the_background(SHORT_NS));
    settle()?;
    check!(!refilled??, "the pool was refilled by nobody");
    Ok(())
}

/// A page that somebody keeps is missed.
pub(super) fn exhausted_planted() -> Outcome {
    if fault::is_armed() {
        return Err(Stop::Skipped("another failure is injected"));
    }
    settle()?;
    let _maintained = Taken::as_coherent(&WIDE, false);
    let free = machine().pool.free_pages();
    let kept = check_ok!(coherent::alloc(&WIDE, PAGE_SIZE, Gfp::ATOMIC));
    let taken = pages_for_a_handler();
    release_all();
    drop(kept);
    let (pages, _) = taken?;
    check!(!is_all(pages, free), "{pages} pages pass as all of {free}");
    settle()
}

pub(super) fn reserve() -> Outcome {
    if mm::default_cma().is_none() {
        return Err(Stop::Skipped("no contiguous memory area"));
    }
    settle()?;
    let _maintained = Taken::as_coherent(&WIDE, false);
    let pool = machine().pool;
    let pages = pool.frames().size() as usize / PAGE_SIZE;
    let mut held = heapless::Vec::<Coherent, 64>::new();
    let runs = || coherent::info().map_or(0, |(_, runs)| runs.runs);
    let before = runs();
    while runs() == before {
        let memory = check_ok!(coherent::alloc(&WIDE, 1 << 20, Gfp::KERNEL));
        check!(held.push(memory).is_ok(), "the pool has no end");
    }
    let left = pool.free_pages();
    check!(
        left >= pages / 2 && left < pages / 2 + (1 << 20) / PAGE_SIZE,
        "{left} of {pages} pages are left to handlers"
    );
    let atomic = genuine(|| coherent::alloc(&WIDE, PAGE_SIZE, Gfp::ATOMIC))?;
    check!(atomic.is_ok(), "{:?}", atomic.map(drop));
    check!(
        pool.free_pages() + 1 == left || pool.free_pages() == left,
        "no page of the pool"
    );
    drop(held);
    settle()
}

/// The first page that is not cached memory of the direct map.
fn is_cached(memory: &Coherent) -> bool {
    let (va, len) = (memory.va(), memory.len());
    DIRECT_MAP.contains(va) && mapping::other_type(va, len, MemoryType::NormalWriteBack).is_none()
}

pub(super) fn cached() -> Outcome {
    let _snoops = Taken::as_coherent(&SNOOPING, true);
    for (size, gfp) in [
        (PAGE_SIZE, Gfp::ATOMIC),
        (5 * PAGE_SIZE, Gfp::KERNEL),
        (64 << 10, Gfp::KERNEL | Gfp::DMA32),
    ] {
        let mut memory = check_ok!(coherent::alloc(&SNOOPING, size, gfp));
        check!(is_cached(&memory), "{} is not cached", memory.va());
        let block = size.next_power_of_two();
        check!(
            memory.va().is_aligned(block) && memory.dma_addr().is_aligned(block),
            "{size:#x} bytes at {}",
            memory.va()
        );
        check!(memory.as_slice().iter().all(|byte| *byte == 0), "not zero");
        let attr = translate::read_el1(memory.va()).attr().unwrap_or_default();
        diagnostic(format_args!(
            "{size:#x} bytes: PAR_EL1 attribute {attr:#04x}"
        ));
        memory.as_mut_slice().fill(0xA5);
    }
    Ok(())
}

pub(super) fn cached_planted() -> Outcome {
    let _maintained = Taken::as_coherent(&WIDE, false);
    let memory = check_ok!(coherent::alloc(&WIDE, PAGE_SIZE, Gfp::KERNEL));
    check!(!is_cached(&memory), "non-cacheable memory passes as cached");
    Ok(())
}

pub(super) fn refused() -> Outcome {
    let _maintained = Taken::as_coherent(&WIDE, false);
    let counted = Misuse::CoherentCompound.count();
    let gfp = Gfp::KERNEL | Gfp::COMP | Gfp::NOWARN;
    let compound = coherent::alloc(&WIDE, PAGE_SIZE, gfp);
    check!(
        matches!(compound, Err(DmaError::Compound(flags)) if flags == gfp),
        "{compound:?}"
    );
    check!(
        Misuse::CoherentCompound.count() == counted + 1,
        "it was not counted"
    );
    for gfp in [Gfp::KERNEL, Gfp::ATOMIC] {
        let nothing = coherent::alloc(&WIDE, 0, gfp);
        check!(matches!(nothing, Err(DmaError::ZeroLength)), "{nothing:?}");
        let narrow = genuine(|| coherent::alloc(&super::NARROW, PAGE_SIZE, gfp))?;
        check!(
            matches!(narrow, Err(DmaError::OutOfReach { .. })),
            "{narrow:?}"
        );
        // The mask decides, whatever zone the flags name.
        for zone in [Gfp::DMA, Gfp::DMA32, Gfp::HIGHMEM] {
            drop(check_ok!(coherent::alloc(&WIDE, PAGE_SIZE, gfp | zone)));
        }
    }
    let lock = IrqLock::new(());
    let held = lock.lock();
    let blocking = coherent::alloc(&WIDE, PAGE_SIZE, Gfp::KERNEL | Gfp::NOWARN);
    let atomic = coherent::alloc(&WIDE, PAGE_SIZE, Gfp::ATOMIC);
    drop(held);
    let locked = matches!(
        blocking,
        Err(DmaError::NoMemory(AllocError::Context {
            context: Context::LockHeld,
            ..
        }))
    );
    check!(locked, "{blocking:?}");
    drop(check_ok!(atomic));
    let endless = genuine(|| coherent::alloc(&WIDE, usize::MAX, Gfp::KERNEL))?;
    check!(
        endless
            .as_ref()
            .is_err_and(|error| !error.is_out_of_memory()),
        "{endless:?}"
    );
    if let Err(error) = endless {
        diagnostic(format_args!("{error}"));
    }
    Ok(())
}
