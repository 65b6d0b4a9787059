//! Migrate types: which memory is grouped with which, so that movable pages stay together.

/// Why the pages of a pageblock may or may not be moved. The free lists are kept apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MigrateType {
    /// Kernel memory whose address is in use.
    Unmovable = 0,
    /// Memory whose owner can be told of a new place. Free memory starts as this.
    Movable = 1,
    /// Memory a shrinker gives back.
    Reclaimable = 2,
    /// Reserve for atomic requests of more than one page.
    HighAtomic = 3,
    /// Part of a contiguous memory area, lent to movable pages.
    Cma = 4,
    /// Being taken out of use: nothing is allocated from here.
    Isolate = 5,
}

impl MigrateType {
    /// Number of migrate types.
    pub const COUNT: usize = 6;

    /// All types, by number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Unmovable,
        Self::Movable,
        Self::Reclaimable,
        Self::HighAtomic,
        Self::Cma,
        Self::Isolate,
    ];

    /// The type with number `index`; unknown numbers count as not movable.
    #[inline]
    pub(super) const fn from_index(index: u8) -> Self {
        match index {
            1 => Self::Movable,
            2 => Self::Reclaimable,
            3 => Self::HighAtomic,
            4 => Self::Cma,
            5 => Self::Isolate,
            _ => Self::Unmovable,
        }
    }

    /// Whose free memory is taken, in this order, when a type has none left.
    pub(super) const fn fallbacks(self) -> &'static [Self] {
        match self {
            Self::Unmovable => &[Self::Reclaimable, Self::Movable],
            Self::Movable => &[Self::Reclaimable, Self::Unmovable],
            Self::Reclaimable => &[Self::Unmovable, Self::Movable],
            Self::HighAtomic | Self::Cma | Self::Isolate => &[],
        }
    }

    /// Whether blocks of the type merge with blocks of the other ordinary types.
    pub(super) const fn is_ordinary(self) -> bool {
        matches!(self, Self::Unmovable | Self::Movable | Self::Reclaimable)
    }
}
