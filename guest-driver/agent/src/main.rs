//! First process and test program of a peerdma guest.
fn main() {}
