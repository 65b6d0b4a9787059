//! Which DMA channels of a BCM2711 are the Arm's, and which of them are free.
//!
//! Two parties say which channels the VideoCore leaves to the Arm: the device tree
//! (`brcm,dma-channel-mask` of its two controller nodes), and the firmware itself (property tag
//! 0x60001). Both must name a channel: the VideoCore may be at work on any other. The tree alone
//! decides only if the firmware does not say, and on QEMU, whose firmware names channels 2 to 5 and
//! has no VideoCore behind it.

use super::bcm2711_dma::Kind;
use core::fmt;

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

    /// The channels of both masks.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
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

impl fmt::Display for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy(kind) => write!(f, "{kind:?}"),
            Self::Dma4 => f.write_str("Dma4"),
        }
    }
}

/// The first channel of DMA4's layout.
const FIRST_DMA4: u8 = 11;
/// Channels the Arm can use.
const CHANNELS: u8 = 15;

/// What the firmware says about the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// Nothing.
    Silent,
    /// It leaves these to the Arm and may use all others.
    Leaves(ChannelMask),
    /// The same, but it is QEMU's and uses none.
    Modelled(ChannelMask),
}

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
    /// What it is.
    pub kind: ChannelKind,
    /// Who says that it may be.
    pub named_by: NamedBy,
}

/// The free channels.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    tree: ChannelMask,
    firmware: Firmware,
    taken: u32,
}

impl Channels {
    /// The channels that the device tree and the firmware leave to the Arm, none taken.
    pub const fn new(tree: ChannelMask, firmware: Firmware) -> Self {
        Self {
            tree,
            firmware,
            taken: 0,
        }
    }

    /// The channels that are the Arm's, free or taken.
    pub const fn mask(&self) -> ChannelMask {
        match self.firmware {
            Firmware::Leaves(firmware) => self.tree.and(firmware),
            Firmware::Silent | Firmware::Modelled(_) => self.tree,
        }
    }

    /// The channels that both parties name.
    const fn named_by_both(&self) -> ChannelMask {
        match self.firmware {
            Firmware::Leaves(firmware) | Firmware::Modelled(firmware) => self.tree.and(firmware),
            Firmware::Silent => ChannelMask(0),
        }
    }

    /// Takes the first free channel of the first of `kinds` that has one, if possible one that both
    /// parties name. `None` if no such channel is the Arm's and free.
    pub fn take(&mut self, kinds: &[ChannelKind]) -> Option<Taken> {
        let masks = [
            (NamedBy::Both, self.named_by_both()),
            (NamedBy::Tree, self.mask()),
        ];
        masks.into_iter().find_map(|(named_by, mask)| {
            let (number, kind) = self.take_of(kinds, mask)?;
            Some(Taken {
                number,
                kind,
                named_by,
            })
        })
    }

    fn take_of(&mut self, kinds: &[ChannelKind], mask: ChannelMask) -> Option<(u8, ChannelKind)> {
        let free = ChannelMask(mask.0 & !self.taken);
        let (number, kind) = kinds.iter().find_map(|&kind| {
            let mut of_kind = (0..CHANNELS).filter(|&n| ChannelKind::of(n) == Some(kind));
            let number = of_kind.find(|&number| free.contains(number))?;
            Some((number, kind))
        })?;
        self.taken |= 1 << number;
        Some((number, kind))
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
        Some(Taken {
            number,
            kind: ChannelKind::of(number).unwrap(),
            named_by,
        })
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
    fn both_must_name_a_channel() {
        let firmware = Firmware::Leaves(ChannelMask::new(0x71F5));
        let mut channels = Channels::new(TREE, firmware);
        assert_eq!(channels.mask().bits(), 0x71F5);
        assert_eq!(channels.take(&FAST), taken(0, NamedBy::Both));
        assert_eq!(channels.take(&FAST), taken(2, NamedBy::Both));
        assert_eq!(channels.take(&LITE), taken(7, NamedBy::Both));
        assert_eq!(channels.take(&LITE), taken(8, NamedBy::Both));
        assert_eq!(channels.take(&LITE), None, "the firmware keeps 9 and 10");
        assert_eq!(channels.take(&WIDE), taken(12, NamedBy::Both));
    }

    #[test]
    fn a_kind_that_the_firmware_keeps_is_not_taken() {
        let firmware = Firmware::Leaves(ChannelMask::new(0x3C));
        let mut channels = Channels::new(TREE, firmware);
        assert_eq!(channels.mask().bits(), 0x34);
        assert_eq!(channels.take(&FAST), taken(2, NamedBy::Both));
        assert_eq!(channels.take(&LITE), None);
        assert_eq!(channels.take(&WIDE), None);
        let mut channels = Channels::new(TREE, Firmware::Leaves(ChannelMask::new(0)));
        assert_eq!(channels.take(&FAST), None);
    }

    #[test]
    fn qemu_s_answer_leaves_the_tree_to_decide() {
        let firmware = Firmware::Modelled(ChannelMask::new(0x3C));
        let mut channels = Channels::new(TREE, firmware);
        assert_eq!(channels.mask(), TREE);
        assert_eq!(channels.take(&FAST), taken(2, NamedBy::Both));
        assert_eq!(channels.take(&LITE), taken(7, NamedBy::Tree));
        assert_eq!(channels.take(&WIDE), taken(12, NamedBy::Tree));
    }

    #[test]
    fn a_silent_firmware_leaves_the_tree_to_decide() {
        let mut channels = Channels::new(TREE, Firmware::Silent);
        assert_eq!(channels.mask(), TREE);
        assert_eq!(channels.take(&FAST), taken(0, NamedBy::Tree));
        assert_eq!(channels.take(&LITE), taken(7, NamedBy::Tree));
        assert_eq!(channels.take(&WIDE), taken(12, NamedBy::Tree));
    }

    #[test]
    fn what_the_tree_does_not_name_is_never_taken() {
        let firmware = Firmware::Leaves(ChannelMask::new(u32::MAX));
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
