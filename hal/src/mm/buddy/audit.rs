//! Whether the lists of free blocks are what they should be.

use super::{Buddy, ORDERS, first_frame};
use crate::addr::Pfn;
use crate::mm::MigrateType;
use crate::mm::frame::{FrameTable, NO_FRAME, PAGEBLOCK_ORDER};

/// What is wrong with a zone's lists of free blocks. It is an error of the allocator, or somebody
/// wrote to the descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A frame is on a list, and no free block of that list starts there.
    #[error("no free block of order {order} starts at {pfn}, on the list of {migrate:?}")]
    NotFree {
        /// The frame.
        pfn: Pfn,
        /// The list's order.
        order: u32,
        /// The list's migrate type.
        migrate: MigrateType,
    },
    /// A block does not lead back to the one before it on its list.
    #[error("the block before {0} on its list is another one")]
    Link(Pfn),
    /// A block and its buddy are free, and were not merged.
    #[error("{pfn} and its buddy are free blocks of order {order}")]
    Unmerged {
        /// First frame of the block.
        pfn: Pfn,
        /// Its order.
        order: u32,
    },
    /// A list is longer or shorter than is noted.
    #[error("{blocks} free blocks of order {order} and {migrate:?} are noted, not as many listed")]
    Blocks {
        /// The list's order.
        order: u32,
        /// The list's migrate type.
        migrate: MigrateType,
        /// How many are noted.
        blocks: u32,
    },
    /// The blocks have more or fewer pages than are noted.
    #[error("{noted} free pages of {migrate:?} are noted, {listed} listed")]
    Pages {
        /// The lists' migrate type.
        migrate: MigrateType,
        /// How many are noted.
        noted: u32,
        /// How many there are.
        listed: u32,
    },
}

impl Buddy {
    /// Looks at every free block; how many there are. Takes time in proportion to that.
    ///
    /// # Errors
    ///
    /// [`ListError`]: the first thing that is wrong.
    pub(in crate::mm) fn validate(&self, frames: &FrameTable) -> Result<u32, ListError> {
        let mut blocks = 0;
        for migrate in MigrateType::ALL {
            let mut listed = 0;
            for order in 0..ORDERS as u32 {
                let found = self.validate_list(frames, order, migrate)?;
                listed += found << order;
                blocks += found;
            }
            let noted = self.pages_of(migrate);
            if listed != noted {
                return Err(ListError::Pages {
                    migrate,
                    noted,
                    listed,
                });
            }
        }
        Ok(blocks)
    }

    /// Follows one list; its length.
    fn validate_list(
        &self,
        frames: &FrameTable,
        order: u32,
        migrate: MigrateType,
    ) -> Result<u32, ListError> {
        let list = self.lists[migrate as usize][order as usize];
        let blocks = list.blocks;
        let miscounted = ListError::Blocks {
            order,
            migrate,
            blocks,
        };
        let (mut at, mut before) = (list.first, NO_FRAME);
        // A list that leads back into itself ends here too.
        for _ in 0..blocks {
            if at == NO_FRAME {
                return Err(miscounted);
            }
            let pfn = Pfn::new(at);
            let frame = frames.get_ready(pfn);
            let frame = frame
                .filter(|frame| frame.as_free(order) == Some(migrate))
                .filter(|_| pfn.is_order_aligned(order));
            let frame = frame.ok_or(ListError::NotFree {
                pfn,
                order,
                migrate,
            })?;
            let (next, prev) = frame.links();
            if prev != before {
                return Err(ListError::Link(pfn));
            }
            // Above that, the migrate types of the two decide.
            if order < PAGEBLOCK_ORDER
                && first_frame(frames, at ^ 1 << order)
                    .as_free(order)
                    .is_some()
            {
                return Err(ListError::Unmerged { pfn, order });
            }
            (at, before) = (next, at);
        }
        let is_occupied = self.occupied[migrate as usize] & 1 << order != 0;
        if at != NO_FRAME || is_occupied != (blocks > 0) {
            return Err(miscounted);
        }
        Ok(blocks)
    }
}
