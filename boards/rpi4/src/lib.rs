//! Board description.
#![no_std]
