//! The firmware: from reset to a report on the console.
//!
//! The portable parts compile on a host too, which is where their tests run.

#![cfg_attr(target_os = "none", no_std)]

pub mod cmdline;
pub mod glob;
