//! What a system is made of: trees of bridges and endpoints, each below a host bridge.

use crate::endpoint::Endpoint;
use crate::fabric::{HostWindow, PeerRouting};
use crate::pci::{BridgeDescription, HostBridgeDescription};

/// A function, and where it is on its bus.
#[derive(Debug)]
pub struct Function {
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
    /// Name for people, for example `peer0`.
    pub name: String,
    /// An endpoint, or a bridge with what is below it.
    pub kind: FunctionKind,
}

/// The two kinds of functions: type 0 and type 1 headers (PCIe 6.0, 7.5.1).
#[derive(Debug)]
pub enum FunctionKind {
    /// A device.
    Endpoint(Box<dyn Endpoint>),
    /// A root port or a switch port, with the functions on the bus below it.
    Bridge(BridgeDescription, Vec<Function>),
}

impl Function {
    /// An endpoint as function 0 of `device`.
    pub fn endpoint(
        device: u8,
        name: impl Into<String>,
        endpoint: impl Endpoint + 'static,
    ) -> Self {
        Self::boxed(device, name, Box::new(endpoint))
    }

    /// The same for a boxed device, as a kind of device makes it.
    pub fn boxed(device: u8, name: impl Into<String>, endpoint: Box<dyn Endpoint>) -> Self {
        Self { device, function: 0, name: name.into(), kind: FunctionKind::Endpoint(endpoint) }
    }

    /// A bridge as function 0 of `device`.
    pub fn bridge(
        device: u8,
        name: impl Into<String>,
        description: BridgeDescription,
        below: Vec<Self>,
    ) -> Self {
        Self {
            device,
            function: 0,
            name: name.into(),
            kind: FunctionKind::Bridge(description, below),
        }
    }
}

/// A host bridge with everything below it. Its own function is device 0, function 0 of its root
/// bus.
#[derive(Debug)]
pub struct HostBridge {
    /// Name for people, of the bridge's own function too.
    pub name: String,
    /// Identity of the bridge's own function, by which Linux decides whether it allows peer-to-peer
    /// traffic.
    pub description: HostBridgeDescription,
    /// Bus number of its root bus.
    pub first_bus: u8,
    /// What it forwards down to its root bus. Empty: every address that is not RAM, as it is.
    pub windows: Vec<HostWindow>,
    /// How far it takes what one function sends to another.
    pub peer_routing: PeerRouting,
    /// The functions on the root bus.
    pub root: Vec<Function>,
}

impl Default for HostBridge {
    /// A bridge to bus 0 with nothing on it.
    fn default() -> Self {
        Self {
            name: "host-bridge".to_owned(),
            description: HostBridgeDescription::default(),
            first_bus: 0,
            windows: Vec::new(),
            peer_routing: PeerRouting::default(),
            root: Vec::new(),
        }
    }
}

/// The host bridges with everything below them.
#[derive(Debug)]
pub struct Topology {
    /// The host bridges, at least one; their bus numbers do not overlap.
    pub host_bridges: Vec<HostBridge>,
}

impl Default for Topology {
    /// One host bridge with nothing on it.
    fn default() -> Self {
        Self { host_bridges: vec![HostBridge::default()] }
    }
}

impl Topology {
    /// One host bridge with these functions on its root bus.
    pub fn of(root: Vec<Function>) -> Self {
        Self { host_bridges: vec![HostBridge { root, ..HostBridge::default() }] }
    }
}
