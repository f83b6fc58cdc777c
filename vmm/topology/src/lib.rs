#![doc = include_str!("../README.md")]
//!
//! Topologies: what a machine is made of, from a preset or a file of the user's; what Linux will make of it; pictures of it.

mod acs;
mod added;
pub mod address_space;
mod addresses;
pub mod assembly;
mod client;
mod description;
mod draw;
mod endpoint;
mod explain;
pub mod linux;
pub mod machine;
mod names;
mod plan;
mod preset;
mod problem;
mod random;
mod route;
mod windows;

#[cfg(test)]
mod tests;

pub use acs::{Acs, names as acs_names, state as acs_state};
pub use added::{AddError, AddedDevice, kinds as device_kinds};
pub use addresses::{Addresses, Bar, Claims};
pub use client::{Client, ParseClientError};
pub use description::{
    Cpu, Endpoint, HostBridge, PciId, Peer, PeerRouting, RootPort, Switch, SwitchPort, Topology,
    Window,
};
pub use draw::{Drawing, Format};
pub use explain::{ExplainError, Explanation, Prediction, Report, SCHEMA as EXPLAIN_SCHEMA};
pub use plan::{IOMMU, Kind, MAX_ENDPOINTS, MAX_PEERS, Plan, Planned, PlannedBridge, RNG};
pub use problem::{Item, Problem, TopologyError};
pub use route::{Arrival, Route, Routes};
