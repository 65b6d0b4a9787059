//! The address space: what each window is, what no frame may be, how it changes.

mod audits;
mod changes;
mod temporary;
mod windows;

use crate::report::Suite;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "mmu",
    tests: tests! {
        every_window_has_its_memory_type: windows::types,
        every_window_has_its_memory_type_planted: windows::types_planted,
        image_sections_have_their_permissions: windows::sections,
        image_sections_have_their_permissions_planted: windows::sections_planted,
        direct_map_holds_ram_at_its_offset: windows::direct_map,
        direct_map_uses_the_largest_leaves: windows::leaf_sizes,
        direct_map_uses_the_largest_leaves_planted: windows::leaf_sizes_planted,
        coherent_pool_is_mapped_whole: windows::pool,
        leaves_have_access_flag_and_are_global: windows::flags,
        leaves_have_access_flag_and_are_global_planted: windows::flags_planted,
        top_two_mib_are_unmapped: windows::error_pointers,
        no_page_is_writable_and_executable: audits::write_xor_execute,
        no_page_is_writable_and_executable_planted: audits::write_xor_execute_planted,
        no_frame_has_two_memory_types: audits::one_type,
        no_frame_has_two_memory_types_planted: audits::one_type_planted,
        pool_frames_are_absent_from_the_direct_map: audits::pool_absent,
        pool_frames_are_absent_from_the_direct_map_planted: audits::pool_absent_planted,
        image_and_guard_frames_are_mapped_nowhere_else: audits::image_absent,
        image_and_guard_frames_are_mapped_nowhere_else_planted: audits::image_absent_planted,
        mapping_over_a_live_page_is_refused: changes::break_before_make,
        splitting_a_live_block_is_refused: changes::live_block,
        type_change_keeps_the_content: changes::round_trip,
        type_change_keeps_the_content_planted: changes::round_trip_planted,
        unmapping_reaches_every_core: changes::broadcast,
        unmapping_reaches_every_core_planted: changes::broadcast_planted,
        kmap_local_shows_its_page_until_it_is_dropped: temporary::shows_its_page,
        kmap_local_shows_its_page_until_it_is_dropped_planted: temporary::shows_its_page_planted,
        kmap_local_nests: temporary::nest,
        kmap_local_has_slots_for_each_core: temporary::per_core,
        kmap_local_works_in_an_interrupt: temporary::in_interrupt,
        kmap_local_refuses_frames_of_another_type: temporary::types,
    },
};
