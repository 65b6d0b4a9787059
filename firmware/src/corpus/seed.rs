//! One seed.

use crate::console;
use crate::report::Outcome;
use core::fmt;

/// What must be found, by the name that reports have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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
    Barrier,
    /// The device was given what is no memory.
    Outside,
    /// Instructions are executed that were just written.
    Code,
    /// The device was given the wrong window of its bus.
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
            Self::Barrier => "doorbell-without-barrier",
            Self::Outside => "dma-outside-memory",
            Self::Code => "stale-code",
            Self::Alias => "wrong-bus-alias",
        }
    }
}

/// A bug, or a right twin.
pub(super) struct Seed {
    /// Its name, `device.function`.
    pub(super) name: &'static str,
    /// What must be found; what may follow from it. Empty for a right twin.
    pub(super) kinds: &'static [Kind],
    /// The device, as reports name it; `none` without one.
    pub(super) device: &'static str,
    /// The function it must be found in, or several, by commas.
    pub(super) place: &'static str,
    /// Gets ready, [announces](Self::announce) it, does it, and puts all right again.
    pub(super) run: fn(&Self) -> Outcome,
}

impl Seed {
    /// Says what comes next, in a line that is out when this returns.
    pub(super) fn announce(&self) {
        let Self {
            name,
            device,
            place,
            ..
        } = self;
        let kinds = fmt::from_fn(|f| match self.kinds {
            [] => f.write_str("none"),
            [first, rest @ ..] => {
                f.write_str(first.name())?;
                rest.iter()
                    .try_for_each(|kind| write!(f, ",{}", kind.name()))
            }
        });
        console::line(format_args!(
            "# seed {name} kind={kinds} device={device} place={place}"
        ));
        console::flush();
    }
}

/// Seeds of one device: for each function what must be found in it, nothing for a right twin. `on`
/// calls the function with what it needs.
macro_rules! seeds {
    ($device:literal, $on:expr, $($function:path as $name:ident: [$($kind:ident),*],)*) => {
        &[$($crate::corpus::seed::Seed {
            name: concat!($device, ".", stringify!($name)),
            kinds: &[$($crate::corpus::seed::Kind::$kind),*],
            device: $device,
            place: stringify!($name),
            run: |seed| $on(seed, $function),
        },)*]
    };
}
pub(super) use seeds;
