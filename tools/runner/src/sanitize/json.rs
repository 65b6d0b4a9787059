//! What was found, for scripts: `target/report/sanitize.json`.

use super::corpus::Sums;
use super::findings::Finding;
use crate::settings::Board;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The verdict where there is nothing to object to.
const OK: &str = "ok";

/// What some runs come to.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Document {
    /// `ok`, or why not.
    verdict: String,
    /// Each run.
    runs: Vec<Record>,
    /// What was found in all of them.
    findings: Vec<Found>,
    /// What the corpus comes to, if it was run.
    corpus: Option<Corpus>,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
struct Record {
    board: &'static str,
    run: &'static str,
    /// `ok`, or why not.
    verdict: String,
    accesses: u64,
    jobs: BTreeMap<String, u64>,
}

/// A finding, and where it belongs.
#[derive(Clone, Debug, Serialize)]
struct Found {
    board: &'static str,
    run: &'static str,
    /// Whether the firmware had said that it does this.
    announced: bool,
    #[serde(flatten)]
    finding: Finding,
}

/// The sums of the corpus.
#[derive(Clone, Copy, Debug, Serialize)]
struct Corpus {
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

/// What a run has for the document.
pub(super) struct Account<'a> {
    /// Its board.
    pub(super) board: Board,
    /// Which of the board's runs it is.
    pub(super) run: &'static str,
    /// What is wrong with it, if anything is.
    pub(super) objection: Option<String>,
    /// What the plugin did, if it came to its end.
    pub(super) work: Option<(u64, BTreeMap<String, u64>)>,
    /// The findings, and whether each was announced.
    pub(super) findings: Vec<(&'a Finding, bool)>,
}

impl Document {
    /// None yet, of which `objection` is to be said.
    pub(super) fn new(objection: Option<String>) -> Self {
        Self {
            verdict: objection.unwrap_or_else(|| OK.into()),
            ..Self::default()
        }
    }

    /// With what the corpus comes to.
    pub(super) fn with_corpus(self, sums: Option<Sums>) -> Self {
        let corpus = sums.map(Into::into);
        Self { corpus, ..self }
    }

    /// Adds a run. The first objection is the verdict on all of them.
    pub(super) fn add(&mut self, account: Account<'_>) {
        let Account {
            board,
            run,
            objection,
            work,
            findings,
        } = account;
        let board = board.name();
        if let (Some(why), OK) = (&objection, &*self.verdict) {
            self.verdict = format!("{board}, {run}: {why}");
        }
        let (accesses, jobs) = work.unwrap_or_default();
        self.runs.push(Record {
            board,
            run,
            verdict: objection.unwrap_or_else(|| OK.into()),
            accesses,
            jobs,
        });
        let found = |(finding, announced): (&Finding, bool)| Found {
            board,
            run,
            announced,
            finding: finding.clone(),
        };
        self.findings.extend(findings.into_iter().map(found));
    }

    /// Writes it to `path`.
    fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Does `work` and writes its document to `path`, where none of an earlier run is left meanwhile. If it
/// fails, why is the verdict.
pub(super) fn written<T>(path: &Path, work: impl FnOnce() -> Result<(T, Document)>) -> Result<T> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => {}
    }
    match work() {
        Ok((result, document)) => {
            document.write(path)?;
            Ok(result)
        }
        Err(error) => {
            Document::new(Some(format!("{error:#}"))).write(path)?;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::finding;
    use super::*;

    fn account<'a>(objection: Option<&str>, findings: Vec<(&'a Finding, bool)>) -> Account<'a> {
        Account {
            board: Board::Rpi4,
            run: "corpus",
            objection: objection.map(Into::into),
            work: Some((7, BTreeMap::from([("edu".into(), 2)]))),
            findings,
        }
    }

    fn value(document: &Document) -> serde_json::Value {
        serde_json::from_str(&serde_json::to_string(document).unwrap()).unwrap()
    }

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
        let mut document = Document::new(None).with_corpus(Some(sums));
        document.add(account(Some("1 missed"), vec![(&stale, true)]));
        document.add(account(Some("the end"), vec![(&stale, false)]));
        let value = value(&document);
        let first = &value["findings"][0];
        for (key, expected) in [
            ("board", "rpi4"),
            ("run", "corpus"),
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
        assert_eq!(first["announced"], true);
        assert_eq!(value["findings"][1]["announced"], false);
        assert_eq!(value["verdict"], "rpi4, corpus: 1 missed");
        let second = &value["runs"][1];
        assert_eq!(second["board"], "rpi4");
        assert_eq!(second["run"], "corpus");
        assert_eq!(second["verdict"], "the end");
        assert_eq!(second["accesses"], 7);
        assert_eq!(second["jobs"]["edu"], 2);
        assert_eq!(value["corpus"]["missed"], 1);
        assert_eq!(value["corpus"]["false"], 1);
    }

    #[test]
    fn the_file_is_of_this_run_or_there_is_none() {
        let directory = std::env::temp_dir().join(format!("runner-json-{}", std::process::id()));
        let path = directory.join("sanitize.json");
        let verdict = || {
            let text = std::fs::read_to_string(&path).unwrap();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            value["verdict"].as_str().unwrap().to_owned()
        };
        let right = written(&path, || {
            let mut document = Document::new(None);
            document.add(account(None, vec![]));
            Ok((true, document))
        });
        assert!(right.unwrap());
        assert_eq!(verdict(), "ok");
        let failed = written(&path, || -> Result<((), Document)> {
            assert!(!path.exists());
            Err(anyhow::anyhow!("no QEMU").context("cannot start"))
        });
        assert!(failed.is_err());
        assert_eq!(verdict(), "cannot start: no QEMU");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
