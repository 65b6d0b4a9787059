use super::matrix::{MATRIX, Row};
use super::*;
use crate::settings::{Board, Settings};
use std::collections::HashSet;

/// The values of a row by column, of cores and RAM those the firmware must find. Truncated and lying
/// trees are one value: both are false.
fn columns(row: &Row) -> [String; 8] {
    [
        format!("EL{}", row.el),
        row.image.into(),
        format!("GICv{}", row.gic),
        format!("{}M", row.found.mib),
        format!("cores={}", row.found.cores),
        row.cpu.into(),
        match row.dtb {
            "lying" | "truncated" => "bad".into(),
            dtb => dtb.into(),
        },
        format!("filled={}", row.filled),
    ]
}

fn possible(a: &str, b: &str) -> bool {
    let pair = [a, b];
    let has = |value| pair.contains(&value);
    let without_tree = has("none") || has("bad");
    let raw_without_tree = has("raw") && without_tree;
    let raw_secure = has("raw") && has("EL3");
    let unknown_ram = without_tree && (has("1024M") || has("8192M"));
    let slow = has("8192M") && has("filled=true");
    !(raw_without_tree || raw_secure || unknown_ram || slow)
}

#[test]
fn the_matrix_covers_every_pair() {
    let rows: Vec<_> = MATRIX.iter().map(columns).collect();
    let values: Vec<HashSet<_>> = (0..8)
        .map(|column| rows.iter().map(|row| row[column].clone()).collect())
        .collect();
    assert_eq!(
        values.iter().map(HashSet::len).collect::<Vec<_>>(),
        [3, 2, 2, 3, 3, 4, 3, 2]
    );
    for i in 0..8 {
        for j in 0..i {
            for a in &values[i] {
                for b in &values[j] {
                    let seen = rows.iter().any(|row| row[i] == *a && row[j] == *b);
                    assert_eq!(seen, possible(a, b), "{a} with {b}");
                }
            }
        }
    }
}

#[test]
fn both_kinds_of_bad_tree_are_there() {
    for dtb in ["truncated", "lying"] {
        assert!(MATRIX.iter().any(|row| row.dtb == dtb));
    }
}

#[test]
fn every_boot_has_settings_that_make_sense_and_a_name_of_its_own() {
    for lane in all() {
        let Work::Boots(_, _, boots) = lane.work else {
            continue;
        };
        let names: HashSet<_> = boots.iter().map(|boot| &boot.name).collect();
        assert_eq!(names.len(), boots.len(), "{}", lane.name);
        for boot in &boots {
            let settings = Settings::read(Board::QemuVirt, |key| {
                let found = boot.settings.iter().find(|(name, _)| *name == key);
                found.map(|(_, value)| value.clone())
            });
            assert!(settings.is_ok(), "{}: {settings:?}", boot.name);
        }
    }
}

#[test]
fn the_matrix_stays_small() {
    assert!((12..=18).contains(&matrix().len()));
}
