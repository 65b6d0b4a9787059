//! What cargo and scripts do for the lanes.

use super::{Check, MiriTests};
use std::time::Duration;

pub(super) const HOST_TESTS: Check = Check {
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

/// The debug build of the slab caches, which adds to every call of theirs. This and others below name
/// the runner as well: with it the dependencies have the features that all of the workspace gives
/// them, and are not built anew.
pub(super) const SLAB_DEBUG_TESTS: Check = Check {
    name: "cargo test, slab-debug",
    args: &[
        "test",
        "--target",
        "host-tuple",
        "--package",
        "hal",
        "--package",
        "runner",
        "--features",
        "hal/slab-debug",
        "--lib",
        "--no-fail-fast",
        "--",
        "mm::slab::",
        "mm::kmalloc::",
        "mm::kvmalloc::",
    ],
    env: &[],
};

/// The library's own code on a machine where every missing operation shows. Without optimisation it
/// takes minutes; every check stays on.
pub(super) const COHERENCY_TESTS: Check = Check {
    name: "cargo test, coherency",
    args: &[
        "test",
        "--config",
        OPTIMISED,
        "--target",
        "host-tuple",
        "--package",
        "hal",
        "--package",
        "runner",
        "--features",
        "hal/testkit",
        "--test",
        "coherency",
        "--",
        "--nocapture",
    ],
    env: &[("COHERENCY_SEEDS", "10000")],
};

/// Longest that [`COHERENCY_TESTS`] may run.
pub(super) const COHERENCY_LIMIT: Duration = Duration::from_secs(120);

/// A million random calls of the allocators from a fixed seed. The feature is not needed, but saves
/// building the library anew after [`COHERENCY_TESTS`].
pub(super) const FUZZ: Check = Check {
    name: "cargo test, fuzz",
    args: &[
        "test",
        "--config",
        OPTIMISED,
        "--target",
        "host-tuple",
        "--package",
        "hal",
        "--package",
        "runner",
        "--features",
        "hal/testkit",
        "--test",
        "fuzz",
    ],
    env: &[("FUZZ_CALLS", "1000000"), ("FUZZ_SEED", "24301")],
};

/// The library optimised, and nothing else.
const OPTIMISED: &str = "profile.dev.package.hal.opt-level=2";

/// Longest that [`FUZZ`] may run. It takes 8 s alone and 19 s beside other work on a server of 2023;
/// a slow machine passes, calls that cost eight times as much do not.
pub(super) const FUZZ_LIMIT: Duration = Duration::from_secs(60);

/// The lock-free protocols, whose interleavings take most of their time.
pub(super) const LOOM: Check = Check {
    name: "cargo test, loom",
    args: &["test", "--target", "host-tuple", "--package", "hal-loom"],
    env: &[],
};

/// Makes a card's folder from an image of its own; needs no network and no card.
pub(super) const SDCARD_TEST: &str = "tools/sdcard-test.sh";

/// The tests that show Miri the library's pointer work in the least time: addresses, descriptors,
/// free lists, pages at hand and pages that move, slabs, objects resized, boxes and vectors, device
/// memory and the hand-over between cores. Left out is what only does arithmetic, the same over many
/// pages, or first builds the memory of a whole machine. Leaks are ignored: what a kernel sets up
/// once and for ever, its tests leak. Tags of references are collected rarely, because each time all
/// of the pretended RAM is looked through.
pub(super) const MIRI: MiriTests = MiriTests {
    list: Check {
        name: "cargo test, list",
        args: &[
            "test",
            "--target",
            "host-tuple",
            "--package",
            "hal",
            "--package",
            "runner",
            "--lib",
            "--",
            "--list",
            "--format",
            "terse",
        ],
        env: &[],
    },
    run: Check {
        name: "cargo miri test",
        args: &["test", "--package", "hal", "--lib", "--", "--exact"],
        env: &[
            (
                "MIRIFLAGS",
                "-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks \
                 -Zmiri-provenance-gc=1000000",
            ),
            ("PROPTEST_CASES", "2"),
        ],
    },
    of: &[
        "addr::",
        "alloc::boxed::",
        "alloc::vec::",
        "mm::buddy::",
        "mm::frame::",
        "mm::kmalloc::realloc::tests::krealloc_that_fails",
        "mm::kmalloc::tests::wrong_frees",
        "mm::movable::tests::a_page_keeps",
        "mm::page::tests::at_hand::a_page_at_hand",
        "mm::page::tests::zones::an_empty_dma_zone",
        "mm::pcp::",
        "mm::slab::tests::each_wrong_free",
        "dma::coherent::tests::",
        "dma::streaming::",
        "smp::tests::a_function_that_hands_over",
    ],
    without: &[
        "dma::coherent::tests::machine",
        "dma::streaming::master",
        "mm::frame::tests::garbage",
        "alloc::vec::tests::a_vector_follows",
        "alloc::vec::tests::growth_copies",
    ],
};

pub(super) fn lint() -> Vec<Check> {
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
                "--exclude",
                "coherency",
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
                "--features",
                "hal/testkit",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ],
            env: &[],
        },
        Check {
            name: "cargo clippy, bare metal, slab-debug and seeds",
            args: &[
                "clippy",
                "--release",
                "--package",
                "firmware",
                "--features",
                "slab-debug,seeds",
                "--",
                "--deny",
                "warnings",
            ],
            env: &[],
        },
        Check {
            name: "cargo clippy, host, slab-debug",
            args: &[
                "clippy",
                "--target",
                "host-tuple",
                "--package",
                "hal",
                "--package",
                "runner",
                "--features",
                "hal/slab-debug",
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
                "--features",
                "testkit",
            ],
            env: &[("RUSTDOCFLAGS", "--deny warnings")],
        },
    ]
}
