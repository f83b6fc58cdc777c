//! A random topology: the same seed gives the same one.

use peerdma_support::random;

use super::description::{HostBridge, PciId, Peer, PeerRouting, RootPort, Switch, SwitchPort};
use super::{Acs, Cpu, Topology};

/// Host bridges that Linux trusts everywhere, inside one bridge, and not at all.
const BRIDGES: [&str; 6] =
    ["8086:2020", "8086:2020", "1ae0:0001", "8086:3c00", "8086:2f00", "8086:a700"];
/// Access Control Services of ports: none, all that ordinary ones have, and parts of them.
const ACS: [&str; 9] =
    ["none", "none", "none", "standard", "standard", "SV RR CR UF", "SV RR", "CR UF", "RR CR"];
/// Of devices with several functions.
const FUNCTION_ACS: [&str; 3] = ["none", "RR CR", "none"];
/// Bytes, so that many devices fit into a host bridge's window.
const MEMORY: u64 = 64 << 20;
/// More of them take more time, and no further question.
const MAX_PEERS: usize = 5;

impl Topology {
    /// One to three host bridges with ports, switches and up to five peer devices below them, at least one, and perhaps an
    /// I/OAT engine.
    pub fn random(seed: u64) -> Self {
        let mut draw = Draw { state: seed, topology: empty(seed), places: Vec::new() };
        let bridges = 1 + draw.below(3) / 2 + draw.below(4) / 3;
        let translation = draw.one_of(&[0, 0x20_0000_0000]);
        for index in 0..bridges {
            draw.bridge(index, translation);
        }
        draw.devices();
        draw.topology
    }
}

fn empty(seed: u64) -> Topology {
    Topology {
        name: format!("random-{seed}"),
        description: format!("drawn at random, seed {seed}"),
        host_bridges: Vec::new(),
        root_ports: Vec::new(),
        peers: Vec::new(),
        cpu: Cpu::Neutral,
        ..Topology::default()
    }
}

/// A topology while it grows.
struct Draw {
    state: u64,
    topology: Topology,
    /// Ports without anything below them, and host bridges.
    places: Vec<String>,
}

impl Draw {
    /// A number below `end`, which is small: the unevenness of the remainder does not show.
    fn below(&mut self, end: u64) -> u64 {
        random::next(&mut self.state).checked_rem(end).unwrap_or(0)
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).unwrap_or(0)]
    }

    fn acs(&mut self, list: &[&str]) -> Acs {
        self.one_of(list).parse().unwrap_or(Acs::NONE)
    }

    fn bridge(&mut self, index: u64, translation: u64) {
        let name = format!("bridge{index}");
        let id = self.one_of(&BRIDGES).parse().unwrap_or(PciId { vendor: 0x8086, device: 0x2020 });
        // Most root complexes route as Linux thinks, or further.
        let peer_routing = match self.below(8) {
            0 => PeerRouting::Nowhere,
            1 => PeerRouting::SameBridge,
            _ => PeerRouting::Everywhere,
        };
        self.topology.host_bridges.push(HostBridge {
            name: name.clone(),
            id,
            first_bus: None,
            last_bus: None,
            translation,
            memory: None,
            prefetchable: None,
            peer_routing,
        });
        for port in 0..1 + self.below(2) {
            let root_port = format!("{name}-port{port}");
            let acs = self.acs(&["standard", "standard", "SV RR CR UF", "none"]);
            self.topology.root_ports.push(RootPort {
                name: root_port.clone(),
                on: name.clone(),
                device: 4 + u8::try_from(port).unwrap_or(0),
                function: 0,
                acs,
                acs_without_effect: Acs::NONE,
                hot_plug: false,
            });
            match self.below(2) {
                0 => self.places.push(root_port),
                _ => self.switch(&root_port, 0),
            }
        }
        if self.below(3) == 0 {
            self.places.push(name);
        }
    }

    fn switch(&mut self, below: &str, depth: u8) {
        let name = format!("{below}-sw");
        let count = 2 + self.below(2);
        // Ports of one switch are mostly of one kind.
        let own = self.acs(&ACS);
        let at = self.topology.switches.len();
        let switch = Switch { name: name.clone(), below: below.to_owned(), ports: Vec::new() };
        self.topology.switches.push(switch);
        for port in 0..count {
            let port_name = format!("{name}{port}");
            let acs = if self.below(4) == 0 { self.acs(&ACS) } else { own };
            self.topology.switches[at].ports.push(SwitchPort {
                name: port_name.clone(),
                device: u8::try_from(port).unwrap_or(0),
                acs,
                acs_without_effect: Acs::NONE,
                hot_plug: false,
            });
            match self.below(4) {
                0 if depth == 0 => self.switch(&port_name, depth + 1),
                _ => self.places.push(port_name),
            }
        }
    }

    /// Peer devices at random places, some of them as further functions of another one.
    fn devices(&mut self) {
        let mut root_devices = 16;
        while self.topology.peers.len() < MAX_PEERS && !self.places.is_empty() {
            let at = usize::try_from(self.below(self.places.len() as u64)).unwrap_or(0);
            let below = self.places.swap_remove(at);
            let is_root = self.topology.host_bridges.iter().any(|bridge| bridge.name == below);
            let device = if is_root { root_devices } else { 0 };
            root_devices += u8::from(is_root);
            let functions = if self.below(6) == 0 { 2 } else { 1 };
            for function in 0..functions {
                let acs = if functions > 1 { self.acs(&FUNCTION_ACS) } else { Acs::NONE };
                // The order of names is not that of addresses.
                let name = format!("dev{}", 9 - self.topology.peers.len());
                self.topology.peers.push(Peer {
                    name,
                    below: below.clone(),
                    device,
                    function,
                    acs,
                    local_memory: Some(MEMORY),
                });
            }
        }
        if self.below(3) == 0
            && let Some(below) = self.places.pop()
            && let Ok(engine) = format!("ioat,channels=1,name=engine,below={below}").parse()
        {
            // Not every place has room for one: then there is none.
            let _ = self.topology.add(&engine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembly::IommuMode;
    use crate::assembly::{AssemblyError, IommuKind, SystemConfig};
    use crate::linux::{Guest, MapType, View};
    use crate::{Arrival, Plan};

    #[test]
    fn every_seed_gives_a_machine_that_there_can_be_and_always_the_same() {
        for seed in 0..300 {
            let topology = Topology::random(seed);
            assert_eq!(topology, Topology::random(seed));
            let text = toml::to_string(&topology).unwrap();
            assert_eq!(Topology::parse("t", &text).unwrap(), topology);
            let system =
                SystemConfig { topology, iommu: IommuKind::Virtio, ..SystemConfig::default() };
            let layout =
                system.plan().map_err(AssemblyError::from).and_then(|plan| system.layout(&plan));
            assert!(layout.is_ok(), "{seed}: {:?}\n{text}", layout.err());
        }
    }

    #[test]
    fn all_kinds_of_paths_come_up_soon() {
        let mut maps = [0; 3];
        let mut arrivals = [0; 3];
        for seed in 1..=40 {
            let topology = Topology::random(seed);
            let guest =
                Guest { iommu: IommuMode::Strict, cpu: Cpu::Neutral, parameters: Vec::new() };
            let plan = Plan::new(&topology, true).unwrap();
            let view = View::new(&plan, &guest);
            let peers = plan.peers();
            for (owner, client) in peers
                .iter()
                .flat_map(|a| peers.iter().map(move |b| (*a, *b)))
                .filter(|(a, b)| a != b)
            {
                let map = view.decide(owner, client).map;
                maps[match map {
                    MapType::BusAddress => 0,
                    MapType::ThroughHostBridge => 1,
                    MapType::NotSupported => 2,
                }] += 1;
                let by = view
                    .routes(client, owner)
                    .by(view.address_kind(map))
                    .map(|route| route.arrival);
                arrivals[match by {
                    Some(Arrival::Switch | Arrival::RootComplex) => 0,
                    Some(_) => 1,
                    None => 2,
                }] += 1;
            }
        }
        assert!(maps.iter().all(|count| *count > 20), "{maps:?}");
        assert!(arrivals.iter().all(|count| *count > 5), "{arrivals:?}");
    }
}
