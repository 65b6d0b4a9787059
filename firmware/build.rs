//! Passes the linker script and each board's numbers to the linker.

use std::env;
use std::path::PathBuf;

/// Binary and the physical address its image is loaded to (2 MiB aligned).
///
/// virt: above the 1 MiB device tree QEMU puts at the start of RAM when it boots an ELF file, and
/// where it puts a raw arm64 Image. Pi: `kernel_address` in config.txt.
const BOARDS: [(&str, u64, u64,u64,u64,u64); 2] = [("qemu-virt", 0x4020_0000,0x8000000,0x8010000,0x80A0000,62500000), ("rpi4", 0x20_0000,0xff841000,0xff842000,0,54000000)];

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    let script = root.join("linker.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-changed=src/boot/entry.s");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    for (bin, phys,a,b,c,d) in BOARDS {
        println!("cargo::rustc-link-arg-bin={bin}=--defsym=BOARD_GICD={a:#x}");
        println!("cargo::rustc-link-arg-bin={bin}=--defsym=BOARD_GICC={b:#x}");
        println!("cargo::rustc-link-arg-bin={bin}=--defsym=BOARD_GICR={c:#x}");
        println!("cargo::rustc-link-arg-bin={bin}=--defsym=BOARD_CNTFRQ={d:#x}");
        println!("cargo::rustc-link-arg-bin={bin}=-T{}", script.display());
        println!("cargo::rustc-link-arg-bin={bin}=--defsym=IMAGE_PHYS={phys:#x}");
    }
}
