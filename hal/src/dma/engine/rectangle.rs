//! Copies of rectangles: rows that lie apart in memory.

use super::{Completion, Destination, DmaEngine, Source, check_lent_to, check_waiting, finish};
use crate::addr::DmaAddr;
use crate::dma::{DmaError, DmaSegment};

/// The shape of a rectangle: rows of the same length, and how far apart they lie on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// Rows.
    pub rows: usize,
    /// Bytes in a row.
    pub row_len: usize,
    /// Bytes from the end of a row to the start of the next, in the source.
    pub src_stride: i16,
    /// The same in the destination.
    pub dst_stride: i16,
}

impl Rectangle {
    /// Bytes copied, or `None` if they are more than there can be.
    pub const fn bytes(&self) -> Option<usize> {
        self.rows.checked_mul(self.row_len)
    }

    /// Where the rows of a side with that stride lie, from the first byte of its first row on: the
    /// distance of the lowest byte below it, and the bytes from there to the highest.
    fn footprint(&self, stride: i16) -> Option<Footprint> {
        let step = isize::try_from(self.row_len)
            .ok()?
            .checked_add(stride.into())?;
        let steps = isize::try_from(self.rows.checked_sub(1)?).ok()?;
        let last = step.checked_mul(steps)?;
        Some(Footprint {
            below: if last < 0 { last.unsigned_abs() } else { 0 },
            len: last.unsigned_abs().checked_add(self.row_len)?,
        })
    }
}

/// The bytes one side of a rectangle touches.
struct Footprint {
    below: usize,
    len: usize,
}

/// The copy of a rectangle, as an engine is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer2d {
    /// The first byte of the first row to read.
    pub src: DmaAddr,
    /// The first byte of the first row to write.
    pub dst: DmaAddr,
    /// Its shape.
    pub shape: Rectangle,
}

impl Transfer2d {
    /// The memory that is read and the memory that is written, each from the lowest byte to the
    /// highest, with what lies between the rows.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`] without rows or bytes in them, [`DmaError::ForeignAddress`] if a
    /// side would leave the address space.
    pub fn footprints(&self) -> Result<[DmaSegment; 2], DmaError> {
        let shape = &self.shape;
        if shape.rows == 0 || shape.row_len == 0 {
            return Err(DmaError::ZeroLength);
        }
        let side = |addr: DmaAddr, stride| -> Result<DmaSegment, DmaError> {
            let foreign = DmaError::ForeignAddress {
                addr,
                len: shape.row_len,
            };
            let footprint = shape.footprint(stride).ok_or(foreign)?;
            let lowest = addr.get().checked_sub(footprint.below as u64);
            Ok(DmaSegment {
                addr: DmaAddr::new(lowest.ok_or(foreign)?),
                len: footprint.len,
            })
        };
        Ok([
            side(self.src, shape.src_stride)?,
            side(self.dst, shape.dst_stride)?,
        ])
    }
}

/// Copies a rectangle from `src`, first row at byte `src_at`, to `dst`, first row at `dst_at`, and
/// returns when it is done. Both sides must be of one segment. To be called as
/// [`copy_with`](super::copy_with).
///
/// # Errors
///
/// [`DmaError::OutOfBounds`] if a row would lie outside its segment, [`DmaError::NoRectangles`],
/// [`DmaError::OtherDevice`], [`DmaError::PartOfCpu`], and those of [`DmaEngine::submit_2d`] and [`DmaEngine::wait`]. After
/// an error some of the destination may have been written.
///
/// # Panics
///
/// As [`copy_with`](super::copy_with) does.
pub fn copy_2d(
    engine: &dyn DmaEngine,
    (src, src_at): (&dyn Source, usize),
    (dst, dst_at): (&mut dyn Destination, usize),
    shape: Rectangle,
    completion: Completion,
) -> Result<(), DmaError> {
    check_waiting(completion)?;
    let dst = &*dst;
    check_lent_to(engine, [src.device(), dst.device()])?;
    src.check_lent()?;
    dst.check_lent()?;
    let (from, to) = (src.segment(0), dst.segment(0));
    let transfer = Transfer2d {
        src: inside(from, src_at, shape, shape.src_stride)?,
        dst: inside(to, dst_at, shape, shape.dst_stride)?,
        shape,
    };
    let bytes = shape.bytes().ok_or(DmaError::ZeroLength)?;
    // SAFETY: source and destination are borrowed by this call, which returns after `finish`, and
    // both footprints lie inside them.
    let ticket = unsafe { engine.submit_2d(&transfer) }?;
    finish(engine, ticket, engine.timeout_ns(bytes), completion)
}

/// The address of byte `at` of `segment`, if a side of `shape` that starts there stays inside.
fn inside(
    segment: Option<DmaSegment>,
    at: usize,
    shape: Rectangle,
    stride: i16,
) -> Result<DmaAddr, DmaError> {
    let DmaSegment { addr, len: size } = segment.ok_or(DmaError::ZeroLength)?;
    if shape.rows == 0 || shape.row_len == 0 {
        return Err(DmaError::ZeroLength);
    }
    let out_of_bounds = |len| DmaError::OutOfBounds {
        offset: at,
        len,
        size,
    };
    let Footprint { below, len } = shape
        .footprint(stride)
        .ok_or_else(|| out_of_bounds(usize::MAX))?;
    let end = at
        .checked_sub(below)
        .and_then(|lowest| lowest.checked_add(len));
    if end.is_none_or(|end| end > size) {
        return Err(out_of_bounds(len));
    }
    Ok(addr + at)
}

#[cfg(test)]
mod tests;
