//! What a control block copies: so many bytes, or a rectangle. Legacy channels and DMA4 encode the
//! length alike.

use super::registers::TXFR_LEN;
use crate::dma::{DmaError, Rectangle};

/// Rows that YLENGTH does not count: the first.
///
/// The datasheet says so of DMA4 (4.2.1: Y + 1 transfers), and of the legacy channels that they
/// make "Y transfers". Their silicon does not: the Raspberry Pi's own frame buffer driver
/// (raspberrypi/linux, `drivers/video/fbdev/bcm2708_fb.c`), which scrolls with rectangles, gives
/// them the height less one, and notes that the documentation does not show it. QEMU's model agrees.
const UNCOUNTED_ROWS: usize = 1;
/// Rows of a rectangle: YLENGTH has 14 bits.
const MAX_ROWS: usize = (1 << 14) - 1 + UNCOUNTED_ROWS;
/// Bytes in a row: XLENGTH has 16 bits.
const MAX_ROW_LEN: usize = (1 << 16) - 1;

/// What a control block copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::drivers) enum Shape {
    /// So many bytes.
    Linear(u32),
    /// A rectangle: full channels only.
    Rows {
        /// Rows but the [uncounted](UNCOUNTED_ROWS), not 0.
        more_rows: u16,
        /// Bytes in a row.
        row_len: u16,
        /// Added to the source address after a row.
        src_stride: i16,
        /// Added to the destination address after a row.
        dst_stride: i16,
    },
}

impl Shape {
    /// The rows of `shape`, if a control block holds them. A single row is a linear copy.
    pub(in crate::drivers) fn rows(shape: &Rectangle) -> Result<Self, DmaError> {
        let &Rectangle {
            rows,
            row_len,
            src_stride,
            dst_stride,
        } = shape;
        let too_large = DmaError::RectangleTooLarge {
            rows,
            row_len,
            max_rows: MAX_ROWS,
            max_row_len: MAX_ROW_LEN,
        };
        if rows > MAX_ROWS {
            return Err(too_large);
        }
        let row_len = u16::try_from(row_len).map_err(|_| too_large)?;
        let more_rows = rows
            .checked_sub(UNCOUNTED_ROWS)
            .and_then(|rows| u16::try_from(rows).ok())
            .ok_or(DmaError::ZeroLength)?;
        Ok(match more_rows {
            0 => Self::Linear(row_len.into()),
            more_rows => Self::Rows {
                more_rows,
                row_len,
                src_stride,
                dst_stride,
            },
        })
    }

    /// TXFR_LEN.
    pub(in crate::drivers) fn length(self) -> u32 {
        match self {
            Self::Linear(len) => len,
            Self::Rows {
                more_rows, row_len, ..
            } => {
                (TXFR_LEN::YLENGTH.val(more_rows.into()) + TXFR_LEN::XLENGTH.val(row_len.into()))
                    .value
            }
        }
    }

    /// The strides of source and destination, as their registers hold them.
    pub(in crate::drivers) fn strides(self) -> (u32, u32) {
        let bits = |stride: i16| u32::from(stride.cast_unsigned());
        match self {
            Self::Linear(_) => (0, 0),
            Self::Rows {
                src_stride,
                dst_stride,
                ..
            } => (bits(src_stride), bits(dst_stride)),
        }
    }

    /// Whether it has rows.
    pub(in crate::drivers) const fn is_rectangle(self) -> bool {
        matches!(self, Self::Rows { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn shape(rows: usize, row_len: usize) -> Rectangle {
        Rectangle {
            rows,
            row_len,
            src_stride: 4,
            dst_stride: -4,
        }
    }

    #[test]
    fn a_single_row_is_linear() {
        let row = Shape::rows(&shape(1, 0x40)).unwrap();
        assert_eq!(row, Shape::Linear(0x40));
        assert_eq!((row.length(), row.strides()), (0x40, (0, 0)));
        assert!(!row.is_rectangle());
        let rows = Shape::rows(&shape(2, 0x40)).unwrap();
        assert_eq!((rows.length(), rows.strides()), (0x1_0040, (4, 0xFFFC)));
        assert!(rows.is_rectangle());
    }

    #[test]
    fn rectangles_end_where_the_fields_do() {
        let largest = Shape::rows(&shape(0x4000, 0xFFFF)).unwrap();
        assert_eq!(largest.length(), 0x3FFF_FFFF);
        for (rows, row_len) in [(0x4001, 4), (1, 0x1_0000), (0x1_0001, 4)] {
            assert_eq!(
                Shape::rows(&shape(rows, row_len)),
                Err(DmaError::RectangleTooLarge {
                    rows,
                    row_len,
                    max_rows: 0x4000,
                    max_row_len: 0xFFFF
                })
            );
        }
        assert_eq!(Shape::rows(&shape(0, 4)), Err(DmaError::ZeroLength));
    }
}
