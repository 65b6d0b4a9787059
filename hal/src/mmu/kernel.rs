//! The kernel's own translation tree.

use super::mapper::Mapper;
use super::table::TableMemory;
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr};
use crate::layout;
use crate::sync::{IrqLock, Once};

/// The mapper of the kernel's tree.
pub type KernelMapper = Mapper<KernelTableMemory>;

static KERNEL_TABLES: Once<IrqLock<KernelMapper>> = Once::new();

/// Hands the kernel's tree over to its lock, once, on the core that boots.
///
/// # Errors
///
/// Gives `mapper` back if the tree has been handed over before.
pub fn init_kernel_tables(
    mapper: KernelMapper,
) -> Result<&'static IrqLock<KernelMapper>, KernelMapper> {
    let mut mapper = Some(mapper);
    let tables = KERNEL_TABLES.call_once(|| match mapper.take() {
        Some(mapper) => IrqLock::new(mapper),
        None => unreachable!("the closure runs at most once"),
    });
    match mapper {
        None => Ok(tables),
        Some(mapper) => Err(mapper),
    }
}

/// The kernel's tree, or `None` before [`init_kernel_tables`].
///
/// The lock is the outermost of the order documented at [`IrqLock`].
pub fn kernel_tables() -> Option<&'static IrqLock<KernelMapper>> {
    KERNEL_TABLES.get()
}

/// Tables from a reserve set aside at boot, later from the page allocator.
///
/// Freed tables are kept for the next demand and never returned: the tree shrinks rarely and
/// grows again soon.
#[derive(Debug)]
pub struct KernelTableMemory {
    /// The image's frames, which the direct map lacks, and where they are mapped instead.
    image: PhysRange,
    image_va: VirtAddr,
    /// What is left of the boot reserve.
    reserve: PhysRange,
    /// What is left of the reserve added to it.
    added: PhysRange,
    allocator: Option<fn() -> Option<Pfn>>,
    /// Head of the freed tables, each holding the next one's physical address in its first word;
    /// 0 ends the list, no table lies there.
    freed: u64,
    taken: usize,
}

impl KernelTableMemory {
    /// Tables from `reserve`, whose parts inside `image` are reached at `image_va`, the rest in the
    /// direct map.
    ///
    /// # Safety
    ///
    /// `reserve` is page-aligned RAM nobody else uses, not at physical address 0, and is mapped
    /// Normal write-back where [`virt`](TableMemory::virt) says. `image` is mapped at `image_va`.
    pub const unsafe fn new(image: PhysRange, image_va: VirtAddr, reserve: PhysRange) -> Self {
        Self {
            image,
            image_va,
            reserve,
            added: PhysRange::new(PhysAddr::new(0), PhysAddr::new(0)),
            allocator: None,
            freed: 0,
            taken: 0,
        }
    }

    /// Adds `reserve`, used up before anything else; what was left of one added earlier is
    /// forgotten.
    ///
    /// # Safety
    ///
    /// As for the reserve given to [`new`](Self::new).
    pub unsafe fn add_reserve(&mut self, reserve: PhysRange) {
        self.added = reserve;
    }

    /// From now on takes a frame from `allocator` when the reserve is used up.
    ///
    /// `allocator` is called with the tables' lock held, so it must neither block nor map.
    ///
    /// # Safety
    ///
    /// Every frame `allocator` returns is RAM in the direct map that nobody else uses.
    pub unsafe fn set_allocator(&mut self, allocator: fn() -> Option<Pfn>) {
        self.allocator = Some(allocator);
    }

    /// Tables handed out so far and not freed, the root not counted.
    pub const fn tables_in_use(&self) -> usize {
        self.taken
    }

    /// Tables that were freed and wait for the next demand.
    pub fn freed_tables(&self) -> impl Iterator<Item = PhysAddr> + '_ {
        let first = (self.freed != 0).then(|| PhysAddr::new(self.freed));
        core::iter::successors(first, |table| {
            // SAFETY: a table on the list is ours, mapped, and starts with the link.
            let next = unsafe { self.virt(*table).as_ptr::<u64>().read() };
            (next != 0).then(|| PhysAddr::new(next))
        })
    }

    fn take_allocated(&self) -> Option<PhysAddr> {
        Some(self.allocator?()?.phys())
    }

    /// Takes a freed table, if there is one.
    fn pop_freed(&mut self) -> Option<PhysAddr> {
        if self.freed == 0 {
            return None;
        }
        let table = PhysAddr::new(self.freed);
        // SAFETY: `table` was given to `free`, so it is ours, mapped, and starts with the link.
        self.freed = unsafe { self.virt(table).as_ptr::<u64>().read() };
        Some(table)
    }

    fn take_reserve(&mut self) -> Option<PhysAddr> {
        let reserves = [&mut self.added, &mut self.reserve];
        reserves.into_iter().find_map(|reserve| {
            let table = reserve.start;
            let next = table.checked_add(PAGE_SIZE)?;
            if next > reserve.end {
                return None;
            }
            reserve.start = next;
            Some(table)
        })
    }
}

// SAFETY: a frame is handed out once by the reserve or the allocator, or again after `free`; all
// are mapped where `virt` says by the contracts of `new` and `set_allocator`.
unsafe impl TableMemory for KernelTableMemory {
    fn alloc(&mut self) -> Option<PhysAddr> {
        let table = self
            .pop_freed()
            .or_else(|| self.take_reserve())
            .or_else(|| self.take_allocated())?;
        self.taken += 1;
        Some(table)
    }

    unsafe fn free(&mut self, table: PhysAddr) {
        // SAFETY: the table is ours again and mapped; nothing reads it as a table any more.
        unsafe { self.virt(table).as_ptr::<u64>().write(self.freed) };
        self.freed = table.get();
        self.taken -= 1;
    }

    #[inline]
    fn virt(&self, table: PhysAddr) -> VirtAddr {
        if self.image.contains(table) {
            self.image_va + (table.get() - self.image.start.get()) as usize
        } else {
            layout::phys_to_virt(table)
        }
    }
}

/// A tree of its own in pretended RAM, with room for `tables` tables below the root.
#[cfg(test)]
pub(crate) fn scratch_mapper(tables: usize) -> KernelMapper {
    let ram = layout::host::ram(((tables + 1) * PAGE_SIZE) as u64, PAGE_SIZE as u64);
    let root = ram.start;
    let nowhere = PhysRange::new(PhysAddr::new(0), PhysAddr::new(0));
    let reserve = PhysRange::new(root + PAGE_SIZE, ram.end);
    // SAFETY: the piece of RAM is ours alone and zeroed, which makes an empty root.
    unsafe {
        Mapper::new(
            root,
            KernelTableMemory::new(nowhere, VirtAddr::new(0), reserve),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_from_the_reserve_then_from_the_allocator() {
        fn one_frame() -> Option<Pfn> {
            Some(layout::host::ram(4096, 4096).start.pfn())
        }
        let mut mapper = scratch_mapper(1);
        let memory = mapper.memory_mut();
        let first = memory.alloc().unwrap();
        assert_eq!(memory.alloc(), None);
        // SAFETY: the frames are fresh.
        unsafe { memory.set_allocator(one_frame) };
        let second = memory.alloc().unwrap();
        assert_ne!(first, second);
        assert_eq!(memory.tables_in_use(), 2);
        // SAFETY: both were handed out above and never linked.
        unsafe {
            memory.free(first);
            memory.free(second);
        }
        assert_eq!(memory.tables_in_use(), 0);
        assert!(memory.freed_tables().eq([second, first]));
        assert_eq!(memory.alloc(), Some(second));
        assert_eq!(memory.alloc(), Some(first));
    }

    #[test]
    fn tables_in_the_image_are_reached_through_the_image_window() {
        let image = PhysRange::new(PhysAddr::new(0x4020_0000), PhysAddr::new(0x4040_0000));
        // SAFETY: nothing is allocated or read through the object.
        let memory = unsafe { KernelTableMemory::new(image, layout::IMAGE.base, image) };
        assert_eq!(
            memory.virt(PhysAddr::new(0x4020_3000)),
            layout::IMAGE.base + 0x3000
        );
        let outside = PhysAddr::new(0x4040_0000);
        assert_eq!(memory.virt(outside), layout::phys_to_virt(outside));
    }
}
