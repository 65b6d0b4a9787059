use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::mm::ZoneKind;
use crate::mm::testing::frame_table;

const MIB: u64 = 1 << 20;

fn table(start: u64, end: u64) -> FrameTable {
    frame_table(PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)))
}

fn prepare(frames: FrameTable, pfn: u32, order: u32) -> bool {
    // SAFETY: the table belongs to the test alone.
    unsafe { frames.prepare(Pfn::new(pfn), order, MigrateType::Movable) }
}

#[test]
fn sizes_cover_every_touched_pageblock() {
    let range = PhysRange::new(PhysAddr::new(3 * MIB), PhysAddr::new(4 * MIB + 1));
    assert_eq!(FrameTable::words_for(range), 3 + 1);
    assert_eq!(FrameTable::backing_for(range), 512 * 16..3 * 512 * 16);
}

#[test]
fn garbage_is_never_read_as_a_descriptor() {
    let frames = table(8 * MIB, 16 * MIB);
    let first = 0x800;
    assert_eq!(
        frames.get(Pfn::new(0x1000)).err(),
        Some(FrameError::OutOfRange(Pfn::new(0x1000)))
    );
    assert_eq!(
        frames.get(Pfn::new(first)).err(),
        Some(FrameError::Untouched(Pfn::new(first)))
    );
    assert_eq!(
        frames.get(Pfn::new(u32::MAX)).err(),
        Some(FrameError::OutOfRange(Pfn::new(u32::MAX)))
    );
    let unused = frames.lookup().find(Pfn::new(first)).unwrap();
    assert_eq!((unused.kind(), unused.objects_out()), (FrameKind::Tail, 0));
    assert!(frames.lookup().find(Pfn::new(0x1000)).is_none());
    assert!(prepare(frames, first, 10));
    for pfn in (first..first + 1024).map(Pfn::new) {
        assert_eq!(frames.get(pfn).unwrap().kind(), FrameKind::Tail);
    }
    assert!(frames.get(Pfn::new(first + 1024)).is_err());
}

#[test]
fn slots_are_found_by_aligned_addresses_below_the_table_s_end() {
    let frames = table(8 * MIB, 16 * MIB);
    assert!(prepare(frames, 0x800, 9));
    let lookup = frames.lookup();
    let frame = frames.get(Pfn::new(0x805)).unwrap();
    for slot in 0..64 {
        let pa = 0x80_5000 + slot * 64;
        let (found, number) = lookup.find_slot(pa).unwrap();
        assert!(core::ptr::eq(found, frame));
        assert_eq!(number % 64, slot as u32);
        assert!((1..64).all(|off| lookup.find_slot(pa + off).is_none()));
    }
    assert!(lookup.find_slot(0x100_0000).is_none());
    assert!(lookup.find_slot(usize::MAX & !63).is_none());
    assert!(FrameLookup::EMPTY.find_slot(0).is_none());
}

#[test]
fn the_links_of_a_slab_s_frame_leave_its_tag_and_order_alone() {
    let frame = Frame::default();
    frame.set_slab(200, 3);
    frame.set_slab_next((1 << 26) - 1);
    frame.set_slab_prev(0x155_5555);
    assert_eq!(frame.slab_links(), ((1 << 26) - 1, 0x155_5555));
    frame.set_slab_next(7);
    assert_eq!(frame.slab_links(), (7, 0x155_5555));
    assert_eq!((frame.tag(), frame.slab_order()), (200, 3));
    assert!(!frame.is_listed());
    assert_eq!(frame.kind(), FrameKind::Slab);
    assert_eq!(frame.memory_type(), MemoryType::NormalWriteBack);
}

#[test]
fn cutting_a_pageblock_keeps_its_first_descriptor_and_type() {
    let frames = table(8 * MIB, 16 * MIB);
    assert!(prepare(frames, 0x800, 9));
    let head = frames.get(Pfn::new(0x800)).unwrap();
    head.set_head(FrameKind::Allocated, 9);
    frames.set_migrate_type(Pfn::new(0x800), MigrateType::Reclaimable);
    assert!(prepare(frames, 0x800, 3));
    assert_eq!((head.kind(), head.order()), (FrameKind::Allocated, 9));
    assert_eq!(
        frames.migrate_type(Pfn::new(0x9FF)),
        MigrateType::Reclaimable
    );
    for pfn in 0x801..0xA00 {
        let frame = frames.get(Pfn::new(pfn)).unwrap();
        assert_eq!((frame.kind(), frame.links()), (FrameKind::Tail, (0, 0)));
    }
    assert!(frames.get(Pfn::new(0xA00)).is_err());
    assert!(!prepare(frames, 0x1000, 0));
}

#[test]
fn a_frame_has_one_memory_type_at_a_time() {
    let frames = table(0, 4 * MIB);
    let range = Pfn::new(16)..Pfn::new(32);
    let nc = MemoryType::NormalNonCacheable;
    // SAFETY: the table belongs to the test alone.
    unsafe { frames.claim_memory_type(range.clone(), nc) }.unwrap();
    assert_eq!(frames.memory_type(Pfn::new(31)), Ok(nc));
    assert_eq!(frames.check_memory_type(Pfn::new(16), nc), Ok(()));
    let conflict = MemoryTypeError::Conflict {
        pfn: Pfn::new(16),
        has: nc,
        wanted: MemoryType::NormalWriteBack,
    };
    assert_eq!(
        frames.check_memory_type(Pfn::new(16), MemoryType::NormalWriteBack),
        Err(conflict)
    );
    // SAFETY: as above.
    let overlapping =
        unsafe { frames.claim_memory_type(Pfn::new(8)..Pfn::new(17), MemoryType::DeviceNgnre) };
    assert!(overlapping.is_err());
    assert_eq!(
        frames.memory_type(Pfn::new(8)),
        Ok(MemoryType::NormalWriteBack)
    );
    // SAFETY: as above.
    unsafe { frames.release_memory_type(range) };
    assert_eq!(
        frames.memory_type(Pfn::new(16)),
        Ok(MemoryType::NormalWriteBack)
    );
}

#[test]
fn pageblocks_set_aside_are_named_and_never_prepared() {
    let frames = table(0, 8 * MIB);
    let nc = MemoryType::NormalNonCacheable;
    let aside = Pfn::new(0x200)..Pfn::new(0x600);
    // SAFETY: the table belongs to the test alone.
    unsafe { frames.set_aside(aside.clone(), nc) }.unwrap();
    for number in [0x200, 0x201, 0x5FF] {
        let pfn = Pfn::new(number);
        let named = FrameError::SetAside {
            pfn,
            memory_type: nc,
        };
        assert_eq!(frames.get(pfn).err(), Some(named));
        assert!(frames.get_ready(pfn).is_none());
        assert_eq!(frames.memory_type(pfn), Ok(nc));
        let wanted = MemoryType::NormalWriteBack;
        let conflict = MemoryTypeError::Conflict {
            pfn,
            has: nc,
            wanted,
        };
        assert_eq!(frames.check_memory_type(pfn, wanted), Err(conflict));
    }
    for number in [0x1FF, 0x600] {
        let pfn = Pfn::new(number);
        assert_eq!(frames.get(pfn).err(), Some(FrameError::Untouched(pfn)));
    }
    assert!(!prepare(frames, 0x200, 0));
    assert!(!prepare(frames, 0x400, 9));
    // SAFETY: as above.
    unsafe {
        assert!(frames.set_aside(aside.clone(), nc).is_err());
        assert!(frames.claim_memory_type(aside, nc).is_err());
        let ragged = Pfn::new(0x600)..Pfn::new(0x601);
        assert_eq!(
            frames.set_aside(ragged, nc),
            Err(FrameError::Tail(Pfn::new(0x601)).into())
        );
    }
    assert!(prepare(frames, 0x600, 0));
    // SAFETY: as above.
    let used = unsafe { frames.set_aside(Pfn::new(0x600)..Pfn::new(0x800), nc) };
    assert!(matches!(used, Err(MemoryTypeError::Conflict { .. })));
}

#[test]
fn a_group_is_the_zone_and_type_of_a_pageblock_that_was_always_write_back() {
    let limits = [Pfn::new(0x400), Pfn::new(0x800)];
    let frames = table(0, 16 * MIB).with_zone_limits(limits);
    let group = |pfn| {
        frames
            .plain()
            .get_plain(Pfn::new(pfn))
            .map(|(_, g)| g.number())
    };
    for (zone, start) in ZoneKind::ALL.into_iter().zip([0x200, 0x600, 0x800]) {
        assert_eq!(group(start), None);
        assert!(prepare(frames, start, 9));
        for migrate in MigrateType::ALL {
            frames.set_migrate_type(Pfn::new(start), migrate);
            assert_eq!(frames.migrate_type(Pfn::new(start)), migrate);
            let number = usize::from(Group::first_of(zone)) + migrate as usize;
            let is_kept = migrate <= MigrateType::HighAtomic;
            assert_eq!(group(start + 511), is_kept.then_some(number), "{migrate:?}");
        }
    }
    let nc = MemoryType::NormalNonCacheable;
    let one = Pfn::new(0x200)..Pfn::new(0x201);
    frames.set_migrate_type(one.start, MigrateType::Movable);
    assert_eq!(group(0x200), Some(MigrateType::Movable as usize));
    // SAFETY: the table belongs to the test alone.
    unsafe {
        frames.claim_memory_type(one.clone(), nc).unwrap();
        frames.release_memory_type(one);
        let aside = Pfn::new(0xA00)..Pfn::new(0xC00);
        frames.set_aside(aside, nc).unwrap();
    }
    assert_eq!((group(0x200), group(0xA00)), (None, None));
    assert_eq!((group(0x1000), group(u32::MAX)), (None, None));
    assert!(PlainFrames::EMPTY.get_plain(Pfn::new(0)).is_none());
}

#[test]
fn a_head_changes_its_kind_and_nothing_else() {
    let frame = Frame::default();
    frame.set_head(FrameKind::Allocated, 3);
    frame.set_data(77);
    assert!(frame.as_head(FrameKind::Allocated, 2).is_none());
    assert!(frame.as_head(FrameKind::PcpFree, 3).is_none());
    let head = frame.as_head(FrameKind::Allocated, 3).unwrap();
    head.change_kind(FrameKind::PcpFree);
    assert!(frame.is_head(FrameKind::PcpFree, 3));
    assert_eq!(frame.data(), 77);
    frame.set_plain_head(FrameKind::Allocated, 1);
    assert!(frame.is_head(FrameKind::Allocated, 1));
    assert_eq!(frame.data(), 0);
}
