//! What is in the window, as `/proc/vmallocinfo` shows it.

use super::{PageSource, State, Vmalloc, VmallocError};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr};
use crate::mmu::{KernelMapper, Level, MemoryType};
use crate::sync::IrqLock;
use core::fmt;

/// Where an area came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaKind {
    /// `vmalloc` and its relatives: the frames are the area's.
    Vmalloc,
    /// `vmap`: the frames are somebody else's.
    Vmap,
    /// `ioremap`: device registers.
    Ioremap,
}

impl AreaKind {
    /// An error naming where the area at `va` came from, unless that is `wanted`.
    pub(super) fn expect(self, wanted: Self, va: VirtAddr) -> Result<(), VmallocError> {
        if self == wanted {
            Ok(())
        } else {
            Err(VmallocError::WrongKind { va, kind: self })
        }
    }
}

impl fmt::Display for AreaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Vmalloc => "vmalloc",
            Self::Vmap => "vmap",
            Self::Ioremap => "ioremap",
        })
    }
}

/// One area, as a row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaInfo {
    /// First address.
    pub va: VirtAddr,
    /// Bytes, without the guard page.
    pub size: usize,
    /// Where it came from.
    pub kind: AreaKind,
    /// Whether it was freed and waits for its flush.
    pub freed: bool,
    /// Blocks of 2 MiB it is mapped by.
    pub blocks: usize,
    /// The first byte behind it and how it is mapped, if it is.
    pub first: Option<(PhysAddr, MemoryType)>,
}

impl AreaInfo {
    /// Looks `va` up in the tables, whose lock is taken once per 2 MiB.
    pub(in crate::mm) fn new(
        tables: &IrqLock<KernelMapper>,
        va: VirtAddr,
        size: usize,
        kind: AreaKind,
        freed: bool,
    ) -> Self {
        let first = tables.lock().leaf(va);
        let blocks = (0..size).step_by(Level::L2.size()).filter(|offset| {
            let leaf = tables.lock().leaf(va + *offset);
            leaf.is_some_and(|leaf| leaf.level == Level::L2)
        });
        Self {
            va,
            size,
            kind,
            freed,
            blocks: blocks.count(),
            first: first.and_then(|leaf| Some((leaf.translate(va)?, leaf.memory_type()?))),
        }
    }

    /// First address after the area: its guard page.
    pub fn end(&self) -> VirtAddr {
        self.va + self.size
    }
}

impl fmt::Display for AreaInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { va, size, kind, .. } = self;
        write!(f, "{va}-{} {size:>9} {kind:<7}", self.end())?;
        write!(f, " pages={} blocks={}", size / PAGE_SIZE, self.blocks)?;
        if let Some((pa, memory_type)) = self.first {
            write!(f, " phys={pa} {memory_type}")?;
        }
        if self.freed {
            f.write_str(" unpurged")?;
        }
        Ok(())
    }
}

/// How the lazy purge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeInfo {
    /// Areas that wait for a flush.
    pub areas: usize,
    /// Bytes of address space they have.
    pub bytes: usize,
    /// Bytes that may wait; more bring the flush.
    pub limit: usize,
    /// Flushes so far.
    pub flushes: u64,
    /// Areas that were freed where they could not be taken down, and have not been yet.
    pub deferred: usize,
}

/// What a window holds, in sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmallocUsage {
    /// Areas in use.
    pub areas: usize,
    /// Bytes they have, without guard pages.
    pub bytes: usize,
    /// Bytes of the areas that were freed and wait for a flush.
    pub unpurged: usize,
}

impl<P: PageSource> Vmalloc<P> {
    /// What the window holds; `None` while somebody changes that, so that a failure inside such a
    /// change can be reported too. Any context; takes time in proportion to the areas.
    pub fn usage(&self) -> Option<VmallocUsage> {
        let all = self.areas.try_lock()?;
        let live = all.va.iter().filter(|area| area.data.state == State::Live);
        let (areas, bytes) = live.fold((0, 0), |(areas, bytes), area| {
            (areas + 1, bytes + area.size)
        });
        let unpurged = all.quarantine.stale_bytes();
        Some(VmallocUsage {
            areas,
            bytes,
            unpurged,
        })
    }

    /// The first area that starts at or after `va`, freed ones that wait for their flush included.
    /// Call it with the end of one area for the next. Linux: `/proc/vmallocinfo`.
    #[doc(alias = "vmallocinfo")]
    pub fn area_from(&self, va: VirtAddr) -> Option<AreaInfo> {
        let area = self.areas.lock().va.first_from(va)?;
        let freed = area.data.state != State::Live;
        let kind = area.data.kind;
        Some(AreaInfo::new(self.tables, area.va, area.size, kind, freed))
    }

    /// What waits for a flush.
    pub fn purge_info(&self) -> PurgeInfo {
        let areas = self.areas.lock();
        PurgeInfo {
            areas: areas.quarantine.stale(),
            bytes: areas.quarantine.stale_bytes(),
            limit: areas.limit,
            flushes: areas.flushes,
            deferred: areas
                .va
                .iter()
                .filter(|area| area.data.state == State::Deferred)
                .count(),
        }
    }

    /// Pages of the areas that were freed and still have their frames: those that `vfree` was given
    /// where it could not take them down, those that wait for a flush and those that were flushed.
    pub fn pages_put_off(&self) -> usize {
        let areas = self.areas.lock();
        let reaping = areas.reaping.as_ref().map_or(0, |area| area.rest.size());
        let departing = areas.departing.as_ref().map_or(0, |area| area.size);
        let bytes = areas.quarantine.bytes() + reaping + departing;
        areas.deferred_pages + (bytes >> PAGE_SHIFT)
    }
}
