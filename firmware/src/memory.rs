//! Memory of each kind, owned: what the suites hand to the DMA engines.
//!
//! The one place outside the boot code that turns addresses into slices.

use crate::machine::machine;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use hal::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use hal::arch::{cpu, translate};
use hal::dma::engine::{Destination, Source};
use hal::dma::{Device, DmaEngine, DmaError, Transfer};
use hal::layout::phys_to_virt;
use hal::mm::{self, AllocError, Gfp, VmallocError};
use hal::mmu::MemoryType;

/// The flags for memory `device` reaches: zone bits only where some RAM is out of its reach.
pub fn reachable(device: &Device) -> Gfp {
    let limits = machine().board.zone_limits();
    let ram_end = machine().map.ram().iter().map(|ram| ram.end).max();
    let end = device.limit().checked_add(1).unwrap_or(device.limit());
    if ram_end.is_none_or(|ram_end| ram_end <= end) {
        Gfp::KERNEL
    } else if limits.dma32 <= end {
        Gfp::KERNEL | Gfp::DMA32
    } else {
        Gfp::KERNEL | Gfp::DMA
    }
}

/// `kmalloc` memory.
#[derive(Debug)]
pub struct Heap {
    object: NonNull<u8>,
    len: usize,
}

impl Heap {
    /// `len` zeroed bytes, at least 1.
    ///
    /// # Errors
    ///
    /// Those of `kmalloc`.
    pub fn new(len: usize, gfp: Gfp) -> Result<Self, AllocError> {
        let len = len.max(1);
        Ok(Self {
            object: mm::kzalloc(len, gfp)?,
            len,
        })
    }

    /// The address of the first byte.
    pub fn va(&self) -> VirtAddr {
        VirtAddr::from_ptr(self.object.as_ptr())
    }
}

impl Deref for Heap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `kzalloc` returned the bytes, initialised, and only `drop` frees them.
        unsafe { core::slice::from_raw_parts(self.object.as_ptr(), self.len) }
    }
}

impl DerefMut for Heap {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.object.as_ptr(), self.len) }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: the object is this value's, which ends.
        let freed = unsafe { mm::kfree(self.object.as_ptr()) };
        assert_eq!(freed, Ok(()), "an object of kmalloc");
    }
}

/// `vmalloc` memory.
#[derive(Debug)]
pub struct Area {
    va: VirtAddr,
    len: usize,
}

impl Area {
    /// `len` zeroed bytes.
    ///
    /// # Errors
    ///
    /// Those of `vmalloc`.
    pub fn new(len: usize, gfp: Gfp) -> Result<Self, VmallocError> {
        let va = mm::vmalloc_with(len, gfp | Gfp::ZERO)?;
        Ok(Self { va, len })
    }

    /// `len` zeroed bytes of single pages, no two of which are neighbours in physical memory as
    /// far as that can be had. Needs the machine for itself while it takes all other memory.
    ///
    /// # Errors
    ///
    /// Those of `vmalloc`.
    pub fn fragmented(len: usize, gfp: Gfp) -> Result<Self, VmallocError> {
        let gfp = gfp | Gfp::MEMALLOC;
        // The tables for the addresses are there afterwards, so that only pages are taken.
        drop(Self::new(len, gfp)?);
        let _hoard = Hoard::leave_singles(len.div_ceil(PAGE_SIZE), gfp);
        Self::new(len, gfp)
    }

    /// The address of the first byte.
    pub fn va(&self) -> VirtAddr {
        self.va
    }

    /// How many physical runs the pages form, asking the MMU for each page.
    pub fn runs(&self) -> usize {
        let pages = (0..self.len).step_by(PAGE_SIZE);
        let mut next = None;
        let starts = pages.filter(|&offset| {
            let page = translate::read_el1(self.va + offset).page();
            let is_start = page.is_none() || page != next;
            next = page.and_then(|page| page.checked_add(PAGE_SIZE));
            is_start
        });
        starts.count()
    }
}

impl Deref for Area {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `vmalloc_with` mapped the bytes, initialised, and only `drop` frees them.
        unsafe { core::slice::from_raw_parts(self.va.as_ptr(), self.len) }
    }
}

impl DerefMut for Area {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.va.as_ptr(), self.len) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the area is this value's, which ends.
        let freed = unsafe { mm::vfree(self.va) };
        assert_eq!(freed, Ok(()), "an area of vmalloc");
    }
}

/// Every block of two and more pages there is, so that what is left are single pages: a zone
/// fragmented to the utmost. Dropping it gives them back.
#[derive(Debug)]
pub struct Hoard {
    /// Blocks as a list threaded through their first words.
    blocks: Option<NonNull<Block>>,
    singles: Option<NonNull<Block>>,
}

#[derive(Debug)]
struct Block {
    next: Option<NonNull<Block>>,
    order: u32,
}

impl Hoard {
    /// Leaves `singles` free pages, no two of them neighbours, in the zones `gfp` admits, and no
    /// larger block.
    pub fn leave_singles(singles: usize, gfp: Gfp) -> Self {
        let gfp = gfp | Gfp::MEMALLOC | Gfp::NOWARN;
        let mut hoard = Self {
            blocks: None,
            singles: None,
        };
        // Pages come in pairs out of larger blocks: every second one is kept.
        let mut to_free = None;
        for index in 0..2 * singles {
            let list = if index % 2 == 0 {
                &mut to_free
            } else {
                &mut hoard.singles
            };
            push(list, gfp, 0);
        }
        for order in (1..=mm::MAX_ORDER).rev() {
            while push(&mut hoard.blocks, gfp, order) {}
        }
        free_all(&mut to_free);
        hoard
    }
}

impl Drop for Hoard {
    fn drop(&mut self) {
        free_all(&mut self.blocks);
        free_all(&mut self.singles);
    }
}

fn push(list: &mut Option<NonNull<Block>>, gfp: Gfp, order: u32) -> bool {
    let Ok(pfn) = mm::alloc_pages(gfp, order) else {
        return false;
    };
    let Some(block) = NonNull::new(phys_to_virt(pfn.phys()).as_ptr::<Block>()) else {
        return false;
    };
    let next = list.take();
    // SAFETY: the block was just allocated, is in the direct map and aligned to a page.
    unsafe { block.write(Block { next, order }) };
    *list = Some(block);
    true
}

fn free_all(list: &mut Option<NonNull<Block>>) {
    while let Some(block) = list.take() {
        // SAFETY: `push` wrote it, and the list owns the block.
        let Block { next, order } = unsafe { block.read() };
        *list = next;
        if let Some(pa) = hal::layout::virt_to_phys(VirtAddr::from_ptr(block.as_ptr())) {
            // SAFETY: `push` allocated the block with this order, and nothing refers to it now.
            let freed = unsafe { mm::free_pages(pa.pfn(), order) };
            assert_eq!(freed, Ok(()), "a block of the page allocator");
        }
    }
}

/// Why there is no payload to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPayload {
    /// The device tree names none.
    #[error("no payload: make run PAYLOAD=FILE")]
    Absent,
    /// The memory map gives the memory to nobody or to somebody else.
    #[error("the payload {0} is not reserved")]
    NotReserved(PhysRange),
    /// A page of it is not ordinary memory of the direct map.
    #[error("the payload's page {0} is not write-back memory of the direct map")]
    NotMapped(PhysAddr),
}

/// The payload's bytes.
///
/// # Errors
///
/// [`NoPayload`].
pub fn payload() -> Result<&'static [u8], NoPayload> {
    let range = machine().payload.ok_or(NoPayload::Absent)?;
    let reserved = machine().map.reserved().iter();
    if !reserved
        .clone()
        .any(|reserved| reserved.range.contains_range(&range))
    {
        return Err(NoPayload::NotReserved(range));
    }
    let mut page = range.start.align_down(PAGE_SIZE);
    while page < range.end {
        let par = translate::read_el1(phys_to_virt(page));
        if par.page() != Some(page) || par.memory_type() != Some(MemoryType::NormalWriteBack) {
            return Err(NoPayload::NotMapped(page));
        }
        page = page + PAGE_SIZE;
    }
    let start = phys_to_virt(range.start).as_ptr::<u8>();
    // SAFETY: every page is mapped, as checked; the memory is reserved, so that no allocator owns
    // it, and nothing writes it.
    Ok(unsafe { core::slice::from_raw_parts(start, range.size() as usize) })
}

/// Copies the first segment of `src` to that of `dst`, of the same length, and calls `during`
/// between start and end, with IRQs masked so that no handler of this core ends it before. Waits
/// at most `timeout_ns`.
///
/// # Errors
///
/// Those of the engine.
pub fn copy_while(
    engine: &dyn DmaEngine,
    src: &dyn Source,
    dst: &mut dyn Destination,
    timeout_ns: u64,
    during: impl FnOnce(),
) -> Result<(), DmaError> {
    let (Some(from), Some(to)) = (src.segment(0), dst.segment(0)) else {
        return Err(DmaError::ZeroLength);
    };
    let transfer = Transfer {
        src: from.addr,
        dst: to.addr,
        len: from.len.min(to.len),
    };
    let irq = cpu::irq_save();
    // SAFETY: source and destination are borrowed until this returns, which is after `wait`.
    let started = unsafe { engine.submit(&[transfer]) };
    if started.is_ok() {
        during();
    }
    cpu::irq_restore(irq);
    engine.wait(started?, timeout_ns)
}

/// What the engine says to a submission of `transfers`, if its own check refuses them.
///
/// # Errors
///
/// The engine's refusal.
///
/// # Panics
///
/// If the engine starts what its check refuses: the machine is not to be trusted any further.
pub fn submit_refused(engine: &dyn DmaEngine, transfers: &[Transfer]) -> Result<(), DmaError> {
    // Asked first, so that a submission that would run is never made.
    if engine.check(transfers).is_ok() {
        return Ok(());
    }
    // SAFETY: the engine refuses what its check refuses, or nothing runs after this.
    match unsafe { engine.submit(transfers) } {
        Ok(ticket) => panic!("{ticket:?} for what the engine's check refuses"),
        Err(refusal) => Err(refusal),
    }
}

/// What a busy engine says to another submission.
///
/// # Panics
///
/// If the engine takes it: nothing could be said of either copy any more.
pub fn submit_while_busy(
    engine: &dyn DmaEngine,
    src: &dyn Source,
    dst: &mut dyn Destination,
) -> Option<DmaError> {
    let (from, to) = (src.segment(0)?, dst.segment(0)?);
    let transfer = Transfer {
        src: from.addr,
        dst: to.addr,
        len: from.len.min(to.len),
    };
    // SAFETY: the memory is borrowed until this returns, and it does not return if the engine took
    // the submission.
    match unsafe { engine.submit(&[transfer]) } {
        Ok(ticket) => panic!("{ticket:?} from a busy engine"),
        Err(refusal) => Some(refusal),
    }
}

/// Asks for a streaming map of `len` bytes at `va`, which must be refused: an address outside the
/// direct map, no bytes, or a length that wraps.
///
/// # Errors
///
/// The refusal.
pub fn map_refused(device: &Device, va: VirtAddr, len: usize) -> Result<(), DmaError> {
    let is_direct = hal::layout::virt_to_phys(va).is_some();
    let wraps = va.checked_add(len).is_none();
    if is_direct && len != 0 && !wraps {
        return Ok(());
    }
    // SAFETY: the address is outside the direct map, or the range empty or impossible: each is
    // refused and carries no obligation.
    let mapping =
        unsafe { hal::dma::streaming::map_single::<hal::dma::ToDevice>(device, va.as_ptr(), len) };
    mapping.map(drop)
}
