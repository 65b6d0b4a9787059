//! The lanes of `make test`, as data. What a lane does with its row is in [`crate::suite`].

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
    /// A script of this path that counts for itself: its last line is `N passed, N failed`.
    Script(&'static str),
    /// Tests under a nightly toolchain's Miri, skipped where there is none.
    Miri(Check),
    /// The firmware of every board, in both forms.
    Firmware,
    /// Boots under QEMU.
    Boots(Count, Vec<Boot>),
    /// The measurements; each row counts.
    Bench,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The verdict is a pass.
    Pass,
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
            expect: Expect::Pass,
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
}

/// All lanes in the order they run.
pub(crate) fn all() -> Vec<Lane> {
    let lane = |name, work| Lane { name, work };
    vec![
        lane("lint", Work::Checks(lint())),
        lane("host", Work::Tests(vec![HOST_TESTS])),
        lane("fuzz", Work::Tests(vec![FUZZ])),
        lane("loom", Work::Tests(vec![LOOM])),
        lane("miri", Work::Miri(MIRI)),
        lane("sdcard", Work::Script(SDCARD_TEST)),
        lane(BUILD, Work::Firmware),
        lane("matrix", Work::Boots(Count::Boots, matrix())),
        lane("full", Work::Boots(Count::Results, full())),
        lane("bench", Work::Bench),
        lane("failslab", Work::Boots(Count::Results, failslab())),
        lane("parallel", Work::Boots(Count::Boots, parallel())),
        lane("payload", Work::Boots(Count::Boots, payloads())),
        lane("twins", Work::Boots(Count::Boots, twins())),
    ]
}

/// The lane the ones with boots depend on.
pub(crate) const BUILD: &str = "build";

const HOST_TESTS: Check = Check {
    name: "cargo test",
    args: &[
        "test",
        "--target",
        "host-tuple",
        "--workspace",
        "--exclude",
        "hal-loom",
        "--no-fail-fast",
    ],
    env: &[],
};

/// A million random calls of the allocators from a fixed seed.
const FUZZ: Check = Check {
    name: "cargo test, fuzz",
    args: &[
        "test",
        "--target",
        "host-tuple",
        "--package",
        "hal",
        "--profile",
        "fuzz",
        "--test",
        "fuzz",
    ],
    env: &[("FUZZ_CALLS", "1000000"), ("FUZZ_SEED", "24301")],
};

/// The lock-free protocols, whose interleavings take most of their time.
const LOOM: Check = Check {
    name: "cargo test, loom",
    args: &["test", "--target", "host-tuple", "--package", "hal-loom"],
    env: &[],
};

/// Makes a card's folder from an image of its own; needs no network and no card.
const SDCARD_TEST: &str = "tools/sdcard-test.sh";

/// The tests that show Miri the library's pointer work in the least time: addresses, descriptors,
/// free lists, slabs, area trees, device memory and the hand-over between cores. Left out is what
/// only does arithmetic or the same over whole zones. Leaks are ignored: what a kernel sets up once and
/// for ever, its tests leak.
const MIRI: Check = Check {
    name: "cargo miri test",
    args: &[
        "test",
        "--package",
        "hal",
        "--lib",
        "--",
        "addr::",
        "mm::buddy::",
        "mm::frame::",
        "mm::kmalloc::tests::",
        "mm::slab::tests::a_double_free",
        "dma::coherent::tests::",
        "dma::streaming::",
        "smp::tests::a_function_that_hands_over",
        "--skip",
        "mm::kmalloc::tests::kzalloc_clears",
        "--skip",
        "mm::kmalloc::tests::memory_in_pages",
    ],
    env: &[
        (
            "MIRIFLAGS",
            "-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks",
        ),
        ("PROPTEST_CASES", "4"),
    ],
};

fn lint() -> Vec<Check> {
    vec![
        Check {
            name: "cargo fmt",
            args: &["fmt", "--all", "--check"],
            env: &[],
        },
        Check {
            name: "cargo clippy, bare metal",
            args: &[
                "clippy",
                "--release",
                "--workspace",
                "--exclude",
                "runner",
                "--",
                "--deny",
                "warnings",
            ],
            env: &[],
        },
        Check {
            name: "cargo clippy, host",
            args: &[
                "clippy",
                "--target",
                "host-tuple",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ],
            env: &[],
        },
        Check {
            name: "cargo doc, bare metal",
            args: &["doc", "--release", "--no-deps", "--package", "hal"],
            env: &[("RUSTDOCFLAGS", "--deny warnings")],
        },
        Check {
            name: "cargo doc, host",
            args: &[
                "doc",
                "--target",
                "host-tuple",
                "--no-deps",
                "--package",
                "hal",
            ],
            env: &[("RUSTDOCFLAGS", "--deny warnings")],
        },
    ]
}

/// One machine of the boot matrix.
#[derive(Clone, Copy, Debug)]
struct Row {
    el: u32,
    image: &'static str,
    gic: u32,
    mem: &'static str,
    smp: u32,
    cpu: &'static str,
    dtb: &'static str,
    filled: bool,
}

const fn row(
    (el, image, gic): (u32, &'static str, u32),
    (mem, smp, cpu): (&'static str, u32, &'static str),
    (dtb, filled): (&'static str, bool),
) -> Row {
    Row {
        el,
        image,
        gic,
        mem,
        smp,
        cpu,
        dtb,
        filled,
    }
}

/// Every pair of values of two columns that QEMU can combine is in some row; a test checks it.
///
/// A raw image always gets a tree and never starts at EL3, and filling 8 GiB takes too long.
const MATRIX: [Row; 15] = [
    row((1, "elf", 2), ("8G", 2, "max"), ("none", false)),
    row((1, "elf", 2), ("1G", 8, "cortex-a72"), ("none", true)),
    row((1, "elf", 2), ("64M", 2, "cortex-a53"), ("lying", false)),
    row((1, "raw", 3), ("64M", 1, "max"), ("auto", true)),
    row((1, "raw", 3), ("64M", 8, "cortex-a76"), ("auto", false)),
    row((2, "elf", 3), ("8G", 8, "max"), ("truncated", false)),
    row((2, "elf", 2), ("64M", 1, "cortex-a76"), ("none", false)),
    row((2, "raw", 2), ("1G", 8, "cortex-a53"), ("auto", true)),
    row((2, "raw", 2), ("8G", 2, "cortex-a76"), ("auto", false)),
    row((2, "raw", 3), ("8G", 2, "cortex-a72"), ("auto", false)),
    row((3, "elf", 3), ("64M", 1, "cortex-a72"), ("auto", false)),
    row((3, "elf", 3), ("1G", 2, "cortex-a76"), ("lying", true)),
    row((3, "elf", 3), ("8G", 1, "cortex-a53"), ("none", false)),
    row((3, "elf", 2), ("1G", 1, "max"), ("lying", false)),
    row(
        (3, "elf", 2),
        ("64M", 8, "cortex-a72"),
        ("truncated", false),
    ),
];

/// The suites the rows with a command line take turns to run, so that each boot is quick.
const MATRIX_SUITES: [&str; 13] = [
    "boot", "mmu", "pages", "gfp", "zones", "kmalloc", "vmalloc", "kvmalloc", "cma", "reclaim",
    "ioremap", "alloc", "coherent",
];

/// Longest boot of the matrix in seconds.
const MATRIX_TIMEOUT: &str = "20";

fn matrix() -> Vec<Boot> {
    let mut boots: Vec<_> = (0..).zip(&MATRIX).map(|(i, row)| row.boot(i)).collect();
    boots.push(Boot::new(
        "rpi4 without a tree",
        &[
            ("BOARD", "rpi4"),
            ("DTB", "none"),
            ("TIMEOUT", MATRIX_TIMEOUT),
        ],
    ));
    boots
}

impl Row {
    fn boot(&self, index: usize) -> Boot {
        let Self {
            el,
            image,
            gic,
            mem,
            smp,
            cpu,
            dtb,
            filled,
        } = self;
        let level = match el {
            1 => "",
            2 => ",virtualization=on",
            _ => ",secure=on",
        };
        let suite = match *dtb {
            "auto" | "lying" => format!("suite={}", MATRIX_SUITES[index % MATRIX_SUITES.len()]),
            _ => String::new(),
        };
        let ram = if *filled { "on" } else { "off" };
        Boot::new(
            format!("EL{el} {image} GICv{gic} {mem} smp={smp} {cpu} dtb={dtb} fill={ram} {suite}"),
            &[
                ("IMAGE", image),
                ("MEM", mem),
                ("SMP", &smp.to_string()),
                ("DTB", dtb),
                ("RAMFILL", ram),
                ("CMDLINE", &suite),
                ("TIMEOUT", MATRIX_TIMEOUT),
                (
                    "QEMU_EXTRA",
                    &format!("-cpu {cpu} -machine gic-version={gic}{level}"),
                ),
            ],
        )
    }
}

fn full() -> Vec<Boot> {
    vec![
        Boot::new("virt, dma.coherent=no", &[("CMDLINE", "dma.coherent=no")]),
        Boot::new("rpi4", &[("BOARD", "rpi4")]),
        Boot::new("virt, dma.coherent=yes", &[("CMDLINE", "dma.coherent=yes")]),
        Boot::new("virt, one core", &[("SMP", "1")]),
        Boot::new("virt, eight cores", &[("SMP", "8")]),
        Boot::new("virt, cma=0", &[("CMDLINE", "cma=0")]),
        Boot::new(
            "virt, cma=16M of 128M",
            &[("MEM", "128M"), ("CMDLINE", "cma=16M")],
        ),
        Boot::new("virt, defmt", &[("CMDLINE", "suite=boot defmt")]).expect(Expect::Traced),
    ]
}

/// Every test with each of its first 200 allocations failing, inside one boot per board.
fn failslab() -> Vec<Boot> {
    let boot = |board| {
        let settings = [
            ("BOARD", board),
            ("CMDLINE", "failslab=1..200"),
            ("TIMEOUT", FAILSLAB_TIMEOUT),
        ];
        Boot::new(format!("{board} failslab=1..200"), &settings)
    };
    ["qemu-virt", "rpi4"].map(boot).to_vec()
}

/// Longest sweep of failing allocations in seconds: twice what it takes on two idle cores.
const FAILSLAB_TIMEOUT: &str = "120";

/// Cores that really run at the same time; without `dma`, whose engine waits 100 ms a transfer.
fn parallel() -> Vec<Boot> {
    let suites = [
        "boot", "pages", "gfp", "zones", "slab", "kmalloc", "vmalloc", "kvmalloc", "cma",
        "reclaim", "ioremap", "stress", "alloc",
    ];
    suites
        .map(|suite| {
            let cmdline = format!("suite={suite}");
            let settings = [("ICOUNT", "off"), ("SMP", "8"), ("CMDLINE", &cmdline)];
            Boot::new(format!("virt smp=8 {suite}"), &settings)
        })
        .to_vec()
}

/// Sizes around a word, a page and the engines' chunk of at most 4 MiB.
fn payloads() -> Vec<Boot> {
    let sizes = [
        ("qemu-virt", 1),
        ("qemu-virt", 4097),
        ("qemu-virt", (16 << 20) + 3),
        ("rpi4", 5),
        ("rpi4", (4 << 20) + 2),
        ("rpi4", 16 << 20),
    ];
    sizes
        .map(|(board, bytes)| {
            let settings = [("BOARD", board), ("CMDLINE", "test=*payload*")];
            Boot::new(format!("{board}, {bytes} bytes"), &settings).payload(bytes)
        })
        .to_vec()
}

/// Runs that must not pass: without them a runner that always said yes would look right.
fn twins() -> Vec<Boot> {
    let twin = |board, test: &str, timeout, words| {
        Boot::new(
            format!("{board}, {test}"),
            &[
                ("BOARD", board),
                ("CMDLINE", &format!("test={test}")),
                ("TIMEOUT", timeout),
            ],
        )
        .expect(Expect::Objection(words))
    };
    let mut boots = Vec::new();
    for board in ["qemu-virt", "rpi4"] {
        boots.extend([
            twin(
                board,
                "selftest.fail",
                "30",
                &[
                    "failed, first",
                    "selftest.fail",
                    "QEMU ended with exit status",
                ],
            ),
            twin(
                board,
                "selftest.panic",
                "30",
                &["bailed out", "panic", "QEMU ended with exit status"],
            ),
            twin(
                board,
                "selftest.fault",
                "30",
                &["bailed out", "fault", "QEMU ended with exit status"],
            ),
            twin(board, "selftest.hang", "5", &["hang: cut after 5 s"]),
            twin(
                board,
                "no-such-test",
                "30",
                &["failed, first", "selection", "QEMU ended with exit status"],
            ),
        ]);
    }
    boots
}

#[cfg(test)]
mod tests;
