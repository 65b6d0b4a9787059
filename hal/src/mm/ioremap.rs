//! Device registers mapped for the CPU.
//!
//! As in [`vmalloc`](super::Vmalloc), an unmapped area waits for a TLB flush that it shares with
//! others. Until then it counts as mapped where memory types are compared, and its addresses are
//! not given out again.

mod resource;

pub use resource::{Resource, ResourceError, claimed_regions, request_mem_region};

use super::va::{AreaId, VaAllocator, VaError};
use super::vmalloc::{AreaInfo, AreaKind};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use crate::layout::IOREMAP;
use crate::mmu::{
    Access, Attributes, KernelMapper, Level, MapError, MemoryType, Quarantine, Stale,
};
use crate::sync::IrqLock;

/// How device memory is mapped. Never cached, never executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoKind {
    /// Device-nGnRE, the default (`ioremap`): a write may be acknowledged before it arrives.
    #[default]
    Posted,
    /// Device-nGnRnE (`ioremap_np`): a write is acknowledged by its target.
    NonPosted,
    /// Normal non-cacheable (`ioremap_wc`): for frame buffers and the like; writes are gathered
    /// and unaligned access is legal.
    WriteCombining,
}

impl IoKind {
    /// The memory type the kind is mapped as.
    pub const fn memory_type(self) -> MemoryType {
        match self {
            Self::Posted => MemoryType::DeviceNgnre,
            Self::NonPosted => MemoryType::DeviceNgnrne,
            Self::WriteCombining => MemoryType::NormalNonCacheable,
        }
    }
}

/// Why device memory was not mapped or unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoremapError {
    /// The range is empty, or its end lies below its start.
    #[error("{0} is empty or wraps around")]
    BadRange(PhysRange),
    /// A page of the range is RAM, which is mapped cached elsewhere.
    #[error("{0} holds RAM")]
    IsRam(PhysRange),
    /// A page of the range is mapped already with another memory type.
    #[error("{range} is already mapped as {memory_type}")]
    OtherType {
        /// The pages mapped already.
        range: PhysRange,
        /// Their type.
        memory_type: MemoryType,
    },
    /// Another driver has claimed some of the registers.
    #[error(transparent)]
    Claimed(#[from] ResourceError),
    /// The address is not in a page that `ioremap` returned the start of.
    #[error("{0} is not an ioremap address")]
    NotMapped(VirtAddr),
    /// The window is not set up yet.
    #[error("ioremap is not set up yet")]
    NotReady,
    /// No addresses or descriptors are left.
    #[error(transparent)]
    Addresses(#[from] VaError),
    /// The tables could not be changed.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Chunks of areas besides the built-in one: none, 62 mappings are enough for a machine.
const CHUNKS: usize = 0;

/// Areas that may wait for a flush. Few, because they are areas the machine lacks meanwhile, and
/// so that the call that flushes stays short.
const LAZY_AREAS: usize = 8;

/// What an area maps. It counts from before the first leaf is written until the TLBs have forgotten
/// the last, so that no page ever has two types.
#[derive(Clone, Copy, Debug)]
struct Backing {
    pages: PhysRange,
    memory_type: MemoryType,
    /// Cleared when the area is being taken down.
    live: bool,
}

impl Backing {
    const NONE: Self = Self {
        pages: PhysRange::new(PhysAddr::new(0), PhysAddr::new(0)),
        memory_type: MemoryType::DeviceNgnre,
        live: false,
    };
}

/// The areas of a window, and those that wait for a flush.
#[derive(Debug)]
struct Areas {
    va: VaAllocator<Backing, CHUNKS>,
    quarantine: Quarantine<AreaId, LAZY_AREAS>,
    /// How many of the areas have each memory type.
    count: [usize; MemoryType::ALL.len()],
}

impl Areas {
    /// An area with another type that has a page of `pages`, if there is one.
    #[inline(always)]
    fn other_type(&self, pages: PhysRange, memory_type: MemoryType) -> Option<Backing> {
        let all: usize = self.count.iter().sum();
        if self.count[memory_type as usize] == all {
            return None;
        }
        let mut backings = self.va.iter().map(|area| area.data);
        backings.find(|other| other.memory_type != memory_type && other.pages.overlaps(&pages))
    }

    /// Takes `size` bytes of addresses for `backing`, and counts it.
    #[inline(always)]
    fn reserve(
        &mut self,
        size: usize,
        align: usize,
        backing: Backing,
    ) -> Result<VirtAddr, VaError> {
        let reserved = match self.va.alloc(size, align, backing) {
            Err(_) if self.quarantine.stale() > 0 => {
                self.purge();
                self.va.alloc(size, align, backing)
            }
            reserved => reserved,
        };
        let va = reserved?.va;
        self.count[backing.memory_type as usize] += 1;
        Ok(va)
    }

    /// Gives addresses back that no TLB holds.
    fn release(&mut self, va: VirtAddr) -> Result<(), VaError> {
        let freed = self.va.free(va)?;
        self.count[freed.data.memory_type as usize] -= 1;
        Ok(())
    }

    /// Puts the area that starts where `stale` does in quarantine; flushes when it is full.
    #[inline]
    fn quarantine(&mut self, stale: Stale, area: AreaId) {
        // There is room: a full quarantine is emptied below.
        let refused = self.quarantine.push(stale, area);
        debug_assert_eq!(refused, Ok(()));
        if self.quarantine.is_full() {
            self.purge();
        }
    }

    /// Flushes what waits and gives its addresses back; at most [`LAZY_AREAS`].
    fn purge(&mut self) {
        self.quarantine.flush();
        while let Some((_, area)) = self.quarantine.pop() {
            // The areas in quarantine are nobody else's to free.
            if let Some(freed) = self.va.free_id(area) {
                self.count[freed.memory_type as usize] -= 1;
            }
        }
    }
}

/// The ioremap window of one tree.
#[derive(Debug)]
pub struct Ioremap {
    tables: &'static IrqLock<KernelMapper>,
    areas: IrqLock<Areas>,
    is_ram: fn(PhysRange) -> bool,
}

impl Ioremap {
    /// The ioremap window of `tables`. `is_ram` tells whether a range holds a byte of RAM, used
    /// or not.
    ///
    /// # Safety
    ///
    /// Nothing else maps or unmaps anything in this window of `tables`, and `is_ram` tells the
    /// truth.
    pub const unsafe fn new(
        tables: &'static IrqLock<KernelMapper>,
        is_ram: fn(PhysRange) -> bool,
    ) -> Self {
        Self {
            tables,
            areas: IrqLock::new(Areas {
                va: VaAllocator::new(&IOREMAP, Backing::NONE),
                quarantine: Quarantine::new(),
                count: [0; MemoryType::ALL.len()],
            }),
            is_ram,
        }
    }

    /// Maps the device memory `range`, which need not be aligned, and returns the address of its
    /// first byte. Readable and writable.
    ///
    /// Does not block; may be called in any context that may take the locks of the kernel's tables
    /// and of the areas.
    ///
    /// # Errors
    ///
    /// See [`IoremapError`]. Mapping the same pages twice is fine as long as the kind is the same.
    pub fn ioremap(&self, range: PhysRange, kind: IoKind) -> Result<VirtAddr, IoremapError> {
        if range.is_empty() {
            return Err(IoremapError::BadRange(range));
        }
        let start = range.start.align_down(PAGE_SIZE);
        let end = range.end.checked_add(PAGE_SIZE - 1);
        let end = end.ok_or(IoremapError::BadRange(range))?;
        let pages = PhysRange::new(start, end.align_down(PAGE_SIZE));
        if (self.is_ram)(pages) {
            return Err(IoremapError::IsRam(range));
        }
        let memory_type = kind.memory_type();
        let size = usize::try_from(pages.size()).map_err(|_| IoremapError::BadRange(range))?;
        let block = Level::L2.size();
        let align = if size >= block && start.is_aligned(block) {
            block
        } else {
            PAGE_SIZE
        };

        let va = {
            let mut areas = self.areas.lock();
            let mut conflict = areas.other_type(pages, memory_type);
            if conflict.is_some_and(|other| !other.live) {
                areas.purge();
                conflict = areas.other_type(pages, memory_type);
            }
            if let Some(other) = conflict {
                return Err(IoremapError::OtherType {
                    range: other.pages,
                    memory_type: other.memory_type,
                });
            }
            let backing = Backing {
                pages,
                memory_type,
                live: true,
            };
            areas.reserve(size, align, backing)?
        };
        let attributes = Attributes::new(memory_type, Access::ReadWrite);
        // SAFETY: the pages are no RAM and are mapped with one memory type, as just checked;
        // nothing in this window is executable.
        let mapped = unsafe {
            self.tables
                .lock()
                .map_untraced(va, pages, attributes, Level::L2)
        };
        if let Err(error) = mapped {
            self.areas.lock().release(va)?;
            return Err(error.into());
        }
        Ok(va + range.start.page_offset())
    }

    /// Removes the mapping whose first page `va` lies in: what [`ioremap`](Self::ioremap)
    /// returned. Linux: `iounmap`.
    ///
    /// The tables are changed on return; TLBs are flushed by a later call, before a page is mapped
    /// with another type, or by [`vm_unmap_aliases`](Self::vm_unmap_aliases).
    ///
    /// Context as for [`ioremap`](Self::ioremap).
    ///
    /// # Errors
    ///
    /// [`IoremapError::NotMapped`]: a wrong or second call changes nothing.
    ///
    /// # Safety
    ///
    /// No pointer to the mapping is used any more.
    pub unsafe fn iounmap(&self, va: VirtAddr) -> Result<(), IoremapError> {
        let mut stale = Stale::empty(va.align_down(PAGE_SIZE));
        let mut tables = self.tables.lock();
        let mut areas = self.areas.lock();
        let refused = IoremapError::NotMapped(va);
        let (id, size, backing) = areas.va.lookup(stale.va()).ok_or(refused)?;
        if !backing.live {
            return Err(refused);
        }
        backing.live = false;
        // SAFETY: the area was mapped whole until now, and the caller is done with it.
        unsafe { tables.retire(&mut stale, size) }?;
        areas.quarantine(stale, id);
        Ok(())
    }

    /// Flushes what was unmapped: on return no core uses an address given back before the call.
    /// May be called in any context that may take the lock of the areas.
    pub fn vm_unmap_aliases(&self) {
        let mut areas = self.areas.lock();
        areas.purge();
        areas.va.compact();
    }

    /// The first area that starts at or after `va`, unmapped ones that wait for their flush
    /// included.
    pub fn area_from(&self, va: VirtAddr) -> Option<AreaInfo> {
        let area = self.areas.lock().va.first_from(va)?;
        let kind = AreaKind::Ioremap;
        Some(AreaInfo::new(
            self.tables,
            area.va,
            area.size,
            kind,
            !area.data.live,
        ))
    }
}

#[cfg(test)]
mod tests;
