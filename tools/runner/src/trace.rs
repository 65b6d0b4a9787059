//! Turns defmt frames into text with the table in the firmware's ELF file.

use anyhow::{Context, Result};
use defmt_decoder::{Locations, Table};
use std::cell::OnceCell;
use std::path::{Path, PathBuf};

/// The decoder of one firmware's trace.
#[derive(Debug)]
pub(crate) struct Trace {
    elf: PathBuf,
    /// Read with the first frame: most runs have none, and the debug information is large.
    table: OnceCell<Result<Symbols>>,
}

#[derive(Debug)]
struct Symbols {
    table: Table,
    /// `None` without debug information.
    locations: Option<Locations>,
}

impl Trace {
    /// The decoder for the firmware linked as `elf`.
    pub(crate) fn new(elf: &Path) -> Self {
        Self {
            elf: elf.into(),
            table: OnceCell::new(),
        }
    }

    /// The text of the frame with these rzCOBS bytes, or why there is none.
    pub(crate) fn decode(&self, frame: &[u8]) -> String {
        let bytes = frame.len();
        match self.table.get_or_init(|| Symbols::read(&self.elf)) {
            Ok(symbols) => symbols
                .decode(frame)
                .unwrap_or_else(|| format!("a damaged trace frame of {bytes} bytes")),
            Err(error) => format!("a trace frame of {bytes} bytes, unreadable: {error:#}"),
        }
    }
}

impl Symbols {
    fn read(elf: &Path) -> Result<Self> {
        let bytes = std::fs::read(elf).with_context(|| format!("{}", elf.display()))?;
        let table = Table::parse(&bytes)?.context("the firmware has no defmt table")?;
        let locations = table.get_locations(&bytes).ok();
        Ok(Self { table, locations })
    }

    fn decode(&self, frame: &[u8]) -> Option<String> {
        let mut decoder = self.table.new_stream_decoder();
        decoder.received(frame);
        decoder.received(&[0]);
        let decoded = decoder.decode().ok()?;
        let place = self.locations.as_ref();
        let place = place.and_then(|map| map.get(&decoded.index()));
        let place = place.map_or(String::new(), |location| {
            let file = location.file.file_name().unwrap_or_default();
            format!(" ({}:{})", file.to_string_lossy(), location.line)
        });
        Some(format!("{}{place}", decoded.display(false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_without_a_table_are_named() {
        let text = Trace::new(Path::new("/nonexistent")).decode(&[1, 2, 3]);
        assert!(text.starts_with("a trace frame of 3 bytes, unreadable"));
    }
}
