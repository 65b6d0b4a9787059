//! Trees that are cut, patched, contradictory or too deep.

use super::*;

#[test]
fn a_longer_slice_is_cut_at_the_stated_size() {
    let mut longer = VIRT_GICV2.to_vec();
    longer.resize(VIRT_GICV2.len() + 4096, 0xA5);
    assert_eq!(blob_size(&longer), Ok(VIRT_GICV2.len()));
    assert_eq!(DeviceTree::new(&longer).unwrap().size(), VIRT_GICV2.len());
}

#[test]
fn every_truncation_is_named() {
    for blob in ALL {
        for length in 0..blob.len() {
            let need = if length < HEADER_SIZE {
                HEADER_SIZE
            } else {
                blob.len()
            };
            let error = DeviceTree::new(&blob[..length]).unwrap_err();
            assert_eq!(error, DtbError::Truncated { have: length, need });
        }
    }
}

#[test]
fn a_truncated_blob_that_states_its_new_size_never_panics() {
    for blob in ALL {
        for length in HEADER_SIZE..blob.len() {
            let mut short = blob[..length].to_vec();
            short[4..8].copy_from_slice(&(length as u32).to_be_bytes());
            exercise(&short);
            assert!(DeviceTree::new(&short).is_err(), "{length}");
        }
    }
}

#[test]
fn every_header_byte_may_hold_anything() {
    for at in 0..HEADER_SIZE {
        let mut damaged = SPIN_TABLE.to_vec();
        for value in 0..=u8::MAX {
            damaged[at] = value;
            exercise(&damaged);
        }
    }
}

#[test]
fn every_byte_of_a_small_tree_may_be_inverted_or_off_by_one() {
    for at in 0..SPIN_TABLE.len() {
        for change in [0xFF, 1] {
            let mut damaged = SPIN_TABLE.to_vec();
            damaged[at] ^= change;
            exercise(&damaged);
        }
    }
}

#[test]
fn header_faults_are_named_with_their_values() {
    let with_word = |at: usize, value: u32| {
        let mut blob = SPIN_TABLE.to_vec();
        blob[at..at + 4].copy_from_slice(&value.to_be_bytes());
        DeviceTree::new(&blob)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let fails = |at, value, words: &str| {
        let error = with_word(at, value).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    fails(0, 0xEDFE_0DD0, "magic 0xedfe0dd0");
    fails(4, 39, "size 0x27 is out of bounds");
    fails(4, 0x20_0001, "size 0x200001 is out of bounds");
    fails(4, 0x20_0000, "2097152 are needed");
    fails(8, 0x1_0000, "structure block at 0x10000");
    fails(8, u32::MAX, "structure block at 0xffffffff");
    fails(12, 0, "strings block at 0x0");
    fails(16, 8, "reservation block at 0x8");
    fails(20, 16, "versions 16 to 16 do not include 17");
    fails(24, 18, "versions 18 to 17 do not include 17");
    fails(32, 0xFFFF, "strings block at");
    fails(36, 0xFFFF, "structure block at");
}

#[test]
fn broken_structure_is_named_with_its_place() {
    let broken = |at: usize, value: u32| {
        let mut blob = SPIN_TABLE.to_vec();
        blob[at..at + 4].copy_from_slice(&value.to_be_bytes());
        DeviceTree::new(&blob).map(drop).unwrap_err()
    };
    let header_word =
        |at: usize| u32::from_be_bytes(SPIN_TABLE[at..at + 4].try_into().unwrap()) as usize;
    let structure = header_word(8);
    // The root node's token, its first property's token, length and name.
    for (at, value, offset) in [
        (structure, 3, structure),
        (structure, 4, structure),
        (structure + 8, 7, structure + 8),
        (structure + 12, 0x1_0000, structure + 8),
        (structure + 16, 0x1_0000, structure + 8),
        (
            structure + header_word(36) - 4,
            2,
            structure + header_word(36) - 4,
        ),
    ] {
        assert_eq!(broken(at, value), DtbError::Structure { offset }, "{at:#x}");
    }
    // A list of reservations in which no entry is zero.
    let mut blob = SPIN_TABLE.to_vec();
    blob[40..].iter_mut().for_each(|byte| *byte |= 1);
    let error = DeviceTree::new(&blob).unwrap_err();
    assert_eq!(error, DtbError::Reservations { offset: 40 });
}

#[test]
fn wrapping_memory_and_bad_cells_make_the_tree_unusable() {
    let high = cells(&[1, 0x8000_0000, 0x8000_0000]);
    let wraps = patched(
        SPIN_TABLE,
        &high,
        &cells(&[u32::MAX, 0x8000_0000, 0x8000_0001]),
    );
    let expected = Problem {
        node: "memory@0",
        property: "reg",
        fault: Fault::Wraps {
            base: 0xFFFF_FFFF_8000_0000,
            size: 0x8000_0001,
        },
    };
    let error = DeviceTree::new(&wraps).unwrap().describe().unwrap_err();
    assert_eq!(error, DtbError::Memory(expected));
    assert_eq!(
        error.to_string(),
        "node \"memory@0\": reg range at 0xffffffff80000000, 0x80000001 bytes, wraps around"
    );

    // The tree's first property of four bytes is the root's `#address-cells`.
    let header = cells(&[3, 4]);
    let property = SPIN_TABLE
        .windows(header.len())
        .position(|bytes| bytes == header)
        .unwrap();
    let value = property + 12;
    for count in [4, u32::MAX] {
        let mut blob = SPIN_TABLE.to_vec();
        blob[value..value + 4].copy_from_slice(&count.to_be_bytes());
        match DeviceTree::new(&blob).unwrap().describe() {
            Err(DtbError::Memory(problem)) => assert_eq!(problem.fault, Fault::Cells(count)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bad_property_is_left_out_and_reported() {
    let reports = |blob: &[u8], words: &str| {
        let description = describe(blob);
        let problems: Vec<_> = description
            .problems
            .iter()
            .map(Problem::to_string)
            .collect();
        assert_eq!(problems, [words]);
    };
    let initrd = patched(SPIN_TABLE, &cells(&[0x2E00_1234]), &cells(&[0x2DFF_0000]));
    reports(
        &initrd,
        "node \"chosen\": linux,initrd-end range 0x2e000000..0x2dff0000 is empty",
    );
    assert_eq!(describe(&initrd).initrd, None);

    let bootargs = patched(SPIN_TABLE, b"suite=\"boot\"\0", b"suite=\"boot\"!");
    reports(
        &bootargs,
        "node \"chosen\": bootargs is not a terminated string",
    );
    let binary = patched(SPIN_TABLE, b"suite=\"boot\"\0", b"suite=\"bo\xFF\xFE\"\0");
    reports(
        &binary,
        "node \"chosen\": bootargs is not a terminated string",
    );

    let method = patched(VIRT_GICV2, b"hvc\0", b"svc\0");
    reports(&method, "node \"psci\": method \"svc\" is not known");
    assert_eq!(describe(&method).psci, None);

    let release = patched(SPIN_TABLE, &cells(&[0, 0xE0]), &cells(&[0, 0xE4]));
    reports(
        &release,
        "node \"cpu@1\": cpu-release-addr value 0xe4 is not 8-byte aligned",
    );
    assert_eq!(describe(&release).cpus.len(), 2);

    let buses = patched(VIRT_EL2, &cells(&[0, 0x0F]), &cells(&[0, 0xFF]));
    reports(
        &buses,
        "node \"pcie@10000000\": bus-range value 0x100 is above 0x10",
    );
    let soc = patched(
        SPIN_TABLE,
        &cells(&[0x4000_0000, 0, 0xFF80_0000]),
        &cells(&[0x5000_0000, 0, 0xFF80_0000]),
    );
    reports(
        &soc,
        "node \"interrupt-controller@40041000\": reg address 0x40041000 is in no range of the buses above",
    );
}

#[test]
fn two_cores_with_one_affinity_are_reported() {
    // cpu@2's `reg` is the only cell property with value 2 whose name is `reg` in that node.
    let at = VIRT_GICV2
        .windows(5)
        .position(|bytes| bytes == b"cpu@2")
        .unwrap();
    let value = VIRT_GICV2[at..]
        .windows(4)
        .position(|bytes| bytes == [0, 0, 0, 2])
        .unwrap();
    let mut blob = VIRT_GICV2.to_vec();
    // The node's token 2 (end) comes after its properties, so the first 2 is a value.
    blob[at + value + 3] = 3;
    let description = describe(&blob);
    assert_eq!(description.problems.len(), 1);
    assert_eq!(description.problems[0].fault, Fault::Duplicate(3));
}

/// A blob of nothing but `depth` nodes, one inside the other.
fn nested(depth: u32) -> Vec<u8> {
    const BEGIN: u32 = 1;
    const END_NODE: u32 = 2;
    const END: u32 = 9;
    let mut structure = vec![BEGIN, 0];
    for _ in 1..depth {
        structure.extend([BEGIN, u32::from_be_bytes(*b"n\0\0\0")]);
    }
    structure.extend(std::iter::repeat_n(END_NODE, depth as usize));
    structure.push(END);
    let size = 4 * structure.len() as u32;
    let header = [
        0xD00D_FEED,
        56 + size,
        56,
        56 + size,
        40,
        17,
        16,
        0,
        0,
        size,
    ];
    cells(&[&header[..], &[0; 4], &structure].concat())
}

#[test]
fn nesting_is_bounded() {
    let deepest = nested(MAX_DEPTH as u32);
    assert!(DeviceTree::new(&deepest).unwrap().describe().is_ok());
    for depth in [MAX_DEPTH as u32 + 1, 100_000] {
        let blob = nested(depth);
        assert_eq!(DeviceTree::new(&blob).unwrap_err(), DtbError::TooDeep);
    }
}

proptest! {
    #[test]
    fn damage_anywhere_never_panics(
        which in 0..ALL.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut blob = ALL[which].to_vec();
        for (at, value) in damage {
            let at = at.index(blob.len());
            blob[at] = value;
        }
        exercise(&blob);
    }

    #[test]
    fn a_damaged_word_never_panics(
        which in 0..ALL.len(),
        at in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![0, 1, 2, 3, 4, 9, 0x7FFF_FFFF, 0x8000_0000, u32::MAX]),
    ) {
        let mut blob = ALL[which].to_vec();
        let at = at.index(blob.len() / 4) * 4;
        blob[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
        exercise(&blob);
    }

    #[test]
    fn garbage_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..512),
        plausible in any::<bool>(),
    ) {
        let mut blob = bytes;
        if plausible && blob.len() >= HEADER_SIZE {
            let size = blob.len() as u32;
            let header = [0xD00D_FEED, size, 56, size, 40, 17, 16, 0, 0, size.saturating_sub(56)];
            blob[..HEADER_SIZE].copy_from_slice(&cells(&header));
        }
        exercise(&blob);
    }
}
