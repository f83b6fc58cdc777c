//! The VMM of the peerdma lab.

pub mod assembly;
pub mod boot;
pub mod cli;
pub mod host;
pub mod images;
pub mod lab;
pub mod machine;
pub mod report;
pub mod suite;
pub mod topology;
pub mod trace;
pub mod virtio;
