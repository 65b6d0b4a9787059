//! Streaming maps: what changes hands, what is maintained for it, and what is never lent.

use super::interrupt::InInterrupt;
use super::phantom::{ELSEWHERE, WIDE};
use super::refusal::{NotRefused, is_usable, refusal};
use crate::handed::Taken;
use crate::machine::machine;
use crate::memory::{Object, Pages, reachable};
use crate::pattern::{self, CANARY, POISON};
use crate::report::{self, Outcome, Stop, Suite};
use crate::submission::map_unowned;
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use hal::dma::engine::copy;
use hal::dma::maintenance::{Counters, counters, line_size, writeback_granule};
use hal::dma::resource::map_resource;
use hal::dma::streaming::map_slice;
use hal::dma::{Bidirectional, Direction, DmaEngine, DmaError, DmaMask, FromDevice, ToDevice};
use hal::memory_map::ReservedKind;
use hal::mm::{Gfp, Unlendable};

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "streaming",
    tests: tests! {
        odd_buffers_are_filled_and_nothing_beside_them: filled,
        odd_buffers_are_filled_and_nothing_beside_them_planted: filled_planted,
        syncs_maintain_what_they_hand_over: synced,
        syncs_maintain_what_they_hand_over_planted: synced_planted,
        a_handler_lends_and_takes_back: in_a_handler,
        a_part_comes_back_by_itself: part,
        parts_that_cut_lines_are_refused: cut_parts,
        memory_nobody_was_given_is_refused: unowned,
        memory_nobody_was_given_is_refused_planted: unowned_planted,
        lengths_that_leave_memory_are_refused: lengths,
        registers_are_mapped_and_ram_is_not: resources,
        masks_that_reach_no_ram_are_refused: masks,
        masks_that_reach_no_ram_are_refused_planted: masks_planted,
    },
};

fn each_engine(test: impl Fn(&'static dyn DmaEngine) -> Outcome) -> Outcome {
    if machine().engines.is_empty() {
        return Err(Stop::Skipped("no DMA engine"));
    }
    let mut engines = machine().engines.iter();
    engines.try_for_each(|&engine| test(engine))
}

/// Offsets into two pages, and lengths that every engine copies.
const SHAPES: [(usize, usize); 7] = [
    (64, 64),
    (64, 4096),
    (65, 64),
    (127, 4),
    (100, 20),
    (67, 132),
    (95, 4100),
];

/// Fills each shape by the engine, in direction `D`, and looks at it and what is beside it. With
/// `forgotten` the engine is never started.
fn fill_shapes<D: hal::dma::direction::DeviceWrites>(
    engine: &'static dyn DmaEngine,
    forgotten: bool,
) -> Result<Result<(), pattern::Mismatch>, Stop> {
    let (device, seed) = (engine.device(), machine().seed);
    let mut memory = check_ok!(Object::zeroed(2 * PAGE_SIZE, reachable(device)));
    for (at, len) in SHAPES {
        let mut pooled = check_ok!(machine().pool.alloc(device, len));
        pattern::fill(&mut pooled.as_mut_slice()[..len], seed);
        memory.fill(CANARY);
        pattern::lay_out(&mut memory, at, len);
        let mut mapping = check_ok!(map_slice::<D>(device, &mut memory[at..at + len]));
        if !forgotten {
            check_ok!(copy(engine, &check_ok!(pooled.part(0, len)), &mut mapping));
        }
        mapping.unmap();
        if let Err(mismatch) = pattern::verify(&memory, at, len, seed) {
            return Ok(Err(mismatch));
        }
    }
    Ok(Ok(()))
}

fn filled() -> Outcome {
    super::bounce::pool()?;
    each_engine(|engine| {
        check_ok!(fill_shapes::<FromDevice>(engine, false)?);
        check_ok!(fill_shapes::<Bidirectional>(engine, false)?);
        report::diagnostic(format_args!(
            "engine={} shapes={} observed=data",
            engine.device().name(),
            SHAPES.len()
        ));
        Ok(())
    })
}

fn filled_planted() -> Outcome {
    super::bounce::pool()?;
    each_engine(|engine| {
        let found = fill_shapes::<FromDevice>(engine, true)?;
        check!(found.is_err(), "a copy that never ran passed for one");
        Ok(())
    })
}

/// What was maintained since `before`.
fn since(before: Counters) -> [u64; 3] {
    let now = counters();
    [
        now.cleaned - before.cleaned,
        now.invalidated - before.invalidated,
        now.cleaned_and_invalidated - before.cleaned_and_invalidated,
    ]
}

/// What `f` returns, and the lines it cleaned, invalidated, and both.
pub(super) fn counted<R>(f: impl FnOnce() -> R) -> (R, [u64; 3]) {
    let before = counters();
    let result = f();
    (result, since(before))
}

/// Lines cleaned, invalidated, and both, by the map, the sync for the CPU, the sync for the device
/// and the unmap.
type Handed = [[u64; 3]; 4];

fn handed<D: Direction>(bytes: &mut [u8]) -> Result<Handed, DmaError> {
    let (mapping, map) = counted(|| map_slice::<D>(&WIDE, bytes));
    let mapping = mapping?;
    let (cpu, for_cpu) = counted(|| mapping.sync_for_cpu());
    let (mapping, for_device) = counted(|| cpu.sync_for_device());
    let ((), unmap) = counted(|| mapping.unmap());
    Ok([map, for_cpu, for_device, unmap])
}

/// The first direction whose hand-overs of a page, allocated with `gfp`, are not what arm64 does, by
/// its number.
fn wrongly_handed(gfp: Gfp) -> Result<Option<(usize, Handed)>, Stop> {
    let mut memory = check_ok!(Object::zeroed(PAGE_SIZE, gfp));
    let found = [
        check_ok!(handed::<ToDevice>(&mut memory)),
        check_ok!(handed::<FromDevice>(&mut memory)),
        check_ok!(handed::<Bidirectional>(&mut memory)),
    ];
    let lines = (PAGE_SIZE / line_size()) as u64;
    let (clean, invalidate, nothing) = ([lines, 0, 0], [0, lines, 0], [0; 3]);
    let both = [clean, invalidate, clean, invalidate];
    let wanted = [[clean, nothing, clean, nothing], both, both];
    let mut pairs = found.into_iter().zip(wanted).enumerate();
    Ok(pairs.find_map(|(index, (found, wanted))| (found != wanted).then_some((index, found))))
}

fn synced() -> Outcome {
    let _maintained = Taken::as_coherent(&WIDE, false);
    let wrong = wrongly_handed(Gfp::KERNEL)?;
    check!(wrong.is_none(), "direction and counts {wrong:?}");
    Ok(())
}

/// A device wrongly taken as coherent.
fn synced_planted() -> Outcome {
    let _forgotten = Taken::as_coherent(&WIDE, true);
    check!(
        wrongly_handed(Gfp::KERNEL)?.is_some(),
        "forgotten maintenance was not found"
    );
    Ok(())
}

fn in_a_handler() -> Outcome {
    static HANDLER: InInterrupt<Result<Option<(usize, Handed)>, Stop>> =
        InInterrupt::new(|| wrongly_handed(Gfp::ATOMIC));
    let _maintained = Taken::as_coherent(&WIDE, false);
    let wrong = HANDLER.run()??;
    check!(wrong.is_none(), "direction and counts {wrong:?}");
    Ok(())
}

fn part() -> Outcome {
    each_engine(|engine| {
        let (device, seed) = (engine.device(), machine().seed);
        let granule = writeback_granule();
        let (at, len) = (PAGE_SIZE / 2, granule);
        let mut memory = check_ok!(Object::zeroed(PAGE_SIZE, reachable(device)));
        let mut pooled = check_ok!(machine().pool.alloc(device, PAGE_SIZE));
        pattern::fill(pooled.as_mut_slice(), seed);
        memory.fill(POISON);
        let _maintained = Taken::as_coherent(device, false);
        let mut mapping = check_ok!(map_slice::<FromDevice>(device, &mut memory));
        check_ok!(copy(
            engine,
            &check_ok!(pooled.part(0, PAGE_SIZE)),
            &mut mapping
        ));
        let before = counters();
        let mut part = check_ok!(mapping.sync_part_for_cpu(at..at + len));
        let took = since(before);
        let bytes = part.iter().enumerate();
        let wrong = bytes.filter(|&(index, &byte)| byte != pattern::byte(seed, at + index));
        check!(wrong.count() == 0, "the part is not what the engine wrote");
        part.fill(CANARY);
        let ((), gave) = counted(|| drop(part));
        let lines = (len / line_size()) as u64;
        check!(
            took == [0, lines, 0] && gave == [lines, 0, 0],
            "{took:?} to take {len} bytes, {gave:?} to give them"
        );
        mapping.unmap();
        check!(
            memory[at..at + len].iter().all(|&byte| byte == CANARY),
            "what the CPU stored to its part is lost"
        );
        check_ok!(pattern::verify(&memory[..at], 0, at, seed));
        Ok(())
    })
}

fn cut_parts() -> Outcome {
    let _maintained = Taken::as_coherent(&WIDE, false);
    let mut memory = check_ok!(Object::zeroed(PAGE_SIZE, Gfp::KERNEL));
    let mut mapping = check_ok!(map_slice::<FromDevice>(&WIDE, &mut memory));
    let granule = writeback_granule();
    let cut = mapping.sync_part_for_cpu(1..granule).map(drop);
    check_ok!(refusal("a part that cuts a line", cut, |error| {
        matches!(error, DmaError::PartialLine { .. })
    }));
    let outside = mapping.sync_part_for_cpu(0..PAGE_SIZE + granule).map(drop);
    check_ok!(refusal("a part beyond the end", outside, |error| {
        matches!(error, DmaError::OutOfBounds { .. })
    }));
    let nothing = mapping.sync_part_for_cpu(granule..granule).map(drop);
    check_ok!(refusal("an empty part", nothing, |error| {
        *error == DmaError::ZeroLength
    }));
    Ok(())
}

/// Whether the refusal is that of memory nobody was given, for a reason that `is_named` knows.
fn is_unowned(is_named: fn(Unlendable) -> bool) -> impl Fn(&DmaError) -> bool {
    move |error| matches!(error, DmaError::Unowned { why, .. } if is_named(*why))
}

/// Memory in the direct map that is nobody's: what it is, where, and whether a reason is its own.
type Nobodys = (&'static str, Option<PhysAddr>, fn(Unlendable) -> bool);

fn nobodys() -> Result<[Nobodys; 2], Stop> {
    let pages = check_ok!(Pages::alloc(Gfp::KERNEL, 0));
    let free = pages.frames().start;
    drop(pages);
    let mut reserved = machine().map.reserved().iter();
    let descriptors = reserved.find(|range| range.kind == ReservedKind::FrameDescriptors);
    Ok([
        ("a free page", Some(free), |why| why == Unlendable::Free),
        (
            "the frame descriptors",
            descriptors.map(|reserved| reserved.range.start),
            |why| why == Unlendable::Unowned,
        ),
    ])
}

fn unowned() -> Outcome {
    each_engine(|engine| {
        let before = engine.interrupts();
        for (what, pa, is_named) in nobodys()? {
            match pa {
                None => report::diagnostic(format_args!("{what}: there is none")),
                Some(pa) => {
                    let mapped = map_unowned(engine.device(), pa, PAGE_SIZE);
                    check_ok!(refusal(what, mapped, is_unowned(is_named)));
                }
            }
        }
        // The last page of what starts in memory of one's own.
        let pages = check_ok!(Pages::alloc(Gfp::KERNEL, 1));
        let start = pages.frames().start;
        drop(pages);
        let mapped = map_unowned(engine.device(), start + (PAGE_SIZE - 64), 128);
        check_ok!(refusal(
            "the seam of two free pages",
            mapped,
            is_unowned(|why| why == Unlendable::Free)
        ));
        is_usable(engine, before)
    })
}

/// A page of one's own, which nothing must refuse.
fn unowned_planted() -> Outcome {
    each_engine(|engine| {
        let device = engine.device();
        let mut pages = check_ok!(Pages::alloc(reachable(device), 1));
        check!(pages.bytes().len() == 2 * PAGE_SIZE, "not two pages");
        let mapped = map_slice::<ToDevice>(device, &mut pages.bytes()[PAGE_SIZE - 64..]).map(drop);
        let found = refusal("two pages of one's own", mapped, is_unowned(|_| true));
        check!(found.is_err(), "an accepted map was taken for a refusal");
        Ok(())
    })
}

fn lengths() -> Outcome {
    each_engine(|engine| {
        let before = engine.interrupts();
        let memory = check_ok!(Object::zeroed(PAGE_SIZE, reachable(engine.device())));
        for len in [usize::MAX, usize::MAX - PAGE_SIZE, 1 << 40] {
            let mapped = crate::submission::map_refused(engine.device(), memory.va(), len);
            if memory.va().checked_add(len).is_some() {
                continue;
            }
            check_ok!(refusal("a length that wraps", mapped, |error| {
                matches!(error, DmaError::Wraps { .. })
            }));
        }
        is_usable(engine, before)
    })
}

fn resources() -> Outcome {
    let console = machine().board.uart().base;
    let ram = machine().map.ram().first().map(|ram| ram.start);
    let Some(ram) = ram else {
        return Err(Stop::Failed);
    };
    let refused = map_resource(&WIDE, PhysRange::new(ram, ram + 64)).map(drop);
    check_ok!(refusal("RAM as a resource", refused, |error| {
        matches!(error, DmaError::IsRam { .. })
    }));
    let device_memory = PhysRange::new(console, console + 64);
    let (mapped, done) = counted(|| map_resource(&WIDE, device_memory));
    let segment = check_ok!(mapped).dma_segment();
    check!(
        segment.addr.get() == console.get() && segment.len == 64 && done == [0; 3],
        "{segment:?} after {done:?}"
    );
    Ok(())
}

/// Whether a mask is refused because the device would reach no RAM with it.
fn is_mask_refused(refused: Result<(), DmaError>) -> Result<(), NotRefused> {
    refusal("a mask", refused, |error| {
        matches!(error, DmaError::MaskUnsupported { .. })
    })
}

/// Of a device that sees memory above what 32 bits reach, wherever RAM is.
fn masks() -> Outcome {
    let before = ELSEWHERE.mask();
    check_ok!(is_mask_refused(ELSEWHERE.set_mask(DmaMask::new::<31>())));
    check!(
        ELSEWHERE.mask() == before,
        "a refused mask of {:#x} is in force",
        ELSEWHERE.mask()
    );
    let taken = ELSEWHERE.set_mask(DmaMask::new::<32>());
    let mask = ELSEWHERE.mask();
    let restored = ELSEWHERE.set_mask(DmaMask::new::<64>());
    check_ok!(taken);
    check_ok!(restored);
    check!(
        mask == DmaMask::new::<32>().value(),
        "{mask:#x} instead of 32 bits"
    );
    Ok(())
}

/// A mask that reaches all RAM.
fn masks_planted() -> Outcome {
    let found = is_mask_refused(WIDE.set_mask(DmaMask::new::<64>()));
    check!(found.is_err(), "an accepted mask was taken for a refusal");
    Ok(())
}
