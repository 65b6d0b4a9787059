//! The measurements as JSON, for scripts.

use super::row::{Row, Skipped};
use std::fmt::Write;

/// `{"rows":[{"op","size","insns","max"}...], ...}`: the rows first, then what they come from.
pub(crate) fn document(board: &str, rows: &[Row], skipped: &[Skipped]) -> String {
    let rows = rows.iter().map(|row| {
        let Row {
            op,
            size,
            insns,
            max,
        } = row;
        let max = max.map_or("null".into(), |max| max.to_string());
        format!(
            r#"{{"op":{},"size":{size},"insns":{insns},"max":{max}}}"#,
            string(op)
        )
    });
    let skipped = skipped.iter().map(|skipped| {
        let (name, reason) = (string(&skipped.name), string(&skipped.reason));
        format!(r#"{{"row":{name},"reason":{reason}}}"#)
    });
    format!(
        "{{\"rows\":[\n{}\n],\"board\":{},\"skipped\":[{}]}}\n",
        rows.collect::<Vec<_>>().join(",\n"),
        string(board),
        skipped.collect::<Vec<_>>().join(",")
    )
}

/// `text` as a JSON string (RFC 8259, section 7).
fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..'\x20' => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04x}", character as u32);
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_shape_scripts_read() {
        let row = |op: &str, size, insns, max| Row {
            op: op.into(),
            size,
            insns,
            max,
        };
        let rows = [
            row("kmalloc_pair_const", 64, 118.0, None),
            row("kmalloc_worst", 64, 83.548, Some(1560)),
        ];
        let skipped = [Skipped {
            name: "a.1".into(),
            reason: "no \"b\"\\\t".into(),
        }];
        assert_eq!(
            document("qemu-virt", &rows, &skipped),
            concat!(
                "{\"rows\":[\n",
                "{\"op\":\"kmalloc_pair_const\",\"size\":64,\"insns\":118,\"max\":null},\n",
                "{\"op\":\"kmalloc_worst\",\"size\":64,\"insns\":83.548,\"max\":1560}\n",
                "],\"board\":\"qemu-virt\",\"skipped\":",
                "[{\"row\":\"a.1\",\"reason\":\"no \\\"b\\\"\\\\\\u0009\"}]}\n"
            )
        );
    }

    #[test]
    fn no_rows_are_an_empty_list() {
        assert!(document("rpi4", &[], &[]).starts_with("{\"rows\":[\n\n]"));
    }
}
