//! Findings that are known and not to be shown.
//!
//! A file of lines `KIND [symbol=GLOB] [device=GLOB] [role=GLOB] [console=GLOB] [pc=HEX]`: a finding is
//! dropped if all that a line says holds for it. `KIND` may be `*`, `*` in a glob stands for any text,
//! and `console=` takes the rest of its line. Empty lines and those that begin with `#` are skipped.

use super::Finding;
use crate::kind::Kind;

/// The lines of such a file.
#[derive(Debug, Default)]
pub struct Suppressions(Vec<Rule>);

#[derive(Debug, Default)]
struct Rule {
    kind: Option<Kind>,
    symbol: Option<String>,
    device: Option<String>,
    role: Option<String>,
    console: Option<String>,
    pc: Option<u64>,
}

impl Suppressions {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// What is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            rules.push(Rule::parse(line).map_err(|what| format!("line {}: {what}", number + 1))?);
        }
        Ok(Self(rules))
    }

    /// Whether a line names `finding`.
    pub(super) fn matches(&self, finding: &Finding) -> bool {
        self.0.iter().any(|rule| rule.matches(finding))
    }
}

impl Rule {
    fn parse(line: &str) -> Result<Self, String> {
        let mut rule = Self::default();
        let (line, console) = match line.split_once(" console=") {
            Some((line, console)) => (line, Some(console.to_owned())),
            None => (line, None),
        };
        rule.console = console;
        let mut words = line.split_whitespace();
        let kind = words.next().unwrap_or_default();
        if kind != "*" {
            let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
            rule.kind = Some(known.ok_or_else(|| format!("{kind}: no kind of finding"))?);
        }
        for word in words {
            match word.split_once('=') {
                Some(("symbol", glob)) => rule.symbol = Some(glob.to_owned()),
                Some(("device", glob)) => rule.device = Some(glob.to_owned()),
                Some(("role", glob)) => rule.role = Some(glob.replace('_', " ")),
                Some(("pc", number)) => {
                    let digits = number.trim_start_matches("0x");
                    let pc = u64::from_str_radix(digits, 16);
                    rule.pc = Some(pc.map_err(|_| format!("{number}: not a hexadecimal number"))?);
                }
                _ => {
                    return Err(format!(
                        "{word}: not symbol=, device=, role=, console= or pc="
                    ));
                }
            }
        }
        Ok(rule)
    }

    fn matches(&self, finding: &Finding) -> bool {
        let holds = |glob: &Option<String>, text: Option<&str>| match (glob, text) {
            (None, _) => true,
            (Some(glob), Some(text)) => matches(glob, text),
            (Some(_), None) => false,
        };
        let device = finding.device.as_ref();
        self.kind.is_none_or(|kind| kind == finding.kind)
            && self.pc.is_none_or(|pc| pc == finding.pc)
            && holds(&self.symbol, finding.symbol.as_deref())
            && holds(&self.device, device.map(|(name, _)| name.as_str()))
            && holds(&self.role, device.map(|(_, role)| *role))
            && holds(&self.console, Some(&finding.console))
    }
}

/// Whether `text` is what `glob` describes.
fn matches(glob: &str, text: &str) -> bool {
    let mut pieces = glob.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut is_open = false;
    let mut last = "";
    for piece in pieces {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
        (is_open, last) = (true, piece);
    }
    rest.is_empty() || is_open && text.len() >= first.len() + last.len() && text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::super::tests::finding;
    use super::*;

    #[test]
    fn a_rule_holds_for_all_that_it_says() {
        let finding = finding(Kind::StaleRead, 0x80);
        let drops = |text: &str| Suppressions::parse(text).unwrap().matches(&finding);
        assert!(drops("stale-read"));
        assert!(drops(
            "# known\n\n*  symbol=fi* device=edu role=source pc=0x80"
        ));
        assert!(drops("* console=# *x*"));
        assert!(!drops("stale-code"));
        assert!(!drops("stale-read symbol=other"));
        assert!(!drops("stale-read symbol=fill device=mailbox"));
        assert!(!drops(""));
    }

    #[test]
    fn globs() {
        for (glob, text, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("*", "", true),
            ("ab*ab", "ab", false),
            ("*b*b", "abcb", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| Suppressions::parse(text).unwrap_err();
        assert!(error("stale").contains("line 1: stale"));
        assert!(error("#\n* color=red").contains("line 2: color=red"));
        assert!(error("* pc=hello").contains("hello"));
    }
}
