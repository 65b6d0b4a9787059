//! What a Raspberry Pi's revision code says (Raspberry Pi documentation, "Raspberry Pi revision
//! codes").

use core::fmt;

/// A revision code, as `/proc/cpuinfo` shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RevisionCode(u32);

/// Set in codes that have the fields below; others are numbers of boards before 2014.
const NEW_STYLE: u32 = 1 << 23;
/// Bytes that the memory field 0 stands for.
const LEAST_MEMORY: u64 = 256 << 20;

/// The system on the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soc {
    /// Pi 1, Zero.
    Bcm2835,
    /// Early Pi 2.
    Bcm2836,
    /// Pi 3, Zero 2.
    Bcm2837,
    /// Pi 4, 400, CM4.
    Bcm2711,
    /// Another, by its number.
    Other(u8),
}

/// The kind of board, as far as this chip is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Raspberry Pi 4 Model B.
    Pi4B,
    /// Raspberry Pi 400.
    Pi400,
    /// Compute Module 4.
    Cm4,
    /// Another, by its number.
    Other(u8),
}

impl RevisionCode {
    /// The code with that value.
    pub const fn new(code: u32) -> Self {
        Self(code)
    }

    /// The value.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The `bits` bits from `shift` on; `None` for codes without fields.
    const fn field(self, shift: u32, bits: u32) -> Option<u8> {
        if self.0 & NEW_STYLE == 0 {
            return None;
        }
        // CAST: no field has more than 8 bits.
        Some((self.0 >> shift & ((1 << bits) - 1)) as u8)
    }

    /// Bytes of RAM, those of the VideoCore among them.
    pub fn memory(self) -> Option<u64> {
        self.field(20, 3).map(|size| LEAST_MEMORY << size)
    }

    /// The system on the board.
    pub fn soc(self) -> Option<Soc> {
        self.field(12, 4).map(|soc| match soc {
            0 => Soc::Bcm2835,
            1 => Soc::Bcm2836,
            2 => Soc::Bcm2837,
            3 => Soc::Bcm2711,
            other => Soc::Other(other),
        })
    }

    /// The kind of board.
    pub fn model(self) -> Option<Model> {
        self.field(4, 8).map(|model| match model {
            0x11 => Model::Pi4B,
            0x13 => Model::Pi400,
            0x14 => Model::Cm4,
            other => Model::Other(other),
        })
    }

    /// The board's revision: the digit after "1.".
    pub fn revision(self) -> Option<u8> {
        self.field(0, 4)
    }
}

impl fmt::Display for RevisionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)?;
        let (Some(model), Some(revision), Some(soc), Some(memory)) =
            (self.model(), self.revision(), self.soc(), self.memory())
        else {
            return Ok(());
        };
        write!(
            f,
            " ({model:?} 1.{revision}, {soc:?}, {} MiB)",
            memory >> 20
        )
    }
}

impl fmt::Debug for RevisionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_by_their_codes() {
        for (code, model, revision, gib) in [
            (0xB0_3115, Model::Pi4B, 5, 2),
            (0xA0_3111, Model::Pi4B, 1, 1),
            (0xC0_3112, Model::Pi4B, 2, 4),
            (0xD0_3114, Model::Pi4B, 4, 8),
            (0xC0_3130, Model::Pi400, 0, 4),
        ] {
            let code = RevisionCode::new(code);
            assert_eq!(code.model(), Some(model));
            assert_eq!(code.revision(), Some(revision));
            assert_eq!(code.soc(), Some(Soc::Bcm2711));
            assert_eq!(code.memory(), Some(gib << 30));
        }
        let qemu = RevisionCode::new(0xB0_3115).to_string();
        assert_eq!(qemu, "0xb03115 (Pi4B 1.5, Bcm2711, 2048 MiB)");
    }

    #[test]
    fn old_codes_have_no_fields() {
        let old = RevisionCode::new(0x0010);
        assert_eq!((old.memory(), old.model(), old.soc()), (None, None, None));
        assert_eq!(old.to_string(), "0x10");
    }
}
