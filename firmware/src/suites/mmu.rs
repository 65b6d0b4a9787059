//! The address space: what each window is, what no frame may be, how it changes.

mod audits;
mod changes;
mod windows;

use crate::report::{Outcome, Suite, Test};

const fn test(name: &'static str, run: fn() -> Outcome) -> Test {
    Test { name, run }
}

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "mmu",
    tests: &[
        test("every_window_has_its_memory_type", windows::types),
        test(
            "every_window_has_its_memory_type_planted",
            windows::types_planted,
        ),
        test("image_sections_have_their_permissions", windows::sections),
        test(
            "image_sections_have_their_permissions_planted",
            windows::sections_planted,
        ),
        test("direct_map_holds_ram_at_its_offset", windows::direct_map),
        test("direct_map_uses_the_largest_leaves", windows::leaf_sizes),
        test(
            "direct_map_uses_the_largest_leaves_planted",
            windows::leaf_sizes_planted,
        ),
        test("coherent_pool_is_mapped_whole", windows::pool),
        test("leaves_have_access_flag_and_are_global", windows::flags),
        test(
            "leaves_have_access_flag_and_are_global_planted",
            windows::flags_planted,
        ),
        test("top_two_mib_are_unmapped", windows::error_pointers),
        test(
            "no_page_is_writable_and_executable",
            audits::write_xor_execute,
        ),
        test(
            "no_page_is_writable_and_executable_planted",
            audits::write_xor_execute_planted,
        ),
        test("no_frame_has_two_memory_types", audits::one_type),
        test(
            "no_frame_has_two_memory_types_planted",
            audits::one_type_planted,
        ),
        test(
            "pool_frames_are_absent_from_the_direct_map",
            audits::pool_absent,
        ),
        test(
            "pool_frames_are_absent_from_the_direct_map_planted",
            audits::pool_absent_planted,
        ),
        test(
            "image_and_guard_frames_are_mapped_nowhere_else",
            audits::image_absent,
        ),
        test(
            "image_and_guard_frames_are_mapped_nowhere_else_planted",
            audits::image_absent_planted,
        ),
        test(
            "mapping_over_a_live_page_is_refused",
            changes::break_before_make,
        ),
        test("splitting_a_live_block_is_refused", changes::live_block),
        test("type_change_keeps_the_content", changes::round_trip),
        test(
            "type_change_keeps_the_content_planted",
            changes::round_trip_planted,
        ),
        test("unmapping_reaches_every_core", changes::broadcast),
        test(
            "unmapping_reaches_every_core_planted",
            changes::broadcast_planted,
        ),
    ],
};
