//! Where an engine stands with its submission, and how its end is awaited: what drivers share.

use super::{Clock, Completion, Ticket};
use crate::arch::{barrier, cpu};
use crate::dma::DmaError;
use crate::sync::IrqLock;
use crate::trace::trace;

/// Where an engine stands with its current submission: a part of what its lock protects.
#[derive(Debug)]
pub(crate) struct Progress {
    ticket: u32,
    state: State,
    interrupts: u64,
    lost_interrupts: u64,
    /// Something was served without the interrupt, which may still be on its way.
    is_anticipated: bool,
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
            lost_interrupts: 0,
            is_anticipated: false,
        }
    }

    /// Interrupts of the engine that were served.
    pub(crate) fn interrupts(&self) -> u64 {
        self.interrupts
    }

    /// Deadlines at which the device had something to say that no interrupt had said.
    pub(crate) fn lost_interrupts(&self) -> u64 {
        self.lost_interrupts
    }

    /// Notes that something was served without the interrupt, which may still come.
    pub(crate) fn anticipate(&mut self) {
        self.is_anticipated = true;
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

/// The registers and the progress of an engine: what its lock protects.
pub(crate) trait Control {
    /// Nanoseconds a cancelled submission may take to end by itself; 0 where [`cancel`](Self::cancel)
    /// closes it at once.
    const GRACE_NS: u64;

    /// Where the engine stands.
    fn progress(&mut self) -> &mut Progress;

    /// Looks at the device: acknowledges what it signals and goes on with the running submission or
    /// closes it. Returns whether there was anything.
    fn serve(&mut self) -> bool;

    /// Lets the running submission end with `error`, at once or within [`GRACE_NS`](Self::GRACE_NS);
    /// one that is over by now ends as it did. Without one, nothing. Returns whether the device had
    /// something to say that its interrupt had not said.
    fn cancel(&mut self, error: DmaError) -> bool;

    /// Closes the running submission, which was cancelled for `error` and did not end in time: with
    /// [`DmaError::Wedged`] if the device may still access memory.
    fn give_up(&mut self, error: DmaError);
}

/// Serves the interrupt of an engine; see [`DmaEngine::on_interrupt`](super::DmaEngine::on_interrupt).
pub(crate) fn on_interrupt(control: &IrqLock<impl Control>) -> bool {
    let mut control = control.lock();
    let served = control.serve();
    let progress = control.progress();
    let anticipated = core::mem::take(&mut progress.is_anticipated);
    if served {
        progress.interrupts += 1;
    }
    // One whose reason a poll has found before is not a stranger's.
    served || anticipated
}

/// Waits for the end of `ticket`, cancels it after `timeout_ns`, and returns how it ended. A copy
/// whose interrupt got lost is found to be over then, and is none that failed.
///
/// # Errors
///
/// Those of [`DmaEngine::wait`](super::DmaEngine::wait).
pub(crate) fn wait<C: Control>(
    control: &IrqLock<C>,
    clock: &dyn Clock,
    ticket: Ticket,
    timeout_ns: u64,
    completion: Completion,
) -> Result<(), DmaError> {
    super::check_waiting(completion)?;
    let mut look = || {
        let mut control = control.lock();
        if completion == Completion::Polled && control.serve() {
            control.progress().anticipate();
        }
        control.progress().collect(ticket)
    };
    if completion == Completion::Polled
        && let Some(result) = (0..SPIN_LOOKS).find_map(|_| look())
    {
        barrier::dmb_oshld();
        return result;
    }
    if let Some(result) = look_until(clock, timeout_ns, &mut look) {
        return result;
    }
    let error = DmaError::Timeout(timeout_ns);
    {
        let mut control = control.lock();
        let is_lost = control.cancel(error) && completion == Completion::Interrupt;
        control.progress().lost_interrupts += u64::from(is_lost);
    }
    if let Some(result) = look_until(clock, C::GRACE_NS, &mut look) {
        return result;
    }
    control.lock().give_up(error);
    look().unwrap_or(Err(DmaError::Wedged))
}

/// Looks without sleep between them before a polled wait sleeps: some 100 microseconds on a
/// Cortex-A72, in which an engine of silicon copies 64 KiB.
const SPIN_LOOKS: u32 = 1_000;

/// Shortest sleep between two looks, in nanoseconds.
///
/// The completion interrupt may be routed to another core, and its handler cannot wake this core
/// from `WFI`.
pub(super) const LOOK_INTERVAL_NS: u64 = 1_000_000;

/// A sleep lasts at most this part of the time already waited, so that a look that comes late
/// costs little and a long wait few looks.
pub(super) const LOOK_PART: u64 = 8;

/// Sleeps until `ready` returns something, at most `timeout_ns`; `None` after that. `ready` is asked
/// with IRQs masked, at least once. IRQs stay masked if they were.
pub(super) fn look_until<T>(
    clock: &dyn Clock,
    timeout_ns: u64,
    mut ready: impl FnMut() -> Option<T>,
) -> Option<T> {
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
            return result;
        }
    }
}
