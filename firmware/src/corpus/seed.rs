//! One seed.

use crate::console;
use crate::provocation::{Kind, Kinds};
use crate::report::Outcome;
use core::fmt;

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
        let kinds = match self.kinds {
            [] => &"none" as &dyn fmt::Display,
            kinds => &Kinds(kinds),
        };
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
            kinds: &[$($crate::provocation::Kind::$kind),*],
            device: $device,
            place: stringify!($name),
            run: |seed| $on(seed, $function),
        },)*]
    };
}
pub(super) use seeds;
