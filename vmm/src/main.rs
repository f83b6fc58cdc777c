//! The command line tool of the peerdma lab.
fn main() {}
