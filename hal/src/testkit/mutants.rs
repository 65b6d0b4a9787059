//! Programs without one of the operations they need.

use super::event::{Event, EventKind};
use super::machine::{Machine, Wrong};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Operations that a program may do without, and why they are there all the same.
#[derive(Clone, Debug)]
pub struct Excuse {
    /// The program.
    pub program: &'static str,
    /// What it may do without,
    pub kind: EventKind,
    /// issued in a file whose name ends so.
    pub file: &'static str,
    /// Which of the program's operations of that kind in that file, from 0.
    pub which: Range<usize>,
    /// Why the architecture does not ask for it there.
    pub reason: &'static str,
}

impl Excuse {
    /// Whether an operation is of the kind and the file.
    fn is_about(&self, program: &str, event: &Event) -> bool {
        self.program == program && self.kind == event.kind && event.site.file().ends_with(self.file)
    }
}

/// What became of the mutants of one line of code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    planted: usize,
    killed: usize,
    excused: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.planted += other.planted;
        self.killed += other.killed;
        self.excused += other.excused;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            planted,
            killed,
            excused,
        } = *self;
        let survived = planted - killed - excused;
        write!(
            f,
            "planted {planted:>3}, killed {killed:>3}, survived {survived:>3}, excused {excused:>3}"
        )
    }
}

/// Runs programs without one of their operations, each in turn: those are the mutants. One is
/// killed by a seed under which its program goes wrong.
///
/// The list of mutants grows with the code under test by itself: it is what the code issues.
#[derive(Debug, Default)]
pub struct Mutants {
    /// With how often each was needed.
    excuses: Vec<(Excuse, usize)>,
    rows: BTreeMap<(&'static str, Event), Tally>,
    survivors: Vec<String>,
}

impl Mutants {
    /// No mutants yet. The operations of `excuses` may be left out.
    pub fn new(excuses: &[Excuse]) -> Self {
        Self {
            excuses: excuses.iter().map(|excuse| (excuse.clone(), 0)).collect(),
            ..Self::default()
        }
    }

    /// Runs the mutants of `program` under the adversaries of the first `seeds` seeds, until one
    /// kills it. The mutants of one excuse share those seeds.
    ///
    /// # Panics
    ///
    /// If the program itself goes wrong, or does not recover from a mutant.
    pub fn plant(
        &mut self,
        machine: &Machine,
        name: &'static str,
        seeds: u64,
        mut program: impl FnMut(&Machine) -> Result<(), Wrong>,
    ) {
        if let Err(wrong) = machine.run(0, &mut program) {
            panic!("{name} is wrong by itself: {wrong}");
        }
        // Of each excuse, how many operations it was about.
        let mut met = vec![0; self.excuses.len()];
        for (number, event) in machine.events().into_iter().enumerate() {
            // Under another seed the operation of that number may be another one.
            let mut kills = |seed| {
                let result = machine.run_without(seed, Some(number), &mut program);
                result.is_err() && machine.event(number) == Some(event)
            };
            let mut excuse = None;
            for (candidate, met) in self.excuses.iter_mut().zip(&mut met) {
                if candidate.0.is_about(name, &event) {
                    if candidate.0.which.contains(met) {
                        let index = *met - candidate.0.which.start;
                        excuse = excuse.or(Some((candidate, index)));
                    }
                    *met += 1;
                }
            }
            // The operations of one excuse share the seeds.
            let share = excuse.as_ref().map_or(0..seeds, |(candidate, index)| {
                let share = seeds.div_ceil(candidate.0.which.len() as u64);
                let first = share * *index as u64;
                first..first + share
            });
            let is_killed = share.into_iter().any(&mut kills);
            // One that spoilt the program for good would kill all that come after it.
            if let Err(wrong) = machine.run(0, &mut program) {
                panic!("{name} is wrong after operation {number} was left out: {wrong}");
            }
            let tally = self.rows.entry((name, event)).or_default();
            tally.planted += 1;
            if is_killed {
                tally.killed += 1;
                continue;
            }
            match excuse {
                Some(((_, used), _)) => {
                    *used += 1;
                    tally.excused += 1;
                }
                None => self.survivors.push(format!(
                    "{name}: operation {number}, {} of {}, is not missed",
                    event.kind,
                    event.place()
                )),
            }
        }
    }

    /// The mutants that were neither killed nor excused, and the excuses for another number of
    /// operations than needed one.
    pub fn objections(&self) -> Vec<String> {
        let wrong = self.excuses.iter();
        let wrong = wrong.filter(|(excuse, used)| excuse.which.len() != *used);
        let wrong = wrong.map(|(excuse, used)| {
            let Excuse {
                program,
                kind,
                file,
                which,
                ..
            } = excuse;
            let count = which.len();
            format!("{program}: {kind} of {file} excused {count} times and {used} times needed")
        });
        self.survivors.iter().cloned().chain(wrong).collect()
    }
}

impl fmt::Display for Mutants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = BTreeMap::<EventKind, Tally>::new();
        for ((program, event), tally) in &self.rows {
            let (kind, place) = (event.kind, event.place());
            writeln!(f, "{program:<24} {kind:<10} {tally}  {place}")?;
            kinds.entry(event.kind).or_default().add(*tally);
        }
        for (excuse, used) in &self.excuses {
            let Excuse {
                program,
                kind,
                file,
                reason,
                ..
            } = excuse;
            writeln!(f, "excused {used} of {program}, {kind} in {file}: {reason}")?;
        }
        let mut all = Tally::default();
        for (kind, tally) in &kinds {
            writeln!(f, "# without {kind:<10} {tally}")?;
            all.add(*tally);
        }
        write!(f, "# without any one    {all}")
    }
}
