//! Reads the report of a board from a serial port.

use crate::console::{Console, Report};
use crate::process::{self, POLL};
use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Line speed of the report, as `init_uart_baud` in the Pi's config.txt.
const BAUD: &str = "115200";

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The report is over.
    ReportOver,
    /// The port is gone.
    Closed,
    /// The time was up.
    TimeUp,
    /// The user stopped it.
    Interrupted,
}

/// Reads `port` until the report is over, `limit` has passed or the user stops it.
pub(crate) fn monitor(
    port: &Path,
    limit: Option<Duration>,
    mut console: Console,
) -> Result<(Stop, Report)> {
    let mut file = open(port)?;
    let start = Instant::now();
    let mut buffer = [0; 4096];
    let stop = loop {
        if process::interrupted() {
            break Stop::Interrupted;
        }
        if console.report_ended() {
            break Stop::ReportOver;
        }
        if limit.is_some_and(|limit| start.elapsed() >= limit) {
            break Stop::TimeUp;
        }
        match file.read(&mut buffer) {
            Ok(0) => break Stop::Closed,
            Ok(count) => console.feed(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(POLL),
            Err(_) => break Stop::Closed,
        }
    };
    Ok((stop, console.finish()?))
}

/// Opens the port raw at [`BAUD`], without waiting for a carrier.
fn open(port: &Path) -> Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(port)
        .with_context(|| format!("cannot open {}", port.display()))?;
    let status = Command::new("stty")
        .args([
            "raw", "-echo", "clocal", "-crtscts", "cs8", "-parenb", "-cstopb",
        ])
        .arg(BAUD)
        .stdin(Stdio::from(file.try_clone()?))
        .status()
        .context("cannot start stty")?;
    if !status.success() {
        bail!("{} is no serial port", port.display());
    }
    Ok(file)
}
