//! Transfer directions as types: a wrong use does not compile.

use core::fmt;

mod sealed {
    pub trait Sealed {}
}

/// Who writes and who reads a mapped buffer (`enum dma_data_direction`).
///
/// Implemented by [`ToDevice`], [`FromDevice`] and [`Bidirectional`] only.
pub trait Direction: sealed::Sealed + 'static {
    /// The direction as a value, for reports.
    const KIND: DirectionKind;
}

/// Directions in which the device reads the buffer.
pub trait DeviceReads: Direction {}

/// Directions in which the device writes the buffer.
pub trait DeviceWrites: Direction {}

/// The device reads what the CPU wrote (`DMA_TO_DEVICE`).
#[derive(Clone, Copy, Debug)]
pub enum ToDevice {}

/// The CPU reads what the device wrote (`DMA_FROM_DEVICE`).
#[derive(Clone, Copy, Debug)]
pub enum FromDevice {}

/// The device reads and writes (`DMA_BIDIRECTIONAL`).
#[derive(Clone, Copy, Debug)]
pub enum Bidirectional {}

/// A [`Direction`] as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectionKind {
    /// [`ToDevice`].
    ToDevice,
    /// [`FromDevice`].
    FromDevice,
    /// [`Bidirectional`].
    Bidirectional,
}

impl DirectionKind {
    /// Whether the device reads the buffer.
    #[inline(always)]
    pub const fn device_reads(self) -> bool {
        !matches!(self, Self::FromDevice)
    }

    /// Whether the device writes the buffer.
    #[inline(always)]
    pub const fn device_writes(self) -> bool {
        !matches!(self, Self::ToDevice)
    }
}

impl fmt::Display for DirectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToDevice => "to device",
            Self::FromDevice => "from device",
            Self::Bidirectional => "bidirectional",
        })
    }
}

impl sealed::Sealed for ToDevice {}
impl sealed::Sealed for FromDevice {}
impl sealed::Sealed for Bidirectional {}

impl Direction for ToDevice {
    const KIND: DirectionKind = DirectionKind::ToDevice;
}
impl Direction for FromDevice {
    const KIND: DirectionKind = DirectionKind::FromDevice;
}
impl Direction for Bidirectional {
    const KIND: DirectionKind = DirectionKind::Bidirectional;
}

impl DeviceReads for ToDevice {}
impl DeviceReads for Bidirectional {}
impl DeviceWrites for FromDevice {}
impl DeviceWrites for Bidirectional {}
