//! Frames that change their memory type.
//!
//! A frame has one memory type at a time. Between two types there is a moment without any mapping.
//! No line of the data caches survives the way to memory that is not cached: a dirty line evicted
//! later would overwrite what a device wrote, a clean one would be read instead of it. On the way
//! back there is none, but a store may be on its way past the caches, which a line fetched too early
//! would lack for good.

use super::descriptor::Attributes;
use super::flush::Stale;
use super::mair::MemoryType;
use super::mapper::{MapError, Mapper, publish};
use super::table::{Level, TableMemory};
use crate::addr::{PhysRange, VirtAddr};
use crate::arch::{barrier, cache};

impl<M: TableMemory> Mapper<M> {
    /// Moves the frames mapped at `old` to `new`, which may be the same address, with
    /// `memory_type` and unchanged permissions. They are mapped by pages there.
    ///
    /// 1. To memory that is not cached: lines are cleaned and invalidated through `old`. To cached
    ///    memory: `DSB SY`, so that what was stored past the caches is in memory before a core can
    ///    fetch a line.
    /// 2. `old` becomes invalid: store, `DSB ISHST`, `TLBI`, `DSB ISH`, `ISB`.
    /// 3. `new` becomes valid: store, `DSB ISHST`, `ISB`.
    /// 4. To memory that is not cached: lines are cleaned and invalidated again, through `new`, because
    ///    speculation through `old` may have refilled some between 1 and 2; `DSB SY`. No core can fetch
    ///    one any more, and nobody uses `new` before. Maintenance through it reaches all cores:
    ///    non-cacheable memory counts as outer shareable (Arm ARM D7.5.9).
    ///
    /// Architecturally the second pass is enough. The first leaves it next to nothing to write back, so
    /// that dirty data does not hang on maintenance by an address that is not cacheable.
    ///
    /// From write-back to non-cacheable the content survives but must be zeroed by the caller before
    /// a device sees it; on the way back the call has ended before the frames may return to the page
    /// allocator.
    ///
    /// # Errors
    ///
    /// Those of [`map`](Self::map) for `new` and of [`unmap`](Self::unmap) for `old`, and
    /// [`MapError::NotOneRun`] if the frames at `old` are not contiguous or differ in attributes,
    /// [`MapError::SplitsBlock`] if a block is to become pages where it is.
    /// Nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nothing refers to memory through the old mapping, no device uses the frames, and they are
    /// mapped nowhere else.
    pub unsafe fn change_type(
        &mut self,
        old: VirtAddr,
        new: VirtAddr,
        size: usize,
        memory_type: MemoryType,
    ) -> Result<(), MapError> {
        let (range, was, stride) = self.one_run(old, size)?;
        let attributes = Attributes::new(memory_type, was.access);
        if new != old {
            self.reserve(new, range, attributes)?;
        } else if stride != Level::L3 {
            let size = stride.size();
            return Err(MapError::SplitsBlock { va: old, size });
        }
        let is_cached = memory_type == MemoryType::NormalWriteBack;
        if is_cached {
            barrier::dsb_sy();
        } else {
            clean_invalidate(old, size);
        }
        self.clear(old, size)?;
        Stale::new(old, size, stride).flush();
        self.write_leaves(new, range, attributes, Level::L3, 0)?;
        publish();
        if !is_cached {
            clean_invalidate(new, size);
            barrier::dsb_sy();
        }
        Ok(())
    }

    /// The physical range and attributes behind `size` bytes at `va`, if they are one run.
    fn one_run(
        &self,
        va: VirtAddr,
        size: usize,
    ) -> Result<(PhysRange, Attributes, Level), MapError> {
        let stride = self.check_live(va, size)?;
        let first = self.leaf(va).ok_or(MapError::NotMapped(va))?;
        let attributes = first.attributes().ok_or(MapError::NotOneRun(va))?;
        let mut end = first.pa;
        self.visit(va, size, |slot| {
            if slot.descriptor.output_address() != end
                || slot.descriptor.attributes() != Some(attributes)
            {
                return Err(MapError::NotOneRun(slot.va));
            }
            end = end + slot.level.size();
            Ok(())
        })?;
        Ok((PhysRange::new(first.pa, end), attributes, stride))
    }
}

/// `DC CIVAC` for every line of the range, which is mapped; the barrier is the caller's.
fn clean_invalidate(va: VirtAddr, size: usize) {
    /// `CTR_EL0.DminLine`, bits 19:16: log2 of the words in the smallest data cache line.
    const DMIN_LINE_SHIFT: u32 = 16;
    let line = 4 << (cache::ctr_el0() >> DMIN_LINE_SHIFT & 0xF);
    for offset in (0..size).step_by(line) {
        cache::clean_invalidate_line(va + offset);
    }
}
