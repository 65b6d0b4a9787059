//! One boot under QEMU, from the command line to the verdict.

use crate::capture::Capture;
use crate::console::{Console, Report, Show};
use crate::firmware::Firmware;
use crate::ktap::Verdict;
use crate::machine::{self, QEMU};
use crate::payload::PayloadCheck;
use crate::process::{self, Group, POLL};
use crate::settings::Settings;
use crate::trace::Trace;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a firmware that was not told to exit may go on writing after its report.
const SETTLE: Duration = Duration::from_millis(300);

/// File in the capture that holds what QEMU itself says.
const QEMU_LOG: &str = "qemu.log";

/// Lines of QEMU's own output that are repeated when a run fails.
const QEMU_LOG_TAIL: usize = 10;

/// How a boot came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// QEMU exited by itself.
    Exited(ExitStatus),
    /// The report was over and the firmware had not been told to exit, so QEMU was ended.
    ReportOver,
    /// The time was up.
    Cut(Duration),
    /// The user stopped it.
    Interrupted,
}

/// What a boot amounts to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The report's part of it.
    pub(crate) verdict: Verdict,
    /// Why the boot is no pass, in one sentence; `None` when it is.
    pub(crate) objection: Option<String>,
    /// Wall time from start to end.
    pub(crate) took: Duration,
}

/// Boots `firmware` and judges what it reports. The capture goes to `directory`.
pub(crate) fn boot(
    settings: &Settings,
    firmware: &Firmware,
    directory: &Path,
    show: Show,
) -> Result<Outcome> {
    let capture = Capture::create(directory)?;
    let args = machine::arguments(settings, firmware, capture.directory())?;
    capture.command(QEMU, &args)?;
    let log = directory.join(QEMU_LOG);

    let start = Instant::now();
    let mut qemu = Group::spawn(
        Command::new(QEMU)
            .args(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?),
    )?;
    let payload = match &settings.payload {
        Some(path) if settings.passes_command_line() => Some(PayloadCheck::new(path)?),
        _ => None,
    };
    let trace = Trace::new(&firmware.elf);
    let mut console = Console::new(show, trace, payload, capture);
    let end = follow(settings, &mut qemu, &mut console, start)?;
    let took = start.elapsed();
    // The RAM file is as large as the machine's memory; the rest of the capture is small.
    let _ = std::fs::remove_file(directory.join(machine::RAM));

    let report = console.finish()?;
    let mut objection = objection(settings, end, &report);
    // When it is ended, all QEMU says is that it was.
    if let (End::Exited(_), Some(text)) = (end, &mut objection) {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        for line in &lines[lines.len().saturating_sub(QEMU_LOG_TAIL)..] {
            text.push_str("\n  ");
            text.push_str(line);
        }
    }
    Ok(Outcome {
        verdict: report.verdict,
        objection,
        took,
    })
}

/// Reads QEMU's serial line until the boot ends one way or another; QEMU is gone afterwards.
fn follow(
    settings: &Settings,
    qemu: &mut Group,
    console: &mut Console,
    start: Instant,
) -> Result<End> {
    let deadline = start + settings.timeout;
    let serial = read_in_background(qemu)?;
    let mut report_over: Option<Instant> = None;
    let end = loop {
        let now = Instant::now();
        if process::interrupted() {
            break End::Interrupted;
        }
        if now >= deadline {
            break End::Cut(settings.timeout);
        }
        if !settings.exits_by_itself() && console.report_ended() {
            let over = *report_over.get_or_insert(now);
            if now - over >= SETTLE {
                break End::ReportOver;
            }
        }
        match serial.recv_timeout(POLL) {
            Ok(bytes) => console.feed(&bytes)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(status) = qemu.wait_until(deadline)? {
                    break End::Exited(status);
                }
            }
        }
    };
    qemu.end()?;
    while let Ok(bytes) = serial.recv_timeout(POLL) {
        console.feed(&bytes)?;
    }
    Ok(end)
}

/// Moves QEMU's standard output, which is the serial line, into a channel.
fn read_in_background(qemu: &mut Group) -> Result<Receiver<Vec<u8>>> {
    let mut pipe = qemu.child().stdout.take().context("QEMU has no output")?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Why the boot is no pass. The firmware's own words go before QEMU's status.
fn objection(settings: &Settings, end: End, report: &Report) -> Option<String> {
    let last = &report.last_line;
    match end {
        End::Interrupted => return Some("interrupted".into()),
        End::Cut(limit) => {
            return Some(match last.as_str() {
                "" => format!("hang: cut after {} s without a line", limit.as_secs()),
                _ => format!("hang: cut after {} s, last line: {last}", limit.as_secs()),
            });
        }
        End::Exited(_) | End::ReportOver => {}
    }
    if let Some(text) = report.verdict.objection() {
        return Some(match end {
            End::Exited(status) if !status.success() => {
                format!("{text} (QEMU ended with {status}, last line: `{last}`)")
            }
            _ => text,
        });
    }
    if let End::Exited(status) = end
        && !status.success()
    {
        return Some(format!("the report passed but QEMU ended with {status}"));
    }
    // A run that leaves the payload's tests out reports no hash, and none is missed.
    let filtered = settings.has_key("suite") || settings.has_key("test");
    let all = !filtered || settings.cmdline.contains("payload");
    report.payload.as_ref()?.objection(all)
}

#[cfg(test)]
mod tests;
