//! The run: what is asked on the command line, from the first note to the exit.

#[cfg(feature = "bench")]
use crate::bench;
use crate::cmdline::CmdLine;
#[cfg(feature = "seeds")]
use crate::corpus;
use crate::machine::Machine;
use crate::report::{self, Suite, Test, Totals};
use crate::{address_space, console, exit, failslab, suites, trace};

/// Tests that show what a failure looks like; they run only when named.
const SELFTEST: &str = "selftest";

/// Runs what `cmdline` selects and leaves.
pub fn run(machine: &'static Machine, cmdline: &CmdLine<'_>) -> ! {
    describe(machine, cmdline);
    let selected = |suite: &Suite, test: &Test| selects(cmdline, suite, test);
    let chosen = || {
        suites::ALL.iter().filter(|suite| {
            cmdline.wants_suites() && suite.tests.iter().any(|test| selected(suite, test))
        })
    };
    let mut totals = Totals::default();
    let count =
        chosen().count() + usize::from(has_benches(cmdline)) + usize::from(has_seeds(cmdline));
    // A pattern that matches nothing is a mistake, not a success.
    report::plan(count.max(1));
    for (index, suite) in chosen().enumerate() {
        let selected = |test: &Test| selected(suite, test);
        match cmdline.failslab {
            None => {
                let rounds = cmdline.iters.unwrap_or(1);
                report::run_suite(index + 1, suite, rounds, selected, &mut totals);
            }
            Some(range) => failslab::run_suite(index + 1, suite, range, selected, &mut totals),
        }
    }
    #[cfg(feature = "bench")]
    if has_benches(cmdline) {
        let number = count - usize::from(has_seeds(cmdline));
        bench::run(number, cmdline, &mut totals);
    }
    #[cfg(feature = "seeds")]
    if let Some(glob) = cmdline.corpus {
        corpus::run(count, glob, &mut totals);
    }
    if count == 0 {
        report::nothing_selected(&mut totals);
    }
    for line in machine.interrupts.silenced() {
        report::warning(format_args!(
            "{line} was silenced: it stayed raised and nobody served it"
        ));
    }
    match trace::dropped() {
        0 => {}
        lost => report::warning(format_args!(
            "defmt: {lost} frames were too long and are lost"
        )),
    }
    report::end(&totals);
    console::flush();
    exit::leave(totals.failed == 0)
}

/// Whether there is something to measure.
#[cfg(feature = "bench")]
fn has_benches(cmdline: &CmdLine<'_>) -> bool {
    bench::rows(cmdline).next().is_some()
}

#[cfg(not(feature = "bench"))]
const fn has_benches(_: &CmdLine<'_>) -> bool {
    false
}

/// Whether there are seeded bugs to run.
fn has_seeds(cmdline: &CmdLine<'_>) -> bool {
    cfg!(feature = "seeds") && cmdline.corpus.is_some()
}

fn selects(cmdline: &CmdLine<'_>, suite: &Suite, test: &Test) -> bool {
    let named = [&cmdline.suite, &cmdline.test]
        .into_iter()
        .flatten()
        .any(|glob| glob.as_str().starts_with(SELFTEST));
    let mut name = heapless::String::<128>::new();
    // Names are constants; one that does not fit would be found by the first run.
    let fits = core::fmt::write(&mut name, format_args!("{}.{}", suite.name, test.name)).is_ok();
    fits && (suite.name != SELFTEST || named) && cmdline.selects(&name)
}

/// Says what the machine is and what was made of the command line.
fn describe(machine: &Machine, cmdline: &CmdLine<'_>) {
    report::note(format_args!(
        "board={} entry=EL{} image={} seed={:#x}",
        machine.board.name(),
        machine.entry_level,
        machine.image.frames(),
        machine.seed
    ));
    match &machine.tree {
        Ok(_) => report::note(format_args!("memory map from the device tree")),
        Err(fault) => report::warning(format_args!("{fault}; using the board's own memory map")),
    }
    for problem in &machine.description.problems {
        report::warning(format_args!("device tree: {problem}"));
    }
    if machine.description.further_problems > 0 {
        report::warning(format_args!(
            "device tree: {} further problems",
            machine.description.further_problems
        ));
    }
    for ram in machine.map.ram() {
        report::note(format_args!("ram {ram} ({} MiB)", ram.size() >> 20));
    }
    for note in machine.map.notes() {
        report::warning(format_args!("{note}"));
    }
    for reserved in machine.map.reserved() {
        report::note(format_args!("reserved {reserved}"));
    }
    describe_areas(machine, cmdline);
    for absent in &machine.absent_cores {
        report::warning(format_args!("{absent}"));
    }
    report::note(format_args!("cores online={}", hal::smp::online().count()));
    address_space::print(machine.tables);
    for complaint in cmdline.complaints() {
        report::warning(format_args!("command line: {complaint}"));
    }
}

/// The contiguous memory areas, the coherent memory, and the wishes of the device tree and of the command line that could
/// not be met.
fn describe_areas(machine: &Machine, cmdline: &CmdLine<'_>) {
    let areas = hal::mm::cma_areas();
    for area in areas {
        report::note(format_args!("{area}"));
    }
    if let Some((pool, runs)) = hal::dma::coherent::info() {
        report::note(format_args!("{pool}"));
        report::note(format_args!("{runs}"));
    }
    let default = hal::mm::default_cma().map_or(0, |cma| cma.area().frames.size());
    if let Some(asked) = cmdline.cma
        && asked > default
    {
        report::warning(format_args!(
            "cma={asked} cannot be had: the default contiguous memory area has {default} bytes"
        ));
    }
    for node in &machine.description.cma {
        if !areas.iter().any(|area| area.area().name == node.name) {
            report::warning(format_args!(
                "contiguous memory area \"{}\" of the device tree was left out",
                node.name
            ));
        }
    }
}
