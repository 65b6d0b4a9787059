//! What the command line may ask for.

use crate::glob::Glob;
use core::fmt;
use core::num::NonZeroUsize;

/// The most bytes of a copy: bounds the buffers, and the list of a scattered one's pages.
pub const MAX_SIZE: usize = 256 << 10;

/// The coarsest alignment: what every kind of memory starts at.
pub const MAX_ALIGNMENT: usize = hal::dma::ALIGNMENT;

/// Bytes that a copy is placed behind the start of its buffer at most, unless something else is
/// said: the whole of a page.
const OFFSETS: usize = hal::addr::PAGE_SIZE - 1;

/// What is said with `dmatest.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<'a> {
    /// Copies of each submitting core with each engine; at least one.
    pub iterations: u32,
    /// Cores that submit to an engine at the same time; all by default.
    pub threads: Option<NonZeroUsize>,
    /// Bytes of the shortest copy, at least one.
    pub min_size: usize,
    /// Bytes of the longest copy, at most [`MAX_SIZE`].
    pub max_size: usize,
    /// What lengths and offsets are multiples of: a power of two, at most [`MAX_ALIGNMENT`].
    pub alignment: usize,
    /// Where copies start.
    pub offsets: Offsets,
    /// What is copied.
    pub patterns: Patterns,
    /// Whether the end of a copy is looked for instead of waited for.
    pub polled: bool,
    /// Milliseconds a copy may take; what the engine thinks right by default.
    pub timeout_ms: Option<u32>,
    /// The names of the engines; all by default.
    pub channel: Option<Glob<'a>>,
    /// Whether the bytes are compared.
    pub verify: bool,
    /// The memory that is copied from and to.
    pub memory: Memory,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            iterations: 6,
            threads: None,
            min_size: 1,
            max_size: 8 << 10,
            alignment: 1,
            offsets: Offsets::default(),
            patterns: Patterns::Mixed,
            polled: false,
            timeout_ms: None,
            channel: None,
            verify: true,
            memory: Memory::Mixed,
        }
    }
}

impl fmt::Display for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "iterations={} sizes={}..={} alignment={} offsets=0..={} patterns={:?} memory={:?} \
             polled={} verify={}",
            self.iterations,
            self.min_size,
            self.max_size,
            self.alignment,
            self.offsets.bound(),
            self.patterns,
            self.memory,
            self.polled,
            self.verify
        )?;
        if let Some(threads) = self.threads {
            write!(f, " threads={threads}")?;
        }
        if let Some(timeout) = self.timeout_ms {
            write!(f, " timeout={timeout} ms")?;
        }
        match self.channel {
            Some(glob) => write!(f, " channel={glob}"),
            None => Ok(()),
        }
    }
}

/// Options that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOptions {
    /// The shortest copy is longer than the longest.
    #[error("dmatest.min_size={min} is above dmatest.max_size={max}")]
    Sizes {
        /// Bytes of the shortest.
        min: usize,
        /// Bytes of the longest.
        max: usize,
    },
    /// No length is a multiple of what it has to be.
    #[error("no length from {min} to {max} is a multiple of {step}")]
    NoLength {
        /// Bytes of the shortest copy.
        min: usize,
        /// Bytes of the longest.
        max: usize,
        /// The alignment or the engine's granule, whichever is larger.
        step: usize,
    },
}

impl Options<'_> {
    /// The options with which an engine that copies multiples of `granule`, a power of two, can
    /// work.
    ///
    /// # Errors
    ///
    /// [`BadOptions`].
    pub fn lengths(&self, granule: usize) -> Result<Lengths, BadOptions> {
        let (min, max) = (self.min_size, self.max_size);
        if min > max {
            return Err(BadOptions::Sizes { min, max });
        }
        let step = granule.max(self.alignment);
        let (first, last) = (min.div_ceil(step), max / step);
        if first > last {
            return Err(BadOptions::NoLength { min, max, step });
        }
        Ok(Lengths { first, last, step })
    }

    /// Whether the engine of that name is to be tested.
    pub fn names(&self, engine: &str) -> bool {
        self.channel.is_none_or(|glob| glob.matches(engine))
    }
}

/// The lengths of copies: multiples of `step` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The shortest, in steps; at least one.
    pub(super) first: usize,
    /// The longest, in steps.
    pub(super) last: usize,
    /// Bytes.
    pub(super) step: usize,
}

/// Where in their buffers copies start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// Always at the same place, the start of a cache line.
    Off,
    /// At most so many bytes behind it.
    Within(usize),
}

impl Default for Offsets {
    /// At random places of a page.
    fn default() -> Self {
        Self::Within(OFFSETS)
    }
}

impl Offsets {
    /// The greatest offset in bytes.
    pub const fn bound(self) -> usize {
        match self {
            Self::Off => 0,
            Self::Within(bound) => bound,
        }
    }
}

/// Which bytes are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patterns {
    /// Bits that say what each byte is: a look at memory tells what went wrong.
    Bits,
    /// Random bytes: no two places look alike.
    Random,
    /// The two in turn.
    Mixed,
}

/// A kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Contiguous and cached, lent by a streaming map.
    Kmalloc,
    /// Shared without maintenance.
    Coherent,
    /// Contiguous for the CPU only, lent as a scatter list.
    Vmalloc,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kmalloc, Self::Coherent, Self::Vmalloc];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kmalloc => "kmalloc",
            Self::Coherent => "coherent",
            Self::Vmalloc => "vmalloc",
        })
    }
}

/// The memory that is copied from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Of one kind.
    Only(Kind),
    /// Of all kinds, drawn for each copy.
    Mixed,
}

impl Memory {
    /// The kinds there are.
    pub fn kinds(&self) -> &[Kind] {
        match self {
            Self::Only(kind) => core::slice::from_ref(kind),
            Self::Mixed => &Kind::ALL,
        }
    }
}
