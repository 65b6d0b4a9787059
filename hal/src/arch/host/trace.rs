//! What was issued, per thread.

use crate::addr::VirtAddr;
use std::cell::RefCell;
use std::panic::Location;
use std::rc::Rc;

/// One instruction as a test sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `DSB SY`.
    DsbSy,
    /// `DSB ISH`.
    DsbIsh,
    /// `DSB ISHST`.
    DsbIshst,
    /// `DMB OSHST`.
    DmbOshst,
    /// `DMB OSHLD`.
    DmbOshld,
    /// `ISB`.
    Isb,
    /// `DC CVAC` of a line.
    Clean(VirtAddr),
    /// `DC CIVAC` of a line.
    CleanInvalidate(VirtAddr),
    /// `DC IVAC` of a line.
    Invalidate(VirtAddr),
    /// `TLBI VAALE1IS` of a page.
    TlbLastLevel(VirtAddr),
    /// `TLBI VAAE1IS` of a page.
    TlbAllLevels(VirtAddr),
    /// `TLBI VMALLE1IS`.
    TlbAll,
    /// No instruction: `len` bytes copied between a buffer and bounce slots, for its place among
    /// the others. Noted in builds for tests.
    Copy {
        /// First byte read.
        from: VirtAddr,
        /// First byte written.
        to: VirtAddr,
        /// Bytes.
        len: usize,
    },
}

/// Who is told of everything a thread issues, before the code goes on.
pub trait Observer {
    /// An instruction, and the line of code that issued it. Where the function was passed on as a
    /// value that is its own line.
    fn on_op(&self, op: Op, site: &'static Location<'static>);

    /// A store of `new` to the entry of a translation table at `entry`. Returns whether it happens.
    fn on_entry(&self, entry: VirtAddr, new: u64, site: &'static Location<'static>) -> bool;
}

thread_local! {
    static OPS: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
    static OBSERVER: RefCell<Option<Rc<dyn Observer>>> = const { RefCell::new(None) };
}

/// The observer of this thread. It is called with nothing borrowed: it may issue operations itself.
fn observer() -> Option<Rc<dyn Observer>> {
    OBSERVER.with_borrow(Clone::clone)
}

#[track_caller]
pub(crate) fn record(op: Op) {
    OPS.with_borrow_mut(|ops| {
        if let Some(ops) = ops {
            ops.push(op);
        }
    });
    if let Some(observer) = observer() {
        observer.on_op(op, Location::caller());
    }
}

/// Whether a store to a table's entry happens.
#[track_caller]
pub(super) fn admits_entry(entry: VirtAddr, new: u64) -> bool {
    let site = Location::caller();
    observer().is_none_or(|observer| observer.on_entry(entry, new, site))
}

/// What was issued since the recording on this thread began, but for the first `skip`.
#[cfg(test)]
pub(crate) fn recorded(skip: usize) -> Vec<Op> {
    let since = |ops: &Vec<Op>| ops.get(skip..).map(<[Op]>::to_vec);
    OPS.with_borrow(|ops| ops.as_ref().and_then(since).unwrap_or_default())
}

/// What a model of a device says when its doorbell is rung, in a recording: nothing was issued
/// between a `DSB SY` and the doorbell.
///
/// # Panics
///
/// If the last instruction of the recording is another, or there is none.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_behind_barrier() {
    OPS.with_borrow(|ops| {
        if let Some(ops) = ops {
            assert_eq!(
                ops.last(),
                Some(&Op::DsbSy),
                "behind the doorbell's barrier"
            );
        }
    });
}

/// Runs `f` and returns what it issued on this thread.
pub fn record_during<R>(f: impl FnOnce() -> R) -> (R, Vec<Op>) {
    OPS.set(Some(Vec::new()));
    let result = f();
    (result, OPS.take().unwrap_or_default())
}

/// Runs `f` and tells `observer` of what it issues on this thread, in place of one that is there.
pub fn observe_during<R>(observer: Rc<dyn Observer>, f: impl FnOnce() -> R) -> R {
    /// Puts back who was there, should `f` panic too.
    struct Restore(Option<Rc<dyn Observer>>);

    impl Drop for Restore {
        fn drop(&mut self) {
            OBSERVER.set(self.0.take());
        }
    }

    let _restore = Restore(OBSERVER.replace(Some(observer)));
    f()
}
