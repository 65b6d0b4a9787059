//! The report: KTAP version 1 on the console (docs.kernel.org/dev-tools/ktap.html).
//!
//! Suites are the outer level, tests the inner. A suite's last test is the ledger's: what was free
//! before the suite is free after it. A diagnostic line precedes the result it explains.
//! The last line is a plain total.

use crate::check_ok;
use crate::console;
use crate::dma_debug;
use crate::ledger::{Item, Ledger, Place};
use crate::oom::OutOfMemory;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use hal::mm::{FailureReport, Gfp, Misuse, fault};
use hal::smp::SmpError;
use hal::sync::IrqLock;

/// Why a test did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Something is wrong; a diagnostic line has said what.
    Failed,
    /// This machine cannot show it; the reason goes into the result line.
    Skipped(&'static str),
    /// An operation failed after an allocation was made to fail (see [`crate::failslab`]).
    Injected,
}

/// What a test returns.
pub type Outcome = Result<(), Stop>;

/// One check with a name.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Name within the suite, `[a-z0-9_.]`.
    pub name: &'static str,
    /// The check.
    pub run: fn() -> Outcome,
}

/// Tests of one subject.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Name, as the command line's `suite=` filters it.
    pub name: &'static str,
    /// The tests, in the order they run.
    pub tests: &'static [Test],
}

/// Results so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests this machine cannot run.
    pub skipped: u32,
}

impl Totals {
    /// Adds the result of a test.
    pub fn count(&mut self, outcome: Outcome) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(Stop::Failed) => self.failed += 1,
            Err(Stop::Skipped(_) | Stop::Injected) => self.skipped += 1,
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Starts the report.
pub fn begin() {
    console::line(format_args!("KTAP version 1"));
}

/// Announces how many suites follow.
pub fn plan(suites: usize) {
    console::line(format_args!("1..{suites}"));
}

/// Levels of notes as Linux numbers them (`loglevel=`): a note is written if its level is at most
/// the one set. Results and the diagnostics of tests are always written.
const WARNING: u8 = 4;
const INFO: u8 = 6;

static LEVEL: AtomicU8 = AtomicU8::new(INFO);

/// Writes notes up to `level` from now on.
pub fn set_level(level: u8) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// Writes a note: something about the machine worth knowing.
pub fn note(text: fmt::Arguments<'_>) {
    note_at(INFO, text);
}

/// Writes a warning: something is not as it should be, and the run goes on.
pub fn warning(text: fmt::Arguments<'_>) {
    note_at(WARNING, text);
}

fn note_at(level: u8, text: fmt::Arguments<'_>) {
    if level <= LEVEL.load(Ordering::Relaxed) && !HUSHED.load(Ordering::Relaxed) {
        console::line(format_args!("# {text}"));
    }
}

/// Writes the report of a failed allocation, line by line.
pub fn allocation_failure(report: &FailureReport<'_>) {
    let mut lines = Warnings::default();
    // A line that is too long is cut, and nothing else can go wrong.
    let _ = write!(lines, "{report}");
}

/// Writes what is wrong with a request for memory, or with a free, which has no flags.
pub fn misuse(misuse: Misuse, gfp: Gfp) {
    if gfp.is_empty() {
        warning(format_args!("{misuse}"));
    } else {
        warning(format_args!("{misuse}, mode:{gfp}"));
    }
}

/// Writes what is wrong with an object of a slab cache.
#[cfg(feature = "slab-debug")]
pub fn slab_fault(report: &hal::mm::SlabReport) {
    let mut lines = Warnings::default();
    // As above.
    let _ = write!(lines, "{report}");
}

/// Turns text into one warning a line. The console is not held while a line is being made: making
/// it takes the allocators' locks.
#[derive(Default)]
struct Warnings {
    line: heapless::String<192>,
}

impl Write for Warnings {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if char == '\n' {
                warning(format_args!("{}", self.line));
                self.line.clear();
            } else {
                let _ = self.line.push(char);
            }
        }
        Ok(())
    }
}

/// Writes a diagnostic line that belongs to the running test.
pub fn diagnostic(text: fmt::Arguments<'_>) {
    if HUSHED.load(Ordering::Relaxed) {
        let mut last = LAST.lock();
        last.clear();
        // A line that is too long is cut.
        let _ = write!(last, "{text}");
    } else {
        console::line(format_args!("  # {text}"));
    }
}

/// A line for tools, unless nothing is to be written.
pub(crate) fn announce(line: fmt::Arguments<'_>) {
    if !HUSHED.load(Ordering::Relaxed) {
        console::line(line);
    }
}

static HUSHED: AtomicBool = AtomicBool::new(false);
/// The last diagnostic that was not written.
static LAST: IrqLock<heapless::String<192>> = IrqLock::new(heapless::String::new());

/// Stops writing notes and diagnostics, or starts again: of a test that is run hundreds of times,
/// only a failure is of interest.
pub fn hush(hushed: bool) {
    if hushed {
        LAST.lock().clear();
    }
    HUSHED.store(hushed, Ordering::Relaxed);
}

/// Writes the last diagnostic that was not written.
pub fn last_words() {
    let last = LAST.lock().clone();
    diagnostic(format_args!("{last}"));
}

/// A suite of the report that has been opened and wants its results.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    number: usize,
    name: &'a str,
    results: usize,
    totals: Totals,
    before: Result<Ledger, SmpError>,
}

impl<'a> Section<'a> {
    /// Opens suite number `number`, which will have `count` results and the ledger's.
    pub(crate) fn open(number: usize, name: &'a str, count: usize) -> Self {
        console::line(format_args!("  KTAP version 1"));
        console::line(format_args!("  # Subtest: {name}"));
        console::line(format_args!("  1..{}", count + 1));
        Self {
            number,
            name,
            results: 0,
            totals: Totals::default(),
            before: Ledger::take(),
        }
    }

    /// Writes the next result.
    pub(crate) fn result(&mut self, name: impl fmt::Display, outcome: Outcome) {
        self.results += 1;
        result(self.results, name, outcome);
        self.totals.count(outcome);
    }

    /// Compares the ledgers, closes the suite and adds its results to `totals`.
    pub(crate) fn close(mut self, totals: &mut Totals) {
        let outcome = leaves_no_leak(self.before);
        self.result("leaves_no_leak", outcome);
        let Totals {
            passed,
            failed,
            skipped,
        } = self.totals;
        let word = if failed == 0 { "ok" } else { "not ok" };
        console::line(format_args!("{word} {} {}", self.number, self.name));
        totals.passed += passed;
        totals.failed += failed;
        totals.skipped += skipped;
    }
}

/// Runs the tests of `suite` that `selected` lets through, as suite number `number`, `rounds`
/// times each, and adds their results to `totals`.
pub fn run_suite(
    number: usize,
    suite: &Suite,
    rounds: u32,
    selected: impl Fn(&Test) -> bool,
    totals: &mut Totals,
) {
    let chosen = || suite.tests.iter().filter(|test| selected(test));
    let mut section = Section::open(number, suite.name, chosen().count());
    for test in chosen() {
        section.result(test.name, (0..rounds).try_for_each(|_| (test.run)()));
    }
    section.close(totals);
}

/// Writes the result line of a test.
fn result(number: usize, name: impl fmt::Display, outcome: Outcome) {
    match outcome {
        Ok(()) => console::line(format_args!("  ok {number} {name}")),
        Err(Stop::Failed) => console::line(format_args!("  not ok {number} {name}")),
        Err(Stop::Skipped(reason)) => {
            console::line(format_args!("  ok {number} {name} # SKIP {reason}"));
        }
        Err(Stop::Injected) => {
            console::line(format_args!(
                "  ok {number} {name} # SKIP ended when an allocation failed as asked"
            ));
        }
    }
}

/// Whether what was free when `before` was taken is free now; says what is not.
pub(crate) fn leaves_no_leak(before: Result<Ledger, SmpError>) -> Outcome {
    let before = check_ok!(before);
    let after = check_ok!(Ledger::take());
    match before.difference(&after) {
        None => Ok(()),
        Some(difference) => {
            diagnostic(format_args!("{difference}"));
            if difference.growth().0 == Place::Count(Item::Mappings) {
                dma_debug::list();
            }
            Err(Stop::Failed)
        }
    }
}

/// Reports a selection that matched no test, as a failure.
pub fn nothing_selected(totals: &mut Totals) {
    note(format_args!(
        "nothing matches the command line's suite=, test= and bench="
    ));
    console::line(format_args!("not ok 1 selection"));
    totals.failed += 1;
}

/// Ends the report with the plain total.
pub fn end(totals: &Totals) {
    console::line(format_args!("{totals}"));
}

/// How a test ends of whose requests for memory `refused` were refused: on purpose if it is the one
/// that was made to fail.
pub fn stop_for_refusals(refused: usize) -> Stop {
    if refused == 1 && fault::has_fired() {
        Stop::Injected
    } else {
        Stop::Failed
    }
}

/// How a test ends whose operation failed with `error`: on purpose, if an allocation was made to fail
/// and the error says so.
pub(crate) fn stop_for_error(error: &impl OutOfMemory) -> Stop {
    if error.is_out_of_memory() && fault::has_fired() {
        Stop::Injected
    } else {
        Stop::Failed
    }
}

/// Says why an operation failed that a test needs, and is the end of the test.
///
/// # Errors
///
/// Always: [`stop_for_error`].
pub(crate) fn failed_operation<T>(error: &(impl OutOfMemory + fmt::Display)) -> Result<T, Stop> {
    diagnostic(format_args!("{error}"));
    Err(stop_for_error(error))
}

/// Says what came in the place of what was asked for, as it may where an allocation was made to fail,
/// and is the end of the test.
///
/// # Errors
///
/// Always: [`Stop::Injected`], or [`Stop::Failed`] if nothing was made to fail.
pub fn fell_back<T>(to: fmt::Arguments<'_>) -> Result<T, Stop> {
    diagnostic(to);
    Err(stop_for_refusals(1))
}

/// Says why a test fails, and is the failure.
///
/// # Errors
///
/// Always [`Stop::Failed`].
pub fn failed<T>(why: fmt::Arguments<'_>) -> Result<T, Stop> {
    diagnostic(why);
    Err(Stop::Failed)
}

/// Ends the test with a failure, saying where and why, unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            $crate::report::diagnostic(format_args!("{}:{}: {}", file!(), line!(), format_args!($($why)+)));
            return Err($crate::report::Stop::Failed);
        }
    };
}

/// Ends the test unless all requests for memory were served, of which so many were refused. One may
/// have been [made to fail](crate::failslab); so whatever else can be wrong is checked before.
#[macro_export]
macro_rules! check_served {
    ($refused:expr) => {
        let refused: usize = $refused;
        if refused != 0 {
            $crate::report::diagnostic(format_args!(
                "{}:{}: {refused} requests refused",
                file!(),
                line!()
            ));
            return Err($crate::report::stop_for_refusals(refused));
        }
    };
}

/// The value of a `Result`, or the end of the test with a failure that shows the error.
#[macro_export]
macro_rules! check_ok {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => {
                $crate::report::diagnostic(format_args!(
                    "{}:{}: {}: {error}",
                    file!(),
                    line!(),
                    stringify!($result)
                ));
                return Err($crate::report::stop_for_error(&error));
            }
        }
    };
}
