//! The typed front of the allocators: boxes, vectors, Rust's own collections, resized objects.

mod collections;
mod containers;
mod resized;

use crate::report::Suite;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "alloc",
    tests: tests! {
        memory_is_where_the_allocator_puts_it: containers::placement,
        memory_is_where_the_allocator_puts_it_planted: containers::placement_planted,
        alignment_up_to_a_page_is_honoured: containers::alignment,
        vectors_grow_and_keep_their_elements: containers::growth,
        what_is_dropped_comes_back_whole: containers::dropped,
        what_is_dropped_comes_back_whole_planted: containers::dropped_planted,
        cores_drop_each_others_boxes: containers::other_cores,
        failures_are_errors_and_change_nothing: containers::failures,
        exhaustion_leaves_a_vector_as_it_was: containers::exhaustion,
        under_a_lock_only_flags_that_do_not_block_work: containers::under_a_lock,
        sizes_that_overflow_are_refused_by_name: resized::overflow,
        kcalloc_zeroes_all_usable_bytes: resized::zeroed,
        krealloc_follows_the_table: resized::table,
        krealloc_follows_the_table_planted: resized::table_planted,
        kfree_sensitive_leaves_no_byte: resized::sensitive,
        kfree_sensitive_leaves_no_byte_planted: resized::sensitive_planted,
        collections_follow_a_model: collections::model,
        large_collections_move_to_the_vmalloc_window: collections::large,
        any_alignment_up_to_the_largest_block: collections::alignment,
        zeroed_collections_are_zero: collections::zeroed,
        a_collection_that_asks_first_gets_an_error: collections::refused,
    },
};
