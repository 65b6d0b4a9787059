//! The measurements as a table beside the references.

use super::reference::{Reference, Verdict, find};
use super::row::{Row, Skipped};

const HEAD: [&str; 9] = [
    "op", "size", "mean", "max", "Linux", "crate", "must", "aim", "verdict",
];

/// One line a row, one a skipped row, and the counts.
pub(crate) fn table(rows: &[Row], skipped: &[Skipped], references: &[Reference]) -> String {
    let mut lines = vec![HEAD.map(String::from)];
    let mut counts = [0; 4];
    for row in rows {
        let reference = find(references, row);
        let verdict = reference.map_or(Verdict::None, |reference| reference.judge(row));
        counts[verdict as usize] += 1;
        let column = |value: fn(&Reference) -> Option<f64>| number(reference.and_then(value));
        lines.push([
            row.op.clone(),
            row.size.to_string(),
            number(Some(row.insns)),
            number(row.max.map(|max| max as f64)),
            column(|reference| reference.linux),
            column(|reference| reference.best_crate),
            column(|reference| reference.must),
            column(|reference| reference.aim),
            word(verdict).into(),
        ]);
    }
    let mut text = String::new();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
    let widths: [usize; 9] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for line in &lines {
        for (index, (cell, width)) in line.iter().zip(widths).enumerate() {
            match index {
                0 => text.push_str(&format!("{cell:<width$}")),
                8 => text.push_str(&format!("  {cell}")),
                _ => text.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push('\n');
    }
    for Skipped { name, reason } in skipped {
        text.push_str(&format!("{name}: not measured: {reason}\n"));
    }
    if let Some(spread) = boot_spread(rows) {
        text.push_str(&format!(
            "boot: {:.1} % between the amounts of RAM; at most {:.0} % is flat\n",
            spread * 100.0,
            FLAT * 100.0
        ));
    }
    let [without, missed, met, aim] = counts;
    text.push_str(&format!(
        "bars: {} met, {aim} of them as aimed at, {missed} missed; {without} rows without a bar, \
         {} not measured\n",
        met + aim,
        skipped.len()
    ));
    text
}

/// How far boots may differ to be called independent of the amount of RAM.
const FLAT: f64 = 0.05;

/// How much the dearest boot exceeds the cheapest, where there are several.
fn boot_spread(rows: &[Row]) -> Option<f64> {
    let boots = || rows.iter().filter(|row| row.op == "boot");
    let least = boots().map(|row| row.insns).reduce(f64::min)?;
    let most = boots().map(|row| row.insns).reduce(f64::max)?;
    (boots().count() > 1 && least > 0.0).then(|| most / least - 1.0)
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::None => "-",
        Verdict::Missed => "missed",
        Verdict::Met => "met",
        Verdict::Aim => "met, as aimed at",
    }
}

/// A number as short as it can be told from its bar: three decimals below ten, one below a
/// thousand, then none and thousands apart.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.fract() == 0.0 => grouped(value),
        Some(value) if value < 10.0 => format!("{value:.3}"),
        Some(value) if value < 1000.0 => format!("{value:.1}"),
        Some(value) => grouped(value),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;

    #[test]
    fn numbers_are_short_but_tell_a_miss() {
        for (value, text) in [
            (0.391, "0.391"),
            (2.0, "2"),
            (36.04, "36.0"),
            (999.95, "1000.0"),
            (1234.4, "1,234"),
            (16447.0, "16,447"),
            (1_073_741_824.0, "1,073,741,824"),
        ] {
            assert_eq!(number(Some(value)), text);
        }
        assert_eq!(number(None), "-");
    }

    #[test]
    fn the_table_hides_neither_misses_nor_skips() {
        let row = |op: &str, size, insns, max| Row {
            op: op.into(),
            size,
            insns,
            max,
        };
        let rows = [
            row("kmalloc_pair_const", 64, 118.0, None),
            row("kmalloc_pair_var", 64, 44.0, None),
            row("kmalloc_worst", 64, 83.5, Some(600)),
            row("no_such_op", 1, 1.5, None),
            row("boot", 1 << 27, 1_000_000.0, None),
            row("boot", 1 << 30, 1_060_000.0, None),
        ];
        let skipped = [Skipped {
            name: "kvmalloc_pair.1024".into(),
            reason: "there is no kvmalloc".into(),
        }];
        let text = table(&rows, &skipped, &reference::all());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "op                        size       mean  max       Linux  crate       must      aim  verdict",
                "kmalloc_pair_const          64        118    -         100     71         36       24  missed",
                "kmalloc_pair_var            64         44    -         123     71         44       32  met",
                "kmalloc_worst               64       83.5  600       1,463    117      1,500      600  met, as aimed at",
                "no_such_op                   1      1.500    -           -      -          -        -  -",
                "boot                 134217728  1,000,000    -  11,190,637      -  1,500,000  500,000  met",
                "boot                1073741824  1,060,000    -  23,323,898      -  1,500,000  500,000  met",
                "kvmalloc_pair.1024: not measured: there is no kvmalloc",
                "boot: 6.0 % between the amounts of RAM; at most 5 % is flat",
                "bars: 4 met, 1 of them as aimed at, 1 missed; 1 rows without a bar, 1 not measured",
            ]
        );
    }
}
