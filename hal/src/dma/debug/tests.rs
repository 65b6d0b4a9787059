//! The checks one by one.

#[path = "tests/model.rs"]
mod model;
#[path = "tests/sharing.rs"]
mod sharing;

use super::checker::{Checker, Lent, Reports, Sync};
use super::report::Lender;
use super::*;
use crate::addr::PhysAddr;
use crate::alloc::Flags;
use crate::alloc::testing::Host;
use crate::dma::raw::DMA_MAPPING_ERROR;
use crate::dma::{DmaMask, SegmentLimits, device};
use DirectionKind::{Bidirectional, FromDevice, ToDevice};

const NET: Lender = Lender { id: 1, name: "net" };
const DISK: Lender = Lender {
    id: 2,
    name: "disk",
};
/// Where devices see memory.
const BUS: u64 = 0x1_0000_0000;

fn checker(capacity: usize) -> Checker<Host> {
    Checker::new(capacity, Flags::KERNEL).unwrap()
}

/// A call about the `len` bytes at bus offset `at`.
#[track_caller]
fn call(kind: Kind, at: u64, len: usize, direction: DirectionKind) -> Call {
    Call {
        kind,
        cpu: VirtAddr::new(0x1000),
        addr: DmaAddr::new(BUS + at),
        len,
        direction,
        sg: None,
        site: Location::caller(),
    }
}

/// What a map of `call` by a device that does not snoop adds.
fn lent(call: &Call) -> Lent {
    Lent {
        memory: Some(PhysAddr::new(call.addr.get() - BUS)),
        is_copied: false,
        granule: 64,
        maintained: true,
        checked: true,
        limits: SegmentLimits::NONE,
    }
}

/// As [`lent`], by a map that nobody has looked at yet.
fn unseen(call: &Call) -> Lent {
    Lent {
        checked: false,
        ..lent(call)
    }
}

fn kinds(found: &Reports) -> Vec<Check> {
    found.iter().map(|report| report.check).collect()
}

fn map(checker: &mut Checker<Host>, call: Call) -> Vec<Check> {
    kinds(&checker.map(NET, call, &lent(&call)))
}

#[test]
fn a_right_life_is_silent() {
    let mut checker = checker(4);
    let buffer = call(Kind::Single, 0, 256, Bidirectional);
    assert_eq!(map(&mut checker, buffer), []);
    for (at, len, direction) in [
        (0, 256, Bidirectional),
        (64, 64, FromDevice),
        (255, 1, ToDevice),
    ] {
        let part = call(Kind::Single, at, len, direction);
        for to in [Sync::ForCpu, Sync::ForDevice] {
            assert_eq!(kinds(&checker.sync(NET, part, to)), []);
        }
    }
    assert_eq!(checker.live(), 1);
    assert_eq!(kinds(&checker.unmap(NET, buffer)), []);
    assert_eq!((checker.live(), checker.peak()), (0, 1));
}

#[test]
fn a_report_names_both_sites_and_what_was_mapped() {
    let mut checker = checker(4);
    let mapped = call(Kind::Single, 0x40, 256, FromDevice);
    map(&mut checker, mapped);
    let wrong = call(Kind::Single, 0x40, 128, FromDevice);
    let found = checker.unmap(NET, wrong);
    let [report] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (report.check, report.device, report.nth),
        (Check::FreeSize, "net", 1)
    );
    assert_eq!((report.call, report.mapped), (wrong, Some(mapped)));
    let (file, at) = (file!(), |call: Call| call.site.line());
    assert_eq!(
        report.to_string(),
        format!(
            "dma-debug: net frees with another size than it was mapped with: single 0x80 bytes at \
             device address {0} (CPU {1}), from device, {file}:{2}; mapped: single 0x100 bytes at \
             device address {0} (CPU {1}), from device, {file}:{3}",
            wrong.addr,
            wrong.cpu,
            at(wrong),
            at(mapped)
        )
    );
}

#[test]
fn all_that_is_wrong_with_an_unmap_is_said() {
    let mut checker = checker(4);
    let mut mapped = call(Kind::Sg, 0, 256, FromDevice);
    mapped.sg = Some(SgPlace { index: 0, count: 3 });
    let unchecked = unseen(&mapped);
    checker.map(NET, mapped, &unchecked);
    let mut wrong = call(Kind::Sg, 0, 64, ToDevice);
    wrong.sg = Some(SgPlace { index: 0, count: 2 });
    assert_eq!(
        kinds(&checker.unmap(NET, wrong)),
        [
            Check::FreeSize,
            Check::SgCount,
            Check::FreeDirection,
            Check::ErrorUnchecked
        ]
    );
    // It was unmapped all the same.
    assert_eq!(kinds(&checker.unmap(NET, wrong)), [Check::FreeUnallocated]);
}

#[test]
fn another_devices_mapping_is_not_mapped() {
    let mut checker = checker(4);
    let mapped = call(Kind::Page, 0, 256, ToDevice);
    map(&mut checker, mapped);
    assert_eq!(
        kinds(&checker.unmap(DISK, mapped)),
        [Check::FreeUnallocated]
    );
    assert_eq!(
        kinds(&checker.sync(DISK, mapped, Sync::ForCpu)),
        [Check::SyncUnallocated]
    );
    assert_eq!(kinds(&checker.unmap(NET, mapped)), []);
}

#[test]
fn an_address_inside_a_mapping_is_none_to_unmap_and_the_mapping_is_shown() {
    let mut checker = checker(4);
    let mapped = call(Kind::Single, 0, 256, ToDevice);
    map(&mut checker, mapped);
    let found = checker.unmap(NET, call(Kind::Single, 64, 192, ToDevice));
    assert_eq!(kinds(&found), [Check::FreeUnallocated]);
    assert_eq!(found[0].mapped, Some(mapped));
}

/// An unmap and a sync that come too late, with the place of the unmap before them.
#[test]
fn what_was_unmapped_is_known_until_its_slot_is_used_again() {
    let mut checker = checker(2);
    let first = call(Kind::Page, 0, 256, FromDevice);
    map(&mut checker, first);
    let ended = call(Kind::Page, 0, 256, FromDevice);
    checker.unmap(NET, ended);
    let late = call(Kind::Single, 128, 64, FromDevice);
    let told = |found: &Reports| (found[0].check, found[0].mapped, found[0].unmapped);
    let known = (Some(first), Some(ended.site));
    let again = checker.unmap(NET, ended);
    assert_eq!(told(&again), (Check::FreeUnallocated, known.0, known.1));
    let line = format!("; unmapped at {}:{}", file!(), ended.site.line());
    assert!(again[0].to_string().ends_with(&line), "{}", again[0]);
    let synced = checker.sync(NET, late, Sync::ForCpu);
    assert_eq!(told(&synced), (Check::SyncUnallocated, known.0, known.1));
    let nothing = (Check::SyncUnallocated, None, None);
    assert_eq!(told(&checker.sync(DISK, late, Sync::ForCpu)), nothing);
    let outside = call(Kind::Single, 256, 64, FromDevice);
    assert_eq!(told(&checker.sync(NET, outside, Sync::ForCpu)), nothing);
    // Of two that were there the later; a slot that was never used comes before.
    let second = call(Kind::Single, 64, 192, ToDevice);
    map(&mut checker, second);
    checker.unmap(NET, second);
    let synced = checker.sync(NET, late, Sync::ForCpu);
    let last = (Some(second), Some(second.site));
    assert_eq!(told(&synced), (Check::SyncUnallocated, last.0, last.1));
    // The slot that was free for longest is used first, and one that is live is shown before.
    let other = call(Kind::Single, 4096, 64, ToDevice);
    map(&mut checker, other);
    let synced = checker.sync(NET, call(Kind::Single, 0, 64, ToDevice), Sync::ForCpu);
    assert_eq!(told(&synced), nothing);
    map(&mut checker, other);
    assert_eq!(told(&checker.sync(NET, late, Sync::ForCpu)), nothing);
    let inside = call(Kind::Single, 4100, 60, ToDevice);
    let found = checker.unmap(NET, inside);
    assert_eq!(told(&found), (Check::FreeUnallocated, Some(other), None));
}

#[test]
fn a_list_is_no_single_buffer() {
    let mut checker = checker(1);
    let single = call(Kind::Single, 0, 64, ToDevice);
    let list = Call {
        kind: Kind::Sg,
        sg: Some(SgPlace { index: 0, count: 1 }),
        ..single
    };
    for (mapped, unmapped) in [(list, single), (single, list)] {
        map(&mut checker, mapped);
        let found = checker.unmap(NET, unmapped);
        assert_eq!(kinds(&found), [Check::WrongFunction]);
    }
}

#[test]
fn the_address_of_a_failed_map_is_known() {
    let mut checker = checker(4);
    let mut failed = call(Kind::Single, 0, 64, ToDevice);
    failed.addr = DMA_MAPPING_ERROR;
    assert_eq!(kinds(&checker.unmap(NET, failed)), [Check::ErrorUsed]);
    assert_eq!(
        kinds(&checker.sync(NET, failed, Sync::ForDevice)),
        [Check::ErrorUsed]
    );
}

#[test]
fn coherent_memory_has_its_own_rules() {
    let mut checker = checker(4);
    let memory = call(Kind::Coherent, 0, 4096, Bidirectional);
    let no_lines = Lent {
        memory: None,
        ..lent(&memory)
    };
    checker.map(NET, memory, &no_lines);
    assert_eq!(
        kinds(&checker.sync(NET, memory, Sync::ForCpu)),
        [Check::WrongFunction]
    );
    let elsewhere = Call {
        cpu: VirtAddr::new(0x2000),
        ..memory
    };
    assert_eq!(
        kinds(&checker.unmap(NET, elsewhere)),
        [Check::FreeCpuAddress]
    );
    checker.map(NET, memory, &no_lines);
    let single = Call {
        kind: Kind::Single,
        ..memory
    };
    assert_eq!(kinds(&checker.unmap(NET, single)), [Check::WrongFunction]);
}

#[test]
fn directions_of_a_sync() {
    for (mapped, passed, to, expected) in [
        (ToDevice, ToDevice, Sync::ForCpu, None),
        (
            ToDevice,
            FromDevice,
            Sync::ForCpu,
            Some(Check::SyncReadOnlyForCpu),
        ),
        (
            ToDevice,
            Bidirectional,
            Sync::ForCpu,
            Some(Check::SyncReadOnlyForCpu),
        ),
        (
            ToDevice,
            FromDevice,
            Sync::ForDevice,
            Some(Check::SyncDirection),
        ),
        (
            ToDevice,
            Bidirectional,
            Sync::ForDevice,
            Some(Check::SyncDirection),
        ),
        (FromDevice, FromDevice, Sync::ForDevice, None),
        (
            FromDevice,
            ToDevice,
            Sync::ForDevice,
            Some(Check::SyncWriteOnlyForDevice),
        ),
        (
            FromDevice,
            Bidirectional,
            Sync::ForDevice,
            Some(Check::SyncWriteOnlyForDevice),
        ),
        (
            FromDevice,
            ToDevice,
            Sync::ForCpu,
            Some(Check::SyncDirection),
        ),
        (
            FromDevice,
            Bidirectional,
            Sync::ForCpu,
            Some(Check::SyncDirection),
        ),
        (Bidirectional, ToDevice, Sync::ForCpu, None),
        (Bidirectional, FromDevice, Sync::ForDevice, None),
    ] {
        let mut checker = checker(1);
        map(&mut checker, call(Kind::Single, 0, 64, mapped));
        let found = checker.sync(NET, call(Kind::Single, 0, 64, passed), to);
        assert!(
            kinds(&found).into_iter().eq(expected),
            "{mapped} {passed} {to:?}: {found:?}"
        );
    }
}

#[test]
fn segments_that_a_device_does_not_take() {
    let mut checker = checker(4);
    let limits = SegmentLimits::new(0x1000, 0x1_0000).unwrap();
    for (kind, at, len, expected) in [
        (Kind::Sg, 0xF000, 0x1000, &[][..]),
        (Kind::Sg, 0, 0x1001, &[Check::SgTooLong]),
        (Kind::Sg, 0xFFFF, 2, &[Check::SgBoundary]),
        (
            Kind::Sg,
            0xF800,
            0x1800,
            &[Check::SgTooLong, Check::SgBoundary],
        ),
        (Kind::Single, 0xF800, 0x1800, &[]),
    ] {
        let mut segment = call(kind, at, len, ToDevice);
        segment.sg = (kind == Kind::Sg).then_some(SgPlace { index: 0, count: 1 });
        let found = checker.map(
            NET,
            segment,
            &Lent {
                limits,
                ..lent(&segment)
            },
        );
        assert_eq!(kinds(&found), expected, "{at:#x} {len:#x}");
        checker.unmap(NET, segment);
    }
}

#[test]
fn a_map_is_checked_by_looking_at_its_address() {
    let mut checker = checker(4);
    let buffer = call(Kind::Single, 0, 64, ToDevice);
    let unchecked = unseen(&buffer);
    checker.map(NET, buffer, &unchecked);
    checker.look(DISK, buffer.addr);
    checker.look(NET, buffer.addr + 1);
    assert_eq!(
        kinds(&checker.sync(NET, buffer, Sync::ForDevice)),
        [Check::ErrorUnchecked]
    );
    assert_eq!(kinds(&checker.unmap(NET, buffer)), [], "said once");
    checker.map(NET, buffer, &unchecked);
    assert_eq!(kinds(&checker.unmap(NET, buffer)), [Check::ErrorUnchecked]);
    checker.map(NET, buffer, &unchecked);
    checker.look(NET, buffer.addr);
    assert_eq!(kinds(&checker.unmap(NET, buffer)), []);
}

/// The second of two mappings was not looked at: the first unmap takes the one that was.
#[test]
fn of_two_mappings_at_an_address_each_is_looked_at() {
    let mut checker = checker(4);
    let buffer = call(Kind::Single, 0, 64, ToDevice);
    let unchecked = unseen(&buffer);
    checker.map(NET, buffer, &unchecked);
    checker.look(NET, buffer.addr);
    checker.map(NET, buffer, &unchecked);
    assert_eq!(kinds(&checker.unmap(NET, buffer)), []);
    assert_eq!(kinds(&checker.unmap(NET, buffer)), [Check::ErrorUnchecked]);
}

#[test]
fn a_table_that_is_full_says_so_and_blames_nobody_for_what_it_does_not_know() {
    let mut checker = checker(2);
    let buffer = |index: u64| call(Kind::Single, 4096 * index, 64, ToDevice);
    assert_eq!(map(&mut checker, buffer(0)), []);
    assert_eq!(map(&mut checker, buffer(1)), []);
    assert!(checker.is_complete());
    assert_eq!(map(&mut checker, buffer(2)), [Check::OutOfEntries]);
    assert!(!checker.is_complete());
    assert_eq!(kinds(&checker.unmap(NET, buffer(2))), []);
    assert_eq!(kinds(&checker.sync(NET, buffer(2), Sync::ForCpu)), []);
    // What is known is checked as before, and its room is used again.
    let larger = Call {
        len: 128,
        ..buffer(1)
    };
    assert_eq!(kinds(&checker.unmap(NET, larger)), [Check::FreeSize]);
    assert_eq!(map(&mut checker, buffer(3)), []);
    assert_eq!(map(&mut checker, buffer(4)), [Check::OutOfEntries]);
    assert_eq!(
        (
            checker.count(Check::OutOfEntries),
            checker.live(),
            checker.peak()
        ),
        (2, 2, 2)
    );
}

#[test]
fn a_table_of_nothing_records_nothing() {
    let mut checker = checker(0);
    assert_eq!(
        map(&mut checker, call(Kind::Single, 0, 64, ToDevice)),
        [Check::OutOfEntries]
    );
}

#[test]
fn what_a_device_leaves_behind_is_listed() {
    let mut checker = checker(4);
    for at in [4096, 0] {
        map(&mut checker, call(Kind::Page, at, 64, FromDevice));
    }
    let of_disk = call(Kind::Page, 8192, 64, FromDevice);
    checker.map(DISK, of_disk, &lent(&of_disk));
    let released = Location::caller();
    let leaks: Vec<_> = checker
        .slots()
        .flat_map(|slot| checker.leak(NET, slot, released))
        .collect();
    let addrs: Vec<_> = leaks
        .iter()
        .map(|leak| leak.call.addr.get() - BUS)
        .collect();
    assert_eq!(addrs, [4096, 0]);
    assert!(
        leaks
            .iter()
            .all(|leak| leak.check == Check::Leak && leak.call.site == released)
    );
    assert!(
        leaks
            .iter()
            .all(|leak| leak.mapped.is_some_and(|mapped| mapped.site != released))
    );
    let live: Vec<_> = checker
        .slots()
        .filter_map(|slot| checker.mapping(slot))
        .collect();
    assert_eq!(
        live.iter().map(|live| live.0).collect::<Vec<_>>(),
        ["net", "net", "disk"]
    );
}

#[test]
fn refusals_are_mistakes_or_fate() {
    let at = |addr| DmaError::NotMappable {
        addr,
        kind: MemoryKind::outside_direct_map(addr).unwrap(),
    };
    use crate::layout::{IMAGE, IOREMAP, VMALLOC};
    assert_eq!(mistake(&at(VMALLOC.base)), Some(Check::MapVmalloc));
    assert_eq!(mistake(&at(IOREMAP.base)), Some(Check::MapInvalid));
    // Nobody says what lies there.
    assert_eq!(mistake(&at(IMAGE.base)), Some(Check::MapInvalid));
    assert_eq!(mistake(&DmaError::ZeroLength), Some(Check::MapInvalid));
    let device = device::fake("narrow", DmaMask::new::<28>(), [0, 0, 1 << 40]);
    let far = device.dma_addr(PhysAddr::new(1 << 30), 1).unwrap_err();
    assert_eq!(mistake(&far), None);
    // The rest of the line is the caller's too: of an object it is, and of pages.
    let (addr, len) = (VirtAddr::new(0x1000), 100);
    for granule in [64, 128] {
        let partial = DmaError::PartialLine { addr, len, granule };
        assert_eq!(mistake(&partial), None);
    }
}
