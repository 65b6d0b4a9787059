use super::*;
use crate::dma::DmaMask;
use crate::dma::engine::tests::identity_device;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn shape(rows: usize, row_len: usize, src_stride: i16, dst_stride: i16) -> Rectangle {
    Rectangle {
        rows,
        row_len,
        src_stride,
        dst_stride,
    }
}

/// Every byte a side touches, row by row.
fn touched(first: i64, rows: usize, row_len: usize, stride: i16) -> BTreeSet<i64> {
    let step = row_len as i64 + i64::from(stride);
    (0..rows as i64)
        .flat_map(|row| (0..row_len as i64).map(move |byte| first + row * step + byte))
        .collect()
}

proptest! {
    /// Byte by byte: a side is taken iff no byte of it lies outside its segment.
    #[test]
    fn a_rectangle_stays_in_its_segment(
        rows in 1_usize..6,
        row_len in 1_usize..40,
        stride in -100_i16..100,
        at in 0_usize..300,
        size in 1_usize..300,
    ) {
        let segment = DmaSegment { addr: DmaAddr::new(0x1000), len: size };
        let bytes = touched(at as i64, rows, row_len, stride);
        let fits = bytes.iter().all(|&byte| (0..size as i64).contains(&byte));
        let result = inside(Some(segment), at, shape(rows, row_len, stride, 0), stride);
        match result {
            Ok(addr) => {
                prop_assert!(fits);
                prop_assert_eq!(addr, DmaAddr::new(0x1000) + at);
            }
            Err(DmaError::OutOfBounds { offset, .. }) => {
                prop_assert!(!fits);
                prop_assert_eq!(offset, at);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// The footprints an engine checks are the bytes' ends.
    #[test]
    fn footprints_span_the_rows(
        rows in 1_usize..6,
        row_len in 1_usize..40,
        src_stride in -100_i16..100,
        dst_stride in -100_i16..100,
    ) {
        let transfer = Transfer2d {
            src: DmaAddr::new(0x1_0000),
            dst: DmaAddr::new(0x2_0000),
            shape: shape(rows, row_len, src_stride, dst_stride),
        };
        let sides = transfer.footprints().unwrap();
        for (side, first, stride) in [
            (sides[0], 0x1_0000, src_stride),
            (sides[1], 0x2_0000, dst_stride),
        ] {
            let bytes = touched(first, rows, row_len, stride);
            let lowest = *bytes.first().unwrap();
            prop_assert_eq!(side.addr.get() as i64, lowest);
            prop_assert_eq!(side.len as i64, bytes.last().unwrap() - lowest + 1);
        }
    }
}

#[test]
fn impossible_rectangles_are_named() {
    let at = |addr, shape| Transfer2d {
        src: DmaAddr::new(addr),
        dst: DmaAddr::new(addr),
        shape,
    };
    for empty in [shape(0, 4, 0, 0), shape(4, 0, 0, 0)] {
        assert_eq!(at(0, empty).footprints(), Err(DmaError::ZeroLength));
        assert_eq!(inside(None, 0, empty, 0), Err(DmaError::ZeroLength));
    }
    // Backwards past address 0, and more than there is.
    let below = at(64, shape(3, 64, 0, -128));
    assert!(matches!(
        below.footprints(),
        Err(DmaError::ForeignAddress { .. })
    ));
    let vast = at(0, shape(usize::MAX, usize::MAX, 0, 0));
    assert!(vast.footprints().is_err());
    assert_eq!(vast.shape.bytes(), None);
    let segment = DmaSegment {
        addr: DmaAddr::new(0),
        len: 64,
    };
    assert!(matches!(
        inside(Some(segment), 0, vast.shape, 0),
        Err(DmaError::OutOfBounds {
            len: usize::MAX,
            ..
        })
    ));
}

#[test]
fn a_footprint_that_leaves_the_devices_reach_is_foreign() {
    let device = identity_device(DmaMask::new::<32>());
    let edge = Transfer2d {
        src: DmaAddr::new(0xFFFF_FF00),
        dst: DmaAddr::new(0),
        shape: shape(2, 64, 64, 0),
    };
    let [src, dst] = edge.footprints().unwrap();
    assert_eq!(device.check(src.addr, src.len), Ok(()));
    assert_eq!(device.check(dst.addr, dst.len), Ok(()));
    let past = Transfer2d {
        shape: shape(2, 64, 129, 0),
        ..edge
    };
    let [src, _] = past.footprints().unwrap();
    assert!(device.check(src.addr, src.len).is_err());
}
