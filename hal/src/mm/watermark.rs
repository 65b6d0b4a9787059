//! Watermarks: how low the free pages of a zone may fall, and for whom.

use super::Gfp;

/// Least and most of `min_free_kbytes`, in KiB.
const MIN_FREE_KIB: (u64, u64) = (128, 262_144);

/// `watermark_scale_factor`: distance between the marks, in 1/10000 of the zone.
const SCALE_FACTOR: u64 = 10;

/// KiB in a page.
const PAGE_KIB: u64 = 4;

/// Which watermark a try to allocate keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The first try: below it background reclaim is woken.
    Low,
    /// Later tries: min, less what the request's flags give it of the reserve.
    Min,
}

/// The three marks of a zone, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Kept for requests with a right to the reserve.
    pub min: u32,
    /// Below it background reclaim is woken.
    pub low: u32,
    /// Where background reclaim stops.
    pub high: u32,
}

impl Watermarks {
    /// The marks of a zone of `managed` pages on a machine with `total` managed pages, by the
    /// formula of Linux 6.12: the zone's share of `sqrt(16 * total KiB)`.
    pub fn new(managed: u32, total: u32) -> Self {
        let (managed, total) = (u64::from(managed), u64::from(total));
        let min_free_kib = (16 * total * PAGE_KIB)
            .isqrt()
            .clamp(MIN_FREE_KIB.0, MIN_FREE_KIB.1);
        let min = (min_free_kib / PAGE_KIB * managed)
            .checked_div(total)
            .unwrap_or(0);
        let step = (min / 4).max(managed * SCALE_FACTOR / 10_000);
        Self {
            min: min as u32,
            low: (min + step) as u32,
            high: (min + 2 * step) as u32,
        }
    }

    /// How many pages a request with `gfp` has to leave free at least in a try down to `mark`.
    #[inline]
    pub fn kept(&self, gfp: Gfp, mark: Mark) -> u32 {
        match mark {
            Mark::Low => self.low,
            Mark::Min => self.floor(gfp),
        }
    }

    /// How many pages a request with `gfp` has to leave free at least.
    #[inline]
    pub fn floor(&self, gfp: Gfp) -> u32 {
        if ignores_marks(gfp) {
            return 0;
        }
        if !gfp.contains(Gfp::HIGH) {
            return self.min;
        }
        let half = self.min - self.min / 2;
        if is_atomic(gfp) {
            half - half / 4
        } else {
            half
        }
    }
}

/// Whether a request has the larger share of the reserve, as one that cannot wait. One that shall
/// leave the reserves alone has no more than [`Gfp::HIGH`] gives it. Linux: `ALLOC_NON_BLOCK`.
#[inline]
pub(super) const fn is_atomic(gfp: Gfp) -> bool {
    gfp.contains(Gfp::HIGH) && !gfp.may_block() && !gfp.contains(Gfp::NOMEMALLOC)
}

/// Whether no watermark and no lowmem reserve binds a request with `gfp` after its first try.
#[inline]
pub(super) const fn ignores_marks(gfp: Gfp) -> bool {
    gfp.contains(Gfp::MEMALLOC) && !gfp.contains(Gfp::NOMEMALLOC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB_PAGES: u32 = 256;

    #[test]
    fn min_free_kbytes_of_a_machine_with_one_zone() {
        for (mib, kib) in [
            (16, 512),
            (64, 1024),
            (256, 2048),
            (1024, 4096),
            (4096, 8192),
        ] {
            let pages = mib * MIB_PAGES;
            assert_eq!(Watermarks::new(pages, pages).min * 4, kib, "{mib} MiB");
        }
    }

    #[test]
    fn a_zone_of_16_mib() {
        let marks = Watermarks::new(4096, 4096);
        assert_eq!((marks.min, marks.low, marks.high), (128, 160, 192));
        assert_eq!(marks.floor(Gfp::NOWAIT), 128);
        assert_eq!(marks.floor(Gfp::KERNEL), 128);
        assert_eq!(marks.floor(Gfp::KERNEL | Gfp::HIGH), 64);
        assert_eq!(marks.floor(Gfp::ATOMIC), 48);
        assert_eq!(marks.floor(Gfp::ATOMIC | Gfp::NOMEMALLOC), 64);
        assert_eq!(marks.floor(Gfp::KERNEL | Gfp::MEMALLOC), 0);
        assert_eq!(
            marks.floor(Gfp::KERNEL | Gfp::MEMALLOC | Gfp::NOMEMALLOC),
            128
        );
    }

    #[test]
    fn an_empty_machine_has_no_marks() {
        assert_eq!(Watermarks::new(0, 0), Watermarks::default());
    }
}
