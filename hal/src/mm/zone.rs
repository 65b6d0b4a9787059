//! Zones: memory by who can reach it.
//!
//! A zone hands blocks of small orders out of the [lists](super::pcp) each core keeps, without a
//! lock. The lists are filled from, and give back to, the [free memory](free) behind the zone's
//! lock, and everything else goes there directly.

mod free;
mod range;

pub(super) use range::Found;

use super::buddy::{Histogram, ListError};
use super::frame::{FrameKind, FrameTable};
use super::pcp::{AtHand, List, MAX_PCP_ORDER, ZoneLists};
use super::watermark::{Mark, Watermarks, ignores_marks};
use super::{Gfp, MigrateType};
use crate::addr::Pfn;
use crate::sync::IrqLock;
use core::fmt;
use core::ops::Range;
use free::FreeMemory;

/// Which devices reach a zone's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ZoneKind {
    /// Every DMA master of the board.
    Dma = 0,
    /// Masters with 32-bit addresses.
    Dma32 = 1,
    /// Masters with wider addresses, and the CPU.
    Normal = 2,
}

impl ZoneKind {
    /// Number of zones.
    pub const COUNT: usize = 3;

    /// All zones, from the most reachable memory up.
    pub const ALL: [Self; Self::COUNT] = [Self::Dma, Self::Dma32, Self::Normal];
}

impl fmt::Display for ZoneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dma => "DMA",
            Self::Dma32 => "DMA32",
            Self::Normal => "NORMAL",
        })
    }
}

/// Most ranges of never-used memory a zone keeps.
pub const MAX_RANGES: usize = 32;

/// A zone has more separate ranges of memory than [`MAX_RANGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyRanges;

/// What a zone holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneInfo {
    /// Pages given to the zone at boot.
    pub managed: u32,
    /// Pages free now. Pages on a core's lists and isolated ones do not count.
    pub free: u32,
    /// Pages of `free` that only movable requests get.
    pub free_cma: u32,
    /// Pages of `free` in the reserve for atomic requests of more than one page.
    pub free_highatomic: u32,
    /// Pages on the lists of the executing core.
    pub at_hand: u32,
    /// Free blocks per order.
    pub blocks: Histogram,
    /// The watermarks.
    pub watermarks: Watermarks,
    /// Pages kept from requests that a higher zone can serve too, by the highest zone they admit.
    pub lowmem_reserve: [u32; ZoneKind::COUNT],
}

impl ZoneInfo {
    /// Free pages any request may be given: neither lent by contiguous memory areas nor in the
    /// reserve for atomic requests.
    pub fn spare(&self) -> u32 {
        self.free - self.free_cma - self.free_highatomic
    }
}

/// What is asked of a zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) gfp: Gfp,
    pub(super) order: u32,
    /// The highest zone that may serve the request.
    pub(super) highest: ZoneKind,
    pub(super) mark: Mark,
}

/// One zone.
#[derive(Debug)]
pub struct Zone {
    /// What the cores keep at hand, if anything.
    lists: Option<ListsOfCores>,
    managed: u32,
    watermarks: Watermarks,
    /// Free pages from which on a first try for any block that is kept at hand succeeds.
    plenty: u32,
    /// Pages this zone keeps from requests that may also be served by a higher zone, by the
    /// highest zone the request admits.
    reserve: [u32; ZoneKind::COUNT],
    free: IrqLock<FreeMemory>,
}

/// What the cores keep at hand of a zone.
#[derive(Clone, Copy, Debug)]
struct ListsOfCores {
    at_hand: &'static AtHand,
    zone: ZoneKind,
    /// A bit for each highest zone whose requests start with this zone.
    highest: u8,
}

/// Blocks of a full list that are given back before a free ends, and merges made for them: half of
/// the list, or fewer when they come to this. Each costs some 30 instructions. The last block may
/// take ten merges, and open a pageblock.
const STEPS_PER_FREE: u32 = 5;

impl Zone {
    /// A zone without memory.
    pub(super) const fn new() -> Self {
        Self {
            lists: None,
            managed: 0,
            watermarks: Watermarks {
                min: 0,
                low: 0,
                high: 0,
            },
            plenty: 0,
            reserve: [0; ZoneKind::COUNT],
            free: IrqLock::new(FreeMemory::new()),
        }
    }

    /// Gives `range` to the zone, as memory of type `migrate`.
    ///
    /// # Safety
    ///
    /// As for [`Buddy::add_range`](super::Buddy::add_range); no other core uses the frame table yet.
    pub(super) unsafe fn add_range(
        &mut self,
        frames: &FrameTable,
        range: Range<Pfn>,
        migrate: MigrateType,
    ) -> Result<(), TooManyRanges> {
        // SAFETY: handed on to the caller.
        self.managed += unsafe { self.free.get_mut().add_range(frames, range, migrate) }?;
        Ok(())
    }

    /// Sets the watermarks, and the pages kept from requests by the highest zone they admit.
    pub(super) fn set_limits(&mut self, watermarks: Watermarks, reserve: [u32; ZoneKind::COUNT]) {
        self.watermarks = watermarks;
        self.plenty = watermarks.low + (1 << MAX_PCP_ORDER);
        self.reserve = reserve;
        self.free.get_mut().limit_highatomic(self.managed);
    }

    /// Lets the cores keep blocks of this zone, `zone`, at hand. Requests whose highest zone has a
    /// bit in `highest` start with it; it keeps no lowmem reserve from them.
    pub(super) fn set_lists(&mut self, at_hand: &'static AtHand, zone: ZoneKind, highest: u8) {
        self.lists = Some(ListsOfCores {
            at_hand,
            zone,
            highest,
        });
        self.update_at_hand();
    }

    /// Pages given to the zone at boot.
    pub(super) fn managed(&self) -> u32 {
        self.managed
    }

    /// What the zone holds now.
    pub fn info(&self) -> ZoneInfo {
        let at_hand = self.lists().map_or(0, ZoneLists::pages);
        let free = self.free.lock();
        let mut blocks = Histogram::default();
        for migrate in MigrateType::ALL {
            if migrate != MigrateType::Isolate {
                let of_type = free.histogram_of(migrate);
                blocks
                    .iter_mut()
                    .zip(of_type)
                    .for_each(|(all, one)| *all += one);
            }
        }
        ZoneInfo {
            managed: self.managed,
            free: free.pages(),
            free_cma: free.pages_of(MigrateType::Cma),
            free_highatomic: free.pages_of(MigrateType::HighAtomic),
            at_hand,
            blocks,
            watermarks: self.watermarks,
            lowmem_reserve: self.reserve,
        }
    }

    /// Free blocks of one migrate type per order.
    pub(super) fn blocks_of(&self, migrate: MigrateType) -> Histogram {
        self.free.lock().histogram_of(migrate)
    }

    /// Looks at every block on the lists of free blocks; how many there are.
    pub(super) fn validate(&self, frames: &FrameTable) -> Result<u32, ListError> {
        self.free.lock().buddy.validate(frames)
    }

    /// Takes a block if the zone may give one to the request, and fills the executing core's list.
    #[inline]
    pub(super) fn alloc(&self, frames: &FrameTable, request: Request) -> Option<Pfn> {
        let list = self.list(request.order, || request.gfp.migrate_type());
        self.change(|free| {
            self.take(frames, free, list, request)
                .or_else(|| self.gather_and_take(frames, free, request))
        })
    }

    /// Tries again with what the executing core has at hand, unless this was a first try only.
    #[cold]
    fn gather_and_take(
        &self,
        frames: &FrameTable,
        free: &mut FreeMemory,
        request: Request,
    ) -> Option<Pfn> {
        if request.mark == Mark::Low {
            return None;
        }
        let lists = self.lists().filter(|lists| lists.pages() != 0)?;
        give_all(frames, free, lists);
        self.take(frames, free, None, request)
    }

    /// Takes a block out of `free`, or off the list it belongs on.
    #[inline(always)]
    fn take(
        &self,
        frames: &FrameTable,
        free: &mut FreeMemory,
        list: Option<&List>,
        request: Request,
    ) -> Option<Pfn> {
        let Request {
            gfp, order, mark, ..
        } = request;
        let above = if mark == Mark::Min && ignores_marks(gfp) {
            0
        } else {
            let kept = kept(&self.watermarks, &self.reserve, gfp, mark, request.highest);
            free.usable(gfp, mark).checked_sub(kept + (1 << order))?
        };
        let Some(list) = list else {
            return free
                .take(frames, gfp, order, order, mark)
                .map(|(block, _)| block);
        };
        if let Some(block) = list.pop() {
            set_head(frames, block, FrameKind::Allocated, order);
            return Some(block);
        }
        // What goes on the list is no longer free, so it must not be needed below the mark.
        let spare = if mark == Mark::Low { above >> order } else { 0 };
        let extra = spare.min(list.limit() / 2);
        fill(frames, free, list, request, extra)
    }

    /// Gives back a block in use as pages, whose pageblock has type `migrate`.
    pub(super) fn free(&self, frames: &FrameTable, block: Pfn, order: u32) {
        let Some(list) = self.list(order, || frames.migrate_type(block)) else {
            self.change(|free| free.give(frames, block, order));
            return;
        };
        if list.len() >= list.limit() {
            self.make_room(frames, list, order);
        }
        set_head(frames, block, FrameKind::PcpFree, order);
        list.push(block);
    }

    /// Gives the oldest blocks of a full list back.
    #[inline(never)]
    fn make_room(&self, frames: &FrameTable, list: &List, order: u32) {
        self.change(|free| give_some(frames, free, list, order, list.limit().div_ceil(2)));
    }

    /// Gives back what the executing core has at hand.
    pub(super) fn drain(&self, frames: &FrameTable) {
        if let Some(lists) = self.lists() {
            self.change(|free| give_all(frames, free, lists));
        }
    }

    /// Says anew whether blocks may be taken off the lists.
    pub(super) fn update_at_hand(&self) {
        let mut free = self.free.lock();
        self.tell_plenty(&mut free);
    }

    /// Dissolves pageblocks of the reserve for atomic requests until no more than `keep` are left.
    /// `false` if there was none to dissolve.
    pub(super) fn unreserve_highatomic(&self, frames: &FrameTable, keep: u32) -> bool {
        self.change(|free| free.unreserve_highatomic(frames, keep))
    }

    /// The lists of the executing core, if the zone has any.
    #[inline]
    fn lists(&self) -> Option<ZoneLists<'static>> {
        self.lists.map(|lists| lists.at_hand.zone_lists(lists.zone))
    }

    /// The executing core's list for blocks of `order` and `migrate`, if such are kept at hand.
    #[inline]
    fn list(&self, order: u32, migrate: impl FnOnce() -> MigrateType) -> Option<&'static List> {
        if order > MAX_PCP_ORDER {
            return None;
        }
        self.lists()?.list(order, migrate())
    }

    /// Runs `f` on the free memory, under the lock, and notes what is left.
    #[inline]
    fn change<R>(&self, f: impl FnOnce(&mut FreeMemory) -> R) -> R {
        let mut free = self.free.lock();
        let result = f(&mut free);
        if (free.spare() >= self.plenty) != free.told_plenty {
            self.tell_plenty(&mut free);
        }
        result
    }

    /// Tells the cores whether they may take what they have at hand.
    #[cold]
    fn tell_plenty(&self, free: &mut FreeMemory) {
        free.told_plenty = free.spare() >= self.plenty;
        if let Some(lists) = &self.lists {
            lists
                .at_hand
                .set_plenty(lists.zone, lists.highest, free.told_plenty);
        }
    }
}

/// Pages that must stay free when a request is served.
#[inline]
fn kept(
    watermarks: &Watermarks,
    reserve: &[u32; ZoneKind::COUNT],
    gfp: Gfp,
    mark: Mark,
    highest: ZoneKind,
) -> u32 {
    watermarks.kept(gfp, mark) + reserve[highest as usize]
}

/// Takes a block for the request, and up to `extra` more from where they disturb nothing, onto
/// `list`.
#[inline(never)]
fn fill(
    frames: &FrameTable,
    free: &mut FreeMemory,
    list: &List,
    request: Request,
    extra: u32,
) -> Option<Pfn> {
    let Request {
        gfp, order, mark, ..
    } = request;
    let most = order + (extra + 1).ilog2();
    let (first, has) = free.take(frames, gfp, order, most, mark)?;
    let mut left = extra + 1 - (1 << (has - order));
    if has > order {
        set_head(frames, first, FrameKind::Allocated, order);
        stock(
            frames,
            list,
            first + (1 << order)..first + (1 << has),
            order,
        );
    }
    while let Some(most) = left.checked_ilog2()
        && let Some((next, has)) = free.take_own(frames, gfp.migrate_type(), order, order + most)
    {
        stock(frames, list, next..next + (1 << has), order);
        left -= 1 << (has - order);
    }
    Some(first)
}

/// Puts `run`, blocks of `order` just taken out of the free memory, on `list`.
fn stock(frames: &FrameTable, list: &List, run: Range<Pfn>, order: u32) {
    let mut block = run.end.get();
    // From the top down, so that they come off the list in order of their addresses.
    while block > run.start.get() {
        block -= 1 << order;
        set_head(frames, Pfn::new(block), FrameKind::PcpFree, order);
        list.push(Pfn::new(block));
    }
}

/// Gives the oldest blocks of `list` back: `blocks` of them, or fewer if they take many merges.
fn give_some(frames: &FrameTable, free: &mut FreeMemory, list: &List, order: u32, blocks: u32) {
    let (mut given, mut steps) = (0, 0);
    list.give_oldest(|block| {
        given += 1;
        steps += 1 + free.give(frames, block, order);
        given < blocks && steps < STEPS_PER_FREE
    });
}

/// Gives all blocks of `lists` back.
fn give_all(frames: &FrameTable, free: &mut FreeMemory, lists: ZoneLists<'_>) {
    for (order, list) in lists.iter() {
        list.give_oldest(|block| {
            free.give(frames, block, order);
            true
        });
    }
}

/// Says what the block at `block`, which is no longer or not yet part of the free memory, is.
#[inline(always)]
fn set_head(frames: &FrameTable, block: Pfn, kind: FrameKind, order: u32) {
    // SAFETY: what has been taken out of the free memory lies in pageblocks that are ready.
    let frame = unsafe { frames.frame_unchecked(block) };
    frame.set_plain_head(kind, order);
}
