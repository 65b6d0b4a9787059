use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::arch::cpu;
use crate::mm::slab::SlabFlags;
use crate::mm::{Kmalloc, KmemCache, PageAllocator, testing};
use crate::sync::{IrqLock, PerCpu};
use core::ptr::NonNull;
use std::sync::Mutex;

/// Blocking, and silent.
const GFP: Gfp = Gfp::KERNEL.union(Gfp::NOWARN);

#[test]
fn kinds_are_numbered_apart() {
    let gfp = Gfp::KERNEL;
    let all = [
        Misuse::Context(Context::Task),
        Misuse::Context(Context::Interrupt),
        Misuse::Context(Context::LockHeld),
        Misuse::Context(Context::IrqsMasked),
        Misuse::Flags(GfpError::UnknownBits { bits: 0, gfp }),
        Misuse::Flags(GfpError::TwoZones(gfp)),
        Misuse::Flags(GfpError::TwoMigrateTypes(gfp)),
        Misuse::Flags(GfpError::NofailNoretry(gfp)),
        Misuse::Flags(GfpError::NofailNonblocking(gfp)),
        Misuse::NofailOrder(2),
        Misuse::OrderTooLarge(11),
        Misuse::NofailReclaim,
        Misuse::ObjectFlags(gfp),
        Misuse::ZeroSize,
        Misuse::WrongFree(VirtAddr::new(0)),
        Misuse::CoherentCompound,
        Misuse::TooLarge(0),
        Misuse::Constructed(""),
        Misuse::UsercopyWindow(""),
        Misuse::CoherentKept(VirtAddr::new(0)),
    ];
    assert!(all.iter().map(|misuse| misuse.kind()).eq(0..KINDS));
}

#[test]
fn silent_misuses_leave_the_report_to_the_first_loud_one() {
    let reported = AtomicU32::new(0);
    let told = |misuse: Misuse, gfp| misuse.is_reported_now(&reported, gfp);
    let (large, nofail) = (Misuse::OrderTooLarge(11), Misuse::NofailOrder(2));
    assert!(!told(large, GFP));
    assert!(told(large, Gfp::KERNEL));
    assert!(!told(Misuse::OrderTooLarge(12), Gfp::KERNEL));
    assert!(!told(large, GFP));
    assert!(told(nofail, Gfp::KERNEL));
    assert!(!told(nofail, Gfp::KERNEL));
}

/// The only test that sets the hook, so that nothing was reported before.
#[test]
fn the_hook_is_told_once_of_each_kind_and_never_of_a_silent_one() {
    static TOLD: Mutex<Vec<(Misuse, Gfp)>> = Mutex::new(Vec::new());
    set_misuse_hook(|misuse, gfp| TOLD.lock().unwrap().push((misuse, gfp)));
    let pages = untouched_pages();
    let ask = |gfp, order| {
        if let Ok(pfn) = pages.alloc_pages(gfp, order) {
            // SAFETY: just allocated, never touched.
            unsafe { pages.free_pages(pfn, order) }.unwrap();
        }
    };
    let nonblocking = Gfp::ATOMIC | Gfp::NOFAIL;
    for silence in [Gfp::NOWARN, Gfp::empty(), Gfp::empty()] {
        ask(Gfp::KERNEL | silence, 11);
        ask(Gfp::KERNEL | Gfp::NOFAIL | silence, 2);
        ask(nonblocking | silence, 0);
    }
    wrong_frees_are_counted();
    wrong_frees_are_counted();
    let told = TOLD.lock().unwrap();
    for misuse in [
        Misuse::WrongFree(VirtAddr::new(0)),
        Misuse::OrderTooLarge(11),
        Misuse::NofailOrder(2),
        Misuse::Flags(GfpError::NofailNonblocking(nonblocking)),
    ] {
        let of_kind = told
            .iter()
            .filter(|(other, _)| other.kind() == misuse.kind());
        assert_eq!(of_kind.count(), 1, "{misuse}");
    }
    assert!(told.iter().all(|(_, gfp)| !gfp.contains(Gfp::NOWARN)));
}

/// Frees an object, a page and a named object twice.
fn wrong_frees_are_counted() {
    let kind = Misuse::WrongFree(VirtAddr::new(0));
    let (pages, _) = testing::normal_machine(8);
    let kmalloc: &Kmalloc = Box::leak(Box::new(Kmalloc::new()));
    kmalloc.set_pages(pages);
    let before = kind.count();
    for size in [64, 20_000] {
        let mut pair = [(); 2].map(|()| kmalloc.kmalloc(size, GFP).unwrap());
        pair.sort();
        // Large ones merge: the second becomes the inside of a block.
        let [below, object] = pair;
        // SAFETY: just allocated, never touched.
        unsafe { kmalloc.kfree(below.as_ptr()) }.unwrap();
        // SAFETY: just allocated, never touched; the second free is refused.
        let [first, second] = [(); 2].map(|()| unsafe { kmalloc.kfree(object.as_ptr()) });
        let va = VirtAddr::from_ptr(object.as_ptr());
        assert_eq!(first, Ok(()));
        assert_eq!(second, Err(ObjectError::DoubleFree(va)), "{size} bytes");
    }
    for cache in caches() {
        let object = cache.alloc(pages, GFP).unwrap();
        // SAFETY: as above.
        let [first, second] = [(); 2].map(|()| unsafe { cache.free(pages, object.as_ptr()) });
        assert!(first.is_ok() && second.is_err(), "{second:?}");
    }
    let mut pair = [(); 2].map(|()| pages.alloc_pages(GFP, 0).unwrap());
    pair.sort();
    let [below, pfn] = pair;
    // SAFETY: as above.
    unsafe { pages.free_pages(below, 0) }.unwrap();
    // SAFETY: as above.
    let [first, second] = [(); 2].map(|()| unsafe { pages.free_pages(pfn, 0) });
    assert_eq!((first, second), (Ok(()), Err(FreeError::DoubleFree(pfn))));
    // Other tests count too.
    assert!(kind.count() >= before + 6, "{}", kind.count() - before);
}

/// Runs `f` as each kind of code that may not block.
fn where_nothing_blocks(mut f: impl FnMut(Context)) {
    let lock = IrqLock::new(());
    let guard = lock.lock();
    f(Context::LockHeld);
    drop(guard);
    let irq = cpu::irq_save();
    f(Context::IrqsMasked);
    // A handler runs with IRQs masked.
    PerCpu::current().irq_entered();
    f(Context::Interrupt);
    PerCpu::current().irq_left();
    cpu::irq_restore(irq);
}

/// `call` allocates with [`GFP`] and frees, so that what it wants is at hand when it is next made:
/// where nothing may block it is refused all the same, by name, and counted.
fn is_refused(call: impl Fn() -> Result<(), AllocError>) {
    for _ in 0..2 {
        assert_eq!(call(), Ok(()));
    }
    where_nothing_blocks(|context| {
        let kind = Misuse::Context(context);
        let before = kind.count();
        let refused = call();
        assert!(
            matches!(refused, Err(AllocError::Context { context: named, .. }) if named == context),
            "in {context}: {refused:?}"
        );
        // Other tests count too.
        assert!(kind.count() > before, "{context} is not counted");
    });
    assert_eq!(call(), Ok(()));
}

/// Pages that are kept at hand and never touched.
fn untouched_pages() -> &'static PageAllocator {
    let ram = PhysRange::from_size(PhysAddr::new(0), 256 << 20).unwrap();
    testing::with_lists(&[ram])
}

#[test]
fn pages_at_hand_are_refused_where_nothing_blocks() {
    let pages = untouched_pages();
    for order in 0..=4 {
        is_refused(|| {
            let pfn = pages.alloc_pages(GFP, order)?;
            // SAFETY: allocated above, never touched.
            unsafe { pages.free_pages(pfn, order) }.unwrap();
            Ok(())
        });
    }
}

#[test]
fn objects_at_hand_are_refused_where_nothing_blocks() {
    let kmalloc: &Kmalloc = Box::leak(Box::new(Kmalloc::new()));
    kmalloc.set_pages(testing::normal_machine(8).0);
    for size in [1, 64, 500, 8192, 20_000] {
        is_refused(|| {
            let object = kmalloc.kmalloc(size, GFP)?;
            // SAFETY: allocated above, never touched.
            unsafe { kmalloc.kfree(object.as_ptr()) }.unwrap();
            Ok(())
        });
    }
}

/// Caches of each kind: with magazines, and the two without.
fn caches() -> [&'static KmemCache; 3] {
    fn construct(_: NonNull<u8>) {}
    let new = |size| KmemCache::new("test", size, 8).unwrap();
    let packed = new(16).with_flags(SlabFlags::PACKED.bits()).unwrap();
    [new(192), new(192).with_constructor(construct), packed]
        .map(|cache| &*Box::leak(Box::new(cache)))
}

#[test]
fn objects_of_named_caches_are_refused_where_nothing_blocks() {
    let (pages, _) = testing::normal_machine(8);
    for cache in caches() {
        is_refused(|| {
            let object = cache.alloc(pages, GFP)?;
            // SAFETY: allocated above, never touched.
            unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
            Ok(())
        });
    }
}

#[test]
fn many_objects_are_refused_where_nothing_blocks() {
    let (pages, _) = testing::normal_machine(8);
    for cache in caches() {
        is_refused(|| {
            let mut objects = [None; 4];
            cache.alloc_bulk(pages, GFP, &mut objects)?;
            // SAFETY: allocated above, never touched.
            unsafe { cache.free_bulk(pages, &mut objects) }.unwrap();
            Ok(())
        });
    }
}

#[test]
fn what_a_cache_cannot_do_is_counted() {
    let (pages, _) = testing::normal_machine(8);
    let [_, constructed, _] = caches();
    let (zeroed, windows) = (Misuse::Constructed(""), Misuse::UsercopyWindow(""));
    let before = zeroed.count();
    assert!(constructed.alloc(pages, GFP | Gfp::ZERO).is_err());
    assert!(zeroed.count() > before);
    let cache = KmemCache::new("window", 64, 8).unwrap();
    let cache = &*Box::leak(Box::new(cache.with_usercopy(60, 8)));
    let before = windows.count();
    let object = cache.alloc(pages, GFP).unwrap();
    assert!(windows.count() > before);
    // SAFETY: just allocated, never touched.
    unsafe { cache.free(pages, object.as_ptr()) }.unwrap();
}
