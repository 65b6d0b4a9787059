//! From an address to functions and lines, by the symbols of the image.

use super::findings::{Finding, Frame};
use crate::paths;
use addr2line::Loader;
use std::path::Path;

/// The symbols of one image.
pub(super) struct Source {
    /// `None` for an image without any.
    loader: Option<Loader>,
}

impl Source {
    /// Those of the file at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            loader: Loader::new(path).ok(),
        }
    }

    /// Puts functions, file and line into a finding.
    pub(super) fn locate(&self, finding: &mut Finding) {
        let digits = finding.pc.strip_prefix("0x").unwrap_or(&finding.pc);
        let Ok(pc) = u64::from_str_radix(digits, 16) else {
            return;
        };
        finding.frames = self.at(pc);
        if finding.frames.is_empty() {
            let symbol = finding.symbol.as_deref().map(bare);
            finding.frames.extend(symbol);
        }
        let innermost = finding.frames.first();
        finding.symbol = innermost.map(|frame| frame.function.clone());
        finding.source = innermost.and_then(|frame| frame.place.clone());
    }

    /// The functions at `pc`, innermost first.
    fn at(&self, pc: u64) -> Vec<Frame> {
        let mut all = Vec::new();
        let Some(loader) = &self.loader else {
            return all;
        };
        if let Ok(mut frames) = loader.find_frames(pc) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame
                    .function
                    .as_ref()
                    .and_then(|name| name.demangle().ok());
                let place = frame
                    .location
                    .and_then(|at| Some(place(at.file?, at.line?)));
                all.extend(name.map(|name| Frame {
                    function: plain(&name),
                    place,
                }));
            }
        }
        if all.is_empty() {
            // A frame of defmt's is no function; its name is an object of JSON.
            let symbol = loader.find_symbol(pc).filter(|name| !name.starts_with('{'));
            all.extend(symbol.map(bare));
        }
        all
    }
}

/// A function of which only the name is known.
fn bare(name: &str) -> Frame {
    Frame {
        function: plain(name),
        place: None,
    }
}

/// File and line, the file from the root of the working copy if it is in there.
fn place(file: &str, line: u32) -> String {
    let root = paths::root();
    let file = Path::new(file);
    let file = file.strip_prefix(&root).unwrap_or(file);
    format!("{}:{line}", file.display())
}

/// A function's name without the hash that the compiler puts after it.
fn plain(name: &str) -> String {
    let name = rustc_demangled(name);
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path.into()
        }
        _ => name,
    }
}

/// `name`, which may be mangled as it stands in the symbol table.
fn rustc_demangled(name: &str) -> String {
    addr2line::demangle_auto(name.into(), None).into_owned()
}

/// Whether the path of `function` ends in that of `place`, in whole parts. Generic arguments do not
/// count, and a method is its type's: `<a::B<C> as d::E>::run::<F>` is `a::B::run`.
pub(super) fn ends_in(function: &str, place: &str) -> bool {
    parts(function).ends_with(&parts(place))
}

/// The parts of a function's path.
fn parts(function: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = function;
    loop {
        let end = rest.find(['<', ':']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if !name.is_empty() {
            parts.push(name);
        }
        rest = match after.as_bytes().first() {
            None => return parts,
            Some(b'<') => {
                let (inner, after) = group(after);
                // Else they are generic arguments.
                if let (true, Some(rest)) = (name.is_empty(), inner.strip_prefix("impl ")) {
                    parts.extend(self::parts(last(rest, " for ")));
                } else if parts.is_empty() {
                    parts.extend(self::parts(first(inner, " as ")));
                }
                after
            }
            Some(_) => &after[1..],
        };
    }
}

/// What is within the brackets that `text` starts with, and what comes after them.
fn group(text: &str) -> (&str, &str) {
    let ends = ends_of_groups(text);
    let end = ends.into_iter().next().unwrap_or(text.len());
    (&text[1..end], text.get(end + 1..).unwrap_or_default())
}

/// Where the brackets of the outermost level are closed.
fn ends_of_groups(text: &str) -> Vec<usize> {
    let (mut depth, mut before, mut ends) = (0_usize, b' ', Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            // That of an arrow closes nothing.
            b'>' if before != b'-' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    ends.push(at);
                }
            }
            _ => {}
        }
        before = byte;
    }
    ends
}

/// The part of `text` before `separator`, which may be within brackets as well and is not meant there.
fn first<'a>(text: &'a str, separator: &str) -> &'a str {
    outside(text, separator).map_or(text, |at| &text[..at])
}

/// The part after it.
fn last<'a>(text: &'a str, separator: &str) -> &'a str {
    outside(text, separator).map_or(text, |at| &text[at + separator.len()..])
}

/// Where `separator` is in `text` outside of brackets.
fn outside(text: &str, separator: &str) -> Option<usize> {
    let mut matches = text.match_indices(separator).map(|(at, _)| at);
    matches.find(|&at| {
        let before = &text[..at];
        let count = |byte| before.bytes().filter(|own| *own == byte).count();
        count(b'<') == count(b'>') - before.matches("->").count()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_end_of_a_path() {
        for (path, place) in [
            ("sum", "sum"),
            ("a::b::run", "run"),
            ("a::b::run", "b::run"),
            ("<a::B as c::D>::run", "a::B::run"),
            ("a::run::<b::C>", "a::run"),
            ("a::<b::C>::run::<d::E<f::G>>", "a::run"),
            ("<a::B<fn(c::D) -> e::F> as g::H<i::J>>::run", "a::B::run"),
            ("a::b::<impl c::D for e::F<g::H>>::run", "b::e::F::run"),
            ("<a::B>::run", "B::run"),
            ("a::B<c::D>::run", "a::B::run"),
            ("a::{impl#2}::run", "run"),
        ] {
            assert!(ends_in(path, place), "{path}: {:?}", parts(path));
        }
    }

    #[test]
    fn a_part_of_a_name_or_of_an_argument_is_no_place() {
        for (path, place) in [
            ("a::rerun", "run"),
            ("a::run::{closure#0}", "run"),
            ("a::b::run", "c::run"),
            ("b::run", "a::b::run"),
            ("a::call::<b::run>", "run"),
            ("<a::B as c::D>::run", "D::run"),
        ] {
            assert!(!ends_in(path, place), "{path}: {:?}", parts(path));
        }
    }

    #[test]
    fn hashes_are_dropped() {
        assert_eq!(plain("a::run::h0123456789abcdef"), "a::run");
        assert_eq!(plain("a::hello"), "a::hello");
        assert_eq!(plain("_ZN1a3run17h0123456789abcdefE"), "a::run");
    }

    #[test]
    fn an_image_without_symbols_has_none() {
        let source = Source::of(Path::new("/nonexistent"));
        assert_eq!(source.at(0x1000), []);
    }
}
