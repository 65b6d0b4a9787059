//! Named caches: constructors, bulk, destruction, windows, wrong frees, packed objects, the report.

mod dump;
mod packed;

use crate::failslab::lightly;
use crate::machine::machine;
use crate::memory::bulk::Bulk;
use crate::memory::named::{
    CONSTRUCTED_CACHE, Named, STATE, cache, constructed, destroy_cache, free_foreign,
};
use crate::memory::{Area, Object};
use crate::random::Random;
use crate::report::{Outcome, Stop, Suite, diagnostic};
use crate::{check, check_ok};
use hal::addr::VirtAddr;
use hal::mm::{
    self, AllocError, CacheError, DMA_ALIGN, DestroyError, Gfp, KmemCache, ObjectError,
    PageAllocator, SlabFlags, fault,
};
use hal::smp;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "slab",
    tests: tests! {
        constructor_runs_once_for_each_object_of_a_slab: constructor,
        zeroes_from_a_constructed_cache_are_refused: constructed_zero,
        objects_of_a_cache_have_one_size_and_alignment: size_and_alignment,
        objects_of_a_cache_have_one_size_and_alignment_planted: size_and_alignment_planted,
        destroy_refuses_lists_live_objects_then_succeeds: destroy,
        bulk_allocates_all_or_nothing: bulk,
        shrink_frees_only_empty_slabs: shrink,
        only_the_usercopy_window_is_copied_out: usercopy,
        unknown_flags_and_bad_shapes_are_refused: bad_caches,
        wrong_frees_are_refused_by_name: wrong_frees,
        objects_are_freed_on_other_cores: other_cores,
        packed_objects_share_lines_and_keep_their_bytes: packed::shared_lines,
        wrong_frees_of_packed_objects_are_refused_by_name: packed::wrong_frees,
        packed_objects_are_charged_to_nobody: packed::charged,
        packed_objects_are_refused_for_dma: packed::refused_for_dma,
        packed_objects_are_refused_for_dma_planted: packed::refused_for_dma_planted,
        slabinfo_is_consistent: dump::consistent,
        slabinfo_is_consistent_planted: dump::consistent_planted,
    },
};

/// Where the window of [`PLAIN`] starts, and its bytes.
const WINDOW: (usize, usize) = (16, 64);

/// Bytes of an object of [`PLAIN`]: no multiple of a line.
const SIZE: usize = 200;

/// A cache of the plain kind.
static PLAIN: KmemCache =
    cache("test-plain", SIZE, 8, SlabFlags::empty()).with_usercopy(WINDOW.0, WINDOW.1);

/// A cache whose objects are aligned to more than a line.
const ALIGN: usize = 256;
static ALIGNED: KmemCache = cache("test-aligned", SIZE, ALIGN, SlabFlags::empty());

/// A cache whose slabs are single pages, however much memory there is.
static SINGLE: KmemCache = cache("test-single", 64, 8, SlabFlags::empty());

fn pages() -> Result<&'static PageAllocator, Stop> {
    mm::pages().ok_or(Stop::Failed)
}

fn constructor() -> Outcome {
    // They fit the empty slabs that a cache keeps.
    const COUNT: usize = 20;
    const ROUNDS: usize = 10;
    let pages = pages()?;
    check!(!CONSTRUCTED_CACHE.shrink(pages), "the cache is not empty");
    let before = constructed();
    let mut bulk = Bulk::<COUNT>::new(&CONSTRUCTED_CACHE);
    check_ok!(bulk.fill(Gfp::KERNEL));
    let info = CONSTRUCTED_CACHE.info();
    let first = constructed() - before;
    let room = (info.slabs * info.objects_per_slab) as usize;
    check!(
        first >= COUNT && first <= room,
        "{first} constructed for {COUNT} objects in {room} places"
    );
    for _ in 0..ROUNDS {
        check_ok!(bulk.free());
        check_ok!(bulk.fill(Gfp::KERNEL));
        let mut object = check_ok!(Named::alloc(&CONSTRUCTED_CACHE, Gfp::KERNEL));
        let (words, _) = object.bytes().as_chunks::<8>();
        let changed = words.iter().position(|word| *word != STATE.to_ne_bytes());
        check!(changed.is_none(), "word {changed:?} is not as constructed");
    }
    let later = constructed() - before;
    let slabs = CONSTRUCTED_CACHE.info().slabs;
    let room = (slabs * info.objects_per_slab) as usize;
    check!(later <= room, "{later} constructed in {room} places");
    let allocations = (ROUNDS + 1) * COUNT + ROUNDS;
    diagnostic(format_args!(
        "{later} constructed for {allocations} allocations from {slabs} slabs"
    ));
    Ok(())
}

fn constructed_zero() -> Outcome {
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    let refused = Named::alloc(&CONSTRUCTED_CACHE, gfp).map(drop);
    check!(
        refused == Err(AllocError::Constructed { gfp }),
        "{refused:?}"
    );
    Ok(())
}

/// What is wrong with objects at `addresses`, sorted.
fn misplaced(addresses: &[VirtAddr], size: usize, align: usize) -> Option<&'static str> {
    if !addresses
        .iter()
        .all(|va| va.is_aligned(align.max(DMA_ALIGN)))
    {
        return Some("not aligned");
    }
    let apart = |pair: &[VirtAddr]| pair[1].get() - pair[0].get() >= size;
    (!addresses.windows(2).all(apart)).then_some("overlapping")
}

fn size_and_alignment() -> Outcome {
    const COUNT: usize = 64;
    for (cache, align) in [(&PLAIN, 8), (&ALIGNED, ALIGN)] {
        let mut bulk = Bulk::<COUNT>::new(cache);
        check_ok!(bulk.fill(Gfp::KERNEL));
        let mut addresses: heapless::Vec<VirtAddr, COUNT> = bulk.addresses().collect();
        addresses.sort_unstable();
        let wrong = misplaced(&addresses, SIZE, align);
        check!(wrong.is_none(), "{}: {wrong:?}", cache.name());
        for va in &addresses {
            let usable = check_ok!(mm::ksize(va.as_ptr::<u8>()));
            check!(usable == SIZE, "{usable} of {SIZE} bytes at {va}");
        }
    }
    Ok(())
}

fn size_and_alignment_planted() -> Outcome {
    let at = VirtAddr::new(1 << 20);
    check!(misplaced(&[at, at + 256], SIZE, 8).is_none(), "good places");
    check!(
        misplaced(&[at, at + 192], SIZE, 8).is_some(),
        "overlapping objects pass"
    );
    check!(
        misplaced(&[at, at + 264], SIZE, 8).is_some(),
        "an object in the midst of a line passes"
    );
    check!(
        misplaced(&[at, at + 320], SIZE, ALIGN).is_some(),
        "the alignment asked for is not judged"
    );
    Ok(())
}

fn destroy() -> Outcome {
    let held = [
        check_ok!(Named::alloc(&ALIGNED, Gfp::KERNEL)),
        check_ok!(Named::alloc(&ALIGNED, Gfp::KERNEL)),
    ];
    drop(check_ok!(Named::alloc(&ALIGNED, Gfp::KERNEL)));
    let mut listed = heapless::Vec::<VirtAddr, 4>::new();
    let refused = destroy_cache(&ALIGNED, |va| {
        // One too many is missed, and the length tells.
        let _ = listed.push(va);
    });
    let remaining = DestroyError::Remaining {
        cache: ALIGNED.name(),
        objects: held.len(),
    };
    check!(refused == Err(remaining), "{refused:?}");
    let all = held.iter().all(|object| listed.contains(&object.va()));
    check!(all && listed.len() == held.len(), "listed {listed:?}");
    diagnostic(format_args!("{remaining}: {} {}", listed[0], listed[1]));
    drop(held);
    check_ok!(destroy_cache(&ALIGNED, |_| ()));
    let known = mm::named_caches().any(|cache| core::ptr::eq(cache, &raw const ALIGNED));
    check!(!known, "a destroyed cache is still listed");
    // What it then keeps at hand, each core gives back when it is asked to.
    check_ok!(smp::run_on_all(|_| drop(Named::alloc(
        &ALIGNED,
        Gfp::KERNEL
    ))));
    check_ok!(destroy_cache(&ALIGNED, |_| ()));
    Ok(())
}

fn bulk() -> Outcome {
    const COUNT: usize = 200;
    let pages = pages()?;
    let mut bulk = Bulk::<COUNT>::new(&SINGLE);
    check_ok!(bulk.fill(Gfp::KERNEL));
    check!(bulk.len() == COUNT, "{} of {COUNT} objects", bulk.len());
    check_ok!(bulk.free());
    check!(bulk.len() == 0, "{} objects were not freed", bulk.len());
    if fault::is_armed() {
        return Err(Stop::Skipped("an allocation is made to fail already"));
    }
    check!(!SINGLE.shrink(pages), "slabs are left");
    // One allocation behind the bulk fails.
    fault::fail_nth(2);
    let refused = bulk.fill(Gfp::KERNEL | Gfp::NOWARN);
    let injected = fault::has_fired();
    fault::disarm();
    check!(injected, "no slab was needed");
    check!(
        matches!(refused, Err(AllocError::NoMemory { .. })) && bulk.len() == 0,
        "{refused:?} with {} objects",
        bulk.len()
    );
    check!(!SINGLE.shrink(pages), "objects of a failed bulk are left");
    Ok(())
}

fn shrink() -> Outcome {
    const COUNT: usize = 512;
    const STEP: usize = 128;
    let pages = pages()?;
    let mut bulk = Bulk::<COUNT>::new(&SINGLE);
    check_ok!(bulk.fill(Gfp::KERNEL));
    let before: heapless::Vec<VirtAddr, COUNT> = bulk.addresses().step_by(STEP).collect();
    let full = SINGLE.info().slabs;
    check_ok!(bulk.thin_out(STEP));
    let mut last = check_ok!(Named::alloc(&SINGLE, Gfp::KERNEL));
    last.bytes().fill(0x5A);
    check!(SINGLE.shrink(pages), "slabs with objects in use are gone");
    let info = SINGLE.info();
    check!(info.empty_slabs == 0, "{} empty slabs", info.empty_slabs);
    check!(info.slabs < full, "{} of {full} slabs", info.slabs);
    let kept = before.len() as u32 + 1;
    check!(
        info.objects_out == kept,
        "{} of {kept} objects",
        info.objects_out
    );
    check!(bulk.addresses().eq(before), "objects in use have moved");
    check!(
        last.bytes().iter().all(|byte| *byte == 0x5A),
        "an object in use has changed"
    );
    diagnostic(format_args!(
        "{kept} objects in use keep {} of {full} slabs",
        info.slabs
    ));
    drop((bulk, last));
    check!(!SINGLE.shrink(pages), "empty slabs are left");
    Ok(())
}

fn usercopy() -> Outcome {
    let mut object = check_ok!(Named::alloc(&PLAIN, Gfp::KERNEL));
    for (at, byte) in object.bytes().iter_mut().enumerate() {
        *byte = at as u8;
    }
    let mut bytes = [0; WINDOW.1];
    check_ok!(object.copy_out(WINDOW.0, &mut bytes));
    let right = bytes.iter().enumerate();
    let right = right.map(|(at, byte)| (at + WINDOW.0) as u8 == *byte);
    check!(right.into_iter().all(|right| right), "{bytes:?}");
    let cases = [
        (WINDOW.0 - 1, 1),
        (WINDOW.0, WINDOW.1 + 1),
        (WINDOW.0 + WINDOW.1, 1),
        (usize::MAX, 2),
    ];
    for (offset, len) in cases {
        let mut bytes = [0; WINDOW.1 + 1];
        let refused = object.copy_out(offset, &mut bytes[..len]);
        check!(
            matches!(refused, Err(ObjectError::Usercopy { .. })),
            "{len} bytes at {offset}: {refused:?}"
        );
        check!(bytes.iter().all(|byte| *byte == 0), "bytes leaked");
    }
    Ok(())
}

fn bad_caches() -> Outcome {
    const UNKNOWN: u32 = 1;
    let shaped = |size, align| KmemCache::new("bad", size, align).err();
    check!(shaped(0, 8) == Some(CacheError::Size(0)), "size 0");
    let large = mm::MAX_OBJECT_SIZE + 1;
    check!(shaped(large, 8) == Some(CacheError::Size(large)), "{large}");
    check!(shaped(8, 48) == Some(CacheError::Align(48)), "alignment 48");
    let flagged = |flags| {
        let cache = KmemCache::new("bad", 64, 8);
        cache.and_then(|cache| cache.with_flags(flags)).err()
    };
    let refused = flagged(SlabFlags::ACCOUNT.bits() | UNKNOWN);
    check!(refused == Some(CacheError::Flags(UNKNOWN)), "{refused:?}");
    let flags = SlabFlags::PACKED.bits();
    let refused = flagged(flags);
    check!(
        refused == Some(CacheError::Packed { size: 64, flags }),
        "{refused:?}"
    );
    Ok(())
}

fn wrong_frees() -> Outcome {
    let object = check_ok!(Named::alloc(&PLAIN, Gfp::KERNEL));
    let aligned = check_ok!(Named::alloc(&ALIGNED, Gfp::KERNEL));
    let general = check_ok!(Object::alloc(SIZE, Gfp::KERNEL));
    let area = check_ok!(Area::alloc(1));
    let (first, twice) = check_ok!(Named::alloc(&PLAIN, Gfp::KERNEL)).free_twice();
    check_ok!(first);
    let cases = [
        ("wrong cache", object.free_into(&ALIGNED)),
        ("wrong cache, the other way", aligned.free_into(&PLAIN)),
        ("object of kmalloc", free_foreign(&general, &PLAIN)),
        ("interior", object.free_interior(DMA_ALIGN)),
        ("interior, misaligned", object.free_interior(1)),
        ("double free", twice),
    ];
    for (what, result) in &cases {
        let Err(error) = result else {
            check!(false, "{what} was not refused");
            return Ok(());
        };
        diagnostic(format_args!("{what}: {error}"));
    }
    let [wrong, other, foreign, inside, askew, double] = cases.map(|(_, result)| result);
    let belongs_to = |result, name| matches!(result, Err(ObjectError::WrongCache { cache, .. }) if cache == name);
    check!(belongs_to(wrong, PLAIN.name()), "{wrong:?}");
    check!(belongs_to(other, ALIGNED.name()), "{other:?}");
    check!(belongs_to(foreign, "kmalloc"), "{foreign:?}");
    for result in [inside, askew] {
        check!(
            matches!(result, Err(ObjectError::NotAtObject(_))),
            "{result:?}"
        );
    }
    check!(
        matches!(double, Err(ObjectError::DoubleFree(_))),
        "{double:?}"
    );
    drop(area);
    check_ok!(object.free());
    check_ok!(aligned.kfree());
    Ok(())
}

fn other_cores() -> Outcome {
    let count = lightly(100);
    let cores = smp::online().count();
    if cores < 2 {
        return Err(Stop::Skipped("one core"));
    }
    let mut random = Random::new(machine().seed, 17);
    for _ in 0..count {
        let mut objects = [
            check_ok!(Named::alloc(&PLAIN, Gfp::KERNEL)),
            check_ok!(Named::alloc(&CONSTRUCTED_CACHE, Gfp::KERNEL)),
        ];
        objects[0].bytes().fill(0x3C);
        let core = 1 + random.below(cores - 1);
        let [mut plain, constructed] = objects;
        let freed = check_ok!(smp::run_on(core, move || {
            let intact = plain.bytes().iter().all(|byte| *byte == 0x3C);
            (intact, plain.free(), constructed.free())
        }));
        check!(freed == (true, Ok(()), Ok(())), "core {core}: {freed:?}");
    }
    diagnostic(format_args!("{} objects freed elsewhere", 2 * count));
    Ok(())
}
