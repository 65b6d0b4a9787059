//! A firmware that shares no code with this repository's: a few instructions that ask a virtio entropy
//! device of QEMU's virt for bytes and look at them. With one of the symbols defined that `rng.s` lists,
//! whose name is in the variable `BUG`, one operation is missing or one too many.
//!
//! `make sanitize FIRMWARE=...` must find that, and must find nothing without it. The lane `sanitize`
//! builds them all with rustc alone.

#![no_std]
#![no_main]

use core::arch::global_asm;

global_asm!(concat!(".set ", env!("BUG"), ", 1"));
global_asm!(include_str!("rng.s"));

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
