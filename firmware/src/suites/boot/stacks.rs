//! The stacks of all cores, and what can be read from them.

use super::super::{plant, probe};
use crate::boot::{self, image};
use crate::report::{Outcome, diagnostic};
use crate::{check, check_ok};
use core::fmt::Write;
use hal::addr::{PAGE_SIZE, VirtAddr};
use hal::arch::exception::FaultInfo;
use hal::smp;

/// Whether the fault of reading `page` says in words that a guard page was hit.
fn is_guard(page: VirtAddr) -> Result<bool, core::fmt::Error> {
    let Err(info) = probe::read_u64(page) else {
        return Ok(false);
    };
    let text = words(info)?;
    Ok(
        text.starts_with("translation fault")
            && text.ends_with("in the image window (guard page?)"),
    )
}

fn words(info: FaultInfo) -> Result<heapless::String<160>, core::fmt::Error> {
    let mut text = heapless::String::new();
    write!(text, "{}", probe::in_words(info))?;
    Ok(text)
}

/// The first and the last double word of the page below a stack.
fn guard_of(stack: &core::ops::Range<VirtAddr>) -> [VirtAddr; 2] {
    [PAGE_SIZE, size_of::<u64>()].map(|below| VirtAddr::new(stack.start.get() - below))
}

pub(super) fn guards() -> Outcome {
    let stacks = boot::stacks();
    for stack in &stacks {
        for va in guard_of(stack) {
            check!(
                check_ok!(is_guard(va)),
                "{va}, below the stack {stack:?}, is no guard page"
            );
        }
        for va in [stack.start, stack.end] {
            let inside = va.get().min(stack.end.get() - size_of::<u64>());
            let usable = probe::read_u64(VirtAddr::new(inside));
            check!(
                usable.is_ok(),
                "the stack {stack:?} is not mapped at {inside:#x}"
            );
        }
    }
    diagnostic(format_args!("{} stacks", stacks.len()));
    if let Err(info) = probe::read_u64(guard_of(&stacks[0])[1]) {
        diagnostic(format_args!("{}", probe::in_words(info)));
    }
    // Another core's walker sees the same: its own guard page, read by itself.
    for core in smp::online() {
        let va = guard_of(&stacks[3 * core])[1];
        let guarded = check_ok!(smp::run_on(core, move || is_guard(va)));
        check!(check_ok!(guarded), "core {core} can read {va}");
    }
    Ok(())
}

pub(super) fn guards_planted() -> Outcome {
    for stack in boot::stacks() {
        let page = stack.start;
        check!(
            !check_ok!(is_guard(page)),
            "{page} is mapped, yet taken for a guard page"
        );
    }
    Ok(())
}

#[inline(never)]
fn outer(count: &mut usize, foreign: &mut Option<VirtAddr>) {
    inner(count, foreign);
    // Not a tail call, so that this frame is there while the chain is walked.
    core::hint::black_box(());
}

#[inline(never)]
fn inner(count: &mut usize, foreign: &mut Option<VirtAddr>) {
    let text = image::text();
    plant::call_chain(|address| {
        *count += 1;
        if !text.contains(&address) {
            *foreign = Some(address);
        }
    });
    core::hint::black_box(());
}

pub(super) fn backtrace() -> Outcome {
    /// `call_chain`, `inner`, `outer` and this test at least.
    const LEAST: usize = 4;
    for core in smp::online() {
        let (count, foreign) = check_ok!(smp::run_on(core, || {
            let (mut count, mut foreign) = (0, None);
            outer(&mut count, &mut foreign);
            (count, foreign)
        }));
        check!(
            foreign.is_none(),
            "core {core} returns to {foreign:?}, outside the text"
        );
        check!(count >= LEAST, "core {core}: only {count} return addresses");
    }
    Ok(())
}
