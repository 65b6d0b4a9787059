//! RAM, read from the file behind QEMU's memory backend.

use crate::device::Memory;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The file is mapped shared by QEMU, so what is read from it is what devices would read.
#[derive(Debug)]
pub struct RamFile {
    file: File,
    ram: Range<u64>,
}

impl RamFile {
    /// The file of the RAM that starts at physical address `base`.
    ///
    /// # Errors
    ///
    /// Those of opening the file and asking for its size.
    pub fn open(path: &Path, base: u64) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            file,
            ram: base..base.saturating_add(size),
        })
    }

    /// The RAM's physical addresses.
    pub fn range(&self) -> Range<u64> {
        self.ram.clone()
    }
}

impl Memory for RamFile {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> bool {
        let Some(end) = pa.checked_add(bytes.len() as u64) else {
            return false;
        };
        pa >= self.ram.start
            && end <= self.ram.end
            && self.file.read_exact_at(bytes, pa - self.ram.start).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_in_the_file_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("coherency-ram-{}", std::process::id()));
        std::fs::write(&path, [1, 2, 3, 4]).unwrap();
        let ram = RamFile::open(&path, 0x4000_0000).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut bytes = [0; 2];
        assert!(ram.read(0x4000_0002, &mut bytes));
        assert_eq!(bytes, [3, 4]);
        assert!(!ram.read(0x4000_0003, &mut bytes));
        assert!(!ram.read(0x3FFF_FFFF, &mut bytes));
        assert!(!ram.read(u64::MAX, &mut bytes));
        assert_eq!(ram.range(), 0x4000_0000..0x4000_0004);
    }
}
