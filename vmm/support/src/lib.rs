//! What the crates of peerdma share to talk to people: lines on stderr that do not panic, warnings
//! that cannot flood a log, hints for mistyped names, and a small generator for reproducible runs.
//!
//! ```
//! use peerdma_support::names::nearest_name;
//!
//! let known = ["switch", "switch-acs", "root-ports"];
//! assert_eq!(nearest_name("swich", known).as_deref(), Some("switch"));
//! ```
#![forbid(unsafe_code)]

pub mod names;
pub mod random;
pub mod say;
#[doc(hidden)]
pub mod testing;
pub mod warnings;
