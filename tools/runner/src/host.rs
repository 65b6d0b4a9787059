//! The machine that this runs on.

use anyhow::{Context, Result};
use std::process::Command;

/// Its target triple, as rustc calls it.
pub(crate) fn triple() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.into())
}
