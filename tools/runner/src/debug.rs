//! QEMU stopped at the first instruction, with gdb attached.

use crate::firmware::Firmware;
use crate::machine::{self, QEMU};
use crate::process::{Group, POLL};
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;

/// The debugger; plain gdb rarely knows AArch64 on another host.
const GDB: &str = "gdb-multiarch";

/// Starts QEMU and gdb and returns when gdb ends. The report goes to a file in `directory`.
pub(crate) fn debug(settings: &Settings, firmware: &Firmware, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let serial = directory.join("serial.raw");
    let socket = directory.join("gdb.socket");
    let _ = std::fs::remove_file(&socket);
    let mut qemu = Group::spawn(
        Command::new(QEMU)
            .args(machine::arguments(settings, firmware, directory)?)
            .arg("-S")
            .arg("-gdb")
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&serial)?),
    )?;
    while !socket.exists() {
        if let Some(status) = qemu.poll()? {
            bail!("QEMU ended with {status}");
        }
        sleep(POLL);
    }
    println!("the report goes to {}", serial.display());
    let status = Command::new(GDB)
        .arg("-q")
        .arg(&firmware.elf)
        .arg("-ex")
        .arg(format!("target remote {}", socket.display()))
        .status()
        .with_context(|| format!("cannot start {GDB}"))?;
    qemu.end()?;
    if !status.success() {
        bail!("{GDB} ended with {status}");
    }
    Ok(())
}
