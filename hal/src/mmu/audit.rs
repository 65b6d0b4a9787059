//! Questions about a whole translation tree, judged per frame over all its mappings.

use super::mapper::{FIRST, LIMIT, Mapper};
use super::table::TableMemory;
use super::walk::Leaf;
use crate::addr::{PhysRange, VirtAddr};

impl<M: TableMemory> Mapper<M> {
    /// Two mappings that together make a frame writable and executable, if there are such; both
    /// are the same when one entry does it alone.
    ///
    /// Walks the whole tree once per executable run.
    pub fn find_writable_and_executable(&self) -> Option<(Leaf, Leaf)> {
        self.runs(FIRST, LIMIT)
            .filter(|run| run.descriptor().is_executable())
            .find_map(|executable| {
                self.runs(FIRST, LIMIT)
                    .find(|run| {
                        run.descriptor().is_writable()
                            && run.frames().overlaps(&executable.frames())
                    })
                    .map(|writable| (writable, executable))
            })
    }

    /// A frame mapped with two memory types, if there is one.
    ///
    /// Walks the whole tree once per run.
    pub fn find_mismatched_types(&self) -> Option<(Leaf, Leaf)> {
        self.runs(FIRST, LIMIT).find_map(|first| {
            self.runs(first.end(), LIMIT)
                .find(|run| {
                    run.memory_type() != first.memory_type()
                        && run.frames().overlaps(&first.frames())
                })
                .map(|second| (first, second))
        })
    }

    /// The first mapping in `start..end` of any frame of `frames`, if there is one.
    pub fn find_mapping_of(
        &self,
        frames: PhysRange,
        start: VirtAddr,
        end: VirtAddr,
    ) -> Option<Leaf> {
        self.runs(start, end)
            .find(|run| run.frames().overlaps(&frames))
    }
}
