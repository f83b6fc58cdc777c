//! The VMM of the peerdma lab.

// Both end the program when nobody reads any more; `cli::output` and `say` do not.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod assembly;
pub mod boot;
pub mod cli;
pub mod host;
pub mod images;
pub mod jitter;
pub mod lab;
pub mod machine;
mod nearest;
pub mod report;
mod say;
pub mod suite;
pub mod topology;
pub mod trace;
mod warnings;
