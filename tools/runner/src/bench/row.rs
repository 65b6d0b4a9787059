//! What the firmware says of its measurements.

/// One operation at one size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// The operation.
    pub(crate) op: String,
    /// Bytes; pages for `vmalloc_pair`, the order for pages, bytes of RAM for `boot` and
    /// `metadata`.
    pub(crate) size: u64,
    /// Instructions of the mean operation; bytes for `image_size`, percent of RAM for `metadata`.
    pub(crate) insns: f64,
    /// Instructions of the dearest single call, where calls were measured one by one.
    pub(crate) max: Option<u64>,
}

/// A row the firmware did not measure, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Its name in the report.
    pub(crate) name: String,
    /// The reason given.
    pub(crate) reason: String,
}

/// A line of the report that is about measurements and makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a measurement that makes no sense: {0}")]
pub(crate) struct BadLine(String);

/// The row that `line` of the report holds, if it is a measurement.
pub(crate) fn row(line: &str) -> Option<Result<Row, BadLine>> {
    let words = line.trim().strip_prefix("# bench ")?;
    Some(fields(words).ok_or_else(|| BadLine(line.trim().into())))
}

fn fields(words: &str) -> Option<Row> {
    let value = |key: &str| {
        let mut pairs = words.split(' ').filter_map(|word| word.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let insns: f64 = value("insns")?.parse().ok()?;
    Some(Row {
        op: value("op").filter(|op| is_name(op))?.into(),
        size: value("size")?.parse().ok()?,
        insns: Some(insns).filter(|insns| insns.is_finite() && *insns >= 0.0)?,
        max: match value("max")? {
            "null" => None,
            max => Some(max.parse().ok()?),
        },
    })
}

fn is_name(op: &str) -> bool {
    !op.is_empty() && op.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The row that `line` of the report says was skipped.
pub(crate) fn skipped(line: &str) -> Option<Skipped> {
    let (result, reason) = line.trim().split_once(" # SKIP ")?;
    let name = result.strip_prefix("ok ")?.split_once(' ')?.1;
    Some(Skipped {
        name: name.into(),
        reason: reason.into(),
    })
}

/// Virtual nanoseconds from reset to the report, which `line` may say. Where instructions are
/// counted as time they are instructions.
pub(crate) fn boot_ns(line: &str) -> Option<u64> {
    line.trim().strip_prefix("# boot ns=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let line = "  # bench op=kmalloc_worst size=64 insns=83.548 max=1560";
        assert_eq!(
            row(line),
            Some(Ok(Row {
                op: "kmalloc_worst".into(),
                size: 64,
                insns: 83.548,
                max: Some(1560),
            }))
        );
        let line = "# bench op=pages_pair size=0 insns=60 max=null later=1";
        let pair = row(line).unwrap().unwrap();
        assert_eq!((pair.insns, pair.max), (60.0, None));
    }

    #[test]
    fn damaged_rows_are_errors_and_other_lines_are_none() {
        for bad in [
            "# bench op=a size=1 insns=1",
            "# bench op=a size=-1 insns=1 max=null",
            "# bench op=a size=1 insns=NaN max=null",
            "# bench op=a size=1 insns=inf max=null",
            "# bench op=a size=1 insns=-1 max=null",
            "# bench op=a\"b size=1 insns=1 max=null",
            "# bench op= size=1 insns=1 max=null",
            "# bench op=a size=1 cycles=1 max=null",
            "# bench op=a size=1 insns=1 max=x",
        ] {
            assert_eq!(row(bad), Some(Err(BadLine(bad.into()))), "{bad}");
        }
        for other in ["", "# benchmark", "  ok 1 bench", "# boot ns=1"] {
            assert_eq!(row(other), None, "{other}");
        }
    }

    #[test]
    fn skips_are_named() {
        let line = "  ok 75 kvmalloc_pair.1024 # SKIP there is no kvmalloc";
        let found = skipped(line).unwrap();
        assert_eq!(found.name, "kvmalloc_pair.1024");
        assert_eq!(found.reason, "there is no kvmalloc");
        assert_eq!(skipped("  ok 1 counter"), None);
        assert_eq!(skipped("  not ok 1 a # SKIP b"), None);
    }

    #[test]
    fn boot_time() {
        assert_eq!(boot_ns("# boot ns=1234"), Some(1234));
        assert_eq!(boot_ns("# boot ns=x"), None);
        assert_eq!(boot_ns("# boot"), None);
    }
}
