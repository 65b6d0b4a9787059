//! The objects one core keeps at hand: for each cache a small stack of pointers.
//!
//! ```text
//!            bottom                                                   end
//! magazine   | not null | 0 ..free.. 0 | object | object ... | object | 0 |
//!                                      ^ cursor                       ^ cursor when empty
//! ```
//!
//! A stack grows towards its bottom, which holds a word that is not null, and ends in a null
//! pointer; free entries are null. So the cursor alone says all the fast paths must know: what it
//! points to is the object to take or null, and what lies below it is null where there is room. A
//! core that has no magazine for a cache yet, and interrupt handlers, which have none, point at
//! [`NOTHING`]: empty and full.
//!
//! A task and the handlers that interrupt it have cursors of their own, see
//! [`PerCpu`](crate::sync::PerCpu); so nothing is masked and nothing is atomic.

use crate::mm::fault;
use crate::mm::frame::FrameLookup;
#[cfg(target_os = "none")]
use crate::sync::MAX_CPUS;
use core::cell::Cell;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicPtr;

/// Numbers a cache may have as its tag in the frame descriptors.
pub(crate) const TAGS: usize = 1 << u8::BITS;

/// An entry of a magazine.
type Slot = *mut u8;

/// Entries in a stride, the unit of room for magazines.
pub(super) const STRIDE: usize = 32;

/// Entries of a magazine that hold no object: its bottom and its end.
pub(super) const ENDS: usize = 2;

/// What the bottom holds.
const BOTTOM: Slot = ptr::without_provenance_mut(1);

/// The entries of a magazine without objects and without room.
struct Nothing([Slot; ENDS]);

// SAFETY: the entries are only read.
unsafe impl Sync for Nothing {}

/// The magazine of everybody who has none, in memory that nobody can write.
static NOTHING: Nothing = Nothing([BOTTOM, ptr::null_mut()]);

fn nothing() -> *mut Slot {
    NOTHING.0.as_ptr().wrapping_add(1).cast_mut()
}

/// What one core, as a task or as interrupt handlers, has at hand of every cache. All zero until
/// [`init`](Self::init); nothing else may be called before.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Magazines {
    /// First, see [`PerCpu`](crate::sync::PerCpu).
    cursors: [Cell<*mut Slot>; TAGS],
    frames: Cell<FrameLookup>,
    /// Whether there are magazines at all: handlers have none.
    at_hand: Cell<bool>,
    /// Where the magazines of this host thread are.
    #[cfg(not(target_os = "none"))]
    bottoms: [Cell<*mut Slot>; TAGS],
}

impl Magazines {
    pub(crate) const fn new() -> Self {
        Self {
            frames: Cell::new(FrameLookup::EMPTY),
            at_hand: Cell::new(false),
            cursors: [const { Cell::new(ptr::null_mut()) }; TAGS],
            #[cfg(not(target_os = "none"))]
            bottoms: [const { Cell::new(ptr::null_mut()) }; TAGS],
        }
    }

    /// Makes every magazine empty; `at_hand` says whether there will be any.
    pub(crate) fn init(&self, at_hand: bool) {
        self.at_hand.set(at_hand);
        for cursor in &self.cursors {
            cursor.set(nothing());
        }
    }

    /// The magazines of the executing thread for the set of caches at address `of`: tests have
    /// several sets with the same tags.
    #[cfg(not(target_os = "none"))]
    pub(crate) fn on_host(of: usize) -> &'static Self {
        use std::cell::RefCell;
        use std::collections::HashMap;
        thread_local! {
            static OWN: RefCell<HashMap<usize, &'static Magazines>> = RefCell::default();
        }
        OWN.with_borrow_mut(|own| {
            *own.entry(of).or_insert_with(|| {
                let new = Box::leak(Box::new(Self::new()));
                new.init(true);
                new
            })
        })
    }

    /// Where frames are looked up.
    #[inline(always)]
    pub(crate) fn frames(&self) -> FrameLookup {
        self.frames.get()
    }

    pub(crate) fn set_frames(&self, frames: FrameLookup) {
        self.frames.set(frames);
    }

    #[inline(always)]
    fn cursor(&self, tag: u8) -> &Cell<*mut Slot> {
        &self.cursors[usize::from(tag)]
    }

    /// Takes the object pushed last.
    #[inline(always)]
    pub(super) fn pop(&self, tag: u8) -> Option<NonNull<u8>> {
        let cursor = self.cursor(tag);
        let top = cursor.get();
        // SAFETY: a cursor points at an entry of its magazine, or at its null.
        let object = NonNull::new(unsafe { top.read() })?;
        // SAFETY: above an object there is another one or the null.
        unsafe {
            top.write(ptr::null_mut());
            cursor.set(top.add(1));
        }
        Some(object)
    }

    /// Where the next object goes, unless there is no room for it.
    #[inline(always)]
    pub(super) fn room(&self, tag: u8) -> Option<Room<'_>> {
        let cursor = self.cursor(tag);
        let top = cursor.get();
        // SAFETY: below every entry a cursor points at there is another one, or the bottom.
        let below = unsafe { top.sub(1).read() };
        below.is_null().then_some(Room { cursor, top })
    }

    /// Where the magazine of the cache with `tag` is: `offset` strides into `core`'s part of `store`.
    pub(in crate::mm) fn holder<const N: usize>(
        &self,
        tag: u8,
        store: &SlotStore<N>,
        offset: usize,
        capacity: usize,
        core: usize,
    ) -> Holder<'_> {
        #[cfg(not(target_os = "none"))]
        let _ = (store, offset, core);
        Holder {
            magazines: self,
            tag,
            capacity,
            #[cfg(target_os = "none")]
            bottom: store.bottom(core, offset),
        }
    }
}

/// Where a core has its magazine of one cache.
///
/// What runs while pages are allocated - shrinkers, work that was put off - may close the magazine.
/// So it is asked for at each use, and never kept across an allocation.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Holder<'a> {
    magazines: &'a Magazines,
    tag: u8,
    capacity: usize,
    #[cfg(target_os = "none")]
    bottom: *mut Slot,
}

impl<'a> Holder<'a> {
    /// The magazine, if it is open.
    #[inline(always)]
    pub(super) fn opened(self) -> Option<Magazine<'a>> {
        let cursor = self.magazines.cursor(self.tag);
        (cursor.get() != nothing()).then(|| self.magazine())
    }

    /// The magazine, opened if it is not; `None` where there are none. While an allocation is to
    /// fail none is opened, so that each allocation is counted.
    #[inline(always)]
    pub(super) fn open(self) -> Option<Magazine<'a>> {
        self.opened().or_else(|| self.open_empty())
    }

    #[cold]
    fn open_empty(self) -> Option<Magazine<'a>> {
        // In the debug build every object goes to the slabs, where it is checked.
        if !self.magazines.at_hand.get() || cfg!(feature = "slab-debug") || fault::is_armed() {
            return None;
        }
        let magazine = self.magazine();
        // SAFETY: the bottom is the first entry of the magazine. All others are null.
        unsafe { magazine.bottom.write(BOTTOM) };
        magazine.cursor.set(magazine.end());
        Some(magazine)
    }

    fn magazine(self) -> Magazine<'a> {
        Magazine {
            cursor: self.magazines.cursor(self.tag),
            bottom: self.bottom(),
            capacity: self.capacity,
        }
    }

    #[cfg(target_os = "none")]
    fn bottom(self) -> *mut Slot {
        self.bottom
    }

    /// The first entry of this thread's magazine, which is allocated on first use.
    #[cfg(not(target_os = "none"))]
    fn bottom(self) -> *mut Slot {
        let bottom = &self.magazines.bottoms[usize::from(self.tag)];
        if bottom.get().is_null() {
            bottom.set(Stride::leak(self.capacity));
        }
        bottom.get()
    }
}

/// A free entry on top of a magazine.
pub(super) struct Room<'a> {
    cursor: &'a Cell<*mut Slot>,
    top: *mut Slot,
}

impl Room<'_> {
    /// Adds an object.
    #[inline(always)]
    pub(super) fn fill(self, object: NonNull<u8>) {
        // SAFETY: the entry below the cursor is free.
        unsafe {
            let top = self.top.sub(1);
            top.write(object.as_ptr());
            self.cursor.set(top);
        }
    }
}

/// One magazine, as the slow paths see it.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Magazine<'a> {
    cursor: &'a Cell<*mut Slot>,
    bottom: *mut Slot,
    capacity: usize,
}

impl<'a> Magazine<'a> {
    /// Where the null is.
    fn end(&self) -> *mut Slot {
        self.bottom.wrapping_add(self.capacity + 1)
    }

    /// Objects in the magazine.
    pub(super) fn len(&self) -> usize {
        (self.end().addr() - self.cursor.get().addr()) / size_of::<Slot>()
    }

    /// Leaves the empty magazine without room, until [`Holder::open`] is next called.
    pub(super) fn close(&self) {
        debug_assert_eq!(self.len(), 0);
        self.cursor.set(nothing());
    }

    /// How many more objects fit.
    pub(super) fn free(&self) -> usize {
        self.capacity - self.len()
    }

    /// The magazine, for many objects.
    #[inline(always)]
    pub(super) fn open(self) -> Open<'a> {
        Open {
            cursor: self.cursor,
            top: self.cursor.get(),
        }
    }
}

/// A magazine while objects are added or taken: the cursor is set when this is dropped, and nothing
/// else uses the magazine before.
pub(super) struct Open<'a> {
    cursor: &'a Cell<*mut Slot>,
    top: *mut Slot,
}

impl Open<'_> {
    /// Takes the object pushed last.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<NonNull<u8>> {
        // SAFETY: as in `Magazines::pop`.
        let object = NonNull::new(unsafe { self.top.read() })?;
        // SAFETY: as above.
        unsafe { self.top.write(ptr::null_mut()) };
        self.top = self.top.wrapping_add(1);
        Some(object)
    }

    /// Adds an object.
    ///
    /// # Safety
    ///
    /// There is room.
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, object: NonNull<u8>) {
        self.top = self.top.wrapping_sub(1);
        // SAFETY: not below the bottom, because there is room.
        unsafe { self.top.write(object.as_ptr()) };
    }
}

impl Drop for Open<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.cursor.set(self.top);
    }
}

/// Memory for the magazines of every core, `N` times [`STRIDE`] entries each. On a host each
/// thread allocates its own, because threads share core numbers.
#[derive(Debug)]
pub(in crate::mm) struct SlotStore<const N: usize> {
    #[cfg(target_os = "none")]
    cores: [[Stride; N]; MAX_CPUS],
}

#[derive(Debug)]
#[repr(align(64))]
struct Stride {
    _slots: [AtomicPtr<u8>; STRIDE],
}

impl<const N: usize> SlotStore<N> {
    pub(in crate::mm) const fn new() -> Self {
        Self {
            #[cfg(target_os = "none")]
            cores: [const {
                [const {
                    Stride {
                        _slots: [const { AtomicPtr::new(ptr::null_mut()) }; STRIDE],
                    }
                }; N]
            }; MAX_CPUS],
        }
    }

    /// The first entry of `core`'s magazine that starts `offset` strides into the core's.
    #[cfg(target_os = "none")]
    fn bottom(&self, core: usize, offset: usize) -> *mut Slot {
        let slots: *const [Stride; N] = &raw const self.cores[core % MAX_CPUS];
        slots
            .cast::<Stride>()
            .wrapping_add(offset)
            .cast_mut()
            .cast()
    }
}

impl Stride {
    /// Strides for a magazine of `capacity`.
    #[cfg(not(target_os = "none"))]
    fn leak(capacity: usize) -> *mut Slot {
        let strides = (capacity + ENDS).div_ceil(STRIDE);
        let slots: Vec<Self> = (0..strides)
            .map(|_| Self {
                _slots: [const { AtomicPtr::new(ptr::null_mut()) }; STRIDE],
            })
            .collect();
        slots.leak().as_mut_ptr().cast()
    }
}
