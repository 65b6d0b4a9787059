//! The corpus: bugs seeded for a tool that watches the machine from outside (`corpus`,
//! `corpus=GLOB`), each beside others that are right.
//!
//! Before each seed one line says what must be found, and where:
//!
//! ```text
//! # seed NAME kind=KIND device=DEVICE place=FUNCTION
//! ```
//!
//! `kind=none` is a right twin: nothing must be found. Of several kinds, by commas, the first must be
//! found, and the others may follow from it. `place` is the function with the access, the maintenance or the
//! doorbell; there may be several. Afterwards memory is put right again, so that a seed sees nothing of the one before.
//!
//! Some seeds drive a device by themselves, past its driver, which is idle meanwhile ([`port`]). Others
//! are the drivers' own code without exactly one operation ([`drivers`]). No seed needs caches: QEMU
//! has none, and every byte arrives.

mod aliases;
mod blocks;
mod code;
mod drivers;
mod ground;
mod letters;
mod port;
mod seed;
mod transfers;

use crate::glob::Glob;
use crate::report::{self, Section, Stop, Totals};
use seed::Seed;

/// Every seed there is, for all boards.
fn all() -> impl Iterator<Item = &'static Seed> {
    let lists = [
        transfers::EDU,
        transfers::FW_CFG,
        transfers::BCM2711,
        blocks::CHANNEL,
        blocks::DESCRIPTOR,
        letters::SEEDS,
        aliases::SEEDS,
        code::SEEDS,
        drivers::EDU,
        drivers::FW_CFG,
        drivers::BCM2711,
        drivers::MAILBOX,
    ];
    lists.into_iter().flatten()
}

/// Runs the seeds that `glob` selects, as suite number `number`, and adds their results to `totals`. A
/// seed of another board's device is skipped. One that is skipped for anything else should have run, and is
/// counted apart.
pub(crate) fn run(number: usize, glob: Glob<'_>, totals: &mut Totals) {
    let chosen = || all().filter(|seed| glob.matches(seed.name));
    let mut section = Section::open(number, "corpus", chosen().count());
    let (mut planted, mut twins, mut elsewhere, mut skipped) = (0, 0, 0, 0);
    for seed in chosen() {
        let outcome = (seed.run)(seed);
        match outcome {
            Err(port::ELSEWHERE) => elsewhere += 1,
            Err(Stop::Skipped(why)) => {
                report::diagnostic(format_args!("skipped {}: {why}", seed.name));
                skipped += 1;
            }
            _ if seed.kinds.is_empty() => twins += 1,
            _ => planted += 1,
        }
        section.result(seed.name, outcome);
    }
    report::diagnostic(format_args!("corpus planted={planted} twins={twins}"));
    report::diagnostic(format_args!(
        "corpus elsewhere={elsewhere} skipped={skipped}"
    ));
    section.close(totals);
}
