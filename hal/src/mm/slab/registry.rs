//! Which named caches there are.

use super::KmemCache;
use crate::mm::AllocError;
use crate::mm::frame::FIRST_TAG;
use crate::mm::kmalloc::KMALLOC_CACHES;
use crate::sync::IrqLock;
use core::sync::atomic::{AtomicU8, Ordering};

/// Tag of the first named cache; those below belong to `kmalloc`.
const FIRST_NAMED: u8 = FIRST_TAG + KMALLOC_CACHES as u8;

/// Most named caches at a time: their tags are a byte.
pub const MAX_NAMED_CACHES: usize = u8::MAX as usize - FIRST_NAMED as usize + 1;

/// The caches by tag.
#[derive(Debug)]
pub(super) struct Registry {
    caches: IrqLock<[Option<&'static KmemCache>; MAX_NAMED_CACHES]>,
}

/// The caches of the machine.
pub(super) static CACHES: Registry = Registry {
    caches: IrqLock::new([None; MAX_NAMED_CACHES]),
};

impl Registry {
    /// Gives `cache` a number in `tag`, unless another core just did.
    #[cold]
    pub(super) fn add(&self, cache: &'static KmemCache, tag: &AtomicU8) -> Result<u8, AllocError> {
        let mut caches = self.caches.lock();
        let has = tag.load(Ordering::Relaxed);
        if has != 0 {
            return Ok(has);
        }
        let free = caches.iter().position(Option::is_none);
        let index = free.ok_or(AllocError::TooManyCaches)?;
        caches[index] = Some(cache);
        let new = FIRST_NAMED + index as u8;
        tag.store(new, Ordering::Relaxed);
        Ok(new)
    }

    /// Takes the number `old`, which `tag` holds, back if the cache `is_unused`; whether it was.
    ///
    /// No core has a magazine of the cache, and none gets one: the number may be another's at once.
    pub(super) fn remove(&self, old: u8, tag: &AtomicU8, is_unused: impl FnOnce() -> bool) -> bool {
        let mut caches = self.caches.lock();
        let index = usize::from(old.wrapping_sub(FIRST_NAMED));
        match caches.get_mut(index) {
            Some(cache) if is_unused() => {
                *cache = None;
                tag.store(0, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    fn get(&self, index: usize) -> Option<&'static KmemCache> {
        self.caches.lock().get(index).copied().flatten()
    }
}

/// The named cache with `tag`.
pub(in crate::mm) fn named(tag: u8) -> Option<&'static KmemCache> {
    CACHES.get(usize::from(tag.checked_sub(FIRST_NAMED)?))
}

/// What the cache with `tag` is called.
pub(in crate::mm) fn name_of(tag: u8) -> &'static str {
    named(tag).map_or("kmalloc", KmemCache::name)
}

/// Every named cache that has a number, for the slab report.
pub fn named_caches() -> impl Iterator<Item = &'static KmemCache> {
    (0..MAX_NAMED_CACHES).filter_map(|index| CACHES.get(index))
}
