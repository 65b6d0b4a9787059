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

/// Whether a suite of the firmware or a test of the host is called `name`.
fn is_defined(name: &str, files: &[(PathBuf, String)]) -> bool {
    match name.split_once('.') {
        Some((suite, test)) => {
            // A name as a string, or as the key of a suite's `tests!`.
            let forms = [format!("\"{test}\""), format!(" {test}: ")];
            files.iter().any(|(path, text)| {
                is_of_suite(path, suite) && forms.iter().any(|form| text.contains(form))
            })
        }
        None => files.iter().any(|(_, text)| has_test(text, name)),
    }
}

/// Whether the file at `path` is `suites/SUITE.rs` or in the folder `suites/SUITE`.
fn is_of_suite(path: &Path, suite: &str) -> bool {
    let parts: Vec<_> = path.iter().collect();
    parts.windows(2).any(|pair| {
        pair[0] == "suites" && (pair[1] == suite || pair[1] == format!("{suite}.rs").as_str())
    })
}

/// Whether `text` has a function `name` with `#[test]` among its attributes, that is not left out of
/// every run.
fn has_test(text: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    if !text.contains(&head) {
        return false;
    }
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let is_head = |line: &&str| line.starts_with(&head);
    let ends_something = |line: &&str| line.is_empty() || line.ends_with(['{', '}', ';']);
    lines.iter().enumerate().any(|(number, line)| {
        let above = lines[..number].iter().rev();
        let attributes: Vec<_> = above.take_while(|line| !ends_something(line)).collect();
        is_head(line)
            && attributes.iter().any(|line| **line == "#[test]")
            && !attributes.iter().any(|line| line.starts_with("#[ignore"))
    })
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

/// The claims that `docs/claims.md` numbers: their letters, and how many there are of each.
const CLAIMS: [(char, u32); 4] = [('K', 21), ('G', 15), ('P', 13), ('V', 10)];

/// What stands in a row instead of a test.
const REASONS: [&str; 2] = ["nothing to test |", "`make bench`: "];

/// What is wrong with the rows of `text`: claims that do not have one row, and rows that
/// neither name a test nor give a reason.
fn faulty_rows(text: &str) -> Vec<String> {
    let ids = CLAIMS
        .iter()
        .flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n}")));
    ids.filter_map(|id| {
        let rows: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(&format!("| {id} |")))
            .collect();
        match rows[..] {
            [row] if names(row).count() > 0 => None,
            [row] if REASONS.iter().any(|reason| row.contains(reason)) => None,
            [_] => Some(format!("{id} has no test")),
            _ => Some(format!("{id} has {} rows", rows.len())),
        }
    })
    .collect()
}

#[test]
fn names_are_read_from_prose_and_from_the_last_column() {
    let text = "by `mmu.a_b_c` and `short`\n| `call_of_linux` | words | `d_e_f`, `x.g_h_i` |\n";
    assert!(names(text).eq(["mmu.a_b_c", "d_e_f", "x.g_h_i"]));
}

#[test]
fn a_name_that_is_nowhere_is_found() {
    let file = |path: &str, text: &str| (PathBuf::from(path), String::from(text));
    let files = [
        file(
            "firmware/src/suites/mmu.rs",
            "\"a_b_c\" tests! { g_h_i: run, }",
        ),
        file(
            "firmware/src/suites/mmu/windows.rs",
            "tests! { j_k_l: run, } \"m_n_o\"",
        ),
        file(
            "hal/src/a.rs",
            "use b;\n#[test]\n#[should_panic]\nfn d_e_f() {\n}\n\n#[test]\nfn o_p_q() {\n}\nfn r_s_t() {\n}\n\
             #[test]\n#[ignore = \"never runs\"]\nfn u_v_w() {\n}",
        ),
    ];
    for name in [
        "mmu.a_b_c",
        "mmu.g_h_i",
        "mmu.j_k_l",
        "mmu.m_n_o",
        "d_e_f",
        "o_p_q",
    ] {
        assert!(is_defined(name, &files), "{name}");
    }
    for name in [
        "mmu.h_i",
        "mmu.a_b_x",
        "boot.a_b_c",
        "mm.a_b_c",
        "windows.m_n_o",
        "d_e_x",
        "r_s_t",
        "u_v_w",
    ] {
        assert!(!is_defined(name, &files), "{name}");
    }
}

#[test]
fn every_claim_has_a_row_with_its_tests() {
    let text = fs::read_to_string(root().join("docs/claims.md")).unwrap();
    assert_eq!(faulty_rows(&text), [""; 0]);
}

#[test]
fn a_claim_without_a_row_or_a_test_is_found() {
    let row = |id: String| format!("| {id} | said | `a_b_c` | `d_e_f` |\n");
    let ids = CLAIMS
        .iter()
        .flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n}")));
    let rows: Vec<_> = ids.map(row).collect();
    assert_eq!(faulty_rows(&rows.concat()), [""; 0]);
    let with = |number: usize, text: &str| {
        let mut rows = rows.clone();
        rows[number] = text.into();
        faulty_rows(&rows.concat())
    };
    assert_eq!(
        with(1, "| K3 | said | holds | `d_e_f` |\n"),
        ["K2 has 0 rows", "K3 has 2 rows"]
    );
    assert_eq!(
        with(1, "| K2 | said | `a_b_c` holds | none |\n"),
        ["K2 has no test"]
    );
    assert_eq!(
        with(1, "| K2 | said | holds | nothing to test |\n"),
        [""; 0]
    );
}
