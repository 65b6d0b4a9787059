//! The keys: one row each.

use super::{BenchCounter, CmdLine, DmaCoherent, Exit, Failslab};
use crate::dmatest::options::{Kind, MAX_ALIGNMENT, MAX_SIZE, Memory, Offsets, Patterns};
use crate::glob::Glob;
use core::num::NonZeroUsize;
use hal::sync::MAX_CPUS;

/// A key and what it does.
pub(super) struct Key {
    /// The key.
    name: &'static str,
    /// What the value may be, for the user.
    pub(super) allowed: &'static str,
    /// Whether anything in this build acts on the key.
    pub(super) in_this_build: bool,
    /// Checks the value and stores it, or returns `None` if it makes no sense.
    pub(super) apply: Apply,
}

type Apply = for<'a> fn(&mut CmdLine<'a>, Option<&'a str>) -> Option<()>;

const GLOB: &str = "a pattern such as mmu, *.guard* or slab,kmalloc";
const NUMBER: &str = "a number such as 42 or 0x2a";
const COUNT: &str = "a number from 1 to 4294967295";
const SIZE: &str = "a size such as 65536, 64K, 2M or 1G";
const COPY_SIZE: &str = "a size from 1 to 256K";
const RANGE: &str = "a number such as 3, or two such as 1..200";
const FLAG: &str = "allowed: the key takes no value";

/// The most mappings that `dma.debug_entries` may ask for: some 200 MiB of records.
const MAX_DEBUG_ENTRIES: u32 = 1 << 20;

impl Key {
    /// A key this build acts on.
    const fn new(name: &'static str, allowed: &'static str, apply: Apply) -> Self {
        Self {
            name,
            allowed,
            in_this_build: true,
            apply,
        }
    }

    /// A key this build acts on if it has benchmarks.
    const fn bench(name: &'static str, allowed: &'static str, apply: Apply) -> Self {
        Self {
            in_this_build: cfg!(feature = "bench"),
            ..Self::new(name, allowed, apply)
        }
    }

    /// A key this build acts on if it has seeded bugs.
    const fn seeds(name: &'static str, allowed: &'static str, apply: Apply) -> Self {
        Self {
            in_this_build: cfg!(feature = "seeds"),
            ..Self::new(name, allowed, apply)
        }
    }

    /// Whether this is the row of `key`.
    pub(super) fn is(&self, key: &str) -> bool {
        key == self.name
    }
}

/// Every key there is.
pub(super) const KEYS: &[Key] = &[
    Key::new("suite", GLOB, |line, value| {
        line.suite = Some(glob(value)?);
        Some(())
    }),
    Key::new("test", GLOB, |line, value| {
        line.test = Some(glob(value)?);
        Some(())
    }),
    Key::new("seed", NUMBER, |line, value| {
        line.seed = Some(number(value?)?);
        Some(())
    }),
    Key::new("iters", COUNT, |line, value| {
        line.iters = Some(count(value?)?);
        Some(())
    }),
    Key::new("failslab", RANGE, |line, value| {
        line.failslab = Some(range(value?)?);
        Some(())
    }),
    Key::new("loglevel", "a number from 0 to 7", |line, value| {
        let level = number(value?)?;
        line.loglevel = Some(u8::try_from(level).ok().filter(|level| *level <= 7)?);
        Some(())
    }),
    Key::new("defmt", FLAG, |line, value| {
        flag(value)?;
        line.defmt = true;
        Some(())
    }),
    Key::new("dma.coherent", "auto, yes or no", |line, value| {
        line.dma_coherent = match value? {
            "auto" => DmaCoherent::Auto,
            "yes" => DmaCoherent::Yes,
            "no" => DmaCoherent::No,
            _ => return None,
        };
        Some(())
    }),
    Key::new("dma.debug", "yes or no", |line, value| {
        line.dma_debug = Some(match value? {
            "yes" => true,
            "no" => false,
            _ => return None,
        });
        Some(())
    }),
    Key::new(
        "dma.debug_entries",
        "a number from 1 to 1048576",
        |line, value| {
            let entries = u32::try_from(number(value?)?).ok();
            line.dma_debug_entries =
                Some(entries.filter(|entries| (1..=MAX_DEBUG_ENTRIES).contains(entries))?);
            Some(())
        },
    ),
    Key::new("coherent_pool", SIZE, |line, value| {
        line.coherent_pool = Some(size(value?).filter(|&size| size != 0)?);
        Some(())
    }),
    Key::new("cma", SIZE, |line, value| {
        line.cma = Some(size(value?)?);
        Some(())
    }),
    Key::new("swiotlb", SIZE, |line, value| {
        line.swiotlb = Some(size(value?)?);
        Some(())
    }),
    Key::new("exit", "semihosting or halt", |line, value| {
        line.exit = match value? {
            "semihosting" => Exit::Semihosting,
            "halt" => Exit::Halt,
            _ => return None,
        };
        Some(())
    }),
    Key::bench("bench", GLOB, |line, value| {
        line.bench = Some(match value {
            None => Glob::new("*"),
            value => glob(value)?,
        });
        Some(())
    }),
    Key::bench("bench.counter", "insn or cycles", |line, value| {
        line.bench_counter = match value? {
            "insn" => BenchCounter::Instructions,
            "cycles" => BenchCounter::Cycles,
            _ => return None,
        };
        Some(())
    }),
    Key::new("experiment", FLAG, |line, value| {
        flag(value)?;
        line.experiment = true;
        Some(())
    }),
    Key::seeds("corpus", GLOB, |line, value| {
        line.corpus = Some(match value {
            None => Glob::new("*"),
            value => glob(value)?,
        });
        Some(())
    }),
    Key::new("dmatest.iterations", COUNT, |line, value| {
        line.dmatest.iterations = count(value?)?;
        Some(())
    }),
    Key::new("dmatest.threads", "a number from 1 to 8", |line, value| {
        let threads = number(value?)?.try_into().ok();
        let threads = NonZeroUsize::new(threads.filter(|n| *n <= MAX_CPUS)?);
        line.dmatest.threads = Some(threads?);
        Some(())
    }),
    Key::new("dmatest.min_size", COPY_SIZE, |line, value| {
        line.dmatest.min_size = copy_size(value?)?;
        Some(())
    }),
    Key::new("dmatest.max_size", COPY_SIZE, |line, value| {
        line.dmatest.max_size = copy_size(value?)?;
        Some(())
    }),
    Key::new(
        "dmatest.alignment",
        "a power of two from 1 to 64",
        |line, value| {
            let alignment = number(value?)?.try_into().ok();
            line.dmatest.alignment =
                alignment.filter(|n: &usize| n.is_power_of_two() && *n <= MAX_ALIGNMENT)?;
            Some(())
        },
    ),
    Key::new(
        "dmatest.offsets",
        "on, off or a size up to 256K",
        |line, value| {
            line.dmatest.offsets = match value? {
                "on" => Offsets::default(),
                "off" => Offsets::Off,
                bound => Offsets::Within(size(bound)?.try_into().ok().filter(|n| *n <= MAX_SIZE)?),
            };
            Some(())
        },
    ),
    Key::new(
        "dmatest.patterns",
        "bits, random or mixed",
        |line, value| {
            line.dmatest.patterns = match value? {
                "bits" => Patterns::Bits,
                "random" => Patterns::Random,
                "mixed" => Patterns::Mixed,
                _ => return None,
            };
            Some(())
        },
    ),
    Key::new("dmatest.polled", FLAG, |line, value| {
        flag(value)?;
        line.dmatest.polled = true;
        Some(())
    }),
    Key::new("dmatest.timeout", COUNT, |line, value| {
        line.dmatest.timeout_ms = Some(count(value?)?);
        Some(())
    }),
    Key::new("dmatest.channel", GLOB, |line, value| {
        line.dmatest.channel = Some(glob(value)?);
        Some(())
    }),
    Key::new("dmatest.noverify", FLAG, |line, value| {
        flag(value)?;
        line.dmatest.verify = false;
        Some(())
    }),
    Key::new(
        "dmatest.memory",
        "kmalloc, coherent, vmalloc or mixed",
        |line, value| {
            line.dmatest.memory = match value? {
                "kmalloc" => Memory::Only(Kind::Kmalloc),
                "coherent" => Memory::Only(Kind::Coherent),
                "vmalloc" => Memory::Only(Kind::Vmalloc),
                "mixed" => Memory::Mixed,
                _ => return None,
            };
            Some(())
        },
    ),
];

const _: () = assert!(MAX_SIZE == 256 << 10 && MAX_ALIGNMENT == 64 && MAX_CPUS == 8);

fn flag(value: Option<&str>) -> Option<()> {
    value.is_none().then_some(())
}

fn glob(value: Option<&str>) -> Option<Glob<'_>> {
    value.filter(|text| !text.is_empty()).map(Glob::new)
}

/// A decimal or `0x` hexadecimal number.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // The standard library would also take a sign.
    if !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// A number from 1 that fits 32 bits.
fn count(text: &str) -> Option<u32> {
    u32::try_from(number(text)?)
        .ok()
        .filter(|&count| count != 0)
}

/// A number from 1, or two that do not decrease with two dots between them.
fn range(text: &str) -> Option<Failslab> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (count(first)?, count(last)?);
    (first <= last).then_some(Failslab { first, last })
}

/// A number of bytes, KiB, MiB or GiB.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

/// Bytes of a copy.
fn copy_size(text: &str) -> Option<usize> {
    let size = usize::try_from(size(text)?).ok()?;
    (1..=MAX_SIZE).contains(&size).then_some(size)
}
