//! `dma_pool`: small blocks of coherent memory.

use super::dma::each_engine;
use super::interrupt::InInterrupt;
use super::phantom::WIDE;
use crate::failslab::lightly;
use crate::handed::Taken;
use crate::machine::machine;
use crate::memory::{Kept, freed_as_another, freed_twice};
use crate::report::{Outcome, Stop, Suite, diagnostic};
use crate::suites::mapping;
use crate::{check, check_ok, check_served, pattern};
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::addr::PAGE_SIZE;
use hal::alloc::KVec;
use hal::dma::engine::copy;
use hal::dma::pool::PoolCreateError;
use hal::dma::{Coherent, DmaEngine, DmaPool, DmaPoolError, PoolBlock, coherent};
use hal::mm::Gfp;
use hal::mmu::MemoryType;
use hal::smp;
use hal::sync::IrqLock;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "pool",
    tests: tests! {
        blocks_are_aligned_and_cross_no_boundary: layout,
        blocks_are_aligned_and_cross_no_boundary_planted: layout_planted,
        wrong_wishes_are_refused_by_name: wishes,
        blocks_are_not_cacheable_and_zero_when_asked: content,
        blocks_are_not_cacheable_and_zero_when_asked_planted: content_planted,
        double_and_foreign_frees_are_refused_by_name: wrong_frees,
        a_busy_pool_is_not_destroyed: busy,
        cores_take_blocks_at_once: all_cores,
        a_handler_takes_and_frees_blocks: in_a_handler,
        engines_copy_from_and_to_blocks: copied,
        engines_copy_from_and_to_blocks_planted: copied_planted,
    },
};

/// A pool of the tests, of blocks of `size` bytes.
fn pool(size: usize, align: usize, boundary: usize) -> Result<DmaPool, Stop> {
    Ok(check_ok!(DmaPool::create(
        "test", &WIDE, size, align, boundary
    )))
}

/// Whether any of the blocks of `len` bytes that start at `starts`, which are sorted, is misaligned,
/// crosses a multiple of `boundary` or overlaps the next.
fn misplaced(starts: &[u64], len: u64, align: u64, boundary: u64) -> Option<u64> {
    let after = |index: usize| starts.get(index + 1).copied().unwrap_or(u64::MAX);
    let mut placed = starts.iter().enumerate();
    let wrong = |&(index, start): &(usize, &u64)| {
        let crosses = start / boundary != (start + len - 1) / boundary;
        !start.is_multiple_of(align) || crosses || after(index) - start < len
    };
    placed.find(wrong).map(|(_, start)| *start)
}

fn layout() -> Outcome {
    let blocks = lightly(200);
    for (size, align, boundary) in [(40, 8, 0), (100, 64, 256), (48, 16, 64), (3000, 16, 0)] {
        let pool = pool(size, align, boundary)?;
        let mut held = check_ok!(KVec::with_capacity(blocks, Gfp::KERNEL));
        let mut starts = check_ok!(KVec::with_capacity(blocks, Gfp::KERNEL));
        for _ in 0..blocks {
            let block = check_ok!(pool.alloc(Gfp::KERNEL));
            check_ok!(starts.push(block.dma_addr().get(), Gfp::KERNEL));
            check_ok!(held.push(block, Gfp::KERNEL));
        }
        starts.sort_unstable();
        let limit = if boundary == 0 { PAGE_SIZE } else { boundary };
        let len = pool.block_size() as u64;
        let wrong = misplaced(&starts, len, align as u64, limit as u64);
        check!(wrong.is_none(), "{size} bytes: {wrong:#x?}");
        diagnostic(format_args!("{}", pool.info()));
        drop(held);
        check!(pool.info().live == 0, "{}", pool.info());
        check!(pool.destroy().is_ok(), "an empty pool is busy");
    }
    Ok(())
}

fn layout_planted() -> Outcome {
    let good = [0x1000, 0x1040, 0x1080];
    check!(misplaced(&good, 64, 64, 128).is_none(), "right is refused");
    for (starts, align, boundary) in [
        ([0x1000, 0x1020, 0x1080], 32, 256),
        ([0x1000, 0x1060, 0x10C0], 32, 128),
        ([0x1000, 0x1048, 0x1100], 64, 4096),
    ] {
        check!(
            misplaced(&starts, 64, align, boundary).is_some(),
            "{starts:#x?} passes"
        );
    }
    Ok(())
}

fn wishes() -> Outcome {
    let create = |size, align, boundary| DmaPool::create("test", &WIDE, size, align, boundary);
    let large = i32::MAX as usize + 1;
    let (boundary, block) = (32, 64);
    let refusals = [
        (create(0, 8, 0), PoolCreateError::ZeroSize),
        (create(large, 8, 0), PoolCreateError::TooLarge(large)),
        (create(64, 48, 0), PoolCreateError::Alignment(48)),
        (
            create(64, 8, 32),
            PoolCreateError::Boundary { boundary, block },
        ),
    ];
    for (refused, named) in refusals {
        let Err(error) = refused else {
            check!(false, "no refusal: {named}");
            continue;
        };
        check!(error == named, "{error}, not {named}");
        diagnostic(format_args!("{error}"));
    }
    Ok(())
}

/// Whether a block is not cacheable and holds zeros only.
fn is_fresh(block: &PoolBlock<'_>) -> bool {
    let va = hal::addr::VirtAddr::from_ptr(block.as_ptr().as_ptr());
    let page = va.align_down(PAGE_SIZE);
    let wanted = MemoryType::NormalNonCacheable;
    mapping::other_type(page, PAGE_SIZE, wanted).is_none()
        && block.as_slice().iter().all(|byte| *byte == 0)
}

fn content() -> Outcome {
    let _maintained = Taken::as_coherent(&WIDE, false);
    let pool = pool(64, 64, 0)?;
    for _ in 0..2 {
        let mut block = check_ok!(pool.alloc(Gfp::ATOMIC | Gfp::ZERO));
        check!(is_fresh(&block), "the block is cached or not zero");
        block.as_mut_slice().fill(0xA5);
    }
    Ok(())
}

fn content_planted() -> Outcome {
    let _maintained = Taken::as_coherent(&WIDE, false);
    let pool = pool(64, 64, 0)?;
    let mut block = check_ok!(pool.alloc(Gfp::ATOMIC | Gfp::ZERO));
    block.as_mut_slice()[63] = 1;
    check!(!is_fresh(&block), "a byte was not found");
    Ok(())
}

fn wrong_frees() -> Outcome {
    let pool = pool(64, 64, 0)?;
    let held = check_ok!(pool.alloc(Gfp::KERNEL));
    let addr = held.dma_addr();
    let neighbour = freed_as_another(&pool, &held, 64);
    check!(
        matches!(neighbour, Err(DmaPoolError::OtherAddress { .. })),
        "{neighbour:?}"
    );
    for offset in [8, 1 << 32] {
        let foreign = freed_as_another(&pool, &held, offset);
        check!(
            matches!(foreign, Err(DmaPoolError::Foreign { .. })),
            "{offset:#x}: {foreign:?}"
        );
    }
    check!(pool.info().live == 1, "{}", pool.info());
    let (first, second) = freed_twice(&pool, held);
    check!(first.is_ok(), "{first:?}");
    let named = DmaPoolError::AlreadyFree { pool: "test", addr };
    check!(second == Err(named), "{second:?}");
    diagnostic(format_args!("{named}"));
    check!(pool.info().live == 0, "{}", pool.info());
    Ok(())
}

fn busy() -> Outcome {
    let pool = pool(64, 64, 0)?;
    let kept = Kept::of(check_ok!(pool.alloc(Gfp::KERNEL)));
    let Err(busy) = pool.destroy() else {
        check!(false, "a pool with a block handed out was destroyed");
        return Ok(());
    };
    diagnostic(format_args!("{busy}"));
    check!(
        (busy.live, busy.first) == (1, kept.block().addr),
        "{} blocks from {}",
        busy.live,
        busy.first
    );
    let mut listed = heapless::Vec::<_, 2>::new();
    busy.pool.for_each_live(|block| {
        // More than one is one too many.
        let _ = listed.push(block);
    });
    check!(listed.as_slice() == [kept.block()], "{listed:?}");
    check_ok!(kept.free(&busy.pool));
    check!(busy.pool.destroy().is_ok(), "still busy");
    Ok(())
}

fn all_cores() -> Outcome {
    let rounds = lightly(200);
    let pool = pool(96, 32, 0)?;
    let (refused, shared) = (AtomicUsize::new(0), AtomicUsize::new(0));
    check_ok!(smp::run_on_all(|core| {
        let mine = core as u8 + 1;
        for _ in 0..rounds {
            let mut held = heapless::Vec::<_, 3>::new();
            while !held.is_full() {
                let Ok(mut block) = pool.alloc(Gfp::ATOMIC) else {
                    refused.fetch_add(1, Ordering::Relaxed);
                    break;
                };
                block.as_mut_slice().fill(mine);
                let _ = held.push(block);
            }
            let foreign = held.iter().flat_map(|block| block.as_slice());
            let foreign = foreign.filter(|byte| **byte != mine).count();
            shared.fetch_add(foreign, Ordering::Relaxed);
        }
    }));
    let (refused, shared) = (refused.into_inner(), shared.into_inner());
    check!(shared == 0, "{shared} bytes had two owners");
    check!(pool.info().live == 0, "{}", pool.info());
    check_served!(refused);
    Ok(())
}

/// The pool that a handler takes blocks of.
static OF_A_HANDLER: IrqLock<Option<DmaPool>> = IrqLock::new(None);

/// Bytes in one of them.
const BLOCK: usize = 1024;

/// Blocks the handler takes: a page of them and one more, so that the pool grows in the handler.
const BLOCKS: usize = PAGE_SIZE / BLOCK + 1;

/// Takes that many blocks; how many were held at once.
fn take_blocks() -> Result<usize, Stop> {
    let pool = OF_A_HANDLER.lock();
    let pool = pool.as_ref().ok_or(Stop::Failed)?;
    let mut held = heapless::Vec::<_, BLOCKS>::new();
    while !held.is_full() {
        let block = check_ok!(pool.alloc(Gfp::ATOMIC | Gfp::ZERO));
        let mut bytes = block.as_slice().iter();
        check!(bytes.all(|byte| *byte == 0), "not zero");
        let _ = held.push(block);
    }
    Ok(pool.info().live)
}

fn in_a_handler() -> Outcome {
    static HANDLER: InInterrupt<Result<usize, Stop>> = InInterrupt::new(take_blocks);
    *OF_A_HANDLER.lock() = Some(pool(BLOCK, 64, 0)?);
    let live = HANDLER.run();
    let pool = OF_A_HANDLER.lock().take().ok_or(Stop::Failed)?;
    let live = live??;
    check!(live == BLOCKS, "{live} blocks were held at once");
    check!(pool.info().live == 0, "{}", pool.info());
    check!(pool.destroy().is_ok(), "an empty pool is busy");
    Ok(())
}

/// Bytes in a block that an engine copies, and where in coherent memory they go.
const COPIED: usize = 96;
const AT: usize = 160;

/// Four blocks in a row, and a page of coherent memory.
struct Blocks<'a> {
    /// The first is read, the third written; the others are their neighbours.
    blocks: [PoolBlock<'a>; 4],
    page: Coherent,
}

impl<'a> Blocks<'a> {
    fn new(engine: &'static dyn DmaEngine, pool: &'a DmaPool) -> Result<Self, Stop> {
        let block = || pool.alloc(Gfp::KERNEL);
        let mut blocks = [
            check_ok!(block()),
            check_ok!(block()),
            check_ok!(block()),
            check_ok!(block()),
        ];
        for block in &mut blocks {
            block.as_mut_slice().fill(pattern::CANARY);
        }
        pattern::fill(blocks[0].as_mut_slice(), machine().seed);
        blocks[2].as_mut_slice().fill(pattern::POISON);
        let mut page = check_ok!(coherent::alloc(engine.device(), PAGE_SIZE, Gfp::KERNEL));
        pattern::lay_out(page.as_mut_slice(), AT, COPIED);
        Ok(Self { blocks, page })
    }

    /// Whether the first block's bytes are in the third, and nothing beside it has changed.
    fn has_arrived(&self) -> bool {
        let [_, before, seen, after] = &self.blocks;
        let is_canary = |block: &PoolBlock<'_>| {
            let mut bytes = block.as_slice().iter();
            bytes.all(|byte| *byte == pattern::CANARY)
        };
        let verified = pattern::verify(seen.as_slice(), 0, COPIED, machine().seed);
        verified.is_ok() && is_canary(before) && is_canary(after)
    }
}

fn copied() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let pool = check_ok!(DmaPool::create("test", device, COPIED, 32, 0));
        let mut taken = Blocks::new(engine, &pool)?;
        let [source, _, seen, _] = &mut taken.blocks;
        check_ok!(copy(engine, source, seen));
        check!(taken.has_arrived(), "{}: between blocks", device.name());
        let mut part = check_ok!(taken.page.part_mut(AT, COPIED));
        check_ok!(copy(engine, &taken.blocks[2], &mut part));
        check_ok!(pattern::verify(
            taken.page.as_slice(),
            AT,
            COPIED,
            machine().seed
        ));
        diagnostic(format_args!(
            "engine={} {} observed=data",
            device.name(),
            pool.info()
        ));
        Ok(())
    })
}

/// A block that an engine writes beside the one it should have.
fn copied_planted() -> Outcome {
    each_engine(|engine| {
        let pool = check_ok!(DmaPool::create("test", engine.device(), COPIED, 32, 0));
        let mut taken = Blocks::new(engine, &pool)?;
        check!(!taken.has_arrived(), "a copy that never ran passes for one");
        let [source, _, seen, after] = &mut taken.blocks;
        seen.as_mut_slice().copy_from_slice(source.as_slice());
        check_ok!(copy(engine, source, after));
        check!(!taken.has_arrived(), "a neighbour was not found");
        Ok(())
    })
}
