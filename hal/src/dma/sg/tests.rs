use super::super::device::fake;
use super::super::{DmaMask, FromDevice, ToDevice};
use super::*;
use crate::addr::PhysRange;
use crate::arch::trace::{Op, record_during};
use crate::layout::{self, VMALLOC, host};

const PAGES: [usize; 5] = [3, 4, 0, 6, 7];

/// A vmalloc area of five pages in three runs of RAM.
fn lookup(ram: PhysRange) -> impl Fn(VirtAddr) -> Option<PhysAddr> {
    move |va| {
        let offset = va.checked_sub(VMALLOC.base)?;
        let page = PAGES.get(offset / PAGE_SIZE)?;
        Some(ram.start + page * PAGE_SIZE + va.page_offset())
    }
}

fn list(
    room: &mut [ScatterEntry],
    offset: usize,
    len: usize,
) -> Result<(ScatterList<'_>, PhysAddr), DmaError> {
    let ram = host::ram(8 * PAGE_SIZE as u64, 4096);
    let ptr = (VMALLOC.base + offset).as_ptr();
    let mut list = ScatterList::empty(room);
    // SAFETY: nothing accesses the bytes; the frames behind them are this test's.
    unsafe { list.push_raw(ptr, len, lookup(ram)) }?;
    Ok((list, ram.start))
}

fn device(limit: u64) -> &'static Device {
    fake("test", DmaMask::new::<40>(), [0, 0x10_0000_0000, limit])
}

#[test]
fn adjacent_pages_merge() {
    let mut room = [ScatterEntry::default(); 3];
    let (list, ram) = list(&mut room, 0x10, 5 * PAGE_SIZE - 0x20).unwrap();
    let runs: Vec<_> = list.entries().iter().map(|e| (e.phys(), e.len())).collect();
    assert_eq!(
        runs,
        [
            (ram + 3 * PAGE_SIZE + 0x10, 2 * PAGE_SIZE - 0x10),
            (ram, PAGE_SIZE),
            (ram + 6 * PAGE_SIZE, 2 * PAGE_SIZE - 0x10),
        ]
    );
    assert_eq!(
        runs.iter().map(|run| run.1).sum::<usize>(),
        list.total_len()
    );
}

#[test]
fn the_mmu_is_asked_for_a_slice() {
    let ram = host::ram(2 * PAGE_SIZE as u64, 4096);
    let ptr = layout::phys_to_virt(ram.start + 5).as_ptr();
    // SAFETY: the RAM was just handed out to this test alone.
    let buffer = unsafe { core::slice::from_raw_parts_mut(ptr, PAGE_SIZE) };
    let mut room = [ScatterEntry::default(); 1];
    let list = ScatterList::new(&mut room, buffer).unwrap();
    let run = list.entries()[0];
    assert_eq!((run.phys(), run.len()), (ram.start + 5, PAGE_SIZE));
}

#[test]
fn maintenance_goes_through_the_direct_map() {
    let mut room = [ScatterEntry::default(); 3];
    let (list, ram) = list(&mut room, PAGE_SIZE, PAGE_SIZE + 64).unwrap();
    let device = device(1 << 36);
    let (mapping, map) = record_during(|| list.map::<FromDevice>(device).unwrap());
    assert_eq!(map.len(), 64 + 1 + 1);
    assert_eq!(map[0], Op::Clean(layout::phys_to_virt(ram + 4 * PAGE_SIZE)));
    assert_eq!(map[64], Op::Clean(layout::phys_to_virt(ram)));
    assert_eq!(map[65], Op::DsbSy);
    let segment = Destination::segment(&mapping, 1).unwrap();
    assert_eq!(segment.addr.get(), 0x10_0000_0000 + ram.get());
    assert_eq!(segment.len, 64);
    let ((), unmap) = record_during(|| mapping.unmap());
    assert_eq!(unmap[64], Op::Invalidate(layout::phys_to_virt(ram)));
    assert_eq!(unmap.len(), 64 + 1 + 1);
}

#[test]
fn to_device_needs_nothing_at_unmap() {
    let mut room = [ScatterEntry::default(); 3];
    let (list, _) = list(&mut room, 0, 64).unwrap();
    let device = device(1 << 36);
    let mapping = list.map::<ToDevice>(device).unwrap();
    let ((), unmap) = record_during(|| mapping.unmap());
    assert!(unmap.is_empty());
}

#[test]
fn misuse_is_named() {
    let mut room = [ScatterEntry::default(); 2];
    assert_eq!(list(&mut room, 0, 0).unwrap_err(), DmaError::ZeroLength);
    assert_eq!(
        list(&mut room, 0, 5 * PAGE_SIZE).unwrap_err(),
        DmaError::TooManySegments { capacity: 2 }
    );
    let addr = VMALLOC.base + 5 * PAGE_SIZE;
    assert_eq!(
        list(&mut room, 4 * PAGE_SIZE, PAGE_SIZE + 1).unwrap_err(),
        DmaError::NoPage { addr }
    );
    let addr = layout::IMAGE.base;
    let mut list = ScatterList::empty(&mut room);
    // SAFETY: refused, so nothing is promised.
    let refused = unsafe { list.push_raw(addr.as_ptr(), 8, |_| None) };
    assert_eq!(
        refused.unwrap_err(),
        DmaError::NotMappable {
            addr,
            kind: MemoryKind::Image
        }
    );
}

#[test]
fn a_run_out_of_reach_maps_nothing() {
    let mut room = [ScatterEntry::default(); 3];
    let (list, _) = list(&mut room, 0, 5 * PAGE_SIZE).unwrap();
    // The window ends below the host's pretended RAM.
    let device = device(0x4000_0000);
    let (result, ops) = record_during(|| list.map::<ToDevice>(device).map(drop));
    assert!(matches!(result, Err(DmaError::OutOfReach { .. })));
    assert!(ops.is_empty());
}
