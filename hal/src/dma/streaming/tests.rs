use super::super::device::fake;
use super::super::{Bidirectional, DmaMask, FromDevice, MemoryKind};
use super::*;
use crate::addr::PhysAddr;
use crate::arch::trace::{Op, record_during};
use crate::layout::{self, host};

fn device(coherent: bool) -> &'static Device {
    let device = fake("test", DmaMask::new::<64>(), [0, 0, 1 << 40]);
    device.set_coherent(coherent);
    device
}

/// `len` bytes of RAM, `offset` bytes into a page.
fn buffer(offset: usize, len: usize) -> &'static mut [u8] {
    let ram = host::ram((offset + len) as u64, 4096);
    let ptr = layout::phys_to_virt(ram.start + offset).as_ptr();
    // SAFETY: the RAM was just handed out to this call alone.
    unsafe { core::slice::from_raw_parts_mut(ptr, len) }
}

/// Maintenance of one map and unmap: (cleans, invalidates, both, barriers) of each half.
fn counts(ops: &[Op]) -> [usize; 4] {
    let count = |kind: fn(&Op) -> bool| ops.iter().filter(|op| kind(op)).count();
    [
        count(|op| matches!(op, Op::Clean(_))),
        count(|op| matches!(op, Op::Invalidate(_))),
        count(|op| matches!(op, Op::CleanInvalidate(_))),
        count(|op| matches!(op, Op::DsbSy)),
    ]
}

fn map_and_unmap<D: Direction>(device: &Device, offset: usize, len: usize) -> [[usize; 4]; 2] {
    let buffer = buffer(offset, len);
    let (mapping, map) = record_during(|| map_slice::<D>(device, buffer).unwrap());
    let ((), unmap) = record_during(|| mapping.unmap());
    for ops in [&map, &unmap] {
        if let Some(last) = ops.last() {
            assert_eq!(*last, Op::DsbSy, "the barrier completes the maintenance");
        }
    }
    [counts(&map), counts(&unmap)]
}

#[test]
fn arm64_rules_by_direction() {
    let device = device(false);
    let map = [4, 0, 0, 1];
    assert_eq!(map_and_unmap::<ToDevice>(device, 0, 256), [map, [0; 4]]);
    assert_eq!(
        map_and_unmap::<FromDevice>(device, 0, 256),
        [map, [0, 4, 0, 1]]
    );
    assert_eq!(
        map_and_unmap::<Bidirectional>(device, 0, 256),
        [map, [0, 4, 0, 1]]
    );
}

#[test]
fn what_shares_a_line_with_its_neighbours_is_bounced_for_devices_that_write() {
    let device = device(false);
    // The slots' own lines, whole.
    assert_eq!(
        map_and_unmap::<FromDevice>(device, 1, 64),
        [[1, 0, 0, 1], [0, 1, 0, 1]]
    );
    assert_eq!(
        map_and_unmap::<Bidirectional>(device, 63, 130),
        [[3, 0, 0, 1], [0, 3, 0, 1]]
    );
    assert_eq!(
        map_and_unmap::<ToDevice>(device, 63, 130),
        [[4, 0, 0, 1], [0; 4]]
    );
    assert_eq!(
        map_and_unmap::<FromDevice>(device, 0, 4097),
        [[65, 0, 0, 1], [0, 65, 0, 1]]
    );
}

#[test]
fn a_coherent_device_needs_no_maintenance() {
    let device = device(true);
    assert_eq!(
        map_and_unmap::<Bidirectional>(device, 3, 100),
        [[0; 4], [0; 4]]
    );
}

#[test]
fn syncs_hand_the_bytes_back_and_forth() {
    let buffer = buffer(0, 64);
    let mapping = map_slice::<FromDevice>(device(false), buffer).unwrap();
    let (mut cpu, ops) = record_during(|| mapping.sync_for_cpu());
    assert_eq!(counts(&ops), [0, 1, 0, 1]);
    cpu[0] = 7;
    let (mapping, ops) = record_during(|| cpu.sync_for_device());
    assert_eq!(counts(&ops), [1, 0, 0, 1]);
    let (cpu, _) = record_during(|| mapping.sync_for_cpu());
    assert_eq!(cpu[0], 7);
    let ((), ops) = record_during(|| drop(cpu));
    assert!(
        ops.is_empty(),
        "dropping what the CPU owns must not lose its stores"
    );
}

#[test]
fn counters_count_lines() {
    let before = maintenance::counters();
    map_and_unmap::<FromDevice>(device(false), 0, 192);
    let after = maintenance::counters();
    // Other tests run at the same time: at least ours.
    assert!(after.cleaned >= before.cleaned + 3);
    assert!(after.invalidated >= before.invalidated + 3);
}

fn refusal(address: usize, len: usize) -> DmaError {
    // SAFETY: no address used here lies in the direct map, so nothing is promised of it.
    unsafe { map_single::<ToDevice>(device(false), VirtAddr::new(address).as_ptr(), len) }
        .unwrap_err()
}

#[test]
fn other_windows_are_refused_by_name() {
    for (window, kind) in [
        (layout::VMALLOC, MemoryKind::Vmalloc),
        (layout::COHERENT, MemoryKind::Coherent),
        (layout::IOREMAP, MemoryKind::Ioremap),
        (layout::IMAGE, MemoryKind::Image),
        (layout::KMAP, MemoryKind::Temporary),
        (layout::EARLY, MemoryKind::Unmapped),
    ] {
        let addr = window.base + 0x1000;
        assert_eq!(
            refusal(addr.get(), 64),
            DmaError::NotMappable { addr, kind }
        );
    }
    assert_eq!(
        refusal(layout::VMALLOC.base.get(), 64).to_string(),
        "rejecting DMA map of vmalloc memory at 0xffffffc000000000"
    );
}

#[test]
fn empty_and_wrapping_lengths_are_refused() {
    assert_eq!(refusal(layout::VMALLOC.base.get(), 0), DmaError::ZeroLength);
    let addr = VirtAddr::new(usize::MAX - 3);
    assert_eq!(refusal(addr.get(), 5), DmaError::Wraps { addr, len: 5 });
    assert_eq!(
        map_slice::<ToDevice>(device(false), &mut []).unwrap_err(),
        DmaError::ZeroLength
    );
}

#[test]
fn memory_beyond_the_mask_is_refused_without_maintenance() {
    let legacy = fake("legacy", DmaMask::new::<32>(), [0, 0xC000_0000, 1 << 30]);
    // Pretended RAM begins where the window ends.
    let buffer = buffer(0, 64);
    let (result, ops) = record_during(|| map_slice::<ToDevice>(legacy, buffer).map(drop));
    assert!(matches!(
        result,
        Err(DmaError::OutOfReach { len: 64, limit, .. }) if limit == PhysAddr::new(0x3FFF_FFFF)
    ));
    assert!(ops.is_empty());
}

#[test]
fn a_map_remembers_whether_it_is_maintained() {
    let device = device(false);
    let buffer = buffer(0, 128);
    let mapping = map_slice::<FromDevice>(device, buffer).unwrap();
    device.set_coherent(true);
    let ((), unmap) = record_during(|| mapping.unmap());
    assert_eq!(counts(&unmap), [0, 2, 0, 1]);
}

#[test]
fn a_shared_buffer_stays_readable() {
    let buffer: &[u8] = buffer(0, 64);
    let mapping = map_shared(device(false), buffer).unwrap();
    assert_eq!(buffer[0], 0);
    assert_eq!(mapping.dma_segment().len, 64);
    mapping.unmap();
}
