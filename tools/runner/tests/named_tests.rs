//! Every test that the documentation names exists.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of every Rust file below `folder`.
fn sources(folder: &Path, into: &mut Vec<(PathBuf, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            into.push((path, text));
        }
    }
    Ok(())
}

/// The names in backquotes that look like tests: `suite.test` or a long snake_case name. Of the rows
/// of a table only the last column has them.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.lines().map(|line| match line.strip_suffix('|') {
        Some(row) => row.rsplit('|').next().unwrap_or_default(),
        None => line,
    });
    let quoted = parts.flat_map(|part| part.split('`').skip(1).step_by(2));
    quoted.filter(|name| {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c);
        name.chars().all(is_name) && name.matches('_').count() >= 2 && !name.ends_with('_')
    })
}

fn is_defined(name: &str, files: &[(PathBuf, String)]) -> bool {
    match name.split_once('.') {
        Some((suite, test)) => {
            let file = format!("suites/{suite}");
            // A name as a string, or as the key of a suite's `tests!`.
            let forms = [format!("\"{test}\""), format!(" {test}: ")];
            files.iter().any(|(path, text)| {
                path.to_string_lossy().contains(&file)
                    && forms.iter().any(|form| text.contains(form))
            })
        }
        None => files
            .iter()
            .any(|(_, text)| text.contains(&format!("fn {name}("))),
    }
}

#[test]
fn every_named_test_exists() {
    let mut files = Vec::new();
    for folder in [
        "hal/src",
        "hal/loom/src",
        "hal/tests",
        "firmware/src",
        "tools/runner/src",
    ] {
        sources(&root().join(folder), &mut files).unwrap();
    }
    for document in [
        "docs/memory-model.md",
        "docs/linux-interfaces.md",
        "docs/claims.md",
    ] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let missing: Vec<_> = names(&text)
            .filter(|name| !is_defined(name, &files))
            .collect();
        assert!(
            missing.is_empty(),
            "{document} names tests that do not exist: {missing:?}"
        );
        assert!(
            names(&text).count() > 50,
            "the names in {document} are not recognised any more"
        );
    }
}

#[test]
fn names_are_read_from_prose_and_from_the_last_column() {
    let text = "by `mmu.a_b_c` and `short`\n| `call_of_linux` | words | `d_e_f`, `x.g_h_i` |\n";
    assert!(names(text).eq(["mmu.a_b_c", "d_e_f", "x.g_h_i"]));
}

#[test]
fn a_name_that_is_nowhere_is_found() {
    let files = [(
        PathBuf::from("firmware/src/suites/mmu.rs"),
        String::from("\"a_b_c\" fn d_e_f() { g_h_i: run, }"),
    )];
    assert!(is_defined("mmu.a_b_c", &files) && is_defined("d_e_f", &files));
    assert!(is_defined("mmu.g_h_i", &files) && !is_defined("mmu.h_i", &files));
    assert!(!is_defined("mmu.a_b_x", &files) && !is_defined("boot.a_b_c", &files));
    assert!(!is_defined("d_e_x", &files));
}
