//! The lanes of `make test`, as data. What a lane does with its row is in [`crate::suite`].

mod boots;
mod checks;
mod matrix;

use crate::firmware::Build;
use boots::{debugged, failslab, full, parallel, payloads, twins};
use checks::{
    COHERENCY_LIMIT, COHERENCY_TESTS, FUZZ, FUZZ_LIMIT, HOST_TESTS, LOOM, MIRI, SDCARD_TEST,
    SLAB_DEBUG_TESTS, lint,
};
use matrix::matrix;
use std::time::Duration;

/// A named part of `make test`.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Its name in the output and on the command line.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) work: Work,
}

/// The kinds of work.
#[derive(Debug)]
pub(crate) enum Work {
    /// Cargo invocations, each of which passes or fails as a whole.
    Checks(Vec<Check>),
    /// Cargo invocations that run tests; what they count is counted.
    Tests(Vec<Check>),
    /// One such, whose tests may run for so long, compilation left out.
    Timed(Check, Duration),
    /// A script of this path that counts for itself: its last line is `N passed, N failed`.
    Script(&'static str),
    /// Tests under a nightly toolchain's Miri, skipped where there is none. They keep one core busy,
    /// and so does linking the firmware: they run beside the lanes that follow, up to the first that
    /// only boots.
    Miri(MiriTests),
    /// The firmware of every board, in both forms.
    Firmware(Build),
    /// Boots of such firmware under QEMU.
    Boots(Build, Count, Vec<Boot>),
    /// The measurements; each row counts.
    Bench,
    /// Runs under the coherency plugin; each seed counts.
    Sanitize,
}

/// One cargo invocation.
#[derive(Debug)]
pub(crate) struct Check {
    /// Its name in the output.
    pub(crate) name: &'static str,
    /// Cargo's arguments.
    pub(crate) args: &'static [&'static str],
    /// Environment added for it.
    pub(crate) env: &'static [(&'static str, &'static str)],
}

/// Tests of the library that Miri runs. It is given whole names, made from the host build's list: to
/// look for parts of names in hundreds of them takes an interpreter as long as half of the tests.
#[derive(Debug)]
pub(crate) struct MiriTests {
    /// Lists all tests on the host, one in a line.
    pub(crate) list: Check,
    /// Runs those named behind it under Miri.
    pub(crate) run: Check,
    /// How the names of those to run start.
    pub(crate) of: &'static [&'static str],
    /// How the names of those start that are left out.
    pub(crate) without: &'static [&'static str],
}

/// Longest time one cargo invocation may take, compilation from nothing included.
pub(crate) const CHECK_LIMIT: Duration = Duration::from_secs(600);

/// What a lane of boots counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Each boot once.
    Boots,
    /// Each result of each report.
    Results,
}

/// One boot and what must come of it.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    /// Its name in the output.
    pub(crate) name: String,
    /// Settings as the environment would hold them.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Bytes of a payload to make and hand over.
    pub(crate) payload: Option<usize>,
    /// What must come of it.
    pub(crate) expect: Expect,
}

/// What must come of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The verdict is a pass, and for each of these some line of the report starts with it.
    Pass(Vec<String>),
    /// The verdict is a pass and the trace was decoded.
    Traced,
    /// The verdict is no pass, and the sentence saying why holds all these words.
    Objection(&'static [&'static str]),
}

impl Boot {
    fn new(name: impl Into<String>, settings: &[(&'static str, &str)]) -> Self {
        let settings = settings.iter().map(|(key, value)| (*key, (*value).into()));
        Self {
            name: name.into(),
            settings: settings.collect(),
            payload: None,
            expect: Expect::Pass(Vec::new()),
        }
    }

    fn payload(self, bytes: usize) -> Self {
        Self {
            payload: Some(bytes),
            ..self
        }
    }

    fn expect(self, expect: Expect) -> Self {
        Self { expect, ..self }
    }

    /// Lines, or how they start, that the report must have.
    fn says<S: Into<String>>(self, lines: impl IntoIterator<Item = S>) -> Self {
        let lines = lines.into_iter().map(Into::into);
        self.expect(Expect::Pass(lines.collect()))
    }

    /// More of them.
    fn also_says<S: Into<String>>(mut self, lines: impl IntoIterator<Item = S>) -> Self {
        if let Expect::Pass(said) = &mut self.expect {
            said.extend(lines.into_iter().map(Into::into));
        }
        self
    }
}

/// All lanes in the order they run.
pub(crate) fn all() -> Vec<Lane> {
    let lane = |name, work| Lane { name, work };
    let plain = |count, boots| Work::Boots(Build::Plain, count, boots);
    vec![
        lane("lint", Work::Checks(lint())),
        lane("host", Work::Tests(vec![HOST_TESTS, SLAB_DEBUG_TESTS])),
        lane("coherency", Work::Timed(COHERENCY_TESTS, COHERENCY_LIMIT)),
        lane("fuzz", Work::Timed(FUZZ, FUZZ_LIMIT)),
        lane("loom", Work::Tests(vec![LOOM])),
        lane("sdcard", Work::Script(SDCARD_TEST)),
        lane("miri", Work::Miri(MIRI)),
        lane("build", Work::Firmware(Build::Plain)),
        lane("build-debug", Work::Firmware(Build::SlabDebug)),
        lane("bench", Work::Bench),
        lane("matrix", plain(Count::Boots, matrix())),
        lane("full", plain(Count::Results, full())),
        lane("failslab", plain(Count::Results, failslab())),
        lane("parallel", plain(Count::Boots, parallel())),
        lane("payload", plain(Count::Boots, payloads())),
        lane("twins", plain(Count::Boots, twins())),
        lane(
            "slab-debug",
            Work::Boots(Build::SlabDebug, Count::Results, debugged()),
        ),
        lane("sanitize", Work::Sanitize),
    ]
}

#[cfg(test)]
mod tests;
