//! The machine's own allocators, one of each, set up by [`init`].

mod areas;
mod objects;
mod pages;

pub use areas::*;
pub use objects::*;
pub use pages::*;

use crate::deferred::{self, Work};
use crate::mm::pcp::AtHand;
use crate::mm::*;
use crate::sync::Once;

static PAGES: Once<PageAllocator> = Once::new();
static AT_HAND: AtHand = AtHand::new();
static KMALLOC: Kmalloc = Kmalloc::new();
static PACKED: PackedKmalloc = PackedKmalloc::new();

static MIGRATION: Migration = Migration::new();
static CMA: Once<heapless::Vec<Cma, MAX_AREAS>> = Once::new();

/// Sets the machine's allocators up, with the contiguous memory areas `areas`, which are not part
/// of `map`. Its cost does not depend on the amount of RAM, but on that of the areas.
///
/// # Errors
///
/// [`InitError`] when the map contradicts itself, or on a second call.
///
/// # Safety
///
/// As for [`PageAllocator::new`] and [`PageAllocator::lend`]; one core runs.
pub unsafe fn init(
    frames: FrameTable,
    map: &UsableRam<'_>,
    areas: &[CmaArea],
) -> Result<(), InitError> {
    if PAGES.is_completed() {
        return Err(InitError::Twice);
    }
    // SAFETY: handed on to the caller.
    let mut pages = unsafe { PageAllocator::new(frames, map) }?;
    for area in areas {
        // SAFETY: as above.
        unsafe { pages.lend(area.frames) }?;
    }
    #[cfg(target_os = "none")]
    // SAFETY: one core runs.
    unsafe {
        crate::sync::percpu::set_frames(frames.lookup());
    }
    // SAFETY: one core runs, and this runs once.
    let pages = PAGES.call_once(|| unsafe { pages.with_lists(&AT_HAND) });
    KMALLOC.set_pages(pages);
    pages.set_reclaim_waker(|| deferred::schedule(Work::Reclaim));
    deferred::set_handler(Work::Reclaim, reclaim_in_the_background);
    pages.set_core_shrinker(reclaim::EmptySlabs::give_back);
    // The list of shrinkers is empty, so there is room.
    let _ = pages.register_shrinker(&reclaim::EmptySlabs);
    CMA.call_once(|| {
        // Without memory for its bits an area stays lent for good.
        let area = |area: &CmaArea| {
            // SAFETY: the area was lent above, and this runs once.
            unsafe { Cma::new(*area, pages, &MIGRATION) }.ok()
        };
        areas.iter().filter_map(area).take(MAX_AREAS).collect()
    });
    Ok(())
}

/// What [`Work::Reclaim`] does.
fn reclaim_in_the_background() {
    if let Some(pages) = pages() {
        pages.background_reclaim();
    }
}

/// The machine's contiguous memory areas.
pub fn cma_areas() -> &'static [Cma] {
    CMA.get().map_or(&[], |areas| areas)
}

/// The contiguous memory area for everybody who has none of their own, if there is one.
#[doc(alias = "dma_contiguous_default_area")]
pub fn default_cma() -> Option<&'static Cma> {
    cma_areas().iter().find(|cma| cma.area().is_default)
}

/// The owners of the machine's movable memory.
pub fn migration() -> &'static Migration {
    &MIGRATION
}

/// The machine's page allocator, once [`init`] has run.
#[inline]
pub fn pages() -> Option<&'static PageAllocator> {
    PAGES.get()
}

/// The machine's `kmalloc` caches, for their reports and for [`Kmalloc::shrink`].
pub fn kmalloc_caches() -> &'static Kmalloc {
    &KMALLOC
}
