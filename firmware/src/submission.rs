//! Submissions that are watched while they run, and those an engine must refuse.

use crate::clock;
use crate::machine::machine;
use hal::addr::{PhysAddr, VirtAddr};
use hal::arch::{cpu, translate};
use hal::dma::engine::{Destination, Source};
use hal::dma::{Device, DmaEngine, DmaError, Transfer};
use hal::{layout, smp};

/// Copies the first segment of `src` to that of `dst`, of the same length, and calls `during`
/// between start and end, with IRQs masked so that no handler of this core ends it before. Waits
/// at most `timeout_ns`.
///
/// # Errors
///
/// Those of the engine.
///
/// # Panics
///
/// If the engine cannot be stopped: it may still write the memory.
#[expect(
    clippy::needless_pass_by_ref_mut,
    reason = "the engine writes through it"
)]
pub(crate) fn copy_while(
    engine: &dyn DmaEngine,
    src: &dyn Source,
    dst: &mut dyn Destination,
    timeout_ns: u64,
    during: impl FnOnce(),
) -> Result<(), DmaError> {
    if cpu::irqs_masked() {
        return Err(DmaError::IrqsMasked);
    }
    let (Some(from), Some(to)) = (src.segment(0), dst.segment(0)) else {
        return Err(DmaError::ZeroLength);
    };
    let transfer = Transfer {
        src: from.addr,
        dst: to.addr,
        len: from.len.min(to.len),
    };
    let irq = cpu::irq_save();
    // SAFETY: source and destination are borrowed until this returns, which is after `wait`, and not
    // if the engine runs on.
    let started = unsafe { engine.submit(&[transfer]) };
    if started.is_ok() {
        during();
    }
    cpu::irq_restore(irq);
    let ended = engine.wait(started?, timeout_ns);
    if ended == Err(DmaError::Wedged) {
        panic!("{} does not stop", engine.device().name());
    }
    ended
}

/// Nanoseconds between two tries to submit.
const PAUSE_NS: u64 = 5_000_000;

/// Calls `copy` until no other core's submission keeps it from starting. That lasts at most
/// `timeout_ns`, the time for one submission, for each core.
///
/// # Errors
///
/// Those of `copy`: [`DmaError::Busy`] if the engine was never free.
pub(crate) fn when_free(
    timeout_ns: u64,
    mut copy: impl FnMut() -> Result<(), DmaError>,
) -> Result<(), DmaError> {
    let timer = &machine().timer;
    let patience = timeout_ns.saturating_mul(smp::online().count() as u64);
    let deadline = timer.now_ns().saturating_add(patience);
    loop {
        match copy() {
            Err(DmaError::Busy) if timer.now_ns() < deadline => clock::pause(PAUSE_NS),
            ended => return ended,
        }
    }
}

/// What the engine says to a submission of `transfers`, if its own check refuses them.
///
/// # Errors
///
/// The engine's refusal.
///
/// # Panics
///
/// If the engine starts what its check refuses: the machine is not to be trusted any further.
pub(crate) fn submit_refused(
    engine: &dyn DmaEngine,
    transfers: &[Transfer],
) -> Result<(), DmaError> {
    // Asked first, so that a submission that would run is never made.
    if engine.check(transfers).is_ok() {
        return Ok(());
    }
    // SAFETY: the engine refuses what its check refuses, or nothing runs after this.
    match unsafe { engine.submit(transfers) } {
        Ok(ticket) => panic!("{ticket:?} for what the engine's check refuses"),
        Err(refusal) => Err(refusal),
    }
}

/// What a busy engine says to another submission.
///
/// # Panics
///
/// If the engine takes it: nothing could be said of either copy any more.
#[expect(
    clippy::needless_pass_by_ref_mut,
    reason = "the engine would write through it"
)]
pub(crate) fn submit_while_busy(
    engine: &dyn DmaEngine,
    src: &dyn Source,
    dst: &mut dyn Destination,
) -> Option<DmaError> {
    let (from, to) = (src.segment(0)?, dst.segment(0)?);
    let transfer = Transfer {
        src: from.addr,
        dst: to.addr,
        len: from.len.min(to.len),
    };
    // SAFETY: the memory is borrowed until this returns, and it does not return if the engine took
    // the submission.
    match unsafe { engine.submit(&[transfer]) } {
        Ok(ticket) => panic!("{ticket:?} from a busy engine"),
        Err(refusal) => Some(refusal),
    }
}

/// Asks for a streaming map of `len` bytes at `va`, which must be refused: an address outside the
/// direct map, no bytes, or a length that wraps.
///
/// # Errors
///
/// The refusal.
pub(crate) fn map_refused(device: &Device, va: VirtAddr, len: usize) -> Result<(), DmaError> {
    let is_direct = hal::layout::virt_to_phys(va).is_some();
    let wraps = va.checked_add(len).is_none();
    if is_direct && len != 0 && !wraps {
        return Ok(());
    }
    // SAFETY: the address is outside the direct map, or the range empty or impossible: each is
    // refused and carries no obligation.
    let mapping =
        unsafe { hal::dma::streaming::map_single::<hal::dma::ToDevice>(device, va.as_ptr(), len) };
    mapping.map(drop)
}

/// What a map of `len` bytes of RAM at `pa`, which the caller does not own, is told. `Ok` without a
/// map if it is not in the direct map.
///
/// # Errors
///
/// The refusal.
pub(crate) fn map_unowned(device: &Device, pa: PhysAddr, len: usize) -> Result<(), DmaError> {
    let va = layout::phys_to_virt(pa);
    if translate::read_el1(va).page().is_none() {
        return Ok(());
    }
    // SAFETY: nobody is told the address. Should the map be accepted, it ends at once, and all it did
    // to the memory, which is mapped, is to clean lines: no byte changes by that.
    let mapping =
        unsafe { hal::dma::streaming::map_single::<hal::dma::ToDevice>(device, va.as_ptr(), len) };
    mapping.map(drop)
}
