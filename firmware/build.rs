//! Passes the linker script and each board's numbers to the linker.

use std::env;
use std::path::PathBuf;

/// What the boot assembly and the linker script must know before any Rust runs.
struct Numbers {
    /// The binary, named like the board.
    bin: &'static str,
    /// Where the image is loaded: physical, 2 MiB aligned.
    image_phys: u64,
    /// `CNTFRQ_EL0` for an entry at EL3 where nobody has set it, in Hz.
    cntfrq: u64,
    /// Distributor, GICv2 CPU interface, GICv3 redistributors (0: none), for an entry at EL3.
    gic: [u64; 3],
    /// Whether the EL3 firmware lets EL2 write `CPUACTLR_EL1`.
    cpuactlr_at_el2: bool,
}

const BOARDS: [Numbers; 2] = [
    Numbers {
        bin: "qemu-virt",
        // Above the 1 MiB device tree QEMU puts at the start of RAM when it boots an ELF file,
        // and where it puts a raw arm64 Image.
        image_phys: 0x4020_0000,
        cntfrq: 62_500_000,
        gic: [0x0800_0000, 0x0801_0000, 0x080A_0000],
        cpuactlr_at_el2: false,
    },
    Numbers {
        bin: "rpi4",
        // `kernel_address` in boards/rpi4/config.txt.
        image_phys: 0x20_0000,
        // The crystal (BCM2711 ARM Peripherals 10.2).
        cntfrq: 54_000_000,
        gic: [0xFF84_1000, 0xFF84_2000, 0],
        // The Pi's boot stub sets ACTLR_EL3 to 0x73.
        cpuactlr_at_el2: true,
    },
];

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    let script = root.join("linker.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    for Numbers {
        bin,
        image_phys,
        cntfrq,
        gic,
        cpuactlr_at_el2,
    } in BOARDS
    {
        println!("cargo::rustc-link-arg-bin={bin}=-T{}", script.display());
        // Sections for the strings of defmt frames; they are not loaded.
        println!("cargo::rustc-link-arg-bin={bin}=-Tdefmt.x");
        for (symbol, value) in [
            ("IMAGE_PHYS", image_phys),
            ("BOARD_CNTFRQ", cntfrq),
            ("BOARD_GICD", gic[0]),
            ("BOARD_GICC", gic[1]),
            ("BOARD_GICR", gic[2]),
            ("BOARD_CPUACTLR_AT_EL2", u64::from(cpuactlr_at_el2)),
        ] {
            println!("cargo::rustc-link-arg-bin={bin}=--defsym={symbol}={value:#x}");
        }
    }
}
