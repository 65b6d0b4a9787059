//! Pages mapped for a moment, wherever they are.
//!
//! Every frame of RAM is in the direct map, so the kernel needs no second address for it. A
//! temporary one has an end: after it no stray pointer reaches the page, which the direct map
//! cannot promise.
//!
//! Each core has a few slots of its own, every one followed by an unmapped page, so that a handler
//! that interrupts a task finds one without waiting for another core.
//!
//! A slot belongs to one core, yet it is flushed from the TLBs of all. Any core may walk the tables
//! for any address it merely speculates on, and may then hold the translation as long as it likes.
//! A local flush would leave it there when the frame is freed, given to a device as non-cacheable
//! memory, and speculatively read through the old translation: a stale cacheable line. And the
//! slot's next frame would be made without the break of the last one.
//!
//! No cache maintenance is needed. The frame has the same type here as in the direct map, and data
//! caches are physically tagged (Arm ARM D7.5).

use super::MemoryTypeError;
use crate::addr::{PAGE_SIZE, Pfn, PhysRange, VirtAddr};
use crate::layout::KMAP;
use crate::mmu::{Access, Attributes, KernelMapper, Level, MapError, MemoryType, Stale};
use crate::sync::{IrqLock, MAX_CPUS, PerCpu};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, Ordering};

/// Temporary mappings a core can have at a time, of its task and its interrupt handlers together.
pub const KMAP_SLOTS: usize = 4;

/// Bytes from one slot to the next: a page and its guard.
const STRIDE: usize = 2 * PAGE_SIZE;

const _: () = assert!(KMAP_SLOTS <= u8::BITS as usize);
const _: () = assert!(MAX_CPUS * KMAP_SLOTS * STRIDE <= KMAP.size);

const ATTRIBUTES: Attributes = Attributes::new(MemoryType::NormalWriteBack, Access::ReadWrite);

/// Why a page was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KmapError {
    /// Every slot of the core is in use.
    #[error("all {KMAP_SLOTS} temporary mappings of core {core} are in use")]
    NoSlot {
        /// The core.
        core: usize,
    },
    /// The window is not set up yet.
    #[error("temporary mappings are not set up yet")]
    NotReady,
    /// The frame is not Normal write-back memory, or is none.
    #[error(transparent)]
    MemoryType(#[from] MemoryTypeError),
    /// The tables could not be changed.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// The window of temporary mappings of one tree.
#[derive(Debug)]
pub struct Kmap {
    tables: &'static IrqLock<KernelMapper>,
    /// Whether a frame may be mapped as a type.
    check_memory_type: fn(Pfn, MemoryType) -> Result<(), MemoryTypeError>,
    /// The slots in use of each core, a bit for each.
    used: [AtomicU8; MAX_CPUS],
}

impl Kmap {
    /// The window of temporary mappings of `tables`. `check_memory_type` tells whether a frame,
    /// anybody's, may be mapped as a type, and may be called in any context.
    pub const fn new(
        tables: &'static IrqLock<KernelMapper>,
        check_memory_type: fn(Pfn, MemoryType) -> Result<(), MemoryTypeError>,
    ) -> Self {
        Self {
            tables,
            check_memory_type,
            used: [const { AtomicU8::new(0) }; MAX_CPUS],
        }
    }

    /// Maps the frame `pfn` at a temporary address, until the result is dropped: Normal write-back,
    /// readable and writable, never executable. Linux: `kmap_local_page`.
    ///
    /// Never blocks; may be called in any context that may take the tables' lock, interrupt
    /// handlers included. Unlike Linux's, mappings may end in any order.
    ///
    /// # Errors
    ///
    /// [`KmapError::MemoryType`] for a frame of another type or none, [`KmapError::NoSlot`] for
    /// more than [`KMAP_SLOTS`] mappings on a core, [`KmapError::Map`] if there is no memory for the
    /// window's table, which the first mapping makes and which stays.
    ///
    /// # Safety
    ///
    /// Until the mapping is dropped the frame is not freed and keeps its memory type. Through which
    /// of its addresses it is accessed is the caller's business.
    #[doc(alias = "kmap_local_page")]
    #[doc(alias = "kmap_atomic")]
    pub unsafe fn kmap_local(&self, pfn: Pfn) -> Result<LocalMapping<'_>, KmapError> {
        (self.check_memory_type)(pfn, ATTRIBUTES.memory_type)?;
        let (slot, va) = self.take_slot()?;
        let start = pfn.phys();
        let frame = PhysRange::new(start, start + PAGE_SIZE);
        // SAFETY: the frame has the memory type, as just checked, and keeps it by the caller's
        // promise; nothing here is executable, and frames of the image have no descriptor.
        unsafe {
            self.tables
                .lock()
                .map_untraced(va, frame, ATTRIBUTES, Level::L3)
        }?;
        Ok(LocalMapping {
            tables: self.tables,
            va,
            _slot: slot,
            stays_on_its_core: PhantomData,
        })
    }

    /// Takes a slot of this core.
    fn take_slot(&self) -> Result<(Slot<'_>, VirtAddr), KmapError> {
        let core = PerCpu::current().index() % MAX_CPUS;
        let used = &self.used[core];
        // A handler that interrupts has given back what it took when it returns, but a leaked
        // mapping's slot stays taken, so the update is atomic.
        let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let free = used.trailing_ones();
            ((free as usize) < KMAP_SLOTS).then_some(used | 1 << free)
        });
        let number = taken
            .map_err(|_| KmapError::NoSlot { core })?
            .trailing_ones();
        let slot = Slot {
            used,
            bit: 1 << number,
        };
        let va = KMAP.base + (core * KMAP_SLOTS + number as usize) * STRIDE;
        Ok((slot, va))
    }
}

/// A slot in use, until it is dropped.
#[derive(Debug)]
struct Slot<'a> {
    used: &'a AtomicU8,
    bit: u8,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.used.fetch_and(!self.bit, Ordering::Relaxed);
    }
}

/// A page mapped by [`Kmap::kmap_local`]; unmapped and flushed on every core when dropped.
///
/// The slot is its core's, so the mapping is dropped there:
///
/// ```compile_fail,E0277
/// # use hal::mm::LocalMapping;
/// fn is_send<T: Send>() {}
/// is_send::<LocalMapping<'_>>();
/// ```
#[derive(Debug)]
#[must_use = "the page is unmapped at once"]
pub struct LocalMapping<'a> {
    tables: &'static IrqLock<KernelMapper>,
    va: VirtAddr,
    /// Given back after the flush.
    _slot: Slot<'a>,
    stays_on_its_core: PhantomData<*mut ()>,
}

impl LocalMapping<'_> {
    /// Where the page is mapped.
    pub const fn va(&self) -> VirtAddr {
        self.va
    }
}

impl Drop for LocalMapping<'_> {
    /// Linux: `kunmap_local`.
    fn drop(&mut self) {
        let mut stale = Stale::empty(self.va);
        // SAFETY: pointers made from the address are the user's to end before the mapping.
        let retired = unsafe { self.tables.lock().retire(&mut stale, PAGE_SIZE) };
        debug_assert_eq!(retired, Ok(()));
        stale.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::trace::{Op, record_during};
    use crate::layout::host;
    use crate::mm::FrameError;
    use crate::mmu::kernel::scratch_mapper;

    const CONFLICTING: Pfn = Pfn::new(7);
    const NO_FRAME: Pfn = Pfn::new(8);

    fn check(pfn: Pfn, wanted: MemoryType) -> Result<(), MemoryTypeError> {
        let has = MemoryType::NormalNonCacheable;
        match pfn {
            CONFLICTING => Err(MemoryTypeError::Conflict { pfn, has, wanted }),
            NO_FRAME => Err(FrameError::Untouched(pfn).into()),
            _ => Ok(()),
        }
    }

    fn scratch() -> &'static Kmap {
        let tables = Box::leak(Box::new(IrqLock::new(scratch_mapper(4))));
        Box::leak(Box::new(Kmap::new(tables, check)))
    }

    fn frame() -> Pfn {
        host::ram(4096, 4096).start.pfn()
    }

    fn map(kmap: &Kmap, pfn: Pfn) -> Result<LocalMapping<'_>, KmapError> {
        // SAFETY: the frames are not accessed through the mapping.
        unsafe { kmap.kmap_local(pfn) }
    }

    #[test]
    fn a_mapping_ends_with_its_flush_on_every_core() {
        let kmap = scratch();
        let pfn = frame();
        // So that the table is there.
        drop(map(kmap, pfn).unwrap());
        let (mapping, ops) = record_during(|| map(kmap, pfn).unwrap());
        assert_eq!(ops, [Op::DsbIshst, Op::Isb]);
        let va = mapping.va();
        assert!(KMAP.contains(va));
        let leaf = kmap.tables.lock().leaf(va).unwrap();
        assert_eq!((leaf.pa.pfn(), leaf.attributes()), (pfn, Some(ATTRIBUTES)));
        let guard = kmap.tables.lock().leaf(va + PAGE_SIZE);
        assert_eq!(guard, None);
        let ((), ops) = record_during(|| drop(mapping));
        assert_eq!(
            ops,
            [Op::DsbIshst, Op::TlbLastLevel(va), Op::DsbIsh, Op::Isb]
        );
        assert_eq!(kmap.tables.lock().leaf(va), None);
    }

    #[test]
    fn mappings_nest_up_to_the_slots_and_end_in_any_order() {
        let kmap = scratch();
        let frames: [Pfn; KMAP_SLOTS] = core::array::from_fn(|_| frame());
        let mut mappings: Vec<_> = frames.map(|pfn| map(kmap, pfn).unwrap()).into();
        for (mapping, pfn) in mappings.iter().zip(frames) {
            let leaf = kmap.tables.lock().leaf(mapping.va()).unwrap();
            assert_eq!(leaf.pa.pfn(), pfn);
        }
        let core = PerCpu::current().index();
        let refused = map(kmap, frames[0]).map(drop);
        assert_eq!(refused, Err(KmapError::NoSlot { core }));
        let freed = mappings.remove(1).va();
        let again = map(kmap, frames[0]).unwrap();
        assert_eq!(again.va(), freed, "the slot that is free");
        drop(mappings);
        drop(again);
        let leaf = kmap.tables.lock().first_leaf(KMAP.base, KMAP.end());
        assert_eq!(leaf, None);
    }

    #[test]
    fn cores_have_slots_of_their_own() {
        let kmap = scratch();
        let here = map(kmap, frame()).unwrap();
        let (va, core) = (here.va(), PerCpu::current().index());
        let others = std::thread::spawn(move || {
            // Threads are numbered modulo the cores there are.
            let mapping = map(kmap, frame()).unwrap();
            (mapping.va(), PerCpu::current().index())
        });
        let (other, other_core) = others.join().unwrap();
        assert_ne!(va, other);
        let distance = va.get().abs_diff(other.get()) / STRIDE;
        assert_eq!(
            distance / KMAP_SLOTS,
            core.abs_diff(other_core),
            "{va} {other}"
        );
    }

    #[test]
    fn frames_of_another_type_are_refused_by_name_and_take_no_slot() {
        let kmap = scratch();
        let (wanted, has) = (MemoryType::NormalWriteBack, MemoryType::NormalNonCacheable);
        let pfn = CONFLICTING;
        let conflict = MemoryTypeError::Conflict { pfn, has, wanted };
        for _ in 0..=KMAP_SLOTS {
            let refused = map(kmap, CONFLICTING).map(drop);
            assert_eq!(refused, Err(conflict.into()));
        }
        let refused = map(kmap, NO_FRAME).map(drop);
        let untouched = MemoryTypeError::from(FrameError::Untouched(NO_FRAME));
        assert_eq!(refused, Err(untouched.into()));
        assert_eq!(
            kmap.used[PerCpu::current().index()].load(Ordering::Relaxed),
            0
        );
    }

    #[test]
    fn without_a_table_nothing_is_mapped_and_no_slot_is_lost() {
        let tables = Box::leak(Box::new(IrqLock::new(scratch_mapper(1))));
        let kmap = Kmap::new(tables, check);
        for _ in 0..=KMAP_SLOTS {
            let refused = map(&kmap, frame()).map(drop);
            assert!(matches!(
                refused,
                Err(KmapError::Map(MapError::OutOfTables(_)))
            ));
        }
    }
}
