//! The address bits a device drives.

/// The greatest address a device can put on its bus, as a mask of low bits.
///
/// The Rust-for-Linux type of the same name; `DMA_BIT_MASK(n)` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct DmaMask(u64);

/// A mask width that is not 1 to 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a DMA mask has 1 to 64 bits, not {0}")]
pub struct BadMaskWidth(pub u32);

impl DmaMask {
    /// The mask of `N` bits. A width outside 1 to 64 does not compile.
    ///
    /// ```
    /// use hal::dma::DmaMask;
    /// assert_eq!(DmaMask::new::<30>().value(), 0x3FFF_FFFF);
    /// ```
    ///
    /// ```compile_fail,E0080
    /// hal::dma::DmaMask::new::<65>();
    /// ```
    pub const fn new<const N: u32>() -> Self {
        const { assert!(N >= 1 && N <= u64::BITS, "a DMA mask has 1 to 64 bits") };
        Self(u64::MAX >> (u64::BITS - N))
    }

    /// The mask of `bits` bits.
    ///
    /// # Errors
    ///
    /// When `bits` is not 1 to 64.
    pub const fn try_new(bits: u32) -> Result<Self, BadMaskWidth> {
        match bits {
            1..=u64::BITS => Ok(Self(u64::MAX >> (u64::BITS - bits))),
            _ => Err(BadMaskWidth(bits)),
        }
    }

    /// The greatest address the device can drive.
    #[inline]
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_at_the_edges() {
        assert_eq!(DmaMask::new::<1>().value(), 1);
        assert_eq!(DmaMask::new::<32>().value(), 0xFFFF_FFFF);
        assert_eq!(DmaMask::new::<64>().value(), u64::MAX);
        assert_eq!(DmaMask::try_new(28), Ok(DmaMask::new::<28>()));
        assert_eq!(DmaMask::try_new(0), Err(BadMaskWidth(0)));
        assert_eq!(DmaMask::try_new(65), Err(BadMaskWidth(65)));
    }
}
