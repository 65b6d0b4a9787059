//! What others need for the same operations, the bars, and who meets them.
//!
//! The figures and where they come from are in `reference.txt` beside this file.

use super::row::Row;

const TABLE: &str = include_str!("reference.txt");

/// The figure of a row that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// The mean operation.
    Mean,
    /// The dearest single call.
    Max,
}

impl Figure {
    /// This figure of `row`, if it has it.
    pub(crate) fn of(self, row: &Row) -> Option<f64> {
        match self {
            Self::Mean => Some(row.insns),
            Self::Max => row.max.map(|max| max as f64),
        }
    }
}

/// What one row is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reference {
    /// The operation.
    pub(crate) op: &'static str,
    /// Its size; `None` where the size is a result.
    pub(crate) size: Option<u64>,
    /// The better of two versions of Linux.
    pub(crate) linux: Option<f64>,
    /// The best crate.
    pub(crate) best_crate: Option<f64>,
    /// What must be reached.
    pub(crate) must: Option<f64>,
    /// What is aimed at.
    pub(crate) aim: Option<f64>,
    /// What is compared.
    pub(crate) figure: Figure,
    /// Whether the bar has been reached and must stay so.
    pub(crate) held: bool,
}

/// How a row stands to its bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no bar.
    None,
    /// Above what must be reached.
    Missed,
    /// What must be reached is.
    Met,
    /// What is aimed at is.
    Aim,
}

impl Reference {
    /// How `row` stands to the bars. A figure that is not there misses its bar.
    pub(crate) fn judge(&self, row: &Row) -> Verdict {
        let Some(must) = self.must else {
            return Verdict::None;
        };
        // In tenths, as the references are given: what starting and reading the counter adds to
        // thousands of operations is below that.
        let found = self
            .figure
            .of(row)
            .map(|found| (found * 10.0).round() / 10.0);
        match found {
            Some(found) if self.aim.is_some_and(|aim| found <= aim) => Verdict::Aim,
            Some(found) if found <= must => Verdict::Met,
            _ => Verdict::Missed,
        }
    }

    fn is_for(&self, row: &Row) -> bool {
        self.op == row.op && self.size.is_none_or(|size| size == row.size)
    }
}

/// All references.
pub(crate) fn all() -> Vec<Reference> {
    TABLE.lines().filter_map(parse).collect()
}

/// The one of `references` for `row`.
pub(crate) fn find<'a>(references: &'a [Reference], row: &Row) -> Option<&'a Reference> {
    references.iter().find(|reference| reference.is_for(row))
}

/// A line of the table; `None` for comments, and for lines the tests would find.
fn parse(line: &'static str) -> Option<Reference> {
    if line.starts_with('#') {
        return None;
    }
    let words: Vec<_> = line.split_whitespace().collect();
    let [
        op,
        size,
        linux_6_12,
        linux_7_2,
        best_crate,
        _crate_name,
        must,
        aim,
        figure,
        held,
    ] = words[..]
    else {
        return None;
    };
    let linux = [number(linux_6_12)?, number(linux_7_2)?];
    Some(Reference {
        op,
        size: match size {
            "any" => None,
            size => Some(size.parse().ok()?),
        },
        linux: linux.into_iter().flatten().reduce(f64::min),
        best_crate: number(best_crate)?,
        must: number(must)?,
        aim: number(aim)?,
        figure: match figure {
            "mean" => Figure::Mean,
            "max" => Figure::Max,
            _ => return None,
        },
        held: match held {
            "yes" => true,
            "-" => false,
            _ => return None,
        },
    })
}

/// A number, or a dash for none; `None` for anything else.
fn number(word: &str) -> Option<Option<f64>> {
    match word {
        "-" => Some(None),
        word => word.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn row(op: &str, size: u64, insns: f64, max: Option<u64>) -> Row {
        let op = op.into();
        Row {
            op,
            size,
            insns,
            max,
        }
    }

    #[test]
    fn every_line_of_the_table_is_a_reference_of_its_own() {
        let lines = TABLE.lines();
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let all = all();
        assert_eq!(lines.count(), all.len());
        let keys: HashSet<_> = all.iter().map(|r| (r.op, r.size)).collect();
        assert_eq!(keys.len(), all.len());
    }

    #[test]
    fn bars_are_in_order_and_only_reachable_ones_are_held() {
        for reference in all() {
            let Reference { op, must, aim, .. } = reference;
            assert_eq!(must.is_some(), aim.is_some(), "{op}");
            assert!(must >= aim, "{op}: {must:?} is below {aim:?}");
            assert!(
                must.is_some() || !reference.held,
                "{op}: held without a bar"
            );
        }
    }

    #[test]
    fn the_better_linux_counts() {
        let all = all();
        let found = find(&all, &row("kmalloc_batch_alloc", 64, 0.0, None)).unwrap();
        assert_eq!(found.linux, Some(70.4));
        let found = find(&all, &row("kmalloc_pair_const", 64, 0.0, None)).unwrap();
        assert_eq!((found.linux, found.best_crate), (Some(100.0), Some(71.0)));
        assert_eq!(find(&all, &row("kmalloc_pair_const", 65, 0.0, None)), None);
    }

    #[test]
    fn a_bar_is_met_up_to_and_including_it() {
        let all = all();
        let judge = |insns| {
            let row = row("kmalloc_pair_const", 64, insns, None);
            find(&all, &row).unwrap().judge(&row)
        };
        assert_eq!(judge(24.0), Verdict::Aim);
        assert_eq!(judge(24.06), Verdict::Met);
        assert_eq!(judge(36.04), Verdict::Met);
        assert_eq!(judge(36.06), Verdict::Missed);
    }

    #[test]
    fn the_worst_call_is_judged_by_its_maximum() {
        let all = all();
        let judge = |max| {
            let row = row("kmalloc_worst", 64, 1.0, max);
            find(&all, &row).unwrap().judge(&row)
        };
        assert_eq!(judge(Some(600)), Verdict::Aim);
        assert_eq!(judge(Some(1500)), Verdict::Met);
        assert_eq!(judge(Some(1501)), Verdict::Missed);
        assert_eq!(judge(None), Verdict::Missed);
    }

    #[test]
    fn a_row_without_a_bar_has_no_verdict() {
        let all = all();
        let row = row("pages_pair", 1, 1.0, None);
        assert_eq!(find(&all, &row).unwrap().judge(&row), Verdict::None);
    }

    #[test]
    fn a_size_that_is_a_result_fits_any() {
        let all = all();
        let image = row("image_size", 123_456, 123_456.0, None);
        assert_eq!(find(&all, &image).unwrap().judge(&image), Verdict::Aim);
    }
}
