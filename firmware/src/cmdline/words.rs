//! The words of a command line, split as Linux's `next_arg` does.

/// A word, its quotes removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    /// The word as written.
    pub(super) text: &'a str,
    /// The part before the first `=`.
    pub(super) key: &'a str,
    /// The part after it, if there is one.
    pub(super) value: Option<&'a str>,
    /// Whether a quote was never closed.
    pub(super) is_open: bool,
}

/// The words of a text.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let rest = self.rest.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        let mut is_open = false;
        let ends_word = |character: char| {
            is_open ^= character == '"';
            !is_open && character.is_ascii_whitespace()
        };
        let (text, rest) = rest.split_at(rest.find(ends_word).unwrap_or(rest.len()));
        self.rest = rest;

        // A quote before the key encloses the whole word, one before the value only that.
        let (key, value) = match unquoted(text).split_once('=') {
            Some((key, value)) => (key, Some(unquoted(value))),
            None => (unquoted(text), None),
        };
        Some(Word {
            text,
            key,
            value,
            is_open,
        })
    }
}

/// `text` without the quote it starts with and the one it then ends with.
fn unquoted(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => text,
    }
}
