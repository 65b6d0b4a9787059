//! What the boot code promises to everything after it.

mod cores;
mod faults;
mod registers;
mod stacks;
mod survey;

use crate::report::{Outcome, Suite, Test};

const fn test(name: &'static str, run: fn() -> Outcome) -> Test {
    Test { name, run }
}

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "boot",
    tests: &[
        test("entry_level_is_reported", registers::entry_level),
        test("every_core_runs_at_el1", registers::exception_level),
        test("mmu_caches_and_wxn_are_on", registers::sctlr),
        test(
            "mmu_caches_and_wxn_are_on_planted",
            registers::sctlr_planted,
        ),
        test("mair_is_the_designed_value", registers::mair),
        test("tcr_fields_are_the_designed_ones", registers::tcr),
        test(
            "tcr_fields_are_the_designed_ones_planted",
            registers::tcr_planted,
        ),
        test("vectors_are_set_on_every_core", registers::vectors),
        test("no_identity_map_is_left", registers::lower_half),
        test(
            "no_identity_map_is_left_planted",
            registers::lower_half_planted,
        ),
        test("smp_enable_bit_is_set", registers::smp_enable),
        test("cache_line_size_is_known", registers::cache_lines),
        test("memory_map_has_a_source", survey::source),
        test("memory_map_is_what_the_source_says", survey::memory_map),
        test(
            "memory_map_is_what_the_source_says_planted",
            survey::memory_map_planted,
        ),
        test("every_named_core_is_online", cores::online),
        test("run_on_returns_what_the_core_computed", cores::run_on),
        test("run_on_all_runs_everywhere_at_once", cores::run_on_all),
        test("every_core_has_its_own_state", cores::own_state),
        test(
            "every_core_has_its_own_state_planted",
            cores::own_state_planted,
        ),
        test("every_core_takes_its_own_timer_interrupt", cores::timer),
        test(
            "every_core_takes_its_own_timer_interrupt_planted",
            cores::timer_planted,
        ),
        test("every_core_takes_interrupts_from_cores", cores::sgi),
        test(
            "every_core_takes_interrupts_from_cores_planted",
            cores::sgi_planted,
        ),
        test("timer_advances_and_delays_are_not_short", cores::delays),
        test("every_stack_has_a_guard_page", stacks::guards),
        test(
            "every_stack_has_a_guard_page_planted",
            stacks::guards_planted,
        ),
        test("backtrace_stays_in_the_text", stacks::backtrace),
        test(
            "unaligned_device_access_is_an_alignment_fault",
            faults::alignment,
        ),
        test(
            "unmapped_vmalloc_address_is_a_translation_fault",
            faults::translation,
        ),
        test("text_and_rodata_cannot_be_written", faults::permission),
        test(
            "text_and_rodata_cannot_be_written_planted",
            faults::permission_planted,
        ),
    ],
};
