mod bulk;

use super::*;
use crate::addr::Pfn;
use crate::mm::fault;
use crate::mm::frame::FrameKind;
use crate::mm::page::PageAllocator;
use crate::mm::testing::{PageCache, normal_machine};
use crate::mm::{AllocError, Gfp};
use crate::smp::{self, tests::spawn_other_core};
use crate::sync::IrqLock;
use core::ptr::NonNull;

fn new_cache(name: &'static str, size: usize, align: usize) -> &'static KmemCache {
    Box::leak(Box::new(KmemCache::new(name, size, align).unwrap()))
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "a red zone comes first")]
fn objects_start_at_the_first_byte_of_a_slab() {
    let (pages, _) = normal_machine(8);
    let cache = new_cache("test", 320, 64);
    let object = cache.alloc(pages, Gfp::KERNEL).unwrap();
    let pa = layout::virt_to_phys(VirtAddr::from_ptr(object.as_ptr())).unwrap();
    let frame = pages.frames().get(pa.pfn()).unwrap();
    let slab = pa.align_down(4096 << frame.slab_order());
    assert_eq!((pa.get() - slab.get()) % 320, 0);
    assert_eq!(frame.kind(), FrameKind::Slab);
    // SAFETY: the object is ours.
    unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
}

#[test]
fn each_wrong_free_has_its_name() {
    let (pages, _) = normal_machine(8);
    let cache = new_cache("test", 64, 64);
    let other = new_cache("other", 64, 64);
    let object = cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr();
    let foreign = other.alloc(pages, Gfp::KERNEL).unwrap().as_ptr();
    // SAFETY: only the last two frees of `object` reach an object in use, and it is ours.
    let free = |at| unsafe { cache.free(pages, at) };
    let va = VirtAddr::from_ptr(object);
    assert!(matches!(free(foreign), Err(ObjectError::WrongCache { .. })));
    for wrong in [8, 1, 32] {
        let va = va + wrong;
        assert_eq!(free(va.as_ptr()), Err(ObjectError::NotAtObject(va)));
    }
    let never_used = va.align_down(4096);
    assert_eq!(
        free(never_used.as_ptr()),
        Err(ObjectError::NotAtObject(never_used))
    );
    assert_eq!(free(object), Ok(()));
    let (second, third) = (
        cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr(),
        cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr(),
    );
    assert_eq!(second, object);
    free(second).unwrap();
    free(third).unwrap();
    assert_eq!(free(second), Err(ObjectError::DoubleFree(va)));
    let vmalloc = layout::VMALLOC.base;
    assert_eq!(
        free(vmalloc.as_ptr()),
        Err(ObjectError::VmallocAddress(vmalloc))
    );
    let image = layout::IMAGE.base;
    assert_eq!(free(image.as_ptr()), Err(ObjectError::NotDirectMap(image)));
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "slabs hold fewer objects")]
fn a_double_free_is_found_after_the_object_went_back_to_its_slab() {
    let (pages, _) = normal_machine(8);
    let cache = new_cache("test", 64, 64);
    let objects: Vec<_> = (0..128)
        .map(|_| cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr())
        .collect();
    for object in &objects[1..] {
        // SAFETY: the objects are ours.
        unsafe { cache.free(pages, *object) }.unwrap();
    }
    cache.shrink(pages);
    for object in &objects[1..64] {
        // SAFETY: a free object is refused.
        let again = unsafe { cache.free(pages, *object) };
        assert_eq!(
            again,
            Err(ObjectError::DoubleFree(VirtAddr::from_ptr(*object)))
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn all_pages_come_back() {
    let (pages, _) = normal_machine(16);
    let before = pages.zone(crate::mm::ZoneKind::Normal);
    let cache = new_cache("test", 200, 8);
    let objects: Vec<_> = (0..3000)
        .map(|_| cache.alloc(pages, Gfp::KERNEL).unwrap())
        .collect();
    assert!(cache.info().objects_out >= 3000);
    // Every other object first, so that slabs pass through every list.
    for odd in [true, false] {
        for (at, object) in objects.iter().enumerate() {
            if (at % 2 == 1) == odd {
                // SAFETY: the objects are ours, each freed once.
                unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
            }
        }
    }
    cache.shrink(pages);
    assert_eq!((cache.info().slabs, cache.info().objects_out), (0, 0));
    assert_eq!(pages.zone(crate::mm::ZoneKind::Normal), before);
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn without_large_blocks_slabs_are_small() {
    let (pages, _) = normal_machine(4);
    // Every other page taken: no block above order 0 is left.
    let mut taken = Vec::new();
    while let Ok(pfn) = pages.alloc_pages(Gfp::KERNEL | Gfp::MEMALLOC, 0) {
        taken.push(pfn);
    }
    for pfn in taken.iter().filter(|pfn| pfn.get() % 2 == 0) {
        // SAFETY: the page is ours.
        unsafe { pages.free_pages(*pfn, 0) }.unwrap();
    }
    let cache = new_cache("test", 1024, 64);
    let object = cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr();
    // SAFETY: the object is ours.
    unsafe {
        object.write_bytes(0xFF, 1024);
        cache.free(pages, object).unwrap();
    }
    let free = pages.free_pages_total();
    cache.shrink(pages);
    assert!(pages.free_pages_total() > free);
}

#[test]
#[cfg_attr(miri, ignore = "too many pages for an interpreter")]
fn nothing_is_reclaimed_for_a_slab_larger_than_it_must_be() {
    let (pages, _) = normal_machine(4);
    let held = PageCache::register(pages, "cache", Gfp::empty(), 0);
    let mut taken = Vec::new();
    while let Ok(pfn) = pages.alloc_pages(Gfp::NOWAIT | Gfp::MEMALLOC, 0) {
        taken.push(pfn);
    }
    for pfn in taken.iter().filter(|pfn| pfn.get() % 2 == 0) {
        // SAFETY: the page is ours.
        unsafe { pages.free_pages(*pfn, 0) }.unwrap();
    }
    held.fill(Gfp::NOWAIT, 1);
    let before = pages.reclaim_info();
    let cache = new_cache("opportune", 1024, 64);
    assert!(cache.geometry.preferred_order > cache.geometry.smallest_order);
    let object = cache.alloc(pages, Gfp::KERNEL).unwrap();
    let after = pages.reclaim_info();
    assert_eq!(
        (after.direct_passes, after.wakes, held.scans()),
        (before.direct_passes, before.wakes, 0)
    );
    // SAFETY: the object is ours.
    unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
    cache.shrink(pages);
}

#[test]
fn cores_free_what_other_cores_allocated() {
    let (pages, _) = normal_machine(16);
    let before = pages.zone(crate::mm::ZoneKind::Normal);
    let cache = new_cache("smp", 128, 64);
    let (rounds, threads) = if cfg!(miri) { (20, 2) } else { (5000, 4) };
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads)
        .map(|_| std::sync::mpsc::channel::<(usize, u8)>())
        .unzip();
    std::thread::scope(|scope| {
        for (core, inbox) in receivers.into_iter().enumerate() {
            let to = senders[(core + 1) % threads].clone();
            scope.spawn(move || {
                for round in 0..rounds {
                    let object = cache.alloc(pages, Gfp::KERNEL).unwrap().as_ptr();
                    let fill = (round * 7 + core) as u8;
                    // SAFETY: the object is this thread's.
                    unsafe { object.write_bytes(fill, 128) };
                    to.send((object.expose_provenance(), fill)).unwrap();
                    let (object, fill) = inbox.recv().unwrap();
                    let object = core::ptr::with_exposed_provenance_mut::<u8>(object);
                    // SAFETY: the sender gave the object up.
                    unsafe {
                        let bytes = core::slice::from_raw_parts(object, 128);
                        assert!(bytes.iter().all(|byte| *byte == fill));
                        cache.free(pages, object).unwrap();
                    }
                }
                cache.shrink(pages);
            });
        }
    });
    assert_eq!(cache.info().objects_out, 0);
    assert_eq!(pages.zone(crate::mm::ZoneKind::Normal), before);
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "objects lie apart")]
fn what_was_never_handed_out_is_not_freed() {
    fn construct(_: NonNull<u8>) {}
    let (pages, _) = normal_machine(8);
    let new = |size| KmemCache::new("untaken", size, 8).unwrap();
    let packed = new(16).with_flags(SlabFlags::PACKED.bits()).unwrap();
    for (cache, size) in [
        (new(64), 64),
        (new(64).with_constructor(construct), 64),
        (packed, 16),
    ] {
        let cache: &KmemCache = Box::leak(Box::new(cache));
        // The second fills the magazine, if there is one.
        let taken = [(); 2].map(|()| cache.alloc(pages, Gfp::KERNEL).unwrap());
        let page = VirtAddr::from_ptr(taken[0].as_ptr()).align_down(4096);
        let others = (0..4096 / 64).map(|number| page + number * size);
        for va in others.filter(|va| taken.iter().all(|it| it.as_ptr() != va.as_ptr())) {
            // SAFETY: no object in use starts there.
            let freed = unsafe { cache.free(pages, va.as_ptr()) };
            assert_eq!(freed, Err(ObjectError::DoubleFree(va)), "{size}");
        }
        for object in taken {
            // SAFETY: the object is ours.
            unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
        }
        assert!(!cache.shrink(pages));
    }
}

/// A cache with a constructor that counts its calls and leaves a known state.
mod constructed {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};

    static CALLS: AtomicUsize = AtomicUsize::new(0);
    const STATE: u64 = 0x1234_5678_9ABC_DEF0;

    fn constructor(object: NonNull<u8>) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        for word in 0..8 {
            // SAFETY: objects of this cache have 64 bytes.
            unsafe { object.cast::<u64>().add(word).write(STATE) };
        }
    }

    #[test]
    #[cfg_attr(feature = "slab-debug", ignore = "slabs hold fewer objects")]
    fn the_constructor_runs_once_for_each_object_of_a_slab() {
        let (pages, _) = normal_machine(8);
        let cache = KmemCache::new("constructed", 64, 64).unwrap();
        let cache = Box::leak(Box::new(cache.with_constructor(constructor)));
        let gfp = Gfp::KERNEL | Gfp::ZERO;
        assert_eq!(
            cache.alloc(pages, gfp),
            Err(AllocError::Constructed { gfp })
        );
        for _ in 0..10 {
            let objects: Vec<_> = (0..64)
                .map(|_| cache.alloc(pages, Gfp::KERNEL).unwrap())
                .collect();
            for object in objects {
                // SAFETY: the object is ours until it is freed, and a free one is refused.
                unsafe {
                    assert_eq!(object.cast::<[u64; 8]>().read(), [STATE; 8]);
                    cache.free(pages, object.as_ptr()).unwrap();
                    let va = VirtAddr::from_ptr(object.as_ptr());
                    let again = cache.free(pages, object.as_ptr());
                    assert_eq!(again, Err(ObjectError::DoubleFree(va)));
                }
            }
        }
        assert_eq!(CALLS.load(Ordering::Relaxed), 64);
        assert!(!cache.shrink(pages));
    }
}

/// Destroys a cache that only the calling test uses.
fn destroy(
    cache: &'static KmemCache,
    pages: &PageAllocator,
    remaining: impl FnMut(VirtAddr),
) -> Result<(), DestroyError> {
    // SAFETY: nobody else knows the cache, and the caller waits.
    unsafe { cache.destroy(pages, remaining) }
}

#[test]
fn destroy_is_refused_with_objects_in_use_and_lists_them() {
    let (pages, _) = normal_machine(8);
    let cache = new_cache("destroyed", 128, 8);
    assert_eq!(destroy(cache, pages, |_| ()), Ok(()));
    let objects: Vec<_> = (0..70)
        .map(|_| cache.alloc(pages, Gfp::KERNEL).unwrap())
        .collect();
    assert!(named_caches().any(|listed| core::ptr::eq(listed, cache)));
    for object in &objects[2..] {
        // SAFETY: the object is ours.
        unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
    }
    let mut listed = Vec::new();
    let refused = destroy(cache, pages, |va| listed.push(va));
    let remaining = DestroyError::Remaining {
        cache: "destroyed",
        objects: 2,
    };
    assert_eq!(refused, Err(remaining));
    let mut expected = [objects[0], objects[1]].map(|o| VirtAddr::from_ptr(o.as_ptr()));
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
    for object in &objects[..2] {
        // SAFETY: the object is ours.
        unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
    }
    assert_eq!(destroy(cache, pages, |_| ()), Ok(()));
    assert!(!named_caches().any(|listed| core::ptr::eq(listed, cache)));
    let object = cache.alloc(pages, Gfp::KERNEL).unwrap();
    // SAFETY: the object is ours.
    unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
    assert_eq!(destroy(cache, pages, |_| ()), Ok(()));
}

#[test]
fn destroy_takes_what_other_cores_have_at_hand() {
    let (pages, _) = normal_machine(8);
    let cache = new_cache("elsewhere", 128, 8);
    let other = spawn_other_core();
    smp::run_on(other, || {
        let object = cache.alloc(pages, Gfp::KERNEL).unwrap();
        // SAFETY: the object is ours.
        unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
    })
    .unwrap();
    assert_ne!(cache.info().slabs, 0);
    assert_eq!(destroy(cache, pages, |_| ()), Ok(()));
    assert_eq!(cache.info().slabs, 0);
    let locked = IrqLock::new(());
    let object = cache.alloc(pages, Gfp::KERNEL).unwrap();
    // SAFETY: the object is ours.
    unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
    let guard = locked.lock();
    let refused = destroy(cache, pages, |_| ());
    drop(guard);
    assert!(matches!(refused, Err(DestroyError::Cores { .. })));
    assert_eq!(destroy(cache, pages, |_| ()), Ok(()));
}

#[test]
fn what_a_cache_cannot_charge_it_refuses() {
    let (pages, _) = normal_machine(4);
    let cache = new_cache("uncharged", 64, 64);
    // One is at hand afterwards.
    let object = cache.alloc(pages, Gfp::KERNEL).unwrap();
    // SAFETY: the object is ours.
    unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
    let gfp = Gfp::KERNEL_ACCOUNT;
    let refused = AllocError::NotAccounted {
        cache: "uncharged",
        gfp,
    };
    assert_eq!(cache.alloc(pages, gfp), Err(refused));
    let mut objects = [None; 3];
    assert_eq!(cache.alloc_bulk(pages, gfp, &mut objects), Err(refused));
    assert_eq!(objects, [None; 3]);
    assert!(!cache.shrink(pages));
}

#[test]
fn shrinking_leaves_every_allocation_to_be_counted() {
    let (pages, _) = normal_machine(4);
    let cache = new_cache("counted", 64, 64);
    // It keeps its slab, so that no page is needed and counted below.
    let held = cache.alloc(pages, Gfp::KERNEL).unwrap();
    assert!(cache.shrink(pages));
    fault::fail_nth(3);
    let objects = [(); 4].map(|()| cache.alloc(pages, Gfp::KERNEL).ok());
    fault::disarm();
    assert_eq!(
        objects.map(|object| object.is_some()),
        [true, true, false, true]
    );
    for object in objects.into_iter().flatten().chain([held]) {
        // SAFETY: the objects are ours.
        unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
    }
}

#[test]
fn bulk_allocates_all_objects_or_none() {
    let (pages, _) = normal_machine(4);
    let before = pages.free_pages_total();
    let cache = new_cache("bulk", 4096, 8);
    let mut objects = [None; 2000];
    let refused = cache.alloc_bulk(pages, Gfp::ATOMIC, &mut objects);
    assert!(matches!(refused, Err(AllocError::NoMemory { .. })));
    assert!(objects.iter().all(Option::is_none));
    let few = &mut objects[..100];
    cache.alloc_bulk(pages, Gfp::KERNEL, few).unwrap();
    assert!(few.iter().all(Option::is_some));
    // SAFETY: the objects are ours.
    unsafe { cache.free_bulk(pages, few) }.unwrap();
    assert!(few.iter().all(Option::is_none));
    assert!(!cache.shrink(pages));
    assert_eq!(pages.free_pages_total(), before);
}

#[test]
fn only_the_usercopy_window_is_copied_out() {
    let (pages, _) = normal_machine(4);
    let cache = KmemCache::new("window", 100, 8)
        .unwrap()
        .with_usercopy(16, 8);
    let cache = Box::leak(Box::new(cache));
    let object = cache.zalloc_filled(pages, 0x5A);
    let mut bytes = [0; 8];
    let copy = |offset, to: &mut [u8]| {
        // SAFETY: nobody writes the object.
        unsafe { cache.copy_out(pages, object.as_ptr(), offset, to) }
    };
    assert_eq!(copy(16, &mut bytes), Ok(()));
    assert_eq!(bytes, [0x5A; 8]);
    for (offset, len) in [(15, 8), (17, 8), (24, 1), (usize::MAX, 2)] {
        let refused = copy(offset, &mut bytes[..len]);
        assert!(matches!(refused, Err(ObjectError::Usercopy { .. })));
    }
    // SAFETY: the object is ours.
    unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
    let bad = KmemCache::new("bad", 100, 8).unwrap().with_usercopy(96, 8);
    assert!(bad.rejected_usercopy());
    assert_eq!(bad.usercopy(), 0..0);
}

impl KmemCache {
    /// An object whose bytes are all `fill`.
    fn zalloc_filled(&'static self, pages: &PageAllocator, fill: u8) -> NonNull<u8> {
        let object = self.alloc(pages, Gfp::KERNEL | Gfp::ZERO).unwrap();
        // SAFETY: the object is ours.
        unsafe { object.write_bytes(fill, self.object_size()) };
        object
    }
}

#[test]
fn unknown_flags_are_an_error() {
    let cache = || KmemCache::new("flags", 64, 8).unwrap();
    let all = SlabFlags::all().difference(SlabFlags::PACKED);
    assert!(cache().with_flags(all.bits()).is_ok());
    assert_eq!(cache().with_flags(3).err(), Some(CacheError::Flags(3)));
}

#[test]
#[cfg_attr(miri, ignore = "too many objects for an interpreter")]
#[cfg_attr(
    feature = "slab-debug",
    ignore = "red zones take more memory than there is"
)]
fn a_call_moves_few_objects_and_at_most_one_slab() {
    let (pages, _) = normal_machine(16);
    for size in [64, 192, 1024, 4096, 8192] {
        let cache = new_cache("bounded", size, 64);
        let mut before = cache.info();
        let mut check = |most: u32| {
            let now = cache.info();
            let moved = now.objects_out.abs_diff(before.objects_out);
            let slabs = now.slabs.abs_diff(before.slabs);
            assert!(slabs <= 1 && moved <= if slabs == 0 { most } else { 1 });
            before = now;
        };
        let count = (8 << 20) / size.max(1024);
        let mut objects = Vec::new();
        for _ in 0..count {
            objects.push(cache.alloc(pages, Gfp::KERNEL).unwrap());
            check(32);
        }
        // First one object of each slab, then the rest, so that both lists grow long.
        for part in 0..8 {
            for object in objects.iter().skip(part).step_by(8) {
                // SAFETY: the object is ours, and freed once.
                unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
                check(slabs::MAX_GIVEN as u32);
            }
        }
        assert!(!cache.shrink(pages));
    }
}
