//! Copies of random shape, with every engine, from every core: what `dmatest.*` asks for.

use crate::dmatest::client::{Client, Tamper, Why, leave};
use crate::dmatest::contents::Flaw;
use crate::dmatest::{BadOptions, Options};
use crate::glob::Glob;
use crate::machine::machine;
use crate::pattern::Mismatch;
use crate::report::{self, Outcome, Stop, Suite};
use crate::{check, check_ok};
use hal::dma::{DmaEngine, DmaError};
use hal::smp;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "dmatest",
    tests: tests! {
        the_command_line_names_engines_and_lengths: options,
        the_command_line_names_engines_and_lengths_planted: options_planted,
        copies_of_random_shape_arrive: copies,
        a_wrong_byte_is_found_planted: || planted(WRONG),
        a_byte_beside_the_destination_is_found_planted: || planted(BESIDE),
        a_torn_copy_is_found_planted: || planted(TORN),
        a_changed_source_is_found_planted: || planted(SOURCE),
        a_copy_that_takes_too_long_is_counted: too_long,
        polled_copies_arrive: polled,
    },
};

/// The engines that `options` name, with their numbers.
///
/// # Errors
///
/// Skipped on a machine without engines; failed if the options name none of them.
fn channels(
    options: &Options<'_>,
) -> Result<impl Iterator<Item = (usize, &'static dyn DmaEngine)>, Stop> {
    let engines = &machine().engines;
    if engines.is_empty() {
        return Err(Stop::Skipped("no DMA engine"));
    }
    let named = |engine: &dyn DmaEngine| options.names(engine.device().name());
    check!(
        engines.iter().any(|&engine| named(engine)),
        "dmatest.channel={} names none of the engines",
        options.channel.map_or("*", |glob| glob.as_str())
    );
    let all = engines.iter().copied().enumerate();
    Ok(all.filter(move |&(_, engine)| named(engine)))
}

/// Whether the options can be followed on this machine.
fn follow(options: &Options<'_>) -> Outcome {
    for (_, engine) in channels(options)? {
        check_ok!(options.lengths(engine.length_granule()));
    }
    Ok(())
}

fn options() -> Outcome {
    let options = &machine().dmatest;
    follow(options)?;
    let cores = smp::online().count();
    if let Some(threads) = options.threads
        && threads.get() > cores
    {
        report::diagnostic(format_args!(
            "dmatest.threads={threads}: {cores} cores are online, and all submit"
        ));
    }
    report::diagnostic(format_args!("{options}"));
    Ok(())
}

fn options_planted() -> Outcome {
    follow(&Options::default())?;
    let nobody = Options {
        channel: Some(Glob::new("nobody*")),
        ..Options::default()
    };
    check!(
        follow(&nobody) == Err(Stop::Failed),
        "an engine that is not there passes"
    );
    let crossed = Options {
        min_size: 2,
        max_size: 1,
        ..Options::default()
    };
    check!(
        crossed.lengths(1) == Err(BadOptions::Sizes { min: 2, max: 1 })
            && follow(&crossed) == Err(Stop::Failed),
        "a shortest copy longer than the longest passes"
    );
    Ok(())
}

fn copies() -> Outcome {
    run(&machine().dmatest)
}

/// Runs the client as `options` say and reports what became of it, engine by engine. Failures come
/// last: of a test that is run hundreds of times, only the last line is written. Copies that are not
/// compared are none that arrived: that is a skip.
fn run(options: &Options<'_>) -> Outcome {
    let mut outcome = Ok(());
    for (number, engine) in channels(options)? {
        let name = engine.device().name();
        let client = check_ok!(Client::new(number, engine, options));
        let iterations = client.iterations();
        let tallies = check_ok!(client.run());
        for core in smp::online() {
            let tally = &tallies[core];
            let verified = match options.verify {
                true => "",
                false => " not verified",
            };
            report::diagnostic(format_args!(
                "dmatest engine={name} core={core} {tally}{verified}"
            ));
        }
        for core in smp::online() {
            let tally = &tallies[core];
            if let Some(failure) = &tally.failure {
                return report::failed(format_args!("dmatest engine={name} first: {failure}"));
            }
            if let Some(fault) = &tally.refused {
                outcome = report::failed_operation(fault);
            } else {
                check!(
                    tally.tests == iterations,
                    "{} of {iterations} copies were made",
                    tally.tests
                );
            }
        }
    }
    if !options.verify {
        outcome = outcome.and(Err(Stop::Skipped("not verified (dmatest.noverify)")));
    }
    outcome
}

/// A fault and how it must be called.
struct Plant {
    tamper: Tamper,
    is_named: fn(&Flaw) -> bool,
}

/// One byte of the destination.
const WRONG: Plant = Plant {
    tamper: |contents, _, destination| destination[contents.destination()][LEN / 2] ^= 1,
    is_named: |flaw| match flaw {
        Flaw::Destination(Mismatch::Wrong { index, .. }) => *index == LEN / 2,
        _ => false,
    },
};

/// The last byte before the destination.
const BESIDE: Plant = Plant {
    tamper: |contents, _, destination| destination[contents.destination().start - 1] ^= 1,
    is_named: |flaw| {
        matches!(
            flaw,
            Flaw::Destination(Mismatch::CanaryBefore { distance: 1, .. })
        )
    },
};

/// What the engine wrote last is not there.
const TORN: Plant = Plant {
    tamper: |contents, _, destination| contents.tear(destination, LEN - LEN / 4),
    is_named: |flaw| {
        let first = LEN - LEN / 4;
        *flaw
            == Flaw::Destination(Mismatch::Old {
                first,
                count: LEN / 4,
            })
    },
};

/// The first byte behind what was copied.
const SOURCE: Plant = Plant {
    tamper: |contents, source, _| source[contents.source().end] ^= 1,
    is_named: |flaw| matches!(flaw, Flaw::Source { .. }),
};

/// Bytes of each planted copy.
const LEN: usize = 1024;

/// Plants a fault into every copy of one engine: each must be found and called by its name.
fn planted(plant: Plant) -> Outcome {
    let options = Options {
        iterations: 2,
        min_size: LEN,
        max_size: LEN,
        ..Options::default()
    };
    let Some((number, engine)) = channels(&options)?.next() else {
        return Err(Stop::Failed);
    };
    let client = check_ok!(Client::new(number, engine, &options));
    let tally = client.run_here(plant.tamper);
    if let Some(fault) = &tally.refused {
        return report::failed_operation(fault);
    }
    check!(
        tally.failures == tally.tests && tally.tests == client.iterations(),
        "{tally}"
    );
    let Some(failure) = &tally.failure else {
        return Err(Stop::Failed);
    };
    report::diagnostic(format_args!("{failure}"));
    let is_named = match &failure.why {
        Why::Bytes(flaw) => (plant.is_named)(flaw),
        Why::Dma(_) => false,
    };
    check!(is_named, "called by another name");
    Ok(())
}

/// A millisecond for what takes QEMU's edu 200, counted, and the engine copies again.
fn too_long() -> Outcome {
    let mut shown = false;
    for (number, engine) in channels(&machine().dmatest)? {
        let name = engine.device().name();
        let hasty = Options {
            iterations: 1,
            timeout_ms: Some(1),
            ..Options::default()
        };
        let patient = Options {
            timeout_ms: None,
            ..hasty
        };
        let tally = check_ok!(Client::new(number, engine, &hasty)).run_here(leave);
        if let Some(fault) = &tally.refused {
            return report::failed_operation(fault);
        }
        if let Some(failure) = &tally.failure {
            check!(
                tally.timeouts == 1 && matches!(failure.why, Why::Dma(DmaError::Timeout(_))),
                "{name}: {failure}"
            );
            report::diagnostic(format_args!("{failure}"));
            shown = true;
        }
        let tally = check_ok!(Client::new(number, engine, &patient)).run_here(leave);
        if let Some(fault) = &tally.refused {
            return report::failed_operation(fault);
        }
        check!(tally.failures == 0, "{name}, afterwards: {tally}");
    }
    match shown {
        true => Ok(()),
        false => Err(Stop::Skipped(
            "every copy ended within a millisecond (QEMU's Pi model copies at once)",
        )),
    }
}

/// Copies whose end this core looks for, its IRQs masked. Short: it is how drivers copy what is
/// over before a handler would run.
fn polled() -> Outcome {
    let options = Options {
        iterations: 4,
        max_size: 256,
        polled: true,
        ..Options::default()
    };
    for (number, engine) in channels(&machine().dmatest)? {
        let client = check_ok!(Client::new(number, engine, &options));
        let tally = client.run_here(leave);
        if let Some(fault) = &tally.refused {
            return report::failed_operation(fault);
        }
        if let Some(failure) = &tally.failure {
            report::diagnostic(format_args!("{failure}"));
        }
        let name = engine.device().name();
        check!(
            tally.failures == 0 && tally.tests == client.iterations(),
            "{name}: {tally}"
        );
        report::diagnostic(format_args!("dmatest engine={name} polled {tally}"));
    }
    Ok(())
}
