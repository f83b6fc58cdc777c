//! The VMM of the peerdma lab.
