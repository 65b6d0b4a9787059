//! Boots of whole suites, of misuse and of failure.

use super::matrix::cores_line;
use super::{Boot, Expect};

/// The suites of the allocators, which repeat well: nothing in them waits for a device.
const ALLOCATORS: &str =
    "pages,gfp,zones,slab,kmalloc,vmalloc,kvmalloc,cma,reclaim,ioremap,stress,alloc";

pub(super) fn full() -> Vec<Boot> {
    let cores = |name, smp: u32| {
        let boot = Boot::new(name, &[("SMP", &smp.to_string())]);
        boot.says([cores_line(smp)])
    };
    vec![
        taken_as("no", "", "no").also_says([experiment()]),
        Boot::new("rpi4", &[("BOARD", "rpi4")]).says([experiment()]),
        taken_as("yes", "", "yes"),
        // The tree's own word.
        taken_as("auto", "suite=boot,fw_cfg,coherent", "yes"),
        cores("virt, one core", 1),
        cores("virt, two cores", 2),
        cores("virt, eight cores", 8),
        Boot::new("virt, cma=0", &[("CMDLINE", "cma=0")]),
        Boot::new(
            "virt, cma=16M of 128M",
            &[("MEM", "128M"), ("CMDLINE", "cma=16M")],
        ),
        areas(),
        high_memory(),
        clamping_edu(),
        random_copies(),
        Boot::new(
            "virt, twice with another seed",
            &[("CMDLINE", &format!("suite={ALLOCATORS} iters=2 seed=7"))],
        ),
        Boot::new("virt, defmt", &[("CMDLINE", "suite=boot defmt")]).expect(Expect::Traced),
    ]
}

/// How the experiment must end on both boards, whose devices do not snoop and whose caches nobody
/// sees: a cell that is not seen any more, or seen by less, passes by itself.
fn experiment() -> &'static str {
    "# experiment data=28 structural=46 not-observable=17 missing=0"
}

/// A boot with `dma.coherent=asked`, and what the devices are then taken as.
fn taken_as(asked: &str, suites: &str, taken: &str) -> Boot {
    let cmdline = format!("dma.coherent={asked} {suites}");
    let name = format!("virt, dma.coherent={asked}");
    Boot::new(name, &[("CMDLINE", &cmdline)]).says([
        format!("# dma engine=edu pci=1234:11e8 slot=1 bar0=0x10000000 irq=SPI 4 coherent={taken}"),
        format!("# fw_cfg registers=0x9020000 dma=yes coherent={taken}"),
    ])
}

/// The contiguous areas of `DTB=areas`, one where the tree says, one anywhere and for everybody.
fn areas() -> Boot {
    let settings = [("DTB", "areas"), ("CMDLINE", "suite=boot,pages,zones,cma")];
    Boot::new("virt, areas of the tree", &settings).says([
        "# cma name=camera@48000000 frames=0x48000000..0x49000000 pages=4096 ",
        "# cma name=display frames=0x5c000000..0x60000000 pages=16384 ",
    ])
}

/// Memory beyond what 32-bit addresses reach: the zone that only the largest machines have.
fn high_memory() -> Boot {
    let settings = [
        ("MEM", "8G"),
        ("CMDLINE", "suite=pages,gfp,zones,kmalloc,bounce"),
    ];
    Boot::new("virt, 8G", &settings).says([
        "# asked for NORMAL: zone NORMAL, highest",
        "# engine=edu drives 32 bits: memory above 4 GiB arrives through ",
    ])
}

/// An edu that QEMU was told drives 28 address bits, when its driver takes 40 for granted: it copies
/// elsewhere and reports success.
fn clamping_edu() -> Boot {
    let settings = [("EDU", "dma_mask=0xfffffff"), ("CMDLINE", "suite=fw_cfg")];
    Boot::new("virt, edu with 28 address bits", &settings)
        .says(["# no DMA engine: edu clamps addresses: "])
}

/// Copies as the command line asks for them.
fn random_copies() -> Boot {
    let cmdline = "suite=dmatest seed=7 dmatest.iterations=20 dmatest.threads=2 dmatest.alignment=64 \
                   dmatest.memory=vmalloc dmatest.min_size=64 dmatest.max_size=64K \
                   dmatest.offsets=1K dmatest.patterns=bits dmatest.timeout=60000 \
                   dmatest.channel=e*";
    Boot::new("virt, dmatest by its keys", &[("CMDLINE", cmdline)]).says([
        "# dmatest engine=edu core=0 tests=20 failures=0 ",
        "# dmatest engine=edu core=3 tests=20 failures=0 ",
    ])
}

/// All suites with every object of the slab caches guarded, on both boards.
pub(super) fn debugged() -> Vec<Boot> {
    let boot = |board| {
        let settings = [("BOARD", board)];
        Boot::new(board, &settings)
    };
    ["qemu-virt", "rpi4"].map(boot).to_vec()
}

/// Every test with each of its first 200 allocations failing, inside one boot per board.
pub(super) fn failslab() -> Vec<Boot> {
    let boot = |board| {
        // The Pi, too, counts instructions as time: thousands of runs wait for all cores, and those
        // wait for the host when each is a thread of its own.
        let settings = [
            ("BOARD", board),
            ("ICOUNT", "on"),
            ("CMDLINE", "failslab=1..200"),
            ("TIMEOUT", FAILSLAB_TIMEOUT),
        ];
        Boot::new(format!("{board} failslab=1..200"), &settings)
    };
    ["qemu-virt", "rpi4"].map(boot).to_vec()
}

/// Longest sweep of failing allocations in seconds: several times what it takes on two idle cores.
const FAILSLAB_TIMEOUT: &str = "400";

/// Cores that really run at the same time; without `dma` and `dmatest`, whose many copies wait 100 ms
/// each.
pub(super) fn parallel() -> Vec<Boot> {
    let suites = [
        "boot",
        "pages",
        "gfp",
        "zones",
        "slab",
        "kmalloc",
        "vmalloc",
        "kvmalloc",
        "cma",
        "reclaim",
        "ioremap",
        "stress",
        "alloc",
        "coherent",
        "pool",
        "streaming",
        "sg",
        "bounce",
        "debug",
        "fw_cfg",
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
pub(super) fn payloads() -> Vec<Boot> {
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

/// A run of dmatest that cannot do what it is told.
fn misled(keys: &str) -> Boot {
    let settings = [("CMDLINE", &*format!("suite=dmatest {keys}"))];
    Boot::new(format!("qemu-virt, {keys}"), &settings).expect(Expect::Objection(&[
        "failed, first",
        "dmatest.the_command_line_names_engines_and_lengths",
        "QEMU ended with exit status",
    ]))
}

/// Runs that must not pass: without them a runner that always said yes would look right.
pub(super) fn twins() -> Vec<Boot> {
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
    let mut boots = vec![
        misled("dmatest.channel=nobody"),
        misled("dmatest.min_size=2 dmatest.max_size=1"),
        misled("dmatest.min_size=65 dmatest.max_size=127 dmatest.alignment=64"),
    ];
    for board in ["qemu-virt", "rpi4"] {
        boots.extend([
            twin(
                board,
                "selftest.fail",
                "60",
                &[
                    "failed, first",
                    "selftest.fail",
                    "QEMU ended with exit status",
                ],
            ),
            twin(
                board,
                "selftest.panic",
                "60",
                &["bailed out", "panic", "QEMU ended with exit status"],
            ),
            twin(
                board,
                "selftest.fault",
                "60",
                &["bailed out", "fault", "QEMU ended with exit status"],
            ),
            twin(board, "selftest.hang", "5", &["hang: cut after 5 s"]),
            twin(
                board,
                "no-such-test",
                "60",
                &["failed, first", "selection", "QEMU ended with exit status"],
            ),
        ]);
    }
    boots
}
