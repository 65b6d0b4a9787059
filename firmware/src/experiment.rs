//! The experiment's vocabulary: what can go wrong with DMA, with which memory, and what a run saw of
//! it. What provokes it is in the suite of the same name; `docs/coherency.md` explains each hazard.

mod cell;
mod crossover;
mod table;

pub use cell::{Cell, Direction, Evidence, Finding, How, Observed};
pub use crossover::Crossover;
pub use table::{Sheet, WIDTH};

/// What can go wrong between the CPU's stores and the device's, numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hazard {
    /// The device reads RAM while the new bytes are still in a cache.
    DirtyLine = 1,
    /// The CPU reads a line it fetched before the device wrote RAM.
    StaleLine,
    /// A dirty line is evicted over what the device wrote.
    Eviction,
    /// A neighbour shares the buffer's first or last line.
    SharedLine,
    /// The CPU fetches lines while the device still writes.
    Prefetch,
    /// A frame has two mappings of different types.
    MismatchedAlias,
    /// The device is started before the stores it relies on are complete.
    MissingBarrier,
    /// The pages of a buffer are apart in RAM.
    Scattered,
    /// The memory lies beyond the address bits that the device drives.
    BeyondMask,
    /// The memory is freed or touched while the device owns it.
    TouchedWhileOwned,
}

impl Hazard {
    /// Every hazard.
    pub const ALL: [Self; 10] = [
        Self::DirtyLine,
        Self::StaleLine,
        Self::Eviction,
        Self::SharedLine,
        Self::Prefetch,
        Self::MismatchedAlias,
        Self::MissingBarrier,
        Self::Scattered,
        Self::BeyondMask,
        Self::TouchedWhileOwned,
    ];

    /// Its number, which a report calls `H1` to `H10`.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What it is, for the legend.
    pub const fn title(self) -> &'static str {
        match self {
            Self::DirtyLine => "dirty line not cleaned",
            Self::StaleLine => "stale line not invalidated",
            Self::Eviction => "dirty line evicted over device data",
            Self::SharedLine => "neighbours in one line",
            Self::Prefetch => "prefetch during the transfer",
            Self::MismatchedAlias => "mismatched alias",
            Self::MissingBarrier => "no barrier before the doorbell",
            Self::Scattered => "not physically contiguous",
            Self::BeyondMask => "outside the device's mask",
            Self::TouchedWhileOwned => "freed or touched while the device owns it",
        }
    }

    /// The directions in which it is provoked.
    pub const fn directions(self) -> &'static [Direction] {
        match self {
            Self::DirtyLine => &[Direction::ToDevice],
            Self::StaleLine | Self::Eviction | Self::SharedLine | Self::Prefetch => {
                &[Direction::FromDevice]
            }
            Self::MismatchedAlias | Self::MissingBarrier | Self::BeyondMask => &[Direction::Both],
            Self::Scattered => &[Direction::ToDevice, Direction::FromDevice],
            // Touched by whom the device reads or writes, and freed, which is the same for both.
            Self::TouchedWhileOwned => {
                &[Direction::ToDevice, Direction::FromDevice, Direction::Both]
            }
        }
    }
}

/// A kind of memory and a way to hand it to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `kmalloc`, the address handed over bare.
    KmallocRaw,
    /// `kmalloc` through a streaming map.
    KmallocMap,
    /// `vmalloc`, the address handed over bare.
    VmallocRaw,
    /// `vmalloc` as a scatter list.
    VmallocSg,
    /// `dma_alloc_coherent`.
    Coherent,
    /// A block of a `dma_pool`.
    Pool,
    /// `cma_alloc` through a streaming map.
    Cma,
}

impl Method {
    /// Every method, each wrong one before the right ones, which it is the twin of.
    pub const ALL: [Self; 7] = [
        Self::KmallocRaw,
        Self::VmallocRaw,
        Self::KmallocMap,
        Self::VmallocSg,
        Self::Coherent,
        Self::Pool,
        Self::Cma,
    ];

    /// Its name in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KmallocRaw => "kmalloc-raw",
            Self::KmallocMap => "kmalloc-map",
            Self::VmallocRaw => "vmalloc-raw",
            Self::VmallocSg => "vmalloc-sg",
            Self::Coherent => "coherent",
            Self::Pool => "dma-pool",
            Self::Cma => "cma-map",
        }
    }

    /// Whether nobody maintains the memory or looks where its pages are.
    pub const fn is_raw(self) -> bool {
        matches!(self, Self::KmallocRaw | Self::VmallocRaw)
    }
}

#[cfg(test)]
mod tests;
