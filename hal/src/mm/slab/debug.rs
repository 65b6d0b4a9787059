//! The debug build of the slab caches: red zones, poison, and who allocated and freed each object.
//!
//! ```text
//! slab    | padding, red zone | object | red zone | track | padding, red zone | object | ...
//! object  | bytes asked for | red zone up to the size of the class |
//! ```
//!
//! What surrounds an object takes room beside it, so objects stay aligned as promised. Every
//! allocation and every free goes to the slabs - cores keep nothing at hand - and checks the object:
//! the red zones say whether it is in use, and a free object without a constructor holds poison.
//! What is found wrong is reported and put right, and the call goes on. Packed caches have none of
//! this; each of their frees is checked in every build.

mod freed;

pub(in crate::mm) use freed::freed_object_in;

use super::{Cache, Geometry, KmemCache, SLOT};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::layout;
use crate::mm::frame::{Frame, FrameKind, FrameLookup};
use crate::sync::{IrqLock, Once, PerCpu};
use core::fmt;
use core::panic::Location;
use core::ptr::NonNull;

/// Bytes of red zone on each side of an object.
const ZONE: usize = 16;

/// Bytes after an object: a red zone, its track, and the red zone of the next.
pub(super) const META: usize = ZONE + size_of::<Track>() + ZONE;

const _: () = assert!(META == SLOT);

// The values Linux uses (`poison.h`).
/// In the red zones of a free object.
const RED_INACTIVE: u8 = 0xBB;
/// In the red zones of an object in use.
const RED_ACTIVE: u8 = 0xCC;
/// In a free object.
const POISON_FREE: u8 = 0x6B;
/// The last byte of a free object.
const POISON_END: u8 = 0xA5;
/// In memory that is nobody's.
const PADDING: u8 = 0x5A;

/// Who did something to an object: where in the source, and on which core.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The call.
    pub location: &'static Location<'static>,
    /// The core's number.
    pub core: u16,
}

impl Site {
    #[track_caller]
    pub(super) fn here() -> Self {
        Self {
            location: Location::caller(),
            core: PerCpu::current().index() as u16,
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on core {}", self.location, self.core)
    }
}

/// What is kept about an object. All zero in a new slab.
#[repr(C)]
#[derive(Clone, Copy)]
struct Track {
    allocated: Option<&'static Location<'static>>,
    freed: Option<&'static Location<'static>>,
    /// Bytes asked for.
    requested: u32,
    allocated_on: u16,
    freed_on: u16,
    reserved: u64,
}

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlabFault {
    /// Bytes beside an object, or beyond what was asked for, were written.
    Redzone,
    /// A free object was written.
    Poison,
    /// Memory that is no object's was written.
    Padding,
    /// A free object was freed.
    AlreadyFree,
    /// An object was freed into another cache than its own.
    WrongCache,
    /// What was freed is not the start of an object.
    NotAnObject,
}

impl fmt::Display for SlabFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redzone => "Redzone overwritten",
            Self::Poison => "Poison overwritten",
            Self::Padding => "Padding overwritten",
            Self::AlreadyFree => "Object already free",
            Self::WrongCache => "Object of another cache",
            Self::NotAnObject => "Not the start of an object",
        })
    }
}

/// What was found, where, and who had to do with it.
#[derive(Clone, Copy, Debug)]
pub struct SlabReport {
    /// What is wrong.
    pub fault: SlabFault,
    /// The object's cache.
    pub cache: &'static str,
    /// Where the object starts.
    pub object: VirtAddr,
    /// The first wrong byte, what it is and what it should be.
    pub byte: Option<(VirtAddr, u8, u8)>,
    /// The call that found it.
    pub caller: Site,
    /// Who allocated the object last.
    pub allocated: Option<Site>,
    /// Who freed it, if it is free.
    pub freed: Option<Site>,
}

impl fmt::Display for SlabReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cache, object) = (self.cache, self.object);
        writeln!(f, "BUG {cache}: {} at {object}", self.fault)?;
        if let Some((at, found, expected)) = self.byte {
            writeln!(f, "first byte {at}: {found:#04x}, not {expected:#04x}")?;
        }
        writeln!(f, "found by {}", self.caller)?;
        if let Some(site) = self.allocated {
            writeln!(f, "allocated by {site}")?;
        }
        if let Some(site) = self.freed {
            writeln!(f, "freed by {site}")?;
        }
        Ok(())
    }
}

static HOOK: Once<fn(&SlabReport)> = Once::new();
static LAST: IrqLock<Option<SlabReport>> = IrqLock::new(None);

/// Says who is told what is wrong with objects; the first call wins. The hook may be called in any
/// context and does not allocate.
pub fn set_slab_hook(hook: fn(&SlabReport)) {
    HOOK.call_once(|| hook);
}

/// The last report, which is forgotten then.
pub fn take_slab_report() -> Option<SlabReport> {
    LAST.lock().take()
}

fn report(report: SlabReport) {
    *LAST.lock() = Some(report);
    if let Some(hook) = HOOK.get() {
        hook(&report);
    }
}

/// An object of a slab and what surrounds it.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Slot<'a> {
    geometry: &'a Geometry,
    object: VirtAddr,
}

impl<'a> Slot<'a> {
    /// The object of a cache with `geometry` that starts at `object`.
    ///
    /// # Safety
    ///
    /// One starts there, in a slab prepared by [`Cache::prepare`], which stays a slab meanwhile.
    pub(in crate::mm) unsafe fn new(geometry: &'a Geometry, object: NonNull<u8>) -> Self {
        let object = VirtAddr::from_ptr(object.as_ptr());
        Self { geometry, object }
    }

    fn bytes(&self) -> usize {
        self.geometry.object as usize
    }

    /// Bytes of padding after the track.
    fn padding(&self) -> usize {
        self.geometry.size as usize - self.bytes() - META
    }

    fn fill(self, from: usize, len: usize, value: u8) {
        // SAFETY: offsets of a slot lie in its slab, whose bytes outside objects in use belong to
        // the caches.
        unsafe { (self.object + from).as_ptr::<u8>().write_bytes(value, len) };
    }

    /// Checks `len` bytes at `from`, which should be `value`: the first that is not, and the byte.
    fn differs(self, from: usize, len: usize, value: u8) -> Option<(VirtAddr, u8, u8)> {
        Self::first_other(self.object + from, len, value)
    }

    fn first_other(start: VirtAddr, len: usize, value: u8) -> Option<(VirtAddr, u8, u8)> {
        (0..len).find_map(|at| {
            // SAFETY: as in `fill`. Volatile, because stray stores are what is looked for.
            let found = unsafe { (start + at).as_ptr::<u8>().read_volatile() };
            (found != value).then_some((start + at, found, value))
        })
    }

    fn track_at(self) -> *mut Track {
        (self.object + (self.bytes() + ZONE)).as_ptr()
    }

    fn track(self) -> Track {
        // SAFETY: `prepare` wrote a track there, and only this module writes it.
        unsafe { self.track_at().read() }
    }

    fn set_track(self, track: Track) {
        // SAFETY: as in `track`; the object's slot is the caller's.
        unsafe { self.track_at().write(track) };
    }

    /// What [`SlabReport`] says of the object.
    fn report(
        self,
        fault: SlabFault,
        cache: &'static str,
        byte: Option<(VirtAddr, u8, u8)>,
        caller: Site,
    ) {
        let track = self.track();
        let site = |location: Option<_>, core| location.map(|location| Site { location, core });
        report(SlabReport {
            fault,
            cache,
            object: self.object,
            byte,
            caller,
            allocated: site(track.allocated, track.allocated_on),
            freed: site(track.freed, track.freed_on),
        });
    }

    fn set_zones(self, value: u8) {
        let left = self.object.get() - ZONE;
        // SAFETY: the red zone before an object lies in its slab.
        unsafe { VirtAddr::new(left).as_ptr::<u8>().write_bytes(value, ZONE) };
        self.fill(self.bytes(), ZONE, value);
    }

    fn set_poison(self) {
        self.fill(0, self.bytes() - 1, POISON_FREE);
        self.fill(self.bytes() - 1, 1, POISON_END);
    }

    /// Reports what is wrong; whether something is.
    fn check(self, cache: &'static str, in_use: bool, poisoned: bool, caller: Site) -> bool {
        let zone = if in_use { RED_ACTIVE } else { RED_INACTIVE };
        let requested = self.track().requested as usize;
        let left = VirtAddr::new(self.object.get() - ZONE);
        let mut byte =
            Self::first_other(left, ZONE, zone).or_else(|| self.differs(self.bytes(), ZONE, zone));
        if in_use && byte.is_none() {
            byte = self.differs(requested, self.bytes().saturating_sub(requested), zone);
        }
        let found = if byte.is_some() {
            Some((SlabFault::Redzone, byte))
        } else {
            let last = self.bytes() - 1;
            let poison = || {
                self.differs(0, last, POISON_FREE)
                    .or_else(|| self.differs(last, 1, POISON_END))
            };
            let padding = || self.differs(self.bytes() + META - ZONE, self.padding(), PADDING);
            match (!in_use && poisoned).then(poison).flatten() {
                None => padding().map(|byte| (SlabFault::Padding, Some(byte))),
                byte => Some((SlabFault::Poison, byte)),
            }
        };
        if let Some((fault, byte)) = found {
            self.report(fault, cache, byte, caller);
            self.fill(self.bytes() + META - ZONE, self.padding(), PADDING);
        }
        found.is_some()
    }

    /// Notes that only `requested` bytes of the object, which is in use, may be written.
    pub(in crate::mm) fn set_requested(self, requested: usize) {
        let requested = requested.min(self.bytes());
        self.set_track(Track {
            requested: requested as u32,
            ..self.track()
        });
        self.fill(requested, self.bytes() - requested, RED_ACTIVE);
    }

    /// Lets all of the object, which is in use, be written: its owner asked how much there is. The
    /// bytes added are zero.
    pub(in crate::mm) fn expose(self) {
        let track = self.track();
        let requested = track.requested as usize;
        self.fill(requested, self.bytes().saturating_sub(requested), 0);
        self.set_track(Track {
            requested: self.geometry.object,
            ..track
        });
    }
}

impl Cache<'_> {
    fn slot(&self, object: NonNull<u8>) -> Slot<'_> {
        // SAFETY: the callers below pass objects of this cache.
        unsafe { Slot::new(self.geometry, object) }
    }

    /// Writes red zones, padding and poison into a block that will be a slab.
    pub(super) fn prepare(&self, slab: Pfn, order: u32) {
        let start = layout::phys_to_virt(slab.phys());
        // SAFETY: the block belongs to the caller.
        unsafe {
            start
                .as_ptr::<u8>()
                .write_bytes(PADDING, PAGE_SIZE << order);
        }
        let (lead, size) = (self.geometry.lead as usize, self.geometry.size as usize);
        for number in 0..self.geometry.objects(order) as usize {
            if let Some(object) = NonNull::new((start + (lead + number * size)).as_ptr()) {
                let slot = self.slot(object);
                slot.set_zones(RED_INACTIVE);
                slot.set_poison();
                slot.set_track(Track {
                    allocated: None,
                    freed: None,
                    requested: 0,
                    allocated_on: 0,
                    freed_on: 0,
                    reserved: 0,
                });
            }
        }
    }

    /// Checks an object that was free and is the caller's now.
    #[track_caller]
    pub(super) fn object_taken(&self, object: NonNull<u8>) {
        let (slot, site) = (self.slot(object), Site::here());
        slot.check(self.name(), false, self.constructor.is_none(), site);
        slot.set_zones(RED_ACTIVE);
        slot.set_track(Track {
            allocated: Some(site.location),
            freed: None,
            requested: self.geometry.object,
            allocated_on: site.core,
            freed_on: 0,
            reserved: 0,
        });
    }

    /// Checks an object in use that the caller gives up.
    #[track_caller]
    pub(super) fn object_given(&self, object: NonNull<u8>) {
        let (slot, site) = (self.slot(object), Site::here());
        slot.check(self.name(), true, false, site);
        slot.set_zones(RED_INACTIVE);
        if self.constructor.is_none() {
            slot.set_poison();
        }
        slot.set_track(Track {
            freed: Some(site.location),
            freed_on: site.core,
            ..slot.track()
        });
    }

    /// Whether the free object was ever in use.
    pub(super) fn was_freed(&self, object: NonNull<u8>) -> bool {
        self.slot(object).track().freed.is_some()
    }

    /// Reports that `va`, in `frame`, was freed and is nothing that may be.
    pub(super) fn wrong_free(
        &self,
        fault: SlabFault,
        va: VirtAddr,
        pa: PhysAddr,
        frame: &Frame,
        caller: Site,
    ) {
        if let Some(object) = self.object_around(pa, frame) {
            let va = layout::phys_to_virt(object);
            if let Some(object) = NonNull::new(va.as_ptr()) {
                self.slot(object).report(fault, self.name(), None, caller);
            }
        } else {
            report(SlabReport {
                fault,
                cache: self.name(),
                object: va,
                byte: None,
                caller,
                allocated: None,
                freed: None,
            });
        }
    }

    fn name(&self) -> &'static str {
        super::name_of(self.tag)
    }

    /// Where the object starts that `pa`, in `frame` of a slab of this cache, is in or beside.
    fn object_around(&self, pa: PhysAddr, frame: &Frame) -> Option<PhysAddr> {
        let order = frame.slab_order();
        let slab = pa.align_down(PAGE_SIZE << order);
        let offset = (pa.get() - slab.get()) as usize;
        let (lead, size) = (self.geometry.lead as usize, self.geometry.size as usize);
        let number = offset.checked_sub(lead)? / size;
        (number < self.geometry.objects(order) as usize).then(|| slab + (lead + number * size))
    }

    /// Whether the object that `pa`, in `frame`, is in is free.
    fn is_freed(&self, frames: FrameLookup, pa: PhysAddr, frame: &Frame) -> bool {
        let object = self.object_around(pa, frame);
        let first = object.and_then(|object| Some((object, frames.find(object.pfn())?)));
        first.is_none_or(|(object, first)| {
            first.objects_out() >> (object.page_offset() / SLOT) & 1 == 0
        })
    }

    /// Checks all objects of the cache; how many are not as they should be. Nobody allocates from
    /// the cache or frees meanwhile.
    #[track_caller]
    pub(in crate::mm) fn validate(&self, frames: FrameLookup) -> usize {
        let mut wrong = 0;
        let site = Site::here();
        frames.for_each_slab(self.tag, |pfn, frame| {
            let order = frame.slab_order();
            let mut starts = self
                .geometry
                .starts(order, super::slabs::part_of(pfn, order));
            while starts != 0 {
                let number = starts.trailing_zeros();
                starts &= starts - 1;
                let in_use = frame.objects_out() >> number & 1 == 1;
                let va = layout::phys_to_virt(pfn.phys()) + number as usize * SLOT;
                if let Some(object) = NonNull::new(va.as_ptr()) {
                    let poisoned = self.constructor.is_none();
                    let found = self.slot(object).check(self.name(), in_use, poisoned, site);
                    wrong += usize::from(found);
                }
            }
        });
        wrong
    }
}

/// Calls `f` with the cache of a slab that `frame` is part of and that has red zones. The caches of
/// `kmalloc` are the machine's.
fn with_owner<R>(frame: &Frame, f: impl FnOnce(Cache<'_>) -> R) -> Option<R> {
    if frame.kind() != FrameKind::Slab || super::is_packed(frame) {
        return None;
    }
    let general = crate::mm::kmalloc_caches().cache(frame.tag());
    let cache = general.or_else(|| super::named(frame.tag()).map(KmemCache::numbered));
    cache.map(f)
}

/// Reports that the object at `va`, in `frame`, was freed into another cache than its own.
#[track_caller]
pub(super) fn report_wrong_cache(va: VirtAddr, pa: PhysAddr, frame: &Frame) {
    let site = Site::here();
    with_owner(frame, |owner| {
        owner.wrong_free(SlabFault::WrongCache, va, pa, frame, site);
    });
}

#[cfg(test)]
mod tests;
