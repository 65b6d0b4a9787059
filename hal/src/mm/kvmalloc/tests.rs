use super::*;
use crate::addr::Pfn;
use crate::mm::testing::normal_machine;
use crate::mm::{MemoryTypeError, PageAllocator};
use crate::mmu::MemoryType;
use crate::mmu::kernel::scratch_mapper;
use crate::sync::{Context, IrqLock};

struct Pages(&'static PageAllocator);

// SAFETY: frames of a page allocator.
unsafe impl PageSource for Pages {
    const MAX_ORDER: u32 = 0;

    fn alloc(&self, order: u32, gfp: Gfp) -> Option<Pfn> {
        self.0.alloc_pages(gfp, order).ok()
    }

    unsafe fn free(&self, pfn: Pfn, order: u32) {
        // SAFETY: handed on to the caller.
        unsafe { self.0.free_pages(pfn, order) }.unwrap();
    }

    fn total_frames(&self) -> usize {
        self.0.managed_pages() as usize
    }

    fn check_memory_type(&self, pfn: Pfn, wanted: MemoryType) -> Result<(), MemoryTypeError> {
        self.0.frames().check_memory_type(pfn, wanted)
    }
}

struct Machine {
    pages: &'static PageAllocator,
    kmalloc: Kmalloc,
    vmalloc: Vmalloc<Pages>,
}

impl Machine {
    fn new() -> Self {
        let (pages, _) = normal_machine(8);
        let kmalloc = Kmalloc::new();
        kmalloc.set_pages(pages);
        let tables = Box::leak(Box::new(IrqLock::new(scratch_mapper(8))));
        // SAFETY: nobody else has the tables.
        let vmalloc = unsafe { Vmalloc::new(tables, Box::leak(Box::new(Pages(pages)))) };
        Self {
            pages,
            kmalloc,
            vmalloc,
        }
    }

    fn kv(&self) -> Kvmalloc<'_, Pages> {
        Kvmalloc::new(&self.kmalloc, Some(&self.vmalloc))
    }

    /// Leaves every other page free, so that no block is.
    fn fragment(&self) {
        let mut taken = Vec::new();
        while let Ok(pfn) = self.pages.alloc_pages(Gfp::KERNEL | Gfp::MEMALLOC, 0) {
            taken.push(pfn);
        }
        for pfn in taken.into_iter().filter(|pfn| pfn.is_order_aligned(1)) {
            // SAFETY: just allocated.
            unsafe { self.pages.free_pages(pfn, 0) }.unwrap();
        }
    }
}

fn is_vmalloc(object: NonNull<u8>) -> bool {
    is_vmalloc_addr(VirtAddr::from_ptr(object.as_ptr()))
}

#[test]
fn contiguous_memory_is_preferred() {
    let machine = Machine::new();
    for size in [1, PAGE_SIZE, 64 << 10, 1 << 20] {
        let object = machine.kv().kvmalloc(size, Gfp::KERNEL).unwrap();
        assert!(!is_vmalloc(object));
        // SAFETY: just allocated.
        unsafe { machine.kv().kvfree(object.as_ptr()) }.unwrap();
    }
    assert_eq!(machine.kv().kvmalloc(0, Gfp::KERNEL), Ok(ZERO_SIZE_PTR));
}

#[test]
fn what_may_block_is_refused_under_a_lock() {
    let machine = Machine::new();
    let call = |size| {
        let object = machine.kv().kvmalloc(size, Gfp::KERNEL)?;
        // SAFETY: just allocated.
        unsafe { machine.kv().kvfree(object.as_ptr()) }
    };
    let lock = IrqLock::new(());
    for size in [64, 16 << 10] {
        // What is freed stays at hand.
        assert_eq!(call(size), Ok(()));
        let guard = lock.lock();
        let refused = call(size);
        drop(guard);
        let context = Context::LockHeld;
        assert!(
            matches!(refused, Err(KvmallocError::Kmalloc(AllocError::Context { context: found, .. })) if found == context),
            "{refused:?}"
        );
    }
}

#[test]
#[cfg_attr(feature = "slab-debug", ignore = "red zones take a larger block")]
fn only_large_requests_that_may_do_everything_fall_back() {
    let machine = Machine::new();
    machine.fragment();
    let size = 64 << 10;
    let hard = Gfp::KERNEL | Gfp::RETRY_MAYFAIL;
    for gfp in [Gfp::KERNEL, hard, hard | Gfp::NOFAIL, Gfp::USER] {
        let mut object = machine.kv().kvmalloc(size, gfp).unwrap();
        assert!(is_vmalloc(object), "{gfp:?}");
        // What has moved grows with the flags it was allocated with.
        // SAFETY: just allocated.
        object = unsafe { machine.kv().kvrealloc(object.as_ptr(), 2 * size, gfp) }.unwrap();
        assert!(is_vmalloc(object), "{gfp:?}");
        // SAFETY: just allocated.
        unsafe { machine.kv().kvfree(object.as_ptr()) }.unwrap();
    }
    for gfp in [Gfp::ATOMIC, Gfp::NOWAIT, Gfp::NOIO, Gfp::NOFS] {
        let refused = machine.kv().kvmalloc(size, gfp);
        assert!(matches!(refused, Err(KvmallocError::Kmalloc(_))), "{gfp:?}");
    }
    let small = machine.kv().kvmalloc(PAGE_SIZE, Gfp::KERNEL).unwrap();
    assert!(!is_vmalloc(small));
}

#[test]
fn sizes_that_cannot_be_are_named() {
    let machine = Machine::new();
    let size = KVMALLOC_MAX_SIZE + 1;
    let gfp = Gfp::KERNEL;
    let too_large = KvmallocError::TooLarge { size, gfp };
    assert_eq!(machine.kv().kvmalloc(size, gfp), Err(too_large));
    let n = usize::MAX / 2;
    let overflow = Err(KvmallocError::Overflow { n, size: 3 });
    assert_eq!(machine.kv().kvmalloc_array(n, 3, gfp), overflow);
    assert_eq!(machine.kv().kvcalloc(n, 3, gfp), overflow);
}

#[test]
fn kvrealloc_keeps_the_content_wherever_it_moves() {
    let machine = Machine::new();
    let byte = |object: NonNull<u8>, offset: usize| {
        let va = VirtAddr::from_ptr(object.as_ptr()) + offset;
        let va = match machine.vmalloc.vmalloc_to_page(va) {
            Ok(pfn) => crate::layout::phys_to_virt(pfn.phys() + va.page_offset()),
            Err(_) => va,
        };
        va.as_ptr::<u8>()
    };
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    // SAFETY: every block is the test's, and the old one is not used after the call.
    unsafe {
        let first = machine
            .kv()
            .kvrealloc(core::ptr::null_mut(), 100, gfp)
            .unwrap();
        byte(first, 99).write(7);
        let same = machine.kv().kvrealloc(first.as_ptr(), 90, gfp).unwrap();
        assert_eq!(same, first);
        assert_eq!(byte(first, 99).read(), 0, "given up");
        byte(first, 89).write(8);
        machine.fragment();
        let moved = machine.kv().kvrealloc(first.as_ptr(), 40_000, gfp).unwrap();
        assert!(is_vmalloc(moved));
        assert_eq!(byte(moved, 89).read(), 8);
        assert_eq!(byte(moved, 39_999).read(), 0);
        let grown = machine.kv().kvrealloc(moved.as_ptr(), 80_000, gfp).unwrap();
        assert_eq!(byte(grown, 89).read(), 8);
        let huge = KVMALLOC_MAX_SIZE;
        assert!(machine.kv().kvrealloc(grown.as_ptr(), huge, gfp).is_err());
        assert_eq!(byte(grown, 89).read(), 8, "a failure leaves the old memory");
        let gone = machine.kv().kvrealloc(grown.as_ptr(), 0, gfp).unwrap();
        assert_eq!(gone, ZERO_SIZE_PTR);
        machine.kv().kvfree(gone.as_ptr()).unwrap();
        machine.kv().kvfree(core::ptr::null_mut()).unwrap();
        machine.vmalloc.vfree(VirtAddr::new(0)).unwrap();
        let twice = machine.kv().kvfree(grown.as_ptr());
        assert!(matches!(twice, Err(KvmallocError::Vmalloc(_))));
    }
}

#[test]
fn what_is_wrong_with_the_request_is_counted() {
    let machine = Machine::new();
    let kv = machine.kv();
    let wrong_free = Misuse::WrongFree(VirtAddr::new(0));
    let counts = || (Misuse::TooLarge(0).count(), wrong_free.count());
    let gfp = Gfp::KERNEL;
    let (large, frees) = counts();
    let beyond = KVMALLOC_MAX_SIZE + 1;
    let too_large = Err(KvmallocError::TooLarge { size: beyond, gfp });
    assert_eq!(kv.kvmalloc(beyond, gfp), too_large);
    // More than the machine has.
    assert!(kv.kvmalloc(64 << 20, gfp).is_err());
    let window = crate::layout::VMALLOC.base.as_ptr();
    let image = crate::layout::IMAGE.base.as_ptr();
    // SAFETY: nothing in use starts at either address.
    unsafe {
        assert_eq!(kv.kvrealloc(window, beyond, gfp), too_large);
        assert!(kv.kvrealloc(window, PAGE_SIZE, gfp).is_err());
        assert!(kv.kvfree(window).is_err());
        assert!(kv.kvfree(image).is_err());
    }
    // Other tests count too.
    let now = counts();
    assert!(now.0 >= large + 3 && now.1 >= frees + 3, "{now:?}");
}
