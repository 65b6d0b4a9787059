//! Trace points: defmt frames of level debug when the feature `defmt` is on, nothing otherwise.

#[cfg(feature = "defmt")]
pub(crate) use defmt::debug as trace;

/// Nothing: the feature is off.
#[cfg(not(feature = "defmt"))]
macro_rules! trace {
    ($($argument:tt)*) => {};
}

#[cfg(not(feature = "defmt"))]
pub(crate) use trace;
