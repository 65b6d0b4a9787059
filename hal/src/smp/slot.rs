//! The place where a core finds the function handed to it, and the protocol of the hand-over.
//!
//! A posted [`Job`] lies on its poster's stack. The poster may let it go as soon as it has seen
//! [`Job::is_done`]; the running core therefore takes the job out of the slot first and touches it
//! last when it sets that flag. A poster that takes the job out itself may let it go at once: the
//! other core has not seen it. The package `hal-loom` explores the interleavings of this file.

use super::atomic::{AtomicBool, AtomicPtr, Ordering};
use core::ptr;

/// A function waiting for its core, on the stack of the core that handed it over.
#[derive(Debug)]
pub(super) struct Job {
    call: unsafe fn(*mut ()),
    argument: *mut (),
    /// The core that waits.
    poster: usize,
    done: AtomicBool,
}

impl Job {
    /// A job that will call `call(argument)` once, for which core `poster` waits.
    ///
    /// # Safety
    ///
    /// Until the job is done, `argument` is what `call` demands, on any core.
    pub(super) unsafe fn new(call: unsafe fn(*mut ()), argument: *mut (), poster: usize) -> Self {
        Self {
            call,
            argument,
            poster,
            done: AtomicBool::new(false),
        }
    }

    /// Whether the function has returned; what it wrote is then visible to the caller.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// At most one job for one core.
#[derive(Debug)]
pub(super) struct Slot {
    job: AtomicPtr<Job>,
}

impl Slot {
    /// A slot around `job`, which is null.
    pub(super) const fn new(job: AtomicPtr<Job>) -> Self {
        Self { job }
    }

    /// Whether no job waits. Only posting makes it false.
    pub(super) fn is_empty(&self) -> bool {
        self.job.load(Ordering::Acquire).is_null()
    }

    /// Puts `job` into the slot; `false` if another one is still there.
    ///
    /// # Safety
    ///
    /// After `true`, `job` stays where it is until it is done or withdrawn.
    pub(super) unsafe fn try_post(&self, job: &Job) -> bool {
        let job = ptr::from_ref(job).cast_mut();
        self.job
            .compare_exchange(ptr::null_mut(), job, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes `job` out again. `false` if it is not in the slot: after it was posted, that means that
    /// its core has begun it.
    pub(super) fn withdraw(&self, job: &Job) -> bool {
        let job = ptr::from_ref(job).cast_mut();
        // Another job has another address as long as this one lives. Whoever runs a job takes it
        // out first, so nobody has looked at this one and there is nothing to order.
        self.job
            .compare_exchange(job, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the job out and runs it. Returns which core waits for it, or `None` without a job.
    ///
    /// The slot is empty while the function runs: one that hands something over itself, and while
    /// it waits runs what has come for its own core, must not meet itself.
    pub(super) fn run_pending(&self) -> Option<usize> {
        let job = self.job.swap(ptr::null_mut(), Ordering::Acquire);
        if job.is_null() {
            return None;
        }
        // SAFETY: `try_post`'s caller keeps the job where it is until it is withdrawn, which the
        // swap has ruled out, or `done` is set, which only this function does, below; the swap gave
        // the job to this caller alone.
        let taken = unsafe { &*job };
        let &Job {
            call,
            argument,
            poster,
            ..
        } = taken;
        // SAFETY: `Job::new`'s caller vouches for the argument until `done` is set.
        unsafe { call(argument) };
        // SAFETY: as for the first. The poster may let the job go during the store, so the flag is
        // reached through a pointer: no reference to the job lives longer than the job.
        unsafe { (*ptr::addr_of!((*job).done)).store(true, Ordering::Release) };
        Some(poster)
    }
}
