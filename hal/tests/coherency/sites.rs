//! The lines of code whose operations are left out: all there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where operations are issued that devices and other cores depend on.
const FOLDERS: [&str; 2] = ["src/dma", "src/mmu"];

/// How a call of an operation begins.
const CALLS: [&str; 6] = [
    "barrier::dsb",
    "barrier::dmb",
    "barrier::isb",
    "cache::clean",
    "cache::invalidate",
    "tlb::invalidate",
];

/// Where the tests of a file begin.
const TESTS: &str = "\n#[cfg(test)]\nmod tests {";

/// The lines of the library that issue operations, as `folder/file.rs:line`.
pub(crate) fn in_source() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for folder in FOLDERS {
        look_into(&root.join(folder), &mut found);
    }
    found
}

fn look_into(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_stem().is_some_and(|name| name == "tests");
        if is_test {
            continue;
        }
        if path.is_dir() {
            look_into(&path, found);
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let code = source.split(TESTS).next().unwrap_or_default();
        for (number, line) in (1..).zip(code.lines()) {
            let is_comment = line.trim_start().starts_with("//");
            if !is_comment && CALLS.iter().any(|call| line.contains(call)) {
                found.insert(name(path.to_str().unwrap(), number));
            }
        }
    }
}

/// A line as the lists have it, whatever folder the compiler was called in.
pub(crate) fn name(file: &str, line: u32) -> String {
    let start = file.rfind("src/").unwrap_or_default();
    format!("{}:{line}", &file[start..])
}
