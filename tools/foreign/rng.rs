//! A firmware that shares no code with this repository's: a few instructions that ask a virtio entropy
//! device of QEMU's virt for bytes and look at them. With `--cfg planted` one operation is missing.
//!
//! `make sanitize FIRMWARE=...` must find it, and must find nothing without it. The lane `sanitize`
//! builds both with rustc alone.

#![no_std]
#![no_main]

use core::arch::global_asm;

#[cfg(planted)]
global_asm!(".set PLANTED, 1");
#[cfg(not(planted))]
global_asm!(".set PLANTED, 0");
global_asm!(include_str!("rng.s"));

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
