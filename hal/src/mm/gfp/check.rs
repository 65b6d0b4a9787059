//! Flags that contradict each other.

use super::Gfp;

/// What is wrong with a combination of flags. The allocation goes on as documented here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GfpError {
    /// Bits without a meaning, such as those of flags Linux has removed; they are ignored.
    #[error("the bits {bits:#x} of {gfp} have no meaning")]
    UnknownBits {
        /// The bits.
        bits: u32,
        /// All flags.
        gfp: Gfp,
    },
    /// [`Gfp::DMA`] and [`Gfp::DMA32`]; the more limited zone counts.
    #[error("{0} names two zones")]
    TwoZones(Gfp),
    /// [`Gfp::MOVABLE`] and [`Gfp::RECLAIMABLE`]; the memory counts as neither.
    #[error("{0} names two migrate types")]
    TwoMigrateTypes(Gfp),
    /// [`Gfp::NOFAIL`] and [`Gfp::NORETRY`]; the allocation does not fail.
    #[error("{0} must not fail and must not retry")]
    NofailNoretry(Gfp),
    /// [`Gfp::NOFAIL`] without [`Gfp::DIRECT_RECLAIM`]; the allocation may fail.
    #[error("{0} must not fail and must not block")]
    NofailNonblocking(Gfp),
}

/// Every combination [`Gfp::check`] objects to has one of these bits: none of them is in a
/// composite that drivers use often, so that one test clears the usual request.
const SUSPICIOUS: u32 =
    !Gfp::all().bits() | Gfp::NOFAIL.bits() | Gfp::DMA32.bits() | Gfp::RECLAIMABLE.bits();

impl Gfp {
    /// Whether the flags make sense together; the first objection if not.
    ///
    /// # Errors
    ///
    /// [`GfpError`].
    pub const fn check(self) -> Result<(), GfpError> {
        let unknown = self.bits() & !Self::all().bits();
        if unknown != 0 {
            Err(GfpError::UnknownBits {
                bits: unknown,
                gfp: self,
            })
        } else if self.contains(Self::DMA.union(Self::DMA32)) {
            Err(GfpError::TwoZones(self))
        } else if self.contains(Self::MOVABLE.union(Self::RECLAIMABLE)) {
            Err(GfpError::TwoMigrateTypes(self))
        } else if self.contains(Self::NOFAIL) && !self.may_block() {
            Err(GfpError::NofailNonblocking(self))
        } else if self.contains(Self::NOFAIL.union(Self::NORETRY)) {
            Err(GfpError::NofailNoretry(self))
        } else {
            Ok(())
        }
    }

    /// Whether a request takes more than a try: its flags may be wrong, or it is charged.
    #[inline(always)]
    pub(in crate::mm) const fn is_special(self) -> bool {
        self.bits() & (SUSPICIOUS | Self::ACCOUNT.bits()) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composites_are_sound_and_contradictions_are_named() {
        for gfp in [
            Gfp::ATOMIC,
            Gfp::KERNEL_ACCOUNT,
            Gfp::NOWAIT,
            Gfp::NOIO,
            Gfp::HIGHUSER_MOVABLE,
            Gfp::TRANSHUGE,
            Gfp::TRANSHUGE_LIGHT,
            Gfp::KERNEL | Gfp::DMA32,
            Gfp::KERNEL | Gfp::NOFAIL,
            Gfp::KERNEL | Gfp::RECLAIMABLE,
        ] {
            assert_eq!(gfp.check(), Ok(()), "{gfp}");
        }
        // `__GFP_COLD` had a bit of its own until Linux 4.15.
        let cold = Gfp::KERNEL | Gfp::from_bits_retain(1 << 27);
        let bits = 1 << 27;
        assert_eq!(cold.check(), Err(GfpError::UnknownBits { bits, gfp: cold }));
        let gfp = Gfp::DMA | Gfp::DMA32;
        assert_eq!(gfp.check(), Err(GfpError::TwoZones(gfp)));
        let gfp = Gfp::KERNEL | Gfp::MOVABLE | Gfp::RECLAIMABLE;
        assert_eq!(gfp.check(), Err(GfpError::TwoMigrateTypes(gfp)));
        let gfp = Gfp::KERNEL | Gfp::NOFAIL | Gfp::NORETRY;
        assert_eq!(gfp.check(), Err(GfpError::NofailNoretry(gfp)));
        let gfp = Gfp::ATOMIC | Gfp::NOFAIL;
        assert_eq!(gfp.check(), Err(GfpError::NofailNonblocking(gfp)));
    }

    #[test]
    fn whatever_is_wrong_is_special() {
        let bits: Vec<u32> = (0..24).map(|bit| 1 << bit).chain([1 << 27]).collect();
        for a in &bits {
            for b in &bits {
                for c in &bits {
                    let gfp = Gfp::from_bits_retain(a | b | c);
                    assert!(gfp.check().is_ok() || gfp.is_special(), "{gfp}");
                }
            }
        }
        assert!(!Gfp::KERNEL.is_special() && !Gfp::ATOMIC.is_special());
    }
}
