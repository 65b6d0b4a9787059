//! Movable pages that live in a contiguous memory area, with content to lose.

use crate::check;
use crate::check_ok;
use crate::failslab::lightly;
use crate::machine::machine;
use crate::memory::Pages;
use crate::memory::contiguous::{Contiguous, Crowd};
use crate::memory::hoard::{Hoard, capacity};
use crate::random;
use crate::report::Stop;
use core::ptr;
use hal::addr::PAGE_SIZE;
use hal::mm::{self, Cma, Gfp, MAX_AREAS, MAX_ORDER, MovablePage, MovablePool, ZoneKind, fault};

/// Most pages that are moved: 16 MiB.
pub(super) const MOVED: u32 = (16 << 20) / PAGE_SIZE as u32;

/// Order of the memory left for the pool's own use, and that of the page allocator's.
pub(super) const SPARE_ORDER: u32 = 4;

/// Movable pages of each zone and what lies below it.
pub(super) static POOLS: [MovablePool; ZoneKind::COUNT] = [
    MovablePool::new(gfp_for(ZoneKind::Dma)),
    MovablePool::new(gfp_for(ZoneKind::Dma32)),
    MovablePool::new(gfp_for(ZoneKind::Normal)),
];

/// Flags for memory of `zone` or below, without an effort to get it.
pub(super) const fn gfp_for(zone: ZoneKind) -> Gfp {
    let quiet = Gfp::KERNEL.union(Gfp::NORETRY).union(Gfp::NOWARN);
    match zone {
        ZoneKind::Dma => quiet.union(Gfp::DMA),
        ZoneKind::Dma32 => quiet.union(Gfp::DMA32),
        ZoneKind::Normal => quiet,
    }
}

pub(super) fn area() -> Result<&'static Cma, Stop> {
    let found = mm::default_cma();
    check!(
        found.is_some() || machine().map.cma_ranges().next().is_none(),
        "memory was set aside for an area, but there is none"
    );
    found.ok_or(Stop::Skipped("this machine has no contiguous memory area"))
}

pub(super) fn zone_of(cma: &Cma) -> ZoneKind {
    mm::pages().map_or(ZoneKind::Normal, |pages| pages.zone_of(cma.base()))
}

/// Takes all memory of the area's zone and below that unmovable requests get, but a little.
pub(super) fn hoard(cma: &Cma) -> Result<Hoard, Stop> {
    let gfp = gfp_for(zone_of(cma));
    let mut hoard = check_ok!(Hoard::new(capacity(0)));
    let spare = check_ok!(Pages::alloc(gfp, SPARE_ORDER));
    for order in (0..=MAX_ORDER).rev() {
        let refusal = hoard.fill(gfp, order);
        check!(refusal.is_some(), "no room to note every block");
    }
    check_ok!(spare.free());
    Ok(hoard)
}

/// Pages in one part of the area, at most [`MOVED`]; the rest of it and all other areas are not lent.
pub(super) struct Lodged {
    pub(super) crowd: Crowd,
    pub(super) inside: u32,
    pub(super) count: u32,
    _rest: Option<Contiguous>,
    _others: heapless::Vec<Contiguous, MAX_AREAS>,
}

impl Lodged {
    pub(super) fn new(cma: &'static Cma) -> Result<Self, Stop> {
        let zone = zone_of(cma);
        let pool = &POOLS[zone as usize];
        let Some(pages) = mm::pages() else {
            return Err(Stop::Failed);
        };
        check_ok!(pool.open(pages, mm::migration()));
        let count = cma.count().min(lightly(MOVED as usize) as u32);
        let rest = match cma.count() - count {
            0 => None,
            rest => Some(check_ok!(Contiguous::alloc(cma, rest, 0))),
        };
        let mut others = heapless::Vec::new();
        for other in mm::cma_areas().iter().filter(|other| !ptr::eq(*other, cma)) {
            let all = check_ok!(Contiguous::alloc(other, other.count(), 0));
            check!(others.push(all).is_ok(), "no room to note every area");
        }
        let mut crowd = check_ok!(Crowd::new(pool, count as usize));
        let hoard = hoard(cma)?;
        // The crowd ends with the first page it does not get.
        let paused = fault::pause();
        crowd.gather();
        drop((paused, hoard));
        let in_area = |page: &&mut MovablePage| cma.contains(page.pfn());
        let inside = crowd.pages().iter_mut().filter(in_area).count() as u32;
        // So few find room in what is kept for emergencies, unless other suites have used that.
        if fault::is_armed() && inside <= count / 2 {
            return Err(Stop::Skipped("an area is lent only to many pages"));
        }
        check!(
            inside > count / 2,
            "only {inside} of {count} movable pages are in the area"
        );
        for (number, page) in crowd.pages().iter_mut().enumerate() {
            fill(page, number);
        }
        Ok(Self {
            crowd,
            inside,
            count,
            _rest: rest,
            _others: others,
        })
    }

    /// The first page whose content is not what [`fill`] wrote.
    pub(super) fn first_changed(&mut self) -> Option<usize> {
        let pages = self.crowd.pages().iter_mut().enumerate();
        pages
            .filter_map(|(number, page)| (checksum(page) != expected(number)).then_some(number))
            .next()
    }
}

/// Word `index` of page `number`.
pub(super) fn word(number: usize, index: usize) -> u64 {
    random::nth(machine().seed, number as u64) ^ (index as u64).rotate_right(7)
}

pub(super) fn fill(page: &mut MovablePage, number: usize) {
    let first = word(number, 0);
    let mut pin = page.pin();
    for (index, word) in pin.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = (first ^ (index as u64).rotate_right(7)).to_le_bytes();
    }
}

/// FNV-1a, word by word.
pub(super) fn fold(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x0100_0000_01B3)
}

pub(super) fn checksum(page: &mut MovablePage) -> u64 {
    let pin = page.pin();
    let words = pin.as_chunks::<8>().0.iter();
    words.fold(0, |sum, word| fold(sum, u64::from_le_bytes(*word)))
}

/// The checksum of what [`fill`] wrote to page `number`.
pub(super) fn expected(number: usize) -> u64 {
    let first = word(number, 0);
    (0..PAGE_SIZE / size_of::<u64>()).fold(0, |sum, index| {
        fold(sum, first ^ (index as u64).rotate_right(7))
    })
}
