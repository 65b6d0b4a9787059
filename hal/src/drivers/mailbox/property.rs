//! What can be asked of the firmware, one type a tag (Linux
//! `include/soc/bcm2835/raspberrypi-firmware.h`).

use super::RevisionCode;
use crate::addr::{PhysAddr, PhysRange};
use crate::drivers::bcm2711_channels::ChannelMask;
use heapless::Vec;

mod sealed {
    pub trait Sealed {}
}

/// Words of the longest question.
pub const QUESTION_WORDS: usize = 3;

/// A tag of the property interface with its question.
///
/// Sealed: among the tags are some that make the firmware write memory or run code.
pub trait Property: sealed::Sealed {
    /// Its number.
    const TAG: u32;
    /// Bytes of values there is room for: what the question or the answer takes.
    const BYTES: usize;
    /// Words of [`question`](Self::question) that are sent.
    const QUESTION_WORDS: usize;
    /// Bytes the answer has at least.
    const ANSWER_BYTES: usize;
    /// What comes back.
    type Answer;

    /// The values sent.
    fn question(&self) -> [u32; QUESTION_WORDS];

    /// Reads an answer of at least [`ANSWER_BYTES`](Self::ANSWER_BYTES); `None` if it answers
    /// something else.
    fn answer(&self, bytes: &[u8]) -> Option<Self::Answer>;
}

/// A clock the firmware controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ClockId {
    /// The SD host controller.
    Emmc = 1,
    /// The PL011 UARTs.
    Uart = 2,
    /// The Arm cores.
    Arm = 3,
    /// The VideoCore, and the bus of the legacy peripherals.
    Core = 4,
    /// The second SD host controller, of the card slot.
    Emmc2 = 12,
}

/// A sensor of temperature: there is one.
const SENSOR: u32 = 0;

/// The first `N` words of an answer.
fn words<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let mut words = bytes
        .chunks_exact(size_of::<u32>())
        .filter_map(|word| word.first_chunk().map(|word| u32::from_le_bytes(*word)));
    let mut first = [0; N];
    for word in &mut first {
        *word = words.next()?;
    }
    Some(first)
}

/// Tags without a question, by what their answer's bytes say.
macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident = $tag:literal: $bytes:literal => $answer:ty, $read:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl sealed::Sealed for $name {}

        impl Property for $name {
            const TAG: u32 = $tag;
            const BYTES: usize = $bytes;
            const QUESTION_WORDS: usize = 0;
            const ANSWER_BYTES: usize = $bytes;
            type Answer = $answer;

            fn question(&self) -> [u32; QUESTION_WORDS] {
                [0; QUESTION_WORDS]
            }

            fn answer(&self, bytes: &[u8]) -> Option<$answer> {
                let read: fn(&[u8]) -> Option<$answer> = $read;
                read(bytes)
            }
        }
    )* };
}

plain! {
    /// When the firmware was built, in seconds since 1970.
    FirmwareRevision = 0x0000_0001: 4 => u32, |bytes| words(bytes).map(|[revision]| revision);
    /// What board it is.
    BoardRevision = 0x0001_0002: 4 => RevisionCode,
        |bytes| words(bytes).map(|[code]| RevisionCode::new(code));
    /// The board's Ethernet address, in the order it is written in.
    MacAddress = 0x0001_0003: 6 => [u8; 6], |bytes| bytes.first_chunk().copied();
    /// The board's serial number; 0 in QEMU.
    Serial = 0x0001_0004: 8 => u64,
        |bytes| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    /// The part of the first GiB of RAM that belongs to the Arm cores.
    ArmMemory = 0x0001_0005: 8 => PhysRange, range;
    /// The part that belongs to the VideoCore.
    VideoCoreMemory = 0x0001_0006: 8 => PhysRange, range;
    /// The DMA channels the firmware leaves to the Arm.
    DmaChannels = 0x0006_0001: 4 => ChannelMask,
        |bytes| words(bytes).map(|[mask]| ChannelMask::new(mask));
    /// A tag that no firmware knows: how refusals look.
    NoSuchTag = 0x000F_FFFF: 4 => (), |_| Some(());
}

/// A range of memory: base and size.
fn range(bytes: &[u8]) -> Option<PhysRange> {
    let [base, size] = words(bytes)?;
    PhysRange::from_size(PhysAddr::new(base.into()), size.into())
}

/// Tags about a numbered thing, whose answer repeats the number before the value.
macro_rules! numbered {
    ($($(#[$doc:meta])* $name:ident$(($id:ty))? = $tag:literal;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name$((pub $id))?;

        impl sealed::Sealed for $name {}

        impl Property for $name {
            const TAG: u32 = $tag;
            const BYTES: usize = 8;
            const QUESTION_WORDS: usize = 1;
            const ANSWER_BYTES: usize = 8;
            type Answer = u32;

            fn question(&self) -> [u32; QUESTION_WORDS] {
                [numbered!(@number self $($id)?), 0, 0]
            }

            fn answer(&self, bytes: &[u8]) -> Option<u32> {
                let [number, value] = words(bytes)?;
                (number == numbered!(@number self $($id)?)).then_some(value)
            }
        }
    )* };
    (@number $self:ident $id:ty) => { $self.0 as u32 };
    (@number $self:ident) => { SENSOR };
}

numbered! {
    /// The rate a clock is set to, in Hz; 0 if there is no such clock.
    ClockRate(ClockId) = 0x0003_0002;
    /// The highest rate it can be set to, in Hz.
    MaxClockRate(ClockId) = 0x0003_0004;
    /// The lowest rate it can be set to, in Hz.
    MinClockRate(ClockId) = 0x0003_0007;
    /// The rate it runs at, in Hz.
    MeasuredClockRate(ClockId) = 0x0003_0047;
    /// The temperature of the SoC in thousandths of a degree Celsius.
    Temperature = 0x0003_0006;
    /// The temperature at which the firmware slows the SoC down, in the same unit.
    MaxTemperature = 0x0003_000A;
}

/// Sets a clock; the answer is the rate the firmware chose, in Hz.
#[derive(Clone, Copy, Debug)]
pub struct SetClockRate {
    /// Which.
    pub clock: ClockId,
    /// The rate wanted, in Hz.
    pub hz: u32,
}

/// In [`SetClockRate`]: leave the turbo setting as the rate demands.
const SET_TURBO: u32 = 0;

impl sealed::Sealed for SetClockRate {}

impl Property for SetClockRate {
    const TAG: u32 = 0x0003_8002;
    const BYTES: usize = 12;
    const QUESTION_WORDS: usize = 3;
    const ANSWER_BYTES: usize = 8;
    type Answer = u32;

    fn question(&self) -> [u32; QUESTION_WORDS] {
        [self.clock as u32, self.hz, SET_TURBO]
    }

    fn answer(&self, bytes: &[u8]) -> Option<u32> {
        let [number, rate] = words(bytes)?;
        (number == self.clock as u32).then_some(rate)
    }
}

/// The command line the firmware was given, of at most `N` bytes. A longer one is
/// [truncated](super::MailboxError::Truncated).
#[derive(Clone, Copy, Debug)]
pub struct CommandLine<const N: usize>;

impl<const N: usize> sealed::Sealed for CommandLine<N> {}

impl<const N: usize> Property for CommandLine<N> {
    const TAG: u32 = 0x0005_0001;
    const BYTES: usize = N;
    const QUESTION_WORDS: usize = 0;
    const ANSWER_BYTES: usize = 0;
    type Answer = Vec<u8, N>;

    fn question(&self) -> [u32; QUESTION_WORDS] {
        [0; QUESTION_WORDS]
    }

    fn answer(&self, bytes: &[u8]) -> Option<Vec<u8, N>> {
        Vec::from_slice(bytes).ok()
    }
}
