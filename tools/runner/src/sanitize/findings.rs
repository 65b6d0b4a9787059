//! What the plugin wrote, a line of JSON for each finding and one for the end.

use super::source::ends_in;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// One thing that is wrong, reported once for each place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Finding {
    /// What is wrong, by its name.
    pub(super) kind: String,
    /// Physical address, as hexadecimal text.
    pub(super) pa: String,
    /// Virtual address of the instruction, as hexadecimal text.
    pub(super) pc: String,
    /// The function it is in: where the runner finds it, else where QEMU does.
    pub(super) symbol: Option<String>,
    /// File and line, where the image has them.
    #[serde(default)]
    pub(super) source: Option<String>,
    /// Number of the core.
    pub(super) cpu: u32,
    /// The device it is about.
    pub(super) device: Option<String>,
    /// What the memory is to the device.
    pub(super) role: Option<String>,
    /// How the memory is mapped.
    pub(super) mapping: Option<String>,
    /// The operation that would have made it right.
    pub(super) missing: Option<String>,
    /// What to do.
    pub(super) advice: String,
    /// The last whole line of the console before.
    pub(super) console: Option<String>,
    /// The part of the run it is in, by number: each line that announces a provocation begins one.
    #[serde(default, skip_serializing)]
    pub(super) scope: Option<u64>,
    /// How often it happened.
    pub(super) count: u64,
    /// The function at the instruction and those it is inlined into, innermost first.
    #[serde(skip)]
    pub(super) frames: Vec<Frame>,
}

impl Finding {
    /// Whether it is in a function whose path ends in `place`, inlined or not.
    pub(super) fn is_in(&self, place: &str) -> bool {
        let mut frames = self.frames.iter();
        frames.any(|frame| ends_in(&frame.function, place))
    }
}

/// A function at an address, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its path.
    pub(super) function: String,
    /// File and line.
    pub(super) place: Option<String>,
}

/// What the plugin did, its last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct End {
    /// Marks the line.
    end: bool,
    /// Loads and stores.
    pub(super) accesses: u64,
    /// Walks of translation tables.
    pub(super) walks: u64,
    /// What the plugin could not follow, or could not write down.
    #[serde(default)]
    lost: u64,
    /// Why it could not watch, if it could not.
    #[serde(default)]
    blind: Option<String>,
    /// Findings, those that were suppressed left out: one for each line before.
    pub(super) findings: usize,
    /// Jobs by device.
    pub(super) jobs: BTreeMap<String, u64>,
}

impl End {
    /// Why nothing is proved by what was found or not: the plugin was blind, has lost something, counts
    /// other findings than the `read` ones, or saw fewer than `floor` accesses.
    pub(super) fn objection(&self, floor: u64, read: usize) -> Option<String> {
        let Self {
            accesses,
            lost,
            blind,
            findings,
            ..
        } = self;
        if let Some(why) = blind {
            Some(format!("the plugin was blind, so nothing is proved: {why}"))
        } else if *lost != 0 {
            Some(format!(
                "the plugin lost {lost} of what it had to follow, so nothing is proved"
            ))
        } else if *findings != read {
            Some(format!(
                "the plugin counts {findings} findings and wrote {read}, so nothing is proved"
            ))
        } else if *accesses < floor {
            Some(format!(
                "the plugin saw {accesses} accesses, fewer than {floor}, so nothing is proved: was the \
                 firmware loaded where it expects to be?"
            ))
        } else {
            None
        }
    }
}

/// The whole of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// In the order they came.
    pub(super) list: Vec<Finding>,
    /// The end, if the plugin came to it.
    pub(super) end: Option<End>,
}

impl Findings {
    /// Reads the file at `path`. None is a plugin that did not run.
    pub(super) fn read(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("{}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let mut findings = Self::default();
        for (number, line) in text.lines().enumerate() {
            let what = || format!("line {} is not what the plugin writes: {line}", number + 1);
            let value: serde_json::Value = serde_json::from_str(line).with_context(what)?;
            if value.get("end").is_some() {
                findings.end = Some(serde_json::from_value(value).with_context(what)?);
            } else {
                let finding = serde_json::from_value(value).with_context(what)?;
                findings.list.push(finding);
            }
        }
        Ok(findings)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A finding of `kind` by `device` in `function`, after `console`.
    pub(in crate::sanitize) fn finding(
        kind: &str,
        device: Option<&str>,
        function: &str,
        console: &str,
    ) -> Finding {
        Finding {
            kind: kind.into(),
            pa: "0x40200000".into(),
            pc: "0x40100010".into(),
            symbol: Some(function.into()),
            source: None,
            cpu: 0,
            device: device.map(Into::into),
            role: Some("source".into()),
            mapping: Some("Normal write-back".into()),
            missing: Some("DC CVAC by VA before the doorbell".into()),
            advice: "Clean.".into(),
            console: Some(console.into()),
            scope: None,
            count: 3,
            frames: vec![Frame {
                function: function.into(),
                place: None,
            }],
        }
    }

    const CANNED: &str = concat!(
        r#"{"kind":"stale-read","pa":"0x7eff3000","pc":"0xffffffff80012345","symbol":null,"cpu":0,"#,
        r#""device":"edu","role":"destination","mapping":"Normal write-back","#,
        r##""missing":"DC IVAC","advice":"Invalidate.","console":"# seed a kind=b","scope":7,"##,
        r#""count":3}"#,
        "\n",
        r#"{"end":true,"accesses":12,"walks":3,"findings":1,"jobs":{"edu":2,"fw_cfg":0}}"#,
        "\n"
    );

    #[test]
    fn lines_become_findings_and_an_end() {
        let Findings { list, end } = Findings::parse(CANNED).unwrap();
        let end = end.unwrap();
        assert_eq!((end.accesses, end.walks, end.findings), (12, 3, 1));
        assert_eq!(end.jobs["edu"], 2);
        let [finding] = &list[..] else {
            panic!("{list:?}")
        };
        assert_eq!(finding.kind, "stale-read");
        assert_eq!(finding.console.as_deref(), Some("# seed a kind=b"));
        assert_eq!(finding.symbol, None);
        assert_eq!(finding.scope, Some(7));
        let older = CANNED.replace(r#""scope":7,"#, "");
        assert_eq!(Findings::parse(&older).unwrap().list[0].scope, None);
    }

    #[test]
    fn a_finding_that_was_counted_and_not_read_proves_nothing() {
        let end = Findings::parse(CANNED).unwrap().end.unwrap();
        assert_eq!(end.objection(12, 1), None);
        for read in [0, 2] {
            let objection = end.objection(12, read).unwrap();
            let start = format!("the plugin counts 1 findings and wrote {read}, ");
            assert!(objection.starts_with(&start), "{objection}");
        }
    }

    /// What is said of an end with `more` fields.
    fn objection(more: &str) -> Option<String> {
        let line = format!(
            r#"{{"end":true,"accesses":12,"walks":3,"findings":0,"jobs":{{"edu":1}}{more}}}"#
        );
        let end = Findings::parse(&line).unwrap().end.unwrap();
        end.objection(12, 0)
    }

    #[test]
    fn a_plugin_that_did_not_see_everything_proves_nothing() {
        assert_eq!(objection(""), None);
        assert_eq!(objection(r#","lost":0,"blind":null"#), None);
        for (more, why) in [
            (r#","lost":3"#, "lost 3 of what"),
            (
                r#","lost":0,"blind":"no TCR_EL1""#,
                "blind, so nothing is proved: no TCR_EL1",
            ),
        ] {
            let objection = objection(more).unwrap();
            assert!(objection.contains(why), "{objection}");
        }
        let end = Findings::parse(CANNED).unwrap().end.unwrap();
        let objection = end.objection(13, 1).unwrap();
        assert!(
            objection.contains("saw 12 accesses, fewer than 13"),
            "{objection}"
        );
    }

    #[test]
    fn a_plugin_that_was_cut_has_no_end() {
        let first = CANNED.lines().next().unwrap();
        let findings = Findings::parse(first).unwrap();
        assert_eq!((findings.list.len(), findings.end), (1, None));
    }

    #[test]
    fn what_is_no_finding_is_refused() {
        for text in ["nonsense", "{}", r#"{"kind":"stale-read"}"#] {
            let error = Findings::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("line 1 is not what the plugin writes"));
        }
    }
}
