//! Every interleaving of the protocols between cores, within loom's memory model.
//!
//! Each protocol's own source file is compiled here over loom's atomics instead of the core's, so
//! that the library need not know of loom. A package of its own keeps loom out of the builds of
//! the other tests.

#![cfg_attr(not(test), no_std)]
#![cfg(test)]

use loom::cell::UnsafeCell;
use loom::sync::atomic::{self, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use pending::Pending;
use slot::{Job, Slot};
use std::ptr;
use words::Frame;

#[path = "../../src/deferred/pending.rs"]
#[expect(
    dead_code,
    reason = "a hint the allocator takes, of which nothing depends"
)]
mod pending;
#[path = "../../src/smp/slot.rs"]
mod slot;
#[path = "../../src/mm/frame/words.rs"]
#[expect(unreachable_pub, reason = "public where it comes from")]
mod words;

/// Who waits does not matter here: nobody sleeps.
const POSTER: usize = 0;

/// What a job writes and its poster reads, both without any synchronisation of their own.
struct Counter(UnsafeCell<u32>);

impl Counter {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    /// # Safety
    ///
    /// `this` points to a live `Counter`.
    unsafe fn increment(this: *mut ()) {
        // SAFETY: the caller's contract; loom reports an access at the same time.
        unsafe { (*this.cast::<Self>()).0.with_mut(|value| *value += 1) };
    }

    /// Reads as the owner of the counter: a late access of a job is a race with this write.
    fn take(self) -> u32 {
        // SAFETY: loom reports an access at the same time.
        self.0
            .with_mut(|value| unsafe { std::mem::take(&mut *value) })
    }
}

/// Explores `f` with up to three preemptions at any places, which is known to uncover nearly all
/// bugs of this kind. `LOOM_MAX_PREEMPTIONS` takes another number.
fn explore(f: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(3);
    model.check(f);
}

fn slot() -> Arc<Slot> {
    Arc::new(Slot::new(AtomicPtr::new(ptr::null_mut())))
}

/// What `run_on` does: posts to `to`, runs what comes for `own` while it waits.
fn hand_over(to: &Slot, own: &Slot) -> u32 {
    let mut counter = Counter::new();
    // SAFETY: `counter` is left alone until the job is done.
    let job = unsafe {
        Job::new(
            Counter::increment,
            ptr::from_mut(&mut counter).cast(),
            POSTER,
        )
    };
    // SAFETY: `job` lives until it is done: the loop below.
    while !unsafe { to.try_post(&job) } {
        own.run_pending();
        thread::yield_now();
    }
    while !job.is_done() {
        own.run_pending();
        thread::yield_now();
    }
    counter.take()
}

/// What an idle core does, until it has run `jobs`.
fn idle(own: &Slot, jobs: usize) {
    let mut run = 0;
    while run < jobs {
        run += usize::from(own.run_pending().is_some());
        thread::yield_now();
    }
}

#[test]
fn what_a_job_wrote_is_visible_when_it_is_done() {
    explore(|| {
        let (mine, other) = (slot(), slot());
        let runner = thread::spawn({
            let other = other.clone();
            move || idle(&other, 1)
        });
        assert_eq!(hand_over(&other, &mine), 1);
        runner.join().unwrap();
        assert!(other.is_empty());
    });
}

#[test]
fn a_slot_is_used_again_at_once() {
    explore(|| {
        let (mine, other) = (slot(), slot());
        let runner = thread::spawn({
            let other = other.clone();
            move || idle(&other, 2)
        });
        assert_eq!(hand_over(&other, &mine), 1);
        assert_eq!(hand_over(&other, &mine), 1);
        runner.join().unwrap();
    });
}

/// A job one core has tried to post, kept for whoever runs it.
struct Attempt {
    job: Box<Job>,
    counter: Box<Counter>,
    posted: bool,
}

// SAFETY: the job points to the counter beside it, whose address moving the boxes does not change.
unsafe impl Send for Attempt {}

impl Attempt {
    fn new(slot: &Slot) -> Self {
        let mut counter = Box::new(Counter::new());
        // SAFETY: the counter is not used before the job is done.
        let job = unsafe {
            Job::new(
                Counter::increment,
                ptr::from_mut(&mut *counter).cast(),
                POSTER,
            )
        };
        let job = Box::new(job);
        // SAFETY: `expect_run` drops the job, after it is done.
        let posted = unsafe { slot.try_post(&job) };
        Self {
            job,
            counter,
            posted,
        }
    }

    fn expect_run(self) {
        assert_eq!(self.job.is_done(), self.posted);
        assert_eq!(self.counter.take(), u32::from(self.posted));
    }
}

/// Without waiting, because three threads that wait never end in a model.
#[test]
fn of_two_posters_each_job_runs_once_if_it_was_posted() {
    explore(|| {
        let target = slot();
        let poster = || {
            let target = target.clone();
            thread::spawn(move || Attempt::new(&target))
        };
        let posters = [poster(), poster()];
        let before = target.run_pending().is_some();
        let attempts = posters.map(|poster| poster.join().unwrap());
        let after = target.run_pending().is_some();
        assert_eq!(target.run_pending(), None);
        let posted = attempts.iter().filter(|attempt| attempt.posted).count();
        assert_eq!(posted, usize::from(before) + usize::from(after));
        assert!(posted > 0);
        attempts.into_iter().for_each(Attempt::expect_run);
    });
}

/// A late look of the runner at a withdrawn job is a race with the end of its counter.
#[test]
fn a_job_is_withdrawn_or_run_and_then_left_alone() {
    explore(|| {
        let target = slot();
        let runner = thread::spawn({
            let target = target.clone();
            move || target.run_pending().is_some()
        });
        let attempt = Attempt::new(&target);
        assert!(attempt.posted);
        let withdrawn = target.withdraw(&attempt.job);
        if withdrawn {
            assert!(!attempt.job.is_done());
            assert_eq!(attempt.counter.take(), 0);
            drop(attempt.job);
            // The slot is free for the next one, which the runner may find in its place.
            let next = Attempt::new(&target);
            assert!(next.posted);
            let ran = runner.join().unwrap();
            assert_eq!(target.run_pending().is_some(), !ran);
            next.expect_run();
        } else {
            assert!(runner.join().unwrap(), "neither withdrawn nor run");
            attempt.expect_run();
        }
    });
}

/// Both go on serving until both are done, as cores that fall back to idling do.
#[test]
fn cores_that_wait_for_each_other_serve_each_other() {
    explore(|| {
        let (a, b) = (slot(), slot());
        let core = |own: Arc<Slot>, to: Arc<Slot>, finished: Arc<AtomicUsize>| {
            let got = hand_over(&to, &own);
            finished.fetch_add(1, Ordering::AcqRel);
            while finished.load(Ordering::Acquire) < 2 {
                own.run_pending();
                thread::yield_now();
            }
            got
        };
        let finished = Arc::new(AtomicUsize::new(0));
        let other = thread::spawn({
            let (a, b, finished) = (a.clone(), b.clone(), finished.clone());
            move || core(b, a, finished)
        });
        assert_eq!(core(a, b, finished), 1);
        assert_eq!(other.join().unwrap(), 1);
    });
}

/// The bit of some work.
const WORK: u32 = 1 << 1;

#[test]
fn nobody_sleeps_past_work() {
    explore(|| {
        let pending = Arc::new(Pending::new(AtomicU32::new(0), AtomicU32::new(0)));
        let sleeper = {
            let pending = Arc::clone(&pending);
            thread::spawn(move || {
                pending.sleeps(3);
                pending.any(WORK)
            })
        };
        let woken = pending.add(WORK);
        let stays_awake = sleeper.join().unwrap();
        assert!(stays_awake || woken == Some(3), "asleep with work waiting");
        pending.wakes(3);
        assert_eq!(pending.add(WORK << 1), None, "nobody sleeps");
    });
}

#[test]
fn work_added_twice_is_done_and_done_once_at_a_time() {
    explore(|| {
        let pending = Arc::new(Pending::new(AtomicU32::new(0), AtomicU32::new(0)));
        let state = Arc::new(AtomicUsize::new(0));
        let adder = {
            let (pending, state) = (Arc::clone(&pending), Arc::clone(&state));
            thread::spawn(move || {
                state.store(1, Ordering::Relaxed);
                let _ = pending.add(WORK);
            })
        };
        // Whoever takes the work sees what was done before it was added.
        let early = pending.take(WORK).then(|| state.load(Ordering::Relaxed));
        adder.join().unwrap();
        let late = pending.take(WORK).then(|| state.load(Ordering::Relaxed));
        assert_eq!(early.or(late), Some(1));
        assert!(early.is_none() || late.is_none(), "done twice");
    });
}

/// The cache whose slab the frame is, its order, and two objects of it.
const TAG: u8 = 20;
const ORDER: u32 = 1;
const MINE: u64 = 1 << 5;
const OTHER: u64 = 1 << 6;

/// What the cache's lock protects, as far as it matters here: who may change the frame's bits.
type SlabsLock = Mutex<()>;

/// What a free looks at without the lock: that the object is out of its slab, and whose it is.
fn may_be_freed(frame: &Frame, object: u64) -> bool {
    frame.objects_out() & object != 0 && frame.tag() == TAG
}

fn take(lock: &SlabsLock, frame: &Frame, object: u64) {
    let _slabs = lock.lock().unwrap();
    frame.set_objects_out(frame.objects_out() | object);
}

fn give(lock: &SlabsLock, frame: &Frame, object: u64) {
    let _slabs = lock.lock().unwrap();
    frame.set_objects_out(frame.objects_out() & !object);
}

/// One core takes two objects of a fresh slab, hands one over with `order`, and frees and takes the
/// other one meanwhile; this core frees what it was handed.
fn free_on_another_core(order: Ordering) {
    let (frame, lock) = (Arc::new(Frame::default()), Arc::new(SlabsLock::new(())));
    let handed_over = Arc::new(AtomicU32::new(0));
    let taker = {
        let (frame, lock) = (Arc::clone(&frame), Arc::clone(&lock));
        let handed_over = Arc::clone(&handed_over);
        thread::spawn(move || {
            {
                let _slabs = lock.lock().unwrap();
                frame.set_slab(TAG, ORDER);
            }
            take(&lock, &frame, MINE | OTHER);
            handed_over.store(1, order);
            give(&lock, &frame, OTHER);
            take(&lock, &frame, OTHER);
        })
    };
    let freed = handed_over.load(Ordering::Acquire) == 1;
    if freed {
        assert!(may_be_freed(&frame, MINE), "refused though in use");
        give(&lock, &frame, MINE);
    }
    taker.join().unwrap();
    let left = if freed { OTHER } else { MINE | OTHER };
    assert_eq!(frame.objects_out(), left, "a bit is lost");
}

#[test]
fn an_object_is_freed_by_the_core_it_was_handed_to_while_others_come_and_go() {
    explore(|| free_on_another_core(Ordering::Release));
}

#[test]
#[should_panic(expected = "refused though in use")]
fn an_object_handed_over_without_order_may_be_refused_planted() {
    explore(|| free_on_another_core(Ordering::Relaxed));
}

#[test]
fn a_frame_is_one_caches_or_the_next_ones() {
    explore(|| {
        let (frame, lock) = (Arc::new(Frame::default()), Arc::new(SlabsLock::new(())));
        frame.set_slab(TAG, ORDER);
        frame.set_objects_out(MINE);
        let next = {
            let (frame, lock) = (Arc::clone(&frame), Arc::clone(&lock));
            thread::spawn(move || {
                let slabs = lock.lock().unwrap();
                // The slab is empty: it is released, and another cache makes it one of its own.
                if frame.objects_out() == 0 {
                    frame.clear_slab();
                    frame.set_slab(TAG + 1, ORDER);
                    frame.set_objects_out(OTHER);
                }
                drop(slabs);
            })
        };
        // As long as an object is out, its frame changes its owner for nobody.
        assert!(may_be_freed(&frame, MINE));
        give(&lock, &frame, MINE);
        next.join().unwrap();
        let (tag, out) = (frame.tag(), frame.objects_out());
        assert!((tag, out) == (TAG, 0) || (tag, out) == (TAG + 1, OTHER));
    });
}
