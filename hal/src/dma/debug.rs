//! A record of what is mapped for which device, and reports of calls that do not fit it
//! (`CONFIG_DMA_API_DEBUG`). `docs/dma-debug.md` says what each report means.
//!
//! Typed maps ([`map_single`](super::streaming::map_single), lists, coherent memory) and the calls
//! of [`raw`](super::raw) are recorded alike. The typed ones leave little to find: what they cannot
//! express is refused by the compiler or by an error. A check reports; it never changes what the
//! call does.
//!
//! Off until [`exchange`] is given a [`Checker`]; while off, a call pays for one load and a branch.
//! All functions may be called in any context. Reports go to the hook, without a lock held.

mod check;
mod checker;
mod ranges;
mod report;
mod table;

pub use check::Check;
pub use checker::Checker;
pub use report::{Call, Kind, Report, SgPlace, Site};

pub(super) use checker::Sync;

use super::direction::DirectionKind;
use super::lease::{ALIGNMENT, Lease};
use super::{Device, DmaError, DmaSegment, MemoryKind, maintenance};
use crate::addr::{DmaAddr, VirtAddr};
use crate::layout;
use crate::mm;
use crate::sync::{IrqLock, Once};
use checker::{Lent, Reports};
use core::ops::Range;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, Ordering};
use report::Lender;

/// Mappings recorded at a time unless the command line says otherwise. Linux prepares 65,536; here
/// it is a megabyte's worth.
pub const DEFAULT_ENTRIES: usize = 4096;

/// What a part of the image window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImagePart {
    /// A core's stack.
    Stack,
    /// Text or read-only data.
    ReadOnly,
}

/// What the checks need of the firmware.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// Told of every mistake. Called in any context, without a lock of this module held.
    pub report: fn(&Report),
    /// What lies at an address of the image window; `None` for statics.
    pub image_part: fn(VirtAddr) -> Option<ImagePart>,
}

static ON: AtomicBool = AtomicBool::new(false);
static CHECKER: IrqLock<Option<Checker>> = IrqLock::new(None);
static HOOKS: Once<Hooks> = Once::new();

/// Says who is told; the first call wins.
pub fn set_hooks(hooks: Hooks) {
    HOOKS.call_once(|| hooks);
}

/// Records in `checker` from now on, or nowhere, and returns the one that was in use.
///
/// To be called while nothing is mapped: a new checker knows of no mapping.
pub fn exchange(checker: Option<Checker>) -> Option<Checker> {
    let mut current = CHECKER.lock();
    ON.store(checker.is_some(), Ordering::Relaxed);
    core::mem::replace(&mut current, checker)
}

/// Whether calls are checked.
#[inline(always)]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Mappings there are, if calls are checked.
pub fn live() -> usize {
    CHECKER.lock().as_ref().map_or(0, Checker::live)
}

/// Calls `f` with each live mapping and the name of its device, without a lock of this module held.
/// What is mapped or unmapped meanwhile may be left out.
pub fn for_each_live(mut f: impl FnMut(&'static str, &Call)) {
    let mapping = |slot| CHECKER.lock().as_ref()?.mapping(slot);
    for (device, call) in slots().filter_map(mapping) {
        f(device, &call);
    }
}

/// The slots to look at for all mappings.
fn slots() -> Range<u32> {
    CHECKER.lock().as_ref().map_or(0..0, Checker::slots)
}

/// Reports every mapping that `device` still has, because its driver is done with it at `site`, and
/// returns how many there are.
#[cold]
pub(super) fn on_release(device: &Device, site: Site) -> usize {
    let leaks = |slot| {
        let found = CHECKER.lock().as_mut()?.leak(lender(device), slot, site);
        found.iter().for_each(tell);
        found.first().copied()
    };
    slots().filter_map(leaks).count()
}

/// What a typed map knows of itself.
#[derive(Clone, Copy)]
struct How {
    kind: Kind,
    direction: DirectionKind,
    maintained: bool,
}

/// A typed map that has succeeded, of memory at `cpu`.
#[inline(always)]
#[track_caller]
pub(super) fn on_map(
    device: &Device,
    kind: Kind,
    cpu: VirtAddr,
    lease: &Lease,
    direction: DirectionKind,
) {
    if is_on() {
        let how = How {
            kind,
            direction,
            maintained: lease.is_maintained(),
        };
        mapped(device, cpu, lease.segment(), how, Location::caller());
    }
}

/// A typed map that is about to end.
#[inline(always)]
#[track_caller]
pub(super) fn on_unmap(device: &Device, kind: Kind, lease: &Lease, direction: DirectionKind) {
    if is_on() {
        let how = How {
            kind,
            direction,
            maintained: lease.is_maintained(),
        };
        let nowhere = VirtAddr::default();
        unmapped(device, nowhere, lease.segment(), how, Location::caller());
    }
}

/// Bytes of a typed map that are about to be handed `to` CPU or device.
#[inline(always)]
#[track_caller]
pub(super) fn on_sync(device: &Device, part: DmaSegment, direction: DirectionKind, to: Sync) {
    if is_on() {
        let call = Call::new(Kind::Single, VirtAddr::default(), part, direction);
        hand_over(device, &call, to);
    }
}

/// What is said of coherent memory.
const COHERENT: How = How {
    kind: Kind::Coherent,
    direction: DirectionKind::Bidirectional,
    maintained: false,
};

/// Coherent memory that was given out at `cpu`.
#[inline(always)]
#[track_caller]
pub(super) fn on_alloc(device: &Device, cpu: VirtAddr, segment: DmaSegment) {
    if is_on() {
        mapped(device, cpu, segment, COHERENT, Location::caller());
    }
}

/// Coherent memory that is about to be freed.
#[inline(always)]
#[track_caller]
pub(super) fn on_free(device: &Device, cpu: VirtAddr, segment: DmaSegment) {
    if is_on() {
        unmapped(device, cpu, segment, COHERENT, Location::caller());
    }
}

/// [`record`] by what fits into registers, so that a call that is not made costs its caller no
/// memory. So is [`unmapped`].
#[cold]
#[inline(never)]
fn mapped(device: &Device, cpu: VirtAddr, segment: DmaSegment, how: How, site: Site) {
    let call = Call::at(site, how.kind, cpu, segment, how.direction);
    record(device, &call, how.maintained, true);
}

#[cold]
#[inline(never)]
fn unmapped(device: &Device, cpu: VirtAddr, segment: DmaSegment, how: How, site: Site) {
    forget(
        device,
        &Call::at(site, how.kind, cpu, segment, how.direction),
    );
}

/// Who a device is to the checker.
fn lender(device: &Device) -> Lender {
    Lender {
        id: core::ptr::from_ref(device).addr(),
        name: device.name(),
    }
}

/// Records a mapping.
#[cold]
pub(super) fn record(device: &Device, call: &Call, maintained: bool, checked: bool) {
    let is_cached = !matches!(call.kind, Kind::Coherent | Kind::Resource);
    let memory = layout::virt_to_phys(call.cpu).filter(|_| is_cached);
    let lent = Lent {
        memory,
        // The slots of a buffer that is bounced are nobody else's.
        is_copied: device.phys_addr(call.addr, call.len) != memory,
        granule: maintenance::writeback_granule(),
        maintained,
        checked,
        limits: device.limits(),
    };
    check(|checker| checker.map(lender(device), *call, &lent));
}

/// Ends the record of a mapping, before it is unmapped: afterwards the memory may be somebody
/// else's.
#[cold]
pub(super) fn forget(device: &Device, call: &Call) {
    check(|checker| checker.unmap(lender(device), *call));
}

/// Checks a free of coherent memory, whose record ends when the memory is dropped.
#[cold]
pub(super) fn free(device: &Device, call: &Call) {
    check(|checker| checker.free(lender(device), *call));
}

/// Checks a sync, before it is done.
#[cold]
pub(super) fn hand_over(device: &Device, call: &Call, to: Sync) {
    check(|checker| checker.sync(lender(device), *call, to));
}

/// The driver looks at whether the map that returned `addr` failed.
#[cold]
pub(super) fn look(device: &Device, addr: DmaAddr) {
    check(|checker| {
        checker.look(lender(device), addr);
        Reports::new()
    });
}

/// Reports a map that was refused, if the refusal is the caller's mistake: a result without a
/// reason does not say it.
#[cold]
pub(super) fn refuse(device: &Device, call: &Call, refusal: DmaError) {
    let Some(mistake) = mistake(&refusal) else {
        return;
    };
    check(|checker| checker.refuse(mistake, lender(device), *call, refusal));
}

/// The kind of mistake behind a refusal; `None` for what a driver that does everything right meets.
fn mistake(refusal: &DmaError) -> Option<Check> {
    match *refusal {
        DmaError::PartialLine { addr, len, granule } => {
            may_share_lines(addr, len, granule).then_some(Check::MapInvalid)
        }
        DmaError::OutOfReach { .. }
        | DmaError::PoolExhausted { .. }
        | DmaError::BounceExhausted { .. } => None,
        DmaError::NotMappable {
            kind: MemoryKind::Vmalloc,
            ..
        } => Some(Check::MapVmalloc),
        DmaError::NotMappable {
            addr,
            kind: MemoryKind::Image,
        } => {
            let part = HOOKS.get().and_then(|hooks| (hooks.image_part)(addr));
            Some(match part {
                Some(ImagePart::Stack) => Check::MapStack,
                Some(ImagePart::ReadOnly) => Check::MapReadOnly,
                None => Check::MapInvalid,
            })
        }
        _ => Some(Check::MapInvalid),
    }
}

/// Whether lines of `granule` bytes, of which the `len` bytes at `addr` cover a part, may hold what is
/// not the caller's: an object has lines of [`ALIGNMENT`] bytes for itself, and anything else pages.
fn may_share_lines(addr: VirtAddr, len: usize, granule: usize) -> bool {
    let is_object = |pa| mm::is_line_object(pa, len);
    granule > ALIGNMENT && layout::virt_to_phys(addr).is_some_and(is_object)
}

/// Asks the checker and tells the hook what it found.
fn check(f: impl FnOnce(&mut Checker) -> Reports) {
    let found = CHECKER.lock().as_mut().map(f);
    found.iter().flatten().for_each(tell);
}

fn tell(report: &Report) {
    if let Some(hooks) = HOOKS.get() {
        (hooks.report)(report);
    }
}

#[cfg(test)]
#[path = "debug/tests.rs"]
mod tests;
