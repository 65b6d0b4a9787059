//! The test suites, in the order they run.

mod coherent;
mod fragment;
mod kmalloc;
mod mapping;
mod pages;
mod random;
mod raw;
mod selftest;
mod vmalloc;

use crate::report::Suite;

/// Every suite there is.
pub const ALL: &[Suite] = &[
    pages::SUITE,
    kmalloc::SUITE,
    vmalloc::SUITE,
    coherent::SUITE,
    selftest::SUITE,
];
