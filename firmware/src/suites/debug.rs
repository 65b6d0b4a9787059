//! The checks of DMA calls: each mistake made by the calls of C drivers, and reported with what was
//! done, what was mapped, and where. Its twin does the same rightly, and nothing is reported.

/// The value of an expression on one line that makes a call, or will, and where the call is.
macro_rules! here {
    ($call:expr) => {
        ($call, $crate::suites::debug::At(file!(), line!()))
    };
}

mod frees;
mod maps;
mod syncs;
mod table;

use crate::check;
use crate::dma_debug;
use crate::report::{Outcome, Stop, Suite};
use hal::addr::DmaAddr;
use hal::dma::debug::{self, Call, Check, Kind, Report};
use hal::dma::direction::DirectionKind;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "debug",
    tests: tests! {
        typed_lives_are_silent: || with(frees::typed, Twin::Right),
        what_is_mapped_is_unmapped: || with(frees::unallocated, Twin::Right),
        what_is_mapped_is_unmapped_planted: || with(frees::unallocated, Twin::Planted),
        it_is_unmapped_once: || with(frees::twice, Twin::Right),
        it_is_unmapped_once_planted: || with(frees::twice, Twin::Planted),
        failed_maps_are_not_used: || with(frees::error, Twin::Right),
        failed_maps_are_not_used_planted: || with(frees::error, Twin::Planted),
        maps_are_checked_for_errors: || with(frees::unchecked, Twin::Right),
        maps_are_checked_for_errors_planted: || with(frees::unchecked, Twin::Planted),
        the_size_is_the_mapped_one: || with(frees::size, Twin::Right),
        the_size_is_the_mapped_one_planted: || with(frees::size, Twin::Planted),
        the_function_fits_the_mapping: || with(frees::function, Twin::Right),
        the_function_fits_the_mapping_planted: || with(frees::function, Twin::Planted),
        the_direction_is_the_mapped_one: || with(frees::direction, Twin::Right),
        the_direction_is_the_mapped_one_planted: || with(frees::direction, Twin::Planted),
        lists_are_unmapped_whole: || with(frees::sg_count, Twin::Right),
        lists_are_unmapped_whole_planted: || with(frees::sg_count, Twin::Planted),
        coherent_memory_is_freed_as_it_was_given: || with(frees::coherent, Twin::Right),
        coherent_memory_is_freed_as_it_was_given_planted: || with(frees::coherent, Twin::Planted),
        no_stack_is_mapped: || with(maps::stack, Twin::Right),
        no_stack_is_mapped_planted: || with(maps::stack, Twin::Planted),
        no_text_and_no_constants_are_mapped: || with(maps::read_only, Twin::Right),
        no_text_and_no_constants_are_mapped_planted: || with(maps::read_only, Twin::Planted),
        no_vmalloc_memory_is_mapped: || with(maps::vmalloc, Twin::Right),
        no_vmalloc_memory_is_mapped_planted: || with(maps::vmalloc, Twin::Planted),
        no_invalid_memory_is_mapped: || with(maps::invalid, Twin::Right),
        no_invalid_memory_is_mapped_planted: || with(maps::invalid, Twin::Planted),
        segments_are_no_longer_than_the_device_takes: || with(maps::sg_too_long, Twin::Right),
        segments_are_no_longer_than_the_device_takes_planted: || with(maps::sg_too_long, Twin::Planted),
        segments_cross_no_boundary: || with(maps::sg_boundary, Twin::Right),
        segments_cross_no_boundary_planted: || with(maps::sg_boundary, Twin::Planted),
        no_line_is_shared_with_a_writer: || with(maps::overlap, Twin::Right),
        no_line_is_shared_with_a_writer_planted: || with(maps::overlap, Twin::Planted),
        no_bytes_are_bounced_twice: || with(maps::bounced, Twin::Right),
        no_bytes_are_bounced_twice_planted: || with(maps::bounced, Twin::Planted),
        devices_that_snoop_may_share_lines: || with(maps::snooped, Twin::Right),
        devices_that_snoop_may_share_lines_planted: || with(maps::snooped, Twin::Planted),
        what_is_mapped_is_synchronised: || with(syncs::unallocated, Twin::Right),
        what_is_mapped_is_synchronised_planted: || with(syncs::unallocated, Twin::Planted),
        syncs_stay_inside_the_mapping: || with(syncs::outside, Twin::Right),
        syncs_stay_inside_the_mapping_planted: || with(syncs::outside, Twin::Planted),
        syncs_have_the_mapped_direction: || with(syncs::direction, Twin::Right),
        syncs_have_the_mapped_direction_planted: || with(syncs::direction, Twin::Planted),
        what_a_device_reads_is_not_taken_from_it: || with(syncs::read_only, Twin::Right),
        what_a_device_reads_is_not_taken_from_it_planted: || with(syncs::read_only, Twin::Planted),
        what_a_device_writes_is_not_given_to_it: || with(syncs::write_only, Twin::Right),
        what_a_device_writes_is_not_given_to_it_planted: || with(syncs::write_only, Twin::Planted),
        lists_are_synchronised_whole: || with(syncs::sg_count, Twin::Right),
        lists_are_synchronised_whole_planted: || with(syncs::sg_count, Twin::Planted),
        a_released_device_leaves_nothing: || with(table::leak, Twin::Right),
        a_released_device_leaves_nothing_planted: || with(table::leak, Twin::Planted),
        the_table_holds_every_mapping: || with(table::entries, Twin::Right),
        the_table_holds_every_mapping_planted: || with(table::entries, Twin::Planted),
        a_mapping_that_stays_is_found_planted: || with(table::mapping_left, Twin::Planted),
        a_mistake_of_nobodys_is_found_planted: || with(table::report_unplanted, Twin::Planted),
    },
};

/// Bytes of a buffer.
const LEN: usize = 256;

/// Which of two alike is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    /// Nothing is wrong.
    Right,
    /// A mistake is made.
    Planted,
}

impl Twin {
    /// One of two values.
    fn pick<T>(self, right: T, planted: T) -> T {
        match self {
            Self::Right => right,
            Self::Planted => planted,
        }
    }
}

/// Runs `test` if calls are checked at all.
fn with(test: fn(Twin) -> Outcome, twin: Twin) -> Outcome {
    if !debug::is_on() {
        return Err(Stop::Skipped("DMA calls are not checked"));
    }
    test(twin)
}

/// File and line of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At(&'static str, u32);

/// What a report says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    kind: Kind,
    addr: DmaAddr,
    len: usize,
    direction: DirectionKind,
    at: At,
}

const fn said(kind: Kind, addr: DmaAddr, len: usize, direction: DirectionKind, at: At) -> Said {
    Said {
        kind,
        addr,
        len,
        direction,
        at,
    }
}

impl From<&Call> for Said {
    fn from(call: &Call) -> Self {
        let at = At(call.site.file(), call.site.line());
        said(call.kind, call.addr, call.len, call.direction, at)
    }
}

/// A report as it must be: the check, the device, the call, and what was mapped.
type Wanted = (Check, &'static str, Said, Option<Said>);

/// Runs `f`, which makes the mistake `wanted` if the planted twin is run: that and nothing else must
/// be reported, or else nothing.
fn reports(twin: Twin, wanted: Wanted, f: impl FnOnce()) -> Outcome {
    let found = dma_debug::reported(f);
    verify(&found, twin.pick(&[], &[wanted]))
}

/// Whether `found` is what is `wanted`, in that order.
fn verify(found: &[Report], wanted: &[Wanted]) -> Outcome {
    for report in found {
        crate::report::diagnostic(format_args!("{report}"));
    }
    check!(
        found.len() == wanted.len(),
        "{} reports, {} wanted",
        found.len(),
        wanted.len()
    );
    for (report, &(check, device, call, mapped)) in found.iter().zip(wanted) {
        let is = (
            report.check,
            report.device,
            Said::from(&report.call),
            report.mapped.as_ref().map(Said::from),
        );
        check!(
            is == (check, device, call, mapped),
            "{is:?} instead of {check:?} {call:?} {mapped:?}"
        );
    }
    Ok(())
}

/// Whether each of `found` says that the mapping it shows was ended at `at`.
fn ended_at(found: &[Report], at: At) -> Outcome {
    for report in found {
        let ended = report.unmapped.map(|site| At(site.file(), site.line()));
        check!(ended == Some(at), "{ended:?} instead of {at:?}");
    }
    Ok(())
}
