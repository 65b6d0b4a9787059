//! Runs of frames whose mapping remembers how they were allocated.
//!
//! The first leaf of a run notes the run's order in the bits the hardware leaves to software, so
//! that memory made of many runs needs no list of them.

use super::descriptor::Attributes;
use super::flush::{Flushed, Stale};
#[cfg(doc)]
use super::mapper::publish;
use super::mapper::{MapError, Mapper};
use super::table::{Level, TableMemory};
use crate::addr::{PAGE_SIZE, Pfn, PhysRange, VirtAddr};

/// `2^order` frames that were allocated and mapped as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first frame.
    pub pfn: Pfn,
    /// log2 of the number of frames, at most 14.
    pub order: u32,
}

impl Run {
    /// Bytes in the run.
    pub const fn size(self) -> usize {
        PAGE_SIZE << self.order
    }
}

impl<M: TableMemory> Mapper<M> {
    /// Maps `run` at `va`, in blocks where they fit, and notes the order
    /// in the first leaf for [`reap`](Self::reap). Nobody may use the addresses before
    /// [`publish`].
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    ///
    /// # Safety
    ///
    /// As [`map`](Self::map).
    pub unsafe fn map_run(
        &mut self,
        va: VirtAddr,
        run: Run,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        let start = run.pfn.phys();
        let range = PhysRange::new(start, start + run.size());
        // The note of a leaf that no run starts at is 0.
        self.write_leaves(va, range, attributes, Level::L2, run.order as u8 + 1)
    }

    /// Makes `size` bytes at `va`, mapped by [`map_run`](Self::map_run), invalid without
    /// forgetting their frames: the first half of a removal whose TLB flush may be shared with
    /// others. After the flush [`reap`](Self::reap) hands out the frames.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap).
    ///
    /// # Safety
    ///
    /// As [`unmap`](Self::unmap).
    pub unsafe fn retire(&mut self, va: VirtAddr, size: usize) -> Result<Stale, MapError> {
        let stride = self.check_live(va, size)?;
        self.visit(va, size, |slot| {
            slot.entry.store(slot.descriptor.retired());
            Ok(())
        })?;
        Ok(Stale { va, size, stride })
    }

    /// Forgets the first run of a retired and flushed range and returns its frames, which nothing
    /// translates to any more; `rest` becomes what follows the run. `None` when nothing is left.
    ///
    /// # Errors
    ///
    /// [`MapError::NotOneRun`] if the range does not start with a whole retired run.
    pub fn reap(&mut self, rest: &mut Flushed) -> Result<Option<Run>, MapError> {
        if rest.size == 0 {
            return Ok(None);
        }
        let va = rest.va;
        let first = self.lowest_entry(va).2;
        let run = match first.note().checked_sub(1) {
            Some(order) if !first.is_valid() => Run {
                pfn: first.output_address().pfn(),
                order: u32::from(order),
            },
            _ => return Err(MapError::NotOneRun(va)),
        };
        let size = run.size();
        if size > rest.size {
            return Err(MapError::NotOneRun(va));
        }
        self.clear(va, size)?;
        *rest = Flushed {
            va: va + size,
            size: rest.size - size,
        };
        Ok(Some(run))
    }
}
