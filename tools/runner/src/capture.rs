//! What is kept of a run: the bytes as they came and what they were taken for.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The files of one run.
///
/// `serial.raw` is the serial line byte for byte, `report.txt` its text, `trace.txt` its decoded
/// defmt frames, `command.txt` the command that produced them.
#[derive(Debug)]
pub(crate) struct Capture {
    directory: PathBuf,
    raw: File,
    report: File,
    trace: File,
}

impl Capture {
    /// Starts a capture in `directory`, replacing an earlier one.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let file = |name: &str| {
            let path = directory.join(name);
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))
        };
        Ok(Self {
            directory: directory.into(),
            raw: file("serial.raw")?,
            report: file("report.txt")?,
            trace: file("trace.txt")?,
        })
    }

    /// The folder, also for files a run needs only while it lasts.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps the command, quoted so that a shell takes it back.
    pub(crate) fn command(&self, program: &str, args: &[OsString]) -> Result<()> {
        let words = args.iter().map(|arg| arg.to_string_lossy());
        let line = shell_words::join(std::iter::once(program.into()).chain(words));
        std::fs::write(self.directory.join("command.txt"), line + "\n")?;
        Ok(())
    }

    /// Keeps bytes of the serial line.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.raw.write_all(bytes)?)
    }

    /// Keeps a line of text.
    pub(crate) fn report(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.report, "{line}")?)
    }

    /// Keeps a decoded frame.
    pub(crate) fn trace(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.trace, "{line}")?)
    }
}
