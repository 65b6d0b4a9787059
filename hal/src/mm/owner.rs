//! Owners: who memory is charged to, and how much of it they may have.
//!
//! A request with [`Gfp::ACCOUNT`] is charged to the owner the task has named with
//! [`charge_to`]; without one, and in interrupt handlers, it is charged to nobody. The charge ends
//! when the memory is freed, by whomever.

use super::frame::{Frame, FrameKind};
use super::page::PageAllocator;
use super::{AllocError, FreeError, Gfp};
use crate::addr::{PAGE_SIZE, Pfn};
use crate::sync::{IrqLock, PerCpu};
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use heapless::Vec;

/// Somebody memory is charged to, in bytes.
///
/// ```
/// use hal::mm::Owner;
/// static CAMERA: Owner = Owner::new("camera", 8 << 20);
/// assert_eq!(CAMERA.used(), 0);
/// ```
#[derive(Debug)]
#[doc(alias = "mem_cgroup")]
pub struct Owner {
    name: &'static str,
    limit: usize,
    used: AtomicUsize,
    refused: AtomicU32,
    /// The number in the frame descriptors, 0 until the first scope.
    number: AtomicU32,
}

/// Most owners a machine knows.
pub const MAX_OWNERS: usize = 32;

/// The owners, by number less one. Taken for an instant, with any other lock held.
static OWNERS: IrqLock<Vec<&'static Owner, MAX_OWNERS>> = IrqLock::new(Vec::new());

impl Owner {
    /// An owner that may have `limit` bytes.
    pub const fn new(name: &'static str, limit: usize) -> Self {
        Self {
            name,
            limit,
            used: AtomicUsize::new(0),
            refused: AtomicU32::new(0),
            number: AtomicU32::new(0),
        }
    }

    /// The name in reports.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes the owner may have.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes charged to the owner now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Charges `bytes`, beyond the limit if the request must not fail. Any context.
    ///
    /// # Errors
    ///
    /// [`AllocError::OverLimit`]; nothing is charged then.
    pub fn charge(&self, bytes: usize, gfp: Gfp) -> Result<(), AllocError> {
        let limit = if gfp.contains(Gfp::NOFAIL) {
            usize::MAX
        } else {
            self.limit
        };
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map(|_| ())
            .map_err(|used| {
                self.refused.fetch_add(1, Ordering::Relaxed);
                AllocError::OverLimit {
                    owner: self.name,
                    used,
                    limit,
                    bytes,
                }
            })
    }

    /// Takes a charge of `bytes` back. Any context.
    pub fn uncharge(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(
            before >= bytes,
            "{} gave back what it did not have",
            self.name
        );
    }

    /// The owner's number, given to it at its first use.
    fn number(&'static self) -> Result<u32, AllocError> {
        match self.number.load(Ordering::Relaxed) {
            0 => {
                let mut owners = OWNERS.lock();
                // Another core may have been first.
                if self.number.load(Ordering::Relaxed) == 0 {
                    let full = AllocError::TooManyOwners;
                    owners.push(self).map_err(|_| full)?;
                    self.number.store(owners.len() as u32, Ordering::Relaxed);
                }
                Ok(self.number.load(Ordering::Relaxed))
            }
            number => Ok(number),
        }
    }

    /// The number of an owner that [`charge_to`] has given one, as a byte; 0 for any other.
    pub(super) fn given_number(&self) -> u8 {
        self.number.load(Ordering::Relaxed) as u8
    }

    /// The owner with a number that [`charge_to`] has given out.
    pub(super) fn with_number(number: u32) -> Option<&'static Self> {
        let index = (number as usize).checked_sub(1)?;
        OWNERS.lock().get(index).copied()
    }

    /// The owner that this task's accounted memory is charged to.
    pub fn current() -> Option<&'static Self> {
        let number = PerCpu::current().task_scopes()?.owner.get();
        Self::with_number(number)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} used:{}kB limit:{}kB refused:{}",
            self.name,
            self.used().div_ceil(1024),
            self.limit / 1024,
            self.refused.load(Ordering::Relaxed)
        )
    }
}

/// Every owner that has been charged to.
pub fn owners() -> impl Iterator<Item = &'static Owner> {
    let owners = OWNERS.lock().clone();
    owners.into_iter()
}

/// The owner that a task's accounted memory is charged to, until dropped; see [`charge_to`].
#[derive(Debug)]
#[must_use = "the scope ends when the guard is dropped"]
pub struct ChargeScope {
    /// The number before.
    outer: u32,
    stays_on_its_core: PhantomData<*mut ()>,
}

/// Charges this task's accounted memory to `owner` until the scope ends. Scopes nest, and end in
/// reverse order. Task context.
///
/// # Errors
///
/// [`AllocError::TooManyOwners`].
#[doc(alias = "set_active_memcg")]
pub fn charge_to(owner: &'static Owner) -> Result<ChargeScope, AllocError> {
    let number = owner.number()?;
    Ok(ChargeScope {
        outer: PerCpu::current().scopes().owner.replace(number),
        stays_on_its_core: PhantomData,
    })
}

impl Drop for ChargeScope {
    fn drop(&mut self) {
        PerCpu::current().scopes().owner.set(self.outer);
    }
}

/// Makes the block of pages that starts at `frame` a large object; a charge stays.
pub(super) fn pages_to_object(frame: &Frame, order: u32) {
    if frame.kind() != FrameKind::Accounted {
        frame.set_data(0);
    }
    frame.set_head(FrameKind::LargeObject, order);
}

/// Undoes [`pages_to_object`].
pub(super) fn object_to_pages(frame: &Frame, order: u32) {
    let kind = match frame.data() {
        0 => FrameKind::Allocated,
        _ => FrameKind::Accounted,
    };
    frame.set_head(kind, order);
}

impl PageAllocator {
    /// As `alloc`, charged to the task's owner. The number of the owner goes into the descriptor
    /// of the block's first frame.
    #[cold]
    pub(super) fn alloc_accounted(
        &self,
        gfp: Gfp,
        order: u32,
        alloc: impl FnOnce() -> Result<Pfn, AllocError>,
    ) -> Result<Pfn, AllocError> {
        let Some(owner) = Owner::current() else {
            return alloc();
        };
        owner.charge(PAGE_SIZE << order, gfp)?;
        let pfn = alloc().inspect_err(|_| owner.uncharge(PAGE_SIZE << order))?;
        if let Ok(frame) = self.frames().get(pfn) {
            frame.set_data(owner.number.load(Ordering::Relaxed));
            frame.set_kind(FrameKind::Accounted);
        }
        Ok(pfn)
    }

    /// Frees a block that is charged to an owner.
    #[cold]
    pub(super) fn free_accounted(
        &self,
        pfn: Pfn,
        order: u32,
        free: impl FnOnce() -> Result<(), FreeError>,
    ) -> Result<(), FreeError> {
        let frame = self.frames().get(pfn)?;
        let owner = Owner::with_number(frame.data());
        // The zones know pages in use by one kind only. The block is the caller's, so nobody else
        // looks at its kind meanwhile.
        frame.set_kind(FrameKind::Allocated);
        match free() {
            Ok(()) => {
                if let Some(owner) = owner {
                    owner.uncharge(PAGE_SIZE << order);
                }
                Ok(())
            }
            Err(error) => {
                frame.set_kind(FrameKind::Accounted);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
