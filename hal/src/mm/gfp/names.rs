//! Flags in words, as Linux's reports print them.

use super::Gfp;
use core::fmt;

/// Names of flags and of combinations, larger ones first.
const NAMES: [(Gfp, &str); 34] = [
    (Gfp::TRANSHUGE, "GFP_TRANSHUGE"),
    (Gfp::TRANSHUGE_LIGHT, "GFP_TRANSHUGE_LIGHT"),
    (Gfp::HIGHUSER_MOVABLE, "GFP_HIGHUSER_MOVABLE"),
    (Gfp::HIGHUSER, "GFP_HIGHUSER"),
    (Gfp::USER, "GFP_USER"),
    (Gfp::KERNEL_ACCOUNT, "GFP_KERNEL_ACCOUNT"),
    (Gfp::KERNEL, "GFP_KERNEL"),
    (Gfp::NOFS, "GFP_NOFS"),
    (Gfp::ATOMIC, "GFP_ATOMIC"),
    (Gfp::NOIO, "GFP_NOIO"),
    (Gfp::NOWAIT, "GFP_NOWAIT"),
    (Gfp::DMA, "GFP_DMA"),
    (Gfp::DMA32, "GFP_DMA32"),
    (Gfp::HIGHMEM, "__GFP_HIGHMEM"),
    (Gfp::MOVABLE, "__GFP_MOVABLE"),
    (Gfp::RECLAIMABLE, "__GFP_RECLAIMABLE"),
    (Gfp::HIGH, "__GFP_HIGH"),
    (Gfp::IO, "__GFP_IO"),
    (Gfp::FS, "__GFP_FS"),
    (Gfp::ZERO, "__GFP_ZERO"),
    (Gfp::DIRECT_RECLAIM, "__GFP_DIRECT_RECLAIM"),
    (Gfp::KSWAPD_RECLAIM, "__GFP_KSWAPD_RECLAIM"),
    (Gfp::WRITE, "__GFP_WRITE"),
    (Gfp::NOWARN, "__GFP_NOWARN"),
    (Gfp::RETRY_MAYFAIL, "__GFP_RETRY_MAYFAIL"),
    (Gfp::NOFAIL, "__GFP_NOFAIL"),
    (Gfp::NORETRY, "__GFP_NORETRY"),
    (Gfp::MEMALLOC, "__GFP_MEMALLOC"),
    (Gfp::COMP, "__GFP_COMP"),
    (Gfp::NOMEMALLOC, "__GFP_NOMEMALLOC"),
    (Gfp::HARDWALL, "__GFP_HARDWALL"),
    (Gfp::THISNODE, "__GFP_THISNODE"),
    (Gfp::ACCOUNT, "__GFP_ACCOUNT"),
    (Gfp::ZEROTAGS, "__GFP_ZEROTAGS"),
];

/// The value and the names: `0xcc0(GFP_KERNEL)`. Bits without a name follow as a number.
impl fmt::Display for Gfp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}(", self.bits())?;
        let (mut left, mut separator) = (*self, "");
        for (flags, name) in NAMES {
            if left.contains(flags) {
                write!(f, "{separator}{name}")?;
                left.remove(flags);
                separator = "|";
            }
        }
        match (left.bits(), separator) {
            (0, "") => f.write_str("none)"),
            (0, _) => f.write_str(")"),
            (bits, _) => write!(f, "{separator}{bits:#x})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_decode_as_linux_prints_them() {
        for (gfp, text) in [
            (Gfp::KERNEL, "0xcc0(GFP_KERNEL)"),
            (Gfp::KERNEL | Gfp::ZERO, "0xdc0(GFP_KERNEL|__GFP_ZERO)"),
            (Gfp::ATOMIC, "0x820(GFP_ATOMIC)"),
            (Gfp::KERNEL_ACCOUNT, "0x400cc0(GFP_KERNEL_ACCOUNT)"),
            (Gfp::HIGHUSER_MOVABLE, "0x100cca(GFP_HIGHUSER_MOVABLE)"),
            (Gfp::TRANSHUGE_LIGHT, "0x1c20ca(GFP_TRANSHUGE_LIGHT)"),
            (Gfp::TRANSHUGE, "0x1c24ca(GFP_TRANSHUGE)"),
            (Gfp::empty(), "0x0(none)"),
            (Gfp::from_bits_retain(0x200), "0x200(0x200)"),
        ] {
            assert_eq!(gfp.to_string(), text);
        }
    }

    #[test]
    fn every_flag_has_a_name() {
        for (_, gfp) in Gfp::all().iter_names() {
            assert!(gfp.to_string().contains("GFP_"), "{gfp}");
        }
    }
}
