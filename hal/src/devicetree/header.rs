//! The header of a blob, checked before anything else is read.

use super::DtbError;

/// Bytes in the header (Devicetree Specification v0.4, 5.2).
pub const HEADER_SIZE: usize = 40;

/// The largest blob that is read: what the arm64 boot protocol allows (Linux
/// `Documentation/arch/arm64/booting.rst`, section 2).
pub const MAX_BLOB_SIZE: usize = 2 << 20;

const MAGIC: u32 = 0xD00D_FEED;
/// The only version of the format in use (Devicetree Specification v0.4, 5.2).
const VERSION: u32 = 17;
/// The end of the memory reservation block: an entry of two zero words of 64 bits.
const RESERVATION_END_SIZE: u32 = 16;
/// The smallest structure block: an empty root node and the end token.
const SMALLEST_STRUCTURE: u32 = 16;

/// The header's words in order.
pub(super) struct Header {
    magic: u32,
    total_size: u32,
    pub(super) structure: u32,
    pub(super) strings: u32,
    pub(super) reservations: u32,
    version: u32,
    last_compatible: u32,
    pub(super) strings_size: u32,
    pub(super) structure_size: u32,
}

impl Header {
    /// Takes the header apart, or returns `None` if `bytes` is too short for one.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.first_chunk::<HEADER_SIZE>()?.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
        let mut next = || words.next();
        Some(Self {
            magic: next()?,
            total_size: next()?,
            structure: next()?,
            strings: next()?,
            reservations: next()?,
            version: next()?,
            last_compatible: next()?,
            strings_size: {
                let _boot_cpu = next()?;
                next()?
            },
            structure_size: next()?,
        })
    }
}

/// Bytes in the blob that starts with `start`, of which at least [`HEADER_SIZE`] bytes must be
/// given: what has to be mapped before the blob can be read.
///
/// # Errors
///
/// [`DtbError::Truncated`], [`DtbError::Magic`], [`DtbError::Version`] or [`DtbError::Size`].
pub fn blob_size(start: &[u8]) -> Result<usize, DtbError<'static>> {
    checked_header(start).map(|header| header.total_size as usize)
}

/// The blob `bytes` starts with and its header, whose blocks all lie in the blob.
pub(super) fn checked_blob(bytes: &[u8]) -> Result<(&[u8], Header), DtbError<'static>> {
    let header = checked_header(bytes)?;
    let need = header.total_size as usize;
    let blob = bytes.get(..need).ok_or(DtbError::Truncated {
        have: bytes.len(),
        need,
    })?;
    let blocks = [
        ("reservation", header.reservations, RESERVATION_END_SIZE),
        (
            "structure",
            header.structure,
            header.structure_size.max(SMALLEST_STRUCTURE),
        ),
        ("strings", header.strings, header.strings_size),
    ];
    for (name, offset, size) in blocks {
        let end = offset.checked_add(size);
        if (offset as usize) < HEADER_SIZE || end.is_none_or(|end| end > header.total_size) {
            return Err(DtbError::Block { name, offset, size });
        }
    }
    Ok((blob, header))
}

fn checked_header(start: &[u8]) -> Result<Header, DtbError<'static>> {
    let header = Header::read(start).ok_or(DtbError::Truncated {
        have: start.len(),
        need: HEADER_SIZE,
    })?;
    if header.magic != MAGIC {
        return Err(DtbError::Magic(header.magic));
    }
    if !(header.last_compatible..=header.version).contains(&VERSION) {
        return Err(DtbError::Version {
            version: header.version,
            oldest: header.last_compatible,
        });
    }
    if !(HEADER_SIZE..=MAX_BLOB_SIZE).contains(&(header.total_size as usize)) {
        return Err(DtbError::Size(header.total_size));
    }
    Ok(header)
}
