//! Devices that copy memory: the trait they share, and safe copies through it.

mod rectangle;
pub(crate) mod submission;

pub use rectangle::{Rectangle, Transfer2d, copy_2d};

use super::{Device, DmaError, DmaSegment};
use crate::addr::DmaAddr;
use crate::arch::cpu;
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

/// How the end of a submission is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The engine's interrupt handler notices, and the caller sleeps meanwhile.
    Interrupt,
    /// The caller looks at the engine itself, which works with IRQs masked too.
    Polled,
}

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
///
/// # Safety
///
/// When [`wait`](Self::wait) or [`wait_by`](Self::wait_by) has returned for a ticket, with anything but
/// the errors that the latter names as left running, the engine does not access the memory of that
/// submission any more.
pub unsafe trait DmaEngine: Sync {
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

    /// Starts the copy of a rectangle, as [`submit`](Self::submit) starts linear ones. An engine
    /// without such copies refuses it.
    ///
    /// # Errors
    ///
    /// [`DmaError::NoRectangles`], those of [`Self::check_2d`], [`DmaError::Busy`],
    /// [`DmaError::Wedged`].
    ///
    /// # Safety
    ///
    /// As for [`submit`](Self::submit), for every byte of both sides' footprints.
    unsafe fn submit_2d(&self, transfer: &Transfer2d) -> Result<Ticket, DmaError> {
        let _ = transfer;
        Err(DmaError::NoRectangles {
            engine: self.device().name(),
        })
    }

    /// Serves the engine's interrupt and returns whether it was the engine's: lines are shared.
    ///
    /// To be called by the interrupt handler, before the end of interrupt is signalled.
    fn on_interrupt(&self) -> bool;

    /// Interrupts of the engine that [`Self::on_interrupt`] has served.
    fn interrupts(&self) -> u64;

    /// How often a [`wait`](Self::wait) came to its deadline and found that the engine had something to
    /// say which no interrupt had said: a line that is silenced, or a controller set up wrong.
    fn lost_interrupts(&self) -> u64;

    /// Waits until the submission has ended, at most `timeout_ns`, and returns how it ended. Its end is
    /// noticed `by` the interrupt, while the caller sleeps, or by looking at the engine, which may be
    /// done with IRQs masked.
    ///
    /// When it returns, the engine does not access the submission's memory any more and takes new
    /// ones - unless it returns [`DmaError::Wedged`] or [`DmaError::IrqsMasked`].
    ///
    /// # Errors
    ///
    /// By interrupt [`DmaError::IrqsMasked`] at once, with the submission still running.
    /// [`DmaError::Bus`], [`DmaError::Timeout`], [`DmaError::Aborted`], [`DmaError::StaleTicket`],
    /// [`DmaError::Gone`], [`DmaError::Wedged`].
    fn wait_by(&self, by: Completion, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError>;

    /// [`wait_by`](Self::wait_by) interrupt.
    ///
    /// # Errors
    ///
    /// Those of [`wait_by`](Self::wait_by).
    fn wait(&self, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        self.wait_by(Completion::Interrupt, ticket, timeout_ns)
    }

    /// Stops the current submission, if any; its `wait` returns [`DmaError::Aborted`]. One that is over
    /// by now ends as it did.
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

    /// Checks that both footprints of a rectangle lie in the device's reach and that its rows are
    /// of whole granules.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroLength`], [`DmaError::LengthGranule`], [`DmaError::ForeignAddress`].
    fn check_2d(&self, transfer: &Transfer2d) -> Result<(), DmaError> {
        let (len, granule) = (transfer.shape.row_len, self.length_granule());
        for side in transfer.footprints()? {
            self.device().check(side.addr, side.len)?;
        }
        if !len.is_multiple_of(granule) {
            return Err(DmaError::LengthGranule { len, granule });
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

    /// Refuses memory that is not all the device's at the moment. To be asked before the segments
    /// are used, of which there are none then.
    ///
    /// # Errors
    ///
    /// [`DmaError::PartOfCpu`].
    fn check_lent(&self) -> Result<(), DmaError> {
        Ok(())
    }

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

    /// Refuses memory that is not all the device's at the moment. To be asked before the segments
    /// are used, of which there are none then.
    ///
    /// # Errors
    ///
    /// [`DmaError::PartOfCpu`].
    fn check_lent(&self) -> Result<(), DmaError> {
        Ok(())
    }

    /// The segment number `index`, from 0, or `None` past the last.
    fn segment(&self, index: usize) -> Option<DmaSegment>;
}

/// Transfers submitted together by [`copy`]: bounds its stack use.
const BATCH: usize = 32;

/// Copies `src` to `dst` with `engine` and sleeps until it is done: [`copy_with`] by interrupt.
///
/// # Errors
///
/// As for [`copy_with`].
///
/// # Panics
///
/// As [`copy_with`] does.
pub fn copy(
    engine: &dyn DmaEngine,
    src: &dyn Source,
    dst: &mut dyn Destination,
) -> Result<(), DmaError> {
    copy_with(engine, src, dst, Completion::Interrupt)
}

/// Copies `src` to `dst` with `engine` and returns when it is done.
///
/// Scattered memory and long segments are cut to what the engine takes. To be called without a lock
/// held, and with IRQs unmasked unless the end is polled for.
///
/// # Errors
///
/// [`DmaError::OtherDevice`], [`DmaError::PartOfCpu`], [`DmaError::LengthMismatch`], and those of
/// [`DmaEngine::submit`] and [`DmaEngine::wait`]. After an error some of the destination may have been written.
///
/// # Panics
///
/// If the engine cannot be stopped ([`DmaError::Wedged`] from `wait`): returning would give back
/// memory that a device still writes. Only a reset of the machine helps then.
pub fn copy_with(
    engine: &dyn DmaEngine,
    src: &dyn Source,
    dst: &mut dyn Destination,
    completion: Completion,
) -> Result<(), DmaError> {
    copy_within(engine, src, dst, completion, None)
}

/// As [`copy_with`], with `timeout_ns` nanoseconds for each submission; what the engine thinks right
/// ([`DmaEngine::timeout_ns`]) if there is none.
///
/// # Errors
///
/// As for [`copy_with`].
///
/// # Panics
///
/// As [`copy_with`] does.
pub fn copy_within(
    engine: &dyn DmaEngine,
    src: &dyn Source,
    dst: &mut dyn Destination,
    completion: Completion,
    timeout_ns: Option<u64>,
) -> Result<(), DmaError> {
    check_waiting(completion)?;
    let dst = &*dst;
    check_lent_to(engine, [src.device(), dst.device()])?;
    src.check_lent()?;
    dst.check_lent()?;
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
        // SAFETY: source and destination are borrowed by this call, which returns after `finish`.
        let ticket = unsafe { engine.submit(&pending) }?;
        let timeout_ns = timeout_ns.unwrap_or_else(|| engine.timeout_ns(bytes));
        finish(engine, ticket, timeout_ns, completion)?;
    }
}

/// Refuses to wait for an interrupt where none can be taken.
fn check_waiting(completion: Completion) -> Result<(), DmaError> {
    if completion == Completion::Interrupt && cpu::irqs_masked() {
        return Err(DmaError::IrqsMasked);
    }
    Ok(())
}

/// Refuses memory that was lent to another device than `engine`'s, whose addresses mean other memory
/// to this one. [`copy`] does so itself; whoever submits by [`DmaEngine::submit`] has to ask. May be
/// called in any context.
///
/// # Errors
///
/// [`DmaError::OtherDevice`].
pub fn check_lent_to(engine: &dyn DmaEngine, lent_to: [&Device; 2]) -> Result<(), DmaError> {
    let mut others = lent_to.into_iter();
    match others.find(|&device| !core::ptr::eq(device, engine.device())) {
        Some(other) => Err(DmaError::OtherDevice {
            lent_to: other.name(),
            used_by: engine.device().name(),
        }),
        None => Ok(()),
    }
}

/// Waits at most `timeout_ns` for a submission whose memory the caller has borrowed.
/// [`check_waiting`] has passed and nothing masks IRQs since, so that waiting is not refused with
/// the engine running.
fn finish(
    engine: &dyn DmaEngine,
    ticket: Ticket,
    timeout_ns: u64,
    completion: Completion,
) -> Result<(), DmaError> {
    let ended = engine.wait_by(completion, ticket, timeout_ns);
    if matches!(ended, Err(DmaError::Wedged | DmaError::IrqsMasked)) {
        panic!(
            "{} does not stop and may still write the memory it was given",
            engine.device().name()
        );
    }
    ended
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

#[cfg(test)]
#[path = "engine/tests.rs"]
pub(crate) mod tests;
