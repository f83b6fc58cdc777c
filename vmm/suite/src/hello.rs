//! The answer to the guest's `hello`: the expectations of Linux that go with it, and its length.

use std::fmt;

use guest_protocol::{self as protocol, OK, wire};
pub use guest_protocol::{Address, Expected, Hello, Mode, Module, Other, Path, PathKind};

use peerdma_topology::linux::{AddressKind, Guest, MapType, View};
use peerdma_topology::{Arrival, Kind, Plan, Planned};

/// The protocol's word for a kind of address.
pub fn address(kind: AddressKind) -> Address {
    match kind {
        AddressKind::Bus => Address::Bus,
        AddressKind::Physical => Address::Phys,
        AddressKind::Iova => Address::Iova,
        AddressKind::Refused => Address::None,
    }
}

/// The word of the protocol for what becomes of requests.
fn word(arrival: Arrival) -> protocol::Arrival {
    match arrival {
        Arrival::Switch => protocol::Arrival::Bus,
        Arrival::RootComplex => protocol::Arrival::Host,
        Arrival::Refused(class) => protocol::Arrival::Refused(class.name().into()),
        Arrival::Elsewhere => protocol::Arrival::Elsewhere,
    }
}

/// What Linux should make of a topology, by the account of it in [`peerdma_topology::linux`], and
/// what the hardware does.
pub fn expected(plan: &Plan, guest: &Guest) -> Expected {
    let view = View::new(plan, guest);
    let peers = plan.peers();
    let kinds = plan.functions.iter().enumerate();
    let others: Vec<_> = kinds.filter(|(_, own)| matches!(own.kind, Kind::Endpoint(..))).collect();
    let clients = peers.iter().copied().chain(others.iter().map(|(other, _)| *other));
    let all = clients.flat_map(|client| peers.iter().map(move |owner| (*owner, client)));
    let messages = view.warnings(all.filter(|(owner, client)| owner != client));
    let mut paths = Vec::new();
    for (client, &from) in (0..).zip(&peers) {
        for (owner, &to) in (0..).zip(&peers).filter(|(owner, _)| *owner != client) {
            paths.push((client, owner, path(&view, to, from)));
        }
    }
    let other = |(client, function): (usize, &Planned)| Other {
        function: function.bdf.to_string(),
        name: function.name.clone(),
        paths: peers.iter().map(|&peer| path(&view, peer, client)).collect(),
    };
    let others = others.into_iter().map(other).collect();
    let groups = view.groups();
    let number = |group| u32::try_from(group).unwrap_or(u32::MAX);
    let groups = peers.iter().filter_map(|peer| groups[*peer].map(number)).collect();
    Expected { topology: plan.name.clone(), paths, groups, messages, others }
}

/// What is expected of DMA by `client` into the memory of `provider`.
fn path(view: &View<'_>, provider: usize, client: usize) -> Path {
    let decision = view.decide(provider, client);
    let (way, distance) = match decision.map {
        MapType::BusAddress => (PathKind::Bus, decision.distance),
        MapType::ThroughHostBridge => (PathKind::Host, decision.distance),
        MapType::NotSupported => (PathKind::None, u32::MAX),
    };
    let routes = view.routes(client, provider);
    Path {
        way,
        distance: i32::try_from(distance).unwrap_or(-1),
        address: address(view.dma_address(client, decision.map)),
        by_bus: word(routes.by_bus_address.arrival),
        by_cpu: word(routes.by_cpu_address.arrival),
        by_iova: word(routes.by_iova.arrival),
        completions: word(routes.completions.arrival),
    }
}

/// Longest answer in bytes: `ok ` goes in front.
const MAX_LENGTH: usize = wire::MAX_ANSWER - OK.len() - 1;

/// The answer does not fit through the protocol port.
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
    use peerdma_topology::Topology;

    use super::*;

    fn plan(topology: &Topology) -> Plan {
        Plan::new(topology, true).unwrap()
    }
    use peerdma_topology::Cpu;
    use peerdma_topology::assembly::IommuMode;

    #[test]
    fn the_line_holds_the_largest_topology_and_not_more() {
        let mut hello = Hello::new(Mode::Command, "user");
        let guest = Guest { iommu: IommuMode::Strict, cpu: Cpu::Neutral, parameters: Vec::new() };
        hello.expected = Some(expected(&plan(&Topology::default()), &guest));
        let text = line(&hello).unwrap();
        let path = r#"["host",4,"iova","iommu.unmapped","iommu.unmapped","host","host"]"#;
        let both = format!(r#""paths":[[0,1,{path}],[1,0,{path}]],"groups":[4,5]"#);
        assert!(text.contains(&both), "{text}");
        let mut largest = Topology::root_ports(16);
        for port in 0..16 {
            largest.add(&format!("ioat,below=port{port},function=1").parse().unwrap()).unwrap();
        }
        hello.expected = Some(expected(&plan(&largest), &guest));
        assert!(line(&hello).is_ok(), "the largest topology fits");
        hello.command = vec!["x".repeat(70_000)];
        assert!(line(&hello).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn devices_of_other_kinds_have_expectations_of_their_own() {
        use protocol::Arrival::Bus;
        let guest = Guest { iommu: IommuMode::Strict, cpu: Cpu::Neutral, parameters: Vec::new() };
        let of = |topology: &str, devices: &[&str]| {
            let mut topology = Topology::load(topology).unwrap();
            for device in devices {
                topology.add(&device.parse().unwrap()).unwrap();
            }
            expected(&plan(&topology), &guest)
        };
        let linux = |other: &Other| -> Vec<_> {
            other.paths.iter().map(|path| (path.way, path.distance, path.address)).collect()
        };
        let host = (PathKind::Host, 4, Address::Iova);
        let plain = of("root-ports", &["ioat"]);
        assert_eq!(plain.others[0].function, "03:00.0");
        assert_eq!(linux(&plain.others[0]), [host, host]);
        assert_eq!(plain.paths, of("root-ports", &[]).paths);

        // Below the same switch its traffic is turned around; below a root port it is not.
        let switch = of("switch", &["ioat,below=switch0", "ioat"]);
        assert_eq!(linux(&switch.others[0]), [(PathKind::Bus, 4, Address::Bus); 2]);
        assert_eq!(linux(&switch.others[1]), [(PathKind::Host, 6, Address::Iova); 2]);

        let two = of("two-bridges", &["ioat,below=bridge0", "ioat,below=bridge1"]);
        let (near, none) =
            ((PathKind::Host, 3, Address::Iova), (PathKind::None, -1, Address::None));
        assert_eq!(linux(&two.others[0]), [near, near, none]);
        assert_eq!(linux(&two.others[1]), [none, none, near]);
        assert_eq!(two.paths, of("two-bridges", &[]).paths);

        // One port that redirects is enough for Linux; completions enter by another one.
        let text = Topology::preset_text("switch").unwrap();
        let mut half = Topology::parse("t", &text.replacen("\"none\"", "\"RR\"", 1)).unwrap();
        half.add(&"ioat,below=switch0".parse().unwrap()).unwrap();
        let half = expected(&plan(&half), &guest);
        let engine = &half.others[0];
        assert_eq!(linux(engine), [host, (PathKind::Bus, 4, Address::Bus)]);
        let [to_first, to_second] = &engine.paths[..] else { panic!() };
        assert_eq!((&to_first.by_bus, &to_first.completions), (&Bus, &Bus));
        assert_eq!((&to_second.by_bus, &to_second.completions), (&Bus, &Bus));
        let of = |client, owner| {
            let path = half.paths.iter().find(|path| (path.0, path.1) == (client, owner)).unwrap();
            (path.2.by_bus.clone(), path.2.completions.clone())
        };
        assert_eq!(of(0, 1), (protocol::Arrival::Refused("iommu.unmapped".into()), Bus));
        assert_eq!(of(1, 0), (Bus, Bus));
    }
}
