//! The console: whole lines, and what is left of it for a dying core.

use core::fmt::{self, Write};
use hal::drivers::console::Console;
use hal::drivers::uart::Uart;

static CONSOLE: Console = Console::new();

/// Ends a trace frame that a panic may have interrupted; text contains no such byte.
const FRAME_END: u8 = 0;

/// Prints on `uart` from now on.
pub fn install(uart: Uart) {
    CONSOLE.install(uart);
}

/// Prints one line, whole whatever the other cores do. A line that cannot be printed is lost: there
/// is nowhere to say so.
///
/// Control characters are replaced: text from a device tree must not look like lines of ours.
pub fn line(text: fmt::Arguments<'_>) {
    let _ = CONSOLE.with(|uart| {
        let _ = Printable(uart).write_fmt(text);
        let _ = uart.write_str("\n");
    });
}

/// Writes text without its control characters.
struct Printable<'a>(&'a mut Uart);

impl Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, part) in text.split(char::is_control).enumerate() {
            if index > 0 {
                self.0.write_str("?")?;
            }
            self.0.write_str(part)?;
        }
        Ok(())
    }
}

/// Sends bytes as they are, in one piece.
pub fn raw(bytes: &[u8]) {
    let _ = CONSOLE.with(|uart| uart.write_bytes(bytes));
}

/// Waits until everything printed has left.
pub fn flush() {
    let _ = CONSOLE.with(Uart::flush);
}

/// Takes the console from everyone else, for a core that reports its own end. Silent on a core
/// that comes second.
pub fn seize() -> Seized {
    let mut uart = CONSOLE.seize();
    if let Some(uart) = &mut uart {
        let _ = uart.write_bytes(&[FRAME_END]);
        let _ = uart.write_str("\n");
    }
    Seized {
        uart,
        at_line_start: true,
    }
}

/// The console of a core that reports its own end. Every line is a KTAP diagnostic.
#[derive(Debug)]
pub struct Seized {
    uart: Option<Uart>,
    at_line_start: bool,
}

impl Write for Seized {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Some(uart) = &mut self.uart else {
            return Ok(());
        };
        for line in text.split_inclusive('\n') {
            if self.at_line_start {
                uart.write_str("# ")?;
            }
            uart.write_str(line)?;
            self.at_line_start = line.ends_with('\n');
        }
        Ok(())
    }
}

impl Seized {
    /// Ends the report: nothing after this line is a result.
    pub fn bail_out(&mut self, why: fmt::Arguments<'_>) {
        if let Some(uart) = &mut self.uart {
            let _ = writeln!(uart, "Bail out! {why}");
            let _ = uart.flush();
        }
    }
}
