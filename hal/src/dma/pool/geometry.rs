//! How a pool's memory is cut into blocks.

use super::PoolCreateError;
use crate::addr::PAGE_SIZE;
use crate::dma::coherent::MAX_ALLOCATION;

/// Bytes in the smallest block: a pair of pointers.
pub const MIN_BLOCK: usize = 2 * size_of::<usize>();

/// Most blocks in one piece of coherent memory: a page of the smallest.
pub(super) const MAX_BLOCKS: usize = PAGE_SIZE / MIN_BLOCK;

/// Where the blocks of a piece of coherent memory are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes in a block.
    pub(super) block: usize,
    /// Bytes in a piece: at least a page.
    pub(super) piece: usize,
    /// No block crosses a multiple of it.
    boundary: usize,
}

impl Geometry {
    /// Blocks of `size` bytes at multiples of `align`, none of which crosses a multiple of
    /// `boundary`. 0 is no wish, of both.
    pub(super) const fn new(
        size: usize,
        align: usize,
        boundary: usize,
    ) -> Result<Self, PoolCreateError> {
        /// Linux: `INT_MAX`.
        const MAX_SIZE: usize = i32::MAX as usize;
        let align = if align == 0 { 1 } else { align };
        if size == 0 {
            return Err(PoolCreateError::ZeroSize);
        }
        if size > MAX_SIZE {
            return Err(PoolCreateError::TooLarge(size));
        }
        if !align.is_power_of_two() || align > MAX_ALLOCATION {
            return Err(PoolCreateError::Alignment(align));
        }
        let least = if size < MIN_BLOCK { MIN_BLOCK } else { size };
        let block = least.next_multiple_of(align);
        let piece = if block < PAGE_SIZE { PAGE_SIZE } else { block };
        if boundary != 0 && (boundary < block || !boundary.is_power_of_two()) {
            return Err(PoolCreateError::Boundary { boundary, block });
        }
        Ok(Self {
            block,
            piece,
            boundary: if boundary == 0 || boundary > piece {
                piece
            } else {
                boundary
            },
        })
    }

    /// Blocks between two multiples of the boundary.
    const fn in_boundary(self) -> usize {
        self.boundary / self.block
    }

    /// Blocks in a piece.
    pub(super) const fn blocks(self) -> usize {
        self.piece / self.boundary * self.in_boundary()
    }

    /// Where block `index` starts.
    pub(super) const fn offset(self, index: usize) -> usize {
        index / self.in_boundary() * self.boundary + index % self.in_boundary() * self.block
    }

    /// The block that starts at `offset`, if one does.
    pub(super) fn index(self, offset: usize) -> Option<usize> {
        let index =
            offset / self.boundary * self.in_boundary() + offset % self.boundary / self.block;
        (index < self.blocks() && self.offset(index) == offset).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wrong_wishes_are_named() {
        let new = |size, align, boundary| Geometry::new(size, align, boundary).map(drop);
        assert_eq!(new(0, 1, 0), Err(PoolCreateError::ZeroSize));
        let large = i32::MAX as usize + 1;
        assert_eq!(new(large, 1, 0), Err(PoolCreateError::TooLarge(large)));
        for align in [3, 48, MAX_ALLOCATION * 2, usize::MAX] {
            assert_eq!(new(64, align, 0), Err(PoolCreateError::Alignment(align)));
        }
        for boundary in [32, 96, 100] {
            let block = 64;
            let refused = PoolCreateError::Boundary { boundary, block };
            assert_eq!(new(64, 1, boundary), Err(refused));
        }
        assert_eq!(Geometry::new(1, 0, 0).map(|it| it.block), Ok(MIN_BLOCK));
        assert_eq!(Geometry::new(65, 64, 0).map(|it| it.block), Ok(128));
    }

    proptest! {
        /// Against the rule itself: as many blocks as fit one after the other, each skipping to the
        /// next boundary where it would cross it.
        #[test]
        fn blocks_are_laid_one_after_the_other(
            size in 1_usize..9000,
            align in (0_u32..8).prop_map(|order| 1_usize << order),
            boundary in prop_oneof![Just(0_usize), (6_u32..16).prop_map(|order| 1 << order)],
        ) {
            let Ok(geometry) = Geometry::new(size, align, boundary) else {
                return Ok(());
            };
            prop_assert!(geometry.block >= size.max(MIN_BLOCK) && geometry.block.is_multiple_of(align));
            prop_assert!(geometry.blocks() <= MAX_BLOCKS);
            let limit = if boundary == 0 { usize::MAX } else { boundary };
            let (mut expected, mut at) = (Vec::new(), 0);
            while at + geometry.block <= geometry.piece {
                if at / limit != (at + geometry.block - 1) / limit {
                    at = at.next_multiple_of(limit);
                    continue;
                }
                expected.push(at);
                at += geometry.block;
            }
            let offsets: Vec<_> = (0..geometry.blocks()).map(|index| geometry.offset(index)).collect();
            prop_assert_eq!(&offsets, &expected);
            for offset in 0..geometry.piece {
                let found = geometry.index(offset);
                prop_assert_eq!(found, expected.iter().position(|start| *start == offset));
            }
        }
    }
}
