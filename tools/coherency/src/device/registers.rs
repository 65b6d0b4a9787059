//! Registers of 32 bits.

use super::Access;
use std::ops::Range;

/// Bytes in a register.
const REGISTER: u64 = 4;

/// `size` bytes of registers at `base`, as the only window of a device.
pub(super) fn window(base: u64, size: u64) -> Vec<Range<u64>> {
    let window = base..base + size;
    vec![window]
}

/// The registers that an access covers whole: their offsets from `base`, and what was stored or
/// loaded. An access below `base`, or one that is no whole register, covers none.
pub(super) fn covered(access: &Access, base: u64) -> impl Iterator<Item = (u64, u32)> + use<> {
    let Access {
        pa, size, value, ..
    } = *access;
    let offset = pa
        .checked_sub(base)
        .filter(|offset| offset.is_multiple_of(REGISTER));
    // The value of an access holds two registers.
    let halves = [value as u32, (value >> 32) as u32];
    let whole = usize::from(size) / REGISTER as usize;
    offset.into_iter().flat_map(move |offset| {
        let offsets = (0..).map(move |index| offset + index * REGISTER);
        offsets.zip(halves).take(whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pa: u64, size: u8) -> Vec<(u64, u32)> {
        let access = Access {
            cpu: 0,
            pa,
            size,
            is_store: true,
            value: 0x1111_2222_3333_4444,
        };
        covered(&access, 0x1000).collect()
    }

    #[test]
    fn whole_registers_are_covered() {
        assert_eq!(of(0x1004, 4), [(4, 0x3333_4444)]);
        assert_eq!(of(0x1004, 8), [(4, 0x3333_4444), (8, 0x1111_2222)]);
        assert_eq!(of(0x1004, 16), of(0x1004, 8), "the value has 64 bits");
        assert_eq!(of(0x1004, 2), []);
        assert_eq!(of(0x1002, 4), []);
        assert_eq!(of(0xFFC, 8), []);
    }
}
