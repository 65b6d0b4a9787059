use super::words::Word;
use super::*;
use proptest::prelude::*;

fn complaints(text: &str) -> Vec<String> {
    let line = CmdLine::parse(text);
    line.complaints()
        .map(|complaint| complaint.to_string())
        .collect()
}

fn pairs(text: &str) -> Vec<(&str, Option<&str>)> {
    Words::new(text)
        .map(|word| (word.key, word.value))
        .collect()
}

#[test]
fn every_key_of_this_build_sets_its_field() {
    let text = "suite=mmu test=mmu.* seed=0x2A iters=100 failslab=3..9 loglevel=7 defmt \
                dma.coherent=no dma.debug=no dma.debug_entries=64 coherent_pool=2M cma=0 \
                swiotlb=512K bench=kmalloc* bench.counter=cycles experiment exit=semihosting";
    let line = CmdLine::parse(text);
    assert_eq!(
        line,
        CmdLine {
            text,
            suite: Some(Glob::new("mmu")),
            test: Some(Glob::new("mmu.*")),
            seed: Some(42),
            iters: Some(100),
            failslab: Some(Failslab { first: 3, last: 9 }),
            loglevel: Some(7),
            defmt: true,
            dma_coherent: DmaCoherent::No,
            dma_debug: Some(false),
            dma_debug_entries: Some(64),
            coherent_pool: Some(2 << 20),
            cma: Some(0),
            swiotlb: Some(512 << 10),
            bench: Some(Glob::new("kmalloc*")),
            bench_counter: BenchCounter::Cycles,
            corpus: None,
            experiment: true,
            dmatest: dmatest::Options::default(),
            exit: Exit::Semihosting,
        }
    );
    assert_eq!(line.complaints().count(), 0);
}

#[test]
fn nothing_said_means_the_defaults() {
    for text in ["", "  \t\n "] {
        let line = CmdLine::parse(text);
        assert_eq!(CmdLine { text: "", ..line }, CmdLine::default());
        assert_eq!(line.complaints().count(), 0);
    }
}

#[test]
fn numbers_and_sizes() {
    let seed = |text: &str| CmdLine::parse(&format!("seed={text}")).seed;
    assert_eq!(seed("18446744073709551615"), Some(u64::MAX));
    assert_eq!(seed("0XfF"), Some(255));
    for wrong in [
        "",
        "0x",
        "-1",
        "+1",
        "1_000",
        "18446744073709551616",
        "1K",
        "0x+1",
        "ten",
    ] {
        assert_eq!(seed(wrong), None, "{wrong}");
    }
    let pool = |text: &str| CmdLine::parse(&format!("coherent_pool={text}")).coherent_pool;
    for (text, expected) in [
        ("65536", Some(65536)),
        ("64K", Some(65536)),
        ("0x10k", Some(16384)),
        ("1m", Some(1 << 20)),
        ("3G", Some(3 << 30)),
        ("17179869184G", None),
        ("0", None),
        ("0M", None),
        ("M", None),
        ("1T", None),
        ("1KK", None),
        ("1MB", None),
        ("1é", None),
    ] {
        assert_eq!(pool(text), expected, "{text}");
    }
}

#[test]
fn bad_values_are_named_with_what_is_allowed_and_change_nothing() {
    assert_eq!(
        complaints("dma.coherent=maybe iters=0 loglevel=8 exit= seed test= defmt=1 SEED=1"),
        [
            "dma.coherent: \"maybe\" is not auto, yes or no",
            "iters: \"0\" is not a number from 1 to 4294967295",
            "loglevel: \"8\" is not a number from 0 to 7",
            "exit: \"\" is not semihosting or halt",
            "seed: needs a number such as 42 or 0x2a",
            "test: \"\" is not a pattern such as mmu, *.guard* or slab,kmalloc",
            "defmt: \"1\" is not allowed: the key takes no value",
            "unknown key \"SEED\"",
        ]
    );
    let line = CmdLine::parse("iters=5 iters=0 loglevel=3 loglevel=x");
    assert_eq!((line.iters, line.loglevel), (Some(5), Some(3)));
}

#[test]
fn dma_is_checked_unless_benchmarks_run_or_the_line_says_so() {
    let wants = |text| CmdLine::parse(text).wants_dma_debug();
    assert!(wants("") && wants("suite=dma") && wants("bench dma.debug=yes"));
    assert!(!wants("dma.debug=no") && !wants("bench=map*") && !wants("bench suite=dma"));
    assert_eq!(
        complaints("dma.debug=maybe dma.debug_entries=0 dma.debug_entries=1048577"),
        [
            "dma.debug: \"maybe\" is not yes or no",
            "dma.debug_entries: \"0\" is not a number from 1 to 1048576",
            "dma.debug_entries: \"1048577\" is not a number from 1 to 1048576",
        ]
    );
}

#[test]
fn keys_of_other_kernels_are_unknown() {
    assert_eq!(
        complaints("console=ttyAMA0,115200 root=/dev/mmcblk0p2 rootwait -- dma.coherent=yes"),
        [
            "unknown key \"console\"",
            "unknown key \"root\"",
            "unknown key \"rootwait\"",
            "unknown key \"--\"",
        ]
    );
}

#[test]
fn keys_nothing_acts_on_are_reported_after_their_value_was_checked() {
    let missing: &[&str] = match cfg!(feature = "bench") {
        true => &[],
        false => &["bench: not available in this build"],
    };
    assert_eq!(complaints("bench"), missing);
    assert_eq!(
        complaints("bench.counter=time experiment=1 cma dmatest.=1"),
        [
            "bench.counter: \"time\" is not insn or cycles",
            "experiment: \"1\" is not allowed: the key takes no value",
            "cma: needs a size such as 65536, 64K, 2M or 1G",
            "unknown key \"dmatest.\"",
        ]
    );
}

#[test]
fn every_key_of_dmatest_sets_its_field() {
    use dmatest::{Kind, Memory, Offsets, Options, Patterns};

    let text = "dmatest.iterations=100 dmatest.threads=2 dmatest.min_size=64 dmatest.max_size=256K \
                dmatest.alignment=64 dmatest.offsets=1K dmatest.patterns=random dmatest.polled \
                dmatest.timeout=250 dmatest.channel=dma* dmatest.noverify dmatest.memory=vmalloc";
    let line = CmdLine::parse(text);
    assert_eq!(line.complaints().count(), 0);
    assert_eq!(
        line.dmatest,
        Options {
            iterations: 100,
            threads: core::num::NonZeroUsize::new(2),
            min_size: 64,
            max_size: 256 << 10,
            alignment: 64,
            offsets: Offsets::Within(1024),
            patterns: Patterns::Random,
            polled: true,
            timeout_ms: Some(250),
            channel: Some(Glob::new("dma*")),
            verify: false,
            memory: Memory::Only(Kind::Vmalloc),
        }
    );
    let offsets = |text| CmdLine::parse(text).dmatest.offsets;
    assert_eq!(offsets("dmatest.offsets=off"), Offsets::Off);
    assert_eq!(offsets("dmatest.offsets=on"), Offsets::default());
}

#[test]
fn nonsense_for_dmatest_is_named_and_changes_nothing() {
    let text = "dmatest.iterations=0 dmatest.threads=9 dmatest.threads=0 dmatest.min_size=0 \
                dmatest.max_size=257K dmatest.alignment=48 dmatest.alignment=128 \
                dmatest.offsets=257K dmatest.patterns=zeros dmatest.polled=1 dmatest.timeout=0 \
                dmatest.channel= dmatest.noverify=no dmatest.memory=stack dmatest.norandom";
    assert_eq!(
        complaints(text),
        [
            "dmatest.iterations: \"0\" is not a number from 1 to 4294967295",
            "dmatest.threads: \"9\" is not a number from 1 to 8",
            "dmatest.threads: \"0\" is not a number from 1 to 8",
            "dmatest.min_size: \"0\" is not a size from 1 to 256K",
            "dmatest.max_size: \"257K\" is not a size from 1 to 256K",
            "dmatest.alignment: \"48\" is not a power of two from 1 to 64",
            "dmatest.alignment: \"128\" is not a power of two from 1 to 64",
            "dmatest.offsets: \"257K\" is not on, off or a size up to 256K",
            "dmatest.patterns: \"zeros\" is not bits, random or mixed",
            "dmatest.polled: \"1\" is not allowed: the key takes no value",
            "dmatest.timeout: \"0\" is not a number from 1 to 4294967295",
            "dmatest.channel: \"\" is not a pattern such as mmu, *.guard* or slab,kmalloc",
            "dmatest.noverify: \"no\" is not allowed: the key takes no value",
            "dmatest.memory: \"stack\" is not kmalloc, coherent, vmalloc or mixed",
            "unknown key \"dmatest.norandom\"",
        ]
    );
    assert_eq!(CmdLine::parse(text).dmatest, dmatest::Options::default());
}

#[test]
fn failing_allocations_are_one_or_a_range() {
    let range = |text| {
        let parsed = CmdLine::parse(text).failslab;
        parsed.map(|range| (range.first, range.last))
    };
    assert_eq!(range("failslab=3"), Some((3, 3)));
    assert_eq!(range("failslab=1..0x20"), Some((1, 32)));
    assert_eq!(range(""), None);
    for text in [
        "0",
        "x",
        "2..1",
        "1..",
        "..2",
        "0..3",
        "1..2..3",
        "4294967296",
    ] {
        let line = format!("failslab={text}");
        let expected =
            format!("failslab: \"{text}\" is not a number such as 3, or two such as 1..200");
        assert_eq!(complaints(&line), [expected]);
    }
}

#[test]
fn seeded_bugs_are_for_a_build_of_their_own() {
    let (missing, corpus): (&[&str], _) = match cfg!(feature = "seeds") {
        true => (&[], Some(Glob::new("*"))),
        false => (&["corpus: not available in this build"], None),
    };
    assert_eq!(complaints("corpus"), missing);
    let line = CmdLine::parse("corpus");
    assert_eq!(line.corpus, corpus);
    assert_eq!(line.wants_suites(), corpus.is_none());
    assert_eq!(
        complaints("corpus="),
        ["corpus: \"\" is not a pattern such as mmu, *.guard* or slab,kmalloc"]
    );
}

#[test]
fn benchmarks_alone_leave_the_suites_out() {
    for (text, wants_suites) in [
        ("", true),
        ("bench", false),
        ("bench=kmalloc* iters=2", false),
        ("bench suite=mmu", true),
        ("bench test=*", true),
        ("bench.counter=cycles", true),
    ] {
        assert_eq!(CmdLine::parse(text).wants_suites(), wants_suites, "{text}");
    }
    assert_eq!(CmdLine::parse("bench").bench, Some(Glob::new("*")));
    assert_eq!(
        complaints("bench="),
        ["bench: \"\" is not a pattern such as mmu, *.guard* or slab,kmalloc"]
    );
}

#[test]
fn of_a_repeated_key_the_last_value_counts() {
    let line = CmdLine::parse("exit=semihosting exit=halt");
    assert_eq!(line.exit, Exit::Halt);
    let complaints: Vec<_> = line.complaints().collect();
    assert_eq!(complaints, [Complaint::Repeated("exit")]);
}

#[test]
fn quotes_keep_white_space() {
    assert_eq!(
        pairs(" a=\"b c\"\t\"d=e f\" g=h\"i j\"k l "),
        [
            ("a", Some("b c")),
            ("d", Some("e f")),
            ("g", Some("h\"i j\"k")),
            ("l", None),
        ]
    );
    let open = "seed=1 test=\"mmu.* seed=2";
    let line = CmdLine::parse(open);
    assert_eq!(line.seed, Some(1));
    assert_eq!(line.test, Some(Glob::new("mmu.* seed=2")));
    assert_eq!(
        complaints(open),
        ["closing quote missing in test=\"mmu.* seed=2"]
    );
    // A word may be wrong twice.
    assert_eq!(
        complaints("root=\"x"),
        ["closing quote missing in root=\"x", "unknown key \"root\""]
    );
}

#[test]
fn selection() {
    let selects = |text: &str, name: &str| CmdLine::parse(text).selects(name);
    for (text, name, expected) in [
        ("", "mmu.windows", true),
        ("suite=mmu", "mmu.windows", true),
        ("suite=mm", "mmu.windows", false),
        ("suite=m*", "mmu.windows", true),
        ("suite=mmu.windows", "mmu.windows", false),
        ("test=mmu.w*", "mmu.windows", true),
        ("test=windows", "mmu.windows", true),
        ("test=wind.ws", "mmu.windows", false),
        ("suite=dma test=windows", "mmu.windows", false),
        ("suite=mmu test=*guard", "mmu.windows", false),
        ("suite=boot", "boot", true),
    ] {
        assert_eq!(selects(text, name), expected, "{text} {name}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_losing_a_word(text in "\\PC{0,80}|[a-z.= \"0-9KMG]{0,80}") {
        let words: Vec<Word<'_>> = Words::new(&text).collect();
        let joined: String = words.iter().map(|word| word.text).collect();
        let outside: String = joined.split_ascii_whitespace().collect();
        prop_assert_eq!(outside, text.split_ascii_whitespace().collect::<String>());
        prop_assert!(words.iter().rev().skip(1).all(|word| !word.is_open));
        let line = CmdLine::parse(&text);
        prop_assert!(line.complaints().count() <= words.len() + 1);
    }

    #[test]
    fn every_word_either_acts_or_is_complained_about(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "seed=1", "defmt", "root=1", "iters=0", "failslab=0", "exit=halt", "suite=*",
            ]),
            0..12,
        ),
    ) {
        let text = words.join(" ");
        let mut acted = Vec::new();
        let mut expected = 0;
        for word in &words {
            let acts = !["root=1", "iters=0", "failslab=0"].contains(word);
            if acts && !acted.contains(word) {
                acted.push(*word);
            } else {
                expected += 1;
            }
        }
        prop_assert_eq!(CmdLine::parse(&text).complaints().count(), expected);
    }
}

#[test]
fn the_experiment_runs_alone_unless_others_are_named() {
    let runs = |text: &str| {
        let line = CmdLine::parse(text);
        let names = ["experiment.table", "dma.verdict", "boot.levels"];
        names.map(|name| line.wants_suites() && line.selects(name))
    };
    assert_eq!(runs(""), [true, true, true]);
    assert_eq!(runs("experiment"), [true, false, false]);
    assert_eq!(runs("experiment suite=dma"), [true, true, false]);
    assert_eq!(runs("suite=dma"), [false, true, false]);
    assert_eq!(runs("experiment bench"), [true, false, false]);
}
