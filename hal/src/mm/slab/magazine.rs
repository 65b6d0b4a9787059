//! The objects one core keeps at hand: a small stack of pointers.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// Most objects in a magazine.
pub(super) const CAPACITY: usize = 32;

/// A stack of free objects. All zero is an empty one.
#[derive(Debug)]
pub(super) struct Magazine {
    count: usize,
    objects: [MaybeUninit<NonNull<u8>>; CAPACITY],
}

// SAFETY: the objects are free memory that whoever holds the magazine owns.
unsafe impl Send for Magazine {}

impl Magazine {
    pub(super) const fn new() -> Self {
        Self {
            count: 0,
            objects: [MaybeUninit::uninit(); CAPACITY],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Takes the object pushed last.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<NonNull<u8>> {
        let last = self.count.checked_sub(1)?;
        let object = self.objects.get(last)?;
        self.count = last;
        // SAFETY: `push` initialised every entry below `count`.
        Some(unsafe { object.assume_init() })
    }

    /// Adds an object, unless there are `limit` or [`CAPACITY`] already.
    #[inline(always)]
    pub(super) fn push(&mut self, object: NonNull<u8>, limit: usize) -> bool {
        if self.count >= limit {
            return false;
        }
        let Some(entry) = self.objects.get_mut(self.count) else {
            return false;
        };
        entry.write(object);
        self.count += 1;
        true
    }

    /// Takes out the `count` objects that have been here longest, handing each to `f`.
    pub(super) fn drain_oldest(&mut self, count: usize, mut f: impl FnMut(NonNull<u8>)) {
        let count = count.min(self.count);
        for object in &self.objects[..count] {
            // SAFETY: `push` initialised every entry below `self.count`.
            f(unsafe { object.assume_init() });
        }
        self.objects.copy_within(count..self.count, 0);
        self.count -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(number: usize) -> NonNull<u8> {
        NonNull::without_provenance(core::num::NonZero::new(number + 1).unwrap())
    }

    #[test]
    fn takes_the_newest_and_drains_the_oldest() {
        let mut magazine = Magazine::new();
        assert_eq!(magazine.pop(), None);
        for number in 0..CAPACITY {
            assert!(magazine.push(object(number), CAPACITY));
        }
        assert!(!magazine.push(object(99), usize::MAX));
        let mut drained = Vec::new();
        magazine.drain_oldest(30, |object| drained.push(object));
        assert_eq!(drained, (0..30).map(object).collect::<Vec<_>>());
        assert!(!magazine.push(object(99), 2));
        assert_eq!(magazine.pop(), Some(object(31)));
        assert_eq!(magazine.pop(), Some(object(30)));
        assert_eq!(magazine.pop(), None);
    }
}
