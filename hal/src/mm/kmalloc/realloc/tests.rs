use super::*;
use crate::addr::VirtAddr;
use crate::mm::kmalloc::MAX_SIZE;
use crate::mm::slab::free_mark;
use crate::mm::testing::normal_machine;
use crate::mm::{KmemCache, PageAllocator, SlabFlags, kmalloc_size_roundup};
use proptest::prelude::*;

fn machine(mib: u64) -> (&'static Kmalloc, &'static PageAllocator) {
    let (pages, _) = normal_machine(mib);
    let kmalloc: &Kmalloc = Box::leak(Box::new(Kmalloc::new()));
    kmalloc.set_pages(pages);
    (kmalloc, pages)
}

/// The first `len` bytes of an object that the test owns.
fn bytes<'a>(object: NonNull<u8>, len: usize) -> &'a mut [u8] {
    // SAFETY: the tests ask for bytes of objects they own, and hold one slice at a time.
    unsafe { core::slice::from_raw_parts_mut(object.as_ptr(), len) }
}

fn counting(len: usize) -> impl Iterator<Item = u8> {
    (0..len).map(|index| (index % 251) as u8)
}

fn fill(object: NonNull<u8>, len: usize) {
    for (byte, value) in bytes(object, len).iter_mut().zip(counting(len)) {
        *byte = value;
    }
}

/// Frees `objects` and expects every page back.
fn all_back(kmalloc: &Kmalloc, pages: &PageAllocator, before: u32, objects: &[NonNull<u8>]) {
    for object in objects {
        // SAFETY: the test owns the objects.
        assert_eq!(unsafe { kmalloc.kfree(object.as_ptr()) }, Ok(()));
    }
    kmalloc.shrink();
    assert_eq!(pages.free_pages_total(), before);
}

#[test]
fn arrays_that_overflow_are_refused_by_name() {
    let (kmalloc, pages) = machine(8);
    let before = pages.free_pages_total();
    let gfp = Gfp::KERNEL;
    for (count, size) in [
        (usize::MAX, 2),
        (2, usize::MAX),
        (1 << 32, 1 << 32),
        (usize::MAX, usize::MAX),
    ] {
        let error = AllocError::Overflow { count, size, gfp };
        assert_eq!(kmalloc.kmalloc_array(count, size, gfp), Err(error));
        // SAFETY: there is no object.
        let grown = unsafe { kmalloc.krealloc_array(core::ptr::null_mut(), count, size, gfp) };
        assert_eq!(grown, Err(error.into()));
        let gfp = gfp | Gfp::ZERO;
        let error = AllocError::Overflow { count, size, gfp };
        assert_eq!(kmalloc.kcalloc(count, size, Gfp::KERNEL), Err(error));
    }
    // A product that is a number, and too large.
    let size = usize::MAX;
    assert_eq!(
        kmalloc.kmalloc_array(usize::MAX, 1, gfp),
        Err(AllocError::SizeTooLarge { size, gfp })
    );
    assert_eq!(kmalloc.kmalloc_array(0, 100, gfp), Ok(ZERO_SIZE_PTR));
    assert_eq!(kmalloc.kmalloc_array(100, 0, gfp), Ok(ZERO_SIZE_PTR));
    let object = kmalloc.kmalloc_array(3, 100, gfp).unwrap();
    assert_eq!(kmalloc.ksize(object.as_ptr()), Ok(320));
    all_back(kmalloc, pages, before, &[object]);
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "a red zone lies beyond the request")]
fn kcalloc_zeroes_recycled_memory_whole() {
    let (kmalloc, pages) = machine(8);
    let before = pages.free_pages_total();
    let dirty = kmalloc.kmalloc(200, Gfp::KERNEL).unwrap();
    bytes(dirty, 256).fill(0xFF);
    // SAFETY: the object is the test's.
    unsafe { kmalloc.kfree(dirty.as_ptr()) }.unwrap();
    let clean = kmalloc.kcalloc(50, 4, Gfp::KERNEL).unwrap();
    assert_eq!(clean, dirty);
    assert!(bytes(clean, 256).iter().all(|byte| *byte == 0));
    all_back(kmalloc, pages, before, &[clean]);
}

#[test]
fn krealloc_of_nothing_allocates_and_to_nothing_frees() {
    let (kmalloc, pages) = machine(8);
    let before = pages.free_pages_total();
    for nothing in [core::ptr::null_mut(), ZERO_SIZE_PTR.as_ptr()] {
        // SAFETY: there is no object yet; the new one is the test's.
        unsafe {
            let nowhere = kmalloc.krealloc(nothing, 0, Gfp::KERNEL);
            assert_eq!(nowhere, Ok(ZERO_SIZE_PTR));
            let object = kmalloc.krealloc(nothing, 100, Gfp::KERNEL).unwrap();
            assert_eq!(kmalloc.ksize(object.as_ptr()), Ok(128));
            let freed = kmalloc.krealloc(object.as_ptr(), 0, Gfp::KERNEL);
            assert_eq!(freed, Ok(ZERO_SIZE_PTR));
            assert!(kmalloc.kfree(object.as_ptr()).is_err(), "still in use");
        }
    }
    all_back(kmalloc, pages, before, &[]);
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "a red zone lies beyond the request")]
fn krealloc_up_to_ksize_keeps_the_pointer_and_never_shrinks() {
    let (kmalloc, pages) = machine(8);
    let before = pages.free_pages_total();
    let object = kmalloc.kmalloc(1000, Gfp::KERNEL).unwrap();
    fill(object, 1024);
    for size in [1024, 1, 64, 1024, 1000] {
        // SAFETY: the object is the test's.
        let same = unsafe { kmalloc.krealloc(object.as_ptr(), size, Gfp::KERNEL) };
        assert_eq!(same, Ok(object), "{size}");
        assert_eq!(kmalloc.ksize(object.as_ptr()), Ok(1024));
    }
    assert!(bytes(object, 1024).iter().copied().eq(counting(1024)));
    all_back(kmalloc, pages, before, &[object]);
}

#[test]
fn krealloc_beyond_ksize_moves_the_content() {
    let (kmalloc, pages) = machine(16);
    let before = pages.free_pages_total();
    for (from, to) in [(64, 65), (100, 8192), (8192, 8193), (8193, 16385)] {
        let old = kmalloc.kmalloc(from, Gfp::KERNEL).unwrap();
        let usable = kmalloc.ksize(old.as_ptr()).unwrap();
        fill(old, usable);
        // SAFETY: the object is the test's.
        let new = unsafe { kmalloc.krealloc(old.as_ptr(), to, Gfp::KERNEL) }.unwrap();
        assert_ne!(new, old);
        assert!(bytes(new, usable).iter().copied().eq(counting(usable)));
        assert_eq!(
            kmalloc.ksize(new.as_ptr()),
            Ok(kmalloc_size_roundup(to)),
            "{from} {to}"
        );
        all_back(kmalloc, pages, before, &[new]);
    }
}

#[test]
fn krealloc_that_fails_keeps_the_object() {
    let (kmalloc, pages) = machine(8);
    let before = pages.free_pages_total();
    let object = kmalloc.kmalloc(64, Gfp::KERNEL).unwrap();
    fill(object, 64);
    let gfp = Gfp::KERNEL;
    for size in [MAX_SIZE + 1, usize::MAX] {
        // SAFETY: the object is the test's.
        let refused = unsafe { kmalloc.krealloc(object.as_ptr(), size, gfp) };
        assert_eq!(refused, Err(AllocError::SizeTooLarge { size, gfp }.into()));
    }
    // An address inside the object is none.
    let inside = VirtAddr::from_ptr(object.as_ptr()) + 8;
    // SAFETY: no object starts inside another.
    unsafe {
        let error = kmalloc.krealloc(inside.as_ptr(), 8, gfp);
        assert_eq!(error, Err(ObjectError::NotAtObject(inside).into()));
        let error = kmalloc.kfree_sensitive(inside.as_ptr());
        assert_eq!(error, Err(ObjectError::NotAtObject(inside)));
    }
    assert!(bytes(object, 64).iter().copied().eq(counting(64)));
    all_back(kmalloc, pages, before, &[object]);
}

#[test]
fn krealloc_with_zero_on_every_call_never_shows_old_bytes() {
    let (kmalloc, pages) = machine(8);
    let before = pages.free_pages_total();
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    let mut object = kmalloc.kmalloc(300, gfp).unwrap();
    let mut len = 300;
    for size in [100, 320, 50, 64, 1000, 10, 1024, 9000] {
        bytes(object, len).fill(0xEE);
        // SAFETY: the object is the test's.
        object = unsafe { kmalloc.krealloc(object.as_ptr(), size, gfp) }.unwrap();
        let (kept, fresh) = bytes(object, size).split_at(len.min(size));
        assert!(kept.iter().all(|byte| *byte == 0xEE), "{len} to {size}");
        assert!(fresh.iter().all(|byte| *byte == 0), "{len} to {size}");
        len = size;
    }
    all_back(kmalloc, pages, before, &[object]);
}

#[test]
fn kfree_sensitive_leaves_no_byte_behind() {
    let (kmalloc, pages) = machine(8);
    let before = pages.free_pages_total();
    for size in [1, 100, 5000, 8193] {
        let object = kmalloc.kmalloc(size, Gfp::KERNEL).unwrap();
        let usable = kmalloc.ksize(object.as_ptr()).unwrap();
        bytes(object, usable).fill(0xC3);
        // SAFETY: the object is the test's; its memory is RAM that nobody else uses.
        unsafe {
            assert_eq!(kmalloc.kfree_sensitive(object.as_ptr()), Ok(()));
            // In words: the allocator notes in two of them that the object is free, and one byte
            // of such a note may be any.
            let words = object.as_ptr().cast::<[u8; 8]>();
            let secret = (0..usable / 8).find(|at| words.add(*at).read() == [0xC3; 8]);
            assert_eq!(secret, None, "of {size}");
            assert!(kmalloc.kfree_sensitive(object.as_ptr()).is_err());
            assert!(kmalloc.krealloc(object.as_ptr(), 1, Gfp::KERNEL).is_err());
            assert!(kmalloc.kfree(object.as_ptr()).is_err(), "of {size}");
        }
    }
    // SAFETY: these are no objects.
    unsafe {
        assert_eq!(kmalloc.kfree_sensitive(core::ptr::null_mut()), Ok(()));
        assert_eq!(kmalloc.kfree_sensitive(ZERO_SIZE_PTR.as_ptr()), Ok(()));
    }
    all_back(kmalloc, pages, before, &[]);
}

/// A named cache that only one test uses.
fn named(size: usize, flags: SlabFlags) -> &'static KmemCache {
    let cache = KmemCache::new("secrets", size, 4).unwrap();
    Box::leak(Box::new(cache.with_flags(flags.bits()).unwrap()))
}

#[test]
fn kfree_sensitive_leaves_no_byte_of_objects_of_named_caches() {
    const SIZE: usize = 20;
    let (kmalloc, pages) = machine(8);
    for flags in [SlabFlags::empty(), SlabFlags::PACKED] {
        let cache = named(SIZE, flags);
        let object = cache.alloc(pages, Gfp::KERNEL).unwrap();
        bytes(object, SIZE).fill(0xC3);
        // SAFETY: the object is the test's, and its memory RAM that nobody else uses.
        unsafe {
            assert_eq!(kmalloc.kfree_sensitive(object.as_ptr()), Ok(()));
            let tail = object.as_ptr().add(16).cast::<[u8; SIZE - 16]>().read();
            assert_ne!(tail, [0xC3; SIZE - 16], "{flags:?}");
        }
        assert!(!cache.shrink(pages));
    }
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "free objects are not marked")]
fn what_a_neighbour_or_a_constructor_left_is_no_mark() {
    const MARK: usize = 8;
    let (kmalloc, pages) = machine(8);
    let packed = named(8, SlabFlags::PACKED);
    let neighbours = [(); 2].map(|()| packed.alloc(pages, Gfp::KERNEL).unwrap());
    assert_eq!(
        neighbours[0].as_ptr().wrapping_add(MARK),
        neighbours[1].as_ptr()
    );
    // The mark the first would have if it were marked as others are.
    let mark = free_mark(neighbours[0]) as u64;
    bytes(neighbours[1], 8).copy_from_slice(&mark.to_ne_bytes());
    for object in neighbours {
        // SAFETY: the object is the test's.
        assert_eq!(unsafe { kmalloc.kfree_sensitive(object.as_ptr()) }, Ok(()));
    }
    assert!(!packed.shrink(pages));
    // A constructor that writes one byte leaves the marks of the slab before.
    let plain = named(64, SlabFlags::empty());
    let marked = plain.alloc(pages, Gfp::KERNEL).unwrap();
    // SAFETY: as above.
    unsafe { plain.free(pages, marked.as_ptr()) }.unwrap();
    assert!(!plain.shrink(pages));
    let cache = KmemCache::new("constructed", 64, 8).unwrap();
    // SAFETY: objects of the cache have a first byte.
    let cache = cache.with_constructor(|object| unsafe { object.write(1) });
    let cache: &KmemCache = Box::leak(Box::new(cache));
    let objects: Vec<_> = (0..64)
        .map(|_| cache.alloc(pages, Gfp::KERNEL).unwrap())
        .collect();
    assert!(objects.contains(&marked));
    for object in objects {
        // SAFETY: as above.
        assert_eq!(unsafe { kmalloc.kfree_sensitive(object.as_ptr()) }, Ok(()));
    }
    assert!(!cache.shrink(pages));
}

proptest! {
    /// A `Vec` that is resized the same way is the model of the content.
    #[test]
    #[cfg_attr(miri, ignore = "too many pages for an interpreter")]
    fn krealloc_follows_a_model(sizes in prop::collection::vec(
        prop_oneof![0..300usize, 0..9000usize, 0..70_000usize], 1..40,
    )) {
        // SAFETY: the case's machine is not used after it.
        let _ram = unsafe { crate::layout::host::lease() };
        let (kmalloc, pages) = machine(4);
        let before = pages.free_pages_total();
        let mut object: *mut u8 = core::ptr::null_mut();
        let mut model = Vec::<u8>::new();
        for (round, size) in sizes.into_iter().enumerate() {
            let usable = kmalloc.ksize(object).unwrap();
            // SAFETY: the object is the test's.
            let new = unsafe { kmalloc.krealloc(object, size, Gfp::KERNEL) }.unwrap();
            prop_assert_eq!(size > 0 && size <= usable, new.as_ptr() == object && size > 0);
            object = new.as_ptr();
            let kept = model.len().min(size);
            prop_assert!(size == 0 || bytes(new, kept) == &model[..kept]);
            model.clear();
            model.resize(size, round as u8);
            if size > 0 {
                bytes(new, size).fill(round as u8);
            }
        }
        // SAFETY: as above.
        prop_assert_eq!(unsafe { kmalloc.kfree(object) }, Ok(()));
        kmalloc.shrink();
        prop_assert_eq!(pages.free_pages_total(), before);
    }
}
