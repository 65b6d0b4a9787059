//! The structure, string and reservation blocks, checked before a node is looked at.
//!
//! `dtoolkit` reads a tree it was promised is well formed, and panics on one that is not. Its own
//! check cannot be used: it enforces the specification's 31 characters for a property name, which
//! the Raspberry Pi 4's tree exceeds (`arm,cpu-registers-not-fw-configured`).

use super::header::Header;
use super::{DtbError, MAX_DEPTH};

/// Tokens (Devicetree Specification v0.4, 5.4.1).
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Tokens and what follows them are padded to this.
const TOKEN_SIZE: usize = 4;
/// Bytes of a memory reservation: address and size.
const RESERVATION_SIZE: usize = 16;
/// The longest name of a node or property. No real one comes near.
const MAX_NAME: usize = 255;

/// Checks that every token, name and value lies in its block, that nodes are properly nested, that
/// properties come before child nodes, and that the reservations have an end.
pub(super) fn check(blob: &[u8], header: &Header) -> Result<(), DtbError<'static>> {
    check_reservations(blob, header.reservations as usize)?;
    let start = header.structure as usize;
    if !start.is_multiple_of(TOKEN_SIZE) {
        return Err(DtbError::Structure { offset: start });
    }
    let strings_start = header.strings as usize;
    let strings = blob
        .get(strings_start..strings_start + header.strings_size as usize)
        .unwrap_or_default();
    let mut reader = Reader {
        structure: blob
            .get(..start + header.structure_size as usize)
            .unwrap_or_default(),
        offset: start,
    };
    reader.check_nodes(strings)
}

fn check_reservations(blob: &[u8], start: usize) -> Result<(), DtbError<'static>> {
    blob.get(start..)
        .unwrap_or_default()
        .chunks_exact(RESERVATION_SIZE)
        .any(|entry| entry == [0; RESERVATION_SIZE])
        .then_some(())
        .ok_or(DtbError::Reservations { offset: start })
}

/// Whether `bytes` starts with a name and its end.
fn name_length(bytes: &[u8]) -> Option<usize> {
    let bytes = &bytes[..bytes.len().min(MAX_NAME + 1)];
    let name = core::ffi::CStr::from_bytes_until_nul(bytes).ok()?;
    name.to_str().ok().map(str::len)
}

struct Reader<'a> {
    /// The blob up to the end of the structure block.
    structure: &'a [u8],
    /// Where the next token is.
    offset: usize,
}

impl Reader<'_> {
    fn check_nodes(&mut self, strings: &[u8]) -> Result<(), DtbError<'static>> {
        let mut depth = 0;
        let mut may_have_properties = false;
        loop {
            let offset = self.offset;
            let broken = || DtbError::Structure { offset };
            match self.word().ok_or_else(broken)? {
                BEGIN_NODE => {
                    if depth == MAX_DEPTH {
                        return Err(DtbError::TooDeep);
                    }
                    depth += 1;
                    may_have_properties = true;
                    let rest = self.structure.get(self.offset..).unwrap_or_default();
                    let length = name_length(rest).ok_or_else(broken)?;
                    self.skip(length + 1).ok_or_else(broken)?;
                }
                PROP if may_have_properties => {
                    let (size, name) = (self.word(), self.word());
                    let (size, name) = size.zip(name).ok_or_else(broken)?;
                    let name = strings.get(name as usize..).ok_or_else(broken)?;
                    name_length(name).ok_or_else(broken)?;
                    self.skip(size as usize).ok_or_else(broken)?;
                }
                END_NODE if depth > 1 => {
                    depth -= 1;
                    may_have_properties = false;
                }
                END_NODE if depth == 1 => break,
                // A tree starts with its root node.
                NOP if depth > 0 => {}
                _ => return Err(broken()),
            }
        }
        let offset = self.offset;
        match self.word() {
            Some(END) => Ok(()),
            _ => Err(DtbError::Structure { offset }),
        }
    }

    /// Takes the next word.
    fn word(&mut self) -> Option<u32> {
        let word = self.structure.get(self.offset..)?.first_chunk()?;
        self.offset += TOKEN_SIZE;
        Some(u32::from_be_bytes(*word))
    }

    /// Skips `size` bytes and what pads them, if there are so many.
    fn skip(&mut self, size: usize) -> Option<()> {
        let end = (self.offset + size).next_multiple_of(TOKEN_SIZE);
        self.offset = end;
        (end <= self.structure.len()).then_some(())
    }
}
