//! What a named cache may be asked to be.

bitflags::bitflags! {
    /// Flags of a named cache, with the bit values Linux 6.8 gives them (`slab.h`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SlabFlags: u32 {
        /// Objects of at most [`MAX_PACKED_SIZE`](super::MAX_PACKED_SIZE) bytes lie side by side and
        /// share cache lines. Never for memory that a device meets: mapping it for DMA is refused.
        /// Nor are they charged to owners.
        /// This project's own: Linux leaves the bits below 0x100 free.
        const PACKED = 0x80;
        /// No effect: with the feature `slab-debug` red zones surround the objects of every cache,
        /// without it those of none.
        const RED_ZONE = 0x400;
        /// No effect: with the feature `slab-debug` every free object is poisoned that no constructor
        /// made, without it free objects keep their content but for one word.
        const POISON = 0x800;
        /// Objects start on a cache line. Always so: no object shares a line with another.
        const HWCACHE_ALIGN = 0x2000;
        /// Slabs come from memory the most limited DMA master reaches.
        const CACHE_DMA = 0x4000;
        /// Slabs come from memory below 4 GiB.
        const CACHE_DMA32 = 0x8000;
        /// No effect: with the feature `slab-debug` it is recorded who allocated and freed each
        /// object, without it of none.
        const STORE_USER = 0x1_0000;
        /// The objects are freed by a shrinker: their pages are grouped as reclaimable.
        const RECLAIM_ACCOUNT = 0x2_0000;
        /// No effect: making a cache returns an error and never panics.
        const PANIC = 0x4_0000;
        /// No effect: caches are never merged.
        const NO_MERGE = 0x100_0000;
        /// Each object is charged to the owner of the task that allocates it. Each call takes the
        /// cache's lock then.
        const ACCOUNT = 0x400_0000;
    }
}
