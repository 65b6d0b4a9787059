use super::*;
use crate::devicetree::{Cpu, DeviceTree, ReservedRange};
use proptest::prelude::*;
use std::vec::Vec;

const PAGE: u64 = PAGE_SIZE as u64;
const MIB: u64 = 1 << 20;

fn span(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start), size).unwrap()
}

fn taken(start: u64, size: u64, kind: ReservedKind) -> Reserved {
    Reserved {
        range: span(start, size),
        kind,
    }
}

const EMPTY_BOARD: BoardMemory<'_> = BoardMemory {
    ram: &[],
    reserved: &[],
    devices: &[],
};
const RAM: u64 = 0x4000_0000;
const IMAGE: u64 = 0x4020_0000;

fn image() -> PhysRange {
    span(IMAGE, 2 * MIB)
}

fn blob() -> PhysRange {
    span(RAM, MIB)
}

fn described(ram: &[PhysRange]) -> Description<'static> {
    Description {
        ram: heapless::Vec::from_slice(ram).unwrap(),
        ..Description::default()
    }
}

fn build(description: &Description<'_>) -> Result<MemoryMap, MapError> {
    let device = span(0x0800_0000, 0x3800_0000 - 0x0800_0000);
    let board = BoardMemory {
        devices: &[device],
        ..EMPTY_BOARD
    };
    MemoryMap::from_description(description, &board, image(), blob())
}

#[test]
fn the_board_map_and_a_described_one_hold_what_they_were_given() {
    let board = BoardMemory {
        ram: &[span(0, 0x3B40_0000)],
        reserved: &[taken(0, PAGE, ReservedKind::Firmware)],
        devices: &[span(0xFC00_0000, 0x0400_0000)],
    };
    let map = MemoryMap::from_board(&board, span(2 * MIB, 2 * MIB)).unwrap();
    assert_eq!(map.ram(), [span(0, 0x3B40_0000)]);
    let free: Vec<_> = map.free_ranges().collect();
    assert_eq!(
        free,
        [
            span(PAGE, 2 * MIB - PAGE),
            span(4 * MIB, 0x3B40_0000 - 4 * MIB)
        ]
    );

    // The same board with 8 GiB, as its firmware describes it.
    let tree = include_bytes!("../../tests/fixtures/spin-table.dtb");
    let tree = DeviceTree::new(tree).unwrap();
    let blob = span(0x2EFF_2000, tree.size() as u64);
    let description = tree.describe().unwrap();
    let image = span(2 * MIB, 2 * MIB);
    let map = MemoryMap::from_description(&description, &board, image, blob).unwrap();
    assert_eq!(map.notes(), []);
    assert_eq!(
        map.ram(),
        [
            span(0, 0x3B40_0000),
            span(0x4000_0000, 0xBC00_0000),
            span(0x1_0000_0000, 0x1_0000_0000),
        ]
    );
    assert_eq!(map.ram_size(), 0x3B40_0000 + 0xBC00_0000 + 0x1_0000_0000);
    let kinds: Vec<_> = map.reserved().iter().map(|entry| entry.kind).collect();
    use ReservedKind::{DeviceTree as Blob, Firmware, Image, Initrd, NoMap, SpinTable};
    assert_eq!(
        kinds,
        [
            Firmware, Firmware, SpinTable, SpinTable, SpinTable, Image, Initrd, Blob, NoMap
        ]
    );
    // The image is the only thing in RAM the direct map leaves out: the no-map range lies above.
    let mapped: Vec<_> = map.direct_map_ranges().collect();
    assert_eq!(mapped[0], span(0, 2 * MIB));
    assert_eq!(mapped[1].start, image.end);
    assert_eq!(mapped.len(), 4);
}

#[test]
fn lies_about_ram_are_named() {
    let error = |ram: &[PhysRange]| build(&described(ram)).map(drop).unwrap_err();
    let ram = span(RAM, 64 * MIB);
    assert_eq!(error(&[]), MapError::NoRam);
    assert_eq!(error(&[span(RAM, 0)]), MapError::NoRam);
    let second = span(RAM + 32 * MIB, 64 * MIB);
    assert_eq!(error(&[ram, second]), MapError::RamOverlap(second, ram));
    assert_eq!(error(&[ram, ram]), MapError::RamOverlap(ram, ram));
    let low = span(0x3000_0000, 0x2000_0000);
    let device = span(0x0800_0000, 0x3000_0000);
    assert_eq!(error(&[low]), MapError::RamOverDevice { ram: low, device });
    let elsewhere = span(0x8000_0000, 64 * MIB);
    let program = Reserved {
        range: image(),
        kind: ReservedKind::Image,
    };
    assert_eq!(error(&[elsewhere]), MapError::OutsideRam(program));
    // Half the image.
    assert_eq!(error(&[span(RAM, 3 * MIB)]), MapError::OutsideRam(program));
    assert_eq!(
        error(&[elsewhere]).to_string(),
        "image 0x40200000..0x40400000 is not in RAM"
    );
}

#[test]
fn odd_ram_is_put_right_with_a_note() {
    let limit = DIRECT_MAP_LIMIT.get();
    let map = build(&described(&[
        span(0x8000_0000, 0),
        span(RAM + 1, 64 * MIB),
        span(limit - MIB, 2 * MIB),
        span(limit + MIB, MIB),
        span(0x9000_0010, 0x100),
    ]));
    // The first page is gone, and with it the place of the device tree.
    assert_eq!(
        map.unwrap_err(),
        MapError::OutsideRam(Reserved {
            range: blob(),
            kind: ReservedKind::DeviceTree
        })
    );
    let map = build(&described(&[
        span(0x8000_0000, 0),
        span(RAM, 64 * MIB + 1),
        span(limit - MIB, 2 * MIB),
        span(limit + MIB, MIB),
        span(0x9000_0010, 0x100),
    ]))
    .unwrap();
    assert_eq!(map.ram(), [span(RAM, 64 * MIB), span(limit - MIB, MIB)]);
    assert_eq!(
        map.notes(),
        [
            Note::Empty(PhysAddr::new(0x8000_0000)),
            Note::Trimmed(span(RAM, 64 * MIB + 1)),
            Note::AboveLimit(span(limit, MIB)),
            Note::AboveLimit(span(limit + MIB, MIB)),
            Note::Trimmed(span(0x9000_0010, 0x100)),
        ]
    );
}

#[test]
fn adjacent_ram_is_merged() {
    let middle = span(RAM + 16 * MIB, 16 * MIB);
    let map = build(&described(&[
        span(RAM, 16 * MIB),
        span(RAM + 32 * MIB, 16 * MIB),
        middle,
    ]))
    .unwrap();
    assert_eq!(map.ram(), [span(RAM, 48 * MIB)]);
}

#[test]
fn lies_about_what_was_loaded_are_named() {
    let error = |initrd: PhysRange| {
        let description = Description {
            initrd: Some(initrd),
            ..described(&[span(RAM, 64 * MIB)])
        };
        build(&description).map(drop).unwrap_err()
    };
    let initrd = |range| Reserved {
        range,
        kind: ReservedKind::Initrd,
    };
    let outside = span(0x2000_0000, MIB);
    assert_eq!(error(outside), MapError::OutsideRam(initrd(outside)));
    let beyond = span(RAM + 63 * MIB, 2 * MIB);
    assert_eq!(error(beyond), MapError::OutsideRam(initrd(beyond)));
    let whole = span(0, u64::MAX);
    assert_eq!(error(whole), MapError::OutsideRam(initrd(whole)));
    let on_image = span(IMAGE + 2 * MIB - 1, MIB);
    let program = taken(IMAGE, 2 * MIB, ReservedKind::Image);
    assert_eq!(
        error(on_image),
        MapError::Overlap(initrd(on_image), program)
    );
    let on_blob = span(RAM + MIB - 1, 16);
    let tree = taken(RAM, MIB, ReservedKind::DeviceTree);
    assert_eq!(error(on_blob), MapError::Overlap(initrd(on_blob), tree));
}

#[test]
fn firmware_may_reserve_what_it_loaded_but_not_the_image() {
    let reserve = |range, no_map| {
        let mut description = described(&[span(RAM, 64 * MIB)]);
        description
            .reserved
            .push(ReservedRange { range, no_map })
            .unwrap();
        build(&description).map(drop)
    };
    assert_eq!(reserve(blob(), false), Ok(()));
    assert!(matches!(reserve(blob(), true), Err(MapError::Overlap(..))));
    assert!(matches!(
        reserve(image(), false),
        Err(MapError::Overlap(..))
    ));
    // Memory nobody told us of may be reserved; an empty entry says nothing.
    assert_eq!(reserve(span(0xF000_0000, MIB), true), Ok(()));
    assert_eq!(reserve(span(IMAGE, 0), false), Ok(()));
}

#[test]
fn a_release_word_inside_the_image_is_a_lie() {
    let release = PhysAddr::new(IMAGE + 0x40);
    let mut description = described(&[span(RAM, 64 * MIB)]);
    description
        .cpus
        .push(Cpu {
            mpidr: 1,
            enable_method: EnableMethod::SpinTable { release },
        })
        .unwrap();
    assert!(matches!(build(&description), Err(MapError::Overlap(..))));
}

#[test]
fn too_many_ranges_are_refused() {
    let mut map = build(&described(&[span(RAM, 64 * MIB)])).unwrap();
    let mut result = Ok(());
    let mut count = map.reserved().len();
    while result.is_ok() {
        result = map.reserve(span(count as u64 * PAGE, 8), ReservedKind::Firmware);
        count += 1;
    }
    assert_eq!(result, Err(MapError::TooMany(MAX_RESERVED)));
    assert_eq!(count, MAX_RESERVED + 1);
}

#[test]
fn a_contiguous_memory_area_is_in_the_direct_map_but_not_in_blocks() {
    let mut map = build(&described(&[span(RAM, 64 * MIB)])).unwrap();
    let mib = |mib: u64| PhysAddr::new(RAM + mib * MIB);
    let within = PhysRange::new(mib(32), mib(50));
    let area = map.find(8 << 20, 4 << 20, within).unwrap();
    assert_eq!(area, PhysRange::new(mib(40), mib(48)));
    assert_eq!(map.find(20 << 20, 4 << 20, within), None);
    assert_eq!(map.find(0, 4096, within), None);
    assert_eq!(map.find(4096, 3, within), None);
    map.reserve(area, ReservedKind::Cma).unwrap();
    let holds = |mut ranges: Gaps<'_>| ranges.any(|range| range.overlaps(&area));
    assert!(holds(map.direct_map_ranges()));
    assert!(!holds(map.block_ranges()) && !holds(map.free_ranges()));
    assert_eq!(map.cma_ranges().collect::<Vec<_>>(), [area]);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut map = build(&described(&[span(RAM, 64 * MIB)])).unwrap();
    let mut fails = |size, align, below| {
        map.allocate(size, align, below, ReservedKind::Tables)
            .unwrap_err()
    };
    for (size, align) in [(0, 8), (8, 0), (8, 3), (usize::MAX, 8)] {
        assert_eq!(
            fails(size, align, None),
            MapError::BadRequest { size, align }
        );
    }
    let below = PhysAddr::new(RAM);
    assert_eq!(
        fails(1, 1, Some(below)).to_string(),
        "no 0x1 free bytes aligned to 0x1 below 0x40000000"
    );
}

/// A model of memory: one flag per page of a small stretch from `RAM`.
const MODEL_PAGES: usize = 96;
/// Ranges are made of pieces of a page, so that their ends lie inside pages too.
const PIECE: u64 = PAGE / 4;

fn pieces() -> impl Strategy<Value = PhysRange> {
    let total = MODEL_PAGES as u64 * 4;
    (0..total, 0..64_u64).prop_map(move |(start, size)| {
        let size = size.min(total - start);
        span(RAM + start * PIECE, size * PIECE)
    })
}

fn page(number: usize) -> PhysRange {
    span(RAM + number as u64 * PAGE, PAGE)
}

/// The pages of `ranges`, which must be sorted, not empty, aligned and apart from each other.
fn pages_of(ranges: impl Iterator<Item = PhysRange>) -> Vec<bool> {
    let ranges: Vec<_> = ranges.collect();
    for range in &ranges {
        assert!(
            !range.is_empty() && range.start.is_aligned(PAGE_SIZE),
            "{range}"
        );
        assert!(range.end.is_aligned(PAGE_SIZE), "{range}");
    }
    for pair in ranges.windows(2) {
        assert!(pair[0].end < pair[1].start, "{} {}", pair[0], pair[1]);
    }
    (0..MODEL_PAGES)
        .map(|number| {
            ranges
                .iter()
                .any(|range| range.contains_range(&page(number)))
        })
        .collect()
}

proptest! {
    #[test]
    fn gaps_and_allocations_agree_with_a_page_bitmap(
        ram in prop::collection::vec(pieces(), 1..6),
        reserved in prop::collection::vec((pieces(), any::<bool>()), 0..8),
        requests in prop::collection::vec((1..9_usize, 0..4_u32, 0..=MODEL_PAGES), 0..6),
    ) {
        let mut map = MemoryMap::default();
        let mut is_ram = [false; MODEL_PAGES];
        for range in ram {
            let whole: Vec<_> = (0..MODEL_PAGES)
                .filter(|&number| range.contains_range(&page(number)))
                .collect();
            let touched = (0..MODEL_PAGES).any(|n| is_ram[n] && range.overlaps(&page(n)));
            let result = map.add_ram(range, &[]);
            prop_assert_eq!(result.is_err(), touched, "{} {:?}", range, result);
            if result.is_ok() {
                whole.into_iter().for_each(|number| is_ram[number] = true);
            }
        }
        prop_assert_eq!(pages_of(map.ram().iter().copied()), is_ram);

        let mut is_free = is_ram;
        let mut is_mapped = is_ram;
        for (range, no_map) in reserved {
            let kind = if no_map { ReservedKind::NoMap } else { ReservedKind::Firmware };
            let result = map.reserve(range, kind);
            prop_assert_eq!(result.is_err(), range.is_empty());
            for number in (0..MODEL_PAGES).filter(|&number| page(number).overlaps(&range)) {
                is_free[number] = false;
                is_mapped[number] &= !no_map;
            }
        }
        prop_assert_eq!(pages_of(map.free_ranges()), is_free);
        prop_assert_eq!(pages_of(map.direct_map_ranges()), is_mapped);

        for (pages, align, below) in requests {
            let align = 1_usize << align;
            let fits = |start: usize| {
                let base = (RAM / PAGE) as usize;
                (base + start).is_multiple_of(align)
                    && start + pages <= below
                    && is_free[start..start + pages].iter().all(|&free| free)
            };
            let expected = (0..=MODEL_PAGES - pages).rev().find(|&start| fits(start));
            let limit = PhysAddr::new(RAM + below as u64 * PAGE);
            let size = pages * PAGE_SIZE - 17;
            let result = map.allocate(size, align * PAGE_SIZE, Some(limit), ReservedKind::Tables);
            match expected {
                Some(start) => {
                    prop_assert_eq!(result, Ok(span(page(start).start.get(), pages as u64 * PAGE)));
                    is_free[start..start + pages].fill(false);
                }
                None => {
                    let error = MapError::NoSpace { size, align: align * PAGE_SIZE, below: limit };
                    prop_assert_eq!(result, Err(error));
                }
            }
        }
        prop_assert_eq!(pages_of(map.free_ranges()), is_free);
    }
}
