//! Memory that moves: blocks whose owner can be told of a new place.
//!
//! A block allocated with [`Gfp::MOVABLE`] may lie in memory that a contiguous area has lent. It
//! can be moved out again only if its owner has said how: [`Migration::adopt`] notes the owner's
//! number and a number of the owner's choice in the block's frame descriptor. A block nobody
//! adopted counts as pinned. [`MovablePool`] is an owner for everybody.

mod pool;

pub use pool::{MovablePage, MovablePool, PinnedPage};

use super::page::PageAllocator;
use super::scope::{Scope, alone};
use super::{AllocError, FreeError, Gfp};
use crate::addr::Pfn;
use crate::smp;
use crate::sync::{IrqLock, PerCpu};
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Most owners of movable memory.
pub const MAX_MOVABLE_OWNERS: usize = 16;

/// The block cannot be moved now: it is in use at its place, or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} cannot be moved")]
pub struct Pinned(pub Pfn);

/// There are [`MAX_MOVABLE_OWNERS`] already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_MOVABLE_OWNERS} owners of movable memory")]
pub struct TooManyOwners;

/// Who moves blocks of memory on demand.
///
/// # Safety
///
/// After [`migrate`](Self::migrate) has returned `Ok`, the implementor does not use the old block
/// any more, nor does anybody it gave access to.
pub unsafe trait MovableOwner: Sync {
    /// The flags that a new place for a block of this owner is allocated with.
    fn gfp(&self) -> Gfp;

    /// Moves the content of the block at `old`, which the owner knows as `private`, to the block of
    /// the same order at `new`, and uses that from now on. Called in a task.
    ///
    /// The block may have been freed meanwhile, so the owner looks `private` up and believes it
    /// only if it leads to `old`.
    ///
    /// # Errors
    ///
    /// [`Pinned`] if the block is not there or must stay; `new` is then left alone.
    ///
    /// # Safety
    ///
    /// `new` is a block of RAM of the same order in the direct map, which nobody uses: it is lent to
    /// this call, and the owner's if the result is `Ok`.
    unsafe fn migrate(&self, old: Pfn, new: Pfn, private: u32) -> Result<(), Pinned>;
}

/// A block that an owner moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MovableBlock {
    /// First frame.
    pub(super) pfn: Pfn,
    /// Order of the block.
    pub(super) order: u32,
    /// The owner.
    pub(super) owner: OwnerId,
    /// The owner's number for the block.
    pub(super) private: u32,
}

/// The number an owner gets when it is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerId(pub(super) u8);

/// Why a block was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmoved {
    /// Its owner will not, now.
    Pinned,
    /// There is no new place for it.
    NoTarget(AllocError),
}

/// The owners of movable memory, and the turn of those who move it: one at a time.
pub struct Migration {
    owners: IrqLock<heapless::Vec<&'static dyn MovableOwner, MAX_MOVABLE_OWNERS>>,
    /// The number of the core that has the turn, plus one; 0 for none.
    turn: AtomicUsize,
}

impl Migration {
    /// Without owners.
    pub const fn new() -> Self {
        Self {
            owners: IrqLock::new(heapless::Vec::new()),
            turn: AtomicUsize::new(0),
        }
    }

    /// Admits an owner, for good.
    ///
    /// # Errors
    ///
    /// [`TooManyOwners`].
    pub fn admit(&self, owner: &'static dyn MovableOwner) -> Result<OwnerId, TooManyOwners> {
        let mut owners = self.owners.lock();
        let number = owners.len() as u8;
        owners.push(owner).map_err(|_| TooManyOwners)?;
        Ok(OwnerId(number))
    }

    /// Notes that `owner` moves the block at `pfn` on demand and knows it as `private`. May be
    /// called in any context.
    ///
    /// # Errors
    ///
    /// [`FreeError`] if `pfn` is not the first frame of a block that `alloc_pages` handed out.
    ///
    /// # Safety
    ///
    /// The block belongs to the caller, who reaches it only by what `owner` says of its place.
    pub unsafe fn adopt(
        pages: &PageAllocator,
        pfn: Pfn,
        owner: OwnerId,
        private: u32,
    ) -> Result<(), FreeError> {
        let zone = pages.zone_at(pfn);
        zone.set_movable(pages.frames(), pfn, owner, private)
    }

    /// Ends [`adopt`](Self::adopt), so that the block may be freed. May be called in any context.
    ///
    /// # Errors
    ///
    /// [`FreeError`] if nobody adopted a block at `pfn`.
    ///
    /// # Safety
    ///
    /// The block belongs to the caller, and the owner refuses to move it from now on.
    pub unsafe fn disown(pages: &PageAllocator, pfn: Pfn) -> Result<(), FreeError> {
        pages.zone_at(pfn).clear_movable(pages.frames(), pfn)
    }

    /// Waits for the turn to move memory, and then does nothing that is not this call's work: a
    /// function of another core, run here, could only be refused the turn. `None` if this core has
    /// it already, so that the call comes from an owner that moves memory. Task context.
    pub(super) fn take_turn(&self) -> Option<Turn<'_>> {
        let me = PerCpu::current().index() + 1;
        while let Err(holder) =
            self.turn
                .compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed)
        {
            if holder == me {
                return None;
            }
            // Whoever has the turn may wait for a function on this core.
            smp::run_pending();
            core::hint::spin_loop();
        }
        Some(Turn {
            migration: self,
            _alone: alone(),
        })
    }

    /// Has `block` moved to wherever there is memory, and frees its old place. The caller has the
    /// turn.
    pub(super) fn migrate(
        &self,
        _turn: &Turn<'_>,
        pages: &PageAllocator,
        block: &MovableBlock,
    ) -> Result<(), Unmoved> {
        let owner = self.owners.lock().get(usize::from(block.owner.0)).copied();
        let owner = owner.ok_or(Unmoved::Pinned)?;
        // The charge for a block stays with whom it was made to. Without a new place the memory stays
        // where it is: no reason to insist on one.
        let gfp = (owner.gfp() | Gfp::MOVABLE | Gfp::NOWARN) - (Gfp::ACCOUNT | Gfp::NOFAIL);
        let new = pages
            .alloc_pages(gfp, block.order)
            .map_err(Unmoved::NoTarget)?;
        // Before the owner knows the new place, because it may free it at once.
        // SAFETY: the block was allocated above, and is reached by what the owner says of it.
        if unsafe { Self::adopt(pages, new, block.owner, block.private) }.is_err() {
            // SAFETY: the block was allocated above, and the owner never knew of it.
            let freed = unsafe { pages.free_pages(new, block.order) };
            debug_assert_eq!(freed, Ok(()));
            return Err(Unmoved::Pinned);
        }
        // SAFETY: the block was allocated above, of the order of the old one, and is nobody else's.
        let moved = unsafe { owner.migrate(block.pfn, new, block.private) };
        let left = if moved.is_ok() { block.pfn } else { new };
        // SAFETY: the owner uses the other of the two blocks; this one was allocated above, or the
        // owner gave it up.
        unsafe {
            // Neither fails: the block is one that was noted as movable, of this order.
            let freed =
                Self::disown(pages, left).and_then(|()| pages.free_pages(left, block.order));
            debug_assert_eq!(freed, Ok(()));
        }
        moved.map_err(|Pinned(_)| Unmoved::Pinned)
    }
}

impl Default for Migration {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration").finish_non_exhaustive()
    }
}

/// The turn to move memory, given up when dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    migration: &'a Migration,
    _alone: Scope,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.migration.turn.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
