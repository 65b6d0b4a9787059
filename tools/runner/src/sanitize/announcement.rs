//! What the firmware does wrong on purpose, and says so.
//!
//! It announces each provocation with a line
//!
//! ```text
//! # cell hazard=H1 method=kmalloc-raw direction=to-device wrong=device-reads-dirty-line place=start
//! ```
//!
//! with the kinds that it provokes, by commas: the first must be found, the others may follow from it.
//! `place=` and `device=` may narrow that down to a function, whose path it is the end of, or several, and
//! to a device. ` planted` at the end is that of the hazard's planted twin. `# cell end` ends it.

use super::findings::Finding;
use std::collections::{BTreeMap, BTreeSet};

/// How the line that announces a provocation starts, and the line that ends it.
const CELL: &str = "# cell ";
const END: &str = "# cell end";
/// What is provoked comes after it.
const WRONG: &str = " wrong=";
/// The word of a planted twin.
const PLANTED: &str = "planted";

/// Whether a finding was provoked, and the firmware had said so.
pub(super) fn is_provoked(finding: &Finding) -> bool {
    let announcement = finding.console.as_deref().and_then(Announcement::parse);
    announcement.is_some_and(|said| said.is_about(finding))
}

/// What the firmware said before it went wrong.
pub(super) struct Announcement<'a> {
    /// Hazard, method and direction.
    pub(super) cell: &'a str,
    /// What must be found, then what may follow from it.
    kinds: Vec<&'a str>,
    /// The functions that it is in, if that is said.
    places: Vec<&'a str>,
    device: Option<&'a str>,
    pub(super) is_planted: bool,
}

impl<'a> Announcement<'a> {
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (cell, words) = line.strip_prefix(CELL)?.split_once(WRONG)?;
        let mut words = words.split(' ');
        let mut said = Self {
            cell,
            kinds: words.next()?.split(',').collect(),
            places: Vec::new(),
            device: None,
            is_planted: false,
        };
        for word in words {
            match word.split_once('=') {
                Some(("place", places)) => said.places = places.split(',').collect(),
                Some(("device", device)) => said.device = Some(device),
                None if word == PLANTED => said.is_planted = true,
                _ => return None,
            }
        }
        Some(said)
    }

    /// Its first word, `hazard=H1`.
    pub(super) fn hazard(&self) -> &'a str {
        self.cell.split(' ').next().unwrap_or_default()
    }

    /// Whether it speaks of `finding`.
    fn is_about(&self, finding: &Finding) -> bool {
        let mut places = self.places.iter();
        self.kinds.contains(&&*finding.kind)
            && (self.places.is_empty() || places.any(|place| finding.is_in(place)))
            && (self.device.is_none() || self.device == finding.device.as_deref())
    }
}

/// Each announcement in which what it must provoke was not found. Of one that was made several times, that
/// has to be found after each: it is reported anew there, and a finding that has the number of its scope
/// is of one of them only.
pub(super) fn objections(report: &str, findings: &[Finding]) -> Vec<String> {
    let mut made: BTreeMap<&str, usize> = BTreeMap::new();
    for line in report.lines().filter(|line| line.starts_with(CELL)) {
        if line != END {
            *made.entry(line).or_default() += 1;
        }
    }
    let objection = |(line, times): (&str, usize)| {
        let Some(said) = Announcement::parse(line) else {
            return Some(format!("`{line}` announces nothing that is understood"));
        };
        let kind = said.kinds.first()?;
        let within = findings.iter().filter(|finding| {
            let console = finding.console.as_deref();
            console == Some(line) && finding.kind == *kind && said.is_about(finding)
        });
        let (numbered, others): (Vec<_>, Vec<_>) = within
            .map(|finding| finding.scope)
            .partition(Option::is_some);
        let scopes: BTreeSet<_> = numbered.into_iter().collect();
        let found = scopes.len() + others.len();
        (found < times)
            .then(|| format!("`{line}`: {kind} was found {found} times there, announced {times}"))
    };
    made.into_iter().filter_map(objection).collect()
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::finding;
    use super::*;

    const RAW: &str =
        "# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=device-reads-dirty-line";

    fn dirty(console: &str) -> Finding {
        finding(
            "device-reads-dirty-line",
            Some("edu"),
            "start_step",
            console,
        )
    }

    #[test]
    fn only_what_was_announced_is_provoked() {
        let touch = "# cell hazard=H5 method=coherent direction=from-device wrong=stale-read";
        assert!(is_provoked(&dirty(RAW)) && is_provoked(&dirty(&format!("{RAW} planted"))));
        assert!(!is_provoked(&dirty(touch)));
        assert!(is_provoked(&dirty(&format!(
            "{touch},device-reads-dirty-line"
        ))));
        assert!(!is_provoked(&dirty("# cell end")) && !is_provoked(&dirty("ok 1 mmu")));
        let any = "# cell hazard=H1 method=kmalloc-raw direction=to-device wrong=any";
        assert!(!is_provoked(&dirty(any)));
    }

    #[test]
    fn what_is_announced_twice_must_be_found_each_time() {
        let report = format!("{RAW}\n{END}\n{RAW}\n{END}\n");
        let dirty = |scope| Finding {
            scope,
            ..dirty(RAW)
        };
        for (scopes, found) in [
            ([Some(1), Some(3)], 2),
            ([None, None], 2),
            ([Some(1), Some(1)], 1),
        ] {
            let objections = objections(&report, &scopes.map(dirty));
            assert_eq!(objections.is_empty(), found == 2, "{scopes:?}");
            let end = format!("was found {found} times there, announced 2");
            assert!(
                objections.iter().all(|why| why.ends_with(&end)),
                "{objections:?}"
            );
        }
    }

    #[test]
    fn what_is_provoked_elsewhere_or_by_another_device_is_not() {
        for (more, expected) in [
            ("place=start_step", true),
            ("place=look,Io::start_step planted", false),
            ("place=step", false),
            ("place=look device=edu", false),
            ("place=look,start_step device=edu", true),
            ("device=edu planted", true),
            ("device=fw_cfg", false),
            ("places=start_step", false),
        ] {
            let finding = dirty(&format!("{RAW} {more}"));
            assert_eq!(is_provoked(&finding), expected, "{more}");
        }
    }
}
