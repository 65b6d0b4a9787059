//! Memory that a device reads or writes: which address it is given, and who owns the bytes.
//!
//! | module | what it holds | Linux |
//! |---|---|---|
//! | [`mask`] | how many address bits a device drives | `DMA_BIT_MASK` |
//! | [`bus`] | where the CPU's memory appears on the device's bus | `dma-ranges` |
//! | [`device`] | what is known of one device | `struct device` |
//! | [`direction`] | who writes and who reads, as types | `enum dma_data_direction` |
//! | `lease` | how a device gets at one run of memory | `dma_map_phys` |
//! | [`bounce`] | memory for what a device cannot be given | swiotlb |
//! | [`maintenance`] | cache cleaning and invalidation by range | `arch_sync_dma_for_*` |
//! | [`streaming`] | one contiguous buffer lent to a device | `dma_map_single`, `dma_sync_single_*` |
//! | [`sg`] | a buffer of scattered pages lent to a device | `dma_map_sg` |
//! | [`resource`] | registers that another device is to reach | `dma_map_resource` |
//! | [`coherent`] | memory that CPU and device use together | `dma_alloc_coherent` |
//! | [`pool`] | small blocks of it | `dma_pool` |
//! | [`ring`] | descriptors in it that change hands | `dma_wmb`, `dma_rmb` |
//! | [`engine`] | devices that copy memory | `dmaengine` |
//! | [`raw`] | the same for drivers written as in C | `dma_map_single`, `dma_map_sg`, ... |
//! | [`debug`] | a record of what is mapped, and reports of what does not fit it | `CONFIG_DMA_API_DEBUG` |
//!
//! # Who owns the bytes
//!
//! A streaming buffer belongs to the device from [`map_single`](streaming::map_single) until it is
//! unmapped or synchronised for the CPU. The types follow: a [`Mapping`] gives no access to the
//! bytes, a [`CpuOwned`] does, and each is made by consuming the other. Coherent memory needs no
//! maintenance, but the CPU must still not touch what a device is working on.

use crate::addr::{DmaAddr, PhysAddr, PhysRange, VirtAddr};
use crate::mm::{AllocError, Gfp, Unlendable};
use core::fmt;

pub mod bounce;
pub mod bus;
pub mod coherent;
pub mod debug;
pub mod device;
pub mod direction;
pub mod engine;
mod lease;
pub mod maintenance;
pub mod mask;
pub mod pool;
pub mod raw;
pub mod resource;
pub mod ring;
pub mod sg;
pub mod streaming;

pub use bus::BusWindow;
pub use coherent::{Coherent, CoherentPool};
pub use device::{BadLimits, Device, SegmentLimits};
pub use direction::{Bidirectional, Direction, FromDevice, ToDevice};
pub use engine::{Clock, Completion, DmaEngine, Rectangle, Ticket, Transfer};
pub use lease::ALIGNMENT;
pub use mask::DmaMask;
pub use pool::{DmaPool, DmaPoolError, PoolBlock};
pub use ring::{Ring, Slot};
pub use sg::{ScatterList, SgMapping};
pub use streaming::{CpuOwned, Mapping, SharedMapping};

/// A contiguous run of memory as a device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaSegment {
    /// First byte.
    pub addr: DmaAddr,
    /// Bytes, never 0.
    pub len: usize,
}

/// Why memory cannot be used for DMA, or why a transfer failed.
// A whole word for the variant's number: with a byte, the words of a `Result` would be moved byte by
// byte wherever one overlaps it.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// Nothing to transfer or to allocate.
    #[error("zero length")]
    ZeroLength,
    /// The range runs past the end of the address space.
    #[error("{len:#x} bytes at {addr} wrap around the address space")]
    Wraps {
        /// First byte.
        addr: VirtAddr,
        /// Bytes.
        len: usize,
    },
    /// The memory is of a kind that streaming maps do not take.
    #[error("rejecting DMA map of {kind} at {addr}")]
    NotMappable {
        /// First byte.
        addr: VirtAddr,
        /// What lies there.
        kind: MemoryKind,
    },
    /// What was to be mapped as device registers is RAM.
    #[error("{range} holds RAM, which is no resource")]
    IsRam {
        /// The range asked for.
        range: PhysRange,
    },
    /// A page of a scattered buffer is not mapped.
    #[error("no page behind {addr}")]
    NoPage {
        /// The address without a page.
        addr: VirtAddr,
    },
    /// A scattered buffer has more physical runs than the list has room for.
    #[error("more than {capacity} segments")]
    TooManySegments {
        /// Room in the list.
        capacity: usize,
    },
    /// The device's mask or bus does not reach the memory.
    #[error("{len:#x} bytes at {addr} are out of the device's reach, which ends at {limit}")]
    OutOfReach {
        /// First byte.
        addr: PhysAddr,
        /// Bytes.
        len: usize,
        /// The last byte the device reaches.
        limit: PhysAddr,
    },
    /// With that mask the device would reach no memory.
    #[error("{device} reaches no memory with a mask of {mask:#x}")]
    MaskUnsupported {
        /// The device.
        device: &'static str,
        /// The greatest address asked for.
        mask: u64,
    },
    /// The memory was lent to another device than the one that is to use it.
    #[error("memory lent to {lent_to} in a transfer of {used_by}")]
    OtherDevice {
        /// The device it was mapped or allocated for.
        lent_to: &'static str,
        /// The engine's device.
        used_by: &'static str,
    },
    /// The CPU took a part of the mapping back and has not returned it.
    #[error("the CPU has {len:#x} bytes of the mapping, those at {addr}")]
    PartOfCpu {
        /// The device's address of the first byte.
        addr: DmaAddr,
        /// Bytes.
        len: usize,
    },
    /// The device address lies in none of the device's bus windows: it was made for another device.
    #[error("{len:#x} bytes at bus address {addr} lie in no window of the device")]
    ForeignAddress {
        /// First byte.
        addr: DmaAddr,
        /// Bytes.
        len: usize,
    },
    /// The buffer lies in a slab cache whose objects share cache lines, and the device does not
    /// snoop: invalidating it would destroy the neighbours' bytes.
    #[error("rejecting DMA map of {addr}: objects of packed cache {cache} share cache lines")]
    Packed {
        /// First byte.
        addr: VirtAddr,
        /// The cache.
        cache: &'static str,
    },
    /// The buffer lies in an object that is free. Found in the debug build only.
    #[cfg(feature = "slab-debug")]
    #[error("rejecting DMA map of {addr}: a free object of slab cache {cache}")]
    Freed {
        /// First byte.
        addr: VirtAddr,
        /// The cache.
        cache: &'static str,
    },
    /// The device would write a buffer that shares a cache line with its neighbours, whose bytes or
    /// its own would be lost, and it cannot be bounced.
    #[error("{len:#x} bytes at {addr} do not fill whole cache lines of {granule} bytes")]
    PartialLine {
        /// First byte.
        addr: VirtAddr,
        /// Bytes.
        len: usize,
        /// Bytes in the largest unit the caches write back.
        granule: usize,
    },
    /// Coherent memory as a compound page, which it cannot be: its pages have no descriptors that
    /// say so.
    #[error("coherent memory with {0}: it is no compound page")]
    Compound(Gfp),
    /// The page allocator refused.
    #[error(transparent)]
    NoMemory(#[from] AllocError),
    /// Contiguous memory could not be made non-cacheable.
    #[error("no non-cacheable memory: {0}")]
    Run(coherent::RunError),
    /// A page of the buffer is nobody's to lend to a device.
    #[error("rejecting DMA map of {addr}: {why}")]
    Unowned {
        /// The first such byte.
        addr: VirtAddr,
        /// What lies there.
        why: Unlendable,
    },
    /// The bounce pool has no free slots for the buffer.
    #[error("bounce pool exhausted: {len:#x} bytes asked, {free:#x} free")]
    BounceExhausted {
        /// Bytes of the buffer.
        len: usize,
        /// Bytes free, perhaps in smaller pieces.
        free: usize,
    },
    /// The coherent pool has no free block of the size.
    #[error("coherent pool exhausted: {size:#x} bytes asked, {free:#x} free")]
    PoolExhausted {
        /// Bytes asked for.
        size: usize,
        /// Bytes free, perhaps in smaller pieces.
        free: usize,
    },
    /// The access lies outside the allocation.
    #[error("{len:#x} bytes at offset {offset:#x} leave an allocation of {size:#x} bytes")]
    OutOfBounds {
        /// First byte.
        offset: usize,
        /// Bytes.
        len: usize,
        /// Bytes in the allocation.
        size: usize,
    },
    /// Source and destination of a copy differ in length.
    #[error("copy of {src:#x} bytes into {dst:#x}")]
    LengthMismatch {
        /// Bytes to read.
        src: usize,
        /// Bytes to write.
        dst: usize,
    },
    /// The engine copies multiples of its granule only.
    #[error("length {len:#x} is no multiple of the engine's granule {granule}")]
    LengthGranule {
        /// Bytes in the segment.
        len: usize,
        /// The engine's granule in bytes.
        granule: usize,
    },
    /// The segment is longer than the engine takes.
    #[error("segment of {len:#x} bytes, the engine takes {max:#x}")]
    SegmentTooLong {
        /// Bytes in the segment.
        len: usize,
        /// The engine's limit in bytes.
        max: usize,
    },
    /// The submission has more transfers than the engine takes at once.
    #[error("{count} transfers in one submission, the engine takes {max}")]
    TooManyTransfers {
        /// Transfers submitted.
        count: usize,
        /// The engine's limit.
        max: usize,
    },
    /// The engine copies no rectangles.
    #[error("{engine} copies no rectangles")]
    NoRectangles {
        /// The engine.
        engine: &'static str,
    },
    /// The rectangle has more rows, or longer ones, than the engine takes.
    #[error(
        "rectangle of {rows} rows of {row_len:#x} bytes, the engine takes {max_rows} of {max_row_len:#x}"
    )]
    RectangleTooLarge {
        /// Rows.
        rows: usize,
        /// Bytes in a row.
        row_len: usize,
        /// The engine's limit of rows.
        max_rows: usize,
        /// The engine's limit of bytes in a row.
        max_row_len: usize,
    },
    /// The engine is working on an earlier submission, or its result was not collected yet.
    #[error("engine busy")]
    Busy,
    /// The ticket's result was collected already.
    #[error("ticket {0} is not the engine's current one")]
    StaleTicket(u32),
    /// Waiting needs interrupts, and they are masked here.
    #[error("waiting for a transfer with interrupts masked")]
    IrqsMasked,
    /// The engine did not finish in time and was stopped.
    #[error("transfer timed out after {0} ns")]
    Timeout(u64),
    /// The transfer was stopped on request.
    #[error("transfer aborted")]
    Aborted,
    /// The engine reported a failed transfer.
    #[error("transfer failed, error flags {flags:#x}")]
    Bus {
        /// The engine's error bits, as its register holds them.
        flags: u32,
    },
    /// The engine could not be stopped and may still access memory. It takes nothing more; edu, whose
    /// step under way cannot be broken off, until that has ended.
    #[error("engine does not stop")]
    Wedged,
    /// The device does not answer any more: it was unplugged, lost its power, or had its registers
    /// taken off the bus. What it was doing has had its time to end; it accesses no memory.
    #[error("device gone")]
    Gone,
}

/// What lies at an address that a streaming map refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// The vmalloc window: contiguous for the CPU only.
    Vmalloc,
    /// The coherent window: already shared with devices, never to be maintained.
    Coherent,
    /// The ioremap window: device registers.
    Ioremap,
    /// The image window: text, read-only data, statics or a stack.
    Image,
    /// The window of temporary mappings: gone before a device is done.
    Temporary,
    /// Anything else outside the direct map.
    Unmapped,
}

impl MemoryKind {
    /// What lies at `va`, or `None` for the direct map.
    pub(crate) fn outside_direct_map(va: VirtAddr) -> Option<Self> {
        use crate::layout::{COHERENT, IMAGE, IOREMAP, KMAP, VMALLOC, virt_to_phys};

        if virt_to_phys(va).is_some() {
            return None;
        }
        let named = [
            (VMALLOC, Self::Vmalloc),
            (COHERENT, Self::Coherent),
            (IOREMAP, Self::Ioremap),
            (IMAGE, Self::Image),
            (KMAP, Self::Temporary),
        ];
        let kind = named.iter().find(|(window, _)| window.contains(va));
        Some(kind.map_or(Self::Unmapped, |&(_, kind)| kind))
    }
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmalloc => "vmalloc memory",
            Self::Coherent => "coherent memory",
            Self::Ioremap => "device registers",
            Self::Image => "image memory (text, data or stack)",
            Self::Temporary => "a temporary mapping",
            Self::Unmapped => "unmapped memory",
        })
    }
}
