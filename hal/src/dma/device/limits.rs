//! What a device takes in one segment of a scattered buffer.

/// Limits on one segment of a scattered buffer (`struct device_dma_parameters`).
///
/// A device that cuts transfers itself has [`NONE`](Self::NONE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLimits {
    max_len: usize,
    boundary: u64,
}

/// Limits that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLimits {
    /// No byte fits into a segment.
    #[error("a DMA segment of at most 0 bytes")]
    MaxLen,
    /// The boundary is not a power of two, or smaller than a page.
    #[error("a DMA segment boundary of {0:#x}, which is no power of two of at least a page")]
    Boundary(u64),
}

impl SegmentLimits {
    /// Segments of any length, across any boundary.
    pub const NONE: Self = Self {
        max_len: usize::MAX,
        boundary: 0,
    };

    /// Segments of at most `max_len` bytes that cross no multiple of `boundary` on the device's
    /// side; 0 for no boundary.
    ///
    /// # Errors
    ///
    /// [`BadLimits`].
    pub const fn new(max_len: usize, boundary: u64) -> Result<Self, BadLimits> {
        if max_len == 0 {
            return Err(BadLimits::MaxLen);
        }
        if boundary != 0
            && (!boundary.is_power_of_two() || boundary < crate::addr::PAGE_SIZE as u64)
        {
            return Err(BadLimits::Boundary(boundary));
        }
        Ok(Self { max_len, boundary })
    }

    /// The longest segment, in bytes.
    pub const fn max_len(&self) -> usize {
        self.max_len
    }

    /// Segments cross no multiple of this device address, in bytes; 0 for no boundary.
    pub const fn boundary(&self) -> u64 {
        self.boundary
    }

    /// How many of `len` bytes at device address `addr` fit into one segment; at least 1 unless
    /// `len` is 0.
    pub(in crate::dma) fn fit(&self, addr: u64, len: usize) -> usize {
        let len = len.min(self.max_len);
        match self.boundary {
            0 => len,
            boundary => {
                let left = boundary - (addr & (boundary - 1));
                usize::try_from(left).map_or(len, |left| len.min(left))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_end_at_the_boundary_and_the_length() {
        let limits = SegmentLimits::new(0x1_0000, 0x1_0000).unwrap();
        assert_eq!(limits.fit(0xFFFF, 2), 1);
        assert_eq!(limits.fit(0x1_0000, 0x2_0000), 0x1_0000);
        assert_eq!(limits.fit(0x1_0001, 0x2_0000), 0xFFFF);
        assert_eq!(SegmentLimits::NONE.fit(0xFFFF, usize::MAX), usize::MAX);
        assert_eq!(limits.fit(0, 0), 0);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(SegmentLimits::new(0, 0), Err(BadLimits::MaxLen));
        assert_eq!(
            SegmentLimits::new(1, 0x800),
            Err(BadLimits::Boundary(0x800))
        );
        assert_eq!(
            SegmentLimits::new(1, 0x3000),
            Err(BadLimits::Boundary(0x3000))
        );
        assert!(SegmentLimits::new(1, 0x1000).is_ok());
    }
}
