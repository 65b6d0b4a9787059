//! Running a function on another core.
//!
//! A core that has nothing to do sits in [`idle`]: it sleeps in `WFI` and runs what is handed to
//! it. Handing over is blocking: the caller waits for the function to end, so the function may
//! borrow from the caller's stack. There is one slot per core; a second caller waits its turn.
//!
//! A core that runs a task looks into its slot when it waits itself, and else not before the task
//! ends. A caller who cannot wait for that, because the task may be waiting for it, uses
//! [`try_run_on_all`].

mod slot;

use crate::arch::{barrier, counter, cpu};
use crate::deferred;
use crate::sync::{Context, MAX_CPUS, Once, PerCpu};
use atomic::{AtomicPtr, AtomicU32, Ordering};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic;
use slot::{Job, Slot};
use thiserror::Error;

/// Why a function could not be handed to a core.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SmpError {
    /// No such core is up.
    #[error("core {0} is not online")]
    Offline(usize),
    /// The caller is in an interrupt handler or holds a lock, where waiting could deadlock.
    #[error("cannot wait for core {0} in an interrupt handler or with a lock held")]
    CannotWait(usize),
}

/// How long [`try_run_on_all`] gives the other cores to begin, in microseconds: many times what an
/// idle core takes to wake up.
const PATIENCE_US: u64 = 1000;

static SLOTS: [Slot; MAX_CPUS] = [const { Slot::new(AtomicPtr::new(ptr::null_mut())) }; MAX_CPUS];
static ONLINE: AtomicU32 = AtomicU32::new(0);
static KICK: Once<fn(usize)> = Once::new();

/// Says how to wake a core out of `WFI`: with an inter-processor interrupt. Called once by the
/// boot code after the interrupt controller is up.
pub fn set_kick(kick: fn(usize)) {
    KICK.call_once(|| kick);
}

/// Marks the executing core as able to run functions.
pub fn set_online() {
    ONLINE.fetch_or(1 << PerCpu::current().index(), Ordering::Release);
    cpu::send_event();
}

/// Whether core `index` is up.
pub fn is_online(index: usize) -> bool {
    index < MAX_CPUS && ONLINE.load(Ordering::Acquire) & (1 << index) != 0
}

/// The cores that are up, by number.
pub fn online() -> impl Iterator<Item = usize> {
    (0..MAX_CPUS).filter(|&index| is_online(index))
}

/// Runs `f` on core `index` and returns its result; on the caller's own core, directly.
///
/// # Context
///
/// Task context, no lock held: the caller sleeps (`WFI`) until `f` has returned.
///
/// # Errors
///
/// [`SmpError::Offline`] and [`SmpError::CannotWait`]; `f` has then not run.
pub fn run_on<R: Send>(index: usize, f: impl FnOnce() -> R + Send) -> Result<R, SmpError> {
    if index == PerCpu::current().index() {
        return Ok(f());
    }
    let mut call = Call::new(f);
    let job = call.job();
    // SAFETY: `wait` follows, and neither can unwind.
    unsafe { post(index, &job) }?;
    wait(&job);
    Ok(call.into_result())
}

/// Runs `f` on every core that is up, at the same time, the caller's own included. `f` is given
/// the core's number.
///
/// # Context
///
/// As [`run_on`].
///
/// # Errors
///
/// As [`run_on`]; `f` may have run on some cores.
pub fn run_on_all(f: impl Fn(usize) + Sync) -> Result<(), SmpError> {
    let me = PerCpu::current().index();
    let f = &f;
    let mut calls: [_; MAX_CPUS] = core::array::from_fn(|index| Call::new(move || f(index)));
    let jobs = calls.each_mut().map(Call::job);
    let mut posted = [false; MAX_CPUS];
    let mut result = Ok(());
    for index in online().filter(|&index| index != me) {
        // SAFETY: each job that is posted is waited for below; the firmware does not unwind, so
        // that `f` ends in a return or not at all.
        match unsafe { post(index, &jobs[index]) } {
            Ok(()) => posted[index] = true,
            Err(error) => result = Err(error),
        }
    }
    f(me);
    for (job, _) in jobs.iter().zip(posted).filter(|(_, posted)| *posted) {
        wait(job);
    }
    result
}

/// Runs `f` as [`run_on_all`] does, but not on cores that do not begin with it within a
/// millisecond, because they run a task. Returns on which cores it ran, by number.
///
/// # Context
///
/// As [`run_on`].
///
/// # Errors
///
/// [`SmpError::CannotWait`]; `f` has then not run.
pub fn try_run_on_all(f: impl Fn(usize) + Sync) -> Result<[bool; MAX_CPUS], SmpError> {
    let me = PerCpu::current().index();
    check_may_wait(me)?;
    let f = &f;
    let mut calls: [_; MAX_CPUS] = core::array::from_fn(|index| Call::new(move || f(index)));
    let jobs = calls.each_mut().map(Call::job);
    let others = || online().filter(|&index| index != me);
    let mut posted = [false; MAX_CPUS];
    let mut post_rest = || {
        for index in others() {
            // SAFETY: each job that is posted is withdrawn or waited for below; the firmware does
            // not unwind, so that `f` ends in a return or not at all.
            if !posted[index] && unsafe { SLOTS[index].try_post(&jobs[index]) } {
                posted[index] = true;
                wake(index);
            }
        }
    };
    post_rest();
    f(me);
    let patience = u64::from(counter::frequency()) * PATIENCE_US / 1_000_000;
    let deadline = counter::now() + patience;
    while counter::now() < deadline && !others().all(|index| jobs[index].is_done()) {
        // Others may wait for this core meanwhile, or have left a slot free.
        run_pending();
        post_rest();
        // Ends with the interrupt or event that `wake` sends, and with the counter's stream.
        cpu::wait_for_event();
    }
    let mut ran = posted;
    for (index, job) in jobs.iter().enumerate().filter(|(index, _)| posted[*index]) {
        ran[index] = !SLOTS[index].withdraw(job);
        if ran[index] {
            wait(job);
        }
    }
    ran[me] = true;
    Ok(ran)
}

/// What an idle core does for ever: sleeps in `WFI`, and runs what is handed to it.
pub fn idle() -> ! {
    loop {
        run_pending();
        deferred::run_pending();
        deferred::sleep_with(|has_work| sleep_unless(|| has_job() || has_work()));
    }
}

/// Runs the function waiting for this core, if there is one, outside the scopes of the core's task;
/// not if the task wants to be [alone](crate::mm::scope).
pub(crate) fn run_pending() {
    if let Some(poster) = serve(&SLOTS[PerCpu::current().index()]) {
        wake(poster);
    }
}

/// Runs the function in this core's slot. Returns which core waits for it.
fn serve(slot: &Slot) -> Option<usize> {
    PerCpu::current().scopes().outside(|| slot.run_pending())?
}

/// Ends another core's `WFI`, or its `WFE` before there is a way to do that.
pub(crate) fn wake(index: usize) {
    match KICK.get() {
        Some(kick) => kick(index),
        None => cpu::send_event(),
    }
}

/// Sleeps until `ready`, or until an interrupt: the one that brings it, or another. May return
/// early.
fn sleep_unless(ready: impl Fn() -> bool) {
    // Masked, so that an interrupt that comes between the check and the WFI stays pending and ends
    // the WFI; its handler runs as soon as the mask is lifted.
    let irq = cpu::irq_save();
    if !ready() {
        match KICK.get() {
            Some(_) => cpu::wait_for_interrupt(),
            None => cpu::wait_for_event(),
        }
    }
    cpu::irq_restore(irq);
    // What is pending is taken here, before the mask comes back (Arm ARM D1.3.6).
    barrier::isb();
}

/// Whether a function waits for the executing core.
fn has_job() -> bool {
    !SLOTS[PerCpu::current().index()].is_empty()
}

/// Hands `job` to core `index`.
///
/// # Safety
///
/// After `Ok`, the caller keeps `job` where it is until [`wait`] has returned for it.
unsafe fn post(index: usize, job: &Job) -> Result<(), SmpError> {
    if !is_online(index) {
        return Err(SmpError::Offline(index));
    }
    check_may_wait(index)?;
    // SAFETY: the caller's contract.
    while !unsafe { SLOTS[index].try_post(job) } {
        // Someone may be waiting for this very core meanwhile.
        run_pending();
        core::hint::spin_loop();
    }
    wake(index);
    Ok(())
}

/// Refuses to wait for core `index` where that could deadlock.
fn check_may_wait(index: usize) -> Result<(), SmpError> {
    match PerCpu::current().context() {
        Context::Task => Ok(()),
        _ => Err(SmpError::CannotWait(index)),
    }
}

fn wait(job: &Job) {
    while !job.is_done() {
        run_pending();
        sleep_unless(|| has_job() || job.is_done());
    }
}

/// A closure and the place for its result.
struct Call<F, R> {
    f: Option<F>,
    result: UnsafeCell<MaybeUninit<R>>,
}

impl<R, F: FnOnce() -> R> Call<F, R> {
    fn new(f: F) -> Self {
        Self {
            f: Some(f),
            result: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    fn job(&mut self) -> Job {
        let poster = PerCpu::current().index();
        // SAFETY: `run` demands this value, which its owner keeps and leaves alone until the job is
        // done: see the calls of `post`. The bounds on `run_on` and `run_on_all` let it cross cores.
        unsafe { Job::new(Self::run, ptr::from_mut(self).cast(), poster) }
    }

    /// # Safety
    ///
    /// `this` points to a live `Call<F, R>` nobody else uses.
    unsafe fn run(this: *mut ()) {
        // SAFETY: the caller's contract.
        let this = unsafe { &mut *this.cast::<Self>() };
        if let Some(f) = this.f.take() {
            this.result.get_mut().write(f());
        }
    }

    /// The result; the job must have run.
    fn into_result(self) -> R {
        assert!(self.f.is_none(), "the job has not run");
        // SAFETY: `run` took `f` and wrote the result before it returned.
        unsafe { self.result.into_inner().assume_init() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::mm::scope::{alone, memalloc_noreclaim, rights};
    use crate::mm::{Gfp, Owner, charge_to};
    use std::iter;
    use std::sync::mpsc;
    use std::thread;

    fn spawn_idle_core() -> usize {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            set_online();
            sender.send(PerCpu::current().index()).unwrap();
            idle()
        });
        receiver.recv().unwrap()
    }

    /// The number of an idle core that is not the caller.
    pub(crate) fn spawn_other_core() -> usize {
        let me = PerCpu::current().index();
        // Threads share numbers when there are more of them than cores.
        let mut cores = iter::repeat_with(spawn_idle_core);
        cores.find(|&core| core != me).unwrap()
    }

    #[test]
    fn a_function_runs_on_the_other_core_and_returns() {
        let me = PerCpu::current().index();
        let other = spawn_other_core();
        let local = [1_u64, 2, 3];
        let got = run_on(other, || {
            (PerCpu::current().index(), local.iter().sum::<u64>())
        });
        assert_eq!(got, Ok((other, 6)));
        assert_eq!(run_on(me, || PerCpu::current().index()), Ok(me));
        let offline = (0..MAX_CPUS)
            .find(|&index| !is_online(index) && index != me)
            .unwrap();
        assert_eq!(run_on(offline, || 0), Err(SmpError::Offline(offline)));

        let lock = crate::sync::IrqLock::new(());
        let held = lock.lock();
        assert_eq!(run_on(other, || 0), Err(SmpError::CannotWait(other)));
        drop(held);

        let hits = [const { AtomicU32::new(0) }; MAX_CPUS];
        run_on_all(|index| {
            hits[index].fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(hits[me].load(Ordering::Relaxed), 1);
        assert_eq!(hits[other].load(Ordering::Relaxed), 1);
    }

    /// A core that is up and runs a task until it is dropped, then idles.
    struct BusyCore {
        _task: mpsc::Sender<()>,
    }

    impl BusyCore {
        /// One with a number no idle core has.
        fn spawn() -> Self {
            let me = PerCpu::current().index();
            iter::repeat_with(|| {
                let (sender, receiver) = mpsc::channel();
                let (task, until_dropped) = mpsc::channel();
                thread::spawn(move || {
                    let index = PerCpu::current().index();
                    let unused = !is_online(index) && index != me;
                    sender.send(unused).unwrap();
                    if unused {
                        set_online();
                        let _ = until_dropped.recv();
                        idle()
                    }
                });
                receiver.recv().unwrap().then_some(Self { _task: task })
            })
            .find_map(|core| core)
            .unwrap()
        }
    }

    /// Without a bound this never returns: the task ends after the call.
    #[test]
    fn a_core_that_runs_a_task_is_not_waited_for() {
        let me = PerCpu::current().index();
        let busy = BusyCore::spawn();
        let hits = [const { AtomicU32::new(0) }; MAX_CPUS];
        let ran = try_run_on_all(|index| {
            hits[index].fetch_add(1, Ordering::Relaxed);
        });
        let ran = ran.unwrap();
        assert!(ran[me]);
        let hits = hits.map(AtomicU32::into_inner);
        assert_eq!(
            hits,
            ran.map(u32::from),
            "only what ran is said to have run"
        );
        drop(busy);

        let lock = crate::sync::IrqLock::new(());
        let held = lock.lock();
        assert_eq!(try_run_on_all(|_| ()), Err(SmpError::CannotWait(me)));
        drop(held);
    }

    #[test]
    fn a_function_runs_outside_the_scopes_of_the_task_that_waits() {
        static OWNER: Owner = Owner::new("waiter", 0);
        let slot = Slot::new(AtomicPtr::new(ptr::null_mut()));
        let mut call = Call::new(|| (Owner::current().map(Owner::name), rights(Gfp::KERNEL)));
        let job = call.job();
        let charged = charge_to(&OWNER).unwrap();
        let scope = memalloc_noreclaim();
        // SAFETY: this thread runs the job below.
        assert!(unsafe { slot.try_post(&job) });
        let apart = alone();
        assert_eq!(serve(&slot), None);
        assert!(!job.is_done(), "run for a task that wants to be alone");
        drop(apart);
        assert!(serve(&slot).is_some() && job.is_done());
        assert_eq!(Owner::current().map(Owner::name), Some("waiter"));
        drop((scope, charged));
        assert_eq!(call.into_result(), (None, Gfp::KERNEL));
    }

    #[test]
    fn a_job_is_withdrawn_until_it_has_begun() {
        let slot = Slot::new(AtomicPtr::new(ptr::null_mut()));
        let runs = AtomicU32::new(0);
        let mut call = Call::new(|| runs.fetch_add(1, Ordering::Relaxed));
        let job = call.job();
        assert!(!slot.withdraw(&job));
        // SAFETY: this thread withdraws the job on the next line.
        assert!(unsafe { slot.try_post(&job) });
        assert!(slot.withdraw(&job));
        assert_eq!(slot.run_pending(), None);
        // SAFETY: this thread runs the job on the next line.
        assert!(unsafe { slot.try_post(&job) });
        assert!(slot.run_pending().is_some() && !slot.withdraw(&job));
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    /// The waiting core looks for work in its slot: it must not find what it is running.
    #[test]
    fn a_function_that_hands_over_does_not_meet_itself() {
        let runs = AtomicU32::new(0);
        let slot = Slot::new(AtomicPtr::new(ptr::null_mut()));
        let mut call = Call::new(|| {
            runs.fetch_add(1, Ordering::Relaxed);
            assert!(slot.is_empty());
            assert_eq!(slot.run_pending(), None);
        });
        let job = call.job();
        // SAFETY: this thread runs the job on the next line.
        assert!(unsafe { slot.try_post(&job) });
        assert_eq!(slot.run_pending(), Some(PerCpu::current().index()));
        assert!(job.is_done());
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }
}
