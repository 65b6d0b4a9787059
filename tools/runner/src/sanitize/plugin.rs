//! The plugin itself.

use crate::firmware::cargo;
use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// Its package, and the file that cargo makes of it.
const PACKAGE: &str = "coherency";
const FILE: &str = "libcoherency.so";

/// Builds the plugin; cargo's messages go to the terminal.
pub(super) fn build() -> Result<PathBuf> {
    let status = cargo()
        .args(["build", "--quiet", "--release", "--target", "host-tuple"])
        .args(["--package", PACKAGE])
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the plugin does not build");
    }
    let path = paths::target()
        .join(crate::host::triple()?)
        .join("release")
        .join(FILE);
    if !path.is_file() {
        bail!("cargo did not make {}", path.display());
    }
    Ok(path)
}
