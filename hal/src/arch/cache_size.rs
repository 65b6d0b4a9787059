//! Decoding of `CLIDR_EL1` and `CCSIDR_EL1`: how many bytes the caches hold (Arm ARM D24.2.25,
//! D24.2.29).

/// The levels that `CLIDR_EL1` describes.
pub const LEVELS: u32 = 7;

/// Bits of a cache type field, `CLIDR_EL1.Ctype<n>`.
const TYPE_BITS: u32 = 3;
const TYPE_MASK: u64 = 0b111;
/// Values of it with a data cache, of its own or unified.
const WITH_DATA: core::ops::RangeInclusive<u64> = 0b010..=0b100;

/// Bytes in the line that `CCSIDR_EL1.LineSize` counts from: it is log2 of words, less 2.
const SHORTEST_LINE: usize = 16;

/// Whether level `level`, from 1, has a cache that holds data.
pub const fn has_data_cache(clidr: u64, level: u32) -> bool {
    let kind = clidr >> (TYPE_BITS * (level - 1)) & TYPE_MASK;
    *WITH_DATA.start() <= kind && kind <= *WITH_DATA.end()
}

/// Bytes in the cache that `ccsidr` describes, in the format of a core that `is_wide`
/// (`ID_AA64MMFR2_EL1.CCIDX` is not 0) or not.
pub const fn bytes(ccsidr: u64, is_wide: bool) -> usize {
    let line = SHORTEST_LINE << (ccsidr & 0b111);
    let (ways, sets) = match is_wide {
        true => (
            (ccsidr >> 3 & 0x1F_FFFF) + 1,
            (ccsidr >> 32 & 0xFF_FFFF) + 1,
        ),
        false => ((ccsidr >> 3 & 0x3FF) + 1, (ccsidr >> 13 & 0x7FFF) + 1),
    };
    line * ways as usize * sets as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a Cortex-A72 as of QEMU's model: 32 KiB of data, 1 MiB for both.
    #[test]
    fn a_cortex_a72_has_two_levels() {
        const CLIDR: u64 = 0x0A20_0023;
        let levels: Vec<_> = (1..=LEVELS)
            .filter(|&level| has_data_cache(CLIDR, level))
            .collect();
        assert_eq!(levels, [1, 2]);
        assert_eq!(bytes(0x701F_E00A, false), 32 << 10);
        assert_eq!(bytes(0x707F_E07A, false), 1 << 20);
    }

    #[test]
    fn a_level_of_instructions_alone_holds_no_data() {
        let kinds = (0..8).map(|kind| has_data_cache(kind << 3, 2));
        assert!(kinds.eq([false, false, true, true, true, false, false, false]));
    }

    /// 64-byte lines, 16 ways, 2048 sets, in the format of wider fields.
    #[test]
    fn the_wide_format_has_its_own_fields() {
        let ccsidr = 2 | 15 << 3 | 2047 << 32;
        assert_eq!(bytes(ccsidr, true), 2 << 20);
    }
}
