use super::*;
use crate::mm::KmemCache;
use crate::mm::slab::{CacheError, SlabFlags};
use crate::mm::testing::normal_machine;

fn cache(name: &'static str, size: usize) -> &'static KmemCache {
    let cache = KmemCache::new(name, size, 8).unwrap();
    Box::leak(Box::new(
        cache.with_flags(SlabFlags::PACKED.bits()).unwrap(),
    ))
}

#[test]
fn numbers_agree_with_division() {
    for size in (8..=MAX_PACKED_SIZE).step_by(8) {
        let packed = PackedLayout::new(size, 8).unwrap();
        assert!(packed.count() as usize <= WORDS * 64);
        for offset in 0..PAGE_SIZE {
            let covering = Some((offset / size) as u32).filter(|index| *index < packed.count());
            assert_eq!(packed.covering(offset), covering, "{size} {offset}");
            let starting = covering.filter(|_| offset % size == 0);
            assert_eq!(packed.starting(offset), starting, "{size} {offset}");
        }
    }
}

#[test]
fn what_cannot_share_lines_is_not_packed() {
    let packed = SlabFlags::PACKED;
    for (size, align, more) in [
        (49, 8, SlabFlags::empty()),
        (48, 64, SlabFlags::empty()),
        (8, 8, SlabFlags::HWCACHE_ALIGN),
        (8, 8, SlabFlags::CACHE_DMA),
        (8, 8, SlabFlags::CACHE_DMA32),
        (8, 8, SlabFlags::ACCOUNT),
    ] {
        let flags = (packed | more).bits();
        let refused = KmemCache::new("large", size, align)
            .unwrap()
            .with_flags(flags);
        assert_eq!(refused.err(), Some(CacheError::Packed { size, flags }));
    }
}

#[test]
fn packed_objects_share_lines_and_nothing_else() {
    let (pages, _) = normal_machine(8);
    let before = pages.free_pages_total();
    for size in [8, 12, 24, 48] {
        let cache = cache("shared", size);
        let mut objects: Vec<_> = (0..1500)
            .map(|_| cache.alloc(pages, Gfp::KERNEL | Gfp::ZERO).unwrap())
            .collect();
        for (number, object) in objects.iter().enumerate() {
            // SAFETY: the object is ours.
            unsafe {
                let bytes = core::slice::from_raw_parts(object.as_ptr(), size);
                assert!(bytes.iter().all(|byte| *byte == 0));
                object.write_bytes(number as u8, size);
            }
        }
        for (number, object) in objects.iter().enumerate() {
            // SAFETY: as above.
            let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == number as u8));
        }
        let info = cache.info();
        assert_eq!(info.objects_out, 1500);
        assert_eq!(info.slabs, 1500_u32.div_ceil(info.objects_per_slab));
        objects.sort_by_key(|object| object.as_ptr().addr() % 61);
        for object in objects {
            // SAFETY: as above; each is freed once.
            unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
        }
        assert_eq!((cache.info().slabs, cache.info().empty_slabs), (1, 1));
        assert!(!cache.shrink(pages));
    }
    assert_eq!(pages.free_pages_total(), before);
}

#[test]
fn each_wrong_free_of_a_packed_object_has_its_name() {
    let (pages, _) = normal_machine(8);
    let (own, other) = (cache("own", 24), cache("other", 24));
    let object = own.alloc(pages, Gfp::KERNEL).unwrap().as_ptr();
    let foreign = other.alloc(pages, Gfp::KERNEL).unwrap().as_ptr();
    let va = VirtAddr::from_ptr(object);
    // SAFETY: only one free reaches an object in use of the cache, and it is ours.
    let free = |at: *mut u8| unsafe { own.free(pages, at) };
    assert_eq!(
        free(foreign),
        Err(ObjectError::WrongCache {
            va: VirtAddr::from_ptr(foreign),
            cache: "other"
        })
    );
    let trailer = va.align_down(PAGE_SIZE) + TRAILER;
    for wrong in [va + 1, va + 8, trailer] {
        assert_eq!(free(wrong.as_ptr()), Err(ObjectError::NotAtObject(wrong)));
    }
    assert_eq!(free(object), Ok(()));
    assert_eq!(free(object), Err(ObjectError::DoubleFree(va)));
    let expect = |va| assert_eq!(va, VirtAddr::from_ptr(foreign));
    // SAFETY: only this test uses the cache.
    let remaining = unsafe { other.destroy(pages, expect) };
    assert!(remaining.is_err());
    // SAFETY: the object is ours.
    unsafe { other.free(pages, foreign) }.unwrap();
    for cache in [own, other] {
        // SAFETY: only this test uses the cache.
        assert_eq!(unsafe { cache.destroy(pages, |_| ()) }, Ok(()));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(
        if cfg!(miri) { 2 } else { 64 }
    ))]

    /// Allocations and frees in any order hand out no object twice and lose none.
    #[test]
    fn a_packed_cache_agrees_with_a_set(
        size in 1..=MAX_PACKED_SIZE,
        steps in proptest::collection::vec(proptest::prelude::any::<u16>(), 1..2000),
    ) {
        // SAFETY: the case's machine is not used after it.
        let _ram = unsafe { crate::layout::host::lease() };
        let (pages, _) = normal_machine(4);
        let before = pages.free_pages_total();
        let cache = cache("modelled", size);
        let mut held = std::collections::BTreeMap::new();
        for step in steps {
            if step % 5 < 3 {
                let object = cache.alloc(pages, Gfp::KERNEL).unwrap();
                let start = object.as_ptr().addr();
                let below = held.range(..=start).next_back().map(|(at, _)| at + size);
                proptest::prop_assert!(below.is_none_or(|end| end <= start));
                proptest::prop_assert!(held.insert(start, object).is_none());
            } else if !held.is_empty() {
                let at = *held.keys().nth(usize::from(step) % held.len()).unwrap();
                let object = held.remove(&at).unwrap();
                // SAFETY: the object is ours.
                unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
            }
            proptest::prop_assert_eq!(cache.info().objects_out as usize, held.len());
        }
        for object in held.values() {
            // SAFETY: as above.
            unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
        }
        // SAFETY: only this test uses the cache.
        proptest::prop_assert_eq!(unsafe { cache.destroy(pages, |_| ()) }, Ok(()));
        proptest::prop_assert_eq!(pages.free_pages_total(), before);
    }
}
