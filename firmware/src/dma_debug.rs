//! The checks of DMA calls: on or off, and what becomes of their reports.
//!
//! A report is a failure: the ledger counts those that no test planted.

use crate::boot;
use crate::boot::image;
use crate::cmdline::CmdLine;
use crate::console;
use crate::report;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use hal::addr::VirtAddr;
use hal::dma::debug::{self, Check, Checker, DEFAULT_ENTRIES, Hooks, ImagePart, Report};
use hal::mm::Gfp;
use hal::sync::IrqLock;

/// Reports that a test holds at a time; more are counted as if nobody had planted them.
const HELD: usize = 8;

/// Reports that nobody planted.
static UNPLANTED: AtomicUsize = AtomicUsize::new(0);

/// Kinds of which a report that nobody planted was written, by bit.
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// What was reported since a test began to plant mistakes, if one does.
static PLANTED: IrqLock<Option<heapless::Vec<Report, HELD>>> = IrqLock::new(None);

/// Switches the checks on, unless the command line or want of memory forbids it, and says so. After
/// `vmalloc` works and before the first map.
pub(crate) fn start(cmdline: &CmdLine<'_>) {
    debug::set_hooks(Hooks {
        report: receive,
        image_part,
    });
    if !cmdline.wants_dma_debug() {
        let reason = if cmdline.dma_debug.is_some() {
            "dma.debug=no"
        } else {
            "benchmarks run"
        };
        report::note(format_args!("dma-debug: off, {reason}"));
        return;
    }
    let asked = cmdline.dma_debug_entries;
    let entries = asked.map_or(DEFAULT_ENTRIES, |entries| entries as usize);
    match Checker::new(entries, Gfp::KERNEL) {
        Ok(checker) => {
            report::note(format_args!("dma-debug: on, {entries} entries"));
            debug::exchange(Some(checker));
        }
        Err(error) => report::warning(format_args!(
            "dma-debug: off, no memory for {entries} entries: {error}"
        )),
    }
}

/// What lies at an address of the image window.
fn image_part(va: VirtAddr) -> Option<ImagePart> {
    if boot::stacks().iter().any(|stack| stack.contains(&va)) {
        return Some(ImagePart::Stack);
    }
    let is_read_only = image::text().contains(&va) || image::rodata().contains(&va);
    is_read_only.then_some(ImagePart::ReadOnly)
}

/// Keeps a report for the test that planted it. Of others the first of each kind is written, whoever
/// else is to be silent, for nothing else says what made the run fail.
fn receive(report: &Report) {
    if let Some(planted) = PLANTED.lock().as_mut()
        && planted.push(*report).is_ok()
    {
        return;
    }
    if report.check.is_info() {
        if report.nth == 1 {
            report::note(format_args!("{report}"));
        }
        return;
    }
    UNPLANTED.fetch_add(1, Ordering::Relaxed);
    let kind = 1 << report.check as u32;
    if WRITTEN.fetch_or(kind, Ordering::Relaxed) & kind == 0 {
        console::line(format_args!("# {report}"));
    }
}

/// Reports that nobody planted.
pub(crate) fn unplanted() -> usize {
    UNPLANTED.load(Ordering::Relaxed)
}

/// Takes one of them back: a test has seen that it was counted. Whether it was written; the next of
/// its kind is again.
pub(crate) fn retract(check: Check) -> bool {
    UNPLANTED.fetch_sub(1, Ordering::Relaxed);
    let kind = 1 << check as u32;
    WRITTEN.fetch_and(!kind, Ordering::Relaxed) & kind != 0
}

/// No DMA call is checked meanwhile: where the checks would cost more than what is measured. What is
/// mapped then has to be unmapped before it ends.
pub(crate) struct Unchecked(Option<Checker>);

impl Unchecked {
    pub(crate) fn begin() -> Self {
        Self(debug::exchange(None))
    }
}

impl Drop for Unchecked {
    fn drop(&mut self) {
        if let Some(checker) = self.0.take() {
            debug::exchange(Some(checker));
        }
    }
}

/// Memory that is mapped for devices or coherent.
pub(crate) fn live() -> usize {
    debug::live()
}

/// Writes what is mapped, a line each.
pub(crate) fn list() {
    debug::for_each_live(|device, call| {
        report::diagnostic(format_args!("mapped for {device}: {call}"));
    });
}

/// What is reported while `f` runs, which plants mistakes.
pub(crate) fn reported(f: impl FnOnce()) -> heapless::Vec<Report, HELD> {
    *PLANTED.lock() = Some(heapless::Vec::new());
    f();
    PLANTED.lock().take().unwrap_or_default()
}
