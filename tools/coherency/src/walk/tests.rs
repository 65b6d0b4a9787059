use super::*;
use std::collections::BTreeMap;

/// Attributes 0 write-back, 1 device, 2 non-cacheable, 3 write-through.
const MAIR: u64 = 0xAA_44_04_FF;
const ON: u64 = SCTLR_M | SCTLR_C;

/// Sparse RAM in which only descriptors were stored.
#[derive(Default)]
struct Tables(BTreeMap<u64, u64>);

impl Memory for Tables {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> bool {
        let word = self.0.get(&pa).copied().unwrap_or(0);
        bytes.copy_from_slice(&word.to_le_bytes());
        pa < 1 << 40
    }
}

fn regime(tcr: u64) -> Regime {
    Regime {
        sctlr: ON,
        tcr,
        ttbr: [0x1_0000, 0x2_0000],
        mair: MAIR,
        has_upper_half: true,
    }
}

fn found(pa: u64, mapping: Mapping) -> Option<Translation> {
    Some(Translation { pa, mapping })
}

#[test]
fn without_mmu_addresses_are_physical_and_uncached() {
    let off = Regime {
        sctlr: SCTLR_C,
        ..regime(25)
    };
    let tables = Tables::default();
    assert_eq!(
        off.translate(0x4000_1234, &tables),
        found(0x4000_1234, Mapping::Off)
    );
}

#[test]
fn a_page_of_4_kib_in_the_upper_half() {
    // 39 bits above, TG1 = 4 KiB: a walk of three levels.
    let regime = regime(25 | 25 << 16 | 2 << 30);
    let va: u64 = 0xFFFF_FFC0_0060_3ABC;
    let tables = Tables(BTreeMap::from([
        (0x2_0000 + 8 * 256, 0x3_0003),
        (0x3_0000 + 8 * 3, 0x4_0003),
        (0x4_0000 + 8 * 3, 0x4567_8003 | 2 << 2 | 1 << 10),
    ]));
    assert_eq!(
        regime.translate(va, &tables),
        found(0x4567_8ABC, Mapping::NonCacheable)
    );
    assert_eq!(regime.translate(va + 0x1000, &tables), None);
    assert_eq!(regime.translate(va & 0xFFFF_FFFF, &tables), None);
}

#[test]
fn blocks_of_every_granule() {
    // 4 KiB: 1 GiB at level 1.
    let tables = Tables(BTreeMap::from([(0x1_0000 + 8, 0x8000_0001)]));
    assert_eq!(
        regime(25).translate(0x5234_5678, &tables),
        found(0x9234_5678, Mapping::WriteBack)
    );
    // 16 KiB, 36 bits: the walk starts at level 2, whose blocks are 32 MiB.
    let tables = Tables(BTreeMap::from([(0x1_0000 + 8, 0x1_0000_0001 | 3 << 2)]));
    assert_eq!(
        regime(28 | 2 << 14).translate(0x0212_3456, &tables),
        found(0x1_0012_3456, Mapping::WriteThrough)
    );
    // 64 KiB, 42 bits: level 2, 512 MiB.
    let tables = Tables(BTreeMap::from([(0x1_0000 + 8 * 2, 0x6000_0001 | 1 << 2)]));
    assert_eq!(
        regime(22 | 1 << 14).translate(0x4000_0010, &tables),
        found(0x6000_0010, Mapping::Device)
    );
}

#[test]
fn pages_of_the_large_granules() {
    let tables = Tables(BTreeMap::from([
        (0x1_0000, 0x8_0003),
        (0x8_0000 + 8, 0x7001_0003),
    ]));
    assert_eq!(
        regime(22 | 1 << 14).translate(0x1_0044, &tables),
        found(0x7001_0044, Mapping::WriteBack)
    );
    let tables = Tables(BTreeMap::from([
        (0x1_0000, 0x8_0003),
        (0x8_0000 + 8, 0x7000_8003),
    ]));
    assert_eq!(
        regime(28 | 2 << 14).translate(0x4044, &tables),
        found(0x7000_8044, Mapping::WriteBack)
    );
}

#[test]
fn tables_for_addresses_of_52_bits() {
    const DS: u64 = 1 << 59;
    // 4 KiB: five levels, the first of 16 descriptors.
    let va = 0xF << 48 | 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0xABC;
    let mut tables = Tables(BTreeMap::from([
        (0x1_0000 + 8 * 15, 0x3_0003),
        (0x3_0000 + 8, 0x4_0003),
        (0x4_0000 + 8 * 2, 0x5_0003),
        (0x5_0000 + 8 * 3, 0x6_0003),
        (0x6_0000 + 8 * 4, 0x4567_8003 | 2 << 2),
    ]));
    assert_eq!(
        regime(12 | DS).translate(va, &tables),
        found(0x4567_8ABC, Mapping::NonCacheable)
    );
    assert_eq!(regime(12).translate(va, &tables), None);
    let of_el2 = Regime {
        has_upper_half: false,
        ..regime(12 | 1 << 32)
    };
    assert!(of_el2.translate(va, &tables).is_some());
    // Blocks of 512 GiB.
    tables.0.insert(0x3_0000 + 8, 0x80_0000_0001);
    assert_eq!(
        regime(12 | DS).translate(va, &tables),
        found(0x80_8060_4ABC, Mapping::WriteBack)
    );
    // 16 KiB: four levels as before, and blocks of 64 GiB.
    let tables = Tables(BTreeMap::from([
        (0x1_0000 + 8 * 16, 0x3_0003),
        (0x3_0000 + 8, 0x20_0000_0001),
    ]));
    let va = 16 << 47 | 1 << 36 | 0x1234;
    let wide = regime(12 | 2 << 14 | DS);
    assert_eq!(
        wide.translate(va, &tables),
        found(0x20_0000_1234, Mapping::WriteBack)
    );
}

#[test]
fn the_data_cache_off_makes_normal_memory_uncached() {
    let tables = Tables(BTreeMap::from([(0x1_0000 + 8, 0x8000_0001)]));
    let off = Regime {
        sctlr: SCTLR_M,
        ..regime(25)
    };
    assert_eq!(
        off.translate(0x4000_0000, &tables),
        found(0x8000_0000, Mapping::Off)
    );
}

#[test]
fn a_disabled_half_and_a_table_outside_ram_translate_nothing() {
    let tables = Tables(BTreeMap::from([(0x1_0000 + 8, 0x8000_0001)]));
    assert_eq!(regime(25 | 1 << 7).translate(0x4000_0000, &tables), None);
    let outside = Regime {
        ttbr: [1 << 41, 0],
        ..regime(25)
    };
    assert_eq!(outside.translate(0x4000_0000, &tables), None);
    // A size nobody may program must not panic either.
    for size in 0..64 {
        for granule in 0..8 {
            let tcr = size | (granule & 3) << 14 | granule >> 2 << 59;
            let _ = regime(tcr).translate(0x4000_0000, &tables);
        }
    }
}
