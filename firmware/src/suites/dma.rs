//! The DMA engines: what they copy, what they refuse, how they end.

mod engines;
mod gone;
mod lengths;
mod lost;
pub(super) mod maintained;
mod rectangles;
mod refused;
mod scattered;

use crate::machine::machine;
use crate::payload::{self, Method};
use crate::report::{Outcome, Stop, Suite};
use crate::verdict;
use hal::dma::DmaEngine;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "dma",
    tests: tests! {
        engines_come_up: engines::come_up,
        an_engine_drives_more_than_32_address_bits: engines::wide,
        verdict: verdict::print,
        verdict_planted: verdict::planted,
        whole_words_arrive_in_coherent_memory: lengths::whole_words_to_device,
        whole_words_arrive_in_kmalloc_memory: lengths::whole_words_from_device,
        odd_lengths_arrive_in_coherent_memory: lengths::odd_lengths_to_device,
        odd_lengths_arrive_in_kmalloc_memory: lengths::odd_lengths_from_device,
        whole_words_arrive_in_kmalloc_memory_planted: lengths::planted,
        memory_that_is_no_dma_memory_is_refused: refused::kinds_of_memory,
        memory_out_of_reach_is_refused: refused::out_of_reach,
        memory_above_a_narrowed_mask_is_refused: refused::narrowed,
        bad_lengths_are_refused: refused::lengths,
        foreign_addresses_are_refused: refused::foreign_addresses,
        memory_that_is_no_dma_memory_is_refused_planted: refused::planted,
        every_core_has_the_same_lines: maintained::cores_agree,
        maintenance_is_what_the_lines_demand: maintained::lines,
        maintenance_is_what_the_lines_demand_planted: maintained::planted,
        fragmented_vmalloc_is_gathered_run_by_run: scattered::fragmented,
        fragmented_vmalloc_is_gathered_run_by_run_planted: scattered::planted,
        copies_end_by_interrupt: engines::interrupts,
        copies_end_by_interrupt_planted: engines::interrupts_planted,
        no_interrupt_is_lost: lost::none,
        no_interrupt_is_lost_planted: lost::planted,
        polled_copies_need_no_interrupt: engines::polled,
        rectangles_arrive_and_their_surroundings_stay: rectangles::arrive,
        rectangles_arrive_and_their_surroundings_stay_planted: rectangles::planted,
        rectangles_outside_their_memory_are_refused: rectangles::refused,
        a_second_submission_is_busy: engines::busy,
        aborted_engines_copy_again: engines::abort,
        aborted_engines_copy_again_planted: engines::abort_planted,
        timed_out_engines_copy_again: engines::timeout,
        a_device_that_is_gone_is_named: gone::named,
        a_device_that_is_gone_is_named_planted: gone::planted,
        every_core_copies: engines::every_core,
        two_cores_share_an_engine: engines::two_cores,
        coherent_memory_is_not_cacheable: maintained::coherent_attributes,
        coherent_memory_is_not_cacheable_planted: maintained::coherent_attributes_planted,
        payload_kmalloc: || payload::run(Method::Kmalloc),
        payload_vmalloc: || payload::run(Method::Vmalloc),
        payload_coherent: || payload::run(Method::Coherent),
    },
};

/// Runs `test` with each engine; without one there is nothing to show.
pub(super) fn each_engine(mut test: impl FnMut(&'static dyn DmaEngine) -> Outcome) -> Outcome {
    if machine().engines.is_empty() {
        return Err(Stop::Skipped("no DMA engine"));
    }
    machine()
        .engines
        .iter()
        .try_for_each(|&engine| test(engine))
}
