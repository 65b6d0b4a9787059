//! Compares the hashes the firmware reports with the payload's own.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The ways the firmware copies a payload; each must report a hash.
const METHODS: [&str; 3] = ["kmalloc", "vmalloc", "coherent"];

/// Start of a line that reports one copy: `# payload method=M size=N sha256=HEX`.
const PREFIX: &str = "# payload ";

/// What the copies of one payload must look like, and what was seen of them.
#[derive(Debug)]
pub(crate) struct PayloadCheck {
    size: u64,
    sha256: String,
    seen: Vec<String>,
    problems: Vec<String>,
}

impl PayloadCheck {
    /// Reads the payload.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        Self {
            size: bytes.len() as u64,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            seen: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Takes one line of the report.
    pub(crate) fn line(&mut self, text: &str) {
        let Some(fields) = text.trim_start().strip_prefix(PREFIX) else {
            return;
        };
        let field = |key: &str| {
            let mut pairs = fields.split_whitespace().filter_map(|f| f.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
        };
        let Some(method) = field("method") else {
            return;
        };
        self.seen.push(method.into());
        if field("size") != Some(&self.size.to_string()) || field("sha256") != Some(&self.sha256) {
            self.problems.push(format!(
                "payload by {method}: expected size={} sha256={}, found `{fields}`",
                self.size, self.sha256
            ));
        }
    }

    /// Why the copies are no proof; `None` when they are. With `all`, every method must be there.
    pub(crate) fn objection(&self, all: bool) -> Option<String> {
        if let Some(problem) = self.problems.first() {
            return Some(problem.clone());
        }
        let missing = METHODS
            .iter()
            .find(|method| !self.seen.iter().any(|seen| seen == *method))?;
        all.then(|| format!("payload by {missing} was not reported"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc" (FIPS 180-2 appendix B.1).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn check(lines: &[String]) -> Option<String> {
        let mut check = PayloadCheck::of(b"abc");
        lines.iter().for_each(|line| check.line(line));
        check.objection(true)
    }

    fn lines() -> Vec<String> {
        METHODS
            .map(|method| format!("  # payload method={method} size=3 sha256={ABC}"))
            .to_vec()
    }

    #[test]
    fn equal_copies_pass() {
        assert_eq!(check(&lines()), None);
    }

    #[test]
    fn a_missing_or_different_copy_does_not() {
        for index in 0..METHODS.len() {
            let mut missing = lines();
            missing.remove(index);
            assert!(check(&missing).unwrap().contains(METHODS[index]));
            for (from, to) in [("size=3", "size=4"), ("sha256=b", "sha256=c")] {
                let mut wrong = lines();
                wrong[index] = wrong[index].replace(from, to);
                assert!(check(&wrong).unwrap().contains("expected"));
            }
        }
    }

    #[test]
    fn a_filtered_run_need_not_report_all() {
        assert_eq!(PayloadCheck::of(b"abc").objection(false), None);
    }
}
