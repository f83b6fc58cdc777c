//! The results of a run, and their forms: KTAP for the terminal, JUnit XML and JSON for
//! programs.
//!
//! The verdicts are made elsewhere ([`crate`]); this module only writes them down and uses no other module of the crate.
//! [`ktap`] also reads, since guests report in that format.

mod catalogue;
mod file;
pub mod junit;
pub mod ktap;
pub mod markdown;
pub mod merge;
pub mod model;
pub mod observed;
pub mod shard;

pub use file::write_whole;
pub use merge::MergedReport;
pub use model::{
    CaseReport, FindingReport, Repeated, RunReport, ScenarioReport, Status, Suppressed, Totals,
};
pub use observed::{ObservedPath, Setup};
pub use shard::Shard;
