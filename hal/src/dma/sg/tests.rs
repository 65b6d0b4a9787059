use super::super::device::fake;
use super::super::direction::DirectionKind;
use super::super::{Bidirectional, BusWindow, DmaMask, FromDevice, SegmentLimits, ToDevice};
use super::*;
use crate::addr::PhysRange;
use crate::arch::trace::{Op, record_during};
use crate::layout::{self, VMALLOC, host};
use proptest::prelude::*;

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

/// Two buffers of `pages` pages each in neighbouring RAM.
fn neighbours(pages: usize) -> [&'static mut [u8]; 2] {
    let len = pages * PAGE_SIZE;
    let ram = host::ram(2 * len as u64, 4096);
    let slice = |start| {
        let ptr = layout::phys_to_virt(start).as_ptr();
        // SAFETY: the RAM was just handed out to this call alone, and each half is given once.
        unsafe { core::slice::from_raw_parts_mut(ptr, len) }
    };
    [slice(ram.start), slice(ram.start + len)]
}

fn limited(max_len: usize, boundary: u64) -> Device {
    let limits = SegmentLimits::new(max_len, boundary).unwrap();
    super::super::device::tests::wide("limited").with_limits(limits)
}

fn lengths<D: Direction>(mapping: &SgMapping<'_, D>) -> Vec<usize> {
    mapping.segments().map(|segment| segment.len).collect()
}

#[test]
fn buffers_stay_apart_in_the_list_and_merge_for_the_device() {
    let mut room = [ScatterEntry::default(); 2];
    let [first, second] = neighbours(2);
    let mut list = ScatterList::empty(&mut room);
    list.push(first).unwrap();
    list.push(second).unwrap();
    assert_eq!((list.entries().len(), list.total_len()), (2, 4 * PAGE_SIZE));
    let mapping = list.map::<ToDevice>(device(1 << 36)).unwrap();
    assert_eq!(lengths(&mapping), [4 * PAGE_SIZE]);
}

#[test]
fn segments_end_at_the_device_s_limits() {
    for (max_len, expected) in [
        (3 * PAGE_SIZE, vec![3 * PAGE_SIZE, PAGE_SIZE]),
        (2 * PAGE_SIZE, vec![2 * PAGE_SIZE; 2]),
        (PAGE_SIZE, vec![PAGE_SIZE; 4]),
    ] {
        let device = limited(max_len, 0);
        let mut room = [ScatterEntry::default(); 4];
        let [first, second] = neighbours(2);
        let mut list = ScatterList::empty(&mut room);
        list.push(first).unwrap();
        list.push(second).unwrap();
        let mapping = list.map::<FromDevice>(&device).unwrap();
        assert_eq!(lengths(&mapping), expected);
    }
    let device = limited(usize::MAX, PAGE_SIZE as u64);
    let mut room = [ScatterEntry::default(); 3];
    let [buffer, _] = neighbours(3);
    let list = ScatterList::new(&mut room, &mut buffer[64..]).unwrap();
    let mapping = list.map::<FromDevice>(&device).unwrap();
    assert_eq!(lengths(&mapping), [PAGE_SIZE - 64, PAGE_SIZE, PAGE_SIZE]);
}

#[test]
fn pieces_without_room_are_refused_and_undone() {
    let device = limited(PAGE_SIZE, 0);
    let mut room = [ScatterEntry::default(); 2];
    let [buffer, _] = neighbours(3);
    let list = ScatterList::new(&mut room, buffer).unwrap();
    assert_eq!(list.entries().len(), 1);
    let refused = list.map::<FromDevice>(&device).map(drop);
    assert_eq!(refused, Err(DmaError::TooManySegments { capacity: 2 }));
    assert!(room.iter().all(|entry| entry.lease.is_none()));
}

/// Four buffers, one of them too long for slots and odd, so that it cannot be lent: nothing is, at
/// whichever place it is.
#[test]
fn a_run_that_cannot_be_lent_undoes_those_before_it() {
    const ODD: usize = super::super::bounce::MAX_BOUNCE + 1;
    for bad in 0..4 {
        let mut room = [ScatterEntry::default(); 4];
        let mut list = ScatterList::empty(&mut room);
        for index in 0..4 {
            let len = if index == bad { ODD } else { PAGE_SIZE };
            let start = host::ram(len as u64, 4096).start;
            let ptr = layout::phys_to_virt(start).as_ptr();
            // SAFETY: the RAM was just handed out to this slice alone.
            list.push(unsafe { core::slice::from_raw_parts_mut(ptr, len) })
                .unwrap();
        }
        let (refused, ops) = record_during(|| list.map::<FromDevice>(device(1 << 40)).map(drop));
        assert!(matches!(
            refused,
            Err(DmaError::PartialLine { len: ODD, .. })
        ));
        let count = |kind: fn(&Op) -> bool| ops.iter().filter(|op| kind(op)).count();
        assert_eq!(count(|op| matches!(op, Op::Clean(_))), bad * 64);
        assert_eq!(count(|op| matches!(op, Op::Invalidate(_))), bad * 64);
        assert!(room.iter().all(|entry| entry.lease.is_none()));
    }
}

/// Two windows that meet on the bus and not in memory: a segment across them would be in none.
#[test]
fn segments_lie_in_one_window_each() {
    let ram = host::ram(4 * PAGE_SIZE as u64, 4096).start;
    let page = PAGE_SIZE as u64;
    let window = |cpu, bus| {
        // SAFETY: no device is told the addresses of a test.
        unsafe { BusWindow::new(cpu, bus, page) }.unwrap()
    };
    // The later page of memory is the earlier one of the bus.
    let windows = [window(ram + 2 * PAGE_SIZE, 0), window(ram, page)];
    // SAFETY: as above.
    let device = unsafe { Device::new("two", DmaMask::new::<32>(), Box::leak(Box::new(windows))) };
    let slice = |start| {
        let ptr = layout::phys_to_virt(start).as_ptr();
        // SAFETY: the RAM was just handed out to this test, and each page is taken once.
        unsafe { core::slice::from_raw_parts_mut(ptr, PAGE_SIZE) }
    };
    let mut room = [ScatterEntry::default(); 2];
    let mut list = ScatterList::empty(&mut room);
    list.push(slice(ram + 2 * PAGE_SIZE)).unwrap();
    list.push(slice(ram)).unwrap();
    let mapping = list.map::<ToDevice>(&device).unwrap();
    assert_eq!(lengths(&mapping), [PAGE_SIZE; 2]);
    assert!(
        mapping
            .segments()
            .all(|segment| device.check(segment.addr, segment.len).is_ok())
    );
}

/// Every run is maintained as a single map's is, with one barrier for all.
#[test]
fn syncs_of_a_list_maintain_each_run() {
    fn handed<D: Direction>(is_coherent: bool) -> ([Vec<Op>; 2], Vec<VirtAddr>) {
        let device = device(1 << 36);
        device.set_coherent(is_coherent);
        let [first, second] = neighbours(1);
        let mut lines = Vec::new();
        for bytes in [&first[..128], &second[64..128]] {
            let start = VirtAddr::from_ptr(bytes.as_ptr());
            lines.extend((0..bytes.len()).step_by(64).map(|at| start + at));
        }
        let mut room = [ScatterEntry::default(); 2];
        let mut list = ScatterList::empty(&mut room);
        list.push(&mut first[..128]).unwrap();
        list.push(&mut second[64..128]).unwrap();
        let mapping = list.map::<D>(device).unwrap();
        let (cpu, for_cpu) = record_during(|| mapping.sync_for_cpu());
        let (mapping, for_device) = record_during(|| cpu.sync_for_device());
        mapping.unmap();
        ([for_cpu, for_device], lines)
    }
    fn each(lines: &[VirtAddr], op: fn(VirtAddr) -> Op) -> Vec<Op> {
        let ops = lines.iter().map(|&line| op(line));
        ops.chain([Op::DsbSy]).collect()
    }
    let (ops, lines) = handed::<ToDevice>(false);
    assert_eq!(ops, [vec![], each(&lines, Op::Clean)]);
    for (ops, lines) in [handed::<FromDevice>(false), handed::<Bidirectional>(false)] {
        assert_eq!(ops, [each(&lines, Op::Invalidate), each(&lines, Op::Clean)]);
    }
    let (ops, _) = handed::<ToDevice>(true);
    assert_eq!(ops, [vec![], vec![Op::DmbOshst]]);
    for (ops, _) in [handed::<FromDevice>(true), handed::<Bidirectional>(true)] {
        assert_eq!(ops, [vec![Op::DmbOshld], vec![Op::DmbOshst]]);
    }
}

#[test]
fn odd_runs_are_bounced_by_themselves() {
    let mut room = [ScatterEntry::default(); 2];
    let [first, second] = neighbours(1);
    first.fill(1);
    second.fill(2);
    let mut list = ScatterList::empty(&mut room);
    list.push(&mut first[..100]).unwrap();
    list.push(second).unwrap();
    let device = device(1 << 40);
    let mapping = list.map::<Bidirectional>(device).unwrap();
    let shown: Vec<DmaSegment> = mapping.segments().collect();
    let at = |addr: crate::addr::DmaAddr| layout::phys_to_virt(device.phys_addr(addr, 1).unwrap());
    assert_eq!((shown[0].len, shown[1].len), (100, PAGE_SIZE));
    // SAFETY: the slots and the buffer are the mapping's, and its device is nobody.
    unsafe {
        assert_eq!(at(shown[0].addr).as_ptr::<u8>().read(), 1);
        at(shown[0].addr).as_ptr::<u8>().write(5);
    }
    let mut cpu = mapping.sync_for_cpu();
    assert_eq!(cpu.run(0).unwrap()[..2], [5, 1]);
    cpu.run_mut(0).unwrap()[1] = 6;
    assert!(cpu.run(2).is_none());
    let mapping = cpu.sync_for_device();
    // SAFETY: as above.
    unsafe { assert_eq!(at(shown[0].addr).as_ptr::<[u8; 2]>().read(), [5, 6]) };
    mapping.unmap();
}

#[test]
fn an_empty_list_is_refused() {
    let mut room = [ScatterEntry::default(); 1];
    let list = ScatterList::empty(&mut room);
    let refused = list.map::<ToDevice>(device(1 << 40)).map(drop);
    assert_eq!(refused, Err(DmaError::ZeroLength));
}

proptest! {
    /// Against a byte-by-byte walk: the same bytes in the same order, each segment within the
    /// limits, and none that could have been merged with the one before.
    #[test]
    fn segments_are_the_runs_in_order(
        runs in prop::collection::vec((0_u64..16, 1_usize..3), 1..6),
        max_pages in 1_usize..5,
        boundary in prop::sample::select(vec![0_u64, 0x1000, 0x4000]),
    ) {
        let limits = SegmentLimits::new(max_pages * PAGE_SIZE, boundary).unwrap();
        let mut room = [ScatterEntry::default(); 16];
        let ram = host::ram(32 * PAGE_SIZE as u64, 1 << 17);
        let device = super::super::device::tests::wide("limited").with_limits(limits);
        let mut pages = Vec::new();
        for (entry, &(page, count)) in room.iter_mut().zip(&runs) {
            let start = ram.start + page as usize * PAGE_SIZE;
            // SAFETY: no device is there, and the RAM is this test's.
            let lease = unsafe {
                Lease::begin(&device, start, count * PAGE_SIZE, DirectionKind::ToDevice)
            };
            *entry = ScatterEntry { start, len: count * PAGE_SIZE, lease: lease.ok(), segment: None };
            pages.extend((0..count).map(|index| start + index * PAGE_SIZE));
        }
        gather(&mut room, runs.len(), &device).unwrap();
        let segments: Vec<_> = room.iter().map_while(|entry| entry.segment).collect();
        let phys = |segment: &DmaSegment| device.phys_addr(segment.addr, segment.len).unwrap();
        let walked: Vec<_> = segments
            .iter()
            .flat_map(|segment| (0..segment.len / PAGE_SIZE).map(move |index| phys(segment) + index * PAGE_SIZE))
            .collect();
        prop_assert_eq!(walked, pages);
        for segment in &segments {
            prop_assert!(segment.len <= limits.max_len());
            let (first, last) = (segment.addr.get(), segment.addr.get() + segment.len as u64 - 1);
            prop_assert_eq!(first.checked_div(boundary), last.checked_div(boundary));
        }
        for pair in segments.windows(2) {
            let joined = pair[0].len + pair[1].len;
            let touch = pair[0].addr + pair[0].len == pair[1].addr;
            prop_assert!(!touch || limits.fit(pair[0].addr.get(), joined) == pair[0].len);
        }
    }
}
