use super::*;
use crate::addr::{Pfn, PhysRange};
use crate::mm::testing::{Oracle, normal_machine, pages, ram, with_area};
use crate::mm::{GfpError, KmemCache, Misuse, Shrinker, SlabFlags, ZoneInfo, ZoneKind, fault};
use crate::mmu::MemoryType;
use proptest::prelude::*;

fn machine(mib: u64) -> (&'static Kmalloc, &'static PageAllocator) {
    let (pages, _) = normal_machine(mib);
    (caches_on(pages), pages)
}

fn caches_on(pages: &'static PageAllocator) -> &'static Kmalloc {
    let kmalloc: &Kmalloc = Box::leak(Box::new(Kmalloc::new()));
    kmalloc.set_pages(pages);
    kmalloc
}

fn zones(pages: &PageAllocator) -> [ZoneInfo; 3] {
    ZoneKind::ALL.map(|kind| pages.zone(kind))
}

#[test]
fn nothing_works_before_the_pages_are_known() {
    let kmalloc = Kmalloc::new();
    assert_eq!(kmalloc.kmalloc(1, Gfp::KERNEL), Err(AllocError::NotReady));
    assert_eq!(
        kmalloc.kmalloc(1 << 20, Gfp::KERNEL),
        Err(AllocError::NotReady)
    );
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn sizes_zero_and_too_large() {
    let (kmalloc, pages) = machine(16);
    let before = zones(pages);
    let nothing = kmalloc.kmalloc(0, Gfp::KERNEL).unwrap();
    assert_eq!(nothing.as_ptr().addr(), 16);
    assert_eq!(kmalloc.ksize(nothing.as_ptr()), Ok(0));
    // SAFETY: neither is an object.
    unsafe {
        assert_eq!(kmalloc.kfree(nothing.as_ptr()), Ok(()));
        assert_eq!(kmalloc.kfree(core::ptr::null_mut()), Ok(()));
    }
    for size in [MAX_SIZE + 1, usize::MAX] {
        let gfp = Gfp::KERNEL;
        assert_eq!(
            kmalloc.kmalloc(size, gfp),
            Err(AllocError::SizeTooLarge { size, gfp })
        );
    }
    let largest = kmalloc.kmalloc(MAX_SIZE, Gfp::KERNEL).unwrap();
    assert!(VirtAddr::from_ptr(largest.as_ptr()).is_aligned(MAX_SIZE));
    // SAFETY: the object is ours.
    unsafe { kmalloc.kfree(largest.as_ptr()) }.unwrap();
    assert_eq!(zones(pages), before);
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn alignment_and_usable_size_of_every_class() {
    let (kmalloc, _) = machine(32);
    for size in (1..=256).chain((257..=8193).step_by(if cfg!(miri) { 997 } else { 31 })) {
        let object = kmalloc.kmalloc(size, Gfp::KERNEL).unwrap().as_ptr();
        let usable = kmalloc.ksize(object).unwrap();
        assert!(usable >= size && usable.is_multiple_of(DMA_ALIGN));
        let align = (1 << usable.trailing_zeros()).min(usable.next_power_of_two());
        assert!(VirtAddr::from_ptr(object).is_aligned(align), "{size}");
        if size.is_power_of_two() {
            assert!(VirtAddr::from_ptr(object).is_aligned(size), "{size}");
        }
        // SAFETY: the object is ours.
        unsafe {
            object.write_bytes(0xFF, usable);
            kmalloc.kfree(object).unwrap();
        }
    }
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "a red zone lies beyond the request")]
fn kzalloc_clears_recycled_memory_whole() {
    let (kmalloc, _) = machine(16);
    for size in [1, 64, 100, 5000, 8192, 8193, 20_000] {
        let dirty = kmalloc.kmalloc(size, Gfp::KERNEL).unwrap().as_ptr();
        let usable = kmalloc.ksize(dirty).unwrap();
        // SAFETY: the object is ours.
        unsafe {
            dirty.write_bytes(0xFF, usable);
            kmalloc.kfree(dirty).unwrap();
        }
        let clean = kmalloc.kzalloc(size, Gfp::KERNEL).unwrap().as_ptr();
        assert_eq!(clean, dirty);
        // SAFETY: the object is ours.
        unsafe {
            let bytes = core::slice::from_raw_parts(clean, usable);
            assert_eq!(bytes.iter().position(|byte| *byte != 0), None, "{size}");
            kmalloc.kfree(clean).unwrap();
        }
    }
}

#[test]
fn wrong_frees_of_pages_and_large_objects_have_names() {
    let (kmalloc, pages) = machine(16);
    // SAFETY: no free below reaches an object in use except the one named good.
    let free = |va: VirtAddr| unsafe { kmalloc.kfree(va.as_ptr()) };
    let large = VirtAddr::from_ptr(kmalloc.kmalloc(10_000, Gfp::KERNEL).unwrap().as_ptr());
    assert_eq!(free(large + 64), Err(ObjectError::NotAtObject(large + 64)));
    let kind = FrameKind::Tail;
    let va = large + PAGE_SIZE;
    assert_eq!(free(va), Err(ObjectError::NotAnObject { va, kind }));
    let good = free(large);
    assert_eq!(good, Ok(()));
    assert!(free(large).is_err());
    let page = pages.alloc_pages(Gfp::KERNEL, 2).unwrap();
    let va = layout::phys_to_virt(page.phys());
    let kind = FrameKind::Allocated;
    assert_eq!(free(va), Err(ObjectError::NotAnObject { va, kind }));
    assert_eq!(
        kmalloc.ksize(va.as_ptr()),
        Err(ObjectError::NotAnObject { va, kind })
    );
    let va = layout::VMALLOC.base + 64;
    assert_eq!(free(va), Err(ObjectError::VmallocAddress(va)));
    let local = 0_u8;
    let va = VirtAddr::from_ptr(&raw const local);
    assert!(free(va).is_err());
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn dma_objects_come_from_the_dma_zone() {
    let (low, high) = (ram(16), ram(16));
    let limit = low.end;
    let pages = pages(&[low, high], limit, limit);
    let kmalloc = caches_on(pages);
    for (gfp, zone) in [
        (Gfp::KERNEL | Gfp::DMA, ZoneKind::Dma),
        (Gfp::KERNEL, ZoneKind::Normal),
    ] {
        for size in [64, 3000, 9000] {
            let object = kmalloc.kmalloc(size, gfp).unwrap().as_ptr();
            let pa = layout::virt_to_phys(VirtAddr::from_ptr(object)).unwrap();
            assert_eq!(pages.zone_of(pa.pfn()), zone, "{size} {gfp:?}");
            // SAFETY: the object is ours.
            unsafe { kmalloc.kfree(object) }.unwrap();
        }
    }
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "red zones take memory")]
fn memory_in_pages_per_byte_asked_is_at_most_15_percent_wasted() {
    let (asked, used) = (1..=8192_usize).fold((0.0, 0.0), |(asked, used), size| {
        let geometry = GEOMETRY[class_of(size)];
        let order = u32::from(geometry.preferred_order);
        let share = (PAGE_SIZE << order) as f64 / f64::from(geometry.objects(order));
        (asked + size as f64, used + share)
    });
    assert!(used - asked <= 0.15 * used, "{}", (used - asked) / used);
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "slabs start with padding")]
fn marks_of_smaller_objects_are_none_elsewhere() {
    const SMALL: usize = 64;
    /// Where an object has its mark.
    const MARK: usize = 8;
    let (kmalloc, _) = machine(4);
    let small: Vec<_> = (0..PAGE_SIZE / SMALL)
        .map(|_| kmalloc.kmalloc(SMALL, Gfp::KERNEL).unwrap().as_ptr())
        .collect();
    for object in small {
        // SAFETY: the object is ours.
        unsafe { kmalloc.kfree(object) }.unwrap();
    }
    kmalloc.shrink();
    let large = kmalloc.kmalloc(2 * SMALL, Gfp::KERNEL).unwrap().as_ptr();
    // SAFETY: both words lie in the object, which is ours.
    unsafe {
        let left = large.add(SMALL + MARK).cast::<u64>().read();
        assert_ne!(left, 0, "the slab is not in the frame of the smaller one");
        large.add(MARK).cast::<u64>().write(left);
        assert_eq!(kmalloc.kfree(large), Ok(()));
        assert!(kmalloc.kfree(large).is_err());
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn flags_of_no_object_are_counted_and_ignored() {
    let ram = ram(8);
    let area = PhysRange::new(ram.start + (4 << 20), ram.end);
    let pages = with_area(PhysRange::new(ram.start, area.start), area);
    let kmalloc = caches_on(pages);
    let packed = KmemCache::new("unfit", 16, 8).and_then(|cache| {
        let flags = SlabFlags::PACKED.bits();
        cache.with_flags(flags)
    });
    let packed: &KmemCache = Box::leak(Box::new(packed.unwrap()));
    let gfp = Gfp::KERNEL | Gfp::MOVABLE;
    let unfit = || Misuse::ObjectFlags(gfp).count();
    let before = unfit();
    let objects = [64, 3 * PAGE_SIZE, 1 << 20].map(|size| kmalloc.kmalloc(size, gfp).unwrap());
    let small = packed.alloc(pages, gfp).unwrap();
    assert!(unfit() >= before + 4);
    for object in objects.into_iter().chain([small]) {
        // A movable request would be given lent memory first.
        let pa = layout::virt_to_phys(VirtAddr::from_ptr(object.as_ptr())).unwrap();
        assert!(pa < area.start);
        // SAFETY: the object is ours.
        unsafe { kmalloc.kfree(object.as_ptr()) }.unwrap();
    }
    packed.shrink(pages);
    kmalloc.shrink();
    let gfp = Gfp::KERNEL | Gfp::NOFAIL | Gfp::NORETRY;
    let kind = Misuse::Flags(GfpError::NofailNoretry(gfp));
    let before = kind.count();
    let held = kmalloc.kmalloc(64, Gfp::KERNEL).unwrap();
    // There is a slab, so only the object's flags are looked at.
    kmalloc.shrink();
    let object = kmalloc.kmalloc(64, gfp).unwrap();
    assert!(kind.count() > before);
    for object in [held, object] {
        // SAFETY: as above.
        unsafe { kmalloc.kfree(object.as_ptr()) }.unwrap();
    }
    let before = Misuse::OrderTooLarge(11).count();
    assert!(kmalloc.kmalloc(MAX_SIZE + 1, Gfp::KERNEL).is_err());
    assert!(Misuse::OrderTooLarge(11).count() > before);
}

#[test]
fn a_large_object_that_is_refused_stays_one() {
    let (kmalloc, pages) = machine(8);
    let object = kmalloc
        .kmalloc(4 * PAGE_SIZE, Gfp::KERNEL)
        .unwrap()
        .as_ptr();
    let pa = layout::virt_to_phys(VirtAddr::from_ptr(object)).unwrap();
    let (frames, last) = (pages.frames(), pa.pfn() + 1..pa.pfn() + 2);
    // SAFETY: the object is ours, and with it its second page.
    let refused = unsafe {
        frames
            .claim_memory_type(last.clone(), MemoryType::NormalNonCacheable)
            .unwrap();
        kmalloc.kfree(object)
    };
    assert!(matches!(refused, Err(ObjectError::Pages(_))), "{refused:?}");
    assert_eq!(kmalloc.ksize(object), Ok(4 * PAGE_SIZE));
    // SAFETY: as above.
    unsafe {
        frames.release_memory_type(last);
        assert_eq!(kmalloc.kfree(object), Ok(()));
    }
}

#[test]
fn reports_leave_every_allocation_to_be_counted() {
    let (kmalloc, _) = machine(4);
    // It keeps its slab, so that no page is needed and counted below.
    let held = kmalloc.kmalloc(64, Gfp::KERNEL).unwrap();
    kmalloc.shrink();
    assert_eq!(kmalloc.caches().map(|cache| cache.slabs).sum::<u32>(), 1);
    fault::fail_nth(3);
    let objects = [(); 4].map(|()| kmalloc.kmalloc(64, Gfp::KERNEL).ok());
    fault::disarm();
    assert_eq!(
        objects.map(|object| object.is_some()),
        [true, true, false, true]
    );
    for object in objects.into_iter().flatten().chain([held]) {
        // SAFETY: the objects are ours.
        unsafe { kmalloc.kfree(object.as_ptr()) }.unwrap();
    }
}

/// A shrinker that empties the caches of the one it works for, and gives pages up.
struct Emptying {
    kmalloc: &'static Kmalloc,
    pages: &'static PageAllocator,
    held: std::sync::Mutex<Vec<Pfn>>,
}

impl Shrinker for Emptying {
    fn name(&self) -> &'static str {
        "emptying"
    }

    fn count(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    fn scan(&self, _wanted: usize, _gfp: Gfp) -> usize {
        self.kmalloc.shrink();
        let held = core::mem::take(&mut *self.held.lock().unwrap());
        for pfn in &held {
            // SAFETY: the page is the shrinker's.
            unsafe { self.pages.free_pages(*pfn, 0) }.unwrap();
        }
        held.len()
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn reclaim_may_close_the_magazine_of_the_request_it_runs_for() {
    let (kmalloc, pages) = machine(4);
    let before = zones(pages);
    let taken = core::iter::from_fn(|| pages.alloc_pages(Gfp::NOWAIT, 0).ok());
    let shrinker = Box::leak(Box::new(Emptying {
        kmalloc,
        pages,
        held: std::sync::Mutex::new(taken.collect()),
    }));
    pages.register_shrinker(shrinker).unwrap();
    let object = kmalloc.kmalloc(64, Gfp::KERNEL).unwrap().as_ptr();
    assert_eq!(shrinker.count(), 0, "nothing was reclaimed");
    assert_eq!(kmalloc.caches().map(|cache| cache.slabs).sum::<u32>(), 1);
    // SAFETY: the object is ours.
    unsafe { kmalloc.kfree(object) }.unwrap();
    kmalloc.shrink();
    assert_eq!(zones(pages), before);
}

#[derive(Clone, Debug)]
enum Step {
    Alloc(usize),
    Free(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..=8192_usize).prop_map(Step::Alloc),
        2 => (1..=300_usize).prop_map(Step::Alloc),
        1 => (8193..=40_000_usize).prop_map(Step::Alloc),
        6 => any::<usize>().prop_map(Step::Free),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 24 }))]

    /// Random calls: no two objects overlap, each keeps what was written to all of its usable
    /// size, each can be freed once, and all pages come back.
    #[test]
    #[cfg_attr(miri, ignore = "too many bytes for an interpreter")]
    fn objects_are_disjoint_and_keep_their_content(
        steps in proptest::collection::vec(step(), if cfg!(miri) { 1..30 } else { 1..800_usize }),
    ) {
        // SAFETY: the case's machine is not used after it.
        let _ram = unsafe { crate::layout::host::lease() };
        let (kmalloc, pages) = machine(if cfg!(miri) { 4 } else { 16 });
        let before = zones(pages);
        let mut oracle = Oracle::default();
        let pattern = |start: u64| (start >> 6) as u8 ^ (start >> 14) as u8;
        let free = |(start, len): (u64, u64)| {
            let object = VirtAddr::new(start as usize).as_ptr::<u8>();
            // SAFETY: the record says that the object is ours and this large.
            unsafe {
                let bytes = core::slice::from_raw_parts(object, len as usize);
                assert!(bytes.iter().all(|byte| *byte == pattern(start)));
                assert_eq!(kmalloc.kfree(object), Ok(()));
                assert!(kmalloc.kfree(object).is_err());
            }
        };
        for step in steps {
            match step {
                Step::Alloc(size) => {
                    let Ok(object) = kmalloc.kmalloc(size, Gfp::ATOMIC) else { continue };
                    let usable = kmalloc.ksize(object.as_ptr()).unwrap();
                    prop_assert!(usable >= size);
                    let start = object.as_ptr().expose_provenance() as u64;
                    oracle.take(start, usable as u64);
                    // SAFETY: the object is ours.
                    unsafe { object.as_ptr().write_bytes(pattern(start), usable) };
                }
                Step::Free(pick) => {
                    oracle.remove(pick).map(free);
                }
            }
        }
        while let Some(object) = oracle.remove(0) {
            free(object);
        }
        kmalloc.shrink();
        prop_assert!(kmalloc.caches().all(|cache| cache.slabs == 0));
        prop_assert_eq!(zones(pages), before);
    }
}
