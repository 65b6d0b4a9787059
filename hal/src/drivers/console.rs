//! The console: one UART, one lock per line, and a way out for a panic.
//!
//! Everything that prints goes through a [`Console`], which holds its lock for one call: a caller
//! that prints one line or one trace frame per call never sees it torn. A panic cannot rely on
//! that lock, because its own core may hold it. It calls [`Console::seize`], which takes the UART
//! away from everyone else for good.

use super::uart::Uart;
use crate::addr::VirtAddr;
use crate::sync::IrqLock;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use thiserror::Error;

/// How often [`Console::seize`] looks for the lock before it goes on without it: some 10 ms, which
/// is a line of 100 bytes at 115200 baud.
const SEIZE_ATTEMPTS: u32 = 1_000_000;

/// Why something was not printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConsoleError {
    /// No UART was installed yet.
    #[error("no console is installed")]
    NotInstalled,
    /// A panicking core has taken the UART.
    #[error("the console belongs to a panic")]
    Seized,
    /// The UART is stuck, or a `Display` implementation failed: part of the text is missing.
    #[error("the text was not printed whole")]
    Incomplete,
}

/// A console shared by all cores.
#[derive(Debug, Default)]
pub struct Console {
    uart: IrqLock<Option<Uart>>,
    /// Address of the installed UART's registers, or zero.
    base: AtomicUsize,
    seized: AtomicBool,
}

impl Console {
    /// A console without a UART.
    pub const fn new() -> Self {
        Self {
            uart: IrqLock::new(None),
            base: AtomicUsize::new(0),
            seized: AtomicBool::new(false),
        }
    }

    /// Prints on `uart` from now on.
    pub fn install(&self, uart: Uart) {
        let mut slot = self.uart.lock();
        self.base.store(uart.base().get(), Ordering::Relaxed);
        *slot = Some(uart);
    }

    /// Runs `f` on the UART under the lock. May be called in any context but from inside `f`.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::NotInstalled`] or [`ConsoleError::Seized`]; `f` was not called.
    pub fn with<R>(&self, f: impl FnOnce(&mut Uart) -> R) -> Result<R, ConsoleError> {
        // Before the lock, which the core that was seized from may never release.
        if self.seized.load(Ordering::Relaxed) {
            return Err(ConsoleError::Seized);
        }
        match self.uart.lock().as_mut() {
            Some(uart) => Ok(f(uart)),
            None if self.seized.load(Ordering::Relaxed) => Err(ConsoleError::Seized),
            None => Err(ConsoleError::NotInstalled),
        }
    }

    /// Prints `text` under the lock, whole. May be called in any context.
    ///
    /// # Errors
    ///
    /// Those of [`Console::with`], and [`ConsoleError::Incomplete`].
    pub fn print(&self, text: fmt::Arguments<'_>) -> Result<(), ConsoleError> {
        self.with(|uart| uart.write_fmt(text))?
            .map_err(|_| ConsoleError::Incomplete)
    }

    /// Takes the UART for a panic: waits a moment for the line in progress, then breaks the lock.
    /// All later calls of other cores fail with [`ConsoleError::Seized`].
    ///
    /// For a core that will not return to what it was doing. `None` if nothing is installed, or if
    /// a panic on another core, or an earlier one on this core, came first: the caller stops
    /// quietly then.
    pub fn seize(&self) -> Option<Uart> {
        if self.seized.swap(true, Ordering::Relaxed) {
            return None;
        }
        for _ in 0..SEIZE_ATTEMPTS {
            if let Some(mut uart) = self.uart.try_lock() {
                return uart.take();
            }
            core::hint::spin_loop();
        }
        let base = VirtAddr::new(self.base.load(Ordering::Relaxed));
        // SAFETY: `base` is where the installed UART is, which vouches for the registers. The
        // lock's holder may be this core, which does not return to it, or another one that still
        // sends the rest of its line: each register access stands alone, so the worst is a torn
        // line.
        (base != VirtAddr::default()).then(|| unsafe { Uart::new(base) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake_uart() -> Uart {
        let registers: &mut [u32; 1024] = Box::leak(Box::new([0; 1024]));
        // SAFETY: the block has a PL011's size and is leaked.
        unsafe { Uart::new(VirtAddr::from_ptr(registers)) }
    }

    #[test]
    fn prints_once_a_uart_is_there() {
        let console = Console::new();
        assert_eq!(
            console.print(format_args!("x")),
            Err(ConsoleError::NotInstalled)
        );
        assert!(console.seize().is_none());

        let console = Console::new();
        console.install(fake_uart());
        assert_eq!(console.print(format_args!("x")), Ok(()));
    }

    #[test]
    fn a_panic_takes_the_uart_for_good() {
        let console = Console::new();
        console.install(fake_uart());
        assert!(console.seize().is_some());
        assert!(console.seize().is_none());
        assert_eq!(console.print(format_args!("x")), Err(ConsoleError::Seized));
    }

    #[test]
    fn a_panic_inside_a_line_breaks_the_lock() {
        let console = Console::new();
        console.install(fake_uart());
        let seized = console.with(|uart| (uart.base(), console.seize())).unwrap();
        assert_eq!(seized.1.map(|uart| uart.base()), Some(seized.0));
        assert_eq!(
            console.with(|_| unreachable!("the panic owns the UART")),
            Err::<(), _>(ConsoleError::Seized)
        );
    }
}
