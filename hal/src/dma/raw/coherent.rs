//! Coherent memory.

use super::DMA_MAPPING_ERROR;
use crate::addr::{DmaAddr, VirtAddr};
use crate::alloc::KBox;
use crate::dma::debug::{self, Call, Kind};
use crate::dma::direction::DirectionKind;
use crate::dma::{Coherent, Device, DmaSegment, coherent};
use crate::mm::Gfp;
use crate::sync::IrqLock;

/// Memory of callers that keep nothing but its addresses.
#[derive(Debug)]
struct Held {
    memory: Coherent,
    /// Bytes that were asked for.
    size: usize,
    next: Option<KBox<Held>>,
}

/// All of it, the youngest first.
static HELD: IrqLock<Option<KBox<Held>>> = IrqLock::new(None);

/// Flags that say where memory for the device may lie, which a note about it does not care for.
const PLACE: Gfp = Gfp::DMA
    .union(Gfp::DMA32)
    .union(Gfp::HIGHMEM)
    .union(Gfp::MOVABLE);

/// Allocates `size` bytes that the CPU and `device` use together: [`coherent::alloc`](coherent::alloc()).
/// Returns the CPU's address and stores the device's to `handle`; null and [`DMA_MAPPING_ERROR`]
/// where there is no memory. Whole pages, zero.
///
/// May be called in any context with flags that do not block.
#[track_caller]
pub fn dma_alloc_coherent(
    device: &'static Device,
    size: usize,
    handle: &mut DmaAddr,
    gfp: Gfp,
) -> *mut u8 {
    *handle = DMA_MAPPING_ERROR;
    let Ok(memory) = coherent::alloc(device, size, gfp) else {
        return core::ptr::null_mut();
    };
    let (cpu, addr) = (memory.as_ptr(), memory.dma_addr());
    let next = None;
    let Ok(mut held) = KBox::new(Held { memory, size, next }, gfp.difference(PLACE)) else {
        return core::ptr::null_mut();
    };
    let mut all = HELD.lock();
    held.next = all.take();
    *all = Some(held);
    *handle = addr;
    cpu.as_ptr()
}

/// Frees what [`dma_alloc_coherent`] gave out, in any context. Nothing happens to null.
///
/// The memory is found by its device and the device's address, and freed whole: another size or
/// another CPU address is reported by [`debug`] and does no more harm. So is a free of what is not
/// given out, which frees nothing.
///
/// # Safety
///
/// `cpu` and `handle` came from `dma_alloc_coherent` for `device` and `size`, were not freed since,
/// and neither the CPU nor the device accesses the memory any more.
#[track_caller]
pub unsafe fn dma_free_coherent(device: &Device, size: usize, cpu: *mut u8, handle: DmaAddr) {
    if cpu.is_null() {
        return;
    }
    let held = take(device, handle);
    if debug::is_on() {
        // The record is of whole pages, which the right size stands for.
        let whole = held.as_ref().filter(|held| held.size == size);
        let len = whole.map_or(size, |held| held.memory.size());
        let segment = DmaSegment { addr: handle, len };
        let cpu = VirtAddr::from_ptr(cpu);
        let call = Call::new(Kind::Coherent, cpu, segment, DirectionKind::Bidirectional);
        debug::free(device, &call);
    }
}

/// The memory that `device` sees at `addr`, out of the list.
fn take(device: &Device, addr: DmaAddr) -> Option<KBox<Held>> {
    let is_it = |held: &KBox<Held>| {
        core::ptr::eq(held.memory.device(), device) && held.memory.dma_addr() == addr
    };
    let mut all = HELD.lock();
    let mut link = &mut *all;
    while link.as_ref().is_some_and(|held| !is_it(held)) {
        link = &mut link.as_mut()?.next;
    }
    let mut found = link.take()?;
    *link = found.next.take();
    Some(found)
}
