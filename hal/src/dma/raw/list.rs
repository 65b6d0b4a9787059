//! Scattered buffers.

use super::{DMA_MAPPING_ERROR, end, give, lend, refused, take, wanted};
use crate::addr::{DmaAddr, PhysAddr, VirtAddr};
use crate::dma::debug::{self, Call, Kind, SgPlace};
use crate::dma::direction::DirectionKind;
use crate::dma::lease::Due;
use crate::dma::{Device, DmaError, DmaSegment};
use crate::layout;

/// What an entry says of a list that is not mapped.
const NOT_MAPPED: DmaSegment = DmaSegment {
    addr: DMA_MAPPING_ERROR,
    len: 0,
};

/// One run of memory of a scattered buffer (`struct scatterlist`).
#[derive(Clone, Copy, Debug)]
pub struct Scatter {
    start: PhysAddr,
    len: usize,
    mapped: DmaSegment,
}

impl Scatter {
    /// The `len` bytes at `start`.
    #[doc(alias = "sg_set_page")]
    pub const fn new(start: PhysAddr, len: usize) -> Self {
        let mapped = NOT_MAPPED;
        Self { start, len, mapped }
    }

    /// The address the device must be given while the list is mapped, or [`DMA_MAPPING_ERROR`].
    #[doc(alias = "sg_dma_address")]
    pub const fn dma_address(&self) -> DmaAddr {
        self.mapped.addr
    }

    /// Bytes there; none while the list is not mapped.
    #[doc(alias = "sg_dma_len")]
    pub const fn dma_len(&self) -> usize {
        self.mapped.len
    }
}

/// Lends every run of `list` to `device`, or none. Returns how many segments the device must be
/// told, at most the length of the list; 0 for a failure, which an empty list is.
///
/// # Safety
///
/// As for [`dma_map_page`](super::dma_map_page), for each run, until [`dma_unmap_sg`].
#[track_caller]
pub unsafe fn dma_map_sg(device: &Device, list: &mut [Scatter], direction: DirectionKind) -> usize {
    let count = list.len();
    if count == 0 {
        let nowhere = VirtAddr::default();
        let mut call = Call::new(Kind::Sg, nowhere, wanted(0), direction);
        call.sg = Some(SgPlace { index: 0, count });
        refused(device, &call, DmaError::ZeroLength);
    }
    let mut due = Due::Nothing;
    for index in 0..count {
        let Scatter { start, len, .. } = list[index];
        let cpu = layout::phys_to_virt(start);
        let mut call = Call::new(Kind::Sg, cpu, wanted(len), direction);
        call.sg = Some(SgPlace { index, count });
        // SAFETY: the caller's contract.
        let (addr, lent) = unsafe { lend(device, call) };
        if addr == DMA_MAPPING_ERROR {
            // SAFETY: these were lent above, and no device was told.
            unsafe { unmap_list(device, &mut list[..index], count, direction) };
            return 0;
        }
        list[index].mapped = DmaSegment { addr, len };
        due = due.max(lent);
    }
    due.issue();
    count
}

/// Ends what [`dma_map_sg`] began with the same list: all of it, whatever number that returned.
///
/// # Safety
///
/// As for [`dma_unmap_single`](super::dma_unmap_single), of `dma_map_sg` and the whole list.
#[track_caller]
pub unsafe fn dma_unmap_sg(device: &Device, list: &mut [Scatter], direction: DirectionKind) {
    let count = list.len();
    // SAFETY: the caller's contract.
    unsafe { unmap_list(device, list, count, direction) };
}

/// [`dma_sync_single_for_cpu`](super::dma_sync_single_for_cpu) for each segment of a mapped list: the whole list.
///
/// # Safety
///
/// As there.
#[track_caller]
pub unsafe fn dma_sync_sg_for_cpu(device: &Device, list: &[Scatter], direction: DirectionKind) {
    let mut due = Due::Nothing;
    for (index, entry) in list.iter().enumerate() {
        check_sg_sync(device, list, index, direction, debug::Sync::ForCpu);
        // SAFETY: the caller's contract.
        due = due.max(unsafe { take(device, entry.mapped, direction) });
    }
    due.issue();
}

/// [`dma_sync_single_for_device`](super::dma_sync_single_for_device) for each segment of a mapped list: the whole list.
///
/// # Safety
///
/// As there.
#[track_caller]
pub unsafe fn dma_sync_sg_for_device(device: &Device, list: &[Scatter], direction: DirectionKind) {
    let mut due = Due::Nothing;
    for (index, entry) in list.iter().enumerate() {
        check_sg_sync(device, list, index, direction, debug::Sync::ForDevice);
        // SAFETY: the caller's contract.
        due = due.max(unsafe { give(device, entry.mapped, direction) });
    }
    due.issue();
}

/// Unmaps the entries of `list`, which are the first of `count`.
///
/// # Safety
///
/// As for [`dma_unmap_sg`].
#[track_caller]
unsafe fn unmap_list(
    device: &Device,
    list: &mut [Scatter],
    count: usize,
    direction: DirectionKind,
) {
    let mut due = Due::Nothing;
    for (index, entry) in list.iter_mut().enumerate() {
        if debug::is_on() {
            let mut call = Call::new(Kind::Sg, VirtAddr::default(), entry.mapped, direction);
            call.sg = Some(SgPlace { index, count });
            debug::forget(device, &call);
        }
        // SAFETY: the caller's contract.
        due = due.max(unsafe { end(device, entry.mapped, direction) });
        entry.mapped = NOT_MAPPED;
    }
    due.issue();
}

#[track_caller]
fn check_sg_sync(
    device: &Device,
    list: &[Scatter],
    index: usize,
    direction: DirectionKind,
    to: debug::Sync,
) {
    if debug::is_on() {
        let mut call = Call::new(Kind::Sg, VirtAddr::default(), list[index].mapped, direction);
        let count = list.len();
        call.sg = Some(SgPlace { index, count });
        debug::hand_over(device, &call, to);
    }
}
