//! What a lab is made of: a tree of bridges and endpoints below a host bridge.

use crate::endpoint::Endpoint;
use crate::pci::{BridgeDescription, HostBridgeDescription};

/// A function at its place on a bus.
#[derive(Debug)]
pub struct Place {
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
    /// Name for people, for example `peer0`.
    pub name: String,
    /// What it is.
    pub what: What,
}

/// What a function is.
#[derive(Debug)]
pub enum What {
    /// A device.
    Endpoint(Box<dyn Endpoint>),
    /// A root port or a switch port, with the functions on the bus below it.
    Bridge(BridgeDescription, Vec<Place>),
}

impl Place {
    /// An endpoint as function 0 of `device`.
    pub fn endpoint(
        device: u8,
        name: impl Into<String>,
        endpoint: impl Endpoint + 'static,
    ) -> Self {
        Self { device, function: 0, name: name.into(), what: What::Endpoint(Box::new(endpoint)) }
    }

    /// A bridge as function 0 of `device`.
    pub fn bridge(
        device: u8,
        name: impl Into<String>,
        description: BridgeDescription,
        below: Vec<Self>,
    ) -> Self {
        Self { device, function: 0, name: name.into(), what: What::Bridge(description, below) }
    }
}

/// The whole tree. The host bridge itself is 00:00.0.
#[derive(Debug, Default)]
pub struct Topology {
    /// Identity of the host bridge's own function, by which Linux decides whether it allows peer-to-peer traffic.
    pub host_bridge: HostBridgeDescription,
    /// The functions on the root bus.
    pub root: Vec<Place>,
}
