//! Blocks held so that nobody else has them, and a zone whose free memory is every other page.

use super::{Object, Pages};
use crate::report::Stop;
use crate::{check, check_ok};
use hal::addr::{PAGE_SIZE, Pfn};
use hal::mm::{self, AllocError, Gfp, MAX_ORDER, ZoneKind, fault};

/// Blocks held so that nobody else has them.
#[derive(Debug)]
pub(crate) struct Hoard {
    /// Frame number times 16 plus order: both fit, since physical addresses end at 2^40.
    table: Object,
    len: usize,
}

/// Bits of the order in an entry of a [`Hoard`].
const ORDER_BITS: u32 = 4;

impl Hoard {
    /// An empty hoard for `capacity` blocks.
    pub(crate) fn new(capacity: usize) -> Result<Self, AllocError> {
        let table = Object::alloc(capacity.max(1) * size_of::<u32>(), Gfp::KERNEL)?;
        Ok(Self { table, len: 0 })
    }

    /// Blocks held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn entry(&mut self, index: usize) -> Option<&mut [u8; size_of::<u32>()]> {
        self.table.bytes().as_chunks_mut().0.get_mut(index)
    }

    /// Takes a block in; gives it back if there is no room.
    pub(crate) fn push(&mut self, pages: Pages) -> Result<(), Pages> {
        let index = self.len;
        let Some(entry) = self.entry(index) else {
            return Err(pages);
        };
        let (pfn, order) = pages.into_parts();
        *entry = (pfn.get() << ORDER_BITS | order).to_le_bytes();
        self.len += 1;
        Ok(())
    }

    /// Takes the last block out.
    pub(crate) fn pop(&mut self) -> Option<Pages> {
        let last = self.len.checked_sub(1)?;
        let entry = u32::from_le_bytes(*self.entry(last)?);
        self.len = last;
        let (pfn, order) = (entry >> ORDER_BITS, entry & ((1 << ORDER_BITS) - 1));
        // SAFETY: `push` took the block apart, and the entry is gone.
        Some(unsafe { Pages::from_parts(Pfn::new(pfn), order) })
    }

    /// Allocates blocks of `order` into the hoard until there are no more; returns the refusal,
    /// or `None` if the hoard is full. None of the allocations is made to fail, which would look as
    /// if there were no more.
    pub(crate) fn fill(&mut self, gfp: Gfp, order: u32) -> Option<AllocError> {
        let _paused = fault::pause();
        loop {
            match Pages::alloc(gfp, order) {
                Ok(pages) => self.push(pages).ok()?,
                Err(error) => return Some(error),
            }
        }
    }

    /// Frees every block of which `selected` says so, and keeps the others.
    pub(crate) fn release(&mut self, selected: impl Fn(Pfn) -> bool) {
        let mut kept = 0;
        for index in 0..self.len {
            let Some(entry) = self.entry(index).copied() else {
                return;
            };
            let value = u32::from_le_bytes(entry);
            if selected(Pfn::new(value >> ORDER_BITS)) {
                let order = value & ((1 << ORDER_BITS) - 1);
                // SAFETY: as in `pop`; the entry is not kept.
                drop(unsafe { Pages::from_parts(Pfn::new(value >> ORDER_BITS), order) });
            } else if let Some(slot) = self.entry(kept) {
                *slot = entry;
                kept += 1;
            }
        }
        self.len = kept;
    }
}

impl Drop for Hoard {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// Room for the odd pieces that are left when the large blocks are gone.
const PIECES: usize = 4096;

/// Pages beyond a buffer's own that its tables may take.
pub(crate) const SLACK: usize = 32;

/// Flags for the lowest zone with memory, the one that [`fragment`] fragments: every device reaches
/// it, and on a large machine it is the smaller part.
pub(crate) const LOWEST_ZONE: Gfp = Gfp::KERNEL.union(Gfp::DMA);

/// Flags that reach its last page.
const ALL_OF_IT: Gfp = LOWEST_ZONE.union(Gfp::MEMALLOC).union(Gfp::NOWARN);

/// Room a hoard needs for all free memory and `singles` single pages.
pub(crate) fn capacity(singles: usize) -> usize {
    let managed = mm::pages().map_or(0, |pages| pages.managed_pages()) as usize;
    managed / (1 << MAX_ORDER) + singles + PIECES
}

/// The zone an unrestricted request is served from first.
pub(crate) fn top_zone() -> ZoneKind {
    let populated = |kind: &&ZoneKind| mm::pages().is_some_and(|p| p.zone(**kind).managed > 0);
    let found = ZoneKind::ALL.iter().rev().find(populated);
    found.copied().unwrap_or(ZoneKind::Normal)
}

/// The lowest zone with memory.
fn lowest_zone() -> ZoneKind {
    let populated = |kind: &&ZoneKind| mm::pages().is_some_and(|p| p.zone(**kind).managed > 0);
    let found = ZoneKind::ALL.iter().find(populated);
    found.copied().unwrap_or(ZoneKind::Normal)
}

/// Takes all free memory of [`LOWEST_ZONE`] but `wanted` pages above the watermark, none next to another that is
/// free. Dropping the hoard undoes it.
pub(crate) fn fragment(wanted: usize) -> Result<Hoard, Stop> {
    let zone = mm::pages().ok_or(Stop::Failed)?.zone(lowest_zone());
    let singles = 2 * (zone.watermarks.min as usize + wanted);
    if singles * PAGE_SIZE > zone.free as usize * PAGE_SIZE / 2 {
        return Err(Stop::Skipped("too little memory to fragment"));
    }
    let mut hoard = check_ok!(Hoard::new(capacity(singles)));
    let _paused = fault::pause();
    for _ in 0..singles {
        let page = check_ok!(Pages::alloc(LOWEST_ZONE, 0));
        check!(hoard.push(page).is_ok(), "no room to note it");
    }
    for order in (0..=MAX_ORDER).rev() {
        let refusal = hoard.fill(ALL_OF_IT, order);
        check!(refusal.is_some(), "no room to note it");
    }
    // The pages with even numbers stay taken, so that no two free ones can merge.
    hoard.release(|pfn| !pfn.is_order_aligned(1));
    Ok(hoard)
}
