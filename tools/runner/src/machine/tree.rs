//! Device trees that are missing, damaged, false or ask for more than QEMU's own.
//!
//! QEMU corrects the memory nodes and refuses the bad headers of a tree it passes itself, so a
//! bad one has to lie in RAM already when the machine starts.

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Offset of the big-endian total size in a tree's header (Devicetree Specification 5.2).
const TOTAL_SIZE: std::ops::Range<usize> = 4..8;

/// Longer than the gap between the start of virt's RAM and the image, 2 MiB.
const OVERSIZE: u32 = 3 << 20;

/// How much of a truncated tree is left. Enough for the header and the first nodes.
const TRUNCATED_LEN: usize = 512;

/// RAM a lying tree promises from the start of virt's RAM on: 1 TiB, as two 32-bit cells each.
const LIE: &str = "/ { memory@40000000 { reg = <0x0 0x40000000 0x100 0x0>; }; };";

/// Two contiguous areas, as two 32-bit cells each: 16 MiB at 0x48000000, and for everybody 64 MiB
/// aligned to 32 MiB somewhere in the 256 MiB from 0x50000000 on.
const AREAS: &str = "/ { reserved-memory {
    #address-cells = <2>; #size-cells = <2>; ranges;
    camera@48000000 {
        compatible = \"shared-dma-pool\"; reusable; reg = <0x0 0x48000000 0x0 0x1000000>;
    };
    display {
        compatible = \"shared-dma-pool\"; reusable; linux,cma-default;
        size = <0x0 0x4000000>; alignment = <0x0 0x2000000>;
        alloc-ranges = <0x0 0x50000000 0x0 0x10000000>;
    };
}; };";

/// `tree` with free space at its end, too large for QEMU to place below the image.
pub(super) fn oversized(tree: &[u8]) -> Result<Vec<u8>> {
    let mut blob = tree.to_vec();
    let Some(total) = blob.get_mut(TOTAL_SIZE) else {
        bail!("a device tree of {} bytes", tree.len());
    };
    total.copy_from_slice(&OVERSIZE.to_be_bytes());
    blob.resize(OVERSIZE as usize, 0);
    Ok(blob)
}

/// The first bytes of `tree`, whose header promises all of it.
pub(super) fn truncated(tree: &[u8]) -> Vec<u8> {
    tree[..tree.len().min(TRUNCATED_LEN)].to_vec()
}

/// `tree`, but with memory that does not exist.
pub(super) fn lying(tree: &[u8]) -> Result<Vec<u8>> {
    extended(tree, LIE)
}

/// `tree`, which asks for the areas of [`AREAS`] as well.
pub(super) fn with_areas(tree: &[u8]) -> Result<Vec<u8>> {
    extended(tree, AREAS)
}

/// `tree` with the nodes of `source` added or replaced.
fn extended(tree: &[u8], source: &str) -> Result<Vec<u8>> {
    let mut text = dtc(&["-I", "dtb", "-O", "dts"], tree)?;
    text.extend(source.as_bytes());
    dtc(&["-I", "dts", "-O", "dtb"], &text)
}

/// Compiles the source file `source` to `blob`.
pub(super) fn compile(source: &Path, blob: &Path) -> Result<()> {
    let text =
        std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    // A simple-bus node without a unit address is what the Pi's own tree has as well.
    let flags = ["-W", "no-unit_address_vs_reg", "-I", "dts", "-O", "dtb"];
    let bytes = dtc(&flags, &text).with_context(|| source.display().to_string())?;
    std::fs::write(blob, bytes).with_context(|| format!("cannot write {}", blob.display()))
}

/// Runs the device tree compiler over `input`.
fn dtc(flags: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("dtc")
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start dtc, the device tree compiler")?;
    if let Some(mut stdin) = child.stdin.take() {
        // dtc reads all of its input before it writes, so this cannot deadlock.
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("dtc: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &[u8] = b"/dts-v1/; / { #address-cells = <2>; #size-cells = <2>;
        memory@40000000 { device_type = \"memory\"; reg = <0 0x40000000 0 0x8000000>; }; };";

    fn tree() -> Vec<u8> {
        dtc(&["-O", "dtb"], SOURCE).unwrap()
    }

    #[test]
    fn an_oversized_tree_keeps_its_contents() {
        let big = oversized(&tree()).unwrap();
        assert_eq!(big.len(), 3 << 20);
        assert_eq!(big[TOTAL_SIZE], [0, 0x30, 0, 0]);
        assert!(dtc(&["-I", "dtb", "-O", "dts"], &big).is_ok());
        assert!(oversized(b"short").is_err());
    }

    #[test]
    fn a_lying_tree_has_one_memory_node_of_a_tebibyte() {
        let text = dtc(&["-I", "dtb", "-O", "dts"], &lying(&tree()).unwrap()).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.matches("memory@").count(), 1);
        assert!(
            text.contains("reg = <0x00 0x40000000 0x100 0x00>"),
            "{text}"
        );
    }

    #[test]
    fn the_areas_are_beside_what_the_tree_had() {
        let text = dtc(&["-I", "dtb", "-O", "dts"], &with_areas(&tree()).unwrap());
        let text = String::from_utf8(text.unwrap()).unwrap();
        assert_eq!(text.matches("shared-dma-pool").count(), 2, "{text}");
        assert_eq!(text.matches("linux,cma-default").count(), 1, "{text}");
        assert!(text.contains("memory@40000000"), "{text}");
    }

    #[test]
    fn the_pi_tree_compiles_without_a_warning() {
        let source = crate::paths::root().join("boards/rpi4/qemu.dts");
        let blob = std::env::temp_dir().join(format!("runner-tree-{}", std::process::id()));
        compile(&source, &blob).unwrap();
        let bytes = std::fs::read(&blob).unwrap();
        std::fs::remove_file(&blob).unwrap();
        assert!(bytes.starts_with(&[0xD0, 0x0D, 0xFE, 0xED]));
    }
}
