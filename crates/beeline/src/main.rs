//! Beeline.
fn main() {}
