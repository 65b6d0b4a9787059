//! Failing allocations on purpose: `failslab=N` and `failslab=A..B`.
//!
//! Each test is run with its Nth allocation made to fail. It may then go on as if nothing had
//! happened, or end because an operation failed ([`Stop::Injected`]). A wrong verdict, memory that
//! is missing afterwards, a panic or a hang is a failure. Of a range, each test is run with every N
//! until it makes fewer allocations than that. What a test allocates only to have less memory left
//! does not count ([`fault::pause`]), a refusal that a test waits for is told from one on purpose
//! ([`genuine`]), and random calls are fewer ([`lightly`]).

use crate::check_ok;
use crate::cmdline::Failslab;
use crate::ledger::Ledger;
use crate::report::{self, Outcome, Section, Stop, Suite, Test, Totals};
use hal::mm::fault;

/// What became of the runs of a suite's tests.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Runs in which an allocation was made to fail.
    runs: u32,
    /// Of these, runs that ended for it.
    ended: u32,
    /// Runs that made fewer allocations.
    complete: u32,
}

/// Runs the tests of `suite` that `selected` lets through, as suite number `number`, with each of
/// the allocations in `range` failing, and adds their results to `totals`.
pub fn run_suite(
    number: usize,
    suite: &Suite,
    range: Failslab,
    selected: impl Fn(&Test) -> bool,
    totals: &mut Totals,
) {
    let mut tally = Tally::default();
    let tests = || suite.tests.iter().filter(|test| selected(test));
    let mut section = Section::open(number, suite.name, tests().count());
    for test in tests() {
        section.result(test.name, sweep(test, range, &mut tally));
    }
    let Failslab { first, last } = range;
    report::diagnostic(format_args!(
        "failslab {first}..{last}: {} runs with a failure, {} ended for it, {} made fewer allocations",
        tally.runs, tally.ended, tally.complete
    ));
    section.close(totals);
}

/// Runs a test with each allocation of `range` failing, as far as it makes so many.
fn sweep(test: &Test, range: Failslab, tally: &mut Tally) -> Outcome {
    let mut before = check_ok!(Ledger::take());
    let mut outcome = Ok(());
    for nth in range.first..=range.last {
        let (injected, run_outcome) = run_with_failure(test, nth);
        let after = check_ok!(Ledger::take());
        if let Some(difference) = before.difference(&after) {
            report::diagnostic(format_args!("allocation {nth} failed: {difference}"));
            return Err(Stop::Failed);
        }
        before = after;
        outcome = run_outcome;
        if !injected {
            tally.complete += 1;
            break;
        }
        tally.runs += 1;
        tally.ended += u32::from(outcome == Err(Stop::Injected));
        if outcome == Err(Stop::Failed) {
            report::diagnostic(format_args!("after allocation {nth} failed"));
            break;
        }
    }
    match outcome {
        // The end of a sweep shows that every run ended well.
        Err(Stop::Injected) if range.first != range.last => Ok(()),
        outcome => outcome,
    }
}

/// How much of the same a test does that would do `amount`: less while it is run hundreds of times,
/// but still as many allocations as are made to fail.
pub fn lightly(amount: usize) -> usize {
    const SHARE: usize = 16;
    if fault::is_armed() {
        amount.div_ceil(SHARE)
    } else {
        amount
    }
}

/// What `f` returns, unless the allocation that was made to fail was one of its own. For requests that
/// are to be refused: one that was refused on purpose shows nothing.
///
/// # Errors
///
/// [`Stop::Injected`] then.
pub(crate) fn genuine<T>(f: impl FnOnce() -> T) -> Result<T, Stop> {
    let before = fault::has_fired();
    let result = f();
    if fault::has_fired() == before {
        Ok(result)
    } else {
        Err(Stop::Injected)
    }
}

/// Runs a test once; whether its allocation number `nth` was made to fail, and what came of it.
/// Only a failure has its diagnostics written.
fn run_with_failure(test: &Test, nth: u32) -> (bool, Outcome) {
    report::hush(true);
    fault::fail_nth(nth);
    let outcome = (test.run)();
    let injected = fault::has_fired();
    fault::disarm();
    report::hush(false);
    if outcome == Err(Stop::Failed) {
        report::last_words();
    }
    (injected, outcome)
}
