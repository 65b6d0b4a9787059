//! What is done for a request that finds no zone above its low watermark.
//!
//! ```text
//! wake background reclaim (or do it, without an idle core) -> try down to the request's floor
//!     -> (blocking requests) reclaim, try again
//!         -> the first time, but not for NORETRY, gather what is set aside: by the cores that
//!            answer, in the reserve; try again
//!         -> once for NORETRY and for large blocks, else while there is progress, or for a while in
//!            which another core runs a shrinker
//!     -> fail, report; NOFAIL waits and goes on
//! ```

use super::PageAllocator;
use crate::addr::Pfn;
use crate::arch::{counter, cpu};
use crate::deferred;
use crate::mm::reclaim::Progress;
use crate::mm::report::{self, Cause};
use crate::mm::scope::{admits_any_work, rights};
use crate::mm::watermark::Mark;
use crate::mm::{AllocError, Gfp, Misuse};
use crate::smp;
use core::sync::atomic::Ordering;

/// Largest order for which reclaim is repeated as long as it makes progress. Blocks above it are
/// costly: their users have a fallback. Linux: `PAGE_ALLOC_COSTLY_ORDER`.
const COSTLY_ORDER: u32 = 3;

/// Most passes for a costly block with [`Gfp::RETRY_MAYFAIL`]. Linux: `MAX_RECLAIM_RETRIES`.
const COSTLY_PASSES: u32 = 16;

/// Passes that gain nothing but wait for a shrinker that runs on another core: milliseconds, at one
/// event of the counter's stream each.
const BUSY_PASSES: u32 = 64;

/// Seconds without any progress after which a request that must not fail gives the machine up.
const HOPELESS_S: u64 = 3;

impl PageAllocator {
    /// Makes the effort that the request's flags, less what the task's scopes take away, allow.
    #[cold]
    pub(super) fn alloc_slow(&self, gfp: Gfp, order: u32) -> Result<Pfn, AllocError> {
        let rights = rights(gfp);
        if rights.contains(Gfp::KSWAPD_RECLAIM) {
            self.reclaim.wake(self.start_zone(gfp.highest_zone()));
        }
        // Without an idle core this is the time for background reclaim.
        if admits_any_work(gfp) && !deferred::is_any_core_idle() {
            deferred::run_pending();
        }
        if let Some(pfn) = self.try_alloc(rights, order, Mark::Min) {
            return Ok(pfn);
        }
        if !rights.may_block() {
            if gfp.may_block() && gfp.contains(Gfp::NOFAIL) {
                // A scope keeps it from reclaim. Others free memory too.
                Misuse::NofailReclaim.note(gfp);
                return Ok(self.insist(rights, order));
            }
            return Err(self.fail(gfp, order, Cause::Failure));
        }
        match self.reclaim_and_retry(rights, order) {
            Some(pfn) => Ok(pfn),
            None if gfp.contains(Gfp::NOFAIL) => Ok(self.insist(rights, order)),
            None => Err(self.fail(gfp, order, cause(rights, order))),
        }
    }

    /// Reclaims and tries again as often as the flags say.
    fn reclaim_and_retry(&self, rights: Gfp, order: u32) -> Option<Pfn> {
        let costly = order > COSTLY_ORDER;
        let (mut passes, mut busy_passes) = (0, 0);
        loop {
            let progress = self.direct_reclaim(rights, order);
            passes += 1;
            if let Some(pfn) = self.try_alloc(rights, order, Mark::Min) {
                return Some(pfn);
            }
            if passes == 1 && !rights.contains(Gfp::NORETRY) {
                self.gather();
                if let Some(pfn) = self.try_alloc(rights, order, Mark::Min) {
                    return Some(pfn);
                }
            }
            let most = match () {
                () if rights.contains(Gfp::NORETRY) => 1,
                () if costly && rights.contains(Gfp::RETRY_MAYFAIL) => COSTLY_PASSES,
                () if costly => 1,
                () => u32::MAX,
            };
            if passes >= most {
                return None;
            }
            match progress {
                Progress::Made => busy_passes = 0,
                Progress::Elsewhere if busy_passes < BUSY_PASSES => {
                    busy_passes += 1;
                    cpu::wait_for_event();
                }
                Progress::Elsewhere | Progress::None => {
                    // A request that makes every effort is worth the last of the reserve.
                    let dissolved = self.unreserve_highatomic(true);
                    return dissolved.then(|| self.try_alloc(rights, order, Mark::Min))?;
                }
            }
        }
    }

    /// Brings together what is free but set aside: pages and objects that cores have at hand, and the
    /// reserve for atomic requests, of which one pageblock a zone stays. A core that runs a task is
    /// left alone: the task may be waiting for this one.
    fn gather(&self) {
        self.unreserve_highatomic(false);
        let give_back = |_| {
            self.reclaim.shrink_core();
            // Last, because small slabs go to the lists.
            self.drain();
        };
        if smp::try_run_on_all(give_back).is_err() {
            // Only a task can wait for the others.
            self.drain();
        }
    }

    /// Repeats a request that must not fail until it succeeds, with half of the reserve.
    ///
    /// # Panics
    ///
    /// When nothing has been freed for [`HOPELESS_S`]: there is no process whose end would free
    /// memory, and going on for ever would not say what is wrong.
    fn insist(&self, rights: Gfp, order: u32) -> Pfn {
        let rights = rights | Gfp::HIGH;
        let patience = HOPELESS_S * u64::from(counter::frequency());
        let mut stalled_since = None;
        loop {
            if let Some(pfn) = self.try_alloc(rights, order, Mark::Min) {
                return pfn;
            }
            if rights.may_block() && self.direct_reclaim(rights, order) == Progress::Made {
                stalled_since = None;
            } else {
                // A core may answer now that did not before.
                self.gather();
                match stalled_since {
                    None => {
                        stalled_since = Some(counter::now());
                        self.fail(rights, order, Cause::OutOfMemory);
                    }
                    Some(since) if counter::now() - since > patience => {
                        panic!("out of memory: order:{order} must not fail, {rights}")
                    }
                    Some(_) => {}
                }
            }
            if rights.contains(Gfp::IO | Gfp::FS) {
                deferred::run_pending();
            }
            // Whoever waits for this core may have what is missing.
            smp::run_pending();
            // Another core or an interrupt handler may free something. The event stream bounds it.
            cpu::wait_for_event();
        }
    }

    /// Counts and reports a failure.
    fn fail(&self, gfp: Gfp, order: u32, cause: Cause) -> AllocError {
        self.reclaim.failures.fetch_add(1, Ordering::Relaxed);
        if !gfp.contains(Gfp::NOWARN) {
            self.reclaim.reports.fetch_add(1, Ordering::Relaxed);
            report::issue(self, gfp, order, cause);
        }
        AllocError::NoMemory { order, gfp }
    }
}

/// Whether a failure means that the machine is out of memory: where Linux would end a process.
fn cause(rights: Gfp, order: u32) -> Cause {
    let gives_up_early = rights.intersects(Gfp::NORETRY | Gfp::RETRY_MAYFAIL);
    if order <= COSTLY_ORDER && rights.contains(Gfp::FS) && !gives_up_early {
        Cause::OutOfMemory
    } else {
        Cause::Failure
    }
}

#[cfg(test)]
mod tests;
