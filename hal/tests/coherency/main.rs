//! The library's own code on a machine where every missing operation shows.
//!
//! Right programs are right for every seed, wrong ones are wrong for some, and a right program that
//! loses one operation is a wrong one. `COHERENCY_SEEDS` says under how many adversaries each right
//! program runs: 10,000 in the lane `coherency` of `make test`, which shows the lines that begin with
//! `#`. All that the tests print is shown with `-- --nocapture`.

#![expect(clippy::unwrap_used, reason = "a test stops at what should not be")]

mod blocks;
mod coherent;
mod hazards;
mod sites;
mod streaming;
mod tables;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use hal::testkit::{EventKind, Excuse, Machine, Mutants, Wrong};

/// Adversaries of a run that is not told otherwise.
const SEEDS: u64 = 200;

/// Adversaries that a mutant has to get past.
const SEEDS_PER_MUTANT: u64 = 2_000;

/// A program that runs on a machine.
type Program<'a> = &'a mut dyn FnMut(&Machine) -> Result<(), Wrong>;

/// What is done with each program: its name, its machine, itself.
type Visit<'a> = &'a mut dyn FnMut(&'static str, &Machine, Program<'_>);

/// Operations that nothing misses, by hand.
const EXCUSES: &[Excuse] = &[
    Excuse {
        program: "lines of a loader",
        kind: EventKind::DmbOshst,
        file: "dma/coherent/block.rs",
        which: 0..1,
        reason: "the program stores over the zeros and has a barrier of its own before the doorbell",
    },
    Excuse {
        program: "block in place of a table",
        kind: EventKind::Isb,
        file: "mmu/mapper/place.rs",
        which: 0..1,
        reason: "the call ends with another, and nothing uses the address in between",
    },
    Excuse {
        program: "to non-cacheable",
        kind: EventKind::CleanInvalidate,
        file: "mmu/retype.rs",
        which: 0..64,
        reason: "the lines are maintained again through the new mapping, before anybody uses them",
    },
    Excuse {
        program: "to non-cacheable",
        kind: EventKind::Isb,
        file: "mmu/flush.rs",
        which: 0..1,
        reason: "the call ends with another, and nothing uses the address in between",
    },
    Excuse {
        program: "to write-back",
        kind: EventKind::Isb,
        file: "mmu/flush.rs",
        which: 0..1,
        reason: "the call ends with another, and nothing uses the address in between",
    },
    Excuse {
        program: "retyped in place",
        kind: EventKind::CleanInvalidate,
        file: "mmu/retype.rs",
        which: 0..64,
        reason: "the lines are maintained again through the new mapping, before anybody uses them",
    },
    Excuse {
        program: "retyped in place",
        kind: EventKind::Isb,
        file: "mmu/flush.rs",
        which: 0..2,
        reason: "the call ends with another, and nothing uses the address in between",
    },
    Excuse {
        program: "copy, by interrupt",
        kind: EventKind::Isb,
        file: "dma/engine/submission.rs",
        which: 0..4,
        reason: "an interrupt that is pending is taken a few instructions later",
    },
];

/// All right programs, in groups that have nothing in common.
const GROUPS: [fn(Visit<'_>); 4] = [
    streaming::for_each,
    coherent::for_each,
    blocks::for_each,
    tables::for_each,
];

fn for_each(visit: Visit<'_>) {
    GROUPS.iter().for_each(|group| group(visit));
}

/// `Ok` if something is as it should be.
fn check(is_right: bool, otherwise: &'static str) -> Result<(), Wrong> {
    match is_right {
        true => Ok(()),
        false => Err(Wrong(otherwise)),
    }
}

#[test]
fn right_programs_are_right_for_every_seed() {
    let seeds = match std::env::var("COHERENCY_SEEDS") {
        Ok(seeds) => seeds.parse().expect("COHERENCY_SEEDS is no number"),
        Err(_) => SEEDS,
    };
    let count = AtomicUsize::new(0);
    let run = &|name: &str, machine: &Machine, program: Program<'_>| {
        for seed in 0..seeds {
            let result = machine.run(seed, &mut *program);
            assert_eq!(result, Ok(()), "{name}, seed {seed}");
        }
        count.fetch_add(1, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for group in GROUPS {
            scope.spawn(move || group(&mut |name, machine, program| run(name, machine, program)));
        }
    });
    println!(
        "# {} programs right for {seeds} seeds each",
        count.load(Ordering::Relaxed)
    );
}

#[test]
fn no_mutant_survives() {
    let mut mutants = Mutants::new(EXCUSES);
    for_each(&mut |name, machine, program| {
        mutants.plant(machine, name, SEEDS_PER_MUTANT, program);
    });
    println!("{mutants}");
    assert_eq!(mutants.objections(), Vec::<String>::new());
}

/// What no program issues, no mutant leaves out.
#[test]
fn every_operation_is_in_a_program() {
    let mut issued = BTreeSet::new();
    for_each(&mut |_, machine, program| {
        assert_eq!(machine.run(0, program), Ok(()));
        let sites = machine.events().into_iter().map(|event| event.site);
        issued.extend(sites.map(|site| sites::name(site.file(), site.line())));
    });
    let in_source = sites::in_source();
    assert!(in_source.len() > 20, "{in_source:?}");
    let missed: Vec<_> = in_source.difference(&issued).collect();
    assert!(missed.is_empty(), "no program issues {missed:?}");
}
