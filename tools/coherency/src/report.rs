//! Findings: once for each kind and place, counted, as lines of JSON.

mod suppress;

pub use suppress::Suppressions;

use crate::kind::Kind;
use crate::watch::Counts;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// Physical address of the first byte it is about.
    pub pa: u64,
    /// Virtual address of the instruction: the access, the maintenance, the doorbell.
    pub pc: u64,
    /// The function it is in, where QEMU knows.
    pub symbol: Option<String>,
    /// The CPU that executed it.
    pub cpu: u32,
    /// The device it has to do with, and what the memory is to that.
    pub device: Option<(String, &'static str)>,
    /// How the memory is mapped.
    pub mapping: &'static str,
    /// The operation that would have made it right.
    pub missing: &'static str,
    /// The last line that the firmware printed before.
    pub console: String,
    /// The part of the run it happened in: how many lines that begin one were printed before.
    pub scope: u32,
    /// How often it happened.
    pub count: u64,
}

/// Where something is reported once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    scope: u32,
    kind: Kind,
    pc: u64,
    device: Option<(String, &'static str)>,
}

/// What the plugin did, for the last line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// How much was seen.
    pub counts: Counts,
    /// Why what was not found proves nothing.
    pub blind: Option<String>,
    /// What was not followed, so that what was wrong with it was not found: parts of jobs, and stores,
    /// that were too many to be remembered; and accesses to a device's registers or to memory that it
    /// tells of its ends in, whose value is not known, as of an exclusive store, of an atomic
    /// instruction, or across two pages.
    pub lost: u64,
    /// Jobs of each device that had any.
    pub jobs: BTreeMap<String, u64>,
}

/// The findings of a run.
#[derive(Debug, Default)]
pub struct Reports {
    /// Indexes of the findings.
    places: HashMap<Place, usize>,
    findings: Vec<Finding>,
    suppressions: Suppressions,
}

impl Reports {
    /// None yet. What `suppressions` names is dropped.
    pub fn new(suppressions: Suppressions) -> Self {
        Self {
            suppressions,
            ..Self::default()
        }
    }

    /// Takes a finding. Returns it if it is new and has to be shown.
    pub fn add(&mut self, finding: Finding) -> Option<&Finding> {
        // Asked of each: what is known of one console line may be new after another.
        if self.suppressions.matches(&finding) {
            return None;
        }
        let place = Place {
            scope: finding.scope,
            kind: finding.kind,
            pc: finding.pc,
            device: finding.device.clone(),
        };
        if let Some(&index) = self.places.get(&place) {
            self.findings[index].count += finding.count;
            return None;
        }
        self.places.insert(place, self.findings.len());
        self.findings.push(finding);
        self.findings.last()
    }

    /// All that have to be shown.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The file as it is at the end.
    pub fn to_json(&self, accounts: &Accounts) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            text.push_str(&finding.to_json());
            text.push('\n');
        }
        let jobs: Vec<_> = accounts
            .jobs
            .iter()
            .map(|(device, count)| format!("{}:{count}", quoted(device)))
            .collect();
        let _ = writeln!(
            text,
            "{{\"end\":true,\"accesses\":{},\"walks\":{},\"unfollowed\":{},\"lost\":{},\"blind\":{},\
             \"findings\":{},\"jobs\":{{{}}}}}",
            accounts.counts.accesses,
            accounts.counts.walks,
            accounts.counts.unfollowed,
            accounts.lost,
            or_null(accounts.blind.as_deref()),
            self.findings.len(),
            jobs.join(",")
        );
        text
    }
}

impl Finding {
    /// One line of JSON, without its end.
    pub fn to_json(&self) -> String {
        let device = self.device.as_ref();
        format!(
            "{{\"kind\":{},\"pa\":\"{:#x}\",\"pc\":\"{:#x}\",\"symbol\":{},\"cpu\":{},\"device\":{},\
             \"role\":{},\"mapping\":{},\"missing\":{},\"advice\":{},\"console\":{},\"scope\":{},\
             \"count\":{}}}",
            quoted(self.kind.name()),
            self.pa,
            self.pc,
            or_null(self.symbol.as_deref()),
            self.cpu,
            or_null(device.map(|(name, _)| name.as_str())),
            or_null(device.map(|(_, role)| *role)),
            quoted(self.mapping),
            quoted(self.missing),
            quoted(self.kind.advice()),
            quoted(&self.console),
            self.scope,
            self.count
        )
    }
}

fn or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), quoted)
}

/// `text` as a string of JSON (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\x1F' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn finding(kind: Kind, pc: u64) -> Finding {
        Finding {
            kind,
            pa: 0x4000_0040,
            pc,
            symbol: Some("fill".to_owned()),
            cpu: 1,
            device: Some(("edu".to_owned(), "source")),
            mapping: "Normal write-back",
            missing: "DC CVAC",
            console: "# \"x\"\t".to_owned(),
            scope: 0,
            count: 1,
        }
    }

    fn in_scope(scope: u32) -> Finding {
        Finding {
            scope,
            ..finding(Kind::StaleRead, 4)
        }
    }

    #[test]
    fn a_place_is_reported_once_in_a_scope() {
        let mut reports = Reports::default();
        assert!(reports.add(finding(Kind::StaleRead, 4)).is_some());
        assert!(reports.add(finding(Kind::StaleRead, 4)).is_none());
        assert!(reports.add(finding(Kind::StaleRead, 8)).is_some());
        assert!(reports.add(finding(Kind::StaleCode, 4)).is_some());
        assert!(reports.add(in_scope(1)).is_some());
        let counts: Vec<_> = reports.findings().iter().map(|f| f.count).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
    }

    #[test]
    fn what_is_suppressed_once_at_a_place_is_no_reason_to_drop_the_rest() {
        let known = Suppressions::parse("stale-read console=boot*").unwrap();
        let mut reports = Reports::new(known);
        let after = |console: &str| Finding {
            console: console.to_owned(),
            ..finding(Kind::StaleRead, 4)
        };
        assert!(reports.add(after("boot loader")).is_none());
        assert_eq!(reports.findings(), []);
        let first = reports.add(after("ready")).map(|f| f.console.clone());
        assert_eq!(first.as_deref(), Some("ready"));
        // Neither is the other way round, and what is dropped is not counted.
        assert!(reports.add(after("boot again")).is_none());
        assert!(reports.add(after("ready still")).is_none());
        let counts: Vec<_> = reports.findings().iter().map(|f| f.count).collect();
        assert_eq!(counts, [2]);
    }

    #[test]
    fn json_as_the_runner_reads_it() {
        let line = in_scope(3).to_json();
        assert!(line.starts_with(
            r#"{"kind":"stale-read","pa":"0x40000040","pc":"0x4","symbol":"fill","cpu":1,"device":"edu","role":"source","mapping":"Normal write-back","missing":"DC CVAC","advice":""#
        ));
        assert!(
            line.ends_with(r##""console":"# \"x\"\u0009","scope":3,"count":1}"##),
            "{line}"
        );
        let mut bare = finding(Kind::StaleRead, 4);
        (bare.symbol, bare.device) = (None, None);
        assert!(
            bare.to_json()
                .contains(r#""symbol":null,"cpu":1,"device":null,"role":null"#)
        );
    }

    #[test]
    fn the_last_line_accounts_for_the_run() {
        let mut reports = Reports::default();
        reports.add(finding(Kind::StaleRead, 4));
        let accounts = Accounts {
            counts: Counts {
                accesses: 7,
                walks: 3,
                unfollowed: 1,
            },
            blind: None,
            lost: 4,
            jobs: BTreeMap::from([("edu".to_owned(), 2)]),
        };
        let text = reports.to_json(&accounts);
        assert_eq!(text.lines().count(), 2);
        assert_eq!(
            text.lines().last(),
            Some(
                r#"{"end":true,"accesses":7,"walks":3,"unfollowed":1,"lost":4,"blind":null,"findings":1,"jobs":{"edu":2}}"#
            )
        );
        let blind = Accounts {
            blind: Some("no \"RAM\"".to_owned()),
            ..accounts
        };
        assert!(
            reports
                .to_json(&blind)
                .contains(r#""lost":4,"blind":"no \"RAM\"","findings""#)
        );
    }
}
