//! The blobs named `virt-*` were dumped from QEMU 10.0.2 (`-M virt,dumpdtb=..`) and packed with
//! dtc; `spin-table` and `contiguous` are compiled from the sources beside them.

mod damaged;

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
        Some(BcmDma {
            registers: span(0xFE00_7000, 0xB00),
            channel_mask: 0x7F5,
        })
    );
    assert_eq!(
        pi.bcm2711_dma,
        Some(BcmDma {
            registers: span(0xFE00_7B00, 0x400),
            channel_mask: 0x7000,
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
