//! Measurements: instructions, or cycles, per operation (`bench`, `bench=GLOB`).
//!
//! Each row is one operation at one size. It is written as a diagnostic line
//! `# bench op=.. size=.. insns=.. max=..`, followed by a result: a row that could not be measured
//! fails, or is skipped with the reason. Nothing is reported before the counter was shown to be
//! right ([`Meter::calibrated`]). `docs/benchmarks.md` says what is counted and how a row is added.
//!
//! Rows run on the core that booted; the others sleep in `WFI` meanwhile. Before each row every
//! core gives back what it keeps at hand, and after it the free memory must be what it was.

mod devices;
mod meter;
mod objects;
mod pages;
mod shape;
mod virt;

use crate::cmdline::CmdLine;
use crate::ledger::Ledger;
use crate::report::{Outcome, Section, Stop, Totals, diagnostic, leaves_no_leak};
use core::fmt;
use meter::Meter;
use shape::{Measured, Sample};

/// An operation, measured at some sizes.
struct Bench {
    /// The operation's name in the report.
    op: &'static str,
    /// Bytes; pages for `vmalloc_pair`, the order for pages, 0 where the row itself says.
    sizes: &'static [usize],
    /// Measures it at one size.
    run: fn(&Meter, usize) -> Measured,
}

const fn bench(
    op: &'static str,
    sizes: &'static [usize],
    run: fn(&Meter, usize) -> Measured,
) -> Bench {
    Bench { op, sizes, run }
}

/// Sizes with a class of their own.
const CLASSES: &[usize] = &[
    8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192,
];
const BATCHED: &[usize] = &[8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
const SPREAD: &[usize] = &[64, 256, 1024, 4096, 8192];

/// Everything that is measured, in the order of the report. A row more is a line more.
const BENCHES: &[Bench] = &[
    bench("kmalloc_pair_const", &[8], objects::pair_const::<8>),
    bench("kmalloc_pair_const", &[64], objects::pair_const::<64>),
    bench("kmalloc_pair_const", &[256], objects::pair_const::<256>),
    bench("kmalloc_pair_const", &[1024], objects::pair_const::<1024>),
    bench("kmalloc_pair_const", &[8192], objects::pair_const::<8192>),
    bench("kmalloc_pair_var", CLASSES, objects::pair_var),
    bench("kmalloc_batch_alloc", BATCHED, objects::batch_alloc),
    bench("kmalloc_batch_free", BATCHED, objects::batch_free),
    bench("kmalloc_mix", &[256, 1024, 8192], objects::mix),
    bench(
        "kmalloc_random_free_alloc",
        &[64],
        objects::random_free_alloc,
    ),
    bench("kmalloc_random_free_free", &[64], objects::random_free_free),
    bench("kmem_cache_bulk", &[192], objects::cache_bulk),
    bench("kmalloc_worst", SPREAD, objects::kmalloc_worst),
    bench("kfree_worst", SPREAD, objects::kfree_worst),
    bench(
        "pages_pair",
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        pages::pair,
    ),
    bench("pages_worst", &[0, 3], pages::worst),
    bench("vmalloc_pair", &[1, 4, 16, 64, 256, 1024], virt::vmalloc),
    bench("kvmalloc_pair", &[1024, 65536, 1 << 20], virt::kvmalloc),
    bench("ioremap_pair", &[4096], virt::ioremap),
    bench("coherent_kernel", &[4096], devices::coherent_kernel),
    bench("coherent_atomic", &[4096], devices::coherent_atomic),
    bench("map_to_device", &[64, 4096], devices::map_to_device),
    bench("map_from_device", &[64, 4096], devices::map_from_device),
    bench("metadata", &[0], pages::metadata),
];

/// One operation at one size.
pub(crate) struct Row {
    bench: &'static Bench,
    size: usize,
}

impl Row {
    /// Whether the command line asks for the row: its pattern is that of the operation or, like a
    /// test's, `bench.operation.size`.
    fn is_selected(&self, cmdline: &CmdLine<'_>) -> bool {
        let mut name = heapless::String::<64>::new();
        cmdline.bench.is_some_and(|glob| {
            // Names are constants and fit.
            let _ = fmt::write(&mut name, format_args!("{self}"));
            glob.matches(self.bench.op) || glob.matches(&name)
        })
    }

    /// Measures the row, writes what came of it, and checks that nothing leaked.
    fn measure(&self, meter: &Meter) -> Outcome {
        let before = Ledger::take();
        meter::settle();
        let Sample { mean, max, size } = (self.bench.run)(meter, self.size)?;
        leaves_no_leak(before)?;
        let (op, unit) = (self.bench.op, meter.unit());
        let size = size.unwrap_or(self.size as u64);
        match max {
            Some(max) => diagnostic(format_args!(
                "bench op={op} size={size} {unit}={mean} max={max}"
            )),
            None => diagnostic(format_args!(
                "bench op={op} size={size} {unit}={mean} max=null"
            )),
        }
        Ok(())
    }
}

/// The row's name as a test: `op.size`.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.bench.op, self.size)
    }
}

/// The rows that `cmdline` selects.
pub(crate) fn rows<'a>(cmdline: &'a CmdLine<'_>) -> impl Iterator<Item = Row> + 'a {
    let all = BENCHES.iter().flat_map(|bench| {
        let sizes = bench.sizes.iter();
        sizes.map(move |&size| Row { bench, size })
    });
    all.filter(|row| row.is_selected(cmdline))
}

/// Measures the rows that `cmdline` selects, as suite number `number`, and adds their results to
/// `totals`.
pub(crate) fn run(number: usize, cmdline: &CmdLine<'_>, totals: &mut Totals) {
    let mut section = Section::open(number, "bench", rows(cmdline).count() + 1);
    meter::settle();
    let meter = Meter::calibrated(cmdline.bench_counter);
    section.result("counter", meter.as_ref().map(drop).map_err(|&stop| stop));
    for row in rows(cmdline) {
        let outcome = match &meter {
            Ok(meter) => row.measure(meter),
            Err(_) => Err(Stop::Skipped("no counter to go by")),
        };
        section.result(row, outcome);
    }
    section.close(totals);
}
