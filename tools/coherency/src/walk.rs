//! What a virtual address means: the stage 1 translation of a CPU, done again in software from its
//! registers and the tables in RAM (Arm ARM D8).
//!
//! Stage 2 is not walked: memory of a guest under a hypervisor is not followed.

use crate::device::Memory;

/// How the CPU that makes an access has mapped the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mapping {
    /// Normal memory, write-back.
    WriteBack,
    /// Normal memory, write-through: cached, never dirty.
    WriteThrough,
    /// Normal memory, non-cacheable.
    NonCacheable,
    /// Device memory of any kind.
    Device,
    /// The MMU or the data cache is off.
    Off,
}

impl Mapping {
    /// Whether an access may allocate a line in a cache.
    pub const fn is_cacheable(self) -> bool {
        matches!(self, Self::WriteBack | Self::WriteThrough)
    }

    /// For reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WriteBack => "Normal write-back",
            Self::WriteThrough => "Normal write-through",
            Self::NonCacheable => "Normal non-cacheable",
            Self::Device => "Device",
            Self::Off => "MMU or data cache off",
        }
    }
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address of the byte.
    pub pa: u64,
    /// Its mapping.
    pub mapping: Mapping,
}

/// The registers that decide a translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regime {
    /// `SCTLR_ELx`.
    pub sctlr: u64,
    /// `TCR_ELx`.
    pub tcr: u64,
    /// `TTBR0_ELx` and `TTBR1_ELx`.
    pub ttbr: [u64; 2],
    /// `MAIR_ELx`.
    pub mair: u64,
    /// Whether the upper half of the addresses has tables of its own: EL1&0, and EL2 with E2H.
    pub has_upper_half: bool,
}

/// `SCTLR_ELx.M`, `.C` and `.I` (Arm ARM D24.2.175).
const SCTLR_M: u64 = 1 << 0;
const SCTLR_C: u64 = 1 << 2;
const SCTLR_I: u64 = 1 << 12;

/// Physical addresses without the extensions beyond 48 bits.
const PA_MASK: u64 = (1 << 48) - 1;

/// log2 of a descriptor's size.
const DESCRIPTOR_SHIFT: u32 = 3;

/// The half an address is in is its bit 55, with and without tags in its top byte.
const HALF_BIT: u32 = 55;

/// Narrowest and widest input address, in bits; and the widest of the smaller granules without `DS`.
const MIN_INPUT_BITS: u32 = 16;
const MAX_INPUT_BITS: u32 = 52;
const MAX_PLAIN_BITS: u32 = 48;

impl Regime {
    /// Walks the tables for `va`. `None` if nothing is mapped there, or a table is not in RAM.
    pub fn translate(&self, va: u64, memory: &dyn Memory) -> Option<Translation> {
        if self.sctlr & SCTLR_M == 0 {
            return Some(Translation {
                pa: va & PA_MASK,
                mapping: Mapping::Off,
            });
        }
        let upper = self.has_upper_half && va >> HALF_BIT & 1 == 1;
        let shape = self.shape(upper)?;
        let (descriptor, shift) = self.leaf(va, upper, shape, memory)?;
        let offset = va & ((1 << shift) - 1);
        Some(Translation {
            pa: descriptor & PA_MASK & !((1 << shift) - 1) | offset,
            mapping: self.mapping(descriptor),
        })
    }

    /// Whether instructions are fetched through caches.
    pub const fn fetches_cached(&self) -> bool {
        self.sctlr & SCTLR_I != 0
    }

    /// Bits of an input address, and log2 of the granule, of one half.
    fn shape(&self, upper: bool) -> Option<(u32, u32)> {
        let (size_shift, disable) = if upper { (16, 23) } else { (0, 7) };
        if self.has_upper_half && self.tcr >> disable & 1 == 1 {
            return None;
        }
        let bits = 64 - (self.tcr >> size_shift & 0x3F) as u32;
        // TG0 and TG1 name the same granules with different numbers (TCR_EL1).
        let granule = match (upper, self.tcr >> if upper { 30 } else { 14 } & 3) {
            (false, 0) | (true, 2) => 12,
            (false, 2) | (true, 1) => 14,
            (false, 1) | (true, 3) => 16,
            _ => return None,
        };
        let most = if granule == 16 || self.is_wide() {
            MAX_INPUT_BITS
        } else {
            MAX_PLAIN_BITS
        };
        let is_one = (MIN_INPUT_BITS..=most).contains(&bits) && bits > granule;
        is_one.then_some((bits, granule))
    }

    /// Whether tables of the granules below 64 KiB are for addresses of 52 bits (`TCR_ELx.DS`). No machine
    /// has RAM where the physical ones need more than 48.
    const fn is_wide(&self) -> bool {
        let bit = if self.has_upper_half { 59 } else { 32 };
        self.tcr >> bit & 1 == 1
    }

    /// The descriptor of the block or page of `va`, and log2 of its size.
    fn leaf(
        &self,
        va: u64,
        upper: bool,
        (bits, granule): (u32, u32),
        memory: &dyn Memory,
    ) -> Option<(u64, u32)> {
        let stride = granule - DESCRIPTOR_SHIFT;
        let levels = (bits - granule).div_ceil(stride);
        let mut table = self.ttbr[usize::from(upper)] & PA_MASK & !1;
        // Level 3, of the pages, has none below it; level -1 has four.
        for below in (0..levels).rev() {
            let shift = granule + stride * below;
            let index_bits = stride.min(bits - shift);
            table &= !((1 << (index_bits + DESCRIPTOR_SHIFT)) - 1);
            let index = va >> shift & ((1 << index_bits) - 1);
            let mut bytes = [0; 8];
            if !memory.read(table + (index << DESCRIPTOR_SHIFT), &mut bytes) {
                return None;
            }
            let descriptor = u64::from_le_bytes(bytes);
            // Blocks are of level 2; and of the next one or two above.
            let blocks = match (granule, self.is_wide()) {
                (12, false) | (14, true) => 1..=2,
                (12, true) => 1..=3,
                _ => 1..=1,
            };
            match descriptor & 3 {
                3 if below == 0 => return Some((descriptor, shift)),
                3 => table = descriptor & PA_MASK & !((1 << granule) - 1),
                1 if blocks.contains(&below) => return Some((descriptor, shift)),
                _ => return None,
            }
        }
        None
    }

    /// The type that a descriptor's `AttrIndx` names (`MAIR_ELx`).
    fn mapping(&self, descriptor: u64) -> Mapping {
        let attributes = self.mair >> (8 * (descriptor >> 2 & 7)) & 0xFF;
        let (outer, inner) = (attributes >> 4, attributes & 0xF);
        if outer == 0 {
            return Mapping::Device;
        }
        if self.sctlr & SCTLR_C == 0 {
            return Mapping::Off;
        }
        let is_cached = |half: u64| half != 0b0100;
        let is_back = |half: u64| half & 0b0100 != 0 && is_cached(half);
        if is_back(outer) || is_back(inner) {
            Mapping::WriteBack
        } else if is_cached(outer) || is_cached(inner) {
            Mapping::WriteThrough
        } else {
            Mapping::NonCacheable
        }
    }
}

#[cfg(test)]
mod tests;
