//! Files and the directory they are found in.

use core::fmt;

/// Bytes of a name in the directory, the zero at its end included.
const NAME_SIZE: usize = 56;

/// Words of an entry: the size, the item's number beside two reserved bytes, and the name.
pub(super) const ENTRY_WORDS: usize = 2 + NAME_SIZE / size_of::<u32>();

/// A file of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    item: u16,
    size: u32,
}

impl File {
    /// Bytes in the file.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// The number of its item.
    pub(super) const fn item(&self) -> u16 {
        self.item
    }
}

/// A name that a file can have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileName([u8; NAME_SIZE]);

impl FileName {
    /// `name`, unless it is longer than names are or has a zero in it.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; NAME_SIZE];
        let fits = name.len() < NAME_SIZE && !name.contains('\0');
        fits.then(|| {
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            Self(bytes)
        })
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|&byte| byte == 0).next().unwrap_or_default();
        name.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// An entry of the directory, as the device wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry([u32; ENTRY_WORDS]);

impl Entry {
    pub(super) const fn new(words: [u32; ENTRY_WORDS]) -> Self {
        Self(words)
    }

    pub(super) fn file(&self) -> File {
        let [size, item, ..] = self.0.map(u32::from_be);
        File {
            item: (item >> 16) as u16,
            size,
        }
    }

    /// The name, with whatever lies behind its end taken for zeros.
    pub(super) fn name(&self) -> FileName {
        let mut name = [0; NAME_SIZE];
        let bytes = self.0[2..].iter().flat_map(|word| word.to_ne_bytes());
        for (to, byte) in name.iter_mut().zip(bytes.take_while(|&byte| byte != 0)) {
            *to = byte;
        }
        FileName(name)
    }
}
