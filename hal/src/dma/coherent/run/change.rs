//! Changes of the memory type of a run, step by step, and what becomes of one that fails.

use super::{Run, Runs, State, in_direct_map};
use crate::addr::VirtAddr;
use crate::mm::{Gfp, Misuse};
use crate::mmu::{MapError, MemoryType};

/// Bytes whose type changes under one hold of the tables' lock, with IRQs masked.
const STEP: usize = 2 << 20;

/// A change of type that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unchanged {
    pub(super) error: MapError,
    /// Whether all of the memory is again what it was.
    pub(super) is_undone: bool,
}

impl Runs {
    /// Moves `size` bytes from `old` to `new`, all or none if that can be undone.
    pub(super) fn change(
        &self,
        old: VirtAddr,
        new: VirtAddr,
        size: usize,
        memory_type: MemoryType,
    ) -> Result<(), Unchanged> {
        for done in (0..size).step_by(STEP) {
            let step = STEP.min(size - done);
            let changed = self.change_step(old + done, new + done, step, memory_type);
            if let Err(error) = changed {
                // It does not fail as long as nobody maps anything at `old` meanwhile: the tables
                // there are never given up.
                let undo = |back| {
                    let was = opposite(memory_type);
                    self.change_step(new + back, old + back, STEP, was).is_ok()
                };
                // Each step, whatever became of the one before.
                let stuck = (0..done).step_by(STEP).filter(|&back| !undo(back)).count();
                let is_undone = stuck == 0;
                return Err(Unchanged { error, is_undone });
            }
        }
        Ok(())
    }

    /// Moves at most [`STEP`] bytes, all or none.
    fn change_step(
        &self,
        old: VirtAddr,
        new: VirtAddr,
        size: usize,
        memory_type: MemoryType,
    ) -> Result<(), MapError> {
        #[cfg(test)]
        crate::dma::coherent::testing::injected(old)?;
        let mut tables = self.tables.lock();
        // SAFETY: the frames are the caller's, who has not handed them out or had them back; they
        // are mapped at `old` only.
        unsafe { tables.change_type(old, new, size, memory_type) }
    }

    /// Leaves a run where it is for good, and says so: some of its memory is not of the type it is
    /// to have.
    #[cold]
    pub(super) fn keep_out(&self, run: Run) {
        if let Ok(area) = self.window.lock().get_mut(run.va) {
            area.data.state = State::Kept;
        }
        Misuse::CoherentKept(in_direct_map(run.pfn)).note(Gfp::empty());
    }
}

/// The other of the two types that a run has.
const fn opposite(memory_type: MemoryType) -> MemoryType {
    match memory_type {
        MemoryType::NormalWriteBack => MemoryType::NormalNonCacheable,
        _ => MemoryType::NormalWriteBack,
    }
}
