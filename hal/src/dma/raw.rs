//! The DMA calls as C drivers know them: a direction at run time, addresses without owners.
//!
//! For drivers ported line by line and for code that C calls. Each is a thin layer over what the
//! typed maps are made of, and does what it is told: a call that does not fit the one before loses
//! bytes or worse. What the typed API ([`streaming`](super::streaming), [`sg`](super::sg),
//! [`coherent`](super::coherent)) makes of each mistake, [`debug`] finds here:
//!
//! | mistake | typed API |
//! |---|---|
//! | unmapping twice, or what is not mapped | does not compile: a mapping is consumed |
//! | another size, address, direction or function at unmap | there is nothing to pass: the mapping knows |
//! | another number of sg entries | likewise |
//! | freeing coherent memory twice, or by another size or address | a drop frees it |
//! | using the address of a failed map, not checking | there is none: a map returns a `Result` |
//! | memory of a stack, read-only data, vmalloc | an error that names the kind |
//! | synchronising what is not mapped, or beyond it | there is nothing to pass |
//! | synchronising in another direction | a type |
//! | segments longer than the device takes, or across its boundary | cut by the map |
//! | mappings that share a cache line | a borrow checks bytes, not lines: found by `debug` in both |
//! | mappings that outlive their device | a lifetime; forgotten ones are found by `debug` in both |
//!
//! Functions may be called in any context, [`dma_alloc_coherent`] with flags that do not block.

use super::debug::{self, Call, Kind};
use super::direction::DirectionKind;
use super::lease::{Due, Lease};
use super::{Device, DmaError, DmaSegment, resource};
use crate::addr::{DmaAddr, Pfn, PhysAddr, PhysRange, VirtAddr};
use crate::arch::barrier;
use crate::layout;

mod coherent;
mod list;

pub use coherent::{dma_alloc_coherent, dma_free_coherent};
pub use list::{Scatter, dma_map_sg, dma_sync_sg_for_cpu, dma_sync_sg_for_device, dma_unmap_sg};

/// What a map that failed returns.
pub const DMA_MAPPING_ERROR: DmaAddr = DmaAddr::new(u64::MAX);

/// Whether a map failed. Each one is to be asked about before its address is used.
pub fn dma_mapping_error(device: &Device, addr: DmaAddr) -> bool {
    if debug::is_on() {
        debug::look(device, addr);
    }
    addr == DMA_MAPPING_ERROR
}

/// Lends the `len` bytes at `ptr` to `device`, and returns the address to tell it, or
/// [`DMA_MAPPING_ERROR`].
///
/// # Safety
///
/// As for [`map_single`](super::streaming::map_single), for the time until
/// [`dma_unmap_single`]: an address outside the direct map carries no obligation.
#[track_caller]
pub unsafe fn dma_map_single(
    device: &Device,
    ptr: *mut u8,
    len: usize,
    direction: DirectionKind,
) -> DmaAddr {
    let cpu = VirtAddr::from_ptr(ptr);
    let call = Call::new(Kind::Single, cpu, wanted(len), direction);
    // SAFETY: the caller's contract.
    completed(unsafe { lend(device, call) })
}

/// As [`dma_map_single`], for the `len` bytes from `offset` of the page `frame` on.
///
/// # Safety
///
/// As for [`dma_map_single`]; the frame is in the direct map.
#[track_caller]
pub unsafe fn dma_map_page(
    device: &Device,
    frame: Pfn,
    offset: usize,
    len: usize,
    direction: DirectionKind,
) -> DmaAddr {
    let page = layout::phys_to_virt(frame.phys());
    // An offset that wraps is no address of the direct map.
    let cpu = VirtAddr::new(page.get().wrapping_add(offset));
    let call = Call::new(Kind::Page, cpu, wanted(len), direction);
    // SAFETY: the caller's contract.
    completed(unsafe { lend(device, call) })
}

/// Ends what [`dma_map_single`] began with the same length and direction. The memory is the CPU's
/// again and, unless the device only read it, holds what the device wrote.
///
/// # Safety
///
/// `addr` came from `dma_map_single` for `device` with `len` and `direction`, was not unmapped
/// since, and the device is done with it.
#[track_caller]
pub unsafe fn dma_unmap_single(
    device: &Device,
    addr: DmaAddr,
    len: usize,
    direction: DirectionKind,
) {
    // SAFETY: the caller's contract.
    unsafe { unmap(device, Kind::Single, DmaSegment { addr, len }, direction) };
}

/// Ends what [`dma_map_page`] began.
///
/// # Safety
///
/// As for [`dma_unmap_single`], of `dma_map_page`.
#[track_caller]
pub unsafe fn dma_unmap_page(device: &Device, addr: DmaAddr, len: usize, direction: DirectionKind) {
    // SAFETY: the caller's contract.
    unsafe { unmap(device, Kind::Page, DmaSegment { addr, len }, direction) };
}

/// Makes what the device wrote to mapped memory visible to the CPU, whose it is until
/// [`dma_sync_single_for_device`].
///
/// # Safety
///
/// The `len` bytes at `addr` are mapped for `device` in `direction`, the CPU stored nothing to them
/// since they were given, and the device is done with them.
#[track_caller]
pub unsafe fn dma_sync_single_for_cpu(
    device: &Device,
    addr: DmaAddr,
    len: usize,
    direction: DirectionKind,
) {
    let segment = DmaSegment { addr, len };
    let call = Call::new(Kind::Single, VirtAddr::default(), segment, direction);
    if debug::is_on() {
        debug::hand_over(device, &call, debug::Sync::ForCpu);
    }
    // SAFETY: the caller's contract.
    unsafe { take(device, segment, direction) }.issue();
}

/// Makes what the CPU stored to mapped memory visible to the device, whose it is again.
///
/// # Safety
///
/// The `len` bytes at `addr` are mapped for `device` in `direction`, and the CPU leaves them alone
/// from now on.
#[track_caller]
pub unsafe fn dma_sync_single_for_device(
    device: &Device,
    addr: DmaAddr,
    len: usize,
    direction: DirectionKind,
) {
    let segment = DmaSegment { addr, len };
    let call = Call::new(Kind::Single, VirtAddr::default(), segment, direction);
    if debug::is_on() {
        debug::hand_over(device, &call, debug::Sync::ForDevice);
    }
    // SAFETY: the caller's contract.
    unsafe { give(device, segment, direction) }.issue();
}

/// As [`dma_sync_single_for_cpu`], for the `len` bytes from `offset` of the mapping at `addr` on.
///
/// # Safety
///
/// As there.
#[track_caller]
pub unsafe fn dma_sync_single_range_for_cpu(
    device: &Device,
    addr: DmaAddr,
    offset: usize,
    len: usize,
    direction: DirectionKind,
) {
    let addr = addr.checked_add(offset).unwrap_or(DMA_MAPPING_ERROR);
    // SAFETY: the caller's contract.
    unsafe { dma_sync_single_for_cpu(device, addr, len, direction) };
}

/// As [`dma_sync_single_for_device`], for the `len` bytes from `offset` of the mapping at `addr` on.
///
/// # Safety
///
/// As there.
#[track_caller]
pub unsafe fn dma_sync_single_range_for_device(
    device: &Device,
    addr: DmaAddr,
    offset: usize,
    len: usize,
    direction: DirectionKind,
) {
    let addr = addr.checked_add(offset).unwrap_or(DMA_MAPPING_ERROR);
    // SAFETY: the caller's contract.
    unsafe { dma_sync_single_for_device(device, addr, len, direction) };
}

/// The address at which `device` finds the registers of another device at `start`, for transfers
/// between devices, or [`DMA_MAPPING_ERROR`]: RAM is refused.
#[track_caller]
pub fn dma_map_resource(
    device: &Device,
    start: PhysAddr,
    len: usize,
    direction: DirectionKind,
) -> DmaAddr {
    let call = Call::new(Kind::Resource, VirtAddr::default(), wanted(len), direction);
    let wraps = DmaError::Wraps {
        addr: layout::phys_to_virt(start),
        len,
    };
    let range = PhysRange::from_size(start, len as u64).ok_or(wraps);
    let registers = range.and_then(|range| resource::map_resource(device, range));
    let addr = registers.map(|mapping| mapping.dma_segment().addr);
    match addr {
        Ok(addr) => mapped(device, Call { addr, ..call }, false),
        Err(error) => refused(device, &call, error),
    }
}

/// Ends what [`dma_map_resource`] began with the same length and direction.
#[track_caller]
pub fn dma_unmap_resource(device: &Device, addr: DmaAddr, len: usize, direction: DirectionKind) {
    if debug::is_on() {
        let segment = DmaSegment { addr, len };
        debug::forget(
            device,
            &Call::new(Kind::Resource, VirtAddr::default(), segment, direction),
        );
    }
}

/// The end of a map that failed.
fn refused(device: &Device, call: &Call, error: DmaError) -> DmaAddr {
    if debug::is_on() {
        debug::refuse(device, call, error);
    }
    DMA_MAPPING_ERROR
}

/// The end of a map that did not.
fn mapped(device: &Device, call: Call, maintained: bool) -> DmaAddr {
    if debug::is_on() {
        // A list says by its length whether it was mapped.
        let checked = call.kind == Kind::Sg;
        debug::record(device, &call, maintained, checked);
    }
    call.addr
}

/// What a map is asked for: an address for `len` bytes.
const fn wanted(len: usize) -> DmaSegment {
    DmaSegment {
        addr: DMA_MAPPING_ERROR,
        len,
    }
}

/// Lends memory, the barrier apart: the address, and what is due.
///
/// # Safety
///
/// As for [`dma_map_single`].
unsafe fn lend(device: &Device, call: Call) -> (DmaAddr, Due) {
    let Call { cpu, len, .. } = call;
    barrier::hand_over(cpu.as_ptr::<u8>());
    let is_maintained = !device.note_map();
    let lease = Device::direct_map_range(cpu, len).and_then(|pa| {
        // SAFETY: the memory is in the direct map, so the caller promises that it is valid and left
        // alone.
        unsafe { Lease::begin_as(device, is_maintained, pa, len, call.direction) }
    });
    match lease {
        Ok(lease) => {
            let addr = lease.segment().addr;
            let call = Call { addr, ..call };
            (mapped(device, call, lease.is_maintained()), lease.given())
        }
        Err(error) => {
            device.note_unmap();
            (refused(device, &call, error), Due::Nothing)
        }
    }
}

fn completed((addr, due): (DmaAddr, Due)) -> DmaAddr {
    due.issue();
    addr
}

/// # Safety
///
/// As for [`dma_unmap_single`].
#[track_caller]
unsafe fn unmap(device: &Device, kind: Kind, segment: DmaSegment, direction: DirectionKind) {
    if debug::is_on() {
        debug::forget(
            device,
            &Call::new(kind, VirtAddr::default(), segment, direction),
        );
    }
    // SAFETY: the caller's contract.
    unsafe { end(device, segment, direction) }.issue();
}

/// Takes memory back, the barrier apart: returns what is due. Nothing is done to no bytes, where the
/// device sees no memory, and to slots that are not lent.
///
/// # Safety
///
/// As for [`dma_sync_single_for_cpu`].
unsafe fn take(device: &Device, segment: DmaSegment, direction: DirectionKind) -> Due {
    let Some((lease, buffer)) = Lease::again(device, segment) else {
        return Due::Nothing;
    };
    // SAFETY: the caller's contract.
    let due = unsafe { lease.take(buffer, lease.whole(), direction) };
    barrier::hand_over(buffer.as_ptr::<u8>());
    due
}

/// Takes memory back for good, as [`take`]. Slots are given back as they were lent, whatever the
/// length.
///
/// # Safety
///
/// As for [`dma_unmap_single`].
unsafe fn end(device: &Device, segment: DmaSegment, direction: DirectionKind) -> Due {
    // SAFETY: the caller's contract.
    let due = unsafe { take(device, segment, direction) };
    if let Some((lease, _)) = Lease::again(device, segment) {
        lease.end();
        device.note_unmap();
    }
    due
}

/// Gives memory to the device again, as [`take`]. Slots of a device that only writes keep what they
/// hold, as in Linux: C drivers may give memory that they did not take before.
///
/// # Safety
///
/// As for [`dma_sync_single_for_device`].
unsafe fn give(device: &Device, segment: DmaSegment, direction: DirectionKind) -> Due {
    let Some((lease, buffer)) = Lease::again(device, segment) else {
        return Due::Nothing;
    };
    barrier::hand_over(buffer.as_ptr::<u8>());
    match direction.device_reads() {
        // SAFETY: the caller's contract.
        true => unsafe { lease.give(buffer, lease.whole()) },
        false => lease.give_as_it_is(lease.whole()),
    }
}

#[cfg(test)]
#[path = "raw/tests.rs"]
mod tests;
