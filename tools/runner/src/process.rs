//! Child processes that can be ended whatever they do, and the user's Ctrl-C.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Set once the user or the caller wants the runner to stop.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How often a waiting loop looks again.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Time between asking a process to end and killing it.
///
/// QEMU ignores the request while its raspi4b DMA model copies a length that is no multiple of 4.
const GRACE: Duration = Duration::from_secs(2);

/// Turns SIGINT, SIGTERM and SIGHUP into [`interrupted`].
pub(crate) fn catch_interrupts() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")
}

/// Whether the runner was asked to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails once [`interrupted`]: what was done until then is not the whole.
pub(crate) fn go_on() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// A child in a process group of its own, which ends with this value.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    status: Option<ExitStatus>,
}

impl Group {
    /// Starts `command`.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self {
            child,
            status: None,
        })
    }

    /// The child, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The exit status if the child has ended.
    pub(crate) fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits for the end until `deadline` or an interrupt; `None` if it did not come.
    pub(crate) fn wait_until(&mut self, deadline: Instant) -> Result<Option<ExitStatus>> {
        loop {
            let status = self.poll()?;
            if status.is_some() || Instant::now() >= deadline || interrupted() {
                return Ok(status);
            }
            sleep(POLL);
        }
    }

    /// Ends the group: asked first, killed after a grace period.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while self.poll()?.is_none() && Instant::now() < deadline {
            sleep(POLL);
        }
        if self.poll()?.is_none() {
            self.signal(Signal::KILL);
            self.status = Some(self.child.wait()?);
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        // The only failure is that the group has just ended, which is what is wanted.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !matches!(self.poll(), Ok(Some(_))) {
            let _ = self.end();
        }
    }
}
