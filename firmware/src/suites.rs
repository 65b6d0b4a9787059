//! The test suites, in the order they run.

mod selftest;

use crate::report::Suite;

/// Every suite there is.
pub const ALL: &[Suite] = &[selftest::SUITE];
