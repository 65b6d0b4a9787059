//! The blobs named `virt-*` were dumped from QEMU 10.0.2 (`-M virt,dumpdtb=..`) and packed with
//! dtc; `spin-table` and `contiguous` are compiled from the sources beside them.

use super::*;
use crate::addr::PhysAddr;
use proptest::prelude::*;

const VIRT_GICV2: &[u8] = include_bytes!("../../tests/fixtures/virt-gicv2.dtb");
const VIRT_GICV3: &[u8] = include_bytes!("../../tests/fixtures/virt-gicv3-8g.dtb");
const VIRT_SECURE: &[u8] = include_bytes!("../../tests/fixtures/virt-secure.dtb");
const VIRT_EL2: &[u8] = include_bytes!("../../tests/fixtures/virt-el2.dtb");
const CONTIGUOUS: &[u8] = include_bytes!("../../tests/fixtures/contiguous.dtb");
const SPIN_TABLE: &[u8] = include_bytes!("../../tests/fixtures/spin-table.dtb");
const ALL: [&[u8]; 5] = [VIRT_GICV2, VIRT_GICV3, VIRT_SECURE, VIRT_EL2, SPIN_TABLE];

fn span(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start), size).unwrap()
}

fn describe(blob: &[u8]) -> Description<'_> {
    DeviceTree::new(blob).unwrap().describe().unwrap()
}

/// Asks everything that can be asked; the result does not matter, only that there is one.
fn exercise(blob: &[u8]) {
    let _ = blob_size(blob);
    match DeviceTree::new(blob) {
        Err(error) => drop(error.to_string()),
        Ok(tree) => {
            for compatible in ["test,snooping", "pci-host-ecam-generic", "arm,gic-400"] {
                let _ = tree.dma_coherent(compatible);
                let _ = tree.registers(compatible);
            }
            match tree.describe() {
                Err(error) => drop(error.to_string()),
                Ok(description) => {
                    for problem in &description.problems {
                        drop(problem.to_string());
                    }
                    // Whatever was taken is inside the blob and makes sense.
                    if let Some(text) = description.bootargs {
                        assert!(blob.as_ptr_range().contains(&text.as_ptr()) || text.is_empty());
                    }
                    assert!(description.initrd.is_none_or(|range| !range.is_empty()));
                }
            }
        }
    }
}

/// `blob` with the only occurrence of `old` replaced by `new` of the same length.
fn patched(blob: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let places: Vec<_> = (0..=blob.len() - old.len())
        .filter(|&at| blob[at..].starts_with(old))
        .collect();
    assert_eq!(places.len(), 1, "{old:x?} is at {places:?}");
    let mut patched = blob.to_vec();
    patched[places[0]..places[0] + old.len()].copy_from_slice(new);
    patched
}

fn cells(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

#[test]
fn virt_with_gicv2() {
    let tree = DeviceTree::new(VIRT_GICV2).unwrap();
    assert_eq!(tree.size(), VIRT_GICV2.len());
    let virt = tree.describe().unwrap();
    assert_eq!(virt.problems, []);
    assert_eq!(virt.ram, [span(0x4000_0000, 1 << 30)]);
    assert_eq!(virt.reserved, []);
    assert_eq!(virt.bootargs, Some("suite=boot seed=0x2a exit=semihosting"));
    assert_eq!(virt.initrd, Some(span(0x4800_0000, 5000)));
    assert_eq!(virt.stdout_path, Some("/pl011@9000000"));
    let cpus: Vec<_> = virt
        .cpus
        .iter()
        .map(|cpu| (cpu.mpidr, cpu.enable_method))
        .collect();
    assert_eq!(cpus, [0, 1, 2, 3].map(|mpidr| (mpidr, EnableMethod::Psci)));
    assert_eq!(virt.psci, Some(PsciConduit::Hvc));
    assert_eq!(
        virt.interrupt_controller,
        Some(InterruptController::GicV2 {
            distributor: span(0x0800_0000, 0x1_0000),
            cpu_interface: span(0x0801_0000, 0x1_0000),
        })
    );
    assert_eq!(
        virt.pci,
        Some(PciHost {
            ecam: span(0x40_1000_0000, 0x1000_0000),
            first_bus: 0,
            last_bus: 255,
            memory: PciWindow {
                cpu: span(0x1000_0000, 0x2EFF_0000),
                bus: 0x1000_0000,
            },
        })
    );
    assert_eq!(
        virt.timer,
        Some(Timer {
            secure_physical: 29,
            physical: 30,
            virtual_timer: 27,
            hypervisor: 26,
        })
    );
    assert_eq!(virt.bcm2835_dma, None);
    assert_eq!(tree.dma_coherent("pci-host-ecam-generic"), Some(true));
    // The UART says nothing itself: the root does.
    assert_eq!(tree.dma_coherent("arm,pl011"), Some(true));
    assert_eq!(tree.registers("arm,pl011"), Some(span(0x0900_0000, 0x1000)));
}

#[test]
fn virt_with_gicv3_eight_cores_and_8_gib() {
    let virt = describe(VIRT_GICV3);
    assert_eq!(virt.problems, []);
    assert_eq!(virt.ram, [span(0x4000_0000, 8 << 30)]);
    assert_eq!(virt.cpus.len(), 8);
    assert_eq!(virt.cpus[7].mpidr, 7);
    assert_eq!(
        virt.interrupt_controller,
        Some(InterruptController::GicV3 {
            distributor: span(0x0800_0000, 0x1_0000),
            redistributors: span(0x080A_0000, 0xF6_0000),
        })
    );
}

#[test]
fn virt_with_the_secure_world_hides_its_memory_and_has_no_psci() {
    let virt = describe(VIRT_SECURE);
    assert_eq!(virt.problems, []);
    assert_eq!(virt.ram, [span(0x4000_0000, 512 << 20)]);
    assert_eq!(virt.psci, None);
    assert_eq!(virt.cpus.len(), 4);
    assert!(
        virt.cpus
            .iter()
            .all(|cpu| cpu.enable_method == EnableMethod::None)
    );
    assert_eq!(virt.stdout_path, Some("/pl011@9000000"));
    assert_eq!((virt.bootargs, virt.initrd), (None, None));
}

#[test]
fn virt_with_el2_and_low_ecam() {
    let virt = describe(VIRT_EL2);
    assert_eq!(virt.problems, []);
    assert_eq!(virt.psci, Some(PsciConduit::Smc));
    let pci = virt.pci.unwrap();
    assert_eq!(pci.ecam, span(0x3F00_0000, 16 << 20));
    assert_eq!((pci.first_bus, pci.last_bus), (0, 15));
    assert_eq!(virt.ram, [span(0x4000_0000, 64 << 20)]);
}

#[test]
fn a_spin_table_board_behind_a_translating_bus() {
    let tree = DeviceTree::new(SPIN_TABLE).unwrap();
    let pi = tree.describe().unwrap();
    assert_eq!(pi.problems, []);
    assert_eq!(
        pi.ram,
        [
            span(0, 0x3B40_0000),
            span(0x4000_0000, 0xBC00_0000),
            span(0x1_0000_0000, 0x8000_0000),
            span(0x1_8000_0000, 0x8000_0000),
        ]
    );
    assert_eq!(
        pi.reserved,
        [
            ReservedRange {
                range: span(0, 0x1000),
                no_map: false
            },
            ReservedRange {
                range: span(0x3EF6_3700, 0x100),
                no_map: true
            },
        ]
    );
    assert_eq!(
        pi.bootargs,
        Some("coherent_pool=1M console=ttyS0,115200 suite=\"boot\"")
    );
    assert_eq!(pi.initrd, Some(span(0x2E00_0000, 0x1234)));
    // Two-cell and one-cell release addresses; the failed core is left out.
    assert_eq!(pi.cpus.len(), 3);
    for (cpu, release) in pi.cpus.iter().zip([0xD8, 0xE0, 0xE8]) {
        let release = PhysAddr::new(release);
        assert_eq!(cpu.enable_method, EnableMethod::SpinTable { release });
    }
    assert_eq!(
        pi.interrupt_controller,
        Some(InterruptController::GicV2 {
            distributor: span(0xFF84_1000, 0x1000),
            cpu_interface: span(0xFF84_2000, 0x2000),
        })
    );
    assert_eq!(
        pi.bcm2835_dma,
        Some(Bcm2835Dma {
            registers: span(0xFE00_7000, 0xB00),
            channel_mask: 0x7F5,
        })
    );
    assert_eq!(tree.dma_coherent("brcm,bcm2835-dma"), Some(false));
    assert_eq!(tree.dma_coherent("test,snooping"), Some(true));
    assert_eq!(tree.dma_coherent("test,private"), Some(false));
    assert_eq!(tree.dma_coherent("test,disabled"), None);
    // Through two buses; and one that falls out of the first.
    assert_eq!(
        tree.registers("test,snooping"),
        Some(span(0xFE30_0100, 0x40))
    );
    assert_eq!(tree.registers("test,outside"), None);
}

#[test]
fn contiguous_memory_areas_are_asked_for_by_place_or_by_size() {
    let described = describe(CONTIGUOUS);
    let names = ["linux,cma", "camera@8000000", "anywhere"];
    let places = [
        CmaPlace::Anywhere {
            size: 0x400_0000,
            align: 0x40_0000,
            within: Some(span(0x1000_0000, 0x2000_0000)),
        },
        CmaPlace::Fixed(span(0x800_0000, 0x80_0000)),
        CmaPlace::Anywhere {
            size: 0x40_0000,
            align: 0,
            within: None,
        },
    ];
    for (index, node) in described.cma.iter().enumerate() {
        let expected = CmaNode {
            name: names[index],
            place: places[index],
            is_default: index == 0,
        };
        assert_eq!(*node, expected);
    }
    assert_eq!(described.cma.len(), names.len());
    // Memory that must not be mapped cannot be lent either.
    let reserved: Vec<_> = described.reserved.iter().map(|r| r.range).collect();
    let private = [span(0x900_0000, 0x10_0000), span(0xA00_0000, 0x10_0000)];
    assert_eq!(reserved, private);
    let problem = Problem {
        node: "sizeless",
        property: "size",
        fault: Fault::Missing,
    };
    assert_eq!(described.problems, [problem]);
    exercise(CONTIGUOUS);
}

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
