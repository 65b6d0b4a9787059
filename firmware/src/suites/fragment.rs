//! A machine whose free memory is single pages, every other one.

use super::raw::{Hoard, Pages};
use crate::report::{Stop, diagnostic};
use hal::addr::PAGE_SIZE;
use hal::mm::{self, Gfp, MAX_ORDER, ZoneKind};

/// Room for the odd pieces that are left when the large blocks are gone.
const PIECES: usize = 4096;

/// Pages beyond a buffer's own that its tables may take.
pub(super) const SLACK: usize = 32;

/// Flags that reach the last page of a zone.
const ALL_OF_IT: Gfp = Gfp::KERNEL.union(Gfp::MEMALLOC).union(Gfp::NOWARN);

/// Room a hoard needs for all free memory and `singles` single pages.
pub(super) fn capacity(singles: usize) -> usize {
    let managed = mm::pages().map_or(0, |pages| pages.managed_pages()) as usize;
    managed / (1 << MAX_ORDER) + singles + PIECES
}

/// The zone an unrestricted request is served from first.
pub(super) fn top_zone() -> ZoneKind {
    let populated = |kind: &&ZoneKind| mm::pages().is_some_and(|p| p.zone(**kind).managed > 0);
    let found = ZoneKind::ALL.iter().rev().find(populated);
    found.copied().unwrap_or(ZoneKind::Normal)
}

/// Takes all free memory but `wanted` pages above the watermark, none next to another that is
/// free. Dropping the hoard undoes it.
pub(super) fn fragment(wanted: usize) -> Result<Hoard, Stop> {
    let fail = |error: &dyn core::fmt::Display| {
        diagnostic(format_args!("cannot fragment the zone: {error}"));
        Stop::Failed
    };
    let zone = mm::pages().ok_or(Stop::Failed)?.zone(top_zone());
    let singles = 2 * (zone.watermarks.min as usize + wanted);
    if singles * PAGE_SIZE > zone.free as usize * PAGE_SIZE / 2 {
        return Err(Stop::Skipped("too little memory to fragment"));
    }
    let mut hoard = Hoard::new(capacity(singles)).map_err(|error| fail(&error))?;
    for _ in 0..singles {
        let page = Pages::alloc(Gfp::KERNEL, 0).map_err(|error| fail(&error))?;
        hoard.push(page).map_err(|_| fail(&"no room to note it"))?;
    }
    for order in (0..=MAX_ORDER).rev() {
        if hoard.fill(ALL_OF_IT, order).is_none() {
            return Err(fail(&"no room to note it"));
        }
    }
    // The pages with even numbers stay taken, so that no two free ones can merge.
    hoard.release(|pfn| !pfn.is_order_aligned(1));
    Ok(hoard)
}
