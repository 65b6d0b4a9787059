//! The machine's windows: `vmalloc`, `kvmalloc`, temporary mappings, device registers.

use super::{KMALLOC, alloc_pages, free_pages, pages};
use crate::addr::{Pfn, PhysRange, VirtAddr};
use crate::deferred::{self, Work};
use crate::memory_map::MAX_RAM;
use crate::mm::*;
use crate::mmu::{KernelMapper, MemoryType};
use crate::sync::{IrqLock, Once};
use core::ptr::NonNull;

/// The machine's page allocator as the source of `vmalloc` memory.
#[derive(Debug)]
struct MachinePages;

// SAFETY: the page allocator's frames are RAM in the direct map, aligned to their size, and the
// caller's until they are freed.
unsafe impl PageSource for MachinePages {
    const MAX_ORDER: u32 = MAX_ORDER;

    #[inline(always)]
    fn alloc(&self, order: u32, gfp: Gfp) -> Option<Pfn> {
        let gfp = match order {
            0 => gfp,
            // A smaller run will do, so nothing is moved or reclaimed for a large one, and nobody
            // is woken to do so.
            _ => gfp
                .difference(Gfp::NOFAIL | Gfp::RETRY_MAYFAIL)
                .difference(Gfp::DIRECT_RECLAIM | Gfp::KSWAPD_RECLAIM)
                .union(Gfp::NOWARN),
        };
        alloc_pages(gfp, order).ok()
    }

    unsafe fn free(&self, pfn: Pfn, order: u32) {
        // SAFETY: handed on to the caller.
        let freed = unsafe { free_pages(pfn, order) };
        debug_assert_eq!(freed, Ok(()));
    }

    fn total_frames(&self) -> usize {
        pages().map_or(0, |pages| pages.managed_pages() as usize)
    }

    fn check_memory_type(&self, pfn: Pfn, wanted: MemoryType) -> Result<(), MemoryTypeError> {
        let pages = pages().ok_or(FrameError::Untouched(pfn))?;
        pages.frames().check_memory_type(pfn, wanted)
    }
}

static VMALLOC: Once<Vmalloc<MachinePages>> = Once::new();
static KMAP: Once<Kmap> = Once::new();
static IOREMAP: Once<Ioremap> = Once::new();
static RAM: Once<heapless::Vec<PhysRange, MAX_RAM>> = Once::new();

/// Sets up the machine's windows of `vmalloc` and of temporary mappings in `tables`; the first call
/// wins. After [`init`].
pub fn init_vmalloc(tables: &'static IrqLock<KernelMapper>) {
    // SAFETY: the machine's tables have one vmalloc window, and this runs once.
    VMALLOC.call_once(|| unsafe { Vmalloc::new(tables, &MachinePages) });
    KMAP.call_once(|| {
        Kmap::new(tables, |pfn, wanted| {
            MachinePages.check_memory_type(pfn, wanted)
        })
    });
    if let Some(pages) = pages() {
        // The boot code registers no more than there is room for, and a second call changes nothing.
        let _ = pages.register_shrinker(&reclaim::LazyPurge);
    }
    deferred::set_handler(Work::Vfree, || {
        if let Some(vmalloc) = VMALLOC.get() {
            vmalloc.run_deferred();
        }
    });
}

/// Sets up the machine's ioremap window in `tables`; the first call wins. Until [`set_ram`] no
/// range counts as RAM.
pub fn init_ioremap(tables: &'static IrqLock<KernelMapper>) {
    // SAFETY: the machine's tables have one ioremap window, and this runs once; the boot code says
    // where RAM is.
    IOREMAP.call_once(|| unsafe { Ioremap::new(tables, is_ram) });
}

/// Says where RAM is, used or not; the first call wins.
pub fn set_ram(ram: &[PhysRange]) {
    RAM.call_once(|| ram.iter().copied().take(MAX_RAM).collect());
}

/// Where RAM is, as far as [`set_ram`] has said.
pub fn ram() -> &'static [PhysRange] {
    RAM.get().map_or(&[], |ram| ram)
}

/// Whether `range` holds a byte of RAM, as far as [`set_ram`] has said.
pub fn is_ram(range: PhysRange) -> bool {
    RAM.get()
        .is_some_and(|ram| ram.iter().any(|ram| ram.overlaps(&range)))
}

/// Maps a frame of the machine for a moment: [`Kmap::kmap_local`].
///
/// # Errors
///
/// As there, and [`KmapError::NotReady`] before [`init_vmalloc`].
///
/// # Safety
///
/// As there.
#[doc(alias = "kmap_local_page")]
pub unsafe fn kmap_local(pfn: Pfn) -> Result<LocalMapping<'static>, KmapError> {
    let kmap = KMAP.get().ok_or(KmapError::NotReady)?;
    // SAFETY: handed on to the caller.
    unsafe { kmap.kmap_local(pfn) }
}

fn vmalloc_window() -> Result<&'static Vmalloc<MachinePages>, VmallocError> {
    VMALLOC.get().ok_or(VmallocError::NotReady)
}

/// Allocates memory contiguous in virtual addresses only: [`Vmalloc::vmalloc`].
///
/// # Errors
///
/// As there, and [`VmallocError::NotReady`] before [`init_vmalloc`].
pub fn vmalloc(size: usize) -> Result<VirtAddr, VmallocError> {
    vmalloc_window()?
        .vmalloc(size)
        .map_err(|error| error.noted(Gfp::KERNEL))
}

/// Allocates zeroed memory contiguous in virtual addresses only: [`Vmalloc::vzalloc`].
///
/// # Errors
///
/// As [`vmalloc`].
pub fn vzalloc(size: usize) -> Result<VirtAddr, VmallocError> {
    vmalloc_window()?
        .vzalloc(size)
        .map_err(|error| error.noted(Gfp::KERNEL))
}

/// Allocates memory contiguous in virtual addresses only, with flags: [`Vmalloc::vmalloc_with`].
///
/// # Errors
///
/// As [`vmalloc`].
#[doc(alias = "__vmalloc")]
pub fn vmalloc_with(size: usize, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
    vmalloc_window()?
        .vmalloc_with(size, gfp)
        .map_err(|error| error.noted(gfp))
}

/// Changes the size of what [`vmalloc()`] returned: [`Vmalloc::vrealloc`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn vrealloc(
    old: Option<VirtAddr>,
    size: usize,
    gfp: Gfp,
) -> Result<Option<VirtAddr>, VmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { vmalloc_window()?.vrealloc(old, size, gfp) }.map_err(|error| error.noted(gfp))
}

/// Frees what [`vmalloc()`] returned: [`Vmalloc::vfree`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn vfree(va: VirtAddr) -> Result<(), VmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { vmalloc_window()?.vfree(va) }.map_err(|error| error.noted(Gfp::empty()))
}

/// Maps pages to contiguous addresses: [`Vmalloc::vmap`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn vmap(pages: &[Pfn], protection: Protection) -> Result<VirtAddr, VmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { vmalloc_window()?.vmap(pages, protection) }.map_err(|error| error.noted(Gfp::KERNEL))
}

/// Removes a mapping of [`vmap`]: [`Vmalloc::vunmap`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn vunmap(va: VirtAddr) -> Result<(), VmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { vmalloc_window()?.vunmap(va) }.map_err(|error| error.noted(Gfp::empty()))
}

/// The frame behind an address of `vmalloc` memory: [`Vmalloc::vmalloc_to_page`].
///
/// # Errors
///
/// As there.
pub fn vmalloc_to_page(va: VirtAddr) -> Result<Pfn, VmallocError> {
    vmalloc_window()?.vmalloc_to_page(va)
}

/// Bytes of what [`vmalloc()`] returned: [`Vmalloc::vmalloc_size`].
///
/// # Errors
///
/// As there.
pub fn vmalloc_size(va: VirtAddr) -> Result<usize, VmallocError> {
    vmalloc_window()?.vmalloc_size(va)
}

/// Flushes and frees what `vfree` and `iounmap` put off: [`Vmalloc::vm_unmap_aliases`] and
/// [`Ioremap::vm_unmap_aliases`]. The frames freed. A task.
///
/// Reclaim calls it when memory runs short, ledgers before they count.
pub fn vm_unmap_aliases() -> usize {
    if let Some(ioremap) = IOREMAP.get() {
        ioremap.vm_unmap_aliases();
    }
    VMALLOC.get().map_or(0, Vmalloc::vm_unmap_aliases)
}

/// Pages that `vfree` has put off freeing: [`Vmalloc::pages_put_off`].
pub fn pages_put_off() -> usize {
    VMALLOC.get().map_or(0, Vmalloc::pages_put_off)
}

/// What of the `vmalloc` window waits for a flush: [`Vmalloc::purge_info`].
pub fn purge_info() -> Option<PurgeInfo> {
    VMALLOC.get().map(Vmalloc::purge_info)
}

/// What the `vmalloc` window holds: [`Vmalloc::usage`].
pub fn vmalloc_usage() -> Option<VmallocUsage> {
    VMALLOC.get()?.usage()
}

/// Frames that describe `vmalloc` areas, which are kept for good: [`Vmalloc::kept_frames`].
pub fn vmalloc_kept_frames() -> impl Iterator<Item = Pfn> {
    VMALLOC.get().into_iter().flat_map(Vmalloc::kept_frames)
}

/// The areas of the `vmalloc` window, then those of the ioremap window, by address. No lock is
/// held between two. Linux: `/proc/vmallocinfo`.
pub fn vmallocinfo() -> impl Iterator<Item = AreaInfo> {
    let mut from = VirtAddr::new(0);
    let vmalloc = core::iter::from_fn(move || {
        let area = VMALLOC.get()?.area_from(from)?;
        from = area.end();
        Some(area)
    });
    let mut from = VirtAddr::new(0);
    let ioremap = core::iter::from_fn(move || {
        let area = IOREMAP.get()?.area_from(from)?;
        from = area.end();
        Some(area)
    });
    vmalloc.chain(ioremap)
}

#[inline]
fn kv() -> Kvmalloc<'static, MachinePages> {
    Kvmalloc::new(&KMALLOC, VMALLOC.get())
}

/// Allocates contiguous memory if that is easy, else pages: [`Kvmalloc::kvmalloc`].
///
/// # Errors
///
/// As there.
#[inline]
pub fn kvmalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    kv().kvmalloc(size, gfp)
}

/// As [`kvmalloc`], zeroed: [`Kvmalloc::kvzalloc`].
///
/// # Errors
///
/// As there.
#[inline]
pub fn kvzalloc(size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    kv().kvzalloc(size, gfp)
}

/// As [`kvmalloc`], for `n` elements: [`Kvmalloc::kvmalloc_array`].
///
/// # Errors
///
/// As there.
#[inline]
pub fn kvmalloc_array(n: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    kv().kvmalloc_array(n, size, gfp)
}

/// As [`kvmalloc_array`], zeroed: [`Kvmalloc::kvcalloc`].
///
/// # Errors
///
/// As there.
#[inline]
pub fn kvcalloc(n: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    kv().kvcalloc(n, size, gfp)
}

/// Changes the size of what [`kvmalloc`] returned: [`Kvmalloc::kvrealloc`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn kvrealloc(old: *mut u8, size: usize, gfp: Gfp) -> Result<NonNull<u8>, KvmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { kv().kvrealloc(old, size, gfp) }
}

/// Frees memory of [`kvmalloc`], [`kmalloc`] or [`vmalloc()`]: [`Kvmalloc::kvfree`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
#[inline]
pub unsafe fn kvfree(address: *mut u8) -> Result<(), KvmallocError> {
    // SAFETY: handed on to the caller.
    unsafe { kv().kvfree(address) }
}

/// Maps device registers: [`Ioremap::ioremap`].
///
/// # Errors
///
/// As there, and [`IoremapError::NotReady`] before [`init_ioremap`].
pub fn ioremap(range: PhysRange, kind: IoKind) -> Result<VirtAddr, IoremapError> {
    IOREMAP
        .get()
        .ok_or(IoremapError::NotReady)?
        .ioremap(range, kind)
}

/// Takes a mapping of device registers back: [`Ioremap::iounmap`].
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn iounmap(va: VirtAddr) -> Result<(), IoremapError> {
    // SAFETY: handed on to the caller.
    unsafe { IOREMAP.get().ok_or(IoremapError::NotReady)?.iounmap(va) }
}
