//! The firmware: from reset to a report on the console.
//!
//! The portable parts compile on a host too, which is where their tests run.

#![cfg_attr(target_os = "none", no_std)]
#![deny(unsafe_code)]

pub mod cmdline;
pub mod diagnosis;
pub mod dmatest;
pub mod experiment;
pub mod glob;
pub mod pattern;
pub mod placement;
pub mod random;

#[cfg(target_os = "none")]
pub mod address_space;
#[cfg(all(target_os = "none", feature = "bench"))]
mod bench;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "builds the machine the rest relies on")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod clock;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(all(target_os = "none", feature = "seeds"))]
#[expect(unsafe_code, reason = "plants what a sanitizer must find")]
mod corpus;
#[cfg(target_os = "none")]
mod dma_debug;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "called by the vectors, walks the stack")]
pub mod exceptions;
#[cfg(target_os = "none")]
pub mod exit;
#[cfg(target_os = "none")]
pub mod failslab;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "accesses memory that is lent to a device")]
mod handed;
#[cfg(target_os = "none")]
pub mod ledger;
#[cfg(target_os = "none")]
pub mod machine;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "owns raw memory of each kind")]
mod memory;
#[cfg(target_os = "none")]
mod oom;
#[cfg(target_os = "none")]
pub mod payload;
#[cfg(target_os = "none")]
mod provocation;
#[cfg(target_os = "none")]
#[expect(
    unsafe_code,
    reason = "makes the DMA calls that a checker must find wrong"
)]
mod raw_dma;
#[cfg(target_os = "none")]
pub mod report;
#[cfg(target_os = "none")]
pub mod run;
#[cfg(target_os = "none")]
#[expect(
    unsafe_code,
    reason = "called by the entry code, claims the device registers"
)]
pub mod start;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "submits what an engine must refuse")]
mod submission;
#[cfg(target_os = "none")]
pub mod suites;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "implements defmt's unsafe logger")]
pub mod trace;
#[cfg(target_os = "none")]
pub mod verdict;
