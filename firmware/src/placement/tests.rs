use super::*;
use hal::memory_map::BoardMemory;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const RAM: u64 = 0x4000_0000;

/// All memory is within reach of every master.
const NO_LIMITS: ZoneLimits = ZoneLimits {
    dma: PhysAddr::new(1 << 40),
    dma32: PhysAddr::new(1 << 40),
};

const NOTHING: Wishes<'_> = Wishes {
    nodes: &[],
    cma: None,
    coherent_pool: None,
};

fn span(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start), size).unwrap()
}

/// A machine with `size` bytes of RAM and a small image at its start.
fn machine(size: u64) -> MemoryMap {
    let board = BoardMemory {
        ram: &[span(RAM, size)],
        reserved: &[],
        devices: &[],
    };
    MemoryMap::from_board(&board, span(RAM, 2 * MIB)).unwrap()
}

fn fixed(name: &'static str, start: u64, size: u64) -> CmaNode<'static> {
    CmaNode {
        name,
        place: CmaPlace::Fixed(span(start, size)),
        is_default: false,
    }
}

fn loose(name: &'static str, size: u64, is_default: bool) -> CmaNode<'static> {
    CmaNode {
        name,
        place: CmaPlace::Anywhere {
            size,
            align: 0,
            within: None,
        },
        is_default,
    }
}

/// Bytes of the area with `name`.
fn size_of_area(placement: &Placement, name: &str) -> Option<u64> {
    let area = placement.areas.iter().find(|area| area.name == name)?;
    Some(area.frames.size())
}

#[test]
fn defaults_follow_the_size_of_ram() {
    for (ram, pool, area) in [
        (64 * MIB, 2 * MIB, 4 * MIB),
        (128 * MIB, 2 * MIB, 8 * MIB),
        (256 * MIB, 4 * MIB, 16 * MIB),
        (512 * MIB, 8 * MIB, 32 * MIB),
        (GIB, 16 * MIB, 64 * MIB),
        (2 * GIB, 16 * MIB, 64 * MIB),
        (16 * GIB, 16 * MIB, 64 * MIB),
    ] {
        let placement = place(&mut machine(ram), NO_LIMITS, &NOTHING).unwrap();
        assert_eq!(placement.pool.size(), pool, "pool of {ram:#x}");
        assert_eq!(size_of_area(&placement, "default"), Some(area), "{ram:#x}");
    }
}

#[test]
fn a_place_the_tree_fixes_is_not_taken_by_what_may_lie_anywhere() {
    // Without the area the pool and the others would lie at the end of RAM.
    let end = RAM + 256 * MIB;
    let nodes = [
        loose("anywhere", 8 * MIB, true),
        fixed("camera", end - 16 * MIB, 16 * MIB),
    ];
    let wishes = Wishes {
        nodes: &nodes,
        ..NOTHING
    };
    let placement = place(&mut machine(256 * MIB), NO_LIMITS, &wishes).unwrap();
    assert_eq!(size_of_area(&placement, "camera"), Some(16 * MIB));
    assert_eq!(size_of_area(&placement, "anywhere"), Some(8 * MIB));
    let mut taken: Vec<_> = placement.areas.iter().map(|area| area.frames).collect();
    taken.push(placement.pool);
    for (index, range) in taken.iter().enumerate() {
        assert!(taken[..index].iter().all(|other| !other.overlaps(range)));
    }
}

#[test]
fn a_fixed_area_is_cut_to_whole_blocks() {
    let place_at = |start, size| {
        let nodes = [fixed("odd", start, size)];
        let wishes = Wishes {
            nodes: &nodes,
            ..NOTHING
        };
        let placement = place(&mut machine(256 * MIB), NO_LIMITS, &wishes).unwrap();
        let area = placement.areas.iter().find(|area| area.name == "odd");
        area.map(|area| area.frames)
    };
    let start = RAM + 64 * MIB;
    assert_eq!(
        place_at(start + MIB, 16 * MIB),
        Some(span(start + 4 * MIB, 12 * MIB))
    );
    assert_eq!(place_at(start, 7 * MIB), Some(span(start, 4 * MIB)));
    assert_eq!(place_at(start + MIB, 6 * MIB), None);
    assert_eq!(place_at(start, 4 * MIB), Some(span(start, 4 * MIB)));
}

#[test]
fn what_cannot_be_had_is_left_out() {
    let ram = 256 * MIB;
    let nodes = [
        fixed("image", RAM, 8 * MIB),
        fixed("outside", RAM + 2 * ram, 8 * MIB),
        fixed("half", RAM + 64 * MIB, ram / 2 + 4 * MIB),
        fixed("parted", RAM + 124 * MIB, 8 * MIB),
        fixed("good", RAM + 100 * MIB, 8 * MIB),
    ];
    let wishes = Wishes {
        nodes: &nodes,
        ..NOTHING
    };
    let middle = PhysAddr::new(RAM + 128 * MIB);
    let limits = ZoneLimits {
        dma: middle,
        dma32: middle,
    };
    let placement = place(&mut machine(ram), limits, &wishes).unwrap();
    let names: Vec<_> = placement.areas.iter().map(|area| area.name).collect();
    assert_eq!(names, ["good", "default"]);
    assert!(placement.pool.end <= middle);
}

#[test]
fn the_command_line_goes_before_the_tree() {
    let nodes = [loose("tree", 8 * MIB, true)];
    let with = |cma, coherent_pool| Wishes {
        nodes: &nodes,
        cma,
        coherent_pool,
    };
    let placed = |wishes| place(&mut machine(256 * MIB), NO_LIMITS, &wishes).unwrap();
    let placement = placed(with(None, None));
    assert_eq!(size_of_area(&placement, "tree"), Some(8 * MIB));
    assert_eq!(placement.areas.len(), 1);
    let placement = placed(with(Some(30 * MIB), Some(6 * MIB)));
    assert_eq!(size_of_area(&placement, "default"), Some(32 * MIB));
    assert_eq!(placement.areas.len(), 1);
    assert_eq!(placement.pool.size(), 6 * MIB);
    assert!(placed(with(Some(0), None)).areas.is_empty());
    // More than half of RAM is not to be had, nor is a pool beyond the largest.
    let placement = placed(with(Some(200 * MIB), Some(GIB)));
    assert_eq!(size_of_area(&placement, "default"), Some(16 * MIB));
    assert_eq!(placement.pool.size(), 16 * MIB);
}
