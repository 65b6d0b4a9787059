//! Which physical memory there is while booting, and who has it.
//!
//! The map is built once, from a device tree [`Description`] or, where that lies, from what the
//! board has built in. Until the frame allocator exists it also hands out memory
//! ([`MemoryMap::allocate`]): the coherent pool, the frame descriptors and the page tables come
//! from here. Afterwards every range of [`MemoryMap::free_ranges`] belongs to the frame allocator.
//!
//! Invariants, whatever was fed in:
//!
//! * RAM ranges are sorted, page aligned, not empty, apart from each other, below
//!   [`DIRECT_MAP_LIMIT`] and clear of the board's device windows.
//! * The image, the device tree, the initial RAM disk and everything allocated lie in RAM and share
//!   no byte with each other.

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::devicetree::{Description, EnableMethod};
use crate::layout::DIRECT_MAP_LIMIT;
use core::fmt;
use heapless::Vec;
use thiserror::Error;

mod gaps;

pub use gaps::Gaps;

/// RAM ranges a map holds.
pub const MAX_RAM: usize = crate::devicetree::MAX_RAM_RANGES;
/// Reserved ranges a map holds.
pub const MAX_RESERVED: usize = 64;
/// Notes a map holds: at most two for each range given.
pub const MAX_NOTES: usize = 2 * MAX_RAM;

/// Bytes of a spin table's release word (Linux `Documentation/arch/arm64/booting.rst`).
const RELEASE_WORD_SIZE: u64 = 8;

/// Why a range of RAM is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedKind {
    /// The running program.
    Image,
    /// The device tree blob.
    DeviceTree,
    /// The initial RAM disk.
    Initrd,
    /// Set aside by the firmware; may be mapped.
    Firmware,
    /// Set aside by the firmware and not to be mapped.
    NoMap,
    /// A word secondary cores wait on.
    SpinTable,
    /// The pool of Normal non-cacheable memory.
    CoherentPool,
    /// A contiguous memory area, whose pages the page allocator lends meanwhile.
    Cma,
    /// The page frame descriptors.
    FrameDescriptors,
    /// Translation tables made while booting.
    Tables,
}

impl ReservedKind {
    /// Whether the memory has its place in the direct map.
    pub const fn is_in_direct_map(self) -> bool {
        !matches!(self, Self::Image | Self::NoMap | Self::CoherentPool)
    }

    /// Whether the memory has its place in the direct map and never changes its type, so that it
    /// may be mapped by blocks.
    pub const fn is_in_blocks(self) -> bool {
        self.is_in_direct_map() && !matches!(self, Self::Cma)
    }

    /// Whether the range was named by the firmware and so need not be part of RAM.
    const fn is_external(self) -> bool {
        matches!(self, Self::Firmware | Self::NoMap | Self::SpinTable)
    }

    /// Whether the memory was left for the program by whoever started it.
    pub const fn is_given(self) -> bool {
        matches!(self, Self::DeviceTree | Self::Initrd | Self::Firmware)
    }

    /// Whether a range of this kind may overlap one of kind `other`. Firmware describes one thing
    /// in several ways, and reserves what it loaded.
    fn may_share(self, other: Self) -> bool {
        let loaded = |kind| matches!(kind, Self::DeviceTree | Self::Initrd);
        (self.is_external() && other.is_external())
            || (self == Self::Firmware && loaded(other))
            || (other == Self::Firmware && loaded(self))
    }
}

impl fmt::Display for ReservedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::DeviceTree => "device tree",
            Self::Initrd => "initrd",
            Self::Firmware => "firmware",
            Self::NoMap => "no-map",
            Self::SpinTable => "spin table",
            Self::CoherentPool => "coherent pool",
            Self::Cma => "contiguous memory area",
            Self::FrameDescriptors => "frame descriptors",
            Self::Tables => "page tables",
        })
    }
}

/// A range that is not free. It need not be page aligned; every page it touches is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Where it is.
    pub range: PhysRange,
    /// What it holds.
    pub kind: ReservedKind,
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.range)
    }
}

/// What a board knows about its memory without being told.
#[derive(Clone, Copy, Debug)]
pub struct BoardMemory<'a> {
    /// RAM every machine of this kind has; used when there is no credible device tree.
    pub ram: &'a [PhysRange],
    /// RAM that is never ours, whatever a device tree says.
    pub reserved: &'a [Reserved],
    /// Where devices are; RAM there is a lie.
    pub devices: &'a [PhysRange],
}

/// Something in the description of RAM that was put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A range of RAM without a byte in it was ignored.
    Empty(PhysAddr),
    /// A range of RAM does not begin and end on a page; the edges were cut off.
    Trimmed(PhysRange),
    /// RAM the direct map has no place for was ignored.
    AboveLimit(PhysRange),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(start) => write!(f, "empty RAM range at {start} ignored"),
            Self::Trimmed(range) => write!(f, "RAM {range} trimmed to whole pages"),
            Self::AboveLimit(range) => {
                write!(f, "RAM {range} ignored: at or above {DIRECT_MAP_LIMIT}")
            }
        }
    }
}

/// Why a map cannot be built, or memory not be taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    /// No usable RAM at all.
    #[error("no RAM")]
    NoRam,
    /// Two ranges of RAM overlap.
    #[error("RAM {0} overlaps RAM {1}")]
    RamOverlap(PhysRange, PhysRange),
    /// RAM where the board has devices.
    #[error("RAM {ram} overlaps devices at {device}")]
    RamOverDevice {
        /// The RAM.
        ram: PhysRange,
        /// The board's device window.
        device: PhysRange,
    },
    /// More than [`MAX_RAM`] ranges of RAM or [`MAX_RESERVED`] reserved ones.
    #[error("more than {0} ranges")]
    TooMany(usize),
    /// The range should lie in RAM and does not.
    #[error("{0} is not in RAM")]
    OutsideRam(Reserved),
    /// A reserved range holds no byte.
    #[error("{0} is empty")]
    Empty(Reserved),
    /// Two ranges share bytes that can belong to one of them only.
    #[error("{0} overlaps {1}")]
    Overlap(Reserved, Reserved),
    /// No free range satisfies the request.
    #[error("no {size:#x} free bytes aligned to {align:#x} below {below}")]
    NoSpace {
        /// Bytes asked for.
        size: usize,
        /// Alignment asked for.
        align: usize,
        /// The limit asked for.
        below: PhysAddr,
    },
    /// The size is zero or wraps, or the alignment is no power of two.
    #[error("{size:#x} bytes aligned to {align:#x} is no request")]
    BadRequest {
        /// Bytes asked for.
        size: usize,
        /// Alignment asked for.
        align: usize,
    },
}

/// The physical memory and its owners.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    ram: Vec<PhysRange, MAX_RAM>,
    reserved: Vec<Reserved, MAX_RESERVED>,
    notes: Vec<Note, MAX_NOTES>,
}

impl MemoryMap {
    /// The map a device tree describes. `image` is the running program with its zero-initialised
    /// data and stacks, `blob` the device tree itself.
    ///
    /// # Errors
    ///
    /// Any lie the values give away; the caller goes on with [`from_board`](Self::from_board).
    pub fn from_description(
        description: &Description<'_>,
        board: &BoardMemory<'_>,
        image: PhysRange,
        blob: PhysRange,
    ) -> Result<Self, MapError> {
        let mut map = Self::with_ram(&description.ram, board, image)?;
        for entry in &description.reserved {
            let kind = match entry.no_map {
                true => ReservedKind::NoMap,
                false => ReservedKind::Firmware,
            };
            // Firmware leaves entries it has no use for empty.
            if !entry.range.is_empty() {
                map.reserve(entry.range, kind)?;
            }
        }
        map.reserve(blob, ReservedKind::DeviceTree)?;
        if let Some(initrd) = description.initrd {
            map.reserve(initrd, ReservedKind::Initrd)?;
        }
        for cpu in &description.cpus {
            if let EnableMethod::SpinTable { release } = cpu.enable_method {
                // A release word is aligned to its size, so it cannot wrap.
                let word = PhysRange::from_size(release, RELEASE_WORD_SIZE)
                    .unwrap_or(PhysRange::new(release, release));
                map.reserve(word, ReservedKind::SpinTable)?;
            }
        }
        Ok(map)
    }

    /// The map the board has built in.
    ///
    /// # Errors
    ///
    /// As [`from_description`](Self::from_description); here an error is a mistake in the board's
    /// constants or in where the image was loaded.
    pub fn from_board(board: &BoardMemory<'_>, image: PhysRange) -> Result<Self, MapError> {
        Self::with_ram(board.ram, board, image)
    }

    fn with_ram(
        ram: &[PhysRange],
        board: &BoardMemory<'_>,
        image: PhysRange,
    ) -> Result<Self, MapError> {
        let mut map = Self::default();
        for &range in ram {
            map.add_ram(range, board.devices)?;
        }
        if map.ram.is_empty() {
            return Err(MapError::NoRam);
        }
        map.reserve(image, ReservedKind::Image)?;
        for entry in board.reserved {
            map.reserve(entry.range, entry.kind)?;
        }
        Ok(map)
    }

    /// RAM, by address.
    pub fn ram(&self) -> &[PhysRange] {
        &self.ram
    }

    /// What is taken, by address.
    pub fn reserved(&self) -> &[Reserved] {
        &self.reserved
    }

    /// What was put right while the map was built.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Bytes of RAM, taken or not.
    pub fn ram_size(&self) -> u64 {
        self.ram.iter().map(PhysRange::size).sum()
    }

    /// RAM nobody has, page aligned, by address.
    pub fn free_ranges(&self) -> Gaps<'_> {
        Gaps::new(&self.ram, &self.reserved, |_| true)
    }

    /// RAM that has its place in the direct map, page aligned, by address.
    pub fn direct_map_ranges(&self) -> Gaps<'_> {
        Gaps::new(&self.ram, &self.reserved, |kind| !kind.is_in_direct_map())
    }

    /// RAM that the direct map has in leaves as large as they get, page aligned, by address: all of
    /// [`direct_map_ranges`](Self::direct_map_ranges) but the contiguous memory areas.
    pub fn block_ranges(&self) -> Gaps<'_> {
        Gaps::new(&self.ram, &self.reserved, |kind| !kind.is_in_blocks())
    }

    /// The contiguous memory areas, by address.
    pub fn cma_ranges(&self) -> impl Iterator<Item = PhysRange> {
        let areas = self.reserved.iter();
        areas
            .filter(|entry| entry.kind == ReservedKind::Cma)
            .map(|entry| entry.range)
    }

    /// Takes `range` out of the free memory.
    ///
    /// # Errors
    ///
    /// `Empty`, `Overlap`, `TooMany`, and `OutsideRam` for everything but what firmware set aside.
    pub fn reserve(&mut self, range: PhysRange, kind: ReservedKind) -> Result<(), MapError> {
        let new = Reserved { range, kind };
        if range.is_empty() {
            return Err(MapError::Empty(new));
        }
        if !kind.is_external() && !self.ram.iter().any(|ram| ram.contains_range(&range)) {
            return Err(MapError::OutsideRam(new));
        }
        if let Some(&old) = self
            .reserved
            .iter()
            .find(|old| old.range.overlaps(&range) && !kind.may_share(old.kind))
        {
            return Err(MapError::Overlap(new, old));
        }
        let at = self
            .reserved
            .partition_point(|old| old.range.start <= range.start);
        self.reserved
            .insert(at, new)
            .map_err(|_| MapError::TooMany(MAX_RESERVED))
    }

    /// Takes the highest free memory of `size` bytes, rounded up to pages, that starts at a
    /// multiple of `align` (at least a page) and ends at or below `below`. Its content is
    /// whatever it was.
    ///
    /// # Errors
    ///
    /// `BadRequest`, `NoSpace` or `TooMany`.
    pub fn allocate(
        &mut self,
        size: usize,
        align: usize,
        below: Option<PhysAddr>,
        kind: ReservedKind,
    ) -> Result<PhysRange, MapError> {
        let pages = size.checked_next_multiple_of(PAGE_SIZE);
        let bytes = pages
            .filter(|&bytes| bytes != 0 && align.is_power_of_two())
            .ok_or(MapError::BadRequest { size, align })?;
        let below = below.unwrap_or(DIRECT_MAP_LIMIT);
        let range = self
            .find(bytes, align, PhysRange::new(PhysAddr::new(0), below))
            .ok_or(MapError::NoSpace { size, align, below })?;
        self.reserve(range, kind)?;
        Ok(range)
    }

    /// The highest free range of `size` bytes, whole pages, in `within` that starts at a multiple of
    /// `align`, a power of two of at least a page.
    pub fn find(&self, size: usize, align: usize, within: PhysRange) -> Option<PhysRange> {
        if size == 0 || !align.is_power_of_two() {
            return None;
        }
        let highest_fit = |gap: PhysRange| {
            let end = gap.end.min(within.end);
            let start = end.get().checked_sub(size as u64).map(PhysAddr::new)?;
            let start = start.align_down(align.max(PAGE_SIZE));
            (start >= gap.start.max(within.start)).then_some(start)
        };
        let start = self.free_ranges().filter_map(highest_fit).last()?;
        PhysRange::from_size(start, size as u64)
    }

    /// Adds a range of RAM after cutting it to what can be used.
    fn add_ram(&mut self, given: PhysRange, devices: &[PhysRange]) -> Result<(), MapError> {
        if given.is_empty() {
            return self.note(Note::Empty(given.start));
        }
        let mut ram = given;
        if ram.end > DIRECT_MAP_LIMIT {
            let cut = ram.start.max(DIRECT_MAP_LIMIT);
            self.note(Note::AboveLimit(PhysRange::new(cut, ram.end)))?;
            ram.end = DIRECT_MAP_LIMIT;
        }
        if ram.is_empty() {
            return Ok(());
        }
        // No overflow: the range ends at or below the limit.
        let whole = PhysRange::new(
            (ram.start + (PAGE_SIZE - 1)).align_down(PAGE_SIZE),
            ram.end.align_down(PAGE_SIZE),
        );
        if whole != ram {
            self.note(Note::Trimmed(given))?;
        }
        if let Some(&device) = devices.iter().find(|device| device.overlaps(&ram)) {
            return Err(MapError::RamOverDevice { ram, device });
        }
        if let Some(&other) = self.ram.iter().find(|other| other.overlaps(&ram)) {
            return Err(MapError::RamOverlap(ram, other));
        }
        if whole.is_empty() {
            return Ok(());
        }
        self.insert_ram(whole)
    }

    /// Inserts a range that overlaps none, merging it with those it touches.
    fn insert_ram(&mut self, mut new: PhysRange) -> Result<(), MapError> {
        self.ram.retain(|old| {
            if old.end == new.start {
                new.start = old.start;
                false
            } else if old.start == new.end {
                new.end = old.end;
                false
            } else {
                true
            }
        });
        let at = self.ram.partition_point(|old| old.start < new.start);
        self.ram
            .insert(at, new)
            .map_err(|_| MapError::TooMany(MAX_RAM))
    }

    fn note(&mut self, note: Note) -> Result<(), MapError> {
        self.notes
            .push(note)
            .map_err(|_| MapError::TooMany(MAX_NOTES))
    }
}

#[cfg(test)]
mod tests;
