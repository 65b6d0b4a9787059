//! Host side.
fn main() {}
