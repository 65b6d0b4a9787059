//! What a caller asks of an allocation: the GFP flags.

mod check;
mod names;

pub use check::GfpError;

use super::MigrateType;
use super::zone::ZoneKind;

bitflags::bitflags! {
    /// Flags of an allocation, with the bit values Linux 6.12 gives them.
    ///
    /// Drivers use the composites ([`Gfp::KERNEL`], [`Gfp::ATOMIC`], ...) and add single bits such
    /// as [`Gfp::ZERO`]. [`Gfp::DMA`] and [`Gfp::DMA32`] are zone bits only and carry no right to
    /// reclaim: combine them with `KERNEL`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Gfp: u32 {
        /// Memory the most limited DMA master reaches ([`ZoneKind::Dma`]).
        const DMA = 0x1;
        /// No effect: a 64-bit kernel has no high memory.
        const HIGHMEM = 0x2;
        /// Memory below 4 GiB ([`ZoneKind::Dma32`]).
        const DMA32 = 0x4;
        /// The memory may be migrated elsewhere; also a migrate type.
        const MOVABLE = 0x8;
        /// The memory is freed by a shrinker; also a migrate type.
        const RECLAIMABLE = 0x10;
        /// May use half of the reserve below the min watermark.
        const HIGH = 0x20;
        /// Reclaim may start physical I/O.
        const IO = 0x40;
        /// Reclaim may call into file systems.
        const FS = 0x80;
        /// The memory is zeroed.
        const ZERO = 0x100;
        /// The caller may block: reclaim runs in its context.
        const DIRECT_RECLAIM = 0x400;
        /// Background reclaim is woken when memory runs low.
        const KSWAPD_RECLAIM = 0x800;
        /// No effect: the page will be written soon, and there is no write-back to spread.
        const WRITE = 0x1000;
        /// A failure prints nothing.
        const NOWARN = 0x2000;
        /// Reclaim is retried while it makes progress, for large blocks too, a bounded number of
        /// times.
        const RETRY_MAYFAIL = 0x4000;
        /// The allocation is repeated until it succeeds. For blocking requests of at most two
        /// pages; see [`Misuse`](super::Misuse).
        const NOFAIL = 0x8000;
        /// One pass of reclaim, then failure.
        const NORETRY = 0x1_0000;
        /// No watermark applies: the memory serves to free memory.
        const MEMALLOC = 0x2_0000;
        /// The block is freed as a whole; always so here.
        const COMP = 0x4_0000;
        /// The reserves stay untouched; beats [`Gfp::MEMALLOC`].
        const NOMEMALLOC = 0x8_0000;
        /// No effect: there are no CPU sets.
        const HARDWALL = 0x10_0000;
        /// No effect: there is one memory node.
        const THISNODE = 0x20_0000;
        /// The memory is charged to the [`Owner`](super::Owner) of the task.
        const ACCOUNT = 0x40_0000;
        /// No effect: there is no memory tagging.
        const ZEROTAGS = 0x80_0000;

        /// Both kinds of reclaim.
        const RECLAIM = Self::DIRECT_RECLAIM.bits() | Self::KSWAPD_RECLAIM.bits();
        /// For interrupt handlers and under locks: never blocks, may use part of the reserve.
        const ATOMIC = Self::HIGH.bits() | Self::KSWAPD_RECLAIM.bits();
        /// The normal choice in task context.
        const KERNEL = Self::RECLAIM.bits() | Self::IO.bits() | Self::FS.bits();
        /// [`Gfp::KERNEL`], charged to an owner.
        const KERNEL_ACCOUNT = Self::KERNEL.bits() | Self::ACCOUNT.bits();
        /// Never blocks, no reserve, failure is silent.
        const NOWAIT = Self::KSWAPD_RECLAIM.bits() | Self::NOWARN.bits();
        /// Reclaim must not start I/O.
        const NOIO = Self::RECLAIM.bits();
        /// Reclaim must not enter file systems.
        const NOFS = Self::RECLAIM.bits() | Self::IO.bits();
        /// Memory for a user, which the kernel and devices reach directly.
        const USER = Self::KERNEL.bits() | Self::HARDWALL.bits();
        /// [`Gfp::USER`] memory that devices need not reach.
        const HIGHUSER = Self::USER.bits() | Self::HIGHMEM.bits();
        /// [`Gfp::HIGHUSER`] memory that may be migrated.
        const HIGHUSER_MOVABLE = Self::HIGHUSER.bits() | Self::MOVABLE.bits();
        /// A huge block or nothing, without any reclaim.
        const TRANSHUGE_LIGHT = (Self::HIGHUSER_MOVABLE.bits()
            | Self::COMP.bits()
            | Self::NOMEMALLOC.bits()
            | Self::NOWARN.bits())
            & !Self::RECLAIM.bits();
        /// A huge block, with direct reclaim.
        const TRANSHUGE = Self::TRANSHUGE_LIGHT.bits() | Self::DIRECT_RECLAIM.bits();
    }
}

impl Gfp {
    /// Whether the allocation may block.
    pub const fn may_block(self) -> bool {
        self.contains(Self::DIRECT_RECLAIM)
    }

    /// The highest zone the flags admit; lower zones serve as fallback.
    #[inline]
    pub const fn highest_zone(self) -> ZoneKind {
        if self.contains(Self::DMA) {
            ZoneKind::Dma
        } else if self.contains(Self::DMA32) {
            ZoneKind::Dma32
        } else {
            ZoneKind::Normal
        }
    }

    /// The migrate type of the pages. `MOVABLE` and `RECLAIMABLE` exclude each other; with both,
    /// the pages count as not movable.
    #[inline]
    pub const fn migrate_type(self) -> MigrateType {
        match (
            self.contains(Self::MOVABLE),
            self.contains(Self::RECLAIMABLE),
        ) {
            (true, false) => MigrateType::Movable,
            (false, true) => MigrateType::Reclaimable,
            _ => MigrateType::Unmovable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_equal_linux() {
        let bits = [
            (Gfp::DMA, 0x1),
            (Gfp::HIGHMEM, 0x2),
            (Gfp::DMA32, 0x4),
            (Gfp::MOVABLE, 0x8),
            (Gfp::RECLAIMABLE, 0x10),
            (Gfp::HIGH, 0x20),
            (Gfp::IO, 0x40),
            (Gfp::FS, 0x80),
            (Gfp::ZERO, 0x100),
            (Gfp::DIRECT_RECLAIM, 0x400),
            (Gfp::KSWAPD_RECLAIM, 0x800),
            (Gfp::WRITE, 0x1000),
            (Gfp::NOWARN, 0x2000),
            (Gfp::RETRY_MAYFAIL, 0x4000),
            (Gfp::NOFAIL, 0x8000),
            (Gfp::NORETRY, 0x1_0000),
            (Gfp::MEMALLOC, 0x2_0000),
            (Gfp::COMP, 0x4_0000),
            (Gfp::NOMEMALLOC, 0x8_0000),
            (Gfp::HARDWALL, 0x10_0000),
            (Gfp::THISNODE, 0x20_0000),
            (Gfp::ACCOUNT, 0x40_0000),
            (Gfp::ZEROTAGS, 0x80_0000),
        ];
        for (flag, value) in bits {
            assert_eq!(flag.bits(), value, "{flag:?}");
        }
    }

    #[test]
    fn composites_equal_linux() {
        let composites = [
            (Gfp::ATOMIC, 0x820),
            (Gfp::KERNEL, 0xcc0),
            (Gfp::KERNEL_ACCOUNT, 0x40_0cc0),
            (Gfp::NOWAIT, 0x2800),
            (Gfp::NOIO, 0xc00),
            (Gfp::NOFS, 0xc40),
            (Gfp::USER, 0x10_0cc0),
            (Gfp::HIGHUSER, 0x10_0cc2),
            (Gfp::HIGHUSER_MOVABLE, 0x10_0cca),
            (Gfp::TRANSHUGE_LIGHT, 0x1c_20ca),
            (Gfp::TRANSHUGE, 0x1c_24ca),
        ];
        for (flags, value) in composites {
            assert_eq!(flags.bits(), value, "{flags:?}");
        }
    }

    #[test]
    fn zone_and_migrate_type_follow_the_bits() {
        assert_eq!(Gfp::KERNEL.highest_zone(), ZoneKind::Normal);
        assert_eq!((Gfp::KERNEL | Gfp::DMA32).highest_zone(), ZoneKind::Dma32);
        assert_eq!((Gfp::KERNEL | Gfp::DMA).highest_zone(), ZoneKind::Dma);
        assert_eq!(Gfp::HIGHUSER_MOVABLE.migrate_type(), MigrateType::Movable);
        assert_eq!(Gfp::KERNEL.migrate_type(), MigrateType::Unmovable);
        assert_eq!(
            (Gfp::KERNEL | Gfp::RECLAIMABLE).migrate_type(),
            MigrateType::Reclaimable
        );
        assert!(Gfp::KERNEL.may_block() && !Gfp::ATOMIC.may_block());
    }
}
