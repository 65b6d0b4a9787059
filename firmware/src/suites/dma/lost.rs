//! Interrupts that do not come: a copy that is over is found at its deadline, and it is said.

use super::each_engine;
use super::engines::{CopyFault, Ends, outcome_of, verified_copy};
use crate::failslab::lightly;
use crate::machine::machine;
use crate::report::{self, Outcome, Stop};
use crate::{check, check_ok, clock};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hal::arch::cpu;
use hal::dma::{DmaEngine, DmaError};
use hal::smp;
use hal::sync::{IrqLock, PerCpu};

/// Bytes of a copy.
const LEN: usize = 64;

/// Interrupts that [`planted`] kept from coming.
static PLANTED: AtomicU64 = AtomicU64::new(0);

/// Counted since boot, whoever copied.
pub(super) fn none() -> Outcome {
    each_engine(|engine| {
        report::diagnostic(format_args!(
            "engine={} interrupts={} lost={}",
            engine.device().name(),
            engine.interrupts(),
            engine.lost_interrupts()
        ));
        Ok(())
    })?;
    let engines = machine().engines.iter();
    let lost = engines.map(|engine| engine.lost_interrupts()).sum::<u64>();
    let planted = PLANTED.load(Ordering::Relaxed);
    check!(lost == planted, "{} interrupts are lost", lost - planted);
    match machine().interrupts.silenced().next() {
        Some(line) => report::failed(format_args!("{line} was silenced")),
        None => Ok(()),
    }
}

/// Nanoseconds until the copy is looked at: a little longer than a half step of QEMU's edu, after
/// which the copy cannot go on without the interrupt.
const DEADLINE_NS: u64 = 102_000_000;

/// Nanoseconds between two looks whether the copy has ended.
const PAUSE_NS: u64 = 1_000_000;

/// Copies on another core while the one that the engines interrupt takes no interrupts.
pub(super) fn planted() -> Outcome {
    let interrupted = PerCpu::current().index();
    let Some(other) = smp::online().find(|&core| core != interrupted) else {
        return Err(Stop::Skipped("one core"));
    };
    // Each engine costs a deadline.
    let mut left = lightly(machine().engines.len());
    each_engine(|engine| {
        if left == 0 {
            return Ok(());
        }
        left -= 1;
        let before = engine.lost_interrupts();
        let (is_masked, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let mut ended = IrqLock::new(None);
        check_ok!(smp::run_on_all(|core| {
            if core == interrupted {
                let irq = cpu::irq_save();
                is_masked.store(true, Ordering::Release);
                while !is_over.load(Ordering::Acquire) {
                    clock::pause(PAUSE_NS);
                }
                cpu::irq_restore(irq);
            } else if core == other {
                while !is_masked.load(Ordering::Acquire) {
                    core::hint::spin_loop();
                }
                *ended.lock() = Some(copy(engine));
                is_over.store(true, Ordering::Release);
            } else {
                // A core that is done says so by an interrupt, which would keep the first awake.
                while !is_over.load(Ordering::Acquire) {
                    clock::pause(PAUSE_NS);
                }
            }
        }));
        let lost = engine.lost_interrupts() - before;
        PLANTED.fetch_add(lost, Ordering::Relaxed);
        match *ended.get_mut() {
            Some(Ok(())) => {}
            // Half of it.
            Some(Err(CopyFault::Dma(DmaError::Timeout(DEADLINE_NS)))) => {}
            Some(Err(fault)) => return report::failed_operation(&fault),
            None => return Err(Stop::Failed),
        }
        check!(lost == 1, "{lost} interrupts are lost");
        outcome_of(verified_copy(engine, machine().seed))
    })
}

fn copy(engine: &dyn DmaEngine) -> Result<(), CopyFault> {
    Ok(Ends::new(engine, LEN)?.copy_while(engine, DEADLINE_NS, || {})?)
}
