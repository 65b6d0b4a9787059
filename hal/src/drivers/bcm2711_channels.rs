//! Which DMA channels of a BCM2711 are the Arm's, and which of them are free.
//!
//! Two parties say which channels the VideoCore leaves to the Arm: the device tree
//! (`brcm,dma-channel-mask` of its two controller nodes), and the firmware itself (property tag
//! 0x60001). A channel that both name is preferred. If they have none of a kind in common, the tree
//! alone decides, as it does for Linux, which never asks the firmware: QEMU's firmware names
//! channels 2 to 5 only.

use super::bcm2711_dma::Kind;

/// A set of channels, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelMask(u32);

impl ChannelMask {
    /// The legacy channels the Raspberry Pi firmware leaves to the Arm: 0, 2 and 4 to 10.
    pub const LEGACY: Self = Self(0x07F5);
    /// The DMA4 channels it leaves: 12 to 14. It uses 11 itself.
    pub const DMA4: Self = Self(0x7000);

    /// The channels whose bits are set.
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The channels of either mask.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the channel is in the mask.
    pub const fn contains(self, channel: u8) -> bool {
        matches!(self.0.checked_shr(channel as u32), Some(bits) if bits & 1 != 0)
    }
}

/// What a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// Channels 0 to 10.
    Legacy(Kind),
    /// Channels 11 to 14.
    Dma4,
}

impl ChannelKind {
    /// The kind of a channel; `None` from 15 on, which the Arm cannot use.
    pub const fn of(channel: u8) -> Option<Self> {
        match Kind::of(channel) {
            Some(kind) => Some(Self::Legacy(kind)),
            None if channel >= FIRST_DMA4 && channel < CHANNELS => Some(Self::Dma4),
            None => None,
        }
    }
}

/// The first channel of DMA4's layout.
const FIRST_DMA4: u8 = 11;
/// Channels the Arm can use.
const CHANNELS: u8 = 15;

/// Who says that a channel is the Arm's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The device tree and the firmware.
    Both,
    /// The device tree; the firmware does not, or was not asked.
    Tree,
}

/// A channel that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub number: u8,
    /// Who says that it may be.
    pub named_by: NamedBy,
}

/// The free channels.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    tree: ChannelMask,
    firmware: Option<ChannelMask>,
    taken: u32,
}

impl Channels {
    /// The channels that the device tree and the firmware leave to the Arm, none taken. `firmware`
    /// is `None` if it does not say.
    pub const fn new(tree: ChannelMask, firmware: Option<ChannelMask>) -> Self {
        Self {
            tree,
            firmware,
            taken: 0,
        }
    }

    /// Takes the first free channel of the first of `kinds` that has one, if possible one that both
    /// parties name.
    pub fn take(&mut self, kinds: &[ChannelKind]) -> Option<Taken> {
        [NamedBy::Both, NamedBy::Tree]
            .into_iter()
            .find_map(|named_by| self.take_named(kinds, named_by))
    }

    fn take_named(&mut self, kinds: &[ChannelKind], named_by: NamedBy) -> Option<Taken> {
        let firmware = match named_by {
            NamedBy::Both => self.firmware?,
            NamedBy::Tree => ChannelMask(u32::MAX),
        };
        let free = ChannelMask(self.tree.0 & firmware.0 & !self.taken);
        let mut of_kind = kinds
            .iter()
            .flat_map(|&kind| (0..CHANNELS).filter(move |&n| ChannelKind::of(n) == Some(kind)));
        let number = of_kind.find(|&number| free.contains(number))?;
        self.taken |= 1 << number;
        Some(Taken { number, named_by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Fifo, Full, Lite};

    const FAST: [ChannelKind; 2] = [ChannelKind::Legacy(Fifo), ChannelKind::Legacy(Full)];
    const LITE: [ChannelKind; 1] = [ChannelKind::Legacy(Lite)];
    const WIDE: [ChannelKind; 1] = [ChannelKind::Dma4];
    const TREE: ChannelMask = ChannelMask::LEGACY.or(ChannelMask::DMA4);

    fn taken(number: u8, named_by: NamedBy) -> Option<Taken> {
        Some(Taken { number, named_by })
    }

    #[test]
    fn kinds_by_number() {
        for (number, kind) in [
            (0, Some(ChannelKind::Legacy(Fifo))),
            (6, Some(ChannelKind::Legacy(Full))),
            (7, Some(ChannelKind::Legacy(Lite))),
            (10, Some(ChannelKind::Legacy(Lite))),
            (11, Some(ChannelKind::Dma4)),
            (14, Some(ChannelKind::Dma4)),
            (15, None),
        ] {
            assert_eq!(ChannelKind::of(number), kind, "{number}");
        }
    }

    #[test]
    fn channels_that_both_name_come_first() {
        let mut channels = Channels::new(TREE, Some(ChannelMask::new(0x71F5)));
        assert_eq!(channels.take(&FAST), taken(0, NamedBy::Both));
        assert_eq!(channels.take(&FAST), taken(2, NamedBy::Both));
        assert_eq!(channels.take(&LITE), taken(7, NamedBy::Both));
        assert_eq!(channels.take(&LITE), taken(8, NamedBy::Both));
        // The firmware keeps 9 and 10, the tree does not.
        assert_eq!(channels.take(&LITE), taken(9, NamedBy::Tree));
        assert_eq!(channels.take(&WIDE), taken(12, NamedBy::Both));
    }

    #[test]
    fn qemu_s_answer_leaves_the_tree_to_decide() {
        let mut channels = Channels::new(TREE, Some(ChannelMask::new(0x3C)));
        assert_eq!(channels.take(&FAST), taken(2, NamedBy::Both));
        assert_eq!(channels.take(&LITE), taken(7, NamedBy::Tree));
        assert_eq!(channels.take(&WIDE), taken(12, NamedBy::Tree));
    }

    #[test]
    fn a_silent_firmware_leaves_the_tree_to_decide() {
        let mut channels = Channels::new(TREE, None);
        assert_eq!(channels.take(&FAST), taken(0, NamedBy::Tree));
    }

    #[test]
    fn what_the_tree_does_not_name_is_never_taken() {
        let firmware = Some(ChannelMask::new(u32::MAX));
        let mut channels = Channels::new(ChannelMask::new(1 << 14), firmware);
        assert_eq!(channels.take(&FAST), None);
        assert_eq!(channels.take(&LITE), None);
        assert_eq!(channels.take(&WIDE), taken(14, NamedBy::Both));
        assert_eq!(channels.take(&WIDE), None, "taken once");
    }

    #[test]
    fn numbers_past_the_mask_are_in_no_set() {
        assert!(!ChannelMask::new(u32::MAX).contains(32));
        assert!(!ChannelMask::new(u32::MAX).contains(u8::MAX));
    }
}
