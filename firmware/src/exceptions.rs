//! What happens on an exception and on a panic.
//!
//! A fault that a probe expected continues behind the probe, an interrupt goes to its handler.
//! Anything else ends the report: what happened in words, the registers, the call chain, then
//! `Bail out!`, so that whoever reads the report never takes a broken run for a short one.

use crate::{boot, console, exit};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use hal::addr::VirtAddr;
use hal::arch::exception::{Backtrace, ExceptionFrame, FaultReport, backtrace};
use hal::arch::{fault_probe, translate};
use hal::drivers::irq;
use hal::sync::PerCpu;

/// Which vector of "current level with SP_ELx" was taken; the numbers are those of `vectors.s`.
const NESTED_KINDS: [&str; 4] = ["exception", "IRQ", "FIQ", "SError"];

#[unsafe(no_mangle)]
extern "C" fn exception_sync(frame: &mut ExceptionFrame) {
    if !fault_probe::resume(frame) {
        fatal("unexpected exception", frame);
    }
}

#[unsafe(no_mangle)]
extern "C" fn exception_irq(_frame: &mut ExceptionFrame) {
    irq::handle_irq();
}

#[unsafe(no_mangle)]
extern "C" fn exception_fiq(frame: &mut ExceptionFrame) {
    fatal("unexpected FIQ", frame);
}

#[unsafe(no_mangle)]
extern "C" fn exception_serror(frame: &mut ExceptionFrame) {
    fatal("SError", frame);
}

#[unsafe(no_mangle)]
extern "C" fn exception_nested(frame: &mut ExceptionFrame, kind: usize) -> ! {
    let kind = NESTED_KINDS.get(kind).copied().unwrap_or("exception");
    let mut out = console::seize();
    let _ = writeln!(out, "{kind} inside an exception handler");
    report(&mut out, frame);
    bail_out(out, format_args!("{kind} inside an exception handler"))
}

fn fatal(what: &str, frame: &ExceptionFrame) -> ! {
    let mut out = console::seize();
    report(&mut out, frame);
    bail_out(out, format_args!("{what}: {}", in_words(frame)))
}

/// The fault as a sentence, with the memory type the address has now.
fn in_words(frame: &ExceptionFrame) -> FaultReport {
    let info = frame.fault_info();
    FaultReport {
        info,
        translation: Some(translate::read_el1(info.far)),
    }
}

fn report(out: &mut impl Write, frame: &ExceptionFrame) {
    let core = PerCpu::current().index();
    let _ = writeln!(out, "core {core} at {:#x}: {}", frame.elr, in_words(frame));
    let _ = writeln!(out, "{frame}");
    let _ = writeln!(out, "backtrace: {:#x}", frame.elr);
    call_chain(out, frame.frame_pointer());
}

fn call_chain(out: &mut impl Write, frame_pointer: VirtAddr) {
    let stacks = boot::stacks();
    // SAFETY: the ranges are the stacks proper, without their guard pages; they stay mapped.
    for address in unsafe { Backtrace::new(frame_pointer, &stacks) } {
        let _ = writeln!(out, "backtrace: {:#x}", address.get());
    }
}

fn bail_out(mut out: console::Seized, why: fmt::Arguments<'_>) -> ! {
    out.bail_out(why);
    exit::leave(false)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut out = console::seize();
    let _ = writeln!(out, "panic on core {}: {info}", PerCpu::current().index());
    call_chain(&mut out, backtrace::frame_pointer());
    bail_out(out, format_args!("panic: {}", info.message()))
}
