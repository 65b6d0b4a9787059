use super::*;
use crate::mm::slab::{KmemCache, ObjectError};
use crate::mm::testing::normal_machine;
use crate::mm::{Gfp, PageAllocator};
use std::cell::Cell;

fn cache(name: &'static str, size: usize) -> &'static KmemCache {
    Box::leak(Box::new(KmemCache::new(name, size, 8).unwrap()))
}

/// Changes the byte at `offset` from `object`; the one it was.
fn stray(object: *mut u8, offset: isize) -> u8 {
    let at = VirtAddr::from_ptr(object).get().wrapping_add_signed(offset);
    let at = VirtAddr::new(at).as_ptr::<u8>();
    // SAFETY: the byte is in the slab, whose bytes nobody else uses.
    unsafe {
        let was = at.read();
        at.write(!was);
        was
    }
}

thread_local! {
    /// The last report of this thread: other tests make reports at the same time.
    static LAST: Cell<Option<SlabReport>> = const { Cell::new(None) };
}

/// Takes the last report that a call of this test made.
fn last_report() -> Option<SlabReport> {
    LAST.take()
}

/// The fault of the last report, if it was on `cache`.
fn last(cache: &KmemCache) -> Option<SlabFault> {
    let report = last_report()?;
    (report.cache == cache.name()).then_some(report.fault)
}

fn machine() -> &'static PageAllocator {
    set_slab_hook(|report| LAST.set(Some(*report)));
    normal_machine(8).0
}
#[test]
fn a_stray_store_beside_an_object_in_use_is_found_when_it_is_freed() {
    let pages = machine();
    let cache = cache("zones", 100);
    // Before the object, beyond what was asked for, after it.
    for offset in [-1, -16, 100, 127, 128, 143] {
        let object = cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr();
        assert_eq!(cache.validate(pages), 0);
        stray(object, offset);
        assert_eq!(cache.validate(pages), 1, "{offset}");
        // SAFETY: the object is ours.
        unsafe { cache.free(pages, object) }.unwrap();
        assert_eq!(last(cache), Some(SlabFault::Redzone), "{offset}");
        assert_eq!(cache.validate(pages), 0, "{offset}");
    }
}

#[test]
fn a_store_into_a_free_object_is_found_when_it_is_allocated() {
    let pages = machine();
    let cache = cache("poison", 64);
    for offset in [0, 1, 62, 63] {
        let object = cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr();
        // SAFETY: the object is ours.
        unsafe { cache.free(pages, object) }.unwrap();
        let was = stray(object, offset);
        assert_eq!(cache.validate(pages), 1);
        assert_eq!(last(cache), Some(SlabFault::Poison));
        let all: Vec<_> = (0..32)
            .map(|_| cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr())
            .collect();
        assert!(all.contains(&object));
        assert_eq!(last(cache), Some(SlabFault::Poison), "{was}");
        for object in all {
            // SAFETY: as above.
            unsafe { cache.free(pages, object) }.unwrap();
        }
        assert_eq!(cache.validate(pages), 0);
    }
}

#[test]
fn wrong_frees_are_reported_with_the_owner() {
    let pages = machine();
    let (own, other) = (cache("owned", 64), cache("stranger", 64));
    let object = own.alloc(pages, Gfp::KERNEL).unwrap().as_ptr();
    let line = line!() - 1;
    other.alloc(pages, Gfp::KERNEL).unwrap();
    // SAFETY: it belongs to another cache, which is refused.
    let refused = unsafe { other.free(pages, object) };
    assert!(matches!(refused, Err(ObjectError::WrongCache { .. })));
    let report = last_report().unwrap();
    assert_eq!(
        (report.fault, report.cache),
        (SlabFault::WrongCache, "owned")
    );
    assert_eq!(report.allocated.unwrap().location.line(), line);
    for _ in 0..2 {
        // SAFETY: the object is ours, and then free, which is refused.
        let _ = unsafe { own.free(pages, object) };
    }
    let report = last_report().unwrap();
    assert_eq!(report.fault, SlabFault::AlreadyFree);
    assert_eq!(report.freed.unwrap().location.line(), line!() - 4);
}

#[test]
fn memory_that_runs_into_a_free_object_is_found() {
    let pages = machine();
    let frames = pages.frames().lookup();
    // Of an object, with its meta data, aligned to its size.
    const STRIDE: usize = (128 + META).next_multiple_of(128);
    let cache = cache("stale", 128);
    let mut objects: Vec<_> = (0..4)
        .map(|_| cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr())
        .collect();
    objects.sort_unstable();
    let pa = |object| layout::virt_to_phys(VirtAddr::from_ptr(object)).unwrap();
    let start = pa(objects[0]);
    assert_eq!(pa(objects[2]), start + 2 * STRIDE, "neighbours");
    let found = |offset, len| freed_object_in(frames, start + offset, len);
    assert_eq!(found(0, 4 * STRIDE), None);
    // SAFETY: the object is ours.
    unsafe { cache.free(pages, objects[2]) }.unwrap();
    let stale = start + 2 * STRIDE;
    for offset in [0, 1, 63, 64, 127, STRIDE] {
        let to_stale = 2 * STRIDE - offset;
        assert_eq!(found(offset, 1), None);
        assert_eq!(found(offset, to_stale), None);
        assert_eq!(found(offset, to_stale + 1), Some((stale, "stale")));
        assert_eq!(found(offset, 4 * STRIDE - offset), Some((stale, "stale")));
    }
    assert_eq!(found(2 * STRIDE + 5, 1), Some((stale + 5, "stale")));
    assert_eq!(found(3 * STRIDE, 128), None);
}
