//! What a zone keeps, by the formulas of Linux 6.12, from the pages each zone was given and nothing
//! else that the allocator says.

use hal::addr::PAGE_SIZE;
use hal::mm::{self, Gfp, Watermarks, ZoneInfo, ZoneKind};

/// One number for each zone.
pub(super) type PerZone = [u32; ZoneKind::COUNT];

/// KiB in a page.
const PAGE_KIB: u64 = PAGE_SIZE as u64 / 1024;

/// `sysctl_lowmem_reserve_ratio` of each zone.
const RESERVE_RATIOS: PerZone = [256, 256, 32];

/// What a zone keeps, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) marks: Watermarks,
    /// By the highest zone that requests admit.
    pub(super) lowmem_reserve: PerZone,
}

impl Limits {
    /// The limits of `kind` on a machine whose zones were given `managed` pages.
    pub(super) fn new(kind: ZoneKind, managed: PerZone) -> Self {
        let of_zone = u64::from(managed[kind as usize]);
        let total = managed.iter().copied().map(u64::from).sum::<u64>();
        // `min_free_kbytes`, and the zone's share of it.
        let min_free_kib = square_root(16 * total * PAGE_KIB).clamp(128, 262_144);
        let min = min_free_kib / PAGE_KIB * of_zone / total.max(1);
        // `watermark_scale_factor` is 10 of 10,000.
        let step = (min / 4).max(of_zone * 10 / 10_000);
        let pages_between = |highest: usize| {
            let above = kind as usize + 1..highest + 1;
            managed.get(above).into_iter().flatten().sum::<u32>()
        };
        let ratio = RESERVE_RATIOS[kind as usize];
        Self {
            marks: Watermarks {
                min: min as u32,
                low: (min + step) as u32,
                high: (min + 2 * step) as u32,
            },
            lowmem_reserve: core::array::from_fn(|highest| pages_between(highest) / ratio),
        }
    }

    /// The limits of `kind` on this machine.
    pub(super) fn of(kind: ZoneKind) -> Self {
        Self::new(kind, managed())
    }

    /// Pages that a request with `gfp` for its last resort leaves free, besides the lowmem reserve.
    pub(super) fn floor(&self, gfp: Gfp) -> u32 {
        let min = self.marks.min;
        let half = min - min / 2;
        if gfp.contains(Gfp::MEMALLOC) {
            0
        } else if !gfp.contains(Gfp::HIGH) {
            min
        } else if gfp.contains(Gfp::DIRECT_RECLAIM) {
            half
        } else {
            half - half / 4
        }
    }

    /// Whether the allocator keeps as much in `zone`.
    pub(super) fn are_kept(&self, zone: &ZoneInfo) -> bool {
        self.marks == zone.watermarks && self.lowmem_reserve == zone.lowmem_reserve
    }
}

/// The pages each zone was given.
pub(super) fn managed() -> PerZone {
    let zone = |kind| mm::pages().map_or(0, |pages| pages.zone(kind).managed);
    ZoneKind::ALL.map(zone)
}

/// The largest number whose square is at most `square`.
fn square_root(square: u64) -> u64 {
    (0..u32::BITS).rev().fold(0, |root, bit| {
        let larger = root | 1 << bit;
        if larger * larger <= square {
            larger
        } else {
            root
        }
    })
}
