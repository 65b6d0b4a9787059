//! What may be in the caches, line by line.
//!
//! The state is of all caches together: the CPUs keep theirs equal. It says what *may* be: a line that
//! was accessed may still be cached, and one that was stored to may be dirty still or written back at
//! any time.

use crate::walk::Mapping;
use std::ops::Range;

/// Bytes in a line (`CTR_EL0.DminLine` = 4), which the masks of bytes have as many bits as.
pub const LINE: u64 = 64;

/// Bytes in a page of the record, whatever granule the firmware uses.
pub const PAGE: u64 = 4096;

const LINES: usize = (PAGE / LINE) as usize;

/// The line may be in a cache.
pub const CACHED: u16 = 1 << 0;
/// Some bytes were stored and not cleaned.
pub const DIRTY: u16 = 1 << 1;
/// A device wrote memory since the line was last invalidated.
pub const STALE: u16 = 1 << 2;
/// A running job reads bytes of it.
pub const LENT_TO_READ: u16 = 1 << 3;
/// A running job writes bytes of it.
pub const LENT_TO_WRITE: u16 = 1 << 4;
/// Memory was stored to past the cache while the line may have been in it.
pub const BYPASSED: u16 = 1 << 5;
/// Stored to, and not cleaned to the point of unification.
pub const NOT_UNIFIED: u16 = 1 << 6;
/// Changed since the instruction cache last dropped it.
pub const CODE_STALE: u16 = 1 << 7;
/// An invalidate has dropped bytes of it that only the cache had, and that somebody may miss.
pub const DROPPED: u16 = 1 << 8;

/// What a load must find so that nothing is left to do but being counted.
const QUIET_LOAD: u16 = CACHED | STALE | LENT_TO_WRITE | BYPASSED | DROPPED;
/// What a store must find: everything it would set, and nothing that it would violate.
pub const STORED: u16 = CACHED | DIRTY | NOT_UNIFIED | CODE_STALE;

/// The lines of one page of RAM.
#[derive(Clone, Debug)]
pub struct Page {
    /// Physical address.
    pub pa: u64,
    /// What holds for each line: the constants of this module.
    pub flags: [u16; LINES],
    /// The bytes of each line that were stored and not cleaned; byte 0 is bit 0.
    pub dirty: [u64; LINES],
    /// How the page was last accessed by a CPU.
    pub seen: Option<Mapping>,
}

impl Page {
    fn new(pa: u64) -> Self {
        Self {
            pa,
            flags: [0; LINES],
            dirty: [0; LINES],
            seen: None,
        }
    }

    /// Whether a cacheable load changes and violates nothing.
    #[inline(always)]
    pub fn is_quiet_load(&self, line: usize) -> bool {
        self.flags[line % LINES] & QUIET_LOAD == CACHED
    }

    /// Whether an uncached load changes and violates nothing.
    #[inline(always)]
    pub fn is_quiet_uncached_load(&self, line: usize) -> bool {
        self.flags[line % LINES] & (DIRTY | LENT_TO_WRITE | DROPPED) == 0
    }

    /// Notes a store of `mask` if it changes nothing but the mask of dirty bytes.
    #[inline(always)]
    pub fn quiet_store(&mut self, line: usize, mask: u64) -> bool {
        let line = line % LINES;
        if self.flags[line] != STORED {
            return false;
        }
        self.dirty[line] |= mask;
        true
    }

    /// Whether memory a device writes here may hide behind a line of the cache. Where the CPUs' last
    /// mapping is uncached, or there was none yet because the MMU is off, and nothing was left behind in
    /// the cache, there is none.
    pub fn may_hide(&self, line: usize) -> bool {
        let is_uncached = self.seen.is_some_and(|mapping| !mapping.is_cacheable());
        !is_uncached || self.flags[line] & CACHED != 0
    }
}

/// The pages of RAM that anything is known of.
#[derive(Debug)]
pub struct Lines {
    windows: Vec<(Range<u64>, Vec<u32>)>,
    pages: Vec<Page>,
}

/// Where a page is in [`Lines`]; it stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageIndex(u32);

/// No page yet.
const NONE: u32 = u32::MAX;

impl Lines {
    /// For RAM at `ram`, whole pages.
    pub fn new(ram: &[Range<u64>]) -> Self {
        let windows = ram.iter().map(|window| {
            let pages = window.end.saturating_sub(window.start) / PAGE;
            (window.clone(), vec![NONE; pages as usize])
        });
        Self {
            windows: windows.collect(),
            pages: Vec::new(),
        }
    }

    /// The page that holds `pa`, if that is RAM.
    pub fn find(&mut self, pa: u64) -> Option<PageIndex> {
        let (window, table) = (self.windows.iter_mut()).find(|(window, _)| window.contains(&pa))?;
        let slot = table.get_mut(((pa - window.start) / PAGE) as usize)?;
        if *slot == NONE {
            *slot = u32::try_from(self.pages.len()).ok()?;
            self.pages.push(Page::new(pa / PAGE * PAGE));
        }
        Some(PageIndex(*slot))
    }

    /// Whether all of `range` is RAM.
    pub fn is_ram(&self, range: &Range<u64>) -> bool {
        self.windows
            .iter()
            .any(|(window, _)| window.start <= range.start && range.end <= window.end)
    }

    /// The page at `index`.
    #[inline(always)]
    pub fn page(&mut self, index: PageIndex) -> &mut Page {
        &mut self.pages[index.0 as usize]
    }

    /// All pages.
    pub fn pages(&mut self) -> impl Iterator<Item = &mut Page> {
        self.pages.iter_mut()
    }

    /// The pages that a range of RAM has a part of, and in each the lines with the bytes in the range.
    pub fn each(&mut self, range: &Range<u64>, mut visit: impl FnMut(&mut Page, usize, u64)) {
        for part in parts(range.clone(), PAGE) {
            let Some(index) = self.find(part.start) else {
                continue;
            };
            let page = self.page(index);
            for bytes in parts(part, LINE) {
                visit(page, line_of(bytes.start), mask(&bytes));
            }
        }
    }
}

/// The number within its page of the line of `pa`.
pub const fn line_of(pa: u64) -> usize {
    (pa % PAGE / LINE) as usize
}

/// The bytes of one line that a range within it names.
pub const fn mask(bytes: &Range<u64>) -> u64 {
    let size = bytes.end - bytes.start;
    let low = if size >= LINE { !0 } else { (1 << size) - 1 };
    low << (bytes.start % LINE)
}

/// `range` cut at the multiples of `unit`.
pub fn parts(range: Range<u64>, unit: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        (start < range.end).then(|| {
            let end = (start / unit + 1).saturating_mul(unit).min(range.end);
            std::mem::replace(&mut start, end)..end
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_lines() {
        let cut: Vec<_> = parts(60..200, LINE).collect();
        assert_eq!(cut, [60..64, 64..128, 128..192, 192..200]);
        assert_eq!(mask(&cut[0]), 0xF << 60);
        assert_eq!(mask(&cut[1]), !0);
        assert_eq!(mask(&cut[3]), 0xFF);
        assert_eq!(parts(5..5, LINE).count(), 0);
        assert_eq!(parts(u64::MAX - 3..u64::MAX, LINE).count(), 1);
    }

    #[test]
    fn pages_are_made_when_they_are_asked_for() {
        let mut lines = Lines::new(&[0x1000..0x4000, 0x8000..0x9000]);
        assert_eq!(lines.find(0xFFF), None);
        assert_eq!(lines.find(0x4000), None);
        let first = lines.find(0x2345).unwrap();
        assert_eq!(lines.find(0x2FFF), Some(first));
        assert_eq!(lines.page(first).pa, 0x2000);
        assert_ne!(lines.find(0x8000), Some(first));
        assert!(lines.is_ram(&(0x1000..0x4000)) && !lines.is_ram(&(0x3000..0x8100)));
        let mut seen = Vec::new();
        lines.each(&(0x2FF0..0x3008), |page, line, mask| {
            seen.push((page.pa, line, mask));
        });
        assert_eq!(seen, [(0x2000, 63, 0xFFFF << 48), (0x3000, 0, 0xFF)]);
    }
}
