//! `make sanitize`: runs under the coherency plugin, and what it found.
//!
//! Without FIRMWARE the firmware of this repository is watched, on one board or on both: its whole run,
//! in which nothing may be found but what it provokes and says so, and the corpus of seeded bugs, each
//! of which must be found. With CMDLINE that one run alone. With FIRMWARE any other kernel image.

mod cells;
mod corpus;
mod document;
mod findings;
mod foreign;
mod options;
mod plugin;
mod source;
mod watched;

use crate::console::Show;
use crate::firmware::{self, Build, Firmware};
use crate::ktap::Counts;
use crate::paths;
use crate::settings::{Board, Settings};
use anyhow::{Context, Result};
use cells::{Cells, is_provoked};
use corpus::{Judgement, Sums};
use document::Document;
use foreign::Program;
use options::Options;
use std::fmt::Write;
use std::path::Path;
use watched::{Watched, watch};

/// The command line of a run of the corpus. The library's own checks of DMA calls would only repeat
/// what the plugin says.
const CORPUS: &str = "corpus dma.debug=no";

/// Longest run in seconds when TIMEOUT is not given: several times what it takes on two busy cores.
const TIMEOUT: &str = "150";

/// Seeds that the boards have together, at the least.
const SEEDS: usize = 40;

/// Performs `make sanitize`; `false` means that something was found, or missed.
pub(crate) fn sanitize() -> Result<bool> {
    let options = Options::read(environment)?;
    if let Some(path) = environment("FIRMWARE") {
        return foreign::sanitize(Path::new(&path), &options);
    }
    let asked = settings(None)?;
    let boards = match environment("BOARD") {
        Some(_) => vec![asked.board],
        None => Board::ALL.to_vec(),
    };
    let runs = run_all(&boards, asked.cmdline.is_empty(), &options)?;
    for run in &runs {
        print!("{}", run.text);
    }
    let sums = runs
        .iter()
        .fold(Sums::default(), |sums, run| sums + run.sums);
    let is_right = runs.iter().all(|run| run.is_right);
    let has_corpus = asked.cmdline.is_empty();
    write(&runs, has_corpus.then_some(sums), &paths::report())?;
    if has_corpus {
        println!("{sums}");
    }
    Ok(is_right)
}

/// The lane: both boards as by `make sanitize`, and a program that shares no code with the firmware,
/// with a bug and without. Counted are seeds, right twins and runs.
pub(crate) fn lane(directory: &Path) -> Result<Counts> {
    let options = Options::default();
    let runs = run_all(&Board::ALL, true, &options)?;
    let mut counts = Counts::default();
    for run in &runs {
        for line in run.text.lines() {
            println!("  {line}");
        }
        let Sums { caught, twins, .. } = run.sums;
        let wrong = run.sums.missed() + run.sums.wrong;
        // Numbers of lines of a report.
        counts.passed += (caught + twins) as u32 + u32::from(run.is_right);
        counts.failed += wrong as u32 + u32::from(!run.is_right && wrong == 0);
    }
    let sums = runs
        .iter()
        .fold(Sums::default(), |sums, run| sums + run.sums);
    println!("  {sums}");
    if sums.seeded < SEEDS {
        println!("  not ok {} seeds, {SEEDS} are wanted", sums.seeded);
        counts.failed += 1;
    }
    let plugin = plugin::build()?;
    for program in Program::ALL {
        match program.judge(&plugin, &options, directory) {
            Ok(text) => {
                println!("  ok {}: {text}", program.name);
                counts.passed += 1;
            }
            Err(error) => {
                println!("  not ok {}: {error:#}", program.name);
                counts.failed += 1;
            }
        }
    }
    write(&runs, Some(sums), directory)?;
    Ok(counts)
}

fn environment(key: &str) -> Option<String> {
    std::env::var(key).ok().filter(|value| !value.is_empty())
}

/// The settings of the environment, of `board` if one is given.
fn settings(board: Option<Board>) -> Result<Settings> {
    let variable = |key: &str| match (key, board) {
        ("BOARD", Some(board)) => Some(board.name().into()),
        ("TIMEOUT", _) => environment(key).or(Some(TIMEOUT.into())),
        // On the Pi, too: its cores take turns, and some wait by the clock for others to have theirs.
        ("ICOUNT", _) => environment(key).or(Some("on".into())),
        _ => environment(key),
    };
    Ok(Settings::read(Board::QemuVirt, variable)?)
}

/// A run, and whether what was found in it is what must be.
struct Run {
    watched: Watched,
    /// What is to be said of it.
    text: String,
    is_right: bool,
    sums: Sums,
    objection: Option<String>,
}

/// Builds what is needed and runs it: each board on a core of its own.
fn run_all(boards: &[Board], with_corpus: bool, options: &Options) -> Result<Vec<Run>> {
    let plugin = plugin::build()?;
    firmware::compile(boards, Build::Plain)?;
    if with_corpus {
        firmware::compile(boards, Build::SlabDebug)?;
    }
    std::thread::scope(|scope| {
        let start = |&board| {
            let plugin = &plugin;
            scope.spawn(move || run_board(board, with_corpus, options, plugin))
        };
        let threads: Vec<_> = boards.iter().map(start).collect();
        let mut runs = Vec::new();
        for thread in threads {
            let ended = thread.join();
            runs.extend(ended.map_err(|_| anyhow::anyhow!("a board's thread panicked"))??);
        }
        Ok(runs)
    })
}

/// The whole run of a board, and that of the corpus if it is wanted.
fn run_board(
    board: Board,
    with_corpus: bool,
    options: &Options,
    plugin: &Path,
) -> Result<Vec<Run>> {
    let directory = paths::report().join("sanitize").join(board.name());
    let settings = Settings {
        watch: Some(options.watch(plugin, false)),
        ..settings(Some(board))?
    };
    let firmware = Firmware::from_elf(Firmware::path_of(board, Build::Plain))?;
    let plain = watch(
        &settings,
        &firmware,
        &directory.join("plain"),
        Show::Nothing,
    )
    .with_context(|| format!("{board}, the whole run"))?;
    let mut runs = vec![judge_plain(board, plain)];
    if with_corpus {
        let settings = Settings {
            cmdline: CORPUS.into(),
            payload: None,
            ..settings
        };
        let firmware = Firmware::from_elf(Firmware::path_of(board, Build::SlabDebug))?;
        let corpus = watch(
            &settings,
            &firmware,
            &directory.join("corpus"),
            Show::Nothing,
        )
        .with_context(|| format!("{board}, the corpus"))?;
        runs.push(judge_corpus(board, corpus));
    }
    Ok(runs)
}

/// A run of the firmware as it is: nothing may be found but what it provokes.
fn judge_plain(board: Board, watched: Watched) -> Run {
    let objection = watched.objection();
    let list = &watched.findings.list;
    let (provoked, wrong): (Vec<_>, Vec<_>) = list.iter().partition(|found| is_provoked(found));
    let is_right = objection.is_none() && wrong.is_empty();
    let mut text = head(board, "as it is", is_right, &watched, objection.as_deref());
    for finding in &wrong {
        text += &format!("{}\n", finding.in_words());
    }
    let cells = Cells::new(&watched.report, list);
    if !cells.is_empty() {
        let count = provoked.len();
        text += &format!("{count} findings in what the experiment and its kin provoke\n{cells}");
    }
    Run {
        text,
        is_right,
        sums: Sums::default(),
        objection,
        watched,
    }
}

/// A run of the corpus.
fn judge_corpus(board: Board, watched: Watched) -> Run {
    let judgement = Judgement::new(&watched.report, &watched.findings.list);
    let objection = watched.objection().or_else(|| judgement.objection.clone());
    let sums = judgement.sums();
    let is_right = objection.is_none() && sums.missed() == 0 && sums.wrong == 0;
    let mut text = head(board, "corpus", is_right, &watched, objection.as_deref());
    text += &judgement.to_string();
    Run {
        text,
        is_right,
        sums,
        objection,
        watched,
    }
}

/// The first lines about a run.
fn head(
    board: Board,
    what: &str,
    is_right: bool,
    watched: &Watched,
    objection: Option<&str>,
) -> String {
    let verdict = if is_right { "ok" } else { "not ok" };
    let mut text = format!("{verdict} {board}, {what}: {}\n", watched.account());
    if let Some(why) = objection {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {why}");
    }
    text
}

/// Writes what was found in all runs to a file in `directory`.
fn write(runs: &[Run], sums: Option<Sums>, directory: &Path) -> Result<()> {
    let findings = runs.iter().flat_map(|run| &run.watched.findings.list);
    let document = Document {
        findings: findings.collect(),
        corpus: sums.map(Into::into),
        objections: runs
            .iter()
            .filter_map(|run| run.objection.clone())
            .collect(),
    };
    document.write(&directory.join("sanitize.json"))
}
