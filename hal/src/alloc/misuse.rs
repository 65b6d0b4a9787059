//! What the types of this module forbid: each misuse does not compile, beside a twin without the
//! misuse that does, so that the former fails for its own reason.

mod borrows;
mod flags;
mod memory;
mod ownership;
mod threads;
