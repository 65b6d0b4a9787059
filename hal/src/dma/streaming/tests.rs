use super::super::device::fake;
use super::super::{Bidirectional, DmaMask, FromDevice, MemoryKind, maintenance};
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
        let mut instructions = ops.iter().filter(|op| !matches!(op, Op::Copy { .. }));
        if let Some(last) = instructions.next_back() {
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
    fn barriers<D: Direction>() -> [Vec<Op>; 4] {
        let mapped = record_during(|| map_slice::<D>(device(true), buffer(3, 100)).unwrap());
        let taken = record_during(|| mapped.0.sync_for_cpu());
        let given = record_during(|| taken.0.sync_for_device());
        let ((), ended) = record_during(|| given.0.unmap());
        [mapped.1, taken.1, given.1, ended]
    }
    let (stores, loads) = (vec![Op::DmbOshst], vec![Op::DmbOshld]);
    let both = [&stores, &loads, &stores, &loads].map(Vec::clone);
    assert_eq!(barriers::<Bidirectional>(), both);
    assert_eq!(barriers::<FromDevice>(), both);
    let to_device = [stores.clone(), vec![], stores, vec![]];
    assert_eq!(barriers::<ToDevice>(), to_device);
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

/// What the device sees of a mapping, and the CPU must not touch otherwise.
#[expect(
    clippy::needless_pass_by_ref_mut,
    reason = "the bytes are written through it"
)]
fn shown<'m, D: Direction>(mapping: &'m mut Mapping<'_, D>) -> &'m mut [u8] {
    let DmaSegment { addr, len } = mapping.dma_segment();
    let pa = mapping.device.phys_addr(addr, len).unwrap();
    // SAFETY: the memory is the mapping's, and its device is nobody.
    unsafe { core::slice::from_raw_parts_mut(layout::phys_to_virt(pa).as_ptr(), len) }
}

fn bounced<D: Direction>(buffer: &mut [u8]) -> Mapping<'_, D> {
    buffer.fill(1);
    let mapping = map_slice::<D>(device(false), buffer).unwrap();
    assert!(mapping.is_bounced());
    mapping
}

#[test]
fn every_direction_copies_in_at_the_map() {
    assert_eq!(shown(&mut bounced::<FromDevice>(buffer(1, 99))), [1; 99]);
    assert_eq!(shown(&mut bounced::<Bidirectional>(buffer(1, 99))), [1; 99]);
}

#[test]
fn what_the_device_wrote_is_copied_out_at_syncs_and_unmaps() {
    let bytes = buffer(1, 99);
    let mut mapping = bounced::<FromDevice>(bytes);
    shown(&mut mapping)[0] = 5;
    let mut cpu = mapping.sync_for_cpu();
    assert_eq!(cpu[..2], [5, 1]);
    cpu[1] = 6;
    let mut mapping = cpu.sync_for_device();
    // What the CPU stored is kept, as a clean keeps it where nothing is bounced.
    assert_eq!(shown(&mut mapping)[..2], [5, 6]);
    shown(&mut mapping)[2] = 7;
    mapping.unmap();
    assert_eq!(bytes[..4], [5, 6, 7, 1]);
}

#[test]
fn what_the_cpu_stored_is_copied_in_again_for_devices_that_read() {
    let bytes = buffer(1, 99);
    let mut cpu = bounced::<Bidirectional>(bytes).sync_for_cpu();
    cpu[3] = 9;
    let mut mapping = cpu.sync_for_device();
    assert_eq!(shown(&mut mapping)[3], 9);
    // Dropped while the CPU's: what the slots hold no longer counts.
    let cpu = mapping.sync_for_cpu();
    drop(cpu);
    assert_eq!(bytes[3], 9);
}

#[test]
fn a_part_is_taken_back_by_itself() {
    let bytes = buffer(0, 256);
    let mut mapping = map_slice::<FromDevice>(device(false), bytes).unwrap();
    let (part, ops) = record_during(|| mapping.sync_part_for_cpu(64..128));
    assert_eq!(counts(&ops), [0, 1, 0, 1]);
    let mut part = part.unwrap();
    assert_eq!(part.len(), 64);
    part[0] = 3;
    let ((), ops) = record_during(|| drop(part));
    assert_eq!(counts(&ops), [1, 0, 0, 1]);
    assert_eq!(
        mapping.sync_part_for_cpu(200..300).unwrap_err(),
        DmaError::OutOfBounds {
            offset: 200,
            len: 100,
            size: 256
        }
    );
    assert!(matches!(
        mapping.sync_part_for_cpu(1..64),
        Err(DmaError::PartialLine { len: 63, .. })
    ));
    mapping.unmap();
    assert_eq!(bytes[64], 3);
}

/// What the CPU stored to a part that it forgot to give back is cleaned before it is invalidated.
#[test]
fn a_part_that_is_forgotten_loses_nothing() {
    let line = |bytes: &[u8], index: usize| VirtAddr::from_ptr(bytes.as_ptr()) + 64 * index;
    let bytes = buffer(0, 192);
    let lines = [0, 1, 2].map(|index| line(bytes, index));
    let forget = |mapping: &mut Mapping<'_, FromDevice>, range| {
        let mut part = mapping.sync_part_for_cpu(range).unwrap();
        part.fill(9);
        core::mem::forget(part);
    };
    let mut mapping = map_slice::<FromDevice>(device(false), bytes).unwrap();
    forget(&mut mapping, 64..128);
    let ((), next) = record_during(|| forget(&mut mapping, 128..192));
    let (clean, invalidate) = (Op::Clean, Op::Invalidate);
    assert_eq!(
        next,
        [clean(lines[1]), Op::DsbSy, invalidate(lines[2]), Op::DsbSy]
    );
    let ((), unmap) = record_during(|| mapping.unmap());
    let mut wanted = vec![clean(lines[2]), Op::DsbSy];
    wanted.extend(lines.map(invalidate));
    wanted.push(Op::DsbSy);
    assert_eq!(unmap, wanted);

    let mut mapping = map_slice::<FromDevice>(device(false), bytes).unwrap();
    forget(&mut mapping, 0..64);
    let (cpu, taken) = record_during(|| mapping.sync_for_cpu());
    assert_eq!(taken[..2], [clean(lines[0]), Op::DsbSy]);
    let ((), end) = record_during(|| cpu.sync_for_device().unmap());
    assert_eq!(end[0], clean(lines[0]), "it was given back once");

    // The slots get it.
    let mut mapping = bounced::<FromDevice>(&mut bytes[1..100]);
    forget(&mut mapping, 0..64);
    mapping.unmap();
    assert_eq!((bytes[1], bytes[64], bytes[65]), (9, 9, 1));
}

/// What the engine wrote would be undone when the CPU's lines are cleaned.
#[test]
fn no_engine_is_given_a_mapping_of_which_a_part_is_forgotten() {
    use super::super::engine::tests::Recorder;
    use super::super::engine::{Rectangle, copy, copy_2d};
    use super::super::{Completion, DmaEngine};

    let engine = Recorder::new(None);
    let device = engine.device();
    let whole = |dst: &Mapping<'_, Bidirectional>| {
        let (src, dst): (&dyn Source, &dyn Destination) = (dst, dst);
        (src.segment(0), dst.segment(0))
    };
    let mut src = map_slice::<Bidirectional>(device, buffer(0, 128)).unwrap();
    let mut dst = map_slice::<Bidirectional>(device, buffer(0, 128)).unwrap();
    copy(&engine, &src, &mut dst).unwrap();
    for mapping in [&mut dst, &mut src] {
        core::mem::forget(mapping.sync_part_for_cpu(64..128).unwrap());
        assert_eq!(whole(mapping), (None, None));
    }
    let forgotten = |mapping: &Mapping<'_, Bidirectional>| DmaError::PartOfCpu {
        addr: mapping.dma_addr() + 64,
        len: 64,
    };
    let refused = forgotten(&src);
    assert_eq!(copy(&engine, &src, &mut dst), Err(refused));
    let row = Rectangle {
        rows: 1,
        row_len: 16,
        src_stride: 0,
        dst_stride: 0,
    };
    let by = Completion::Polled;
    let moved = copy_2d(&engine, (&src, 0), (&mut dst, 0), row, by);
    assert_eq!(moved, Err(refused));
    // It is the device's again with the next part that is given back.
    drop(src.sync_part_for_cpu(0..64).unwrap());
    let refused = forgotten(&dst);
    assert_eq!(copy(&engine, &src, &mut dst), Err(refused));
    let mut dst = dst.sync_for_cpu().sync_for_device();
    copy(&engine, &src, &mut dst).unwrap();
}

#[test]
fn a_part_of_slots_is_copied_by_itself() {
    let bytes = buffer(1, 200);
    let mut mapping = bounced::<Bidirectional>(bytes);
    shown(&mut mapping).fill(4);
    let mut part = mapping.sync_part_for_cpu(128..200).unwrap();
    assert_eq!(*part, [4; 72]);
    part[71] = 5;
    drop(part);
    assert_eq!(shown(&mut mapping)[199], 5);
    mapping.unmap();
    assert_eq!((bytes[0], bytes[199]), (4, 5));
}

#[test]
fn pages_are_mapped_by_number_and_offset() {
    let ram = host::ram(2 * 4096, 4096);
    // SAFETY: the RAM was just handed out to this test alone.
    let mapping = unsafe { map_page::<ToDevice>(device(false), ram.start.pfn(), 4000, 200) };
    let segment = mapping.unwrap().dma_segment();
    assert_eq!(
        (segment.addr.get(), segment.len),
        (ram.start.get() + 4000, 200)
    );
    let page = ram.start.pfn();
    // SAFETY: refused, so nothing is promised.
    let wraps = unsafe { map_page::<ToDevice>(device(false), page, usize::MAX, 1) };
    assert!(matches!(wraps, Err(DmaError::Wraps { len: 1, .. })));
}
