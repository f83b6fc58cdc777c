//! The VMM of the peerdma lab.

pub mod images;
