use super::*;
use crate::addr::{PAGE_SIZE, Pfn};
use crate::arch::trace::{Op, record_during};
use crate::layout::{COHERENT, VMALLOC};
use crate::mmu::kernel::scratch_mapper;
use crate::mmu::{KernelMapper, MemoryType, Run, Stale};

const WB_RW: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);
const NC_RW: Attributes = Attributes::new(MemoryType::NormalNonCacheable, Access::ReadWrite);
const PA: PhysAddr = PhysAddr::new(0x8000_0000);
const VA: VirtAddr = VMALLOC.base;
const BLOCK: usize = 2 << 20;
const LINE: usize = 64;

fn frames(pa: PhysAddr, size: usize) -> PhysRange {
    PhysRange::from_size(pa, size as u64).unwrap()
}

/// The frames are never accessed, and each test has its tree to itself: that is all the safety
/// contracts of the calls below ask for.
fn map(
    mapper: &mut crate::mmu::KernelMapper,
    va: VirtAddr,
    pa: PhysAddr,
    size: usize,
) -> Result<(), MapError> {
    // SAFETY: see above.
    unsafe { mapper.map(va, frames(pa, size), WB_RW, Level::L1) }
}

fn unmap(
    mapper: &mut crate::mmu::KernelMapper,
    va: VirtAddr,
    size: usize,
) -> Result<Flushed, MapError> {
    // SAFETY: see `map`.
    unsafe { mapper.unmap(va, size) }
}

fn lines(va: VirtAddr, size: usize) -> impl Iterator<Item = Op> {
    (0..size)
        .step_by(LINE)
        .map(move |offset| Op::CleanInvalidate(va + offset))
}

#[test]
fn a_new_mapping_pays_for_one_pair_of_barriers() {
    let mut mapper = scratch_mapper(2);
    let (result, ops) = record_during(|| map(&mut mapper, VA, PA, 5 * PAGE_SIZE));
    assert_eq!(result, Ok(()));
    assert_eq!(ops, [Op::DsbIshst, Op::Isb]);
}

#[test]
fn removal_invalidates_every_page_between_its_barriers() {
    let mut mapper = scratch_mapper(2);
    map(&mut mapper, VA, PA, 3 * PAGE_SIZE).unwrap();
    let (result, ops) = record_during(|| unmap(&mut mapper, VA, 3 * PAGE_SIZE));
    assert!(result.is_ok());
    assert_eq!(
        ops,
        [
            Op::DsbIshst,
            Op::TlbLastLevel(VA),
            Op::TlbLastLevel(VA + PAGE_SIZE),
            Op::TlbLastLevel(VA + 2 * PAGE_SIZE),
            Op::DsbIsh,
            Op::Isb,
        ]
    );
    assert_eq!(mapper.leaf(VA), None);
}

#[test]
fn a_large_removal_drops_all_and_blocks_count_once() {
    let mut mapper = scratch_mapper(4);
    // One page off the block border, so that only pages fit.
    let pages = (super::super::flush::MAX_BY_ADDRESS + 1) * PAGE_SIZE;
    map(&mut mapper, VA, PA + PAGE_SIZE, pages).unwrap();
    let (_, ops) = record_during(|| unmap(&mut mapper, VA, pages).unwrap());
    assert_eq!(ops, [Op::DsbIshst, Op::TlbAll, Op::DsbIsh, Op::Isb]);

    let blocks = VA + 2 * BLOCK;
    map(&mut mapper, blocks, PA, 2 * BLOCK).unwrap();
    let (_, ops) = record_during(|| unmap(&mut mapper, blocks, 2 * BLOCK).unwrap());
    assert_eq!(
        ops,
        [
            Op::DsbIshst,
            Op::TlbLastLevel(blocks),
            Op::TlbLastLevel(blocks + BLOCK),
            Op::DsbIsh,
            Op::Isb,
        ]
    );
}

#[test]
fn leaves_are_as_large_as_both_addresses_allow() {
    let mut mapper = scratch_mapper(8);
    let gib = 1 << 30;
    let size = gib + BLOCK + PAGE_SIZE;
    map(&mut mapper, VA, PA, size).unwrap();
    let levels: Vec<_> = mapper
        .leaves(VA, VA + size)
        .map(|leaf| leaf.level)
        .collect();
    assert_eq!(levels, [Level::L1, Level::L2, Level::L3]);

    // The same sizes with a physical address that is only page aligned.
    let va = VA + 2 * gib;
    map(&mut mapper, va, PA + PAGE_SIZE, BLOCK).unwrap();
    assert!(
        mapper
            .leaves(va, va + BLOCK)
            .all(|leaf| leaf.level == Level::L3)
    );
    assert_eq!(mapper.leaves(va, va + BLOCK).count(), 512);
}

#[test]
fn a_smaller_largest_leaf_is_respected() {
    let mut mapper = scratch_mapper(3);
    // SAFETY: as in `map`.
    unsafe { mapper.map(VA, frames(PA, BLOCK), WB_RW, Level::L3) }.unwrap();
    assert_eq!(mapper.leaf(VA).unwrap().level, Level::L3);
}

#[test]
fn a_live_entry_is_never_overwritten() {
    let mut mapper = scratch_mapper(4);
    map(&mut mapper, VA, PA, 2 * PAGE_SIZE).unwrap();
    assert_eq!(
        map(&mut mapper, VA, PA, PAGE_SIZE),
        Err(MapError::AlreadyMapped { va: VA, pa: PA })
    );
    assert_eq!(
        map(&mut mapper, VA, PA + BLOCK, PAGE_SIZE),
        Err(MapError::BreakBeforeMake { va: VA, pa: PA })
    );
    // SAFETY: refused.
    let other_type = unsafe { mapper.map(VA, frames(PA, PAGE_SIZE), NC_RW, Level::L1) };
    assert_eq!(
        other_type,
        Err(MapError::BreakBeforeMake { va: VA, pa: PA })
    );

    let block = VA + BLOCK;
    map(&mut mapper, block, PA + BLOCK, BLOCK).unwrap();
    let inside = block + 3 * PAGE_SIZE;
    assert_eq!(
        map(&mut mapper, inside, PA, PAGE_SIZE),
        Err(MapError::BreakBeforeMake {
            va: inside,
            pa: PA + BLOCK + 3 * PAGE_SIZE
        })
    );
}

#[test]
fn a_refused_mapping_leaves_nothing_behind() {
    let mut mapper = scratch_mapper(2);
    let third = VA + 2 * PAGE_SIZE;
    map(&mut mapper, third, PA, PAGE_SIZE).unwrap();
    let refused = map(&mut mapper, VA, PA + BLOCK, 3 * PAGE_SIZE);
    assert_eq!(
        refused,
        Err(MapError::BreakBeforeMake { va: third, pa: PA })
    );
    assert_eq!(mapper.leaves(VA, VA + BLOCK).count(), 1);

    // The next 2 MiB need a third table, and there is none.
    let last = VA + (BLOCK - PAGE_SIZE);
    assert_eq!(
        map(&mut mapper, last, PA, 2 * PAGE_SIZE),
        Err(MapError::OutOfTables(VA + BLOCK))
    );
    assert_eq!(mapper.leaf(last), None);
}

#[test]
fn a_live_block_is_never_split() {
    let mut mapper = scratch_mapper(1);
    map(&mut mapper, VA, PA, 2 * BLOCK).unwrap();
    let split = |va| MapError::SplitsBlock { va, size: BLOCK };
    let page = VA + PAGE_SIZE;
    assert_eq!(unmap(&mut mapper, page, PAGE_SIZE), Err(split(page)));
    assert_eq!(unmap(&mut mapper, VA, PAGE_SIZE), Err(split(page)));
    let end = VA + BLOCK + PAGE_SIZE;
    assert_eq!(unmap(&mut mapper, VA, BLOCK + PAGE_SIZE), Err(split(end)));
    assert_eq!(mapper.leaves(VA, VA + 2 * BLOCK).count(), 2);
}

/// Tables the root leads to.
fn tables_of(mapper: &KernelMapper) -> usize {
    let mut tables = 0;
    mapper.for_each_table(|_| tables += 1);
    tables
}

#[test]
fn a_block_replaces_an_empty_table_after_a_full_break() {
    let mut mapper = scratch_mapper(2);
    map(&mut mapper, VA, PA + PAGE_SIZE, PAGE_SIZE).unwrap();
    assert_eq!(mapper.memory_mut().tables_in_use(), 2);
    assert_eq!(tables_of(&mapper), 2);

    // While the table holds a page, the block falls back to pages around it.
    map(&mut mapper, VA + BLOCK, PA, BLOCK).unwrap();
    unmap(&mut mapper, VA, PAGE_SIZE).unwrap();
    let (_, ops) = record_during(|| map(&mut mapper, VA, PA + BLOCK, BLOCK).unwrap());
    assert_eq!(
        ops,
        [
            Op::DsbIshst,
            Op::TlbAllLevels(VA),
            Op::DsbIsh,
            Op::Isb,
            Op::DsbIshst,
            Op::Isb,
        ]
    );
    assert_eq!(mapper.leaf(VA).unwrap().level, Level::L2);
    assert_eq!(mapper.memory_mut().tables_in_use(), 1);
    assert_eq!(mapper.memory_mut().freed_tables().count(), 1);
    assert_eq!(tables_of(&mapper), 1);
}

#[test]
fn bad_ranges_are_named() {
    let mut mapper = scratch_mapper(2);
    let offset = VirtAddr::new(VA.get() + 0x10);
    let misaligned = |value| Err(MapError::Misaligned(value));
    assert_eq!(
        map(&mut mapper, offset, PA, PAGE_SIZE),
        misaligned(offset.get() as u64)
    );
    assert_eq!(map(&mut mapper, VA, PA, 12), misaligned(12));
    assert_eq!(
        map(&mut mapper, VA, PA + 8, PAGE_SIZE),
        misaligned(0x8000_0008)
    );
    assert_eq!(map(&mut mapper, VA, PA, 0), Err(MapError::Empty(VA)));
    for va in [
        VirtAddr::new(0x1000),
        VirtAddr::new(FIRST.get() - PAGE_SIZE),
        LIMIT,
        VirtAddr::new(0xFFFF_FFFF_FFFF_F000),
    ] {
        let outside = MapError::OutsideWindow {
            va,
            size: PAGE_SIZE,
        };
        assert_eq!(map(&mut mapper, va, PA, PAGE_SIZE), Err(outside));
        assert_eq!(mapper.leaf(va), None);
    }
    let beyond = PhysAddr::new(1 << 40);
    assert!(matches!(
        map(&mut mapper, VA, beyond, PAGE_SIZE),
        Err(MapError::OutsidePhysical(_))
    ));
    assert_eq!(
        unmap(&mut mapper, VA, PAGE_SIZE),
        Err(MapError::NotMapped(VA))
    );
}

#[test]
fn permissions_change_in_place() {
    let mut mapper = scratch_mapper(2);
    map(&mut mapper, VA, PA, 2 * PAGE_SIZE).unwrap();
    let (result, ops) = record_during(|| {
        // SAFETY: nothing writes through the mapping.
        unsafe { mapper.protect(VA, PAGE_SIZE, Access::ReadOnly) }
    });
    assert_eq!(result, Ok(()));
    assert_eq!(
        ops,
        [Op::DsbIshst, Op::TlbLastLevel(VA), Op::DsbIsh, Op::Isb]
    );
    assert_eq!(mapper.leaf(VA).unwrap().access(), Some(Access::ReadOnly));
    let next = mapper.leaf(VA + PAGE_SIZE).unwrap();
    assert_eq!(next.access(), Some(Access::ReadWrite));
}

/// The order of the design, for the way to non-cacheable and back.
#[test]
fn a_type_change_follows_its_order_both_ways() {
    let size = 2 * PAGE_SIZE;
    for new in [VA, COHERENT.base] {
        let mut mapper = scratch_mapper(4);
        map(&mut mapper, VA, PA, size).unwrap();
        let ways = [
            (VA, new, MemoryType::NormalNonCacheable),
            (new, VA, MemoryType::NormalWriteBack),
        ];
        for (from, to, memory_type) in ways {
            let (result, ops) = record_during(|| {
                // SAFETY: nothing accesses the frames.
                unsafe { mapper.change_type(from, to, size, memory_type) }
            });
            assert_eq!(result, Ok(()));
            let mut expected = Vec::new();
            if memory_type == MemoryType::NormalWriteBack {
                expected.push(Op::DsbSy);
            } else {
                expected.extend(lines(from, size));
            }
            expected.extend([
                Op::DsbIshst,
                Op::TlbLastLevel(from),
                Op::TlbLastLevel(from + PAGE_SIZE),
                Op::DsbIsh,
                Op::Isb,
                Op::DsbIshst,
                Op::Isb,
            ]);
            if memory_type != MemoryType::NormalWriteBack {
                expected.extend(lines(to, size));
                expected.push(Op::DsbSy);
            }
            assert_eq!(ops, expected);
            let leaf = mapper.first_run(FIRST, LIMIT).unwrap();
            assert_eq!((leaf.va, leaf.pa, leaf.size), (to, PA, size));
            assert_eq!(
                leaf.attributes(),
                Some(Attributes::new(memory_type, Access::ReadWrite))
            );
        }
    }
}

#[test]
fn a_refused_type_change_touches_nothing() {
    let mut mapper = scratch_mapper(4);
    map(&mut mapper, VA, PA, PAGE_SIZE).unwrap();
    map(&mut mapper, VA + PAGE_SIZE, PA + BLOCK, PAGE_SIZE).unwrap();
    map(&mut mapper, COHERENT.base, PA + 2 * BLOCK, PAGE_SIZE).unwrap();
    let before: Vec<_> = mapper.leaves(FIRST, LIMIT).collect();
    let nc = MemoryType::NormalNonCacheable;
    let ((scattered, taken, absent), ops) = record_during(|| {
        // SAFETY: all three are refused.
        unsafe {
            (
                mapper.change_type(VA, VA, 2 * PAGE_SIZE, nc),
                mapper.change_type(VA, COHERENT.base, PAGE_SIZE, nc),
                mapper.change_type(VA + BLOCK, VA, PAGE_SIZE, nc),
            )
        }
    });
    assert_eq!(scattered, Err(MapError::NotOneRun(VA + PAGE_SIZE)));
    let occupied = MapError::BreakBeforeMake {
        va: COHERENT.base,
        pa: PA + 2 * BLOCK,
    };
    assert_eq!(taken, Err(occupied));
    assert_eq!(absent, Err(MapError::NotMapped(VA + BLOCK)));
    assert_eq!(ops, []);
    assert_eq!(mapper.leaves(FIRST, LIMIT).collect::<Vec<_>>(), before);
}

#[test]
fn retired_runs_come_back_whole_and_only_after_the_flush() {
    let mut mapper = scratch_mapper(3);
    let runs = [(9, 0x8_0000), (1, 0x9_0002), (0, 0x9_0007)];
    let runs = runs.map(|(order, pfn)| Run {
        pfn: Pfn::new(pfn),
        order,
    });
    let (result, ops) = record_during(|| {
        // SAFETY: as in `map`.
        unsafe { mapper.map_runs(VA, &runs, WB_RW) }
    });
    assert_eq!((result, ops), (Ok(()), vec![]), "publishing is separate");
    assert_eq!(mapper.leaf(VA).unwrap().level, Level::L2);

    let size = runs.iter().map(|run| run.size()).sum();
    let mut stale = Stale::empty(VA);
    let (result, ops) = record_during(|| {
        // SAFETY: as in `unmap`.
        unsafe {
            mapper.retire(&mut stale, BLOCK)?;
            mapper.retire(&mut stale, size - BLOCK)
        }
    });
    assert_eq!((result, ops), (Ok(()), vec![]));
    assert_eq!(stale.size(), size);
    assert_eq!(mapper.first_leaf(FIRST, LIMIT), None);
    let last = VA + (size - PAGE_SIZE);
    assert!(matches!(
        map(&mut mapper, last, PA, PAGE_SIZE),
        Err(MapError::BreakBeforeMake { .. })
    ));

    let mut rest = stale.flush();
    let reaped: Vec<_> = core::iter::from_fn(|| mapper.reap(&mut rest).unwrap()).collect();
    assert_eq!(reaped, runs);
    assert_eq!(map(&mut mapper, VA, PA, size), Ok(()));
}

#[test]
fn a_live_run_is_never_reaped() {
    let mut mapper = scratch_mapper(2);
    map(&mut mapper, VA, PA, 2 * PAGE_SIZE).unwrap();
    let mut flushed = unmap(&mut mapper, VA, 2 * PAGE_SIZE).unwrap();
    let refused = Err(MapError::NotOneRun(VA));
    assert_eq!(mapper.reap(&mut flushed), refused, "nothing is there");
    for order in [0, 1, 2] {
        let run = Run {
            pfn: PA.pfn(),
            order,
        };
        let mut stale = Stale::empty(VA);
        // SAFETY: as in `map` and `unmap`.
        unsafe {
            mapper.map_runs(VA, &[run], WB_RW).unwrap();
            assert_eq!(mapper.reap(&mut flushed), refused, "live");
            mapper.retire(&mut stale, run.size()).unwrap();
        }
        if order == 2 {
            let half = mapper.reap(&mut flushed);
            assert_eq!(half, refused, "reaches beyond the range");
        }
        assert_eq!(mapper.reap(&mut stale.flush()), Ok(Some(run)));
    }
}

#[test]
fn runs_that_do_not_fit_are_counted() {
    // One table below level 2: the run after the block border needs another.
    let mut mapper = scratch_mapper(2);
    let runs = [0x8_0001, 0x8_0003, 0x8_0005].map(|pfn| Run {
        pfn: Pfn::new(pfn),
        order: 0,
    });
    let va = VA + (BLOCK - 2 * PAGE_SIZE);
    // SAFETY: as in `map`.
    let refused = unsafe { mapper.map_runs(va, &runs, WB_RW) };
    assert_eq!(refused, Err((2, MapError::OutOfTables(VA + BLOCK))));
    assert_eq!(mapper.leaves(FIRST, LIMIT).count(), 2);
    let mut stale = Stale::empty(va);
    // SAFETY: as in `unmap`.
    let past = unsafe { mapper.retire(&mut stale, 3 * PAGE_SIZE) };
    assert_eq!(past, Err(MapError::NotMapped(VA + BLOCK)));
    assert_eq!(stale, Stale::empty(va));
}
