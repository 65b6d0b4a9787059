//! Leaving: how the machine is told that the run is over.

use core::sync::atomic::{AtomicBool, Ordering};
use hal::arch::cpu;
use hal::drivers::semihosting;

static SEMIHOSTING: AtomicBool = AtomicBool::new(false);

/// End runs by a semihosting call. Only a debugger or an emulator answers one; without either the
/// instruction is an undefined one, so nothing but the command line's `exit=` turns this on.
pub fn use_semihosting() {
    SEMIHOSTING.store(true, Ordering::Relaxed);
}

/// Whether the command line says that an emulator (or a debugger) watches.
pub fn is_emulated() -> bool {
    SEMIHOSTING.load(Ordering::Relaxed)
}

/// Ends the run: the emulator's exit status says whether it was a success; without one the core
/// stops.
pub fn leave(success: bool) -> ! {
    if SEMIHOSTING.load(Ordering::Relaxed) {
        semihosting::exit(u8::from(!success));
    }
    loop {
        cpu::wait_for_interrupt();
    }
}
