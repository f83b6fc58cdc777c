//! Checks of a description before it is planned: names, and limits of each kind.

use std::collections::BTreeMap;

use guest_protocol::RAM;

use super::description::Topology;
use super::plan::{MAX_ENDPOINTS, MAX_PEERS};
use super::problem::{Item, Problem};

/// Most host bridges.
pub(super) const MAX_HOST_BRIDGES: usize = 8;

/// Longest name, in bytes.
pub(super) const MAX_NAME: usize = 32;

/// Every name of a topology, and what it names.
pub(super) type Names<'t> = BTreeMap<&'t str, Item>;

/// The names, each given once and in a form that fits into reports.
pub(super) fn names(topology: &Topology) -> Result<Names<'_>, Problem> {
    for (key, text, most) in
        [("name", &topology.name, MAX_NAME), ("description", &topology.description, 200)]
    {
        if text.len() > most || text.chars().any(char::is_control) {
            let what = format!("the {key} is one line of at most {most} bytes");
            return Err(Problem::new(Item::Whole, key, what));
        }
    }
    let mut names = Names::new();
    let bridges = topology.host_bridges.iter().map(|bridge| bridge.name.as_str());
    let ports = topology.root_ports.iter().map(|port| port.name.as_str());
    let peers = topology.peers.iter().map(|peer| peer.name.as_str());
    let mut all: Vec<(&str, Item)> = Vec::new();
    all.extend(bridges.enumerate().map(|(index, name)| (name, Item::HostBridge(index))));
    all.extend(ports.enumerate().map(|(index, name)| (name, Item::RootPort(index))));
    for (index, switch) in topology.switches.iter().enumerate() {
        all.push((&switch.name, Item::Switch(index)));
        let ports = switch.ports.iter().enumerate();
        all.extend(ports.map(|(port, down)| (down.name.as_str(), Item::SwitchPort(index, port))));
    }
    all.extend(peers.enumerate().map(|(index, name)| (name, Item::Peer(index))));
    let endpoints = topology.endpoints.iter().map(|endpoint| endpoint.name.as_str());
    all.extend(endpoints.enumerate().map(|(index, name)| (name, Item::Endpoint(index))));
    for (name, item) in all {
        check_name(name).map_err(|what| Problem::new(item, "name", what))?;
        if names.insert(name, item).is_some() {
            let what = format!("there is another {name:?}; every name is given once");
            return Err(Problem::new(item, "name", what));
        }
    }
    Ok(names)
}

/// Whether anything can be called `name`; why not otherwise.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(format!(
            "{name:?} is not a valid name: use 1 to {MAX_NAME} letters, digits, '-' or '_'"
        ));
    }
    // Counters and pictures have these names beside those of the devices.
    if matches!(name, "virtio-iommu" | "virtio-rng" | RAM) {
        return Err(format!("{name:?} is what the lab calls a part of its own; take another name"));
    }
    Ok(())
}

/// Whether the topology keeps to the numbers of devices that the lab has room for.
pub(super) fn limits(topology: &Topology) -> Result<(), Problem> {
    if topology.host_bridges.is_empty() {
        return Err(Problem::new(Item::Whole, "host-bridge", "there is no host bridge".into()));
    }
    if topology.host_bridges.len() > MAX_HOST_BRIDGES {
        let what = format!(
            "{} host bridges; the lab has room for {MAX_HOST_BRIDGES}",
            topology.host_bridges.len()
        );
        return Err(Problem::new(Item::HostBridge(MAX_HOST_BRIDGES), "name", what));
    }
    if topology.peers.len() > MAX_PEERS {
        let what =
            format!("{} peer devices; the lab has room for {MAX_PEERS}", topology.peers.len());
        return Err(Problem::new(Item::Peer(MAX_PEERS), "name", what));
    }
    if topology.endpoints.len() > MAX_ENDPOINTS {
        let what = format!(
            "{} devices beside the peers; the lab has room for {MAX_ENDPOINTS}",
            topology.endpoints.len()
        );
        return Err(Problem::new(Item::Endpoint(MAX_ENDPOINTS), "name", what));
    }
    Ok(())
}
