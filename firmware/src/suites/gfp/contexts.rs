//! Where a request may block, and where it is refused.

use crate::memory::bulk::Bulk;
use crate::memory::named::{CONSTRUCTED_CACHE, Named, Small, cache};
use crate::memory::{Area, Kv, Object, Pages, Remapped};
use crate::oom::OutOfMemory;
use crate::report::{Outcome, diagnostic, stop_for_error};
use crate::suites::interrupt::InInterrupt;
use crate::{check, check_ok, check_served};
use hal::addr::PAGE_SIZE;
use hal::arch::cpu;
use hal::mm::{
    AllocError, Gfp, KmemCache, KvmallocError, Misuse, Protection, SlabFlags, VmallocError,
};
use hal::sync::{Context, IrqLock};

/// What a request that may block, made and undone, ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Served,
    /// Refused by the name of the context.
    Refused(Context),
    /// Refused for want of memory, as if it was made to fail.
    NoMemory,
    /// Refused for another reason.
    Failed,
}

impl OutOfMemory for Answer {
    fn is_out_of_memory(&self) -> bool {
        *self == Self::NoMemory
    }
}

impl<T> From<Result<T, AllocError>> for Answer {
    fn from(result: Result<T, AllocError>) -> Self {
        match result {
            Ok(_) => Self::Served,
            Err(AllocError::Context { context, .. }) => Self::Refused(context),
            Err(error) if error.is_out_of_memory() => Self::NoMemory,
            Err(_) => Self::Failed,
        }
    }
}

impl<T> From<Result<T, VmallocError>> for Answer {
    fn from(result: Result<T, VmallocError>) -> Self {
        match result {
            Ok(_) => Self::Served,
            Err(VmallocError::Context(context)) => Self::Refused(context),
            Err(error) if error.is_out_of_memory() => Self::NoMemory,
            Err(_) => Self::Failed,
        }
    }
}

impl<T> From<Result<T, KvmallocError>> for Answer {
    fn from(result: Result<T, KvmallocError>) -> Self {
        match result {
            Err(KvmallocError::Kmalloc(error)) => Err::<T, _>(error).into(),
            Err(KvmallocError::Vmalloc(error)) => Err::<T, _>(error).into(),
            Ok(_) => Self::Served,
            Err(error) if error.is_out_of_memory() => Self::NoMemory,
            Err(_) => Self::Failed,
        }
    }
}

static PLAIN: KmemCache = cache("test-contexts", 192, 8, SlabFlags::empty());

/// A request with flags, and its name.
type Call = (&'static str, fn(Gfp) -> Answer);

/// Requests that whatever is at hand could serve.
static CALLS: [Call; 11] = [
    ("alloc_pages of one page", |gfp| Pages::alloc(gfp, 0).into()),
    ("alloc_pages of eight pages", |gfp| {
        Pages::alloc(gfp, 3).into()
    }),
    ("alloc_pages of 32 pages", |gfp| Pages::alloc(gfp, 5).into()),
    ("kmalloc", |gfp| Object::alloc(200, gfp).into()),
    ("kmalloc of pages", |gfp| {
        Object::alloc(4 * PAGE_SIZE, gfp).into()
    }),
    ("kmalloc_packed", |gfp| Small::alloc(24, gfp).into()),
    ("kmem_cache_alloc", |gfp| Named::alloc(&PLAIN, gfp).into()),
    ("kmem_cache_alloc with a constructor", |gfp| {
        Named::alloc(&CONSTRUCTED_CACHE, gfp).into()
    }),
    ("kmem_cache_alloc_bulk", |gfp| {
        Bulk::<4>::new(&PLAIN).fill(gfp).into()
    }),
    ("kvmalloc", |gfp| Kv::alloc(100, gfp).into()),
    ("kvmalloc of pages", |gfp| {
        Kv::alloc(4 * PAGE_SIZE, gfp).into()
    }),
];

/// Requests that block whatever their flags are.
static BLOCKING_CALLS: [Call; 2] = [
    ("vmalloc", |gfp| Area::alloc_with(PAGE_SIZE, gfp).into()),
    ("vmap", |_| match Pages::alloc(Gfp::ATOMIC, 0) {
        Ok(page) => Remapped::backwards(&page, Protection::ReadWrite).into(),
        Err(error) => Err::<Pages, _>(error).into(),
    }),
];

/// All of the calls.
const COUNT: usize = CALLS.len() + BLOCKING_CALLS.len();

fn all_calls() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().chain(&BLOCKING_CALLS)
}

const GFP: Gfp = Gfp::KERNEL.union(Gfp::NOWARN);

/// What each call ends with where this is called.
fn answers() -> [Answer; COUNT] {
    let mut answers = [Answer::Failed; COUNT];
    for (answer, (_, call)) in answers.iter_mut().zip(all_calls()) {
        *answer = call(GFP);
    }
    answers
}

/// Runs `f` with a lock held, and with IRQs masked without one.
fn guarded<T>(f: fn() -> T) -> [T; 2] {
    let lock = IrqLock::new(());
    let held = lock.lock();
    let with_lock = f();
    drop(held);
    let irq = cpu::irq_save();
    let masked = f();
    cpu::irq_restore(irq);
    [with_lock, masked]
}

pub(super) fn blocking() -> Outcome {
    const ALL: [Context; 3] = [Context::LockHeld, Context::IrqsMasked, Context::Interrupt];
    static IN_INTERRUPT: InInterrupt<[Answer; COUNT]> = InInterrupt::new(answers);
    // The first time the caches get memory; after the second all calls find what they want at hand.
    for _ in 0..2 {
        for (answer, (name, _)) in answers().into_iter().zip(all_calls()) {
            if answer.is_out_of_memory() {
                return Err(stop_for_error(&answer));
            }
            check!(answer == Answer::Served, "{name} in a task: {answer:?}");
        }
    }
    let before = ALL.map(|context| Misuse::Context(context).count());
    let [with_lock, masked] = guarded(answers);
    let in_interrupt = IN_INTERRUPT.run()?;
    let after = ALL.map(|context| Misuse::Context(context).count());
    let (mut wrong, mut failed) = (0, 0);
    for (context, found) in ALL.into_iter().zip([with_lock, masked, in_interrupt]) {
        for (answer, (name, _)) in found.into_iter().zip(all_calls()) {
            match answer {
                Answer::Refused(named) if named == context => {}
                Answer::NoMemory => failed += 1,
                _ => {
                    diagnostic(format_args!("{name} in {context}: {answer:?}"));
                    wrong += 1;
                }
            }
        }
    }
    check!(
        wrong == 0,
        "{wrong} calls were not refused by the context's name"
    );
    check_served!(failed);
    for ((context, before), after) in ALL.into_iter().zip(before).zip(after) {
        let counted = (after - before) as usize;
        check!(counted == COUNT, "in {context}: counted {counted} times");
        diagnostic(format_args!(
            "refused: {counted} kinds of calls in {context}"
        ));
    }
    // A task may block as before.
    check_ok!(Pages::alloc(GFP, 0).map(drop));
    Ok(())
}

/// The calls that need not block, with flags that say so; how many were served.
fn served() -> usize {
    let served = |call: &&Call| call.1(Gfp::ATOMIC) == Answer::Served;
    CALLS.iter().filter(served).count()
}

pub(super) fn atomic() -> Outcome {
    static IN_INTERRUPT: InInterrupt<usize> = InInterrupt::new(served);
    let [with_lock, masked] = guarded(served);
    let in_interrupt = IN_INTERRUPT.run()?;
    for served in [with_lock, masked, in_interrupt] {
        check_served!(CALLS.len() - served);
    }
    Ok(())
}
