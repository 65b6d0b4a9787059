//! Single pages that move, for drivers and tests: a page has an address only while it is pinned.

use super::{Migration, MovableOwner, OwnerId, Pinned, TooManyOwners};
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::layout;
use crate::mm::page::PageAllocator;
use crate::mm::{AllocError, Gfp};
use crate::sync::{IrqLock, Once};
use core::mem::size_of;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

/// Where a page is.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The page's frame; in a free slot, the number of the next free one.
    frame: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Movable,
    Pinned,
}

/// Slots in a page of them.
const CHUNK: usize = PAGE_SIZE / size_of::<Slot>();

/// Most pages of slots.
const CHUNKS: usize = 64;

/// Ends the list of free slots.
const NONE: u32 = u32::MAX;

/// The slots, in pages taken when there is no free one.
#[derive(Debug)]
struct Slots {
    chunks: heapless::Vec<NonNull<[Slot; CHUNK]>, CHUNKS>,
    free: u32,
    used: usize,
}

// SAFETY: the chunks belong to the value that points to them.
unsafe impl Send for Slots {}

impl Slots {
    fn get(&mut self, slot: u32) -> Option<&mut Slot> {
        let chunk = self.chunks.get_mut(slot as usize / CHUNK)?;
        // SAFETY: chunks are initialised when they are taken in, belong to `self`, and are borrowed
        // as `self` is.
        unsafe { chunk.as_mut() }.get_mut(slot as usize % CHUNK)
    }

    /// Takes a free slot for `frame`.
    fn take(&mut self, frame: Pfn) -> Option<u32> {
        let number = self.free;
        let slot = self.get(number)?;
        let next = slot.frame;
        *slot = Slot {
            frame: frame.get(),
            state: State::Movable,
        };
        self.free = next;
        self.used += 1;
        Some(number)
    }

    fn put(&mut self, number: u32) -> Option<Pfn> {
        let next = self.free;
        let slot = self.get(number)?;
        let frame = Pfn::new(slot.frame);
        *slot = Slot {
            frame: next,
            state: State::Free,
        };
        self.free = number;
        self.used -= 1;
        Some(frame)
    }

    /// Takes in a page for more slots; gives it back if there is no room.
    ///
    /// # Safety
    ///
    /// The page belongs to the caller.
    unsafe fn grow(&mut self, page: NonNull<[Slot; CHUNK]>) -> Result<(), NonNull<[Slot; CHUNK]>> {
        let first = (self.chunks.len() * CHUNK) as u32;
        let last = first + CHUNK as u32 - 1;
        self.chunks.push(page)?;
        let end = self.free;
        let slots = page.as_ptr().cast::<Slot>();
        for number in first..=last {
            let slot = Slot {
                frame: if number == last { end } else { number + 1 },
                state: State::Free,
            };
            // SAFETY: the slot is one of the page's, which belongs to `self` now.
            unsafe { slots.add((number - first) as usize).write(slot) };
        }
        self.free = first;
        Ok(())
    }
}

/// The page allocator a pool takes its pages from.
#[derive(Clone, Copy, Debug)]
struct Home {
    pages: &'static PageAllocator,
    owner: OwnerId,
}

/// Movable pages and where they are.
///
/// A pool is a `static` that [`open`](Self::open) connects with the page allocator.
#[derive(Debug)]
pub struct MovablePool {
    gfp: Gfp,
    home: Once<Home>,
    slots: IrqLock<Slots>,
}

impl MovablePool {
    /// A pool whose pages are allocated with `gfp`, movable whether it says so or not: its zone
    /// bits are kept when a page moves. The pages are the pool's and charged to nobody, so
    /// [`Gfp::ACCOUNT`] has no effect.
    pub const fn new(gfp: Gfp) -> Self {
        Self {
            gfp: gfp.difference(Gfp::ACCOUNT).union(Gfp::MOVABLE),
            home: Once::new(),
            slots: IrqLock::new(Slots {
                chunks: heapless::Vec::new(),
                free: NONE,
                used: 0,
            }),
        }
    }

    /// Connects the pool with `pages`; the first call wins.
    ///
    /// # Errors
    ///
    /// [`TooManyOwners`].
    pub fn open(
        &'static self,
        pages: &'static PageAllocator,
        migration: &Migration,
    ) -> Result<(), TooManyOwners> {
        if self.home.get().is_none() {
            let owner = migration.admit(self)?;
            self.home.call_once(|| Home { pages, owner });
        }
        Ok(())
    }

    /// Allocates a zeroed page. May block if the pool's flags do.
    ///
    /// # Errors
    ///
    /// [`AllocError`] of the page or of the pool's own memory; [`AllocError::NotReady`] before
    /// [`open`](Self::open).
    pub fn alloc(&'static self) -> Result<MovablePage, AllocError> {
        let home = self.home.get().ok_or(AllocError::NotReady)?;
        let pfn = home.pages.alloc_pages(self.gfp | Gfp::ZERO, 0)?;
        let slot = self.slot_for(home, pfn).inspect_err(|_| {
            // SAFETY: the page was allocated above and is nobody else's.
            let freed = unsafe { home.pages.free_pages(pfn, 0) };
            debug_assert_eq!(freed, Ok(()));
        })?;
        // SAFETY: the page was allocated above; it is reached through its slot from now on.
        match unsafe { Migration::adopt(home.pages, pfn, home.owner, slot) } {
            Ok(()) => Ok(MovablePage { pool: self, slot }),
            // A page just allocated can be adopted; were it not, its slot leads nowhere.
            Err(_) => {
                self.slots.lock().put(slot);
                // SAFETY: as above; no slot leads to it.
                let freed = unsafe { home.pages.free_pages(pfn, 0) };
                debug_assert_eq!(freed, Ok(()));
                let gfp = self.gfp;
                Err(AllocError::NoMemory { order: 0, gfp })
            }
        }
    }

    fn slot_for(&self, home: &Home, pfn: Pfn) -> Result<u32, AllocError> {
        let gfp = self.gfp.difference(Gfp::MOVABLE);
        loop {
            if let Some(slot) = self.slots.lock().take(pfn) {
                return Ok(slot);
            }
            let chunk = home.pages.alloc_pages(gfp, 0)?;
            let page = NonNull::new(layout::phys_to_virt(chunk.phys()).as_ptr());
            let grown = match page {
                // SAFETY: the page was allocated above.
                Some(page) => unsafe { self.slots.lock().grow(page) }.is_ok(),
                None => false,
            };
            if !grown {
                // SAFETY: the pool did not take the page.
                let freed = unsafe { home.pages.free_pages(chunk, 0) };
                debug_assert_eq!(freed, Ok(()));
                return Err(AllocError::NoMemory { order: 0, gfp });
            }
        }
    }

    /// Frees the pool's own memory if no page of it is in use.
    pub fn shrink(&self) {
        let Some(home) = self.home.get() else {
            return;
        };
        let mut slots = self.slots.lock();
        if slots.used != 0 {
            return;
        }
        slots.free = NONE;
        let chunks = core::mem::take(&mut slots.chunks);
        drop(slots);
        for chunk in chunks {
            let pa = layout::virt_to_phys(VirtAddr::from_ptr(chunk.as_ptr()));
            // SAFETY: the pool took the page in `slot_for`, and no slot leads there any more.
            let freed = unsafe { home.pages.free_pages(pa.unwrap_or_default().pfn(), 0) };
            debug_assert_eq!(freed, Ok(()));
        }
    }

    /// Pages in use.
    pub fn used(&self) -> usize {
        self.slots.lock().used
    }

    fn set_state(&self, slot: u32, state: State) -> Option<Pfn> {
        let mut slots = self.slots.lock();
        let slot = slots.get(slot)?;
        slot.state = state;
        Some(Pfn::new(slot.frame))
    }
}

// SAFETY: a page is reached through a pin only; `migrate` moves pages that are not pinned, under
// the lock that pins are taken under.
unsafe impl MovableOwner for MovablePool {
    fn gfp(&self) -> Gfp {
        self.gfp
    }

    unsafe fn migrate(&self, old: Pfn, new: Pfn, private: u32) -> Result<(), Pinned> {
        let mut slots = self.slots.lock();
        let slot = slots
            .get(private)
            .filter(|slot| slot.state == State::Movable && slot.frame == old.get())
            .ok_or(Pinned(old))?;
        let from = layout::phys_to_virt(old.phys()).as_ptr::<u8>();
        let to = layout::phys_to_virt(new.phys()).as_ptr::<u8>();
        // SAFETY: the old page is the slot's, not pinned, and stays so under the lock; the new one
        // is lent to this call, by the caller's promise.
        unsafe { ptr::copy_nonoverlapping(from, to, PAGE_SIZE) };
        slot.frame = new.get();
        Ok(())
    }
}

/// A page that may lie elsewhere each time it is looked at. Dropping it frees it.
#[derive(Debug)]
#[must_use = "dropping it frees the page"]
pub struct MovablePage {
    pool: &'static MovablePool,
    slot: u32,
}

impl MovablePage {
    /// Keeps the page where it is and gives access to it, until the result is dropped. Never
    /// blocks.
    #[doc(alias = "kmap_local_page")]
    pub fn pin(&mut self) -> PinnedPage<'_> {
        let pfn = self.pool.set_state(self.slot, State::Pinned);
        PinnedPage {
            // The slot exists as long as the page does.
            pfn: pfn.unwrap_or(Pfn::new(0)),
            page: self,
        }
    }

    /// Where the page is at this moment.
    pub fn pfn(&self) -> Pfn {
        let mut slots = self.pool.slots.lock();
        slots
            .get(self.slot)
            .map_or(Pfn::new(0), |slot| Pfn::new(slot.frame))
    }
}

impl Drop for MovablePage {
    fn drop(&mut self) {
        let (Some(home), Some(pfn)) = (self.pool.home.get(), self.pool.slots.lock().put(self.slot))
        else {
            return;
        };
        // SAFETY: the page is this handle's, and its slot no longer leads to it.
        unsafe {
            let freed =
                Migration::disown(home.pages, pfn).and_then(|()| home.pages.free_pages(pfn, 0));
            debug_assert_eq!(freed, Ok(()));
        }
    }
}

/// A page that stays where it is.
#[derive(Debug)]
pub struct PinnedPage<'a> {
    page: &'a mut MovablePage,
    pfn: Pfn,
}

impl PinnedPage<'_> {
    /// Its frame.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
}

impl Deref for PinnedPage<'_> {
    type Target = [u8; PAGE_SIZE];

    fn deref(&self) -> &Self::Target {
        // SAFETY: the page is RAM in the direct map, was zeroed or copied whole, belongs to the
        // borrowed handle and does not move while it is pinned.
        unsafe { &*layout::phys_to_virt(self.pfn.phys()).as_ptr::<Self::Target>() }
    }
}

impl DerefMut for PinnedPage<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: as for `deref`; the handle is borrowed exclusively.
        unsafe { &mut *layout::phys_to_virt(self.pfn.phys()).as_ptr::<Self::Target>() }
    }
}

impl Drop for PinnedPage<'_> {
    fn drop(&mut self) {
        self.page.pool.set_state(self.page.slot, State::Movable);
    }
}
