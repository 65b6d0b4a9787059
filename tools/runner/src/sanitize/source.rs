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

/// The last part of a function's path, without its generic arguments: `<A as B>::run::<C>` is `run`.
pub(super) fn last_part(function: &str) -> &str {
    let mut depth = 0;
    let mut end = function.len();
    for (at, byte) in function.bytes().enumerate().rev() {
        match byte {
            b'>' => {
                depth += 1;
            }
            b'<' => {
                depth -= 1;
                if depth == 0 && function[..at].ends_with("::") && end == function.len() {
                    end = at - 2;
                }
            }
            b':' if depth == 0 && at + 1 < end && function[..=at].ends_with("::") => {
                return &function[at + 1..end];
            }
            _ => {}
        }
    }
    &function[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_is_the_functions_own_name() {
        for (path, name) in [
            ("sum", "sum"),
            ("a::b::run", "run"),
            ("<a::B as c::D>::run", "run"),
            ("a::run::<b::C>", "run"),
            ("a::<b::C>::run::<d::E<f::G>>", "run"),
            ("a::{impl#2}::run", "run"),
        ] {
            assert_eq!(last_part(path), name);
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
