//! What the firmware printed: the last line tells a reader, and the runner, where it was.

/// The text that went to a UART's data register.
#[derive(Debug, Default)]
pub struct Console {
    line: Vec<u8>,
    last: String,
    scope: u32,
}

/// Longer lines are cut.
const MAX_LINE: usize = 1024;

/// Lines that begin so start a part of the run of its own.
const SCOPES: [&str; 2] = ["# seed ", "# cell "];

impl Console {
    /// Takes one byte.
    pub fn put(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.last = String::from_utf8_lossy(&self.line).into_owned();
                self.line.clear();
                let text = self.last.trim_start();
                if SCOPES.iter().any(|scope| text.starts_with(scope)) {
                    self.scope += 1;
                }
            }
            b'\r' => {}
            _ if self.line.len() < MAX_LINE => self.line.push(byte),
            _ => {}
        }
    }

    /// The last complete line.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// The number of the part of the run, in which a place is reported once: 0 before the first line
    /// that begins one.
    pub fn scope(&self) -> u32 {
        self.scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_line_and_its_scope() {
        let mut console = Console::default();
        let print = |console: &mut Console, text: &str| text.bytes().for_each(|b| console.put(b));
        print(&mut console, "KTAP\r\n# seed one kind=none\r\nhalf");
        assert_eq!(
            (console.last(), console.scope()),
            ("# seed one kind=none", 1)
        );
        print(&mut console, " done\n  # cell H1\n");
        assert_eq!((console.last(), console.scope()), ("  # cell H1", 2));
        print(&mut console, &"x".repeat(5000));
        print(&mut console, "\n");
        assert_eq!(console.last().len(), MAX_LINE);
    }
}
