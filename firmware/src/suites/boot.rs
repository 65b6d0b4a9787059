//! What the boot code promises to everything after it.

mod cores;
mod faults;
mod registers;
mod stacks;
mod survey;

use crate::report::Suite;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "boot",
    tests: tests! {
        entry_level_is_reported: registers::entry_level,
        every_core_runs_at_el1: registers::exception_level,
        mmu_caches_and_wxn_are_on: registers::sctlr,
        mmu_caches_and_wxn_are_on_planted: registers::sctlr_planted,
        mair_is_the_designed_value: registers::mair,
        tcr_fields_are_the_designed_ones: registers::tcr,
        tcr_fields_are_the_designed_ones_planted: registers::tcr_planted,
        vectors_are_set_on_every_core: registers::vectors,
        no_identity_map_is_left: registers::lower_half,
        no_identity_map_is_left_planted: registers::lower_half_planted,
        smp_enable_bit_is_set: registers::smp_enable,
        cache_line_size_is_known: registers::cache_lines,
        memory_map_has_a_source: survey::source,
        memory_map_is_what_the_source_says: survey::memory_map,
        memory_map_is_what_the_source_says_planted: survey::memory_map_planted,
        memory_is_set_aside_in_the_usual_shares: survey::shares,
        every_named_core_is_online: cores::online,
        run_on_returns_what_the_core_computed: cores::run_on,
        run_on_all_runs_everywhere_at_once: cores::run_on_all,
        every_core_has_its_own_state: cores::own_state,
        every_core_has_its_own_state_planted: cores::own_state_planted,
        every_core_takes_its_own_timer_interrupt: cores::timer,
        every_core_takes_its_own_timer_interrupt_planted: cores::timer_planted,
        every_core_takes_interrupts_from_cores: cores::sgi,
        every_core_takes_interrupts_from_cores_planted: cores::sgi_planted,
        timer_advances_and_delays_are_not_short: cores::delays,
        every_stack_has_a_guard_page: stacks::guards,
        every_stack_has_a_guard_page_planted: stacks::guards_planted,
        backtrace_stays_in_the_text: stacks::backtrace,
        unaligned_device_access_is_an_alignment_fault: faults::alignment,
        unmapped_vmalloc_address_is_a_translation_fault: faults::translation,
        text_and_rodata_cannot_be_written: faults::permission,
        text_and_rodata_cannot_be_written_planted: faults::permission_planted,
    },
};
