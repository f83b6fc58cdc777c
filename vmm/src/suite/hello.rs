//! The answer to the guest's `hello`: the expectations of Linux that go with it, and its length.

use std::fmt;

pub use guest_protocol::{Address, Expected, Hello, Mode, Module, Other, Way};
use guest_protocol::{OK, wire};

use crate::topology::linux::{AddressKind, Guest, MapType, View};
use crate::topology::{Kind, Plan, Planned, Problem, Topology};

/// The protocol's word for a kind of address.
pub fn address(kind: AddressKind) -> Address {
    match kind {
        AddressKind::Bus => Address::Bus,
        AddressKind::Physical => Address::Phys,
        AddressKind::Iova => Address::Iova,
        AddressKind::Refused => Address::None,
    }
}

/// What Linux should make of `topology`, by the account of it in [`crate::topology::linux`].
///
/// # Errors
/// What is wrong with the topology.
pub fn expected(topology: &Topology, guest: &Guest) -> Result<Expected, Problem> {
    let plan = Plan::new(topology, guest.iommu.has_iommu())?;
    let view = View::new(&plan, guest);
    let peers = plan.peers();
    let mut paths = Vec::new();
    let mut direct_requests = vec![0; peers.len()];
    let mut direct_completions = vec![0; peers.len()];
    for (b, &provider) in peers.iter().enumerate() {
        for (a, &client) in peers.iter().enumerate().take(b) {
            let (way, distance, address) = path(&view, provider, client);
            for ((from, one), (to, other)) in
                [((a, client), (b, provider)), ((b, provider), (a, client))]
            {
                let (requests, completions) = direct(&view, one, other);
                direct_requests[from] |= bit(to, requests);
                direct_completions[from] |= bit(to, completions);
            }
            paths.push((number(a), number(b), way, distance, address));
        }
    }
    let others = others(&view, &peers);
    let groups = view.groups();
    let groups = peers.iter().filter_map(|peer| groups[*peer].map(number)).collect();
    let topology = topology.name.clone();
    Ok(Expected { topology, paths, direct_requests, direct_completions, groups, others })
}

/// A topology has fewer devices than a `u32` has values.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Way, distance and kind of address of DMA by `client` into the memory of `provider`.
fn path(view: &View<'_>, provider: usize, client: usize) -> (Way, i32, Address) {
    let decision = view.decide(provider, client);
    let (way, distance) = match decision.map {
        MapType::BusAddress => (Way::Bus, decision.distance),
        MapType::ThroughHostBridge => (Way::Host, decision.distance),
        MapType::NotSupported => (Way::None, u32::MAX),
    };
    (way, i32::try_from(distance).unwrap_or(-1), address(view.address_kind(decision.map)))
}

/// Where the way is through the host bridge: whether a request by bus address from `requester` to a BAR of `owner` would
/// be turned around all the same, and whether completions come back directly.
fn direct(view: &View<'_>, requester: usize, owner: usize) -> (bool, bool) {
    let through_host = view.decide(owner, requester).map == MapType::ThroughHostBridge;
    (
        through_host && !view.requests_redirected(requester, owner),
        through_host && !view.completions_redirected(owner, requester),
    )
}

/// The bit of a peer device in a mask.
fn bit(peer: usize, set: bool) -> u16 {
    if set { 1_u16.checked_shl(number(peer)).unwrap_or(0) } else { 0 }
}

/// What is expected of every device that is no peer.
fn others(view: &View<'_>, peers: &[usize]) -> Vec<Other> {
    let functions = view.plan.functions.iter().enumerate();
    let endpoints = functions.filter(|(_, function)| matches!(function.kind, Kind::Endpoint(..)));
    let other = |(client, function): (usize, &Planned)| {
        let mut other = Other {
            function: function.bdf.to_string(),
            paths: peers.iter().map(|&peer| path(view, peer, client)).collect(),
            direct_requests: 0,
            direct_completions: 0,
        };
        for (index, &peer) in peers.iter().enumerate() {
            let (requests, completions) = direct(view, client, peer);
            other.direct_requests |= bit(index, requests);
            other.direct_completions |= bit(index, completions);
        }
        other
    };
    endpoints.map(other).collect()
}

/// Longest answer in bytes: `ok ` goes in front.
const MAX_LENGTH: usize = wire::MAX_ANSWER - OK.len() - 1;

/// The answer does not fit through the lab port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong(usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the command for the guest is too long: with all that goes with it {} bytes, and {MAX_LENGTH} fit; put it \
             into a script in the guest, or pass fewer arguments",
            self.0
        )
    }
}

impl std::error::Error for TooLong {}

/// The answer's text, one line of JSON.
///
/// # Errors
/// [`TooLong`], which only a user's command can bring about.
pub fn line(hello: &Hello) -> Result<String, TooLong> {
    // Strings, numbers and lists of them: this cannot fail, and the guest would refuse an empty answer.
    let text = serde_json::to_string(hello).unwrap_or_default();
    if text.len() > MAX_LENGTH { Err(TooLong(text.len())) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembly::IommuMode;
    use crate::topology::Cpu;

    #[test]
    fn the_line_holds_the_largest_topology_and_not_more() {
        let mut hello = Hello::new(Mode::Command, "user");
        let guest = Guest { iommu: IommuMode::Strict, cpu: Cpu::Neutral, parameters: Vec::new() };
        hello.expected = Some(expected(&Topology::default(), &guest).unwrap());
        let text = line(&hello).unwrap();
        assert!(text.contains(r#""paths":[[0,1,"host",4,"iova"]],"groups":[4,5]"#), "{text}");
        let mut largest = Topology::root_ports(16);
        for port in 0..16 {
            largest.add(&format!("ioat,below=port{port},function=1").parse().unwrap()).unwrap();
        }
        hello.expected = Some(expected(&largest, &guest).unwrap());
        assert!(line(&hello).is_ok(), "the largest topology fits");
        let switch = include_str!("../../../ci/topologies/switch.toml");
        let half = Topology::parse("t", &switch.replacen("\"none\"", "\"RR\"", 1)).unwrap();
        let half = expected(&half, &guest).unwrap();
        assert_eq!((half.direct_requests, half.direct_completions), (vec![0, 1], vec![2, 1]));
        hello.command = vec!["x".repeat(70_000)];
        assert!(line(&hello).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn devices_of_other_kinds_have_expectations_of_their_own() {
        let guest = Guest { iommu: IommuMode::Strict, cpu: Cpu::Neutral, parameters: Vec::new() };
        let of = |topology: &str, devices: &[&str]| {
            let mut topology = Topology::load(topology).unwrap();
            for device in devices {
                topology.add(&device.parse().unwrap()).unwrap();
            }
            expected(&topology, &guest).unwrap()
        };
        let host = (Way::Host, 4, Address::Iova);
        let plain = of("root-ports", &["ioat"]);
        assert_eq!(plain.others[0].function, "03:00.0");
        assert_eq!(plain.others[0].paths, [host, host]);
        assert_eq!(plain.paths, of("root-ports", &[]).paths);

        // Below the same switch its traffic is turned around; below a root port it is not.
        let switch = of("switch", &["ioat,below=switch0", "ioat"]);
        assert_eq!(switch.others[0].paths, [(Way::Bus, 4, Address::Bus); 2]);
        assert_eq!(switch.others[1].paths, [(Way::Host, 6, Address::Iova); 2]);

        let two = of("two-bridges", &["ioat,below=bridge0", "ioat,below=bridge1"]);
        let (near, none) = ((Way::Host, 3, Address::Iova), (Way::None, -1, Address::None));
        assert_eq!(two.others[0].paths, [near, near, none]);
        assert_eq!(two.others[1].paths, [none, none, near]);
        assert_eq!(two.paths, of("two-bridges", &[]).paths);

        // One port that redirects is enough for Linux; completions enter by another one.
        let text = include_str!("../../../ci/topologies/switch.toml");
        let mut half = Topology::parse("t", &text.replacen("\"none\"", "\"RR\"", 1)).unwrap();
        half.add(&"ioat,below=switch0".parse().unwrap()).unwrap();
        let half = expected(&half, &guest).unwrap();
        let engine = &half.others[0];
        assert_eq!(engine.paths, [host, (Way::Bus, 4, Address::Bus)]);
        assert_eq!((engine.direct_requests, engine.direct_completions), (1, 1));
    }
}
