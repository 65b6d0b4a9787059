//! What was found, for scripts: `target/report/sanitize.json`.

use super::corpus::Sums;
use super::findings::Finding;
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// The findings of a run, or of some.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Document<'a> {
    /// What was found. Of the firmware of this repository that is what it seeds and provokes, too.
    pub(super) findings: Vec<&'a Finding>,
    /// What the corpus comes to, if it was run.
    pub(super) corpus: Option<Corpus>,
    /// Why a run proves nothing, whatever was found.
    pub(super) objections: Vec<String>,
}

/// The sums of the corpus.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Corpus {
    seeded: usize,
    caught: usize,
    missed: usize,
    #[serde(rename = "false")]
    wrong: usize,
}

impl From<Sums> for Corpus {
    fn from(sums: Sums) -> Self {
        Self {
            seeded: sums.seeded,
            caught: sums.caught,
            missed: sums.missed(),
            wrong: sums.wrong,
        }
    }
}

impl Document<'_> {
    /// Writes it to `path`.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::finding;
    use super::*;

    #[test]
    fn scripts_find_what_they_look_for() {
        let mut stale = finding("stale-read", Some("edu"), "look", "# seed a");
        stale.source = Some("a.rs:7".into());
        let sums = Sums {
            seeded: 3,
            caught: 2,
            wrong: 1,
            twins: 4,
        };
        let document = Document {
            findings: vec![&stale],
            corpus: Some(sums.into()),
            objections: vec![],
        };
        let text = serde_json::to_string(&document).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let first = &value["findings"][0];
        for (key, expected) in [
            ("kind", "stale-read"),
            ("pa", "0x40200000"),
            ("pc", "0x40100010"),
            ("symbol", "look"),
            ("source", "a.rs:7"),
            ("console", "# seed a"),
            ("missing", "DC CVAC by VA before the doorbell"),
            ("advice", "Clean."),
        ] {
            assert_eq!(first[key], expected);
        }
        assert_eq!(value["corpus"]["missed"], 1);
        assert_eq!(value["corpus"]["false"], 1);
    }
}
