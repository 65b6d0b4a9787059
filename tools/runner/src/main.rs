//! Builds the firmware, boots it under QEMU and judges its report; reads a board's serial port.
//!
//! Settings come in through the environment (see the Makefile's `help` target), so that no value
//! passes through a shell. The exit status is 0 only when everything asked for passed.

mod bench;
mod boot;
mod capture;
mod console;
mod debug;
mod demux;
mod firmware;
mod host;
mod ktap;
mod lanes;
mod machine;
mod paths;
mod payload;
mod process;
mod sanitize;
mod serial;
mod settings;
mod suite;
mod trace;

use anyhow::{Context, Result};
use capture::Capture;
use clap::{Parser, Subcommand};
use console::{Console, Show};
use firmware::{Build, Firmware};
use settings::{Board, Settings};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trace::Trace;

/// Builds the firmware, boots it under QEMU and judges its report.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Boot under QEMU and judge the report
    Run {
        /// A linked firmware; without it, the one of BOARD is built
        elf: Option<PathBuf>,
    },
    /// Boot under QEMU with gdb attached
    Debug,
    /// Read and judge the report of a board on the serial port PORT
    Monitor,
    /// Measure the firmware and print the figures beside others'
    Bench,
    /// Run under the coherency plugin and judge what it finds
    Sanitize,
    /// Run the lanes of continuous integration
    Test {
        /// Only these lanes
        lanes: Vec<String>,
    },
}

/// Exit status for settings that make no sense, as for a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments.task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<settings::SettingsError>() {
                Some(_) => ExitCode::from(USAGE),
                None => ExitCode::FAILURE,
            }
        }
    }
}

/// Performs the task; `false` means it ran and something did not pass.
fn perform(task: &Task) -> Result<bool> {
    process::catch_interrupts()?;
    match task {
        Task::Run { elf } => run(elf.as_deref()),
        Task::Debug => {
            let settings = settings(Board::QemuVirt)?;
            let firmware = Firmware::build(settings.board, Build::Plain)?;
            debug::debug(&settings, &firmware, &paths::report().join("debug"))?;
            Ok(true)
        }
        Task::Monitor => monitor(),
        Task::Bench => bench::bench(),
        Task::Sanitize => sanitize::sanitize(),
        Task::Test { lanes } => suite::run(lanes),
    }
}

/// The settings of the environment.
fn settings(board: Board) -> Result<Settings, settings::SettingsError> {
    Settings::read(board, |key| std::env::var(key).ok())
}

fn run(elf: Option<&Path>) -> Result<bool> {
    // cargo names the binary after its board.
    let named = elf.and_then(|path| Board::from_name(path.file_name()?.to_str()?));
    let settings = settings(named.unwrap_or(Board::QemuVirt))?;
    let firmware = match elf {
        Some(path) => Firmware::from_elf(path.into())?,
        None => Firmware::build(settings.board, Build::Plain)?,
    };
    let outcome = boot::boot(&settings, &firmware, &paths::report(), Show::Terminal)?;
    let seconds = outcome.took.as_secs_f64();
    match &outcome.objection {
        None => println!("PASS: {} in {seconds:.1} s", settings.board),
        Some(why) => println!("FAIL: {why}"),
    }
    Ok(outcome.objection.is_none())
}

fn monitor() -> Result<bool> {
    let port = std::env::var("PORT").ok().filter(|port| !port.is_empty());
    let port = port.context("PORT=: allowed is a serial port such as /dev/ttyUSB0")?;
    let settings = settings(Board::Rpi4)?;
    let limit = std::env::var("TIMEOUT").is_ok_and(|value| !value.is_empty());
    let trace = Trace::new(&Firmware::path(settings.board));
    let capture = Capture::create(&paths::report())?;
    let console = Console::new(Show::Terminal, trace, None, capture);
    let limit = limit.then_some(settings.timeout);
    let (stop, report) = serial::monitor(Path::new(&port), limit, console)?;
    let objection = report.verdict.objection();
    match &objection {
        None => println!("PASS: report from {port}"),
        Some(why) => println!("FAIL: {why} ({stop:?})"),
    }
    Ok(objection.is_none())
}
