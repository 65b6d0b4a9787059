//! `make sanitize`: runs under the coherency plugin, and what it found.
//!
//! Without FIRMWARE the firmware of this repository is watched, on one board or on both: its whole run,
//! in which nothing may be found but what it provokes and says so, and the corpus of seeded bugs, each
//! of which must be found. With CMDLINE that one run alone. With FIRMWARE any other kernel image. With
//! PAIRS what it costs.

mod announcement;
mod cells;
mod corpus;
mod findings;
mod foreign;
mod json;
mod options;
mod plugin;
mod rng;
mod slowdown;
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
use findings::Finding;
use json::{Account, Document};
use options::Options;
use rng::Row;
use std::fmt::Write;
use std::path::Path;
use watched::{Watched, watch};

/// The command line of a run of the corpus, with the part of the experiment that a build with seeds
/// provokes. The library's own checks of DMA calls would only repeat what the plugin says.
const CORPUS: &str = "corpus test=h7_barriers dma.debug=no";

/// Longest run in seconds when TIMEOUT is not given: several times what it takes on two busy cores.
const TIMEOUT: &str = "400";

/// The file with what was found.
const DOCUMENT: &str = "sanitize.json";

/// Performs `make sanitize`; `false` means that something was found, or missed.
pub(crate) fn sanitize() -> Result<bool> {
    json::written(&paths::report().join(DOCUMENT), perform)
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
    if asked.cmdline.is_empty() {
        let directory = paths::report().join("sanitize").join("rng");
        let whole = Whole::run(&boards, &options, &directory, "")?;
        return Ok((whole.is_right(), whole.document()));
    }
    let runs = run_all(&boards, false, &options)?;
    show(&runs, "");
    let is_right = runs.iter().all(|run| run.objection.is_none());
    Ok((is_right, with_runs(Document::new(None), &runs)))
}

/// The slow-down on each of `boards`.
fn compare(boards: &[Board], pairs: usize, options: &Options) -> Result<(bool, Document)> {
    let plugin = plugin::build()?;
    firmware::compile(boards, Build::Plain)?;
    let mut is_right = true;
    for &board in boards {
        is_right &= slowdown::compare(&settings(Some(board))?, pairs, options, &plugin)?;
    }
    let objection = (!is_right).then(|| "the plugin is too slow".to_owned());
    Ok((is_right, Document::new(objection)))
}

/// The lane: `make sanitize` of both boards. Counted are seeds, right twins and runs.
pub(crate) fn lane(directory: &Path) -> Result<Counts> {
    json::written(&directory.join(DOCUMENT), || {
        let whole = Whole::run(&Board::ALL, &Options::default(), directory, "  ")?;
        Ok((whole.counts(), whole.document()))
    })
}

/// All that is run where nothing less is asked for: the boards' runs, and a program that shares no code
/// with the firmware, right and with each of its bugs.
struct Whole {
    runs: Vec<Run>,
    /// The program's, if its machine is one of the boards.
    rows: Vec<Row>,
}

impl Whole {
    /// Runs it, and prints what it comes to, each line after `indent`. What the program leaves is in
    /// `directory`.
    fn run(boards: &[Board], options: &Options, directory: &Path, indent: &str) -> Result<Self> {
        let runs = run_all(boards, true, options)?;
        show(&runs, indent);
        let mut rows = Vec::new();
        if boards.contains(&Board::QemuVirt) {
            std::fs::create_dir_all(directory)?;
            rows = rng::judge_all(&plugin::build()?, options, directory)?;
        }
        for row in &rows {
            print_lines(&row.text, indent);
        }
        let whole = Self { runs, rows };
        println!("{indent}{}", whole.sums());
        Ok(whole)
    }

    fn sums(&self) -> Sums {
        let runs = self.runs.iter().map(|run| run.sums);
        let rows = self.rows.iter().map(|row| row.sums);
        runs.chain(rows)
            .fold(Sums::default(), |sums, more| sums + more)
    }

    /// The first of what is wrong with the program's runs.
    fn objection(&self) -> Option<&String> {
        self.rows.iter().find_map(|row| row.objection.as_ref())
    }

    fn is_right(&self) -> bool {
        self.runs.iter().all(|run| run.objection.is_none()) && self.objection().is_none()
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for run in &self.runs {
            let Sums { caught, twins, .. } = run.sums;
            let wrong = run.sums.missed() + run.sums.wrong;
            let is_right = run.objection.is_none();
            // Numbers of lines of a report.
            counts.passed += (caught + twins) as u32 + u32::from(is_right);
            counts.failed += wrong as u32 + u32::from(!is_right && wrong == 0);
        }
        for row in &self.rows {
            counts.passed += u32::from(row.objection.is_none());
            counts.failed += u32::from(row.objection.is_some());
        }
        counts
    }

    fn document(&self) -> Document {
        let document = Document::new(self.objection().cloned());
        with_runs(document.with_corpus(Some(self.sums())), &self.runs)
    }
}

/// Prints what is to be said of `runs`.
fn show(runs: &[Run], indent: &str) {
    for run in runs {
        print_lines(&run.text, indent);
    }
}

fn print_lines(text: &str, indent: &str) {
    for line in text.lines() {
        println!("{indent}{line}");
    }
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

/// `document` with what was found in `runs`.
fn with_runs(mut document: Document, runs: &[Run]) -> Document {
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
