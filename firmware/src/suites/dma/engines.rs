//! How submissions end: by interrupt, by abort, by timeout; on every core, and from two at once.

use super::each_engine;
use crate::failslab::lightly;
use crate::machine::machine;
use crate::memory::{Object, reachable};
use crate::oom::OutOfMemory;
use crate::report::{self, Outcome, Stop};
use crate::submission::{copy_while, submit_while_busy, when_free};
use crate::{check, check_ok, check_served, pattern};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use hal::addr::PAGE_SIZE;
use hal::arch::cpu;
use hal::dma::engine::{copy, copy_with};
use hal::dma::streaming::map_slice;
use hal::dma::{Clock, Coherent, Completion, DmaEngine, DmaError, ToDevice};
use hal::{mm, smp};

const LEN: usize = PAGE_SIZE;

/// Long enough for an engine of silicon not to end within a few instructions.
const LONG: usize = 256 << 10;

/// A copy of kmalloc memory into the pool, verified.
pub(super) fn verified_copy(engine: &dyn DmaEngine, seed: u64) -> Result<(), CopyFault> {
    let device = engine.device();
    let mut source = Object::zeroed(LEN, reachable(device))?;
    let mut pooled = machine().pool.alloc(device, LEN)?;
    pattern::fill(&mut source, seed);
    let mapping = map_slice::<ToDevice>(device, &mut source)?;
    when_free(engine.timeout_ns(LEN), || {
        pooled.as_mut_slice().fill(pattern::POISON);
        let copied = copy(engine, &mapping, &mut pooled.part_mut(0, LEN)?);
        let is_refused = copied == Err(DmaError::Busy);
        BUSY.fetch_add(is_refused.into(), Ordering::Relaxed);
        copied
    })?;
    mapping.unmap();
    Ok(pattern::verify(pooled.as_slice(), 0, LEN, seed)?)
}

/// Submissions that another core's kept from starting.
static BUSY: AtomicU32 = AtomicU32::new(0);

#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum CopyFault {
    #[error(transparent)]
    Dma(#[from] DmaError),
    #[error(transparent)]
    Memory(#[from] mm::AllocError),
    #[error(transparent)]
    Bytes(#[from] pattern::Mismatch),
}

impl OutOfMemory for CopyFault {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Memory(error) if error.is_out_of_memory())
    }
}

/// What the end of a copy means for a test.
pub(super) fn outcome_of(copy: Result<(), CopyFault>) -> Outcome {
    copy.or_else(|fault| report::failed_operation(&fault))
}

/// A missing engine would turn every test of this suite into a skip.
pub(super) fn come_up() -> Outcome {
    let (up, absent) = (machine().engines.len(), &machine().absent_engines);
    for absence in absent {
        report::diagnostic(format_args!("an engine is missing: {absence}"));
    }
    check!(
        absent.is_empty(),
        "{up} of {} engines came up",
        up + absent.len()
    );
    Ok(())
}

/// DMA4 on a Pi, which QEMU lacks.
pub(super) fn wide() -> Outcome {
    if let Some(reason) = machine().unmodelled_engines {
        return Err(Stop::Skipped(reason));
    }
    let mut engines = machine().engines.iter();
    let wide = engines.find(|engine| engine.device().mask() > u64::from(u32::MAX));
    if wide.is_none() && machine().absent_engines.is_empty() {
        return Err(Stop::Skipped("no channel of DMA4 is left to the Arm"));
    }
    check!(wide.is_some(), "no engine drives more than 32 address bits");
    Ok(())
}

pub(super) fn interrupts() -> Outcome {
    each_engine(|engine| {
        let before = engine.interrupts();
        outcome_of(verified_copy(engine, machine().seed))?;
        let served = engine.interrupts() - before;
        check!(served > 0, "a copy ended without an interrupt");
        report::diagnostic(format_args!(
            "engine={} bytes={LEN} interrupts={served}",
            engine.device().name()
        ));
        Ok(())
    })
}

/// Two buffers of an engine, for submissions that end in another way.
pub(super) struct Ends {
    source: Object,
    pooled: Coherent,
}

impl Ends {
    pub(super) fn new(engine: &dyn DmaEngine, len: usize) -> Result<Self, CopyFault> {
        let device = engine.device();
        Ok(Self {
            source: Object::zeroed(len, reachable(device))?,
            pooled: machine().pool.alloc(device, len)?,
        })
    }

    /// Runs `during` between start and end of a copy.
    pub(super) fn copy_while(
        &mut self,
        engine: &dyn DmaEngine,
        timeout_ns: u64,
        during: impl FnOnce(),
    ) -> Result<(), DmaError> {
        let len = self.source.len();
        let mapping = map_slice::<ToDevice>(engine.device(), &mut self.source)?;
        let mut part = self.pooled.part_mut(0, len)?;
        copy_while(engine, &mapping, &mut part, timeout_ns, during)
    }
}

/// While the handler is kept from running, the copy does not end, however long it is done.
pub(super) fn interrupts_planted() -> Outcome {
    /// Longer than any engine takes for a page.
    const KEPT_NS: u64 = 150_000_000;
    each_engine(|engine| {
        let mut ends = check_ok!(Ends::new(engine, 64));
        let before = engine.interrupts();
        let mut kept = 0;
        let patience = engine.timeout_ns(64);
        let ended = ends.copy_while(engine, patience, || {
            let clock: &dyn Clock = &machine().timer;
            clock.sleep_until(clock.now_ns() + KEPT_NS);
            kept = engine.interrupts() - before;
        });
        check_ok!(ended);
        check!(kept == 0, "{kept} interrupts were served with IRQs masked");
        let served = engine.interrupts() - before;
        check!(served > 0, "the copy ended without an interrupt");
        Ok(())
    })
}

/// With IRQs masked, where [`interrupts_planted`] shows that no copy ends by itself.
pub(super) fn polled() -> Outcome {
    each_engine(|engine| {
        let seed = machine().seed;
        let mut ends = check_ok!(Ends::new(engine, LEN));
        pattern::fill(&mut ends.source, seed);
        let mapping = check_ok!(map_slice::<ToDevice>(engine.device(), &mut ends.source));
        let mut part = check_ok!(ends.pooled.part_mut(0, LEN));
        let before = engine.interrupts();
        let irq = cpu::irq_save();
        let copied = copy_with(engine, &mapping, &mut part, Completion::Polled);
        let served = engine.interrupts() - before;
        cpu::irq_restore(irq);
        check_ok!(copied);
        check!(
            served == 0,
            "{served} interrupts were served with IRQs masked"
        );
        mapping.unmap();
        check_ok!(pattern::verify(ends.pooled.as_slice(), 0, LEN, seed));
        outcome_of(verified_copy(engine, seed))
    })
}

pub(super) fn busy() -> Outcome {
    /// Long enough to try again.
    const RETRY_NS: u64 = 1_000_000;
    each_engine(|engine| {
        let mut ends = check_ok!(Ends::new(engine, 64));
        let device = engine.device();
        let mut source = check_ok!(Object::zeroed(64, reachable(device)));
        let mut other = check_ok!(machine().pool.alloc(device, 64));
        let mapping = check_ok!(map_slice::<ToDevice>(device, &mut source));
        let mut part = check_ok!(other.part_mut(0, 64));
        let mut second = None;
        let patience = engine.timeout_ns(64);
        let first = ends.copy_while(engine, patience, || {
            // Who waits until the engine is free gives up.
            let submit = || submit_while_busy(engine, &mapping, &mut part).map_or(Ok(()), Err);
            second = Some(when_free(RETRY_NS, submit));
        });
        check_ok!(first);
        check!(
            second == Some(Err(DmaError::Busy)),
            "a second submission: {second:?}"
        );
        outcome_of(verified_copy(engine, machine().seed))?;
        Ok(())
    })
}

/// How a copy ended that was to be stopped.
struct Stopped {
    /// The engine had ended it before: inside the store that starts it, as QEMU's Pi model does.
    was_over: bool,
    ended: Result<(), DmaError>,
}

impl Stopped {
    /// Runs `stop` between start and end of a copy.
    fn by(engine: &dyn DmaEngine, ends: &mut Ends, timeout_ns: u64, stop: impl FnOnce()) -> Self {
        let mut was_over = false;
        let ended = ends.copy_while(engine, timeout_ns, || {
            // The handler cannot have run: IRQs are masked. An engine at work signals nothing.
            was_over = engine.on_interrupt();
            stop();
        });
        Self { was_over, ended }
    }

    /// Whether the copy was stopped with `error`; `None` if it ended well before, which shows nothing.
    fn is_with(&self, error: DmaError) -> Option<bool> {
        match self.ended {
            Ok(()) if self.was_over => None,
            ended => Some(ended == Err(error)),
        }
    }

    /// Fails if the copy was not stopped with `error`, or the next one does not end well. Returns
    /// whether that shows anything.
    fn check(&self, engine: &dyn DmaEngine, error: DmaError) -> Result<bool, Stop> {
        let name = engine.device().name();
        let Some(is_stopped) = self.is_with(error) else {
            return Ok(false);
        };
        check!(is_stopped, "{name}: the copy ended with {:?}", self.ended);
        report::diagnostic(format_args!("engine={name}: {error}"));
        outcome_of(verified_copy(engine, machine().seed))?;
        Ok(true)
    }
}

pub(super) fn abort() -> Outcome {
    /// Bytes that the engine comes to last.
    const TAIL: usize = 64;
    let mut shown = 0;
    each_engine(|engine| {
        let len = LONG.min(engine.max_len());
        let mut ends = check_ok!(Ends::new(engine, len));
        ends.pooled.as_mut_slice().fill(pattern::POISON);
        let timeout = engine.timeout_ns(len);
        let stopped = Stopped::by(engine, &mut ends, timeout, || engine.abort());
        if stopped.check(engine, DmaError::Aborted)? {
            shown += 1;
            let tail = &ends.pooled.as_slice()[len - TAIL..len];
            check!(
                tail.iter().all(|&byte| byte == pattern::POISON),
                "what was aborted was not under way"
            );
        }
        Ok(())
    })?;
    shown_or_skipped(shown)
}

/// A copy that nobody stops ends well and counts as neither aborted nor timed out.
pub(super) fn abort_planted() -> Outcome {
    let mut shown = 0;
    each_engine(|engine| {
        let mut ends = check_ok!(Ends::new(engine, LEN));
        let stopped = Stopped::by(engine, &mut ends, engine.timeout_ns(LEN), || {});
        check_ok!(stopped.ended);
        for error in [DmaError::Aborted, SHORT] {
            let Some(is_stopped) = stopped.is_with(error) else {
                return Ok(());
            };
            check!(!is_stopped, "a copy that nobody stopped: {error}");
        }
        shown += 1;
        Ok(())
    })?;
    shown_or_skipped(shown)
}

/// Skipped if no copy was under way when it was to be stopped.
fn shown_or_skipped(shown: u32) -> Outcome {
    match shown {
        0 => Err(Stop::Skipped(
            "the engines end inside the store that starts them (QEMU's Pi model)",
        )),
        _ => Ok(()),
    }
}

/// Nanoseconds in which no engine copies anything, and how a copy ends that has no more.
const SHORT_NS: u64 = 1;
const SHORT: DmaError = DmaError::Timeout(SHORT_NS);

pub(super) fn timeout() -> Outcome {
    let mut shown = 0;
    each_engine(|engine| {
        let mut ends = check_ok!(Ends::new(engine, LONG.min(engine.max_len())));
        let stopped = Stopped::by(engine, &mut ends, SHORT_NS, || {});
        shown += u32::from(stopped.check(engine, SHORT)?);
        Ok(())
    })?;
    shown_or_skipped(shown)
}

pub(super) fn every_core() -> Outcome {
    each_engine(|engine| {
        for core in smp::online() {
            let seed = machine().seed.wrapping_add(core as u64);
            let copied = check_ok!(smp::run_on(core, || verified_copy(engine, seed)));
            outcome_of(copied)?;
        }
        report::diagnostic(format_args!(
            "engine={} cores={}",
            engine.device().name(),
            smp::online().count()
        ));
        Ok(())
    })
}

pub(super) fn two_cores() -> Outcome {
    let rounds = lightly(3) as u64;
    if smp::online().count() < 2 {
        return Err(Stop::Skipped("one core"));
    }
    let mut met = 0;
    for &engine in &machine().engines {
        BUSY.store(0, Ordering::Relaxed);
        let refused = AtomicUsize::new(0);
        let faults = AtomicU32::new(0);
        let copies = AtomicU32::new(0);
        check_ok!(smp::run_on_all(|core| {
            for round in 0..rounds {
                let seed = machine().seed.wrapping_add((core as u64) << 8 | round);
                match verified_copy(engine, seed) {
                    Ok(()) => copies.fetch_add(1, Ordering::Relaxed),
                    Err(CopyFault::Memory(_)) => {
                        refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    Err(_) => faults.fetch_add(1, Ordering::Relaxed),
                };
            }
        }));
        let faults = faults.into_inner();
        check!(faults == 0, "{faults} copies failed");
        check_served!(refused.into_inner());
        report::diagnostic(format_args!(
            "engine={} copies={} refused as busy and repeated={}",
            engine.device().name(),
            copies.into_inner(),
            BUSY.load(Ordering::Relaxed)
        ));
        met += BUSY.load(Ordering::Relaxed);
    }
    match met {
        0 => Err(Stop::Skipped("no two copies met")),
        _ => Ok(()),
    }
}
