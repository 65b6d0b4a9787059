//! Devices that copy memory: the trait they share, and safe copies through it.

use super::{Device, DmaError, DmaSegment};
use crate::addr::DmaAddr;
use crate::arch::{barrier, cpu};
use crate::trace::trace;
use core::fmt;

/// One contiguous copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// First byte to read.
    pub src: DmaAddr,
    /// First byte to write.
    pub dst: DmaAddr,
    /// Bytes.
    pub len: usize,
}

/// Names one submission to one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a submission ends with `wait`"]
pub struct Ticket(u32);

/// Time and sleep, as an engine needs them to wait.
pub trait Clock: Sync {
    /// Nanoseconds since some fixed moment. Never goes back.
    fn now_ns(&self) -> u64;

    /// Sleeps in `WFI` until an interrupt is pending on this core or `deadline_ns` has passed.
    ///
    /// Called with IRQs masked; must return with IRQs masked, so that a wake-up between a caller's
    /// last look and the `WFI` is not lost. An implementation arms this core's timer for the
    /// deadline, because no other interrupt may come.
    fn sleep_until(&self, deadline_ns: u64);
}

impl fmt::Debug for dyn Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A device that copies memory, completing by interrupt.
///
/// An engine works on one submission at a time. All methods may be called from several cores.
pub trait DmaEngine: Sync {
    /// The device the engine is: its reach, its coherence, its name.
    fn device(&self) -> &'static Device;

    /// Every transfer's length must be a multiple of this, in bytes.
    fn length_granule(&self) -> usize;

    /// The longest transfer, in bytes: a multiple of the granule.
    fn max_len(&self) -> usize;

    /// The most transfers in one submission.
    fn max_transfers(&self) -> usize;

    /// Nanoseconds after which a submission of `len` bytes in all counts as hung.
    fn timeout_ns(&self, len: usize) -> u64;

    /// Starts `transfers`, one after the other, and returns without waiting. The engine is busy
    /// until [`Self::wait`] has returned how they ended.
    ///
    /// Every transfer is checked ([`Self::check`]) before the first register is touched. Earlier
    /// stores and cache maintenance of this core are complete before the engine starts.
    ///
    /// # Errors
    ///
    /// Those of [`Self::check`], [`DmaError::Busy`], [`DmaError::Wedged`].
    ///
    /// # Safety
    ///
    /// Until [`Self::wait`] has returned for the ticket, the sources stay valid and unchanged, and
    /// nobody else accesses the destinations.
    unsafe fn submit(&self, transfers: &[Transfer]) -> Result<Ticket, DmaError>;

    /// Serves the engine's interrupt and returns whether it was the engine's: lines are shared.
    ///
    /// To be called by the interrupt handler, before the end of interrupt is signalled.
    fn on_interrupt(&self) -> bool;

    /// Interrupts of the engine that [`Self::on_interrupt`] has served.
    fn interrupts(&self) -> u64;

    /// Sleeps until the submission has ended, at most `timeout_ns`, and returns how it ended.
    ///
    /// When it returns, the engine does not access the submission's memory any more and takes new
    /// ones - unless it returns [`DmaError::Wedged`].
    ///
    /// # Errors
    ///
    /// [`DmaError::IrqsMasked`] at once, with the submission still running. [`DmaError::Bus`],
    /// [`DmaError::Timeout`], [`DmaError::Aborted`], [`DmaError::StaleTicket`],
    /// [`DmaError::Wedged`].
    fn wait(&self, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError>;

    /// Stops the current submission, if any; its `wait` returns [`DmaError::Aborted`].
    fn abort(&self);

    /// Checks what a submission asks for.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`] (also for no transfer at all), [`DmaError::TooManyTransfers`],
    /// [`DmaError::LengthGranule`], [`DmaError::SegmentTooLong`], [`DmaError::ForeignAddress`].
    fn check(&self, transfers: &[Transfer]) -> Result<(), DmaError> {
        let (count, max) = (transfers.len(), self.max_transfers());
        if count == 0 {
            return Err(DmaError::ZeroLength);
        }
        if count > max {
            return Err(DmaError::TooManyTransfers { count, max });
        }
        let (granule, max) = (self.length_granule(), self.max_len());
        for &Transfer { src, dst, len } in transfers {
            self.device().check(src, len)?;
            self.device().check(dst, len)?;
            if !len.is_multiple_of(granule) {
                return Err(DmaError::LengthGranule { len, granule });
            }
            if len > max {
                return Err(DmaError::SegmentTooLong { len, max });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for dyn DmaEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DmaEngine")
            .field(&self.device().name())
            .finish()
    }
}

/// Memory that a device may read.
///
/// # Safety
///
/// While the value is borrowed, the segments are valid memory that nobody writes, and the CPU's
/// stores to it are visible to the device once a `DSB` has completed.
pub unsafe trait Source {
    /// The device the memory was lent to.
    fn device(&self) -> &Device;

    /// The segment number `index`, from 0, or `None` past the last.
    fn segment(&self, index: usize) -> Option<DmaSegment>;
}

/// Memory that a device may write.
///
/// # Safety
///
/// While the value is borrowed exclusively, the segments are valid memory that nobody else
/// accesses.
pub unsafe trait Destination {
    /// The device the memory was lent to.
    fn device(&self) -> &Device;

    /// The segment number `index`, from 0, or `None` past the last.
    fn segment(&self, index: usize) -> Option<DmaSegment>;
}

/// Transfers submitted together by [`copy`]: bounds its stack use.
const BATCH: usize = 32;

/// Copies `src` to `dst` with `engine` and sleeps until it is done.
///
/// Scattered memory and long segments are cut to what the engine takes. To be called with IRQs
/// unmasked and without a lock held.
///
/// # Errors
///
/// [`DmaError::OtherDevice`], [`DmaError::LengthMismatch`], and those of [`DmaEngine::submit`] and [`DmaEngine::wait`]. After
/// an error some of the destination may have been written.
///
/// # Panics
///
/// If the engine cannot be stopped ([`DmaError::Wedged`] from `wait`): returning would give back
/// memory that a device still writes. Only a reset of the machine helps then.
pub fn copy(
    engine: &dyn DmaEngine,
    src: &dyn Source,
    dst: &mut dyn Destination,
) -> Result<(), DmaError> {
    copy_with(engine, src, dst, Wait::default())
}

/// How the end of a copy is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Nanoseconds each submission may take; what the engine thinks right
    /// ([`DmaEngine::timeout_ns`]) if there is none.
    pub timeout_ns: Option<u64>,
}

/// As [`copy`], waiting as `wait` says.
///
/// # Errors
///
/// As for [`copy`].
///
/// # Panics
///
/// As for [`copy`].
pub fn copy_with(
    engine: &dyn DmaEngine,
    src: &dyn Source,
    dst: &mut dyn Destination,
    wait: Wait,
) -> Result<(), DmaError> {
    if cpu::irqs_masked() {
        return Err(DmaError::IrqsMasked);
    }
    let dst = &*dst;
    for lent_to in [src.device(), dst.device()] {
        if !core::ptr::eq(lent_to, engine.device()) {
            return Err(DmaError::OtherDevice {
                lent_to: lent_to.name(),
                used_by: engine.device().name(),
            });
        }
    }
    let (src_len, dst_len) = (
        total(|index| src.segment(index)),
        total(|index| dst.segment(index)),
    );
    if src_len != dst_len {
        return Err(DmaError::LengthMismatch {
            src: src_len,
            dst: dst_len,
        });
    }
    let mut transfers = Transfers::new(src, dst, engine.max_len());
    let batch = BATCH.min(engine.max_transfers());
    loop {
        let mut pending = heapless::Vec::<Transfer, BATCH>::new();
        pending.extend(transfers.by_ref().take(batch));
        if pending.is_empty() {
            return Ok(());
        }
        let bytes = pending.iter().map(|transfer| transfer.len).sum();
        // SAFETY: source and destination are borrowed by this call, which returns after `wait`.
        // `wait` cannot refuse for masked IRQs: they were unmasked and nothing here masks them.
        let ticket = unsafe { engine.submit(&pending) }?;
        let timeout_ns = wait.timeout_ns.unwrap_or_else(|| engine.timeout_ns(bytes));
        match engine.wait(ticket, timeout_ns) {
            Err(DmaError::Wedged) => panic!(
                "{} does not stop and may still write the memory it was given",
                engine.device().name()
            ),
            ended => ended?,
        }
    }
}

fn total(segment: impl Fn(usize) -> Option<DmaSegment>) -> usize {
    (0..).map_while(segment).map(|segment| segment.len).sum()
}

/// The transfers that copy one list of segments onto another of the same total length, none
/// longer than a limit.
struct Transfers<'a> {
    src: &'a dyn Source,
    dst: &'a dyn Destination,
    max_len: usize,
    /// Index of the current segment and bytes of it already covered, of either side.
    src_at: (usize, usize),
    dst_at: (usize, usize),
}

impl<'a> Transfers<'a> {
    fn new(src: &'a dyn Source, dst: &'a dyn Destination, max_len: usize) -> Self {
        Self {
            src,
            dst,
            max_len,
            src_at: (0, 0),
            dst_at: (0, 0),
        }
    }
}

impl Iterator for Transfers<'_> {
    type Item = Transfer;

    fn next(&mut self) -> Option<Transfer> {
        let src = self.src.segment(self.src_at.0)?;
        let dst = self.dst.segment(self.dst_at.0)?;
        let len = (src.len - self.src_at.1)
            .min(dst.len - self.dst_at.1)
            .min(self.max_len);
        let transfer = Transfer {
            src: src.addr + self.src_at.1,
            dst: dst.addr + self.dst_at.1,
            len,
        };
        for (at, segment) in [(&mut self.src_at, src), (&mut self.dst_at, dst)] {
            at.1 += len;
            if at.1 == segment.len {
                *at = (at.0 + 1, 0);
            }
        }
        Some(transfer)
    }
}

/// Where an engine stands with its current submission: what its lock protects.
#[derive(Debug)]
pub(crate) struct Progress {
    ticket: u32,
    state: State,
    interrupts: u64,
}

#[derive(Debug)]
enum State {
    Idle,
    Running,
    Done(Result<(), DmaError>),
}

impl Progress {
    pub(crate) const fn new() -> Self {
        Self {
            ticket: 0,
            state: State::Idle,
            interrupts: 0,
        }
    }

    /// Notes an interrupt of the engine.
    pub(crate) fn interrupted(&mut self) {
        self.interrupts += 1;
    }

    /// Interrupts noted.
    pub(crate) fn interrupts(&self) -> u64 {
        self.interrupts
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Whether there is a submission whose result nobody has collected. Another must not start:
    /// it would replace the result before its `wait`, perhaps on another core, has seen it.
    pub(crate) fn is_taken(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Opens a submission.
    pub(crate) fn start(&mut self) -> Ticket {
        self.ticket = self.ticket.wrapping_add(1);
        self.state = State::Running;
        trace!("dma ticket {=u32} started", self.ticket);
        Ticket(self.ticket)
    }

    /// Closes the running submission; without one, nothing.
    pub(crate) fn finish(&mut self, result: Result<(), DmaError>) {
        if self.is_running() {
            self.state = State::Done(result);
            trace!(
                "dma ticket {=u32} ended, ok {=bool}",
                self.ticket,
                result.is_ok()
            );
        }
    }

    /// The result of `ticket` once there is one.
    pub(crate) fn collect(&mut self, ticket: Ticket) -> Option<Result<(), DmaError>> {
        match self.state {
            State::Running if ticket.0 == self.ticket => None,
            State::Done(result) if ticket.0 == self.ticket => {
                self.state = State::Idle;
                Some(result)
            }
            _ => Some(Err(DmaError::StaleTicket(ticket.0))),
        }
    }
}

/// Shortest sleep between two looks, in nanoseconds.
///
/// The completion interrupt may be routed to another core, and its handler cannot wake this core
/// from `WFI`.
const LOOK_INTERVAL_NS: u64 = 1_000_000;

/// A sleep lasts at most this part of the time already waited, so that a look that comes late
/// costs little and a long wait few looks.
const LOOK_PART: u64 = 8;

/// Sleeps until `ready` returns something, at most `timeout_ns`; `None` after that.
///
/// # Errors
///
/// [`DmaError::IrqsMasked`] if the caller masked them: the handler that makes `ready` true could
/// not run.
pub(crate) fn wait_for<T>(
    clock: &dyn Clock,
    timeout_ns: u64,
    mut ready: impl FnMut() -> Option<T>,
) -> Result<Option<T>, DmaError> {
    if cpu::irqs_masked() {
        return Err(DmaError::IrqsMasked);
    }
    let begin = clock.now_ns();
    let deadline = begin.saturating_add(timeout_ns);
    loop {
        let irq = cpu::irq_save();
        let result = ready();
        let now = clock.now_ns();
        if result.is_none() && now < deadline {
            let interval = LOOK_INTERVAL_NS.max((now - begin) / LOOK_PART);
            clock.sleep_until(deadline.min(now.saturating_add(interval)));
        }
        cpu::irq_restore(irq);
        // What is pending is taken here, before the mask comes back (Arm ARM D1.3.6).
        barrier::isb();
        if result.is_some() || now >= deadline {
            // Loads of what the device wrote come after the look that saw it done.
            barrier::dmb_oshld();
            return Ok(result);
        }
    }
}

#[cfg(test)]
#[path = "engine/tests.rs"]
pub(crate) mod tests;
