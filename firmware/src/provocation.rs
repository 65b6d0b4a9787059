//! What is done wrong on purpose, announced to a tool that watches the machine from outside.
//!
//! ```text
//! # cell WHAT wrong=KIND[,KIND] place=FUNCTION[,FUNCTION]
//! # cell end
//! ```
//!
//! Between the two lines is what is wrong and as little else as can be. The first of the kinds must be found, in
//! one of the functions; the others may follow from it. Nothing else may be, nor anything elsewhere.

use crate::report;
use core::fmt;

/// What must be found, by the name that reports have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The device reads a line that is dirty in a cache.
    ReadsDirty,
    /// The device writes a line that is dirty in a cache.
    WritesDirty,
    /// The CPU loads what it had cached before the device wrote.
    Stale,
    /// The CPU touches what the device is working on.
    Touched,
    /// Memory is accessed as two types.
    Mismatched,
    /// Dirty bytes are dropped that the device did not write.
    Neighbour,
    /// Nothing orders the doorbell behind what the device is to find.
    #[cfg(feature = "seeds")]
    Barrier,
    /// The device was given what is no memory.
    #[cfg(feature = "seeds")]
    Outside,
    /// Instructions are executed that were just written.
    #[cfg(feature = "seeds")]
    Code,
    /// The device was given the wrong window of its bus.
    #[cfg(feature = "seeds")]
    Alias,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::ReadsDirty => "device-reads-dirty-line",
            Self::WritesDirty => "device-writes-dirty-line",
            Self::Stale => "stale-read",
            Self::Touched => "touched-while-owned",
            Self::Mismatched => "mismatched-attributes",
            Self::Neighbour => "invalidate-destroys-neighbour",
            #[cfg(feature = "seeds")]
            Self::Barrier => "doorbell-without-barrier",
            #[cfg(feature = "seeds")]
            Self::Outside => "dma-outside-memory",
            #[cfg(feature = "seeds")]
            Self::Code => "stale-code",
            #[cfg(feature = "seeds")]
            Self::Alias => "wrong-bus-alias",
        }
    }
}

/// Several kinds, by commas.
pub(crate) struct Kinds<'a>(pub(crate) &'a [Kind]);

impl fmt::Display for Kinds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, kind) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", kind.name())?;
        }
        Ok(())
    }
}

/// Where an engine of either board is started.
pub(crate) const DOORBELL: &str = "edu::Inner::start_step,LegacyRegisters::start";

/// What is wrong, and the functions in which it is seen, by commas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrong<'a> {
    pub(crate) kinds: &'a [Kind],
    pub(crate) place: &'a str,
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrong={} place={}", Kinds(self.kinds), self.place)
    }
}

/// Something that is wrong on purpose, as long as it lives.
#[derive(Debug)]
pub(crate) struct Provoked(());

impl Provoked {
    /// Announces `wrong` of `what`. Until it is dropped nothing is printed.
    pub(crate) fn begin(what: fmt::Arguments<'_>, wrong: Wrong<'_>) -> Self {
        report::announce(format_args!("# cell {what} {wrong}"));
        Self(())
    }

    /// As [`begin`](Self::begin), of the twin that must be found for the others to count.
    pub(crate) fn begin_planted(what: fmt::Arguments<'_>, wrong: Wrong<'_>) -> Self {
        report::announce(format_args!("# cell {what} {wrong} planted"));
        Self(())
    }
}

impl Drop for Provoked {
    fn drop(&mut self) {
        report::announce(format_args!("# cell end"));
    }
}
