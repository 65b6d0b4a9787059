//! Memory mapped by pages from the start, whole tables at a time.

use super::descriptor::{Attributes, Descriptor};
use super::mapper::{MapError, Mapper, check_physical, check_virtual, publish};
use super::table::{ENTRIES, Level, TableMemory};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use core::array;
use core::mem::MaybeUninit;

/// Descriptors stored in one round of a loop, by pairs.
const GROUP: usize = 16;

const _: () = assert!(ENTRIES.is_multiple_of(GROUP));

impl<M: TableMemory> Mapper<M> {
    /// Maps `range` at `va` by pages where larger leaves would fit, so that single pages may be
    /// unmapped or change their type later: a live block is never split. Both addresses and the
    /// size are multiples of what a level 3 table maps, 2 MiB.
    ///
    /// A table is filled before anything leads to it, which is several times cheaper than
    /// [`map`](Self::map).
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    ///
    /// # Safety
    ///
    /// As for [`map`](Self::map).
    pub unsafe fn map_by_pages(
        &mut self,
        va: VirtAddr,
        range: PhysRange,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        let size = range.size() as usize;
        check_physical(range)?;
        check_virtual(va, size)?;
        let covered = Level::L2.size();
        for value in [va.get(), range.start.get() as usize, size] {
            if !value.is_multiple_of(covered) {
                return Err(MapError::Misaligned(value as u64));
            }
        }
        for done in (0..size).step_by(covered) {
            if let Err(error) = self.add_table(va + done, range.start + done, attributes) {
                if done > 0 {
                    // SAFETY: the caller has not learnt of these mappings, nobody uses them.
                    unsafe { self.unmap(va, done) }?;
                }
                return Err(error);
            }
        }
        publish();
        Ok(())
    }

    /// Links a level 3 table that maps everything from `pa` on at `va`.
    fn add_table(
        &mut self,
        va: VirtAddr,
        pa: PhysAddr,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        let above = self.vacant_entry(va, pa, attributes, Level::L2)?;
        if above.0 != Level::L2 {
            // A table with pages of somebody else is there already.
            let leaf = self.leaves(va, va + Level::L2.size()).next();
            let pa = leaf.map_or(pa, |leaf| leaf.pa);
            return Err(MapError::BreakBeforeMake { va, pa });
        }
        let below = self.memory_mut().alloc().ok_or(MapError::OutOfTables(va))?;
        let table = self
            .memory_mut()
            .virt(below)
            .as_ptr::<[MaybeUninit<u64>; ENTRIES]>();
        // SAFETY: the table was just taken, is mapped, and no walker can reach it yet.
        let entries = unsafe { &mut *table };
        // The descriptors of frames that follow one another differ in the address only.
        let mut leaf = Descriptor::leaf(Level::L3, pa, attributes).raw();
        for group in entries.as_chunks_mut::<GROUP>().0 {
            *group = array::from_fn(|index| {
                MaybeUninit::new(leaf.wrapping_add((index * PAGE_SIZE) as u64))
            });
            leaf = leaf.wrapping_add((GROUP * PAGE_SIZE) as u64);
        }
        self.link(above, va, below);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmu::kernel::scratch_mapper;
    use crate::mmu::{Access, MemoryType};

    const CACHED: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);

    fn range(mib: u64) -> PhysRange {
        let start = PhysAddr::new(0x8000_0000);
        PhysRange::new(start, start + (mib as usize) * (1 << 20))
    }

    #[test]
    fn every_page_is_a_leaf_of_its_own() {
        let va = VirtAddr::new(0xFFFF_FF80_8000_0000);
        let mut mapper = scratch_mapper(3);
        // SAFETY: the tree is not in use.
        unsafe { mapper.map_by_pages(va, range(4), CACHED) }.unwrap();
        for offset in (0..4 << 20).step_by(PAGE_SIZE) {
            let leaf = mapper.leaf(va + offset).unwrap();
            assert_eq!(leaf.level, Level::L3);
            assert_eq!(leaf.pa, range(4).start + offset);
            assert_eq!(leaf.attributes(), Some(CACHED));
        }
        assert!(mapper.leaf(va + (4 << 20)).is_none());
        // SAFETY: as above.
        let again = unsafe { mapper.map_by_pages(va, range(2), CACHED) };
        assert!(again.is_err());
    }

    #[test]
    fn a_page_in_the_way_is_named_and_left_alone() {
        let va = VirtAddr::new(0xFFFF_FF80_8000_0000);
        let mut mapper = scratch_mapper(3);
        let page = PhysRange::new(range(4).end, range(4).end + PAGE_SIZE);
        // SAFETY: the tree is not in use.
        unsafe {
            mapper
                .map(va + 3 * PAGE_SIZE, page, CACHED, Level::L3)
                .unwrap();
            let refused = mapper.map_by_pages(va, range(2), CACHED);
            let pa = page.start;
            assert_eq!(refused, Err(MapError::BreakBeforeMake { va, pa }));
        }
        assert!(mapper.leaf(va).is_none());
        assert_eq!(mapper.leaf(va + 3 * PAGE_SIZE).unwrap().pa, page.start);
    }

    #[test]
    fn nothing_stays_mapped_after_a_refusal() {
        let va = VirtAddr::new(0xFFFF_FF80_8000_0000);
        let mut mapper = scratch_mapper(3);
        // SAFETY: the tree is not in use.
        unsafe {
            let refused = mapper.map_by_pages(va + PAGE_SIZE, range(2), CACHED);
            assert_eq!(
                refused,
                Err(MapError::Misaligned((va + PAGE_SIZE).get() as u64))
            );
            let refused = mapper.map_by_pages(va, range(6), CACHED);
            assert_eq!(refused, Err(MapError::OutOfTables(va + (4 << 20))));
        }
        assert!(mapper.leaf(va).is_none());
    }
}
