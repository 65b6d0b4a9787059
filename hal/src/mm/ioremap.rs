//! Device registers mapped for the CPU.

use super::va::{VaAllocator, VaError};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use crate::layout::IOREMAP;
use crate::mmu::{Access, Attributes, KernelMapper, Level, MapError, MemoryType};
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

/// Chunks of areas besides the built-in one: none, 62 live mappings are enough for a machine.
const CHUNKS: usize = 0;

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

/// The ioremap window of one tree.
#[derive(Debug)]
pub struct Ioremap {
    tables: &'static IrqLock<KernelMapper>,
    areas: IrqLock<VaAllocator<Backing, CHUNKS>>,
    is_ram: fn(PhysRange) -> bool,
}

impl Ioremap {
    /// The ioremap window of `tables`. `is_ram` tells whether a range holds a byte of RAM, used
    /// or not.
    pub const fn new(
        tables: &'static IrqLock<KernelMapper>,
        is_ram: fn(PhysRange) -> bool,
    ) -> Self {
        Self {
            tables,
            areas: IrqLock::new(VaAllocator::new(&IOREMAP, Backing::NONE)),
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
            let conflict = areas
                .iter()
                .map(|area| area.data)
                .find(|other| other.memory_type != memory_type && other.pages.overlaps(&pages));
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
            areas.alloc(size, align, backing)?.va
        };
        let attributes = Attributes::new(memory_type, Access::ReadWrite);
        // SAFETY: the pages are no RAM and are mapped with one memory type, as just checked;
        // nothing in this window is executable.
        let mapped = unsafe { self.tables.lock().map(va, pages, attributes, Level::L2) };
        if let Err(error) = mapped {
            self.areas.lock().free(va)?;
            return Err(error.into());
        }
        Ok(va + range.start.page_offset())
    }

    /// Removes the mapping whose first page `va` lies in: what [`ioremap`](Self::ioremap)
    /// returned. On return no core uses it.
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
        let start = va.align_down(PAGE_SIZE);
        let size = {
            let mut areas = self.areas.lock();
            match areas.get_mut(start) {
                Ok(area) if area.data.live => {
                    area.data.live = false;
                    area.size
                }
                _ => return Err(IoremapError::NotMapped(va)),
            }
        };
        // SAFETY: the area was mapped whole until now, and the caller is done with it.
        unsafe { self.tables.lock().unmap(start, size) }?;
        self.areas.lock().free(start)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
