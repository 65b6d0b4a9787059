//! `make sanitize`: runs under the coherency plugin, and what it found.
//!
//! Without FIRMWARE the firmware of this repository is watched, on one board or on both: its whole run,
//! in which nothing may be found but what it provokes and says so, and the corpus of seeded bugs, each
//! of which must be found. With CMDLINE that one run alone. With FIRMWARE any other kernel image. With
//! PAIRS what it costs.

mod announcement;
mod cells;
mod corpus;
mod document;
mod findings;
mod foreign;
mod options;
mod pairs;
mod plugin;
mod program;
mod source;
mod watched;

use crate::console::Show;
use crate::firmware::{self, Build, Firmware};
use crate::ktap::Counts;
use crate::paths;
use crate::settings::{Board, Settings};
use announcement::is_provoked;
use anyhow::{Context, Result};
use cells::{Cells, Extent};
use corpus::{Judgement, Sums};
use document::{Account, Document};
use findings::Finding;
use options::Options;
use std::fmt::Write;
use std::path::Path;
use watched::{Watched, watch};

/// The command line of a run of the corpus, with the part of the experiment that a build with seeds
/// provokes. The library's own checks of DMA calls would only repeat what the plugin says.
const CORPUS: &str = "corpus test=h7_barriers dma.debug=no";

/// Longest run in seconds when TIMEOUT is not given: several times what it takes on two busy cores.
const TIMEOUT: &str = "150";

/// The file with what was found.
const DOCUMENT: &str = "sanitize.json";

/// Performs `make sanitize`; `false` means that something was found, or missed.
pub(crate) fn sanitize() -> Result<bool> {
    document::written(&paths::report().join(DOCUMENT), perform)
}

/// The same, without its file.
fn perform() -> Result<(bool, Document)> {
    let options = Options::read(environment)?;
    if let Some(path) = environment("FIRMWARE") {
        return foreign::sanitize(Path::new(&path), &options);
    }
    let asked = settings(None)?;
    let boards = match environment("BOARD") {
        Some(_) => vec![asked.board],
        None => Board::ALL.to_vec(),
    };
    if let Some(pairs) = options.pairs {
        return compare(&boards, pairs, &options);
    }
    let runs = run_all(&boards, asked.cmdline.is_empty(), &options)?;
    for run in &runs {
        print!("{}", run.text);
    }
    let sums = runs
        .iter()
        .fold(Sums::default(), |sums, run| sums + run.sums);
    let is_right = runs.iter().all(|run| run.objection.is_none());
    let has_corpus = asked.cmdline.is_empty();
    if has_corpus {
        println!("{sums}");
    }
    Ok((is_right, document(&runs, has_corpus.then_some(sums))))
}

/// The slow-down on each of `boards`.
fn compare(boards: &[Board], pairs: usize, options: &Options) -> Result<(bool, Document)> {
    let plugin = plugin::build()?;
    firmware::compile(boards, Build::Plain)?;
    let mut is_right = true;
    for &board in boards {
        is_right &= pairs::compare(&settings(Some(board))?, pairs, options, &plugin)?;
    }
    let objection = (!is_right).then(|| "the plugin is too slow".to_owned());
    Ok((is_right, Document::new(objection)))
}

/// The lane: both boards as by `make sanitize`, and a program that shares no code with the firmware,
/// right and with each of its bugs. Counted are seeds, right twins and runs.
pub(crate) fn lane(directory: &Path) -> Result<Counts> {
    document::written(&directory.join(DOCUMENT), || judge_lane(directory))
}

/// The same, without its file.
fn judge_lane(directory: &Path) -> Result<(Counts, Document)> {
    let options = Options::default();
    let runs = run_all(&Board::ALL, true, &options)?;
    let mut counts = Counts::default();
    for run in &runs {
        for line in run.text.lines() {
            println!("  {line}");
        }
        let Sums { caught, twins, .. } = run.sums;
        let wrong = run.sums.missed() + run.sums.wrong;
        let is_right = run.objection.is_none();
        // Numbers of lines of a report.
        counts.passed += (caught + twins) as u32 + u32::from(is_right);
        counts.failed += wrong as u32 + u32::from(!is_right && wrong == 0);
    }
    let mut sums = runs
        .iter()
        .fold(Sums::default(), |sums, run| sums + run.sums);
    let plugin = plugin::build()?;
    for row in program::judge_all(&plugin, &options, directory)? {
        for line in row.text.lines() {
            println!("  {line}");
        }
        sums = sums + row.sums;
        counts.passed += u32::from(row.is_right);
        counts.failed += u32::from(!row.is_right);
    }
    match program::judge_threads(&plugin, &options, directory) {
        Ok(()) => {
            println!("  ok several threads are refused");
            counts.passed += 1;
        }
        Err(error) => {
            println!("  not ok {error:#}");
            counts.failed += 1;
        }
    }
    println!("  {sums}");
    Ok((counts, document(&runs, Some(sums))))
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
    board: Board,
    name: &'static str,
    watched: Watched,
    /// Whether each finding was announced.
    announced: Vec<bool>,
    /// What is to be said of it.
    text: String,
    sums: Sums,
    /// The first of what is wrong with it.
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
    let extent = match with_corpus {
        true => Extent::Whole,
        false => Extent::Part,
    };
    let mut runs = vec![judge_plain(board, plain, extent)];
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

/// A run of the firmware as it is: nothing may be found but what it provokes, and that must be.
fn judge_plain(board: Board, watched: Watched, extent: Extent) -> Run {
    let list = &watched.findings.list;
    let announced: Vec<_> = list.iter().map(is_provoked).collect();
    let wrong = list.iter().filter(|found| !is_provoked(found));
    let wrong: Vec<_> = wrong.map(Finding::in_words).collect();
    let cells = Cells::new(&watched.report, list, extent);
    let mut objections: Vec<_> = watched.objection().into_iter().collect();
    objections.extend(cells.objections.iter().cloned());
    if !wrong.is_empty() {
        objections.push(format!("{} findings that were not announced", wrong.len()));
    }
    let mut text = head(board, "as it is", &watched, &objections);
    for finding in &wrong {
        text += &format!("{finding}\n");
    }
    if !cells.is_empty() {
        let count = announced
            .iter()
            .filter(|is_announced| **is_announced)
            .count();
        text += &format!("{count} findings in what the experiment and its kin provoke\n{cells}");
    }
    Run {
        board,
        name: "plain",
        announced,
        text,
        sums: Sums::default(),
        objection: objections.into_iter().next(),
        watched,
    }
}

/// A run of the corpus, and of what else only a build with seeds provokes.
fn judge_corpus(board: Board, watched: Watched) -> Run {
    let list = &watched.findings.list;
    let cells = Cells::new(&watched.report, list, Extent::Seeds);
    // What is announced as a cell and was not to be found is none of the seeds' either.
    let seeded = list.iter().filter(|found| !is_provoked(found));
    let judgement = Judgement::new(board, &watched.report, seeded);
    let sums = judgement.sums();
    let mut objections: Vec<_> = watched.objection().into_iter().collect();
    objections.extend(judgement.objection.clone());
    objections.extend(cells.objections.iter().cloned());
    if sums.missed() != 0 || sums.wrong != 0 {
        objections.push(sums.to_string());
    }
    let mut text = head(board, "corpus", &watched, &objections);
    text += &format!("{judgement}{cells}");
    Run {
        board,
        name: "corpus",
        announced: list.iter().map(|found| judgement.expects(found)).collect(),
        text,
        sums,
        objection: objections.into_iter().next(),
        watched,
    }
}

/// The first lines about a run.
fn head(board: Board, what: &str, watched: &Watched, objections: &[String]) -> String {
    let verdict = match objections {
        [] => "ok",
        _ => "not ok",
    };
    let mut text = format!("{verdict} {board}, {what}: {}\n", watched.account());
    for why in objections {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {why}");
    }
    text
}

/// What was found in all runs.
fn document(runs: &[Run], sums: Option<Sums>) -> Document {
    let mut document = Document::new(None).with_corpus(sums);
    for run in runs {
        let findings = run.watched.findings.list.iter();
        document.add(Account {
            board: run.board,
            run: run.name,
            objection: run.objection.clone(),
            work: run.watched.work(),
            findings: findings.zip(run.announced.iter().copied()).collect(),
        });
    }
    document
}

#[cfg(test)]
mod tests;
