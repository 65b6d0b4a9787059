//! The file that the firmware reads through QEMU's firmware configuration device.

use super::in_option;
use anyhow::{Context, Result};
use std::path::Path;

/// Its name; the firmware's suite `fw_cfg` looks for it.
const NAME: &str = "opt/dmaproof/pattern";

/// Its bytes: some pages and a piece, of the firmware's pattern with this seed
/// (`firmware/src/pattern.rs`).
const SIZE: usize = 12_345;
const SEED: u64 = 0x6677_5F63_6667;

/// Writes the file into `scratch` and returns what QEMU's option `-fw_cfg` needs.
pub(super) fn make(scratch: &Path) -> Result<String> {
    let path = scratch.join("fw_cfg.bin");
    std::fs::write(&path, content()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(format!("name={NAME},file={}", in_option(&path)))
}

fn content() -> Vec<u8> {
    (0..SIZE).map(byte).collect()
}

/// Byte `index`: the generator SplitMix64, eight bytes a number, without the firmware's poison.
fn byte(index: usize) -> u8 {
    const POISON: u8 = 0xA5;
    let number = SEED.wrapping_add((index as u64 / 8 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    match (mixed ^ (mixed >> 31)).to_le_bytes()[index % 8] {
        POISON => !POISON,
        byte => byte,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The firmware has the same bytes in a test of its pattern.
    #[test]
    fn the_content_is_the_firmwares_pattern() {
        assert_eq!(
            content()[..8],
            [0x14, 0xCC, 0x09, 0xCE, 0xCA, 0x5A, 0xD6, 0x8C]
        );
        assert!(!content().contains(&0xA5));
    }
}
