//! Requests of one tag as the firmware reads them, and its answers.
//!
//! Words, little-endian: total size, code, tag, bytes of the values, length of the answer, the values,
//! and a zero that ends the list of tags.

use super::{BUFFER_SIZE, MailboxError, Property};
use crate::dma::ALIGNMENT;

/// Codes of a request, and of the firmware's answer to it.
const CODE_REQUEST: u32 = 0;
const CODE_DONE: u32 = 0x8000_0000;
/// In a tag's length: the firmware answered this tag.
const TAG_ANSWERED: u32 = 1 << 31;

const WORD: usize = size_of::<u32>();
/// Offsets of the code, the tag, the length of its answer, and the values.
const CODE: usize = WORD;
const TAG: usize = 2 * WORD;
const LENGTH: usize = 4 * WORD;
const VALUES: usize = 5 * WORD;

/// Bytes of values there is room for: whole words.
const fn room_of<P: Property>() -> usize {
    P::BYTES.next_multiple_of(WORD)
}

/// Bytes in a request of `P`: whole cache lines.
pub(super) const fn len_of<P: Property>() -> usize {
    let len = (VALUES + room_of::<P>() + WORD).next_multiple_of(ALIGNMENT);
    assert!(len <= BUFFER_SIZE && P::QUESTION_WORDS * WORD <= room_of::<P>());
    len
}

/// Writes the request for `property` to `buffer`, of [`len_of`] bytes.
pub(super) fn write<P: Property>(property: &P, buffer: &mut [u8]) {
    buffer.fill(0);
    // CAST: at most BUFFER_SIZE.
    let header = [
        buffer.len() as u32,
        CODE_REQUEST,
        P::TAG,
        room_of::<P>() as u32,
        0,
    ];
    let question = property.question();
    let words = header.iter().chain(question.iter().take(P::QUESTION_WORDS));
    for (bytes, word) in buffer.chunks_exact_mut(WORD).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// Reads the answer to `property` from `buffer`, of [`len_of`] bytes.
pub(super) fn read<P: Property>(property: &P, buffer: &[u8]) -> Result<P::Answer, MailboxError> {
    let tag = P::TAG;
    match word(buffer, CODE) {
        CODE_DONE => {}
        CODE_REQUEST => return Err(MailboxError::Stale { tag }),
        code => return Err(MailboxError::Refused { tag, code }),
    }
    if word(buffer, TAG) != tag {
        return Err(MailboxError::WrongAnswer { tag });
    }
    let length = word(buffer, LENGTH);
    let bytes = length & !TAG_ANSWERED;
    let (len, expected, room) = (bytes as usize, P::ANSWER_BYTES, room_of::<P>());
    // QEMU marks a tag it does not know as answered, with nothing.
    if length & TAG_ANSWERED == 0 || (len == 0 && expected != 0) {
        return Err(MailboxError::Unknown { tag });
    }
    if len < expected {
        return Err(MailboxError::Short {
            tag,
            bytes,
            expected,
        });
    }
    if len > room {
        return Err(MailboxError::Truncated { tag, bytes, room });
    }
    property
        .answer(&buffer[VALUES..VALUES + len])
        .ok_or(MailboxError::WrongAnswer { tag })
}

/// The word at `offset`; 0 past the end.
fn word(buffer: &[u8], offset: usize) -> u32 {
    let bytes = buffer.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
