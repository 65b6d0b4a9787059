//! The kernel command line.
//!
//! ```text
//! suite=GLOB test=GLOB seed=N iters=N failslab=N|A..B loglevel=0..7 defmt
//! dma.coherent=auto|yes|no dma.debug=yes|no dma.debug_entries=N coherent_pool=SIZE cma=SIZE swiotlb=SIZE exit=semihosting|halt
//! bench[=GLOB] bench.counter=insn|cycles experiment corpus[=GLOB]
//! dmatest.iterations=N dmatest.threads=N dmatest.min_size=SIZE dmatest.max_size=SIZE
//! dmatest.alignment=N dmatest.offsets=on|off|SIZE dmatest.patterns=bits|random|mixed
//! dmatest.memory=kmalloc|coherent|vmalloc|mixed dmatest.polled dmatest.timeout=MS
//! dmatest.channel=GLOB dmatest.noverify
//! ```
//!
//! Words are separated by white space. As on Linux, double quotes keep white space in a value
//! (`test="a b"`, `"test=a b"`) and are not part of it. Numbers are decimal or `0x` hexadecimal,
//! sizes may end in `K`, `M` or `G`.
//!
//! Nothing is ignored silently: [`CmdLine::complaints`] names every word that had no effect, or
//! not the one that was meant. Every key has one row in a table, and a row says whether anything
//! in this build acts on the key.

mod table;
mod words;

use crate::dmatest;
use crate::glob::Glob;
use core::fmt;
use table::{KEYS, Key};
use words::Words;

/// Whether devices snoop the CPUs' caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DmaCoherent {
    /// What the device tree says, then what the board says.
    #[default]
    Auto,
    /// All do.
    Yes,
    /// None does.
    No,
}

/// What happens after the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exit {
    /// The cores stop.
    #[default]
    Halt,
    /// The emulator ends, by a semihosting call. On silicon without a debugger this is a fault.
    Semihosting,
}

/// Allocations of a test that are made to fail one after the other, the test being run once for
/// each: numbers from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failslab {
    /// The first to fail.
    pub first: u32,
    /// The last to fail, not before the first.
    pub last: u32,
}

/// What benchmarks count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BenchCounter {
    /// Instructions: the same in every run under an emulator that counts them.
    #[default]
    Instructions,
    /// Cycles, for silicon.
    Cycles,
}

/// The suite that `experiment` asks for.
const EXPERIMENT: &str = "experiment";

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CmdLine<'a> {
    text: &'a str,
    /// Suites to run; all by default.
    pub suite: Option<Glob<'a>>,
    /// Tests to run, see [`selects`](Self::selects); all by default.
    pub test: Option<Glob<'a>>,
    /// Seed of the random numbers.
    pub seed: Option<u64>,
    /// Rounds of every repeated test, at least one.
    pub iters: Option<u32>,
    /// Which allocations of each test fail; none by default.
    pub failslab: Option<Failslab>,
    /// Linux's `loglevel`, 0 to 7.
    pub loglevel: Option<u8>,
    /// Whether trace frames go out between the lines of text.
    pub defmt: bool,
    /// Whether devices are taken for coherent.
    pub dma_coherent: DmaCoherent,
    /// Whether DMA calls are checked; by default unless benchmarks run.
    pub dma_debug: Option<bool>,
    /// How many mappings the checks can record at a time, at least one.
    pub dma_debug_entries: Option<u32>,
    /// Bytes of the coherent pool, not zero.
    pub coherent_pool: Option<u64>,
    /// Bytes of the default contiguous memory area; 0 for none.
    pub cma: Option<u64>,
    /// Bytes of the bounce pool; 0 for none.
    pub swiotlb: Option<u64>,
    /// Benchmarks to run instead of the suites, or beside those `suite` and `test` name; none by
    /// default.
    pub bench: Option<Glob<'a>>,
    /// What benchmarks count.
    pub bench_counter: BenchCounter,
    /// Whether the experiment is to be run: the suite of that name, alone unless `suite` or `test`
    /// name others.
    pub experiment: bool,
    /// Seeded bugs to run, alone unless something else is named; none by default.
    pub corpus: Option<Glob<'a>>,
    /// What the suite `dmatest` copies.
    pub dmatest: dmatest::Options<'a>,
    /// What happens after the report.
    pub exit: Exit,
}

impl<'a> CmdLine<'a> {
    /// Reads `text`. A word that makes no sense changes nothing; of a repeated key the last
    /// sensible value counts.
    pub fn parse(text: &'a str) -> Self {
        let mut reader = Reader::new(text);
        while reader.next().is_some() {}
        reader.line
    }

    /// What is wrong with the text, word by word.
    pub fn complaints(&self) -> impl Iterator<Item = Complaint<'a>> + use<'a> {
        Reader::new(self.text)
    }

    /// Whether any suite is to be run: not if benchmarks or seeded bugs alone are asked for.
    pub fn wants_suites(&self) -> bool {
        let others = self.bench.is_some() || self.corpus.is_some();
        !others || self.experiment || self.names_tests()
    }

    /// Whether suites or tests are picked by name.
    const fn names_tests(&self) -> bool {
        self.suite.is_some() || self.test.is_some()
    }

    /// Whether DMA calls are to be checked: a benchmark would measure the checks.
    pub fn wants_dma_debug(&self) -> bool {
        self.dma_debug.unwrap_or(self.bench.is_none())
    }

    /// Whether a test is to be run. `name` is its full name, `suite.test`.
    ///
    /// `suite=` is matched with the part before the dot. `test=` is matched with the full name, or,
    /// if the pattern has no dot, with the part after it.
    pub fn selects(&self, name: &str) -> bool {
        let (suite, test) = name.split_once('.').unwrap_or((name, ""));
        if self.experiment && (suite == EXPERIMENT || !self.names_tests()) {
            return suite == EXPERIMENT;
        }
        self.suite.is_none_or(|glob| glob.matches(suite))
            && self.test.is_none_or(|glob| {
                glob.matches(name) || (!glob.as_str().contains('.') && glob.matches(test))
            })
    }
}

/// A word of the command line that did not do what was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint<'a> {
    /// No such key.
    UnknownKey(&'a str),
    /// The value is missing, superfluous or makes no sense; the word was ignored.
    BadValue {
        /// The key.
        key: &'a str,
        /// The value, if there was one.
        value: Option<&'a str>,
        /// What would have been allowed.
        allowed: &'static str,
    },
    /// The word makes sense, but nothing in this build acts on it.
    NotInThisBuild(&'a str),
    /// The key was given before; the last sensible value counts.
    Repeated(&'a str),
    /// The word's closing quote is missing.
    OpenQuote(&'a str),
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnknownKey(key) => write!(f, "unknown key \"{key}\""),
            Self::BadValue {
                key,
                value: Some(value),
                allowed,
            } => write!(f, "{key}: \"{value}\" is not {allowed}"),
            Self::BadValue {
                key,
                value: None,
                allowed,
            } => write!(f, "{key}: needs {allowed}"),
            Self::NotInThisBuild(key) => write!(f, "{key}: not available in this build"),
            Self::Repeated(key) => write!(f, "{key}: given again; the last one counts"),
            Self::OpenQuote(word) => write!(f, "closing quote missing in {word}"),
        }
    }
}

/// Applies word after word and yields the complaints.
struct Reader<'a> {
    words: Words<'a>,
    line: CmdLine<'a>,
    /// Bit n is set once row n of the table was applied.
    seen: u32,
    /// A second complaint about the word before.
    pending: Option<Complaint<'a>>,
}

const _: () = assert!(KEYS.len() <= u32::BITS as usize);

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            words: Words::new(text),
            line: CmdLine {
                text,
                ..CmdLine::default()
            },
            seen: 0,
            pending: None,
        }
    }

    fn apply(&mut self, key: &'a str, value: Option<&'a str>) -> Option<Complaint<'a>> {
        let Some((row, entry)) = KEYS.iter().enumerate().find(|(_, row)| row.is(key)) else {
            return Some(Complaint::UnknownKey(key));
        };
        let Key {
            allowed,
            in_this_build,
            apply,
            ..
        } = entry;
        let mut line = self.line;
        if apply(&mut line, value).is_none() {
            return Some(Complaint::BadValue {
                key,
                value,
                allowed,
            });
        }
        if !in_this_build {
            return Some(Complaint::NotInThisBuild(key));
        }
        self.line = line;
        let bit = 1 << row;
        let again = self.seen & bit != 0;
        self.seen |= bit;
        again.then_some(Complaint::Repeated(key))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Complaint<'a>;

    fn next(&mut self) -> Option<Complaint<'a>> {
        loop {
            if let Some(complaint) = self.pending.take() {
                return Some(complaint);
            }
            let word = self.words.next()?;
            let complaint = self.apply(word.key, word.value);
            if word.is_open {
                self.pending = complaint;
                return Some(Complaint::OpenQuote(word.text));
            }
            if complaint.is_some() {
                return complaint;
            }
        }
    }
}

#[cfg(test)]
mod tests;
