//! Builds the firmware and makes the raw image from its ELF file.

use crate::paths;
use crate::settings::Board;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bare-metal target, as in `.cargo/config.toml`.
const TARGET: &str = "aarch64-unknown-none-softfloat";

/// The builds of the firmware that have a folder each: one does not throw away the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Build {
    /// The one that is flashed and measured.
    Plain,
    /// The one with the debug build of the slab caches, and with seeded bugs.
    SlabDebug,
}

impl Build {
    /// Cargo's profile, and the folder it builds into.
    const fn profile(self) -> &'static str {
        match self {
            Self::Plain => "release",
            Self::SlabDebug => "slab-debug",
        }
    }

    /// Features of the firmware beyond its default ones.
    const fn features(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::SlabDebug => "slab-debug,seeds",
        }
    }
}

/// A built firmware in both forms.
#[derive(Clone, Debug)]
pub(crate) struct Firmware {
    /// The linked file with symbols and the defmt table.
    pub(crate) elf: PathBuf,
    /// The bytes that go to the load address.
    pub(crate) raw: PathBuf,
}

impl Firmware {
    /// Where the plain build of `board`'s firmware ends up.
    pub(crate) fn path(board: Board) -> PathBuf {
        Self::path_of(board, Build::Plain)
    }

    /// Where `build` of it ends up.
    pub(crate) fn path_of(board: Board, build: Build) -> PathBuf {
        paths::target()
            .join(TARGET)
            .join(build.profile())
            .join(board.name())
    }

    /// Builds the firmware of `board`; cargo's messages go to the terminal.
    pub(crate) fn build(board: Board, build: Build) -> Result<Self> {
        compile(&[board], build)?;
        Self::from_elf(Self::path_of(board, build))
    }

    /// Builds the firmware of `board` without benchmarks and keeps it in `directory`. Where
    /// [`path`](Self::path) points is then to be built again.
    pub(crate) fn build_bare(board: Board, directory: &Path) -> Result<Self> {
        let status = build_command(&[board], Build::Plain)
            .arg("--no-default-features")
            .status()
            .context("cannot start cargo")?;
        if !status.success() {
            bail!("the firmware for {board} does not build without benchmarks");
        }
        std::fs::create_dir_all(directory)?;
        let elf = directory.join(format!("{board}-bare"));
        std::fs::copy(Self::path(board), &elf)?;
        Self::from_elf(elf)
    }

    /// Takes a linked file and makes the raw image beside it.
    pub(crate) fn from_elf(elf: PathBuf) -> Result<Self> {
        let raw = elf.with_extension("img");
        let output = Command::new(objcopy()?)
            .args(["-O", "binary"])
            .args([&elf, &raw])
            .output()
            .context("cannot start llvm-objcopy")?;
        if !output.status.success() {
            bail!("llvm-objcopy: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self { elf, raw })
    }
}

/// Compiles and links the firmware of several boards, each on a core of its own: linking one takes
/// most of a minute. Cargo's messages go to the terminal.
pub(crate) fn compile(boards: &[Board], build: Build) -> Result<()> {
    let status = build_command(boards, build)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the firmware for {boards:?} does not build ({build:?})");
    }
    Ok(())
}

/// The cargo invocation that builds the firmware of `boards`.
fn build_command(boards: &[Board], build: Build) -> Command {
    let mut command = cargo();
    command
        .args(["build", "--package", "firmware", "--target", TARGET])
        .args(boards.iter().flat_map(|board| ["--bin", board.name()]))
        .args(["--profile", build.profile()])
        .args(["--features", build.features()]);
    command
}

/// Cargo in the workspace, the one that started this program where there is one.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root());
    command
}

/// llvm-objcopy of the `llvm-tools` component.
fn objcopy() -> Result<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(paths::root())
        .output()
        .context("cannot start rustc")?;
    let sysroot = String::from_utf8(output.stdout)?;
    let rustlib = Path::new(sysroot.trim()).join("lib/rustlib");
    std::fs::read_dir(&rustlib)
        .with_context(|| format!("cannot read {}", rustlib.display()))?
        .flatten()
        .map(|target| target.path().join("bin/llvm-objcopy"))
        .find(|tool| tool.is_file())
        .context("llvm-objcopy is missing: rustup component add llvm-tools")
}
