//! The plugin that watches a run.

use super::{Arguments, in_option, write_ram};
use crate::settings::Board;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// File in a run's folder with what was found, a line of JSON each.
pub(crate) const FINDINGS: &str = "findings.jsonl";

/// A plugin and what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    /// The shared object; `None` for the same machine without it, to compare with.
    pub(crate) plugin: Option<PathBuf>,
    /// Whether cores run in threads of their own, which the plugin must refuse.
    pub(crate) has_threads: bool,
    /// Whether loads are compared with what the CPU had seen.
    pub(crate) shadow: bool,
    /// Whether the devices snoop.
    pub(crate) coherent: bool,
    /// The list of what is not to be reported.
    pub(crate) suppress: Option<PathBuf>,
}

impl Watch {
    /// Adds it to the arguments of a machine with `mib` MiB of RAM, which becomes a file in `scratch`
    /// that the plugin reads. `ram` is that file if there is one already.
    pub(super) fn add(
        &self,
        board: Board,
        mib: u64,
        scratch: &Path,
        args: &mut Arguments,
    ) -> Result<()> {
        let ram = scratch.join(super::RAM);
        if !args.0.iter().any(|word| word == "memory-backend=ram") {
            write_ram(&ram, mib, None, &[])
                .with_context(|| format!("cannot write {}", ram.display()))?;
            args.ram_file(mib, &ram, true);
        }
        // The plugin takes one core at a time for granted. With -icount it is so anyway.
        let threads = if self.has_threads { "multi" } else { "single" };
        args.pair("-accel", format!("tcg,thread={threads}"));
        let Some(path) = &self.plugin else {
            return Ok(());
        };
        let switch = |on| if on { "on" } else { "off" };
        let mut plugin = format!(
            "{},board={},ram={},out={},shadow={},coherent={}",
            in_option(path),
            match board {
                Board::QemuVirt => "virt",
                Board::Rpi4 => "raspi4b",
            },
            in_option(&ram),
            in_option(&scratch.join(FINDINGS)),
            switch(self.shadow),
            switch(self.coherent),
        );
        if let Some(path) = &self.suppress {
            plugin += &format!(",suppress={}", in_option(path));
        }
        args.pair("-plugin", plugin);
        Ok(())
    }
}
