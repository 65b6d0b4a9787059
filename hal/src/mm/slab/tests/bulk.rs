//! Many objects at a time.

use super::*;

#[test]
fn bulk_free_stops_at_the_first_wrong_object_and_says_why() {
    let (pages, _) = normal_machine(8);
    let (cache, other) = (new_cache("bulk", 192, 64), new_cache("other", 192, 64));
    let foreign = other.alloc(pages, Gfp::KERNEL).unwrap();
    let before = cache.info().objects_out;
    let mut objects = [None; 200];
    cache.alloc_bulk(pages, Gfp::KERNEL, &mut objects).unwrap();
    let all: std::collections::HashSet<_> = objects.iter().flatten().copied().collect();
    assert_eq!(all.len(), 200);
    // What is wrong at place 100, and the refusal. The free object goes into a magazine.
    let freed = objects[99].take().unwrap();
    // SAFETY: the object is ours.
    unsafe { cache.free(pages, freed.as_ptr()) }.unwrap();
    let va = |object: NonNull<u8>| VirtAddr::from_ptr(object.as_ptr());
    // SAFETY: inside the object, which is longer.
    let interior = unsafe { objects[98].unwrap().add(64) };
    let cache_name = "other";
    let wrong = [
        (freed, ObjectError::DoubleFree(va(freed))),
        (interior, ObjectError::NotAtObject(va(interior))),
        (
            foreign,
            ObjectError::WrongCache {
                va: va(foreign),
                cache: cache_name,
            },
        ),
    ];
    for (at, (object, error)) in (100..).zip(wrong) {
        let kept = objects[at].replace(object);
        let first = 20 * (at - 100);
        // SAFETY: only objects in use that are ours can be freed.
        let result = unsafe { cache.free_bulk(pages, &mut objects[first..]) };
        assert_eq!(result, Err(error));
        assert!(objects[first..at].iter().all(Option::is_none));
        assert!(objects[at..].iter().all(Option::is_some));
        objects[at] = kept;
    }
    // SAFETY: the objects are ours, each is there once.
    unsafe {
        cache.free_bulk(pages, &mut objects).unwrap();
        other.free(pages, foreign.as_ptr()).unwrap();
    }
    assert!(objects.iter().all(Option::is_none));
    assert!(!cache.shrink(pages) && !other.shrink(pages));
    assert_eq!(cache.info().objects_out, before);
}

#[test]
fn a_cache_that_was_never_used_frees_nothing_in_bulk() {
    let (pages, _) = normal_machine(8);
    let cache = new_cache("unused", 192, 64);
    let pfn = pages.alloc_pages(Gfp::KERNEL, 1).unwrap();
    // Links of the frame look like objects that are out.
    let tail = Pfn::new(pfn.get() + 1);
    let frame = pages.frames().get(tail).unwrap();
    frame.set_objects_out(u64::MAX);
    let at = NonNull::new(layout::phys_to_virt(tail.phys()).as_ptr());
    let mut objects = [at];
    // SAFETY: no object starts there.
    let refused = unsafe { cache.free_bulk(pages, &mut objects) };
    let (va, kind) = (layout::phys_to_virt(tail.phys()), FrameKind::Tail);
    assert_eq!(refused, Err(ObjectError::NotAnObject { va, kind }));
    assert_eq!((objects, frame.objects_out()), ([at], u64::MAX));
    frame.set_objects_out(0);
    // SAFETY: the pages are ours.
    unsafe { pages.free_pages(pfn, 1) }.unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "too many objects for an interpreter")]
fn bulk_objects_are_zeroed_apart_and_freed_in_any_order() {
    for size in [64, 192, 1024, 2048, 4096, 8192] {
        let (pages, _) = normal_machine(16);
        let cache = new_cache("bulk", size, 64);
        let mut held = Vec::new();
        for round in 1..8_usize {
            let mut objects = vec![None; round * 37 % 101];
            let gfp = Gfp::KERNEL | Gfp::ZERO;
            cache.alloc_bulk(pages, gfp, &mut objects).unwrap();
            for object in objects.into_iter().flatten() {
                // SAFETY: the object is ours and that long.
                unsafe {
                    let bytes = core::slice::from_raw_parts_mut(object.as_ptr(), size);
                    assert!(bytes.iter().all(|byte| *byte == 0));
                    bytes.fill(round as u8);
                }
                held.push(Some(object));
            }
            // Every third object, so that slabs are left with holes.
            let (third, rest) = (0..).zip(held).partition(|(at, _)| at % 3 == 0);
            let strip = |objects: Vec<(usize, _)>| objects.into_iter().map(|(_, o)| o).collect();
            let mut third: Vec<_> = strip(third);
            held = strip(rest);
            third.reverse();
            // SAFETY: the objects are ours.
            unsafe { cache.free_bulk(pages, &mut third) }.unwrap();
            assert!(cache.info().objects_out as usize >= held.len());
        }
        // SAFETY: as above.
        unsafe { cache.free_bulk(pages, &mut held) }.unwrap();
        assert!(!cache.shrink(pages));
    }
}
