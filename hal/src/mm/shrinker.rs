//! Shrinkers: caches that give memory back when it runs low.

use super::Gfp;
use crate::sync::IrqLock;
use core::fmt;
use core::ptr;

/// A cache that can give objects up.
///
/// Both functions are called as a task with no lock held, on any core, by one caller at a time,
/// and never from within themselves. What they allocate takes no reclaim and may use all reserves.
#[doc(alias = "shrinker")]
pub trait Shrinker: Sync {
    /// The name in reports.
    fn name(&self) -> &'static str;

    /// What giving objects up may need: any of [`Gfp::IO`] and [`Gfp::FS`]. Requests without these
    /// flags do not reach the shrinker.
    fn needs(&self) -> Gfp {
        Gfp::empty()
    }

    /// How many objects could be given up now. Linux: `count_objects`.
    fn count(&self) -> usize;

    /// Gives up to `wanted` objects up on behalf of a request with the rights `gfp`, and returns
    /// how many; 0 if that is not possible now. Linux: `scan_objects`.
    fn scan(&self, wanted: usize, gfp: Gfp) -> usize;
}

/// Most shrinkers registered at once.
pub const MAX_SHRINKERS: usize = 32;

/// Why a shrinker was not registered or unregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShrinkerError {
    /// There are [`MAX_SHRINKERS`] already.
    #[error("no room for the shrinker {0}")]
    Full(&'static str),
    /// It is registered already.
    #[error("the shrinker {0} is registered already")]
    Registered(&'static str),
    /// It is not registered.
    #[error("the shrinker {0} is not registered")]
    NotRegistered(&'static str),
    /// It is running: on another core, or it is the caller.
    #[error("the shrinker {0} is running")]
    Running(&'static str),
}

/// What a shrinker has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShrinkerInfo {
    /// Its name.
    pub name: &'static str,
    /// Times it was asked to give something up.
    pub calls: u32,
    /// Objects it has given up.
    pub freed: usize,
}

/// What asking a shrinker came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It gave up so many objects.
    Gave(usize),
    /// It is running already, and may give up some.
    Busy,
    /// There is none, or it needs more than the request has.
    Unreached,
}

#[derive(Clone, Copy)]
struct Entry {
    shrinker: &'static dyn Shrinker,
    running: bool,
    calls: u32,
    freed: usize,
}

/// The shrinkers of a machine. The lock is held for the bookkeeping only.
pub(super) struct Shrinkers {
    entries: IrqLock<[Option<Entry>; MAX_SHRINKERS]>,
}

impl Shrinkers {
    pub(super) const fn new() -> Self {
        Self {
            entries: IrqLock::new([None; MAX_SHRINKERS]),
        }
    }

    pub(super) fn register(&self, shrinker: &'static dyn Shrinker) -> Result<(), ShrinkerError> {
        let mut entries = self.entries.lock();
        if entries.iter().flatten().any(|entry| entry.is(shrinker)) {
            return Err(ShrinkerError::Registered(shrinker.name()));
        }
        let free = entries.iter_mut().find(|entry| entry.is_none());
        *free.ok_or(ShrinkerError::Full(shrinker.name()))? = Some(Entry {
            shrinker,
            running: false,
            calls: 0,
            freed: 0,
        });
        Ok(())
    }

    pub(super) fn unregister(&self, shrinker: &'static dyn Shrinker) -> Result<(), ShrinkerError> {
        let mut entries = self.entries.lock();
        let found = entries
            .iter_mut()
            .find(|entry| entry.is_some_and(|entry| entry.is(shrinker)));
        match found {
            Some(Some(entry)) if entry.running => Err(ShrinkerError::Running(shrinker.name())),
            Some(entry) => {
                *entry = None;
                Ok(())
            }
            None => Err(ShrinkerError::NotRegistered(shrinker.name())),
        }
    }

    /// Runs `f` with the shrinker at `index`, unless it needs more than `rights` or is running.
    /// `f` returns how many objects were given up.
    pub(super) fn run(
        &self,
        index: usize,
        rights: Gfp,
        f: impl FnOnce(&dyn Shrinker) -> usize,
    ) -> Answer {
        let shrinker = {
            let mut entries = self.entries.lock();
            match entries.get_mut(index) {
                Some(Some(entry)) if rights.contains(entry.shrinker.needs()) => {
                    if entry.running {
                        return Answer::Busy;
                    }
                    entry.running = true;
                    entry.calls += 1;
                    entry.shrinker
                }
                _ => return Answer::Unreached,
            }
        };
        let freed = f(shrinker);
        // A running shrinker is not unregistered, so the entry is still its own.
        if let Some(Some(entry)) = self.entries.lock().get_mut(index) {
            entry.running = false;
            entry.freed = entry.freed.saturating_add(freed);
        }
        Answer::Gave(freed)
    }

    pub(super) fn info(&self) -> impl Iterator<Item = ShrinkerInfo> {
        let entries = *self.entries.lock();
        entries.into_iter().flatten().map(|entry| ShrinkerInfo {
            name: entry.shrinker.name(),
            calls: entry.calls,
            freed: entry.freed,
        })
    }
}

impl fmt::Debug for Shrinkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.info()).finish()
    }
}

impl Entry {
    /// Whether this is the entry of `shrinker`: the same object of the same type. Objects without
    /// a size may share an address, so the names count too.
    fn is(&self, shrinker: &'static dyn Shrinker) -> bool {
        ptr::addr_eq(self.shrinker, shrinker) && self.shrinker.name() == shrinker.name()
    }
}
